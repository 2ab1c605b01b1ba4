"""The tiny task by the other door: parties that choose their batches themselves, as the source system's scripts do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from heterofed import CollaboratorScheduler
from tests.tiny import BareHost, Rows, labels, row_of


def cut(ids: list[str], size: int) -> Iterator[list[str]]:
    """Yield the ids in batches of `size`, the last one smaller."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


class OwnHost(BareHost):
    """Yields (embedding, labels)."""

    def __init__(self, *args: Any, size: int = 16, **kwargs: Any) -> None:
        super().__init__(*args, shuffle=False, **kwargs)
        self.size = size

    def iterate_train_feature(self, feature_model: nn.Module, train_ids: list[str]) -> Any:
        for ids in cut(train_ids, self.size):
            self.orders.append(ids)
            yield feature_model(self.rows(ids)), labels()[[row_of(each) for each in ids]]

    def iterate_test_feature(self, feature_model: nn.Module, test_ids: list[str]) -> Any:
        for ids in cut(test_ids, self.size):
            yield feature_model(self.rows(ids)), labels()[[row_of(each) for each in ids]]


class OwnCollaborator(Rows, CollaboratorScheduler):
    """Yields embeddings."""

    def __init__(self, feature_key: str = "c1", *, party: int = 1, size: int = 16, **kwargs: Any) -> None:
        super().__init__(feature_key, **kwargs)
        self.party = party
        self.size = size

    def iterate_train_feature(self, feature_model: nn.Module, train_ids: list[str]) -> Any:
        for ids in cut(train_ids, self.size):
            yield feature_model(self.rows(ids))

    def iterate_test_feature(self, feature_model: nn.Module, test_ids: list[str]) -> Any:
        for ids in cut(test_ids, self.size):
            yield feature_model(self.rows(ids))

"""What the owners of some agents have registered."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from heterofed import DataChecker
from tests.tiny import Collaborator, Host


class Bank(Host):
    """The host; takes its time, so that a test can look on or interfere."""

    def __init__(self, feature_key: str = "host") -> None:
        super().__init__(feature_key, max_rounds=int(os.environ.get("TEST_ROUNDS", "2")))

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
        time.sleep(float(os.environ.get("TEST_BATCH_S", "0.02")))
        return super().train_a_batch(feature_projection, labels)


class Shop(Collaborator):
    """The collaborator; has no argument of its own."""

    def __init__(self) -> None:
        super().__init__("c1")


class Good(DataChecker):
    """Accepts its data; says whose they are."""

    def verify_data(self) -> bool:
        Path(os.environ["TEST_FOLDER"], f"checked-{self.feature_key}").write_text(str(os.getpid()))
        return True


class Bad(DataChecker):
    """Refuses its data."""

    def verify_data(self) -> tuple[bool, str]:
        return False, "a column is missing"


class Raising(DataChecker):
    """Its code raises."""

    def verify_data(self) -> bool:
        raise KeyError("secret-person")


class NoParty:
    """Is something else."""


def not_a_class() -> None:
    """Make nothing."""


def never_made(feature_key: str) -> None:
    """Raise."""
    raise RuntimeError("no data here")

"""What tests of table parties share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def quick_and_exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ids are matched the faster way; more threads may sum in another order."""
    monkeypatch.setenv("HETEROFED_PSI_PROTOCOL", "ecdh")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

"""What several tests of parties need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def quick_and_exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ids are matched the faster way; more threads may sum in another order."""
    monkeypatch.setenv("HETEROFED_PSI_PROTOCOL", "ecdh")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

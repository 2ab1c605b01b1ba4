"""How many threads a party computes with."""

from __future__ import annotations

import torch

from heterofed.cores import cores


def threads_each(parties: int) -> int:
    """Return how many threads each of so many parties should take where they share this machine; 1 at least."""
    return max(1, cores() // max(1, parties))


def use_threads(count: int) -> None:
    """Let torch compute with so many threads in this process; 0: with as many as before."""
    if count:
        torch.set_num_threads(count)

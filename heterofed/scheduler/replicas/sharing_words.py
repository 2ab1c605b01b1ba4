"""What the processes of one party tell each other.

    first                              the others
    -----                              ----------
                                       Here                           once
    Pass                               Ready                          over the train or test ids; then for each batch:
    Forward, weights where they moved  Made, embedding of the share
    Backward, gradient of the share                                   where the model learns
    End                                                               once

`Failed` may come in the place of any word of the others. A share that could not be loaded is told where its embedding
is due: the others load the next share while the first process is busy elsewhere.

The processes are one party's, and of one version: nothing here is a peer's, or kept.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from heterofed.frames.messages import Terms


class SharedIds(Struct, frozen=True):
    """The ids that all parties share, and how this party has split them."""

    all: list[str]
    train: list[str]
    test: list[str]


class Pass(Struct, frozen=True, tag=True):
    """First -> others: a pass over ids begins."""

    ids: list[str]
    batch_size: int
    first: int
    """The first batch that is computed, from 0."""
    train: bool
    with_labels: bool
    round: int
    iteration: int
    terms: Terms
    limit_s: float
    """How long a step may take; 0: no limit."""
    device: str
    layout: str
    modes: bytes
    shared: SharedIds | None
    """None: as before."""


class Forward(Struct, frozen=True, tag=True):
    """First -> others: compute the embeddings of a batch."""

    turn: int
    """Number of this forward pass."""
    batch: int
    again: bool
    """Whether the batch was computed before, with other weights."""
    learning: bool
    """Whether a backward pass may follow."""
    weights: bool
    """Whether weights follow."""
    modes: bytes
    """Empty: as before."""


class Backward(Struct, frozen=True, tag=True):
    """First -> others: the gradient of a forward pass follows."""

    turn: int


class End(Struct, frozen=True, tag=True):
    """First -> others: nothing more comes, and how it ended."""

    completed: bool
    weights: bool = False
    """Whether the last weights follow."""
    rounds: int = 0
    out_dir: str = ""
    files: tuple[str, ...] = ()
    tables: dict[str, list[list[Any]]] | None = None


class Here(Struct, frozen=True, tag=True):
    """Others -> first: this process can take part."""

    party: str
    """Which party's it is, of which task."""


class Ready(Struct, frozen=True, tag=True):
    """Others -> first: this process can take part in the pass."""


class Made(Struct, frozen=True, tag=True):
    """Others -> first: the embedding of a share follows, where the batch is shared."""

    turn: int
    dtype: str
    width: list[int]
    """Its shape after the rows."""
    unreached: list[int]
    """Parameters that took no part in it."""


class Failed(Struct, frozen=True, tag=True):
    """Others -> first: this process cannot go on; what an error of ours says."""

    kind: str
    what: str
    expected: str | None
    advice: str | None
    public: str | None
    """What the other parties may hear of it, where that is less."""

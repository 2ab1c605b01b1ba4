"""What a fuzzer says in the end, and how a sequence that broke something is kept."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.chaos.corpus.mutations import Frames
from tests.chaos.corpus.target import hash_of


class Outcome(msgspec.Struct):
    """What a fuzzer says in the end."""

    sequences: int
    seconds: float
    problem: str = ""
    """Empty where all went well; else what came out, with the seed and the hash of the bytes."""
    legal: int = 0
    """Messages that a session took all the same."""
    most_bytes: int = 0
    """Memory that the process grew by, or that reading one message took beyond its size."""


def watched(sequence: list[Frames], folder: Path, seed: int, number: int, error: BaseException) -> str:
    """Keep a sequence that broke something; returns a line that says how to see it again."""
    name = hash_of(sequence)
    whole = [[bytes(frame) for frame in frames] for frames in sequence]
    (folder / f"{name}.msgpack").write_bytes(msgspec.msgpack.encode(whole))
    return f"{type(error).__name__}: {str(error)[:120]} (seed {seed}, sequence {number}, bytes {name})"

"""Fuzzing led by coverage: `python -m tests.chaos.corpus.covered FOLDER COUNT -seed=S …` (the rest is libFuzzer's).

One input is a moment and a sequence: two bytes that choose the moment, then frames, each after two bytes, of which the
lower 15 bits are its length and the highest says whether it ends its message. Needs atheris, which instruments our
modules as they are imported; msgspec is compiled and stays as it is.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path

END = 1 << 15
CHECK_MEMORY_EVERY = 10_000


def written(moment: int, sequence: list[list[bytes]]) -> bytes:
    """Return the input that stands for a sequence at a moment."""
    data = moment.to_bytes(2, "little")
    for frames in sequence:
        for number, frame in enumerate(frames, 1):
            data += (len(frame) | END * (number == len(frames))).to_bytes(2, "little") + frame
    return data


def read(data: bytes) -> tuple[int, list[list[bytes]]]:
    """Return the moment and the sequence that an input stands for; every input stands for one."""
    sequence: list[list[bytes]] = [[]]
    at = 2
    while at + 2 <= len(data) and len(sequence) < 9:
        word = int.from_bytes(data[at : at + 2], "little")
        length = word & (END - 1)
        sequence[-1].append(data[at + 2 : at + 2 + length])
        at += 2 + length
        if word & END:
            sequence.append([])
    return int.from_bytes(data[:2], "little"), sequence if sequence[-1] else sequence[:-1]


def main(folder: Path, count: int, options: list[str]) -> None:
    """Fuzz until `count` inputs were made besides the valid ones.

    Ends the process, with another status than 0 where something came out.
    """
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["heterofed.frames", "heterofed.protocol"]):
        from tests.chaos.corpus.target import Target, check_growth, peak_bytes
    target = Target((folder / "conversations.msgpack").read_bytes())
    moments = [moment for phase in target.moments for moment in phase]
    seeds = folder / "seeds"
    shutil.rmtree(seeds, ignore_errors=True)
    seeds.mkdir()
    for number, moment in enumerate(moments):
        (seeds / str(number)).write_bytes(written(number, moment.coming))

    inputs, base = 0, peak_bytes()

    def attack(data: bytes) -> None:
        nonlocal inputs
        number, sequence = read(data)
        target.feed(moments[number % len(moments)], sequence)
        inputs += 1
        if inputs % CHECK_MEMORY_EVERY == 0:
            check_growth(base)

    runs = f"-runs={count + len(moments)}"  # libFuzzer counts those that it begins with
    atheris.Setup([sys.argv[0], runs, *options, f"-artifact_prefix={folder}{os.sep}", str(seeds)], attack)
    atheris.Fuzz()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])

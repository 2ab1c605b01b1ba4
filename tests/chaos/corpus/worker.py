"""One fuzzer in a process of its own: `python -m tests.chaos.corpus.worker KIND SEED COUNT FOLDER`.

Its last line of output is an `Outcome` as JSON. FOLDER holds `conversations.msgpack`; a sequence that breaks something
is written there, as a msgpack list of messages, each a list of frames.
"""

from __future__ import annotations

import logging
import random
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

from heterofed.errors import FrameError
from heterofed.frames.codec import MAX_HEADER_BYTES, Codec
from tests.chaos.corpus.below import parts, reliable
from tests.chaos.corpus.mutations import CLAIMS, VALUES, Frames, Mutator
from tests.chaos.corpus.outcome import Outcome, watched
from tests.chaos.corpus.target import Broken, Moment, Target, check_growth, peak_bytes

CONVERSATIONS = "conversations.msgpack"

CONSTANT_BYTES = 80 * MAX_HEADER_BYTES
"""What reading a message may take beyond its own size: a byte of a header can stand for an object of 72 bytes."""

WARM_UP = 2000


def mutator(seed: int, count: int, folder: Path) -> Outcome:
    """Seeded mutations of valid messages, in plain Python."""
    target = Target((folder / CONVERSATIONS).read_bytes())
    makes = Mutator(target.messages, seed)
    began, base, number = time.perf_counter(), 0, 0
    for number in range(count):
        sequence, error = target.feed_next(makes)
        if error is not None:
            return Outcome(number, time.perf_counter() - began, watched(sequence, folder, seed, number, error))
        if number == min(WARM_UP, count // 2):
            base = peak_bytes()
    outcome = Outcome(count, time.perf_counter() - began, legal=target.accepted)
    try:
        outcome.most_bytes = check_growth(base)
    except Broken as error:
        outcome.problem = f"{error} (seed {seed})"
    return outcome


def hypothesis(seed: int, count: int, folder: Path) -> Outcome:
    """What Hypothesis makes of the names and of fields that no message has."""
    target = Target((folder / CONVERSATIONS).read_bytes())
    moments = [moment for phase in target.moments for moment in phase]
    names = sorted({msgspec.msgpack.decode(each[0])[0] for each in target.messages})
    valid = st.sampled_from(target.messages)
    value = st.sampled_from(VALUES) | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.floats()
    fields = st.lists(value | st.lists(value, max_size=4), max_size=9)
    header = st.builds(lambda name, rest: msgspec.msgpack.encode([name, *rest]), st.sampled_from(names), fields)
    blobs = st.lists(st.binary(max_size=32), max_size=2)
    cut = st.builds(
        lambda frames, at, more: [frames[0][:at] + more, *frames[1:]], valid, st.integers(0, 80), blobs.map(b"".join)
    )
    made = st.builds(lambda head, rest: [head, *rest], header | st.binary(max_size=64), blobs)
    sequences = st.lists(made | cut | valid.map(list), min_size=1, max_size=3)
    tried, last = 0, list[Frames]()

    @hypothesis_seed(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(moments), sequences)
    def attack(moment: Moment, sequence: list[Frames]) -> None:
        nonlocal tried, last
        tried, last = tried + 1, sequence
        target.feed(moment, sequence)

    began = time.perf_counter()
    try:
        attack()
    except Exception as error:
        return Outcome(tried, time.perf_counter() - began, watched(last, folder, seed, tried, error))
    return Outcome(tried, time.perf_counter() - began, legal=target.accepted)


def memory(seed: int, count: int, folder: Path) -> Outcome:
    """Headers that claim more than they hold, at every place of every message: what reading each of them takes."""
    target, codec = Target((folder / CONVERSATIONS).read_bytes()), Codec()
    dice = random.Random(seed)
    makes = Mutator(target.messages, seed)
    began, most = time.perf_counter(), 0
    tracemalloc.start()
    for number in range(count):
        frames: Frames = list(dice.choice(target.messages))
        header = frames[0]
        at = int(dice.random() * (len(header) + 1))
        if dice.random() < 0.8:
            frames[0] = header[:at] + dice.choice(CLAIMS) + header[at:]
        else:
            frames[0] = makes.crowded(header)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        try:
            codec.decode(frames)
        except FrameError:
            pass
        except Exception as error:
            return Outcome(number, time.perf_counter() - began, watched([frames], folder, seed, number, error))
        took = tracemalloc.get_traced_memory()[1] - before - sum(len(each) for each in frames)
        most = max(most, took)
        if took > CONSTANT_BYTES:
            large = Broken(f"reading took {took} bytes beyond its size; expected at most {CONSTANT_BYTES}")
            return Outcome(number, time.perf_counter() - began, watched([frames], folder, seed, number, large))
    tracemalloc.stop()
    return Outcome(count, time.perf_counter() - began, most_bytes=most)


KINDS: dict[str, Callable[[int, int, Path], Outcome]] = {
    "mutator": mutator,
    "hypothesis": hypothesis,
    "parts": parts,
    "reliable": reliable,
    "memory": memory,
}

if __name__ == "__main__":
    logging.disable()  # the transport says of every peer what it thinks of it
    kind, seed, count, folder = sys.argv[1:]
    print(msgspec.json.encode(KINDS[kind](int(seed), int(count), Path(folder))).decode())

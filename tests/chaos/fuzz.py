"""Hostile bytes: a million mutated frame sequences into the codec and the sessions, by three fuzzers, and more below.

Each fuzzer is a process of its own (see `tests/chaos/corpus/`), so that one that dies or grows is seen; a red cell
names the seed and the hash of the bytes, which lie in the run's folder under that name.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from tests.chaos.corpus.conversations import conversations, packed
from tests.chaos.corpus.outcome import Outcome
from tests.chaos.corpus.worker import CONVERSATIONS
from tests.chaos.report import Cell, Plan

ROOT = Path(__file__).parents[2]

SEQUENCES = 1_000_000
"""Into codec and sessions, all fuzzers together."""

BY_HYPOTHESIS, BY_ATHERIS = 0.01, 0.4
"""Shares of these; the rest is the seeded mutator's."""

BESIDES = [
    ("parts of a ZeroMQ message", "parts", 200_000),
    ("reliable transport", "reliable", 100_000),
    ("memory of claimed sizes", "memory", 100_000),
]
"""What else is fuzzed, below the codec and under the eye of tracemalloc: name, kind of worker, sequences."""

PROCESSES = 2
LEAST_PER_SECOND = 500
"""A fuzzer slower than this hangs: the deadline of its process."""


def cells(plan: Plan) -> Iterator[Cell]:
    """Run every fuzzer; one cell each."""
    folder = (plan.folder / "fuzz").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONVERSATIONS).write_bytes(packed(conversations(plan.seed, 16)))
    total = max(300, round(SEQUENCES * plan.share))
    by_hypothesis, by_atheris = round(total * BY_HYPOTHESIS), round(total * BY_ATHERIS)
    if importlib.util.find_spec("atheris") is None:
        by_atheris = 0
        missing = "atheris is not installed: its share is the seeded mutator's"
        yield Cell("fuzz", "codec and session, atheris", True, 0.0, missing)
    else:
        yield _atheris(plan.seed, by_atheris, folder)
    yield _fuzzed("codec and session, seeded mutator", "mutator", plan.seed, total - by_hypothesis - by_atheris, folder)
    yield _fuzzed("codec and session, Hypothesis", "hypothesis", plan.seed, by_hypothesis, folder, 1)
    for name, kind, whole in BESIDES:
        yield _fuzzed(name, kind, plan.seed, max(300, round(whole * plan.share)), folder)


def _fuzzed(name: str, kind: str, seed: int, count: int, folder: Path, processes: int = PROCESSES) -> Cell:
    """Run one kind of worker in a few processes that share its sequences."""
    began = time.monotonic()
    processes = min(processes, max(1, count // 5000))
    shares = [count // processes + (number < count % processes) for number in range(processes)]
    with ThreadPoolExecutor(processes) as pool:
        outcomes = list(pool.map(lambda at: _worker(kind, seed * PROCESSES + at, shares[at], folder), range(processes)))
    seconds = time.monotonic() - began
    done = sum(each.sequences for each in outcomes)
    problem = next((each.problem for each in outcomes if each.problem), "")
    if not problem and done < count:
        problem = f"only {done} of {count} sequences were tried"
    note = _counted(done, done / max(1e-9, max(each.seconds for each in outcomes)))
    if legal := sum(each.legal for each in outcomes):
        note += f"; {legal:,} messages still legal"
    if most := max(each.most_bytes for each in outcomes):
        note += f"; {most >> 10:,} KiB more memory at most"
    return Cell("fuzz", name, not problem, seconds, problem or note)


def _worker(kind: str, seed: int, count: int, folder: Path) -> Outcome:
    command = [sys.executable, "-m", "tests.chaos.corpus.worker", kind, str(seed), str(count), str(folder)]
    try:
        ended = _run(command, count)
        return msgspec.json.decode(ended.stdout.splitlines()[-1], type=Outcome)
    except subprocess.TimeoutExpired:
        return Outcome(0, 0.0, f"hangs (seed {seed})")
    except (IndexError, msgspec.MsgspecError):
        last = (ended.stderr.strip().splitlines() or ["no word"])[-1]
        return Outcome(0, 0.0, f"its process ended with {ended.returncode}: {last[:200]} (seed {seed})")


def _atheris(seed: int, count: int, folder: Path) -> Cell:
    """Run the fuzzer that is led by coverage; it watches its memory, and libFuzzer the time of each input."""
    name, began = "codec and session, atheris", time.monotonic()
    options = [f"-seed={seed or 1}", "-max_len=4096", "-rss_limit_mb=0"]
    command = [sys.executable, "-m", "tests.chaos.corpus.covered", str(folder), str(count), *options, "-timeout=10"]
    try:
        ended = _run(command, count)
    except subprocess.TimeoutExpired:
        return Cell("fuzz", name, False, time.monotonic() - began, f"hangs (seed {seed})")
    seconds = time.monotonic() - began
    done = re.search(r"Done (\d+) runs in (\d+) second", ended.stderr)
    if ended.returncode or done is None:
        lines = re.findall(r"^(?:\w*Error: .*|.*Broken: .*|.*written to.*)$", ended.stdout + ended.stderr, re.MULTILINE)
        said = " | ".join(each.strip()[:150] for each in lines[:3]) or ended.stderr[-200:]
        return Cell("fuzz", name, False, seconds, f"ended with {ended.returncode} (seed {seed}): {said}")
    begun = re.search(r"seed corpus: files: (\d+)", ended.stderr)
    runs = int(done[1]) - (int(begun[1]) if begun else 0)
    covered = re.findall(r"cov: (\d+)", ended.stderr)
    note = f"{_counted(runs, runs / max(1, int(done[2])))}; {covered[-1] if covered else '?'} branches covered"
    return Cell("fuzz", name, runs >= count, seconds, note)


def _counted(sequences: int, rate: float) -> str:
    return f"{sequences:,} sequences, {rate:,.0f} a second"


def _run(command: list[str], count: int) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60 + count / LEAST_PER_SECOND,
    )

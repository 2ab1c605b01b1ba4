"""How long a run takes beside the bare arithmetic in it: two processes over a loopback socket, on made-up ids.

The floor of a run is what its private operations alone would take on the same cores with the same engine: n + m private
powers with `rsa`; with `ecdh` 3n + m multiplications (each of the initiator's n ids is blinded, answered and unblinded,
each of the responder's m ids multiplied once). It is measured right before and right after the run, on all the cores
that the run may use at once, and the mean of both counts. On a machine that others use too the two differ, and so may
every run; the processor time of both roles beside that of the bare arithmetic is steadier, but knows of no waiting.
"""

from __future__ import annotations

import contextlib
import platform
import secrets
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection

from psi import engines
from psi.bench_processes import INITIATOR, RESPONDER, Child, Json, child, cores, play, processor, time_floor
from psi.entropy import order
from psi.errors import BadArgument
from psi.messages import Reveal
from psi.oprf import RSA

_START_S = 120.0
"""For a process to start and to make its ids; each million of ids gets as long again."""
_RUN_S = 300.0
"""For a run, beside 20 times its floor."""


@dataclass(frozen=True)
class Bench:
    """What to measure.

    Args:
        protocol: "rsa" or "ecdh".
        bits: size of the key, with `rsa`.
        n: ids of the initiator.
        m: ids of the responder.
        overlap: which part of the smaller set is shared, 0 to 1.
        workers: of each role; None takes what a run takes by itself.
        engine: the arithmetic; None takes the fastest.
        reveal: who learns what.
        chunk: ids per message; None takes the usual number.

    Raises:
        BadArgument: a value cannot be measured.
    """

    protocol: str = RSA
    bits: int = 2048
    n: int = 10_000
    m: int = 10_000
    overlap: float = 0.5
    workers: int | None = None
    engine: str | None = None
    reveal: str = Reveal.BOTH.value
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.n < 0 or self.m < 0 or self.n + self.m == 0 or not 0 <= self.overlap <= 1:
            raise BadArgument(
                f"n is {self.n}, m {self.m} and overlap {self.overlap}; expected numbers of ids, not both 0, and a "
                "part of 0 to 1."
            )
        if self.engine not in (None, *self.engines):
            names = ", ".join(self.engines) or "none"
            raise BadArgument(f"engine is {self.engine!r}; expected one that works here: {names}.")

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that work here for this protocol, fastest first."""
        return engines.available_rsa(self.bits) if self.protocol == RSA else engines.available_curve()

    @property
    def shared(self) -> int:
        """How many ids both have."""
        return round(self.overlap * min(self.n, self.m))

    @property
    def operations(self) -> int:
        """Private operations of one run."""
        return self.n + self.m if self.protocol == RSA else 3 * self.n + self.m

    @property
    def cores(self) -> int:
        """How many cores the two roles together may keep busy."""
        usual = cores() if self.protocol == RSA else 1
        return min(cores(), 2 * (self.workers or usual))

    def ids(self, role: str) -> list[str]:
        """A role's made-up ids, in random order; the last of the initiator's are the first of the responder's."""
        first, count = (0, self.n) if role == INITIATOR else (self.n - self.shared, self.m)
        return [f"id{first + int(number):010d}" for number in order(count, secrets.token_bytes)]

    def expected(self) -> list[str]:
        """What both hold in the end."""
        return [f"id{number:010d}" for number in range(self.n - self.shared, self.n)]


Party = Callable[[Connection, Bench, str], None]
"""What a role's process does: takes the pipe to its parent, what to run, and its role."""


@dataclass(frozen=True)
class Floor:
    """What all private operations of a run take."""

    seconds: float
    """On all cores at once."""
    cpu_seconds: float
    """Of processor time."""


def measure(bench: Bench, *, all_floors: bool = False, party: Party = play) -> Json:
    """Run it once; the result is what `python -m psi bench --json` prints.

    Args:
        bench: what to run.
        all_floors: whether to time the bare operations of every engine.
        party: what either role's process does; it speaks with this one as `play` does.

    Raises:
        PsiError: a role failed.
        ConnectionError: a process ended too early.
        TimeoutError: one takes far too long.
    """
    start_s = _START_S * (1 + (bench.n + bench.m) / 1e6)
    engine = bench.engine or bench.engines[0]
    with contextlib.ExitStack() as stack:
        timers = [stack.enter_context(child(time_floor, "a timer of the floor", bench)) for _ in range(bench.cores)]
        roles = {name: stack.enter_context(child(party, name, bench, name)) for name in (RESPONDER, INITIATOR)}
        roles[INITIATOR].tell(**roles[RESPONDER].hear(start_s))  # the port
        for role in roles.values():
            role.hear(start_s)  # that it is ready
        before = _floor(timers, bench, engine)
        started = time.perf_counter()
        for role in roles.values():
            role.tell(go=True)
        for role in roles.values():
            role.hear(_RUN_S + 20 * before.seconds)  # that it has finished
        seconds = time.perf_counter() - started
        results = {name: role.hear(start_s) for name, role in roles.items()}
        after = _floor(timers, bench, engine)
        others = [name for name in bench.engines if name != engine] if all_floors else []
        floors = {name: _floor(timers, bench, name).seconds for name in others}
    result = _summary(bench, engine, seconds, (before, after), results)
    return result | {"floors": {engine: result["floor_seconds"], **floors}} if all_floors else result


def repeat(bench: Bench, times: int, *, all_floors: bool = False, party: Party = play) -> Json:
    """Run it several times; the result is that of the run with the median ratio, and `runs` has the others in short.

    Raises:
        BadArgument: `times` is less than 1.
        PsiError, ConnectionError, TimeoutError: see `measure`.
    """
    if times < 1:
        raise BadArgument(f"repeat is {times}; expected 1 or more.")
    runs = [measure(bench, all_floors=all_floors, party=party) for _ in range(times)]
    median = statistics.median_low([run["ratio"] for run in runs])
    chosen = next(run for run in runs if run["ratio"] == median)
    short = ("seconds", "floor_seconds", "floor_range", "ratio", "cpu_ratio", "correct")
    told = [{key: run[key] for key in short} for run in runs]
    return chosen | {"correct": all(run["correct"] for run in runs), "runs": told}


def report(result: Json) -> str:
    """A result as lines for people."""
    bits = f" of {result['bits']} bits" if result["protocol"] == RSA else ""
    before, after = result["floor_range"]
    peaks, cpu = (
        [result[f"{what}_{name}"] for name in (INITIATOR, RESPONDER)] for what in ("peak_rss_mb", "cpu_seconds")
    )
    lines = [
        f"{result['protocol']}{bits} by {result['engine']}, {result['n']:,} and {result['m']:,} ids, "
        f"{result['intersection_size']:,} shared: " + ("correct" if result["correct"] else "WRONG"),
        f"time      {result['seconds']:.2f} s, {result['elements_per_second']:,.0f} ids a second",
        f"floor     {result['floor_seconds']:.2f} s for the bare arithmetic on {result['cores_used']} cores "
        f"({before:.2f} before, {after:.2f} after); the run took {result['ratio']:.2f} times that",
        f"traffic   {result['bytes_up']:,} bytes to the responder, {result['bytes_down']:,} back; "
        f"{result['bytes_per_id']:.0f} for an id of each",
        f"memory    initiator {peaks[0]:.0f} MB, responder {peaks[1]:.0f} MB at most",
        f"cpu       initiator {cpu[0]:.2f} s, responder {cpu[1]:.2f} s; {result['cpu_ratio']:.2f} times the floor's",
        f"machine   {result['cores']} cores, {result['machine']}, Python {result['python']}",
    ]
    if len(result.get("runs", [])) > 1:
        lines.append("ratios    " + ", ".join(f"{run['ratio']:.2f}" for run in result["runs"]))
    lines += [f"floor of  {name}: {seconds:.2f} s" for name, seconds in result.get("floors", {}).items()]
    return "\n".join(lines)


def _floor(timers: list[Child], bench: Bench, engine: str) -> Floor:
    for word in ("prepare", "measure"):
        for timer in timers:
            timer.tell(word=word, engine=engine)
        heard = [timer.hear(_START_S + _RUN_S) for timer in timers]
    seconds = bench.operations / sum(each["done"] / each["seconds"] for each in heard)
    return Floor(seconds, bench.operations * sum(each["cpu_seconds"] / each["done"] for each in heard) / len(heard))


def _summary(bench: Bench, engine: str, seconds: float, floors: tuple[Floor, Floor], results: dict[str, Json]) -> Json:
    mean_ids = (bench.n + bench.m) / 2
    floor = sum(each.seconds for each in floors) / 2
    floor_cpu = sum(each.cpu_seconds for each in floors) / 2
    up, down = results[INITIATOR]["sent"], results[RESPONDER]["sent"]
    peaks, cpu = ({name: each[what] for name, each in results.items()} for what in ("peak_rss_mb", "cpu_seconds"))
    return asdict(bench) | {
        "engine": engine,
        "engines_available": list(bench.engines),
        "seconds": seconds,
        "elements_per_second": (bench.n + bench.m) / seconds,
        "floor_seconds": floor,
        "floor_range": [each.seconds for each in floors],
        "ratio": seconds / floor,
        "bytes_up": up,
        "bytes_down": down,
        "bytes_per_id": (up + down) / mean_ids,
        "peak_rss_mb": max(peaks.values()),
        **{f"peak_rss_mb_{name}": each for name, each in peaks.items()},
        "cpu_seconds": sum(cpu.values()),
        **{f"cpu_seconds_{name}": each for name, each in cpu.items()},
        "cpu_ratio": sum(cpu.values()) / floor_cpu,
        "intersection_size": results[INITIATOR]["size"],
        "correct": all(each["correct"] for each in results.values()),
        "cores": cores(),
        "cores_used": bench.cores,
        "python": platform.python_version(),
        "machine": processor(),
    }

"""Training over a long or narrow line: what each way of exchange gains there, and the accuracy that it gets.

    python -m benchmarks.link
    python -m benchmarks.link --delays 20 --mbits 1000 --options synchronous staleness-4 int8 --widths 10 64 --json

Two real parties train split-MNIST through a proxy that delays what passes and carries only so much of it. The line is
slow from the first batch on; the parties meet and match their ids before that. A run is some rounds with a test after
each; batches a second are those of the rounds after the first, accuracy is that of the last test, which every run has
after as many batches.

Without `--options` there are three parts: lock-step and batches ahead over every delay; forms with fewer bytes over
every bandwidth, at 20 ms; all the other ways at 20 ms.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file runs as a script from any folder

from benchmarks.common import Json, machine, median, show_json, show_machine, show_table
from benchmarks.crew import Crew, Failed, Worker, crew
from benchmarks.paced import Federation
from benchmarks.proxy import Proxy, free_ports
from benchmarks.split_mnist import RoundCollaborator, RoundHost, Setup
from demos.mnist_split.data import load_digits
from demos.mnist_split.models import EMBEDDING_WIDTH
from heterofed import ConfigError
from psi.bench_processes import hear, say

SYNCHRONOUS = "synchronous"

OPTIONS: dict[str, dict[str, Any]] = {
    SYNCHRONOUS: {},
    **{f"staleness-{k}": {"max_staleness": k} for k in (1, 2, 4, 8)},
    "messages-of-2": {"max_staleness": 3, "batches_per_message": 2},
    "messages-of-4": {"max_staleness": 7, "batches_per_message": 4},
    **{f"local-steps-{r}": {"local_steps": r} for r in (2, 5)},
    **{
        form: {"embedding_precision": form, "gradient_precision": form}
        for form in ("float16", "bfloat16", "int8", "topk:0.1")
    },
    "staleness-4 int8": {"max_staleness": 4, "embedding_precision": "int8", "gradient_precision": "int8"},
}
"""Name -> arguments of the host."""

AHEAD = (SYNCHRONOUS, "staleness-1", "staleness-2", "staleness-4", "staleness-8")
FORMS = (SYNCHRONOUS, "float16", "bfloat16", "int8", "topk:0.1")
DELAYS_MS = (1.0, 5.0, 20.0, 50.0, 100.0)
MBITS = (10.0, 100.0, 1000.0)
USUAL_MS, USUAL_MBIT = 20.0, 1000.0

_BITS_OF_A_BYTE = 8


@dataclass(frozen=True)
class Run:
    """One training."""

    delay_ms: float
    """One way."""
    mbit: float
    """Each way, in Mbit/s."""
    option: str
    width: int


# --- what is run ------------------------------------------------------------------------------------------------------


class LinkHost(RoundHost):
    """The host of the demo, with one more keyword for all that is declared."""

    def __init__(self, setup: Setup, declared: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(setup, **declared, **kwargs)


def line(pipe: Connection) -> None:
    """Carry what passes: the work of a worker. Each word of the parent process sets where to, how late and how fast."""
    proxy: Proxy | None = None
    while True:
        wanted = hear(pipe)
        target = ("127.0.0.1", wanted["port"])
        proxy = proxy or Proxy(target)
        proxy.target = target
        proxy.delay(wanted["delay_ms"] / 1000)
        proxy.throttle(wanted["mbit"] * 1e6 / _BITS_OF_A_BYTE if wanted["mbit"] else None)
        say(pipe, port=proxy.port)


class Lines:
    """Runs trainings, one after the other, over lines as they are wanted."""

    def __init__(self, staff: Crew, setup: Setup, rounds: int) -> None:
        self._staff = staff
        self._setup = setup
        self._rounds = rounds
        self._line: Worker = staff.start("line", line)
        self._runs = 0

    def train(self, run: Run) -> Json:
        """Run one training; return what it gave."""
        self._runs += 1
        folder = self._staff.folder / f"run_{self._runs}"
        port = free_ports(1)
        at = self._line.ask(port=port, delay_ms=0, mbit=0)["port"]
        setup = replace(self._setup, width=run.width)
        federation = Federation(
            self._staff,
            folder,
            (
                LinkHost,
                {
                    "setup": setup,
                    "declared": OPTIONS[run.option],
                    "max_rounds": self._rounds,
                    "log_rounds": 1,
                    "batch_size": setup.batch_size,
                },
            ),
            [(RoundCollaborator, {"setup": setup})],
            others={"bind": f"127.0.0.1:{port}", "advertise": f"127.0.0.1:{at}"},
        )
        federation.gather()
        self._line.ask(port=port, delay_ms=run.delay_ms, mbit=run.mbit)
        rounds = [federation.round()["host"] for _ in range(self._rounds)]
        counted = rounds[1:] or rounds
        return {
            **asdict(run),
            "batches_a_second": setup.batches / median([each["fit_s"] for each in counted]),
            "bytes_a_batch": median([each["tcp_sent"] + each["tcp_received"] for each in counted]) / setup.batches,
            "message_bytes_a_batch": median([each["sent"] + each["received"] for each in counted]) / setup.batches,
            "host_waited": median([each["waited_s"] / each["seconds"] for each in counted]),
            "accuracy": _accuracy(folder / "host" / "test_results.csv"),
            "batches": setup.batches * self._rounds,
        }


def _accuracy(table: Path) -> float:
    with table.open(newline="") as file:
        return float(list(csv.DictReader(file))[-1]["accuracy"])


def runs_of(given: argparse.Namespace) -> list[Run]:
    """Return what is to be run, each once, lock-step first wherever something is compared with it."""
    delays, mbits = given.delays or list(DELAYS_MS), given.mbits or list(MBITS)
    usual_ms = USUAL_MS if USUAL_MS in delays else delays[0]
    usual_mbit = USUAL_MBIT if USUAL_MBIT in mbits else mbits[-1]

    def all_runs() -> Iterator[Run]:
        for width in given.widths:
            if given.options:
                for delay in delays:
                    for mbit in mbits:
                        yield from (Run(delay, mbit, each, width) for each in (SYNCHRONOUS, *given.options))
                continue
            for delay in delays:
                yield from (Run(delay, usual_mbit, each, width) for each in AHEAD)
            for mbit in mbits:
                yield from (Run(usual_ms, mbit, each, width) for each in FORMS)
            yield from (Run(usual_ms, usual_mbit, each, width) for each in OPTIONS)

    return list(dict.fromkeys(all_runs()))


def compare(found: Sequence[Json]) -> None:
    """Put beside every run what it is of lock-step over the same line."""

    def line_of(each: Json) -> tuple[float, float, int]:
        return each["delay_ms"], each["mbit"], each["width"]

    lock_step = {line_of(each): each for each in found if each["option"] == SYNCHRONOUS}
    for each in found:
        base = lock_step[line_of(each)]
        each["speed_over_synchronous"] = each["batches_a_second"] / base["batches_a_second"]
        each["times_fewer_bytes"] = base["bytes_a_batch"] / each["bytes_a_batch"] if each["bytes_a_batch"] else None
        each["accuracy_less_synchronous"] = each["accuracy"] - base["accuracy"]


# --- what is printed --------------------------------------------------------------------------------------------------


def show(found: Sequence[Json]) -> None:
    """Print the table."""
    show_table(
        "split-MNIST over a line, beside lock-step over the same line",
        ["delay, line, width: way", "batches/s", "ratio", "bytes", "fewer", "accuracy", "points"],
        [
            [
                f"{each['delay_ms']:g} ms, {each['mbit']:g} Mbit/s, {each['width']}: {each['option']}",
                f"{each['batches_a_second']:.1f}",
                f"{each['speed_over_synchronous']:.2f}",
                f"{each['bytes_a_batch']:.0f}",
                f"{each['times_fewer_bytes'] or 0:.2f}",
                f"{100 * each['accuracy']:.2f} %",
                f"{100 * each['accuracy_less_synchronous']:+.2f}",
            ]
            for each in found
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and print."""
    given = _parser().parse_args(arguments)
    if given.quick:
        given.delays, given.mbits, given.options = [5.0], [100.0], ["staleness-4 int8"]
        given.train, given.test, given.rounds = 1280, 256, 1
    described = machine()
    show_machine(described)
    try:
        setup, source = _found(given)
        print(f"{source}: {setup.train} to train on, {setup.test} to test, batches of {setup.batch_size}", flush=True)
        with crew() as staff:
            lines = Lines(staff, setup, given.rounds)
            found = [lines.train(each) for each in runs_of(given)]
    except (Failed, ConfigError) as error:
        print(f"link: {error}", file=sys.stderr)
        return 1
    compare(found)
    show(found)
    result = {"benchmark": "link", "machine": described, "data": source, "rows": setup.train, "runs": found}
    show_json(result, given.json)
    return 0


def _found(given: argparse.Namespace) -> tuple[Setup, str]:
    """Return the set-up with the pictures that are there, and what they are."""
    setup = Setup(None, given.train, given.test, given.batch_size, EMBEDDING_WIDTH)
    if given.synthetic:
        return setup, "random pictures"
    digits = load_digits(given.data_dir, train=given.train, test=given.test)
    counts = {"train": len(digits.train_labels), "test": len(digits.test_labels)}
    return replace(setup, data_dir=digits.data_dir, **counts), digits.source


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delays", type=float, nargs="+", metavar="MS", help="one way; default: 1 5 20 50 100")
    parser.add_argument("--mbits", type=float, nargs="+", metavar="MBIT/S", help="default: 10 100 1000")
    parser.add_argument("--options", nargs="+", choices=list(OPTIONS), metavar="WAY", help=", ".join(OPTIONS))
    parser.add_argument("--widths", type=int, nargs="+", default=[10], help="of an embedding; default: 10")
    parser.add_argument("--train", type=int, default=25_600, help="pictures of a round; default: %(default)s")
    parser.add_argument("--test", type=int, default=10_000, help="pictures of a test; default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--data-dir", help="folder above MNIST/raw; default: HETEROFED_DATA, else a download")
    parser.add_argument("--synthetic", action="store_true", help="random pictures instead of MNIST")
    parser.add_argument("--quick", action="store_true", help="two short trainings: only to see it work")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())

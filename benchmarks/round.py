"""One round of split-MNIST: what physics asks for, the unsplit network, and two real parties, taking turns in one run.

    python -m benchmarks.round
    python -m benchmarks.round --repeats 7 --encryption both --json

- floor: two processes at once, each only its own model forward and backward and its step, with gradients that are
  ready; the host's infer model too. Nothing is exchanged. The slower of the two counts.
- unsplit: the whole network in one process, with one thread and with as many as there are cores.
- bare: a throwaway loop of two processes: the same models, a message each way for a batch on encrypted sockets, and
  nothing else. What it takes more than the floor is what messages cost on this machine.
- federated: two parties, each a process, over encrypted TCP, with every default hook and progress, as
  `heterofed demo mnist` starts them. What counts is a round's training from the host's plan to the last batch; its test
  and its checkpoint come after that. The first round is a warm-up.

Every one runs in each repeat, in turn; ratios are those of one repeat, and their medians are told.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file runs as a script from any folder

import zmq

from benchmarks.bare_round import collaborate_in_a_bare_round, host_a_bare_round
from benchmarks.common import Json, machine, median, median_ratio, show_json, show_machine, show_table
from benchmarks.crew import Crew, Failed, crew
from benchmarks.paced import Federation
from benchmarks.split_mnist import RoundCollaborator, RoundHost, Setup, work_alone, work_unsplit
from demos.mnist_split.data import SMALL_SET, load_digits
from demos.mnist_split.host import CHECKPOINT_EVERY
from demos.mnist_split.models import EMBEDDING_WIDTH
from heterofed import ConfigError
from psi.bench_processes import cores

QUICK = 6_000
"""Pictures of --quick."""

MEMORY_ROUNDS = (1, 5)
"""The resident memory of these rounds is compared; of the last one where there are fewer."""


# --- taking turns ---------------------------------------------------------------------------------------------------

Contender = Callable[[], tuple[float, dict[str, Json]]]
"""Runs one round and returns its seconds, and of real parties what it took at each."""


def _floor(staff: Crew, setup: Setup) -> Contender:
    halves = [staff.start(f"floor-{name}", work_alone, setup, name == "host") for name in ("host", "collaborator")]

    def run() -> tuple[float, dict[str, Json]]:
        for each in halves:
            each.tell(go=True)
        times = [each.hear() for each in halves]
        return max(each["ended"] for each in times) - min(each["began"] for each in times), {}

    return run


def _bare(staff: Crew, setup: Setup) -> Contender:
    public, secret = (each.decode() for each in zmq.curve_keypair())
    host = staff.start("bare-host", host_a_bare_round, setup, public, secret)
    endpoint = host.hear()["endpoint"]
    collaborator = staff.start("bare-collaborator", collaborate_in_a_bare_round, setup, endpoint, public)
    host.hear()

    def run() -> tuple[float, dict[str, Json]]:
        collaborator.tell(go=True)
        return host.ask(go=True)["seconds"], {}

    return run


def _unsplit(staff: Crew, setup: Setup) -> dict[str, Contender]:
    worker = staff.start("unsplit", work_unsplit, setup)
    return {
        f"unsplit_{threads}": lambda threads=threads: (worker.ask(threads=threads)["seconds"], {})  # type: ignore[misc]  # its default binds the loop's variable
        for threads in sorted({1, cores()})
    }


def _federated(staff: Crew, setup: Setup, rounds: int, *, encryption: str, threads: int) -> Contender:
    given = {"setup": setup}
    federation = Federation(
        staff,
        staff.folder / f"encryption_{encryption}",
        (
            RoundHost,
            {
                **given,
                "max_rounds": rounds,
                "log_rounds": 1,
                "best_metric": "test_results/accuracy",
                "checkpoint_every": CHECKPOINT_EVERY,
                "batch_size": setup.batch_size,
            },
        ),
        [(RoundCollaborator, given)],
        threads=threads,
        others={} if encryption == "on" else {"encryption": encryption},
    )
    federation.gather()

    def run() -> tuple[float, dict[str, Json]]:
        figures = federation.round()
        return figures["host"]["seconds"], figures

    return run


def measure(setup: Setup, *, repeats: int, threads: int, encryption: Sequence[str]) -> Json:
    """Run every contender once for a warm-up and then `repeats` times, in turn; return all figures."""
    seconds: dict[str, list[float]] = {}
    figures: dict[str, list[dict[str, Json]]] = {}
    with crew() as staff:
        contenders: dict[str, Contender] = {
            "floor": _floor(staff, setup),
            "bare": _bare(staff, setup),
            **_unsplit(staff, setup),
        }
        for each in encryption:
            name = "federated" if each == encryption[0] else f"federated_{each}"
            contenders[name] = _federated(staff, setup, repeats + 1, encryption=each, threads=threads)
        for repeat in range(repeats + 1):
            # There and back, so that none always follows the same other one.
            for name, run in list(contenders.items())[:: 1 if repeat % 2 else -1]:
                took, of_parties = run()
                if of_parties:
                    figures.setdefault(name, []).append(of_parties)
                if repeat:
                    seconds.setdefault(name, []).append(took)
    return _result(setup, seconds, figures)


# --- what comes out -------------------------------------------------------------------------------------------------


def _result(setup: Setup, seconds: Mapping[str, list[float]], figures: Mapping[str, list[dict[str, Json]]]) -> Json:
    federated = seconds["federated"]
    rounds = figures["federated"]
    result: Json = {
        "seconds": seconds,
        "median_s": {name: median(each) for name, each in seconds.items()},
        "federated_over_floor": median_ratio(federated, seconds["floor"]),
        "federated_over_bare": median_ratio(federated, seconds["bare"]),
        "bare_over_floor": median_ratio(seconds["bare"], seconds["floor"]),
        "federated_over_unsplit": median_ratio(federated, seconds[f"unsplit_{cores()}"]),
        "federated_over_unsplit_1": median_ratio(federated, seconds["unsplit_1"]),
        "host_idle": median([each["host"]["waited_s"] / each["host"]["seconds"] for each in rounds[1:]]),
        "parties": {key: _of_party([each[key] for each in rounds[1:]], setup.batches) for key in rounds[0]},
        "bytes": _bytes(setup, rounds[-1]),
        "memory": {key: _memory([each[key]["resident_mb"] for each in rounds]) for key in rounds[0]},
    }
    if "federated_off" in seconds:
        result["encryption_on_over_off"] = median_ratio(federated, seconds["federated_off"])
        result["bytes_off"] = _bytes(setup, figures["federated_off"][-1])
    return result


def _of_party(rounds: Sequence[Json], batches: int) -> Json:
    """Return where a party's time goes, medians of the rounds: seconds of a round, microseconds of a batch."""
    names = ("seconds", "fit_s", "compute_s", "waited_s", "wire_s", "cpu_s", "thread_s")
    found: Json = {name: median([each[name] for each in rounds]) for name in names}
    return {**found, **{f"{name[:-2]}_us_a_batch": 1e6 * found[name] / batches for name in names[2:]}}


def _bytes(setup: Setup, last: Mapping[str, Json]) -> Json:
    host = last["host"]
    messages, tcp = host["sent"] + host["received"], host["tcp_sent"] + host["tcp_received"]
    return {
        "tensors": setup.tensor_bytes,
        "messages": messages,
        "tcp": tcp,
        "messages_over_tensors": messages / setup.tensor_bytes,
        "wire_over_tensors": tcp / setup.tensor_bytes,
    }


def _memory(resident: Sequence[float]) -> Json:
    first, then = (resident[min(number, len(resident)) - 1] for number in MEMORY_ROUNDS)
    return {"round_1_mb": first, f"round_{min(MEMORY_ROUNDS[1], len(resident))}_mb": then, "growth": then / first - 1}


def show(result: Mapping[str, Any]) -> None:
    """Print the tables."""
    floor = result["seconds"]["floor"]
    show_table(
        f"a round of {result['rows']:,} pictures, batches of {result['batch_size']}, embeddings of {result['width']}",
        ["", "seconds (median)", "least", "most", "of the floor"],
        [
            [name, f"{median(each):.2f}", f"{min(each):.2f}", f"{max(each):.2f}", f"{median_ratio(each, floor):.3f}"]
            for name, each in result["seconds"].items()
        ],
    )
    show_table(
        "where the time of a federated round goes, seconds (microseconds of a batch)",
        ["party", "computing", "waiting", "wire", "processor, all threads", "processor, main thread"],
        [
            [
                key,
                *(
                    f"{each[f'{name}_s']:.2f} ({each[f'{name}_us_a_batch']:.0f})"
                    for name in ("compute", "waited", "wire", "cpu", "thread")
                ),
            ]
            for key, each in result["parties"].items()
        ],
    )
    show_table(
        "memory of a party, MB resident",
        ["party", "round 1", "then", "growth"],
        [
            [key, f"{each['round_1_mb']:.0f}", f"{list(each.values())[1]:.0f}", f"{100 * each['growth']:.1f} %"]
            for key, each in result["memory"].items()
        ],
    )
    print(f"federated / floor                {result['federated_over_floor']:.3f}")
    print(f"bare loop / floor                {result['bare_over_floor']:.3f}")
    print(f"federated / bare loop            {result['federated_over_bare']:.3f}")
    print(f"federated / unsplit, all cores   {result['federated_over_unsplit']:.3f}")
    print(f"the host waited                  {100 * result['host_idle']:.1f} % of the round")
    print(f"bytes on TCP / of the tensors    {result['bytes']['wire_over_tensors']:.4f}")
    if "encryption_on_over_off" in result:
        print(f"encrypted / plain                {result['encryption_on_over_off']:.3f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = _parser().parse_args(arguments)
    if given.quick:
        given.train, given.test, given.repeats = min(given.train, QUICK), min(given.test, 500), 1
    described = machine()
    show_machine(described)
    try:
        setup = Setup(given.data_dir, given.train, given.test, given.batch_size, given.width)
        setup, source = _found(setup, synthetic=given.synthetic)
        print(source, flush=True)
        modes = ["on", "off"] if given.encryption == "both" else [given.encryption]
        result = measure(setup, repeats=given.repeats, threads=given.threads, encryption=modes)
    except (Failed, ConfigError) as error:
        print(f"round: {error}", file=sys.stderr)
        return 1
    result = {
        "benchmark": "round",
        "machine": described,
        "data": source,
        "rows": setup.train,
        "batch_size": setup.batch_size,
        "width": setup.width,
        "threads": given.threads,
        "encryption": modes[0],
        **result,
    }
    show(result)
    show_json(result, given.json)
    return 0


def _found(setup: Setup, *, synthetic: bool) -> tuple[Setup, str]:
    """Return the set-up with the data that is there, and a line that says which it is."""
    if not synthetic:
        digits = load_digits(setup.data_dir, train=setup.train, test=setup.test)
        if digits.data_dir != SMALL_SET:
            counts = {"train": len(digits.train_labels), "test": len(digits.test_labels)}
            return replace(setup, data_dir=digits.data_dir, **counts), digits.source
    return replace(setup, data_dir=None), "random pictures in the place of MNIST"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=_count, default=5, help="rounds that count; default: %(default)s")
    parser.add_argument("--train", type=_count, default=60_000, help="training pictures; default: %(default)s")
    parser.add_argument("--test", type=_count, default=1_000, help="test pictures; default: %(default)s")
    parser.add_argument("--batch-size", type=_count, default=128, help="default: %(default)s")
    parser.add_argument("--width", type=_count, default=EMBEDDING_WIDTH, help="of an embedding; default: %(default)s")
    parser.add_argument("--threads", type=_count, default=1, help="torch threads of each party; default: %(default)s")
    parser.add_argument("--encryption", choices=("on", "off", "both"), default="on", help="default: %(default)s")
    parser.add_argument("--data-dir", help="folder above MNIST/raw; default: HETEROFED_DATA, else a download")
    parser.add_argument("--synthetic", action="store_true", help="random pictures of the same shape; no download")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} pictures and one repeat: only to see it work")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())

"""What each further collaborator costs the host of a batch, with computing taken away, beside a bare loop of sockets.

    python -m benchmarks.parties
    python -m benchmarks.parties --counts 1 8 --repeats 9 --json

The feature models are one ready parameter, the infer model is tiny, rows are empty: what is left is the exchange. Real
parties, each a process with its task, keys, encryption, checks and default hooks, train rounds of 200 batches. Beside
them stands a throwaway loop in lock-step: ZeroMQ sockets with the same encryption, the same models and tensors, a
header of 16 bytes, and nothing else: no checks, no numbering, no recovery. Every number of collaborators and both kinds
take turns in one run.

The wall time of a batch holds the collaborators' own work too, as far as there are fewer cores than parties; the host's
processor time holds only what its process used, encryption in the background included.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file runs as a script from any folder

import torch
import zmq
from torch import Tensor, nn, optim

from benchmarks.bare_loop import Infer, Ready, Shape, collaborate_barely, host_barely, sgd
from benchmarks.common import Json, machine, median, median_ratio, show_json, show_machine, show_table
from benchmarks.crew import Crew, Failed, Worker, crew
from benchmarks.paced import Federation
from heterofed import CollaboratorScheduler, HostScheduler

COUNTS = (1, 2, 4, 8)
ROWS = 128
WIDTH = 10
BATCHES = 200


# --- real parties ---------------------------------------------------------------------------------------------------


class NoRows:
    """What both roles do alike: rows that hold nothing."""

    shape: Shape

    def load_local_ids(self) -> list[str]:
        """As many as make whole batches."""
        return [f"{row:08}" for row in range(self.shape.rows * self.shape.batches)]

    def split_dataset(self, id_intersection: Any) -> tuple[list[str], list[str]]:
        """All to train on."""
        return list(id_intersection), []

    def make_feature_model(self) -> nn.Module:
        """No computing."""
        return Ready(self.shape)

    def make_feature_optimizer(self, feature_model: nn.Module) -> optim.Optimizer:
        """Of the ready parameter."""
        return sgd(feature_model)


class PartiesHost(NoRows, HostScheduler):
    """Infers as little as can be."""

    def __init__(self, shape: Shape, parties: int, **kwargs: Any) -> None:
        super().__init__(batch_size=shape.rows, shuffle=True, **kwargs)
        self.shape = shape
        self.parties = parties

    def load_batch(self, ids: list[str]) -> tuple[Tensor, Tensor]:
        """Nothing, in the right number."""
        return torch.empty(len(ids), 1), torch.empty(len(ids))

    def make_infer_model(self) -> nn.Module:
        """All embeddings -> one number."""
        return Infer(self.parties, self.shape.width)

    def make_infer_optimizer(self, infer_model: nn.Module) -> optim.Optimizer:
        """As small as the model."""
        return sgd(infer_model)

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Tensor) -> Tensor:
        """Backpropagate and step."""
        self.optimizer.zero_grad()
        loss: Tensor = self.infer_model(list(feature_projection.values()))
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss


class PartiesCollaborator(NoRows, CollaboratorScheduler):
    """Sends what is there."""

    def __init__(self, shape: Shape, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = shape

    def load_batch(self, ids: list[str]) -> Tensor:
        """Nothing, in the right number."""
        return torch.empty(len(ids), 1)


class Real:
    """A host and so many collaborators, on heterofed."""

    def __init__(self, staff: Crew, shape: Shape, count: int, rounds: int) -> None:
        self._shape = shape
        self._federation = Federation(
            staff,
            staff.folder / f"real_{count}",
            (PartiesHost, {"shape": shape, "parties": count + 1, "max_rounds": rounds}),
            [(PartiesCollaborator, {"shape": shape})] * count,
        )
        self._federation.gather()

    def round(self) -> Json:
        """Run a round; return milliseconds and bytes of a batch at the host."""
        return _of_a_batch(self._federation.round()["host"], "fit_s", self._shape.batches)


def _of_a_batch(figures: Mapping[str, float], seconds: str, batches: int) -> Json:
    return {
        "ms": 1e3 * figures[seconds] / batches,
        "cpu_ms": 1e3 * figures["cpu_s"] / batches,
        "thread_ms": 1e3 * figures["thread_s"] / batches,
        "bytes": (figures["tcp_sent"] + figures["tcp_received"]) / batches,
    }


# --- the bare loop --------------------------------------------------------------------------------------------------


class Bare:
    """A host and so many collaborators, on nothing but sockets."""

    def __init__(self, staff: Crew, shape: Shape, count: int) -> None:
        self._shape = shape
        public, secret = zmq.curve_keypair()
        self._host = staff.start(f"bare_{count}-host", host_barely, shape, count, public.decode(), secret.decode())
        endpoint = self._host.hear()["endpoint"]
        self._others: list[Worker] = [
            staff.start(f"bare_{count}-{number}", collaborate_barely, shape, endpoint, public.decode(), number)
            for number in range(1, count + 1)
        ]
        self._host.hear()

    def round(self) -> Json:
        """Run a round; return milliseconds and bytes of a batch at the host."""
        for each in self._others:
            each.tell(go=True)
        return _of_a_batch(self._host.ask(go=True), "seconds", self._shape.batches)


# --- taking turns ---------------------------------------------------------------------------------------------------


def measure(shape: Shape, counts: Sequence[int], repeats: int) -> Json:
    """Run a round of every federation for a warm-up and then `repeats` times, in turn; return all figures."""
    found: dict[tuple[str, int], list[Json]] = {}
    with crew() as staff:
        contenders: dict[tuple[str, int], Real | Bare] = {}
        for count in counts:
            contenders["real", count] = Real(staff, shape, count, repeats + 1)
            contenders["bare", count] = Bare(staff, shape, count)
        for repeat in range(repeats + 1):
            # There and back, so that none always follows the same other one.
            for name, each in list(contenders.items())[:: 1 if repeat % 2 else -1]:
                figures = each.round()
                if repeat:
                    found.setdefault(name, []).append(figures)
    return {
        kind: {str(count): _medians(found, kind, count, counts[0]) for count in counts} for kind in ("real", "bare")
    }


def _medians(found: Mapping[tuple[str, int], Sequence[Json]], kind: str, count: int, least: int) -> Json:
    """Return the medians of a federation, and its ratios to the smallest of its kind and to the other kind."""
    rounds, smallest, bare = found[kind, count], found[kind, least], found["bare", count]

    def column(of: Sequence[Json], name: str) -> list[float]:
        return [each[name] for each in of]

    result: Json = {name: median(column(rounds, name)) for name in rounds[0]}
    for name in rounds[0]:
        if all(column(smallest, name)) and all(column(bare, name)):  # bytes are 0 where the system does not say
            result[f"{name}_over_{least}"] = median_ratio(column(rounds, name), column(smallest, name))
            result[f"{name}_over_bare"] = median_ratio(column(rounds, name), column(bare, name))
    return result


def show(result: Mapping[str, Any], least: int) -> None:
    """Print the table."""
    show_table(
        f"a batch at the host, computing taken away: ({result['rows']}, {result['width']}) each way and collaborator",
        ["collaborators", "ms", f"of {least}", "bare ms", "of bare", "host's cpu ms", "bare", "bytes", f"of {least}"],
        [
            [
                count,
                f"{real['ms']:.2f}",
                f"{real[f'ms_over_{least}']:.2f}",
                f"{result['bare'][count]['ms']:.2f}",
                f"{real['ms_over_bare']:.2f}",
                f"{real['cpu_ms']:.2f}",
                f"{result['bare'][count]['cpu_ms']:.2f}",
                f"{real['bytes']:.0f}",
                f"{real.get(f'bytes_over_{least}', 0):.3f}",
            ]
            for count, real in result["real"].items()
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = _parser().parse_args(arguments)
    if given.quick:
        given.counts, given.batches, given.repeats = [1, 2], 20, 1
    described = machine()
    show_machine(described)
    shape = Shape(given.rows, given.width, given.batches)
    counts = sorted(set(given.counts))
    try:
        measured = measure(shape, counts, given.repeats)
    except Failed as error:
        print(f"parties: {error}", file=sys.stderr)
        return 1
    real = measured["real"]
    most, least = str(counts[-1]), str(counts[0])
    result = {
        "benchmark": "parties",
        "machine": described,
        **vars(shape),
        **measured,
        "ms_a_batch": real[least]["ms"],
        "time_ratio": real[most][f"ms_over_{least}"],
        "bytes_ratio": real[most].get(f"bytes_over_{least}"),
    }
    show(result, counts[0])
    show_json(result, given.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", choices=range(1, 9), default=list(COUNTS), metavar="N")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count; default: %(default)s")
    parser.add_argument("--batches", type=int, default=BATCHES, help="of a round; default: %(default)s")
    parser.add_argument("--rows", type=int, default=ROWS, help="of a batch; default: %(default)s")
    parser.add_argument("--width", type=int, default=WIDTH, help="of an embedding; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="few batches, once: only to see it work")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())

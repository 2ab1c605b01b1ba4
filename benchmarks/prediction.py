"""Predictions with other parties: how long one row takes, how many rows a second there are, what a session costs.

    python -m benchmarks.prediction
    python -m benchmarks.prediction --collaborators 1 2 4 --rows 1000000 --json

Real parties, each a process with its own keys, over encrypted ZeroMQ on this machine. They train a small network for a
round, load what they saved, and from then on the collaborators serve while the host opens sessions: each finds the
parties, checks the runs against each other and matches all ids again (PSI by ECDH). In an open session the host asks
for one row, many times over, and for many rows at once, which is a request in batches.

Beside it stands the same work in one process, that has all columns and models: what no way of asking others can beat.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file runs as a script from any folder

import torch
from torch import Tensor, nn, optim

from benchmarks.common import (
    Json,
    machine,
    median,
    peak_mb,
    reset_peak,
    resident_mb,
    show_json,
    show_machine,
    show_table,
    tcp_bytes,
)
from benchmarks.crew import Crew, Failed, Worker, crew, settings
from heterofed import CollaboratorScheduler, HostScheduler, Settings
from heterofed.scheduler.predicting.predictions import Predictions
from heterofed.tasks.directory import open_directory
from psi.bench_processes import hear, say

COLUMNS, HIDDEN, WIDTH = 16, 32, 16
"""Of each party: numbers of a row, of the hidden layer, of an embedding."""
TRAIN_ROWS = 256
WARM = 20
"""Requests that do not count."""


# --- the parties ------------------------------------------------------------------------------------------------------


class Rows:
    """What both roles do alike."""

    ids: int

    def prepare(self, ids: int) -> None:
        """Make as many rows of random numbers."""
        self.ids = ids
        self.table = torch.randn(ids, COLUMNS, generator=torch.Generator().manual_seed(ids))

    def load_local_ids(self) -> list[str]:
        """All rows, of which every party has the same."""
        return [f"{row:08}" for row in range(self.ids)]

    def split_dataset(self, id_intersection: Any) -> tuple[list[str], list[str]]:
        """A few to train on: this is no benchmark of that."""
        return sorted(id_intersection)[:TRAIN_ROWS], []

    def inputs_of(self, ids: Sequence[str]) -> Tensor:
        """The rows of these ids."""
        return self.table[[int(each) for each in ids]]

    def make_feature_model(self) -> nn.Module:
        """A hidden layer."""
        return nn.Sequential(nn.Linear(COLUMNS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH), nn.ReLU())

    def make_feature_optimizer(self, feature_model: nn.Module) -> optim.Optimizer:
        """Adam."""
        return optim.Adam(feature_model.parameters(), lr=0.01)


class Infer(nn.Module):
    """Joins the embeddings and gives the probability of a row."""

    def __init__(self, parties: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(parties * WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def forward(self, projection: Mapping[str, Tensor]) -> Tensor:
        """Return (rows, 1)."""
        found: Tensor = self.layers(torch.cat(list(projection.values()), dim=1))
        return found


class PredictionHost(Rows, HostScheduler):
    """Has labels, and asks."""

    def __init__(self, ids: int, count: int, **kwargs: Any) -> None:
        super().__init__(batch_size=TRAIN_ROWS, max_rounds=1, **kwargs)
        self.prepare(ids)
        self.count = count

    def load_batch(self, ids: list[str]) -> tuple[Tensor, Tensor]:
        """Rows, and labels that they tell something of."""
        rows = self.inputs_of(ids)
        return rows, (rows[:, :1] > 0).float()

    def load_inputs(self, ids: list[str]) -> Tensor:
        """Rows."""
        return self.inputs_of(ids)

    def make_infer_model(self) -> nn.Module:
        """Of all embeddings."""
        return Infer(self.count)

    def make_infer_optimizer(self, infer_model: nn.Module) -> optim.Optimizer:
        """Adam."""
        return optim.Adam(infer_model.parameters(), lr=0.01)

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Tensor) -> Tensor:
        """A step."""
        self.optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(self.infer_model(feature_projection), labels)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss

    def predict_a_batch(self, feature_projection: dict[str, Tensor]) -> Tensor:
        """Probabilities."""
        return torch.sigmoid(self.infer_model(feature_projection))


class PredictionCollaborator(Rows, CollaboratorScheduler):
    """Has columns, and answers."""

    def __init__(self, ids: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.prepare(ids)

    def load_batch(self, ids: list[str]) -> Tensor:
        """Rows."""
        return self.inputs_of(ids)


# --- what the processes do --------------------------------------------------------------------------------------------


def serve(pipe: Connection, given: Mapping[str, Any], task_id: str) -> None:
    """Train, load what was saved, and answer one session after the other: the work of a worker."""
    torch.set_num_threads(1)
    PredictionCollaborator(**given).launch_task(task_id)
    say(pipe, ready=True)
    PredictionCollaborator(**given).serve_predictions(task_id, sessions=hear(pipe)["sessions"])
    say(pipe, ended=True)


def ask(pipe: Connection, given: Mapping[str, Any], task_id: str) -> None:
    """Train, load what was saved, and ask; measure each session: the work of a worker."""
    torch.set_num_threads(1)
    PredictionHost(**given).launch_task(task_id)
    say(pipe, ready=True)
    host = PredictionHost(**given)
    ids = host.load_local_ids()
    while True:
        turn = hear(pipe)
        many = [ids[row % len(ids)] for row in range(turn["rows"])]
        began = time.perf_counter()
        with host.open_predictions(task_id) as predictions:
            found: Json = {"open_s": time.perf_counter() - began, "shared": predictions.shared}
            found["one_ms"] = _each(predictions, ids, turn["requests"])
            found["many"] = {str(size): _many(predictions, many, size) for size in turn["batches"]}
            closing = time.perf_counter()
        found["close_s"] = time.perf_counter() - closing
        found["alone"] = {str(size): _alone(host, many, size) for size in turn["batches"]}
        found["one_alone_ms"] = 1e3 * _alone(host, ids[: turn["requests"]], 1) / min(turn["requests"], len(ids))
        say(pipe, **found)


def _each(predictions: Predictions, ids: Sequence[str], requests: int) -> list[float]:
    """Return what each request of one row took, in milliseconds."""
    took = []
    for number in range(WARM + requests):
        began = time.perf_counter()
        for _ in predictions.predict([ids[number % len(ids)]]):
            pass
        took.append(1e3 * (time.perf_counter() - began))
    return took[WARM:]


def _many(predictions: Predictions, ids: Sequence[str], size: int) -> Json:
    """Return what one request of many rows took."""
    carried, before_mb = tcp_bytes(), resident_mb()
    reset_peak()
    busy, began, rows = time.process_time(), time.perf_counter(), 0
    for batch in predictions.predict(ids, batch_size=size):
        rows += len(batch.values)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    now = tcp_bytes()
    if rows != len(ids):
        raise RuntimeError(f"{rows} of {len(ids)} rows were predicted")
    told = sum(now) - sum(carried) if now and carried else 0
    return {"seconds": seconds, "cpu_s": busy, "bytes": told, "more_mb": max(0.0, peak_mb() - before_mb)}


def _alone(host: PredictionHost, ids: Sequence[str], size: int) -> float:
    """Return the seconds in which one process with all columns and models predicts."""
    models = [host.make_feature_model() for _ in range(host.count)]
    infer = host.make_infer_model()
    began = time.perf_counter()
    with torch.no_grad():
        for start in range(0, len(ids), size):
            some = ids[start : start + size]
            torch.sigmoid(infer({str(number): model(host.inputs_of(some)) for number, model in enumerate(models)}))
    return time.perf_counter() - began


def measure(staff: Crew, collaborators: int, given: argparse.Namespace) -> Json:
    """Measure sessions of a host with so many collaborators; return their figures."""
    folder = staff.folder / f"with_{collaborators}"
    keys = ["host", *(f"collaborator_{number}" for number in range(1, collaborators + 1))]
    with settings(home=str(folder / "home"), progress="off", psi_protocol="ecdh"):
        task = open_directory(Settings.from_env()).store.create("prediction", keys)
        workers: list[Worker] = []
        for key in keys:
            arguments: Json = {"ids": given.ids, "feature_key": key, "out_dir": folder / key}
            work = serve
            if key == "host":
                work, arguments["count"] = ask, len(keys)
            workers.append(staff.start(f"{folder.name}-{key}", work, arguments, task.id))
    for each in workers:
        each.hear()
    host, *others = workers
    for each in others:
        each.tell(sessions=given.repeats)
    turn = {"rows": given.rows, "requests": given.requests, "batches": given.batches}
    found = [host.ask(**turn) for _ in range(given.repeats)]
    for each in others:
        each.hear()
    one = sorted(each for session in found for each in session["one_ms"])
    cell: Json = {
        "collaborators": collaborators,
        "ids": given.ids,
        "shared": found[0]["shared"],
        "open_s": median([each["open_s"] for each in found]),
        "close_s": median([each["close_s"] for each in found]),
        "one_row_ms": median(one),
        "one_row_p95_ms": one[int(0.95 * (len(one) - 1))],
        "one_row_alone_ms": median([each["one_alone_ms"] for each in found]),
        "many": [],
    }
    for size in given.batches:
        many, alone = ([each[kind][str(size)] for each in found] for kind in ("many", "alone"))
        cell["many"].append(
            {
                "rows": given.rows,
                "batch_size": size,
                "rows_a_second": median([given.rows / each["seconds"] for each in many]),
                "rows_a_second_alone": median([given.rows / each for each in alone]),
                "over_alone": median([each["seconds"] / other for each, other in zip(many, alone, strict=True)]),
                "host_cpu_us_a_row": median([1e6 * each["cpu_s"] / given.rows for each in many]),
                "bytes_a_row": median([each["bytes"] / given.rows for each in many]),
                "more_mb": max(each["more_mb"] for each in many),
            }
        )
    return cell


# --- what is printed --------------------------------------------------------------------------------------------------


def show(cells: Sequence[Json]) -> None:
    """Print two tables: sessions and single rows, then many rows."""
    show_table(
        f"a session over {cells[0]['ids']:,} ids, and requests of one row in it",
        ["parties", "open, s", "close, s", "one row, ms", "95 % within", "in one process"],
        [
            [
                f"{1 + each['collaborators']}",
                f"{each['open_s']:.2f}",
                f"{each['close_s']:.2f}",
                f"{each['one_row_ms']:.2f}",
                f"{each['one_row_p95_ms']:.2f}",
                f"{each['one_row_alone_ms']:.2f}",
            ]
            for each in cells
        ],
    )
    show_table(
        f"one request of {cells[0]['many'][0]['rows']:,} rows",
        ["parties", "batch", "rows/s", "in one process", "times as long", "host cpu, us/row", "bytes/row", "more MB"],
        [
            [
                f"{1 + each['collaborators']}",
                f"{many['batch_size']}",
                f"{many['rows_a_second']:,.0f}",
                f"{many['rows_a_second_alone']:,.0f}",
                f"{many['over_alone']:.2f}",
                f"{many['host_cpu_us_a_row']:.1f}",
                f"{many['bytes_a_row']:.1f}",
                f"{many['more_mb']:.1f}",
            ]
            for each in cells
            for many in each["many"]
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = _parser().parse_args(arguments)
    if given.quick:
        given.collaborators, given.batches, given.repeats = [1], [256], 1
        given.ids, given.rows, given.requests = 300, 2000, 20
    described = machine()
    show_machine(described)
    cells: list[Json] = []
    for count in sorted(set(given.collaborators)):
        try:
            with crew() as staff:
                cells.append(measure(staff, count, given))
        except Failed as error:
            print(f"prediction: {error}", file=sys.stderr)
            return 1
    show(cells)
    show_json({"benchmark": "prediction", "machine": described, "repeats": given.repeats, "cells": cells}, given.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collaborators", type=int, nargs="+", default=[1, 2], help="how many, one after the other")
    parser.add_argument("--ids", type=int, default=10_000, help="that are matched; default: %(default)s")
    parser.add_argument("--rows", type=int, default=100_000, help="of the large request; default: %(default)s")
    parser.add_argument("--requests", type=int, default=300, help="of one row each; default: %(default)s")
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 4096], help="rows of a batch of many rows")
    parser.add_argument("--repeats", type=int, default=3, help="sessions; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="a few rows, once: only to see it work")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Tables split by column: is a network that several parties train as good as in one piece, and better than one party's?

For four tables of scikit-learn and 2, 3 and 5 parties: AUC, accuracy or RMSE of the test rows of the federated model
(`TableHost`, `TableCollaborator`), of the same network trained in one piece on all columns, and of a network of the
host's own columns alone. Then, where there is breast_hetero, the two files of it: both parties in processes of their
own, from command to model.

    python benchmarks/tables.py
    python benchmarks/tables.py --tables breast_cancer,diabetes --parties 2 --rounds 5      quicker
    HETEROFED_DATA=~/data python benchmarks/tables.py --json
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file runs as a script from any folder

import numpy as np
import pandas as pd
import torch
from sklearn import datasets

from benchmarks.common import Json, machine, show_json, show_machine, show_table
from heterofed import Settings, run_locally
from heterofed.report import main_score, scores_of
from heterofed.tabular import TableCollaborator, TableHost
from heterofed.tabular.evaluating import predict_alone
from heterofed.tabular.losses import predictions_of
from heterofed.tabular.unsplit import predict_unsplit, put_together, unsplit_twin

SEED = 0
ISSUE = ["--fractions", "1,0,0", "--hidden", "", "--width", "8", "--seed", str(SEED)]
"""Linear(n -> 8) and ReLU at each party, trained on all rows."""

ISSUE_TOP = ["--top", "8", "--batch-size", "256", "--learning-rate", "0.01"]


def houses() -> Any:
    """As many rows and columns as California's houses; five of the columns tell the price, the first two little."""
    values, answers = datasets.make_friedman1(20_000, 8, noise=1.0, random_state=SEED)
    return values[:, [0, 5, 1, 2, 6, 3, 4, 7]], answers


TABLES: dict[str, Callable[[], Any]] = {
    "breast_cancer": lambda: datasets.load_breast_cancer(return_X_y=True),
    "digits": lambda: datasets.load_digits(return_X_y=True),
    "diabetes": lambda: datasets.load_diabetes(return_X_y=True),
    "houses": houses,
}


def cut(values: Any, answers: Any, parties: int) -> Iterator[pd.DataFrame]:
    """Yield each party's table, its rows in an order of its own; the first has the labels."""
    for party, columns in enumerate(np.array_split(np.arange(values.shape[1]), parties)):
        frame = pd.DataFrame({f"x{each}": values[:, each] for each in columns})
        frame.insert(0, "id", [f"row-{each}" for each in range(len(values))])
        if not party:
            frame["y"] = answers
        yield frame.sample(frac=1, random_state=party)


def measure(table: str, parties: int, rounds: int, folder: Path) -> Json:
    """Train one table with so many parties, and the two models that it is compared with."""
    settings = Settings(progress="off", psi_protocol="ecdh", home=folder / "home")
    values, answers = TABLES[table]()
    frames = list(cut(values, answers, parties))
    host = TableHost(
        "host",
        frames[0],
        "id",
        label="y",
        rounds=rounds,
        seed=SEED,
        evaluate=False,
        settings=settings,
        out_dir=folder / "host",
        calculation_timeout=0,
    )
    others = [
        TableCollaborator(f"c{number}", frame, "id", seed=SEED, settings=settings, out_dir=folder / f"c{number}")
        for number, frame in enumerate(frames[1:], start=1)
    ]
    began = time.perf_counter()
    run_locally(host, *others, seed=SEED)
    seconds = time.perf_counter() - began
    ids, labels = host.test_ids, host.labels
    truth = host.labels_of(ids)
    if labels.task == "regression":
        truth = predictions_of(labels, truth)

    def scores(values: Any) -> dict[str, float]:
        return scores_of(labels.task, truth.numpy(), np.asarray(values))

    score, higher = main_score(labels.task)
    federated = scores(predict_unsplit(put_together(host, *others), ids, host, *others))
    unsplit = scores(predict_unsplit(unsplit_twin(host, *others), ids, host, *others))
    alone = scores(predict_alone(host, ids))
    return {
        "table": table,
        "parties": parties,
        "score": score,
        "federated": federated[score],
        "unsplit": unsplit[score],
        "host_alone": alone[score],
        "apart": abs(federated[score] - unsplit[score]) / abs(unsplit[score]),
        "host_alone_is_worse": alone[score] < federated[score] if higher else alone[score] > federated[score],
        "seconds": seconds,
        "all_federated": federated,
        "all_unsplit": unsplit,
    }


def two_files(data: Path, rounds: int, folder: Path) -> Json:
    """Train on the two files of breast_hetero by commands, a process for each party; from the start to the end."""
    environment = {**os.environ, "HETEROFED_HOME": str(folder / "home"), "HETEROFED_PROGRESS": "off"}

    def command(*words: object) -> list[str]:
        return [sys.executable, "-m", "heterofed", *map(str, words)]

    created = subprocess.run(
        command("task", "create", "--parties", "guest,host"),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    task = created.stdout.split()[-1]
    shared = ["--id", "id", *ISSUE]
    guest, host = data / "breast_hetero_guest.csv", data / "breast_hetero_host.csv"
    out = {key: folder / key for key in ("guest", "host")}
    commands = [
        command(
            *("train", "host", "--data", guest, "--label", "y", "--feature-key", "guest", "--rounds", rounds),
            *(*ISSUE_TOP, *shared, "--out", out["guest"], task),
        ),
        command("train", "collaborator", "--data", host, "--feature-key", "host", *shared, "--out", out["host"], task),
    ]
    began = time.perf_counter()
    with (folder / "said").open("w+") as said:
        running = [subprocess.Popen(each, env=environment, stdout=said, stderr=said) for each in commands]
        codes = [each.wait() for each in running]
        seconds = time.perf_counter() - began
        if any(codes):
            said.seek(0)
            raise SystemExit(f"the commands ended with {codes}:\n{said.read()}")
    from heterofed.report import read_summary

    found = read_summary(out["guest"])
    return {"rounds": rounds, "seconds": seconds, "auc": found.sets["train"].scores["roc_auc"]}


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default=",".join(TABLES), help="which, by commas")
    parser.add_argument("--parties", type=int, nargs="+", default=[2, 3, 5])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("HETEROFED_DATA"), help="with breast_hetero")
    parser.add_argument("--json", action="store_true", help="print one line of JSON at the end")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    result: Json = {"machine": machine(), "tables": [], "two_files": []}
    show_machine(result["machine"])
    for table in args.tables.split(",") if args.tables else ():
        for parties in args.parties:
            with tempfile.TemporaryDirectory() as folder:
                result["tables"].append(measure(table, parties, args.rounds, Path(folder)))
    if result["tables"]:
        show_table(
            f"{args.rounds} rounds, scores of rows that were not trained on",
            ["table", "parties", "score", "federated", "unsplit", "apart by", "host alone", "seconds"],
            [
                [
                    each["table"],
                    str(each["parties"]),
                    each["score"],
                    f"{each['federated']:.6f}",
                    f"{each['unsplit']:.6f}",
                    f"{each['apart']:.1e}",
                    f"{each['host_alone']:.6f}" + ("" if each["host_alone_is_worse"] else " (not worse)"),
                    f"{each['seconds']:.1f}",
                ]
                for each in result["tables"]
            ],
        )
    files = Path(args.data_dir or "") / "breast_hetero"
    if args.data_dir and files.is_dir():
        for rounds in (3, 50):
            with tempfile.TemporaryDirectory() as place:
                result["two_files"].append(two_files(files, rounds, Path(place)))
        show_table(
            "the two files of breast_hetero, two processes, from command to model and report",
            ["rounds", "AUC of the train rows", "seconds"],
            [[str(each["rounds"]), f"{each['auc']:.6f}", f"{each['seconds']:.1f}"] for each in result["two_files"]],
        )
    else:
        print("no breast_hetero: set HETEROFED_DATA or --data-dir to a folder that holds it")
    show_json(result, args.json)


if __name__ == "__main__":
    main()

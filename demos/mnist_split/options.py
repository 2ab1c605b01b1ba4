"""What the two scripts of the demo have in common: their command line, and what picture names mean."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from demos.mnist_split.data import Digits, load_digits
from heterofed import ConfigError


@dataclass(frozen=True)
class Options:
    """The command line of one party."""

    task_id: str
    feature_key: str
    out: str
    rounds: int
    batch_size: int
    parties: int
    part: int
    dropout: bool
    seed: int
    recover: bool
    digits: Digits


def read_options(doc: str | None, *, host: bool) -> Options:
    """Read a party's command line and its pictures.

    Args:
        doc: the script's docstring, shown by --help.
        host: which script it is.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task-id", required=True, help="what `heterofed task create` printed")
    parser.add_argument("--out", required=True, help="folder for this party's checkpoints and results")
    parser.add_argument("--feature-key", default="demo_host" if host else "demo_collaborator")
    parser.add_argument("--data-dir", help="folder above MNIST/raw; default: HETEROFED_DATA, else a download")
    parser.add_argument("--train", type=int, help="use only the first so many training pictures")
    parser.add_argument("--test", type=int, help="use only the first so many test pictures")
    parser.add_argument("--parties", type=int, default=2, help="number of stripes the pictures are cut into")
    parser.add_argument("--no-dropout", dest="dropout", action="store_false")
    parser.add_argument("--seed", type=int, default=0, help="the same at every party")
    parser.add_argument("--threads", type=int, help="threads of torch; default: HETEROFED_THREADS, else torch's choice")
    parser.add_argument("--recover", action="store_true", help="go on from the last checkpoint in --out")
    if host:
        parser.add_argument("--rounds", type=int, default=5)
        parser.add_argument("--batch-size", type=int, default=128)
    else:
        parser.add_argument("--part", type=int, default=1, help="which stripe, from 1; the host has 0")
    given = parser.parse_args()
    if given.threads is not None:
        if given.threads < 1:
            parser.error("--threads must be 1 or more")
        torch.set_num_threads(given.threads)
        os.environ["HETEROFED_THREADS"] = str(given.threads)  # launch_task does what the variable says
    try:
        digits = load_digits(given.data_dir, train=given.train, test=given.test)
    except ConfigError as error:
        sys.exit(f"ConfigError: {error}")
    print(digits.source, flush=True)
    return Options(
        task_id=given.task_id,
        feature_key=given.feature_key,
        out=given.out,
        rounds=given.rounds if host else 0,
        batch_size=given.batch_size if host else 0,
        parties=given.parties,
        part=0 if host else given.part,
        dropout=given.dropout,
        seed=given.seed,
        recover=given.recover,
        digits=digits,
    )


def split_by_name(ids: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split picture names into those of the training and of the test pictures, each in the given order."""
    names = list(ids)
    return [each for each in names if each.startswith("train-")], [each for each in names if each.startswith("test-")]


def rows_of(ids: list[str], digits: Digits) -> list[int]:
    """Return the rows of named pictures in a table of all training pictures followed by all test pictures."""
    first_test = len(digits.train_labels)
    rows = []
    for each in ids:
        kind, number = each.split("-")
        rows.append(int(number) + (first_test if kind == "test" else 0))
    return rows


def check_digits(digits: Digits) -> None:
    """Refuse an empty set of pictures.

    Raises:
        ConfigError: there are no training or no test pictures.
    """
    if not len(digits.train_labels) or not len(digits.test_labels):
        raise ConfigError("there are no pictures to train or to test on", expected="at least one of each")

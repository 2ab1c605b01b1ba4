"""The options of the whole demo. Without torch, because a shell asks for them at every Tab."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

DEFAULT_TRAIN, DEFAULT_TEST = 10_000, 2_000
"""Enough to see it learn, few enough for a coffee break; --train 60000 --test 10000 is all of MNIST."""


def make_parser() -> argparse.ArgumentParser:
    """Return what reads the options."""
    parser = argparse.ArgumentParser(
        prog="heterofed demo mnist",
        description="The whole split-MNIST task on one machine: it creates the task, runs every party as a process of "
        "its own, each with a stripe of every digit, and compares with the network that is not split.",
        epilog="Example: heterofed demo mnist --rounds 2 --out runs/demo",
    )
    parser.add_argument("--rounds", type=_positive, metavar="N", default=5, help="rounds; default: %(default)s")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        default=Path("runs/demo"),
        help="where every party's outputs go; default: %(default)s",
    )
    parser.add_argument(
        "--batch-size", type=_positive, metavar="N", help="rows of a batch; default: 16, of the small digits 4"
    )
    parser.add_argument(
        "--parties", type=int, metavar="N", default=2, help="host and collaborators, 2 to 9; default: %(default)s"
    )
    parser.add_argument("--no-dropout", dest="dropout", action="store_false", help="train without dropout")
    parser.add_argument(
        "--seed", type=int, metavar="N", default=0, help="of weights, dropout and batches; default: %(default)s"
    )
    parser.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="torch threads of each party; default: HETEROFED_THREADS, else a fair share of the cores, "
        "and with --verify-exact one: more may sum in another order",
    )
    parser.add_argument(
        "--data-dir", metavar="FOLDER", help="folder above MNIST/raw; default: HETEROFED_DATA, else a download"
    )
    parser.add_argument(
        "--train", type=int, metavar="N", default=DEFAULT_TRAIN, help="training pictures; default: %(default)s"
    )
    parser.add_argument(
        "--test", type=int, metavar="N", default=DEFAULT_TEST, help="test pictures; default: %(default)s"
    )
    parser.add_argument("--recover", action="store_true", help="go on where the run in --out was stopped")
    parser.add_argument(
        "--plugin", action="append", metavar="FILE", default=[], help="a .py file or module with hooks, at every party"
    )
    parser.add_argument(
        "--hook", action="append", metavar="NAME", default=[], help="a hook that a plugin registers, by its name"
    )
    parser.add_argument("--plain", action="store_true", help="lines instead of a live table")
    parser.add_argument(
        "--verify-exact", action="store_true", help="compare all weights with the unsplit network's, bit for bit"
    )
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options; None: of this process."""
    return make_parser().parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number

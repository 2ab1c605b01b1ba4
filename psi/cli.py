"""The commands of `python -m psi`: intersect files on this machine, and measure."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from psi import bench, local
from psi.errors import BadIds, PsiError
from psi.messages import Reveal
from psi.oprf import PROTOCOLS, RSA
from psi.rsa import MIN_KEY_BITS

FAILED = 1
WRONG = 3
"""A measured run came to a wrong intersection."""
STOPPED = 130
"""By Ctrl-C; what shells expect."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 with an error on stderr, 3 for a wrong result, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        return _intersect(options) if options.command == "intersect" else _bench(options)
    except BrokenPipeError:
        return FAILED  # whoever read our output has seen enough
    except (PsiError, OSError) as error:
        sys.stderr.write(f"psi {options.command}: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        return STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m psi",
        description="Private set intersection: two parties find the ids that both have, and learn no others. "
        "Here both run on this machine, to try it out and to measure it.",
        epilog="Example: python -m psi intersect bank.txt shop.txt",
    )
    commands = parser.add_subparsers(dest="command", required=True, title="commands")
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--protocol", choices=PROTOCOLS, default=RSA, help="how ids are hidden; default: %(default)s")
    both.add_argument(
        "--bits", type=int, metavar="N", default=MIN_KEY_BITS, help="size of the key, with rsa; default: %(default)s"
    )
    both.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="threads (rsa) or processes (ecdh) of each role; default: by the number of cores and ids",
    )
    both.add_argument("--engine", metavar="NAME", help="the arithmetic, such as gmpy2; default: the fastest found here")
    both.add_argument("--chunk", type=int, metavar="N", help="ids in one message; default: the protocol's own number")

    intersect = commands.add_parser("intersect", parents=[both], help="print the ids that all files have")
    intersect.epilog = "Example: python -m psi intersect bank.txt shop.txt --protocol ecdh"
    intersect.description = (
        "Print the ids that all files have, one per line, sorted. All parties run in this process: to try it out."
    )
    intersect.add_argument("files", nargs="+", type=Path, metavar="FILE", help="two or more, one id per line, UTF-8")

    measure = commands.add_parser("bench", parents=[both], help="measure a run beside the bare arithmetic in it")
    measure.epilog = "Example: python -m psi bench --n 100000 --protocol ecdh"
    measure.description = "Run both roles in two processes over a loopback socket, on made-up ids, and measure."
    measure.add_argument(
        "--n", type=int, metavar="N", default=10_000, help="ids of the initiator; default: %(default)s"
    )
    measure.add_argument("--m", type=int, metavar="N", help="ids of the responder; default: as --n")
    measure.add_argument(
        "--overlap",
        type=float,
        metavar="PART",
        default=0.5,
        help="shared part of the smaller set; default: %(default)s",
    )
    measure.add_argument(
        "--reveal",
        choices=[each.value for each in Reveal],
        default=Reveal.BOTH.value,
        help="who learns which ids are shared: both, only the initiator, or only how many; default: %(default)s",
    )
    measure.add_argument(
        "--repeat", type=int, metavar="N", default=1, help="runs; that of median ratio is told; default: %(default)s"
    )
    measure.add_argument("--all-floors", action="store_true", help="also measure the bare arithmetic of other engines")
    measure.add_argument("--json", action="store_true", help="one JSON object on the last line, for programs")
    return parser


def _intersect(options: argparse.Namespace) -> int:
    if len(options.files) < 2:
        raise BadIds("one file was given; expected two or more, each with the ids of one party.")
    shared = local.intersect(
        *map(_read_ids, options.files),
        protocol=options.protocol,
        key_bits=options.bits,
        chunk=options.chunk,
        workers=options.workers,
        engine=options.engine,
    )
    sys.stdout.write("".join(f"{each}\n" for each in shared))
    sys.stdout.flush()
    return 0


def _bench(options: argparse.Namespace) -> int:
    settings = bench.Bench(
        protocol=options.protocol,
        bits=options.bits,
        n=options.n,
        m=options.n if options.m is None else options.m,
        overlap=options.overlap,
        workers=options.workers,
        engine=options.engine,
        reveal=options.reveal,
        chunk=options.chunk,
    )
    result = bench.repeat(settings, options.repeat, all_floors=options.all_floors)
    sys.stdout.write((json.dumps(result) if options.json else bench.report(result)) + "\n")
    sys.stdout.flush()
    return 0 if result["correct"] else WRONG


def _read_ids(path: Path) -> list[str]:
    """One id per line; the end of the last line may be missing.

    Raises:
        BadIds: the file is not UTF-8.
        OSError: it cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadIds(f"{path} is not UTF-8; expected a text file of one id per line.") from None
    lines = text.replace("\r\n", "\n").split("\n")  # splitlines() would also split at characters that an id may have
    return lines[:-1] if lines[-1] == "" else lines

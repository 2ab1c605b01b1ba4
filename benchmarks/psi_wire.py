"""The intersection as parties run it: two processes over encrypted sockets (ZeroMQ with CURVE) on loopback.

    python benchmarks/psi_wire.py --n 10000 --protocol rsa --bits 2048
    python benchmarks/psi_wire.py --n 70000 --protocol ecdh --repeat 3

It is `python -m psi bench` with `heterofed.scheduler.intersecting.Intersection` for the two roles: the same ids, the
same floor (the bare private operations on the same cores, right before and right after), the same numbers. What it
adds is all that lies between the arithmetic and the wire: links, phases, frames, encryption, progress.

The time is from the first word about ids to both parties done: by then they have found each other, checked in and been
welcomed; saying goodbye does not count. `bytes_up` and `bytes_down` are what `psi` says, without frames and encryption.
Lines for people come first, one JSON object on the last line. The exit code is 1 if a party failed, 3 if a result was
wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs as a script

from heterofed.config import Settings
from heterofed.errors import HeterofedError
from heterofed.frames.messages import AnyMessage, PsiPart
from heterofed.tasks.directory import open_directory
from psi import bench
from psi.bench import Bench
from psi.bench_processes import INITIATOR, RESPONDER, cpu_time, hear, peak_mb, say
from psi.cli import FAILED, WRONG
from psi.errors import PsiError
from psi.oprf import PROTOCOLS, RSA
from psi.rsa import MIN_KEY_BITS

if TYPE_CHECKING:
    from heterofed.scheduler.link import Link
    from heterofed.scheduler.matching import Matched

PATIENCE_S = 600.0
"""Longest wait of a party for one message."""
END_S = 10.0
"""For a worker process that has nothing more to do."""


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    load = os.getloadavg()[0]
    try:
        measured = Bench(
            protocol=options.protocol,
            bits=options.bits,
            n=options.n,
            m=options.n if options.m is None else options.m,
            overlap=options.overlap,
            workers=options.workers,
        )
        with (
            tempfile.TemporaryDirectory(prefix="psi-wire-") as home,
            _environment(_settings(measured, home)),
        ):
            result = bench.repeat(measured, options.repeat, party=party) | {"load_before": load}
    except (PsiError, HeterofedError, OSError) as error:
        print(f"psi_wire: {error}", file=sys.stderr)
        return FAILED
    print(bench.report(result))
    print(f"load      {load:.1f} processes wanted a core in the minute before")
    print(json.dumps(result))
    return 0 if result["correct"] else WRONG


def party(pipe: Connection, measured: Bench, role: str) -> None:
    """One party in a process of its own; the initiator is the host.

    Raises:
        PsiError: it failed.
    """
    # Here, because the timers of the floor load this module too.
    from heterofed.scheduler import intersecting

    logging.getLogger("heterofed").addHandler(logging.NullHandler())  # nobody is to read what the parties say
    ids = measured.ids(role)
    if not measured.engines:  # asking has tested them, so that it does not happen in the run
        raise PsiError("no engine works here")
    if role == RESPONDER:
        task_id = open_directory(Settings.from_env()).store.create("psi_wire", [INITIATOR, RESPONDER]).id
        say(pipe, task=task_id)
    else:
        task_id = hear(pipe)["task"]
    part = intersecting.Intersection(task_id, role, ids, data_channel_timeout=(PATIENCE_S, PATIENCE_S))
    name = "match_as_host" if role == INITIATOR else "match_as_collaborator"
    watch = _Watch(pipe, getattr(intersecting, name))
    try:
        with patch.object(intersecting, name, watch):
            matched = part.as_host() if role == INITIATOR else part.as_collaborator()
    except HeterofedError as error:
        raise PsiError(str(error)) from None
    for process in multiprocessing.active_children():
        process.join(END_S)  # the time of workers counts once they have ended
    used = {"cpu_seconds": cpu_time() - watch.cpu_before, "peak_rss_mb": peak_mb()}
    say(pipe, size=matched.count, correct=matched.ids == measured.expected(), sent=watch.sent, **used)


@dataclass
class _Watch:
    """Stands in for the matching of ids: waits for the parent's word before it, and tells it of the end."""

    pipe: Connection
    match: Callable[..., Matched]
    sent: int = 0
    cpu_before: float = 0.0

    def __call__(self, link: Link, *arguments: Any, **options: Any) -> Matched:
        send = link.send

        def counting(to: str, message: AnyMessage, timeout_s: float = 0.0) -> None:
            if isinstance(message, PsiPart):
                self.sent += message.payload.nbytes
            send(to, message, timeout_s)

        say(self.pipe, ready=True)
        hear(self.pipe)
        self.cpu_before = cpu_time()
        with patch.object(link, "send", counting):
            matched = self.match(link, *arguments, **options)
        say(self.pipe, finished=True)
        return matched


def _settings(measured: Bench, home: str) -> dict[str, str]:
    return {
        "HETEROFED_HOME": home,
        "HETEROFED_PROGRESS": "off",
        "HETEROFED_GATHER_TIMEOUT_S": "60",
        "HETEROFED_PSI_PROTOCOL": measured.protocol,
        "HETEROFED_PSI_KEY_BITS": str(measured.bits),
        "HETEROFED_PSI_WORKERS": str(measured.workers or 0),
    }


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set these variables, and no others of heterofed, here and in the processes that are started."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("HETEROFED_")}
    with patch.dict(os.environ, {**others, **variables}, clear=True):
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure the intersection of two parties over real, encrypted links.")
    parser.add_argument("--protocol", choices=PROTOCOLS, default=RSA, help="default: %(default)s")
    parser.add_argument(
        "--bits", type=int, default=MIN_KEY_BITS, help="size of the key, with rsa; default: %(default)s"
    )
    parser.add_argument("--n", type=int, default=10_000, help="ids of the host; default: %(default)s")
    parser.add_argument("--m", type=int, help="ids of the collaborator; default: as --n")
    parser.add_argument("--overlap", type=float, default=0.5, help="shared part of the smaller set; default: 0.5")
    parser.add_argument("--workers", type=int, help="threads (rsa) or processes (ecdh) of each party; default: its own")
    parser.add_argument("--repeat", type=int, default=1, help="runs; that of median ratio is told; default: 1")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())

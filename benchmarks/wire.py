"""One batch from process to process: our whole stack beside bare ZeroMQ sockets, plain and encrypted.

    python -m benchmarks.wire
    python -m benchmarks.wire --widths 10 4096 --batches 128 --repeats 9 --json

A round trip is an embedding one way and a gradient back; the throughput is that of many embeddings one way, up to the
host's word that it has them all. Ours is everything from tensor to tensor: message, session, codec, numbering, ZeroMQ.
Bare sockets, ROUTER and DEALER, carry as many bytes with the same encryption; see `wire_ends.py` for what they do.

All links are open at the same time and take turns; ratios are those of one repeat, and their medians are told.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file runs as a script from any folder

import torch

from benchmarks.common import Json, machine, median, median_ratio, show_json, show_machine, show_table, tcp_bytes
from benchmarks.crew import Crew, Failed, Worker, crew
from benchmarks.wire_ends import Bare, Least, Ours, header_bytes
from heterofed.protocol.phases import Role
from heterofed.wire.keys import KeyPair
from psi.bench_processes import hear, say

WIDTHS = (10, 64, 256, 1024, 4096)
BATCHES = (128, 1024, 4096)
KINDS: dict[str, type[Ours | Bare]] = {"ours": Ours, "bare": Bare, "least": Least}
ENCRYPTION = ("plain", "curve")

ROUND_TRIP, ONE_WAY = "round_trip", "one_way"

MIB = 1 << 20
MOST_TRIPS = 400
LEAST = 3
FLOAT_BYTES = 4


# --- the two processes ------------------------------------------------------------------------------------------------


def host(pipe: Connection, keys: Sequence[str]) -> None:
    """Answer: the work of a worker."""
    torch.set_num_threads(1)
    ends = _open(Role.HOST, keys, {})
    say(pipe, endpoints={name: each.endpoint for name, each in ends.items()})
    for each in ends.values():
        each.heard()  # so that it can be answered
    say(pipe, ready=True)
    while True:
        turn = hear(pipe)
        end = ends[turn["link"]]
        end.size(turn["rows"], turn["width"])
        say(pipe, ready=True)
        busy = time.process_time()
        if turn["what"] == ROUND_TRIP:
            for _ in range(turn["count"]):
                end.heard()
                end.answer()
        else:
            for _ in range(turn["count"]):
                end.heard()
            end.size(1, 1)
            end.heard()
            end.answer()
        say(pipe, cpu_s=(time.process_time() - busy) / turn["count"])


def collaborate(pipe: Connection, keys: Sequence[str], endpoints: dict[str, str]) -> None:
    """Ask, and measure: the work of a worker."""
    torch.set_num_threads(1)
    ends = _open(Role.COLLABORATOR, keys, endpoints)
    for each in ends.values():
        each.ask()
    while True:
        turn = hear(pipe)
        end, count = ends[turn["link"]], turn["count"]
        end.size(turn["rows"], turn["width"])
        carried, busy, began = tcp_bytes(), time.process_time(), time.perf_counter()
        if turn["what"] == ROUND_TRIP:
            for _ in range(count):
                end.ask()
                end.heard()
        else:
            for _ in range(count):
                end.ask()
            end.size(1, 1)
            end.ask()
            end.heard()
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        now = tcp_bytes()
        told = [after - before for before, after in zip(carried, now, strict=True)] if carried and now else [0, 0]
        say(pipe, seconds=seconds / count, cpu_s=busy / count, sent=told[0] / count, received=told[1] / count)


def _open(role: Role, keys: Sequence[str], endpoints: dict[str, str]) -> dict[str, Ours | Bare]:
    ours, theirs = (
        KeyPair(public.encode(), secret.encode()) for public, secret in zip(keys[::2], keys[1::2], strict=True)
    )
    ends: dict[str, Ours | Bare] = {}
    for encryption in ENCRYPTION:
        for kind, make in KINDS.items():
            name = f"{kind} {encryption}"
            ends[name] = make(role, ours, theirs, encrypted=encryption == "curve", endpoint=endpoints.get(name, ""))
            ends[name].size(1, 1)
    return ends


# --- taking turns -----------------------------------------------------------------------------------------------------


class Links:
    """All links between the two processes."""

    def __init__(self, staff: Crew) -> None:
        pairs = [KeyPair.generate(), KeyPair.generate()]
        keys = [half.decode() for pair in pairs for half in (pair.public, pair.secret)]
        self._host: Worker = staff.start("host", host, keys)
        endpoints = self._host.hear()["endpoints"]
        self._other: Worker = staff.start("collaborator", collaborate, keys, endpoints)
        self._host.hear()

    def turn(self, link: str, what: str, rows: int, width: int, count: int) -> Json:
        """Let one link work once; return seconds, both processes' processor time and bytes of a message (or trip)."""
        turn = {"link": link, "what": what, "rows": rows, "width": width, "count": count}
        self._host.ask(**turn)
        figures = self._other.ask(**turn)
        figures["cpu_s"] += self._host.hear()["cpu_s"]
        return figures


def measure(links: Links, rows: int, width: int, repeats: int, budget_mib: float) -> list[Json]:
    """Measure one size of embeddings; return the figures of each encryption."""
    size = rows * width * FLOAT_BYTES
    messages = max(LEAST, int(budget_mib * MIB / size))
    counts = {ROUND_TRIP: min(MOST_TRIPS, max(LEAST, messages // 2)), ONE_WAY: min(5 * MOST_TRIPS, messages)}
    names = [f"{kind} {encryption}" for encryption in ENCRYPTION for kind in KINDS]
    found: dict[tuple[str, str], list[Json]] = {}
    for repeat in range(repeats + 1):
        for name in names[:: 1 if repeat % 2 else -1]:  # so that none always follows the same other one
            for what, count in counts.items():
                figures = links.turn(name, what, rows, width, count if repeat else LEAST)
                if repeat:
                    found.setdefault((name, what), []).append(figures)
    return [_cell(found, encryption, rows, width) for encryption in ENCRYPTION]


def _cell(found: dict[tuple[str, str], list[Json]], encryption: str, rows: int, width: int) -> Json:
    size = rows * width * FLOAT_BYTES

    def column(kind: str, what: str, name: str = "seconds") -> list[float]:
        return [each[name] for each in found[f"{kind} {encryption}", what]]

    cell: Json = {"encryption": encryption, "width": width, "rows": rows, "header_bytes": header_bytes(rows, width)}
    for kind in KINDS:
        cell[f"{kind}_round_trip_us"] = 1e6 * median(column(kind, ROUND_TRIP))
        cell[f"{kind}_mb_s"] = size / 1e6 / median(column(kind, ONE_WAY))
        for what in (ROUND_TRIP, ONE_WAY):
            cell[f"{kind}_{what}_cpu_us"] = 1e6 * median(column(kind, what, "cpu_s"))
        carried = [
            (sent + received) / (2 * size)
            for sent, received in zip(
                column(kind, ROUND_TRIP, "sent"), column(kind, ROUND_TRIP, "received"), strict=True
            )
        ]
        cell[f"{kind}_bytes_over_tensors"] = median(carried)
    for other in ("bare", "least"):
        cell[f"round_trip_over_{other}"] = median_ratio(column("ours", ROUND_TRIP), column(other, ROUND_TRIP))
        cell[f"throughput_over_{other}"] = median_ratio(column(other, ONE_WAY), column("ours", ONE_WAY))
        for what in (ROUND_TRIP, ONE_WAY):
            ratio = median_ratio(column("ours", what, "cpu_s"), column(other, what, "cpu_s"))
            cell[f"{what}_cpu_over_{other}"] = ratio
    return cell


# --- what is printed --------------------------------------------------------------------------------------------------


def show(cells: Sequence[Json]) -> None:
    """Print one table for each encryption."""
    for encryption in ENCRYPTION:
        show_table(
            f"embeddings of (rows, width) float32, {encryption}",
            [
                "rows x width",
                "trip, us",
                "of bare",
                "of least",
                "MB/s",
                "of bare",
                "of least",
                "cpu",
                "bytes",
                "header",
            ],
            [
                [
                    f"{each['rows']} x {each['width']}",
                    f"{each['ours_round_trip_us']:.0f}",
                    f"{each['round_trip_over_bare']:.2f}",
                    f"{each['round_trip_over_least']:.2f}",
                    f"{each['ours_mb_s']:.0f}",
                    f"{each['throughput_over_bare']:.2f}",
                    f"{each['throughput_over_least']:.2f}",
                    f"{each['one_way_cpu_over_bare']:.2f}",
                    f"{each['ours_bytes_over_tensors']:.4f}",
                    f"{each['header_bytes']}",
                ]
                for each in cells
                if each["encryption"] == encryption
            ],
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = _parser().parse_args(arguments)
    if given.quick:
        given.widths, given.batches, given.repeats, given.mib = [10, 1024], [128], 1, 1.0
    described = machine()
    show_machine(described)
    cells: list[Json] = []
    try:
        with crew() as staff:
            links = Links(staff)
            for width in sorted(set(given.widths)):
                for rows in sorted(set(given.batches)):
                    cells += measure(links, rows, width, given.repeats, given.mib)
    except Failed as error:
        print(f"wire: {error}", file=sys.stderr)
        return 1
    show(cells)
    result = {"benchmark": "wire", "machine": described, "repeats": given.repeats, "cells": cells}
    for name, end in (
        ("round_trip_over_bare", cells[: len(ENCRYPTION)]),
        ("throughput_over_bare", cells[-len(ENCRYPTION) :]),
    ):
        result[name] = {each["encryption"]: each[name] for each in end}  # of the smallest and of the largest embedding
    show_json(result, given.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS), help="of an embedding")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), help="rows of a batch")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count; default: %(default)s")
    parser.add_argument("--mib", type=float, default=64.0, help="what a turn carries, about; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="two sizes, once: only to see it work")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Our private set intersection beside OpenMined's and SecretFlow's, on the same machine in the same run.

    python benchmarks/psi_peers.py --n 100000 --repeat 3

Each system intersects sets of the same sizes and overlap, two processes on loopback, in turns; the time is from both
processes ready to the result known at the receiver, and every answer is checked. A table comes first, one JSON object
on the last line. README.md beside this file says what is measured how, and what was chosen in whose favour.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs as a script

from benchmarks.peers.environments import (
    OPENMINED,
    SECRETFLOW,
    Peer,
    PeerUnavailable,
    ensure,
)
from benchmarks.peers.party import Job, read_ids, write_ids
from benchmarks.peers.processes import RunFailed, free_ports, run_ours, run_pair
from benchmarks.peers.results import (
    Contender,
    Run,
    machine,
    number,
    table,
    verdict,
)

SYSTEMS = ("ours", "openmined", "secretflow")
SECRETFLOW_VARIANTS = ("25519", "25519-elligator2", "fourq", "kkrt", "rr22")
SECRETFLOW_ECDH = ("25519", "25519-elligator2", "fourq")
OPENMINED_CHUNKS = 8


@dataclass(frozen=True)
class Workload:
    """Two sets of ids on disk, and what their intersection is."""

    folder: Path
    n: int
    m: int
    expected: frozenset[str]

    @property
    def receiver_ids(self) -> Path:
        """The receiver's ids, `n` of them."""
        return self.folder / "receiver.csv"

    @property
    def sender_ids(self) -> Path:
        """The sender's ids, `m` of them."""
        return self.folder / "sender.csv"


def make_workload(folder: Path, n: int, m: int, overlap: float, seed: int) -> Workload:
    """Write two shuffled sets of 12-character ids; the share `overlap` of the smaller set is common."""
    common = round(overlap * min(n, m))
    ids = [f"id{number:010d}" for number in range(n + m - common)]
    shuffler = random.Random(seed)
    shuffler.shuffle(ids)
    receiver, sender = ids[:n], ids[n - common :]
    shuffler.shuffle(receiver)
    shuffler.shuffle(sender)
    workload = Workload(folder, n, m, frozenset(receiver) & frozenset(sender))
    write_ids(str(workload.receiver_ids), receiver)
    write_ids(str(workload.sender_ids), sender)
    return workload


def loopback_bytes() -> int | None:
    """How many bytes this machine's loopback interface has carried, or None where the system does not say."""
    counters = Path("/proc/net/dev")
    if not counters.exists():
        return None
    for line in counters.read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[0])
    return None


def measure_peer(peer: Peer, python: Path, variant: str, both: bool, workload: Workload, deadline_s: float) -> Run:
    """One run of a peer: two processes, and the receiver's answer compared with Python's own."""
    answer, ports = workload.folder / "answer.csv", free_ports()
    answer.unlink(missing_ok=True)
    receiver = Job("receiver", str(workload.receiver_ids), str(answer), ports, workload.m, variant, both, deadline_s)
    sender = Job(
        "sender",
        str(workload.sender_ids),
        str(workload.folder / "unused.csv"),
        ports,
        workload.n,
        variant,
        both,
        deadline_s,
    )
    before = loopback_bytes()
    reports = run_pair(python, f"benchmarks.peers.{peer.name}", (receiver, sender), workload.folder)
    after = loopback_bytes()
    exact = [report.bytes_sent for report in reports if report.bytes_sent is not None]
    carried = None if before is None or after is None else after - before
    found = read_ids(str(answer)) if answer.exists() else []
    return Run(
        seconds=reports[0].seconds,
        cpu_seconds=sum(report.cpu_seconds for report in reports),
        peak_rss_mb=max(report.peak_rss_mb for report in reports),
        bytes_total=sum(exact) if len(exact) == len(reports) else carried,
        correct=len(found) == len(workload.expected) and frozenset(found) == workload.expected,
        detail={"receiver": asdict(reports[0]), "sender": asdict(reports[1])},
    )


def measure_ours(arguments: list[str], workload: Workload, deadline_s: float) -> Run:
    """One run of `python -m psi bench`, which makes ids of its own, of the same sizes and overlap, and checks them."""
    result = run_ours(arguments, deadline_s)
    seconds = number(result, "seconds")
    if seconds is None:
        raise RunFailed(f"psi bench's JSON has no number 'seconds' but {sorted(result)}")
    up, down = number(result, "bytes_up"), number(result, "bytes_down")
    return Run(
        seconds=seconds,
        cpu_seconds=number(result, "cpu_seconds"),
        peak_rss_mb=number(result, "peak_rss_mb"),
        bytes_total=None if up is None or down is None else int(up + down),
        correct=result.get("correct") is True and result.get("intersection_size") == len(workload.expected),
        detail=result,
    )


def our_contenders(options: argparse.Namespace, workload: Workload) -> list[Contender]:
    """Our own rows: one for each protocol asked for."""

    def contender(protocol: str) -> Contender:
        arguments = ["--protocol", protocol, "--n", str(workload.n), "--m", str(workload.m), "--json"]
        arguments += ["--overlap", str(options.overlap), "--reveal", options.reveal]
        arguments += ["--bits", str(options.bits)] if protocol == "rsa" else []
        arguments += ["--workers", str(options.workers)] if options.workers else []
        arguments += ["--engine", options.engine] if options.engine else []
        return Contender(f"ours {protocol}", "here", lambda: measure_ours(arguments, workload, options.deadline))

    return [contender(protocol) for protocol in options.protocols]


def peer_contenders(
    peer: Peer, variants: list[str], options: argparse.Namespace, workload: Workload, venvs: Path
) -> list[Contender]:
    """A peer's rows, one for each variant; a single row with the reason where the peer cannot be installed."""

    def contender(variant: str, python: Path) -> Contender:
        name = f"{peer.name} {variant}" if peer is SECRETFLOW else peer.name
        return Contender(
            name,
            peer.version,
            lambda: measure_peer(peer, python, variant, options.reveal == "both", workload, options.deadline),
            comparable=peer is OPENMINED or variant in SECRETFLOW_ECDH,
        )

    try:
        python = ensure(peer, venvs / peer.name, options.peer_python)
    except PeerUnavailable as problem:
        print(f"{peer.name}: {problem}", file=sys.stderr, flush=True)
        unavailable = contender(variants[0], Path())
        unavailable.name, unavailable.error = peer.name, f"not installed: {problem}"
        return [unavailable]
    return [contender(variant, python) for variant in variants]


def options_from(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    add = parser.add_argument
    add("--n", type=int, default=20_000, help="ids of the receiver (default %(default)s)")
    add("--m", type=int, help="ids of the sender (default: as --n)")
    add("--overlap", type=float, default=0.5, help="common share of the smaller set (default %(default)s)")
    add("--reveal", choices=("initiator", "both"), default="initiator", help="who learns (default %(default)s)")
    add("--repeat", type=int, default=3, help="runs of each system, in turns (default %(default)s)")
    add("--only", type=names(SYSTEMS), default=list(SYSTEMS), help=f"of {','.join(SYSTEMS)} (default: all)")
    add("--protocols", type=names(("ecdh", "rsa")), default=["ecdh"], help="ours: ecdh,rsa (default ecdh)")
    add("--bits", type=int, default=2048, help="ours, rsa: size of the modulus (default %(default)s)")
    add("--workers", type=int, help="ours: passed on to psi bench")
    add("--engine", help="ours: passed on to psi bench")
    add(
        "--variants",
        type=names(SECRETFLOW_VARIANTS),
        default=["25519", "25519-elligator2", "fourq", "rr22"],
        help=f"SecretFlow: of {','.join(SECRETFLOW_VARIANTS)} (default: all but kkrt)",
    )
    add("--chunks", type=int, default=OPENMINED_CHUNKS, help="OpenMined: chunks of the request (default %(default)s)")
    add("--venvs", type=Path, help="folder for the peers' environments, kept and reused (default: a temporary one)")
    add("--peer-python", default=sys.executable, help="interpreter to make these environments with (default: this one)")
    add("--deadline", type=float, default=600.0, help="seconds that one run may take (default %(default)s)")
    add("--seed", type=int, default=1, help="order of the ids (default %(default)s)")
    options = parser.parse_args(arguments)
    options.m = options.n if options.m is None else options.m
    if min(options.n, options.m, options.repeat, options.chunks) < 1 or not 0 <= options.overlap <= 1:
        parser.error("--n, --m, --repeat and --chunks are at least 1, and --overlap is between 0 and 1")
    return options


def names(allowed: tuple[str, ...]) -> Callable[[str], list[str]]:
    """A reader of comma-separated names out of `allowed`."""

    def read(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",") if name.strip()]
        if not chosen or not set(chosen) <= set(allowed):
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(allowed)}, separated by commas")
        return chosen

    return read


def compare(options: argparse.Namespace, folder: Path) -> tuple[list[Contender], Workload]:
    """Install what is missing, make the ids, and let the systems take turns."""
    workload = make_workload(folder, options.n, options.m, options.overlap, options.seed)
    venvs = (options.venvs or folder / "venvs").absolute()
    contenders: list[Contender] = []
    if "ours" in options.only:
        contenders += our_contenders(options, workload)
    if "openmined" in options.only:
        contenders += peer_contenders(OPENMINED, [str(options.chunks)], options, workload, venvs)
    if "secretflow" in options.only:
        contenders += peer_contenders(SECRETFLOW, options.variants, options, workload, venvs)
    for _ in range(options.repeat):
        for contender in contenders:
            contender.take_turn()
    return contenders, workload


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison and print it; 1 if any system gave a wrong answer, else 0."""
    options = options_from(arguments)
    with tempfile.TemporaryDirectory(prefix="psi-peers-") as folder:
        contenders, workload = compare(options, Path(folder))
    print(f"\n{workload.n:,} x {workload.m:,} ids, {len(workload.expected):,} common, best of {options.repeat}\n")
    print(table(contenders, workload.n, workload.m), end="\n\n")
    sizes = {
        "n": workload.n,
        "m": workload.m,
        "common": len(workload.expected),
        "repeat": options.repeat,
        "reveal": options.reveal,
    }
    rows = [contender.summary() for contender in contenders]
    print(json.dumps(sizes | {"machine": machine()} | verdict(contenders) | {"systems": rows}))
    return int(any(row.get("correct") is False for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())

"""What the two party programs of a peer share: the job they are given, the start signal, and the measurements.

A party program reads its job from its first argument, gets everything ready (imports, ids in memory, link up), says
`ready`, waits for `go`, runs, and reports. Its lines carry a mark, so that whatever the peer's own library prints
on the same pipe is passed over. Standard library only: these modules run under the peers' own interpreters.
"""

from __future__ import annotations

import csv
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

MARK = "psi-peers "


@dataclass(frozen=True)
class Job:
    """One party's part in one run.

    `ids` and `answer` are CSV files with the one column `id`; the receiver writes the intersection to `answer`.
    `ports` are two free ports on loopback, the receiver's first. With `both`, the sender is to learn the result too.
    """

    role: str
    ids: str
    answer: str
    ports: tuple[int, int]
    other_size: int
    variant: str
    both: bool
    deadline_s: float

    @property
    def receives(self) -> bool:
        """Whether this party learns the intersection."""
        return self.role == "receiver"

    def as_text(self) -> str:
        """The job as one command line argument."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Report:
    """What one party measured between `go` and the end of its part.

    `seconds` and `cpu_seconds` (all threads of the process) cover that stretch; `peak_rss_mb` is of the whole process,
    imports included; `bytes_sent` is None where the library does not tell.
    """

    seconds: float
    cpu_seconds: float
    peak_rss_mb: float
    bytes_sent: int | None


def read_job() -> Job:
    """The job in this program's first argument."""
    fields = json.loads(sys.argv[1])
    return Job(**{**fields, "ports": tuple(fields["ports"])})


def read_ids(path: str) -> list[str]:
    """The ids of a CSV file with the one column `id`, in its order."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    if header != ["id"]:
        raise ValueError(f"{path} should have the one column 'id', but its columns are {header}")
    return [row[0] for row in rows]


def write_ids(path: str, ids: list[str]) -> None:
    """Write ids as a CSV file with the one column `id`."""
    Path(path).write_text("\n".join(["id", *ids]) + "\n", encoding="utf-8")


def peak_rss_mb() -> float:
    """This process's largest resident memory, in MB of 10^6 bytes.

    Linux's VmHWM is preferred: getrusage's figure starts at the memory of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def wait_for_go() -> Stopwatch:
    """Say that this party is ready, wait for the start signal, and start the clocks."""
    print(f"{MARK}ready", flush=True)
    if sys.stdin.readline().strip() != "go":
        raise SystemExit("the benchmark ended before the start signal")
    return Stopwatch()


class Stopwatch:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def stop(self, bytes_sent: int | None = None) -> Report:
        """The measurements up to now."""
        seconds, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return Report(seconds, cpu, peak_rss_mb(), bytes_sent)


def send_report(report: Report) -> None:
    """Hand the measurements to the benchmark: the last thing that a party program does."""
    print(MARK + json.dumps(asdict(report)), flush=True)

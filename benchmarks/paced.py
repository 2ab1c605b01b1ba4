"""Real parties, each a process with its own task, keys, sockets and hooks, that train a round when they are told to.

The host waits at the start of every round for a word of the parent process, so that rounds of several federations, and
other things, can take turns in one run. The hook that waits does nothing during a batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Json, peak_mb, reset_peak, resident_mb, tcp_bytes
from benchmarks.crew import Crew, Worker, settings
from heterofed import CollaboratorScheduler, HostScheduler, Settings
from heterofed.metrics.meter import Meter
from heterofed.tasks.directory import open_directory
from heterofed.training.hooks import HookBase
from psi.bench_processes import hear, say

Make = Callable[..., HostScheduler | CollaboratorScheduler]
"""Makes a party from keyword arguments, `feature_key` and `out_dir` among them."""


class Paced(HookBase):
    """Waits at the start of each round, at the host; says at its end what its training took.

    Args:
        pipe: to the parent process.
        meter: gives the sums of this party's link.
        waits: whether to wait for a word.
    """

    def __init__(self, pipe: Connection, meter: Callable[[], Meter], *, waits: bool) -> None:
        self._pipe = pipe
        self._meter = meter
        self._waits = waits
        self._before: Json = {}
        self._fit_began = 0.0
        self._trained: Json = {}

    def before_round(self) -> None:
        """Wait, then note where everything stands."""
        if self._waits:
            say(self._pipe, ready=True)
            hear(self._pipe)
        self._before = self._now()

    def before_fit(self) -> None:
        """Note when the pass over the batches begins; what lies before it is the plan of the round."""
        self._fit_began = time.perf_counter()

    def after_fit(self) -> None:
        """Note what the training of the round took; its test and its checkpoint come after that."""
        now = self._now()
        self._trained = {name: now[name] - before for name, before in self._before.items()}
        self._trained["fit_s"] = now["seconds"] - self._fit_began
        self._trained["compute_s"] = self._trained["seconds"] - self._trained["waited_s"] - self._trained["wire_s"]
        self._trained["trained_mb"] = resident_mb()
        reset_peak()

    def after_round(self) -> None:
        """Say it."""
        say(self._pipe, **self._trained, resident_mb=resident_mb(), peak_mb=peak_mb())

    def _now(self) -> Json:
        meter = self._meter()
        carried = tcp_bytes() or (0, 0)
        return {
            "seconds": time.perf_counter(),
            "cpu_s": time.process_time(),
            "thread_s": time.thread_time(),
            "waited_s": sum(meter.waited_s.values()),
            "wire_s": meter.wire_s,
            "sent": meter.bytes_sent,
            "received": meter.bytes_received,
            "tcp_sent": carried[0],
            "tcp_received": carried[1],
        }


def play(pipe: Connection, make: Make, given: Mapping[str, Any], task_id: str, threads: int) -> None:
    """Be one party of a task: the work of a worker."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    party = make(**given)
    hook = Paced(pipe, lambda: party._linked.meter, waits=isinstance(party, HostScheduler))
    party.trainer.register_hooks([hook])
    before_mb = resident_mb()
    party.launch_task(task_id)
    say(pipe, finished=True, before_mb=before_mb)


class Federation:
    """A task whose parties have begun, and wait for their rounds.

    Args:
        crew: starts their processes.
        folder: for the task store, the keys and the outputs; of this federation alone.
        host: makes the host, with its arguments but `feature_key` and `out_dir`.
        collaborators: the same for each collaborator.
        threads: torch's, of each party.
        others: settings of heterofed besides those that every benchmark has.
    """

    def __init__(
        self,
        crew: Crew,
        folder: Path,
        host: tuple[Make, Mapping[str, Any]],
        collaborators: Sequence[tuple[Make, Mapping[str, Any]]],
        *,
        threads: int = 1,
        others: Mapping[str, str] | None = None,
    ) -> None:
        parties = {"host": host, **{f"collaborator_{i}": each for i, each in enumerate(collaborators, 1)}}
        common = {"home": str(folder / "home"), "progress": "plain", "psi_protocol": "ecdh", **(others or {})}
        with settings(**common):
            task = open_directory(Settings.from_env()).store.create("benchmark", list(parties))
            self._workers: dict[str, Worker] = {
                key: crew.start(
                    f"{folder.name}-{key}",
                    play,
                    make,
                    {**given, "feature_key": key, "out_dir": folder / key},
                    task.id,
                    threads,
                )
                for key, (make, given) in parties.items()
            }

    def gather(self) -> None:
        """Wait until the first round can begin: the parties are there, their ids are matched."""
        self._workers["host"].hear()

    def round(self) -> dict[str, Json]:
        """Run a round; return what its training took at each party, the host first. See `Paced`."""
        self._workers["host"].tell(go=True)
        figures = {key: each.hear() for key, each in self._workers.items()}
        said = self._workers["host"].hear()  # that the next round can begin, or that there is none
        if "finished" in said:
            ends = {key: each.hear() if key != "host" else said for key, each in self._workers.items()}
            for key, end in ends.items():
                figures[key]["before_mb"] = end["before_mb"]
        return figures

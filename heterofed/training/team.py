"""The processes of one party: who they are, and how they tell each other words and tensors.

They are started by torchrun, or joined by `torch.distributed.init_process_group` before. The first of them (rank 0)
leads; the others do what it says. Words are msgspec structs and travel as bytes, over gloo whatever the devices are;
nothing is pickled.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor

from heterofed.errors import ConfigError, TaskFailed

FOREVER = timedelta(days=365)
"""How long the others wait for the first one's word: it has deadlines of its own, and its end is noticed at once."""

FRAME_BYTES = 1024
"""A word of up to about so many bytes travels in one piece."""

_LENGTH_BYTES = 8
_WORD, _REST, _TENSOR = 1, 2, 3  # tags, so that a piece is never taken for one of another kind
_RENDEZVOUS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_ENCODER = msgspec.msgpack.Encoder()


class Present(msgspec.Struct, frozen=True):
    """A process says which it is, so that its end can be told from a silence."""

    machine: str
    process: int


class Team:
    """The processes of a party, as one of them sees them.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are, 2 or more.
        limit: how long the first one waits for another one's answer.
        broken: True when one of them was found to be gone, or too late.
    """

    def __init__(self, *, ours: bool) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.limit = FOREVER
        self.broken = False
        self._ours = ours
        self._words = _group("gloo", FOREVER)
        self._sums: dict[str, dist.ProcessGroup] = {}
        self._on_the_way: dict[int, list[tuple[dist.Work, Tensor]]] = {rank: [] for rank in range(self.size)}
        self._present: dict[int, Present] = {}

    # --- joining and leaving ------------------------------------------------------------------------------------------

    @classmethod
    def join(cls, wait_s: float) -> Team | None:
        """Return the team that this process belongs to; None where it is a party by itself.

        Args:
            wait_s: how long to wait until all of its processes are there, in seconds; 0: no limit.

        Raises:
            ConfigError: they do not come together.
        """
        if not dist.is_available():
            return None
        ours = not dist.is_initialized()
        if ours:
            if not _is_one_of_many():
                return None
            try:
                backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
                dist.init_process_group(backend, timeout=as_limit(wait_s))
            except (RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"the processes of this party do not come together: {_first_line(error)}",
                    expected=f"{os.environ['WORLD_SIZE']} of them, as WORLD_SIZE says",
                    advice="Start them with torchrun.",
                ) from error
        if dist.get_world_size() == 1:
            return None
        team = cls(ours=ours)
        if team.rank:
            team.report(Present(socket.gethostname(), os.getpid()))
        return team

    def leave(self) -> None:
        """Part from the others, where all is said and well."""
        for rank in self._on_the_way:
            self._settle(rank, self.limit)
        if self._ours:
            dist.destroy_process_group()

    @property
    def others(self) -> range:
        """Ranks of all but the first."""
        return range(1, self.size)

    # --- words --------------------------------------------------------------------------------------------------------

    def say(self, word: msgspec.Struct) -> None:
        """Tell all others something; called by the first. It may go on before they have heard it.

        Raises:
            TaskFailed: one of them is gone, or has not heard what was said before.
        """
        for rank in self.others:
            self._put(word, rank, self.limit)

    def say_at_last(self, word: msgspec.Struct, limit: timedelta) -> None:
        """Tell something to those of the others that still hear it, where something has gone wrong."""
        for rank in self.others:
            with suppress(TaskFailed):
                self._put(word, rank, limit)
                self._settle(rank, limit)

    def hear(self, kind: Any) -> Any:
        """Return the first one's next word, of a struct or union of structs.

        Raises:
            TaskFailed: it is gone.
        """
        return self._get(kind, 0, FOREVER)

    def report(self, word: msgspec.Struct) -> None:
        """Tell the first one something."""
        self._put(word, 0, FOREVER)

    def report_of(self, rank: int, kind: Any) -> Any:
        """Return the next report of one of the others, a struct or one of a union.

        Raises:
            TaskFailed: it is gone, or has not said anything in time.
        """
        return self._get(kind, rank, self.limit)

    def all_present(self, limit: timedelta) -> None:
        """Wait until all others have said who they are."""
        for rank in self.others:
            self._present[rank] = self._get(Present, rank, limit)

    def _put(self, word: msgspec.Struct, rank: int, limit: timedelta) -> None:
        self._settle(rank, limit)
        data = _ENCODER.encode(word)
        room = FRAME_BYTES - _LENGTH_BYTES
        head = len(data).to_bytes(_LENGTH_BYTES, "big") + data[:room]
        self._send(torch.frombuffer(bytearray(head.ljust(FRAME_BYTES, b"\0")), dtype=torch.uint8), rank, _WORD)
        if len(data) > room:
            self._send(torch.frombuffer(bytearray(data[room:]), dtype=torch.uint8), rank, _REST)

    def _get(self, kind: Any, rank: int, limit: timedelta) -> Any:
        frame = torch.empty(FRAME_BYTES, dtype=torch.uint8)
        self._receive(frame, rank, _WORD, limit)
        data = frame.numpy().tobytes()
        length, data = int.from_bytes(data[:_LENGTH_BYTES], "big"), data[_LENGTH_BYTES:]
        if length > len(data):
            rest = torch.empty(length - len(data), dtype=torch.uint8)
            self._receive(rest, rank, _REST, limit)
            data += rest.numpy().tobytes()
        return msgspec.msgpack.decode(data[:length], type=kind)

    # --- tensors ------------------------------------------------------------------------------------------------------

    def give(self, tensor: Tensor, rank: int) -> None:
        """Send a contiguous tensor in the CPU's memory, which nobody may change any more, to one process."""
        self._send(tensor, rank, _TENSOR)

    def take(self, tensor: Tensor, rank: int) -> None:
        """Fill a contiguous tensor in the CPU's memory with what a process gives.

        Raises:
            TaskFailed: it is gone, or has not given anything in time.
        """
        self._receive(tensor, rank, _TENSOR, self.limit if self.rank == 0 else FOREVER)

    def _send(self, tensor: Tensor, rank: int, tag: int) -> None:
        with self._named(rank):
            work = dist.isend(tensor, rank, group=self._words, tag=tag)
        if work is not None:
            self._on_the_way[rank].append((work, tensor))

    def _receive(self, tensor: Tensor, rank: int, tag: int, limit: timedelta) -> None:
        with self._named(rank, limit):
            work = dist.irecv(tensor, rank, group=self._words, tag=tag)
            if work is not None:
                work.wait(limit)

    def _settle(self, rank: int, limit: timedelta) -> None:
        """Wait until all that was sent to a process has arrived."""
        under_way, self._on_the_way[rank] = self._on_the_way[rank], []
        for work, _ in under_way:
            with self._named(rank, limit):
                work.wait(limit)

    # --- all at once --------------------------------------------------------------------------------------------------

    def group_on(self, device: torch.device) -> dist.ProcessGroup:
        """Return the group that adds up and hands round tensors on such a device; all processes ask at the same time.

        Its operations take no longer than `limit` as it was the first time.
        """
        backend = "nccl" if device.type == "cuda" else "gloo"
        if backend not in self._sums:
            with self._named():
                self._sums[backend] = _group(backend, self.limit)
        return self._sums[backend]

    def hand_round(self, tensor: Tensor) -> None:
        """Give all processes the first one's tensor; called by all at the same time.

        Raises:
            TaskFailed: one of them is gone, or too late.
        """
        with self._named(None if self.rank == 0 else 0, self.limit):
            dist.broadcast(tensor, 0, group=self.group_on(tensor.device))

    # --- when one is gone ---------------------------------------------------------------------------------------------

    @contextmanager
    def _named(self, rank: int | None = None, limit: timedelta | None = None) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # torch has no class of its own for a link that is down
            raise self.lost(error, rank, limit) from None

    def lost(self, error: BaseException | None, rank: int | None = None, limit: timedelta | None = None) -> TaskFailed:
        """Return the error for a process that does not answer.

        Args:
            error: what torch said of it.
            rank: which one; None: not known.
            limit: how long we have waited.
        """
        self.broken = True
        said = _first_line(error)
        if self.rank:
            what = "process 0 of this party has ended, or has not waited for this one" + f" ({said})" * bool(said)
            return TaskFailed(what, advice="Its output says why.")
        gone = self.gone()
        if rank is None or gone:
            rank = gone[0] if gone else 1 if self.size == 2 else None
        who = f"one of its {self.size} processes" if rank is None else f"its process {rank} of {self.size}"
        if limit is not None and not gone and "timed out" in said.lower():
            what = f"{who} has not answered for {limit.total_seconds():.0f} s"
        else:
            what = f"{who} is gone" + f" ({said})" * bool(said and not gone)
        failed = TaskFailed(
            what,
            expected="all processes of a party until the task ends, counted from 0",
            advice="Look at the output of that process; then start all parties again with recover=True.",
        )
        failed.privately(f"{who} is gone or does not answer")
        return failed

    def gone(self) -> list[int]:
        """Return the ranks of those whose process has ended, as far as this machine can know."""
        here = socket.gethostname()
        found = []
        for rank, each in self._present.items():
            if each.machine == here:
                try:
                    os.kill(each.process, 0)
                except ProcessLookupError:
                    found.append(rank)
                except PermissionError:
                    pass  # it is somebody else's by now, or was before
        return found

    def wait_for_the_end(self, limit: timedelta) -> None:
        """Wait until the first process has ended, so that it speaks before the others end; called by the others."""
        with suppress(TaskFailed):
            self._receive(torch.empty(FRAME_BYTES, dtype=torch.uint8), 0, _WORD, limit)


def as_limit(seconds: float) -> timedelta:
    """Return a limit as torch wants it; 0 seconds: none."""
    return timedelta(seconds=seconds) if seconds else FOREVER


def _group(backend: str, timeout: timedelta) -> dist.ProcessGroup:
    group = dist.new_group(backend=backend, timeout=timeout)
    if not isinstance(group, dist.ProcessGroup):
        raise RuntimeError("a group of all processes without this one")
    return group


def _is_one_of_many() -> bool:
    """Whether the environment names a place among several processes, as torchrun's does."""
    size = os.environ.get("WORLD_SIZE", "")
    return all(os.environ.get(name) for name in _RENDEZVOUS) and size.isdigit() and int(size) > 1


def _first_line(error: BaseException | None) -> str:
    """Return the kernel of what torch says: without the place in its sources, and without what it guesses."""
    text = " ".join(str(error or "").split())
    return text.partition("] ")[2].partition(". ")[0][:200] if text.startswith("[") else text[:200]

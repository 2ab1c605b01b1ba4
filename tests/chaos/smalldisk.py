"""A small file system of its own, and what can go wrong with it, just before its n-th change.

A change is what Python announces of files below the folder: opened for writing, made, renamed, removed, synced.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

Kind = Literal["full", "no more files", "read-only", "one error"]
KINDS: tuple[Kind, ...] = ("full", "no more files", "read-only", "one error")
FILLED: tuple[Kind, ...] = ("full", "no more files")
"""Kinds that need a disk of a known size; the others happen on any."""

SIZE = "1m"
BLOCK = 4096
FILES = 200

_FILLER = ".filler"
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_WHERE = {  # event -> where in its arguments the path is, and the folder's descriptor that it is relative to
    "os.mkdir": (0, 2),
    "os.remove": (0, 1),
    "os.rmdir": (0, 1),
    "os.rename": (1, 3),
    "os.link": (1, 3),
}


class CannotMount(Exception):
    """This user may not mount file systems here."""


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """Mount a tmpfs of 1 MB and 200 files there.

    Raises:
        CannotMount: only root may, where the system has tmpfs at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={SIZE},nr_inodes={FILES}".encode()
    if not sys.platform.startswith("linux") or libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options):
        raise CannotMount(f"cannot mount a tmpfs: {os.strerror(ctypes.get_errno())}")
    try:
        with listening(folder) as disk:
            yield disk
    finally:
        disk.mend()
        libc.umount2(os.fsencode(folder), 2)  # MNT_DETACH: what still has a file open there keeps it


class Disk:
    """Where it is, how often it was changed, and what is to happen to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.changes: list[str] = []
        """What was done to it since `watch`: "open for writing model.pt", …"""
        self._break_at: int | None = None
        self._kind: Kind = "full"
        self._breaking = threading.local()

    def watch(self, break_at: int | None = None, kind: Kind = "full") -> None:
        """Count changes anew, and break just before the `break_at`th, from 0.

        Args:
            break_at: None: never.
            kind: "full": no block is free from then on; "no more files": none can be made from then on; "read-only":
                every change is refused from then on; "one error": that change alone fails, as on a bad block.
        """
        self.changes = []
        self._break_at, self._kind = break_at, kind

    def mend(self) -> None:
        """Make room, or let changes happen again."""
        self._break_at = None
        for each in self.folder.glob(f"{_FILLER}*"):
            with suppress(OSError):
                each.unlink()

    @property
    def broke(self) -> bool:
        """Whether it came to that."""
        return self._break_at is not None and len(self.changes) > self._break_at

    def about_to(self, what: str, path: Path) -> None:
        """Count a change, and break."""
        if getattr(self._breaking, "now", False):
            return
        at = len(self.changes)
        self.changes.append(f"{what} {path.relative_to(self.folder)}")
        if self._break_at is None or at < self._break_at:
            return
        if self._kind == "one error":
            if at == self._break_at:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        elif self._kind == "read-only":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        else:
            self._breaking.now = True
            try:
                self.fill()
            finally:
                self._breaking.now = False

    def fill(self, free: int = 0) -> None:
        """Take what is left but for so many blocks of 4096 bytes; said again, what was given back meanwhile."""
        number = 0
        with suppress(OSError):
            if self._kind == "full":
                with (self.folder / _FILLER).open("ab", buffering=0) as filler:
                    while True:
                        filler.write(bytes(BLOCK))
            while True:
                if not (self.folder / f"{_FILLER}-{number}").exists():
                    (self.folder / f"{_FILLER}-{number}").touch()
                number += 1
        if free:
            filled = self.folder / _FILLER
            os.truncate(filled, max(0, filled.stat().st_size - free * BLOCK))


@contextmanager
def listening(folder: Path) -> Iterator[Disk]:
    """Have a disk told of what this process changes below the folder, whatever file system that is on."""
    disk = Disk(folder)
    _hook()
    _disks.append(disk)
    sync = os.fsync

    def told(descriptor: int) -> None:
        _tell("sync", _path_of(descriptor))
        sync(descriptor)

    os.fsync = told  # type: ignore[assignment]  # there is no audit event for it
    try:
        yield disk
    finally:
        os.fsync = sync
        _disks.remove(disk)


_disks: list[Disk] = []
_hooked = threading.Event()


def _hook() -> None:
    """Listen to Python's audit events, once: such a hook cannot be taken back."""
    if not _hooked.is_set():
        _hooked.set()
        sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Tell of an event; Python raises in its place what this raises."""
    if not _disks:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITES and not isinstance(path, int):
            _tell("open for writing", path)
    elif event in _WHERE:
        path, below = (arguments[each] for each in _WHERE[event])
        _tell(event.removeprefix("os."), path if below == -1 else f"{_path_of(below)}/{os.fsdecode(path)}")


def _path_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _tell(what: str, name: str | bytes | os.PathLike[Any]) -> None:
    path = Path.cwd() / os.fsdecode(name)
    for disk in list(_disks):
        if path.is_relative_to(disk.folder) and not path.name.startswith(_FILLER):
            disk.about_to(what, path)

"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from heterofed.errors import HeterofedError, OutputError

_GO_ON = "start again: a task goes on where it was if every party is launched with recover=True"
_FULL = ("room on that disk", f"Free some space there and {_GO_ON}")
_FORBIDDEN = (
    "a folder that this user may write to",
    f"Let this user write there, or name another folder, and {_GO_ON}",
)
_BROKEN = ("a disk that takes it", f"See what the system's log says of that disk, mend that and {_GO_ON}")
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _FULL),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _FORBIDDEN),
    errno.EIO: _BROKEN,
}
_OTHERWISE = (
    "a folder that this user may write to, with space left",
    "Name another folder, or make room if the disk is full",
)

_PROBE = bytes(4096)
"""A block of most file systems: a disk that is full may still take names."""

LEFT_BEHIND = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>part|old)")
"""What `write_whole` and `folder_whole` call what is not whole yet, or is about to be replaced."""

_NO_SUCH_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EISDIR, errno.EROFS})
"""What systems say that cannot sync a folder, or need not. Others mean that the disk has failed."""


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """Turn what the operating system says while `path` is written into an OutputError that names it.

    Raises:
        OutputError: the body raised an OSError, or a RuntimeError over one, as torch.save does.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = _os_error_behind(error)
        if reason is None:
            raise
        expected, advice = _ADVICE.get(reason.errno or 0, _OTHERWISE)
        raise OutputError(
            f"cannot write {path}: {reason.strerror or reason}",
            expected=expected,
            advice=f"{advice}. What was there before is untouched.",
        ) from error


def _os_error_behind(error: BaseException | None) -> OSError | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


@contextmanager
def held(path: Path, otherwise: HeterofedError) -> Iterator[None]:
    """Hold a lock for the body, which the system takes back should this process be killed.

    Args:
        path: a file that stays there, empty.
        otherwise: what is raised if somebody else holds it, at once.

    Raises:
        OutputError: the file cannot be made.
    """
    lock = FileLock(path)
    with refused(path):  # outside, because a Timeout is an OSError too
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise otherwise from None
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether somebody holds a lock; see `held`.

    Raises:
        OutputError: the file cannot be made.
    """
    with refused(path):
        try:
            with FileLock(path).acquire(timeout=0):
                return False
        except Timeout:
            return True


def make_folder(path: Path) -> Path:
    """Make a folder and prove that files can be written to it, and that there is room for one.

    Raises:
        OutputError: it cannot be made or written to.
    """
    with refused(path):
        path.mkdir(parents=True, exist_ok=True)
        # Without a name where the system can do that, so that no killed process leaves one behind.
        with tempfile.TemporaryFile(dir=path, prefix=".probe-", buffering=0) as probe:
            probe.write(_PROBE)
    return path


def write_synced(
    path: Path, write: Callable[[BinaryIO], object], *, named: Path | None = None, private: bool = False
) -> None:
    """Let `write` fill a file, and wait until it is on the disk: for a folder that is temporary itself.

    Args:
        path: the file.
        write: is called with it, open.
        named: what an error calls it; by default `path`.
        private: whether it is for this user alone, from its first byte on; else as the system's mask says.

    Raises:
        OutputError: the file cannot be written.
    """
    mode = 0o600 if private else 0o666
    with refused(named or path), open(path, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, write: Callable[[BinaryIO], object], *, private: bool = False) -> Path:
    """Let `write` fill a file that appears under `path` only once it is complete and on the disk.

    Args:
        path: the file.
        write: is called with it, open.
        private: as for `write_synced`.

    Raises:
        OutputError: the file cannot be written; an earlier file of this name is untouched.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with refused(path):
        try:
            write_synced(part, write, named=path, private=private)
            part.replace(path)
        except BaseException:
            with suppress(OSError):  # what is told is why it could not be written
                part.unlink()
            raise
        settle(path.parent)
    return path


@contextmanager
def folder_whole(path: Path) -> Iterator[Path]:
    """Give a temporary folder that takes the name `path` when the body ends well, and vanishes when it does not.

    Its files have to be on the disk by then, as `write_synced` leaves them.

    Raises:
        OutputError: it cannot be written; an earlier folder of this name is untouched.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    old = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
    with refused(path):
        try:
            part.mkdir(parents=True)
            yield part
            settle(part)
            if path.exists():
                path.replace(old)  # a folder cannot replace one that is not empty
            part.replace(path)
            settle(path.parent)
        finally:
            if old.exists() and not path.exists():  # interrupted between the two
                old.replace(path)
            shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove the unfinished files that an earlier process left in a folder; only where no other writes to it now."""
    with refused(folder):
        for path in list(folder.iterdir()):
            if LEFT_BEHIND.fullmatch(path.name) and not path.is_dir():
                path.unlink(missing_ok=True)


def settle(folder: Path) -> None:
    """Let a folder's list of names reach the disk, where the system can do that, before what refers to it does.

    Raises:
        OSError: the disk has failed.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_SYNC:
            raise

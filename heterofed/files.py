"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from heterofed.errors import OutputError


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
        raise OutputError(
            f"cannot write {path}: {reason.strerror or reason}",
            expected="a folder that this user may write to, with space left",
            advice="Name another folder, or make room if the disk is full; what was there before is untouched.",
        ) from error


def _os_error_behind(error: BaseException | None) -> OSError | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def make_folder(path: Path) -> Path:
    """Make a folder and prove that files can be written to it.

    Raises:
        OutputError: it cannot be made or written to.
    """
    with refused(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{secrets.token_hex(4)}"
        probe.write_bytes(b"")
        probe.unlink()
    return path


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let `write` fill a file that appears under `path` only once it is complete and on the disk.

    Raises:
        OutputError: the file cannot be written; an earlier file of this name is untouched.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with refused(path):
        try:
            with part.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return path


@contextmanager
def folder_whole(path: Path) -> Iterator[Path]:
    """Give a temporary folder that takes the name `path` when the body ends well, and vanishes when it does not.

    Raises:
        OutputError: it cannot be written; an earlier folder of this name is untouched.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    old = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
    with refused(path):
        try:
            part.mkdir(parents=True)
            yield part
            if path.exists():
                path.replace(old)  # a folder cannot replace one that is not empty
            part.replace(path)
        finally:
            if old.exists() and not path.exists():  # interrupted between the two
                old.replace(path)
            shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)

"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from heterofed.errors import ConfigError, OutputError
from heterofed.files import (
    folder_whole,
    held,
    is_held,
    make_folder,
    refused,
    settle,
    sweep,
    write_synced,
    write_whole,
)
from tests.chaos.smalldisk import CannotMount, Disk, listening, small_disk


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def below_a_file(tmp_path: Path) -> Path:
    """A place where nothing can be written, not even by root."""
    (tmp_path / "file").write_bytes(b"in the way")
    return tmp_path / "file" / "below"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A file system of 1 MB."""
    try:
        with small_disk(tmp_path / "disk") as disk:
            yield disk
    except CannotMount as error:
        pytest.skip(str(error))


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def half(error: Exception) -> object:
    """Return a writer that fails halfway."""

    def write(file: BinaryIO) -> None:
        file.write(b"half of it")
        raise error

    return write


def text_of(error: OutputError, path: Path) -> str:
    return (
        f"cannot write {path}: {error.what.rsplit(': ', 1)[1]}; expected a folder that this user may write to, with "
        "space left. Name another folder, or make room if the disk is full. What was there before is untouched."
    )


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_has_what_was_written(out: Path) -> None:
    path = write_whole(out / "model.pt", lambda file: file.write(b"weights"))

    assert path == out / "model.pt"
    assert path.read_bytes() == b"weights"
    assert names(out) == ["model.pt"]


def test_a_file_replaces_an_earlier_one(out: Path) -> None:
    (out / "model.pt").write_bytes(b"old weights")

    write_whole(out / "model.pt", lambda file: file.write(b"new"))

    assert (out / "model.pt").read_bytes() == b"new"


def test_a_file_has_its_name_only_once_it_is_complete(out: Path) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"half")
        assert not (out / "model.pt").exists()
        assert all(name.startswith(".") for name in names(out))
        file.write(b"way")

    write_whole(out / "model.pt", write)

    assert (out / "model.pt").read_bytes() == b"halfway"


@pytest.mark.parametrize("old", [None, b"old weights"], ids=["no earlier file", "an earlier file"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(28, "No space left on device"), OutputError),
        (ValueError("their bug"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["a full disk", "a bug", "an interrupt"],
)
def test_a_file_that_fails_leaves_the_earlier_one_and_nothing_else(
    out: Path, error: Exception, raised: type[BaseException], old: bytes | None
) -> None:
    if old is not None:
        (out / "model.pt").write_bytes(old)

    with pytest.raises(raised):
        write_whole(out / "model.pt", half(error))  # type: ignore[arg-type]  # a writer by construction

    assert names(out) == ([] if old is None else ["model.pt"])
    if old is not None:
        assert (out / "model.pt").read_bytes() == old


def test_a_file_in_no_folder_is_an_output_error(out: Path, below_a_file: Path) -> None:
    for path in (out / "missing" / "model.pt", below_a_file / "model.pt"):
        with pytest.raises(OutputError) as caught:
            write_whole(path, lambda file: file.write(b"weights"))
        assert str(caught.value) == text_of(caught.value, path)

    assert names(out) == []


def test_a_file_where_a_folder_is_leaves_the_folder(out: Path) -> None:
    (out / "model.pt").mkdir()

    with pytest.raises(OutputError, match=r"cannot write .*model\.pt"):
        write_whole(out / "model.pt", lambda file: file.write(b"weights"))

    assert names(out) == ["model.pt"]


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_has_what_was_put_into_it(out: Path) -> None:
    with folder_whole(out / "model_1") as part:
        (part / "a").write_bytes(b"1")
        assert not (out / "model_1").exists()

    assert (out / "model_1" / "a").read_bytes() == b"1"
    assert names(out) == ["model_1"]


def test_a_folder_replaces_an_earlier_one_with_all_its_files(out: Path) -> None:
    for number in ("1", "2"):
        with folder_whole(out / "model") as part:
            (part / number).write_bytes(b"")

    assert names(out / "model") == ["2"]
    assert names(out) == ["model"]


@pytest.mark.parametrize("old", [False, True], ids=["no earlier folder", "an earlier folder"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(28, "No space left on device"), OutputError),
        (ValueError("their bug"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["a full disk", "a bug", "an interrupt"],
)
def test_a_folder_that_fails_leaves_the_earlier_one_and_nothing_else(
    out: Path, error: BaseException, raised: type[BaseException], old: bool
) -> None:
    if old:
        (out / "model").mkdir()
        (out / "model" / "a").write_bytes(b"old")

    with pytest.raises(raised), folder_whole(out / "model") as part:
        (part / "a").write_bytes(b"half")
        raise error

    assert names(out) == (["model"] if old else [])
    assert not old or (out / "model" / "a").read_bytes() == b"old"


def test_a_folder_that_cannot_take_its_name_leaves_the_earlier_one(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "model").mkdir()
    (out / "model" / "a").write_bytes(b"old")
    replace = Path.replace

    def broken(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OutputError, match="Input/output error"), folder_whole(out / "model") as part:
        (part / "a").write_bytes(b"new")

    assert names(out) == ["model"]
    assert (out / "model" / "a").read_bytes() == b"old"


def test_an_interrupt_just_before_a_folder_takes_its_name_leaves_the_earlier_one(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (out / "model").mkdir()
    (out / "model" / "a").write_bytes(b"old")
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), folder_whole(out / "model") as part:
        (part / "a").write_bytes(b"new")

    assert names(out) == ["model"]
    assert (out / "model" / "a").read_bytes() == b"old"


def test_a_folder_below_a_file_is_an_output_error(below_a_file: Path) -> None:
    with pytest.raises(OutputError) as caught, folder_whole(below_a_file / "model"):
        pass

    assert str(caught.value) == text_of(caught.value, below_a_file / "model")


def test_a_folder_is_made_with_those_above_it_and_left_empty(out: Path) -> None:
    assert make_folder(out / "a" / "b") == out / "a" / "b"

    assert names(out / "a" / "b") == []


def test_a_folder_that_is_there_stays_as_it_is(out: Path) -> None:
    (out / "a").write_bytes(b"1")

    make_folder(out)

    assert names(out) == ["a"]


def test_a_folder_that_cannot_be_made_is_refused_with_its_path_and_advice(below_a_file: Path) -> None:
    for path in (below_a_file, below_a_file.parent):
        with pytest.raises(OutputError) as caught:
            make_folder(path)
        assert str(caught.value) == text_of(caught.value, path)

    assert below_a_file.parent.read_bytes() == b"in the way"


# --- what counts as a refusal -----------------------------------------------------------------------------------------


def test_a_runtime_error_over_a_failed_write_is_a_refusal_and_any_other_is_not(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left on device"), refused(tmp_path):
        try:
            raise OSError(28, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 832 vs 726")
    with pytest.raises(RuntimeError, match="a bug"), refused(tmp_path):
        raise RuntimeError("a bug")


def test_the_reason_of_an_output_error_is_kept(tmp_path: Path) -> None:
    reason = OSError(28, "No space left on device")
    with pytest.raises(OutputError) as caught, refused(tmp_path):
        raise reason

    assert caught.value.__cause__ is reason


FULL = "Free some space there and start again: a task goes on where it was if every party is launched with recover=True"


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, f"No space left on device; expected room on that disk. {FULL}."),
        (errno.EDQUOT, f"Disk quota exceeded; expected room on that disk. {FULL}."),
        (errno.EROFS, "Read-only file system; expected a folder that this user may write to. Let this user write"),
        (errno.EACCES, "Permission denied; expected a folder that this user may write to. Let this user write there"),
        (errno.EIO, "Input/output error; expected a disk that takes it. See what the system's log says of that disk"),
        (errno.ENAMETOOLONG, "File name too long; expected a folder that this user may write to, with space left."),
        (None, "a driver's own words; expected a folder that this user may write to, with space left."),
    ],
)
def test_a_refusal_says_what_to_do_about_its_reason(tmp_path: Path, number: int | None, says: str) -> None:
    error = OSError("a driver's own words") if number is None else OSError(number, os.strerror(number))
    with pytest.raises(OutputError) as caught, refused(tmp_path / "model.pt"):
        raise error

    assert f"cannot write {tmp_path / 'model.pt'}: {says}" in str(caught.value)
    assert str(caught.value).endswith(". What was there before is untouched.")


# --- a disk that fails at each step -----------------------------------------------------------------------------------


def write_a_file(path: Path) -> None:
    write_whole(path, lambda file: file.write(b"new"))


def write_a_folder(path: Path) -> None:
    with folder_whole(path) as part:
        for name in ("a", "b"):
            write_synced(part / name, lambda file: file.write(b"new"), named=path / name)


def content(path: Path) -> list[bytes]:
    """Return what is in a file, or in the files of a folder."""
    if path.is_dir():
        return [(path / name).read_bytes() for name in names(path)]
    return [path.read_bytes()] if path.exists() else []


@pytest.mark.parametrize("kind", ["read-only", "one error"])
@pytest.mark.parametrize("old", [False, True], ids=["no earlier one", "an earlier one"])
@pytest.mark.parametrize("write", [write_a_file, write_a_folder])
def test_a_disk_that_fails_at_any_step_leaves_one_that_is_whole_and_is_named(
    out: Path, write: Callable[[Path], None], old: bool, kind: Any
) -> None:
    path = out / "model"
    steps = outcomes = 0
    with listening(out) as disk:
        while True:
            if old:
                write(path)
                for each in [path] if path.is_file() else path.iterdir():
                    each.write_bytes(b"old")
            before = content(path)
            disk.watch(steps, kind)
            try:
                write(path)
            except OutputError as error:
                assert f"cannot write {path}" in str(error)
                assert ".part" not in str(error)
                outcomes += 1
            broke = disk.broke
            disk.mend()
            if not broke:
                break
            left = [out / each for each in names(out) if each != "model"]
            # A folder that was set aside when the disk failed keeps that name; `Checkpointer` finds it there.
            there = path if path.exists() or not before else next(each for each in left if each.suffix == ".old")
            # Only where the disk failed to confirm the new name, or to remove the old one, the new one is there.
            assert content(there) in (before, [b"new"], [b"new", b"new"])
            assert kind == "read-only" or all(each.suffix == ".old" for each in left)
            shutil.rmtree(out)
            out.mkdir()
            steps += 1

    assert outcomes >= (3 if write is write_a_file else 6)


def test_what_is_told_is_why_it_could_not_be_written_and_not_why_the_rest_could_not_be_removed(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match="No space left on device"):
        write_whole(out / "model.pt", half(OSError(28, "No space left on device")))  # type: ignore[arg-type]  # a writer


def test_a_lock_is_held_for_the_body_alone_and_by_one(out: Path) -> None:
    lock, taken = out / "it.lock", ConfigError("somebody has it")

    with pytest.raises(KeyError), held(lock, taken):
        assert is_held(lock)
        with pytest.raises(ConfigError) as caught, held(lock, taken):
            pass
        assert caught.value is taken and is_held(lock)
        raise KeyError  # the body's errors are its own, and free the lock

    assert not is_held(lock)
    with held(lock, taken), pytest.raises(OSError, match="mine"):
        raise OSError("mine")
    with pytest.raises(OSError, match="mine"), held(lock, taken):
        raise OSError("mine")
    assert not is_held(lock)


def test_a_lock_where_nothing_can_be_written_is_an_output_error(below_a_file: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"), held(below_a_file / "it.lock", ConfigError("taken")):
        pass
    with pytest.raises(OutputError, match="cannot write"):
        is_held(below_a_file / "it.lock")


def test_what_a_killed_process_left_unfinished_is_swept_and_nothing_else_is(out: Path) -> None:
    for name in (".scores.csv.0123abcd.part", ".model.zip.89abcdef.part"):
        (out / name).write_bytes(b"half")
    (out / ".model.0123abcd.part").mkdir()
    kept = [".in-use.lock", ".notes.part", ".part", "scores.csv", ".scores.csv.0123ABCD.part"]
    for name in kept:
        (out / name).write_bytes(b"mine")

    sweep(out)

    assert names(out) == sorted([*kept, ".model.0123abcd.part"])


def test_a_disk_that_fails_to_sync_a_folder_is_told_and_a_system_that_cannot_do_it_is_not(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(number: int) -> Callable[[int], None]:
        def sync(_: int) -> None:
            raise OSError(number, os.strerror(number))

        return sync

    monkeypatch.setattr(os, "fsync", fail(errno.EINVAL))
    settle(out)
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        settle(out)


# --- a disk that is really full ---------------------------------------------------------------------------------------


def test_a_folder_on_a_full_disk_is_refused_before_anything_is_written_to_it(disk: Disk) -> None:
    disk.fill()

    with pytest.raises(OutputError, match="No space left on device"):
        make_folder(disk.folder / "out")

    assert [each for each in names(disk.folder) if not each.startswith(".filler")] == ["out"]
    disk.mend()
    make_folder(disk.folder / "out")


def rows(file: BinaryIO) -> None:
    file.write(b"x" * 30_000)


def tensors(file: BinaryIO) -> None:
    torch.save({"weight": torch.zeros(5000)}, file)


def archive(file: BinaryIO) -> None:
    with zipfile.ZipFile(file, "w") as members:
        members.writestr("a.csv", bytes(15_000))
        members.writestr("b.csv", bytes(15_000))


@pytest.mark.parametrize("write", [rows, tensors, archive])
def test_a_file_that_the_disk_has_no_room_for_is_refused_whatever_room_there_is(
    disk: Disk, write: Callable[[BinaryIO], None]
) -> None:
    path = disk.folder / "model.pt"
    path.write_bytes(b"old")
    refusals = 0
    for free in range(20):
        disk.fill(free)
        try:
            write_whole(path, write)
        except OutputError as error:
            refusals += 1
            assert f"cannot write {path}: No space left on device; expected room" in str(error)
            assert path.read_bytes() == b"old"
        assert [each for each in names(disk.folder) if not each.startswith(".filler")] == ["model.pt"]
        disk.mend()

    assert refusals in range(5, 12)
    assert path.stat().st_size > 15_000

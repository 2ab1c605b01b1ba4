"""Files and folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from heterofed.errors import OutputError
from heterofed.files import folder_whole, make_folder, refused, write_whole


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
        "space left. Name another folder, or make room if the disk is full; what was there before is untouched."
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

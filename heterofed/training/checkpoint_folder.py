"""The folder in which checkpoints lie: which there are, and in which order they were written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from heterofed.errors import ConfigError, DataError
from heterofed.files import LEFT_BEHIND, refused
from heterofed.training.stateful import read_state

TAG = "last_checkpoint"
"""The file that names the checkpoint from which a run goes on."""

_OUR_FILES = frozenset({TAG, "alignment.msgpack"})
"""What this process alone writes here besides checkpoints; the second is a party's."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class CheckpointFolder:
    """What is in a folder of checkpoints.

    Args:
        folder: where they lie; it need not be there.
        prefix: the numbered ones are called <prefix>_0000019.

    Raises:
        ConfigError: the prefix cannot begin a file's name.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        check_name(prefix, "the prefix of checkpoints")
        self.folder = folder
        self.prefix = prefix

    def names(self) -> list[str]:
        """Return the names of the numbered checkpoints, oldest first."""
        return self._oldest_first(self._stored(), self.iteration_of(self._tag() or ""))

    def has(self, name: str) -> bool:
        """Return whether there is a checkpoint of this name."""
        return name in self._stored()

    def peek(self, name: str, part: str) -> dict[str, Any]:
        """Return the state of one part as a checkpoint holds it; nothing is loaded.

        Raises:
            DataError: there is no such checkpoint, or the part is missing or cannot be read.
        """
        return read_state(self._stored().get(name, self.folder / name) / f"{part}.pt")

    def iteration_of(self, name: str) -> int | None:
        """Return the number in a checkpoint's name, None if it is not a numbered one of this prefix."""
        digits = name.removeprefix(f"{self.prefix}_")
        number = int(digits) if re.fullmatch("[0-9]{7,18}", digits) else None
        return number if number is not None and name == self._numbered(number) else None

    def _numbered(self, iteration: int) -> str:
        return f"{self.prefix}_{iteration:07d}"

    def _tag(self) -> str | None:
        path = self.folder / TAG
        try:
            return path.read_text(encoding="utf-8", errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error

    def _stored(self) -> dict[str, Path]:
        """Return name -> folder; a killed process may have left a checkpoint under the name it was set aside by."""
        here = {each.name: each for each in self._paths() if _NAME.fullmatch(each.name) and each.is_dir()}
        return {**self._set_aside(), **here}

    def _set_aside(self) -> dict[str, Path]:
        return {match["name"]: path for path, match in self._hidden() if match["kind"] == "old" and path.is_dir()}

    def _hidden(self) -> Iterator[tuple[Path, re.Match[str]]]:
        for path in self._paths():
            if match := LEFT_BEHIND.fullmatch(path.name):
                yield path, match

    def _paths(self) -> list[Path]:
        try:
            return sorted(self.folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise DataError(f"{self.folder} cannot be read: {error.strerror}") from error

    def _oldest_first(self, stored: Collection[str], newest: int | None) -> list[str]:
        # Numbers above the newest are left from an earlier run in this folder: they are the oldest, not the newest.
        numbered = [(number, name) for name in stored if (number := self.iteration_of(name)) is not None]
        return [name for number, name in sorted(numbered, key=lambda each: (newest is None or each[0] <= newest, each))]

    def _tidy(self) -> None:
        """Remove what a killed process left behind; a checkpoint that it was about to replace gets its name back."""
        with refused(self.folder):
            for name, aside in self._set_aside().items():
                if not (self.folder / name).exists():
                    aside.replace(self.folder / name)
            for left, match in self._hidden():
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                elif match["name"] in _OUR_FILES:
                    left.unlink(missing_ok=True)


def check_name(name: str, what: str) -> None:
    """Refuse what cannot be the name of a file of ours.

    Raises:
        ConfigError: it cannot.
    """
    if not _NAME.fullmatch(name) or name == TAG:
        raise ConfigError(
            f"{name!r} cannot be the name of {what}",
            expected=f"at most 100 letters, digits, '_', '-' and '.', beginning with a letter or digit, but not {TAG}",
        )

"""What was fitted to a party's train rows, saved as sealed JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

from typing_extensions import Self

from heterofed.sealed import load, save, sealed, sha256_of

_T = TypeVar("_T")


class Fitted(ABC, Generic[_T]):
    """What was fitted to a party's train rows, and is kept beside its model; made by `fit`, `from_json` or `load`.

    Two are equal if they hold the same.
    """

    _called: str
    """What errors call it where it has no file."""

    def __init__(self, saved: _T) -> None:
        self._saved = saved

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and bool(self._saved == other._saved)

    def __hash__(self) -> int:
        return hash(self._saved)

    @property
    def sha256(self) -> str:
        """Tells it from every other one."""
        return sha256_of(self._saved)

    def to_json(self) -> str:
        """Return all of it as JSON with a SHA-256; this says something about the rows that it was fitted to."""
        return sealed(self._saved)

    @classmethod
    def from_json(cls, text: str | bytes, *, name: str = "") -> Self:
        """Return what gave this JSON, to the bit.

        Raises:
            DataError: it was changed, or is something else.
        """
        return cls(cls._unsealed(text, name or cls._called))

    @classmethod
    @abstractmethod
    def _unsealed(cls, text: str | bytes, name: str) -> Any:
        """Return the checked content."""

    def save(self, path: Path) -> Path:
        """Write it as JSON, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        return save(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DataError: it cannot be read, was changed, or is something else.
        """
        return cls.from_json(load(path), name=str(path))

"""JSON with its own SHA-256: written whole, and refused when a byte of it changed.

    {"sha256": "<64 hex digits>", "content": { … }}

The digest is of the bytes of the content as they stand there. It finds damage and mistakes; who can write the file can
write another digest too. Floats are written with as many digits as give back the same bits.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import msgspec

from heterofed.errors import DataError
from heterofed.files import write_whole

_T = TypeVar("_T")


class _Envelope(msgspec.Struct):
    sha256: str
    content: msgspec.Raw


def sealed(content: object) -> str:
    """Return an object of msgspec's types as JSON in its envelope."""
    return _seal(msgspec.json.encode(content)).decode()


def sha256_of(content: object) -> str:
    """Return the digest that `sealed` writes."""
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


def unsealed(text: str | bytes, kind: type[_T], name: str) -> _T:
    """Return what `sealed` was given.

    Args:
        text: what it returned.
        kind: the type of the content.
        name: what errors call it.

    Raises:
        DataError: it is not what was written, or of another kind or version.
    """
    data = text.encode() if isinstance(text, str) else text
    try:
        content = bytes(msgspec.json.decode(data, type=_Envelope).content)
    except (msgspec.MsgspecError, UnicodeError):
        content = b""
    if not content or _seal(content).strip() != data.strip():
        raise DataError(
            f"{name} is damaged: its content does not have the SHA-256 that is written in it",
            expected="the file as it was saved",
            advice="Take it from a backup, or train again.",
        )
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{name} holds something else, or was written by another version of heterofed ({error})",
            expected=f"a {kind.__name__}",
            advice="Give the file that belongs here, or use the version that wrote it.",
        ) from None


def save(path: Path, text: str) -> Path:
    """Write text as a file that is there whole or not at all.

    Raises:
        OutputError: it cannot be written; an earlier file of this name is untouched.
    """
    return write_whole(path, lambda file: file.write(text.encode()))


def load(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or type(error).__name__}",
            expected="a file that was saved after training",
            advice="Name the folder of a run that has ended.",
        ) from None


def _seal(content: bytes) -> bytes:
    return b'{"sha256":"%s","content":%s}\n' % (hashlib.sha256(content).hexdigest().encode(), content)

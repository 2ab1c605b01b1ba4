"""The long-term CURVE key of a party: one small file that only its owner can read.

The public half is what a task lists to let the party in; the secret half never leaves the file. Both are Z85 text
(ZeroMQ RFC 32), 40 characters each.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import zmq
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from zmq.utils import z85

from heterofed.errors import ConfigError, OutputError

KEY_CHARACTERS = 40
"""Length of one CURVE key in Z85: 32 bytes, 5 characters for each 4 of them."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_FILE = re.compile(
    rb"# heterofed key of a party: keep this file to yourself\.\n"
    rb"public = (\S{40})\n"
    rb"secret = (\S{40})\n"
)
_TEMPLATE = "# heterofed key of a party: keep this file to yourself.\npublic = {}\nsecret = {}\n"


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair, both halves as Z85 text bytes. Its repr shows the public half only.

    Raises:
        ConfigError: the two do not belong together, or are not keys.
    """

    public: bytes
    """40 characters, safe to give to anybody; tasks list it."""

    secret: bytes
    """40 characters; never log it, never send it."""

    def __post_init__(self) -> None:
        try:
            whole = len(self.secret) == KEY_CHARACTERS and zmq.curve_public(self.secret) == self.public
        except (zmq.ZMQError, ValueError):
            whole = False
        if not whole:
            raise ConfigError(
                "the two halves of a key pair do not belong together",
                expected=f"{KEY_CHARACTERS} characters of Z85 each, made by KeyPair.generate()",
            )

    @classmethod
    def generate(cls) -> KeyPair:
        """Make a new random key pair (libsodium's or tweetnacl's generator, seeded by the operating system)."""
        public, secret = zmq.curve_keypair()
        return cls(public, secret)

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r}, secret=<hidden>)"


def check_public_key(text: str) -> bytes:
    """Return a public key that somebody typed, as the bytes that a task lists.

    Raises:
        ConfigError: it is not 40 characters of Z85, or a point whose owner anybody could pretend to be (RFC 7748,
            section 6.1: the shared secret with it is zero).
    """
    text = text.strip()
    try:
        key = text.encode("ascii")
        if len(key) != KEY_CHARACTERS:
            raise ValueError
        raw = z85.decode(key)
        if z85.encode(raw) != key:
            raise ValueError
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(raw))
    except (ValueError, KeyError, struct.error):
        raise ConfigError(
            f"a text of {len(text)} characters is no public key",
            expected=f"{KEY_CHARACTERS} characters of Z85, as `heterofed keys show NAME` prints them",
            advice="Put it in single quotes, or the shell changes some of its characters.",
        ) from None
    return key


def keys_folder(home: Path) -> Path:
    """Return where the parties of this machine keep their keys, below `Settings.home`."""
    return home / "keys"


def create(folder: Path, name: str) -> KeyPair:
    """Make a key in `<folder>/<name>.key`, where none may be yet.

    Args:
        folder: made with mode 0700 where it is missing.
        name: feature key of the party: letters, digits, `_`, `-` and `.`.

    Raises:
        ConfigError: there is a file of this name; the name is not a feature key; others may write to the folder.
        OutputError: the file cannot be written.
    """
    path = _path(folder, name)
    with _named_failures(path, name):
        _prepare(folder)
        key = KeyPair.generate()
        if not _create(path, key):
            raise ConfigError(
                f"there is a key {path} already",
                expected="a name without a key; nothing was changed",
                advice="Tasks may list it: move it away yourself if nobody needs it any more.",
            )
    return key


def load(folder: Path, name: str) -> KeyPair:
    """Return the key in `<folder>/<name>.key`.

    Raises:
        ConfigError: there is none; the name is not a feature key; others may read the file or write to the folder;
            the file does not hold a key.
        OutputError: the file cannot be read.
    """
    path = _path(folder, name)
    with _named_failures(path, name):
        if folder.is_dir():
            _refuse_open_folder(folder)
        found = _load(path)
    if found is None:
        raise ConfigError(
            f"there is no key {path}",
            expected="a key of this name",
            advice=f"Make one with `heterofed keys new {name}`, or see that HETEROFED_HOME is right.",
        )
    return found


def load_or_create(folder: Path, name: str) -> KeyPair:
    """Return the key in `<folder>/<name>.key`; the first caller makes it, and every process gets the same one.

    Args:
        folder: made with mode 0700 where it is missing.
        name: feature key of the party: letters, digits, `_`, `-` and `.`.

    Raises:
        ConfigError: the name is not a feature key; others may read the file or write to the folder; the file does
            not hold a key.
        OutputError: the file cannot be read or written.
    """
    path = _path(folder, name)
    with _named_failures(path, name):
        _prepare(folder)
        found = _load(path)
        if found is None:
            _create(path, KeyPair.generate())
            found = _load(path)  # not ours if another process was faster
    if found is None:
        raise OutputError(f"the key file {path} vanished while it was made", party=name, advice="Try again.")
    return found


def _path(folder: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name[:100]!r} cannot name a key", expected="1 to 100 letters, digits, '_', '-' or '.'")
    return folder / f"{name}.key"


@contextmanager
def _named_failures(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"the key file {path} cannot be read or written: {error.strerror}",
            party=name,
            advice="Check that the folder exists, is yours and has room (HETEROFED_HOME).",
        ) from error


def _prepare(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_open_folder(folder)


def _refuse_open_folder(folder: Path) -> None:
    # Who may write to the folder may put a key of their own in the place of this one.
    if stat.S_IMODE(folder.stat().st_mode) & 0o022:
        raise ConfigError(
            f"others may write to the key folder {folder}", expected="mode 0700", advice=f"Run: chmod 700 {folder}"
        )


def _load(path: Path) -> KeyPair | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        # Asked of the open file, so that nobody can swap it between the check and the reading.
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise ConfigError(
                f"others may read the key file {path}", expected="mode 0600", advice=f"Run: chmod 600 {path}"
            )
        key = _parse(file.read(4096))
    if key is None:
        raise ConfigError(
            f"the key file {path} does not hold a key",
            advice="Restore it from a backup, or move it away to get a new key, which every task must then list.",
        )
    return key


def _parse(content: bytes) -> KeyPair | None:
    # By itself, so that no frame of a traceback that shows local variables holds the file's text.
    match = _FILE.fullmatch(content)
    if match:
        with contextlib.suppress(ConfigError):
            return KeyPair(match[1], match[2])
    return None


def _create(path: Path, key: KeyPair) -> bool:
    """Put a whole file there, or leave the one that is there already; return whether it is ours."""
    ours = False
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(_TEMPLATE.format(key.public.decode("ascii"), key.secret.decode("ascii")))
            file.flush()
            os.fsync(file.fileno())
        # A link never replaces a file, a rename does: of two processes, the second must not win.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
            ours = True
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)
    return ours


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

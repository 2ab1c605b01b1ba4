"""Every setting that is not an argument of a scheduler, and the variable that changes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from heterofed.errors import ConfigError


def _default_home() -> Path:
    try:
        return Path.home() / ".heterofed"
    except RuntimeError:
        raise ConfigError(
            "this user has no home directory", expected="a folder for keys and tasks", advice="Set HETEROFED_HOME."
        ) from None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the framework does where no argument says otherwise; `Settings.from_env()` reads `HETEROFED_<FIELD>`."""

    home: Path = field(default_factory=_default_home)
    """Keys and the task store of this machine's parties live here (`HETEROFED_HOME`)."""

    bind: str = "127.0.0.1:0"
    """Where a host listens, address:port; port 0 takes a free one (`HETEROFED_BIND`)."""

    advertise: str = ""
    """The address:port that collaborators are told, where it is not what the host binds to (`HETEROFED_ADVERTISE`)."""

    encryption: bool = True
    """Whether links are encrypted; off is for measurements on one machine, at all parties (`HETEROFED_ENCRYPTION`)."""

    gather_timeout_s: float = 600.0
    """How long to wait for every party to be there; 0 waits for ever (`HETEROFED_GATHER_TIMEOUT_S`)."""

    rejoin_timeout_s: float = 300.0
    """How long to wait for a party whose link is down; 0 waits for ever (`HETEROFED_REJOIN_TIMEOUT_S`)."""

    notice_every_s: float = 5.0
    """How often a wait says whom it waits for (`HETEROFED_NOTICE_EVERY_S`)."""

    max_message_bytes: int = 1 << 30
    """Largest message accepted from a peer, in bytes (`HETEROFED_MAX_MESSAGE_BYTES`)."""

    check_finite: bool = True
    """Whether an embedding or gradient that is NaN or infinite ends the task (`HETEROFED_CHECK_FINITE`)."""

    test_keep_bytes: int = 1 << 26
    """How much of a test's batches the host keeps after they have passed, in bytes (`HETEROFED_TEST_KEEP_BYTES`)."""

    threads: int = 0
    """Threads that a launched party computes with; 0: as many as torch takes by itself (`HETEROFED_THREADS`)."""

    psi_max_ids: int = 100_000_000
    """How many ids a peer may declare when ids are matched (`HETEROFED_PSI_MAX_IDS`)."""

    psi_key_bits: int = 2048
    """Size of a collaborator's RSA key for the private set intersection (`HETEROFED_PSI_KEY_BITS`)."""

    psi_protocol: str = "rsa"
    """How ids are matched, rsa or ecdh; the same at every party (`HETEROFED_PSI_PROTOCOL`)."""

    psi_pairwise: bool = False
    """Let the host see what it shares with each single collaborator; the same everywhere (`HETEROFED_PSI_PAIRWISE`)."""

    psi_workers: int = 0
    """Threads (rsa) or processes (ecdh) that match ids; 0: all cores, or this process (`HETEROFED_PSI_WORKERS`)."""

    psi_engine: str = "fastest"
    """The arithmetic that matches ids: fastest, or a name of `psi.engines` (`HETEROFED_PSI_ENGINE`)."""

    progress: str = "auto"
    """How progress is shown: auto, bar, plain, json or off (`HETEROFED_PROGRESS`)."""

    plugins: tuple[str, ...] = ()
    """Modules or .py files that are imported first, to register hooks, trainers, metrics (`HETEROFED_PLUGINS`)."""

    hooks: tuple[str, ...] = ()
    """Names of registered hooks that every trainer gets (`HETEROFED_HOOKS`)."""

    trainer: str = ""
    """Name of a registered trainer that runs this party's rounds; by default ours (`HETEROFED_TRAINER`)."""

    metrics: tuple[str, ...] = ()
    """Names of metrics that `HostScheduler.score` computes besides (`HETEROFED_METRICS`)."""

    tensorboard: bool = False
    """Whether measurements are written for TensorBoard too (`HETEROFED_TENSORBOARD`)."""

    hub: str = ""
    """URL of the hub that keeps the tasks; by default this machine does (`HETEROFED_HUB`)."""

    token: str = field(default="", repr=False)
    """What the hub knows this user or party by; keep it to yourself (`HETEROFED_TOKEN`)."""

    hub_ca: str = ""
    """A file with the certificate authority of the hub, where the system does not know it (`HETEROFED_HUB_CA`)."""

    upload: str = "metrics"
    """What a host gives the hub besides states: nothing, metrics, or all, with its models (`HETEROFED_UPLOAD`)."""

    def __post_init__(self) -> None:
        for name in ("gather_timeout_s", "rejoin_timeout_s", "notice_every_s"):
            if not getattr(self, name) >= 0:  # NaN is neither
                raise ConfigError(f"{name} is {getattr(self, name)}", expected="0 or more")
        if self.max_message_bytes < LEAST_MESSAGE_BYTES:
            raise ConfigError(
                f"max_message_bytes is {self.max_message_bytes}", expected=f"{LEAST_MESSAGE_BYTES} or more"
            )
        if not LEAST_KEY_BITS <= self.psi_key_bits <= MOST_KEY_BITS or self.psi_key_bits % 8:
            raise ConfigError(
                f"psi_key_bits is {self.psi_key_bits}",
                expected=f"a multiple of 8 from {LEAST_KEY_BITS} to {MOST_KEY_BITS}",
            )
        if self.psi_protocol not in PSI_PROTOCOLS:
            raise ConfigError(f"psi_protocol is {self.psi_protocol!r}", expected="one of " + ", ".join(PSI_PROTOCOLS))
        if self.psi_engine not in PSI_ENGINES:
            raise ConfigError(f"psi_engine is {self.psi_engine!r}", expected="one of " + ", ".join(PSI_ENGINES))
        if self.test_keep_bytes < 0:
            raise ConfigError(f"test_keep_bytes is {self.test_keep_bytes}", expected="0 or more")
        if self.psi_max_ids < 1:
            raise ConfigError(f"psi_max_ids is {self.psi_max_ids}", expected="1 or more")
        if self.threads < 0:
            raise ConfigError(f"threads is {self.threads}", expected="0 or more")
        if self.psi_workers < 0:
            raise ConfigError(f"psi_workers is {self.psi_workers}", expected="0 or more")
        if self.progress not in PROGRESS_FORMS:
            raise ConfigError(f"progress is {self.progress!r}", expected="one of " + ", ".join(PROGRESS_FORMS))
        if self.upload not in UPLOADS:
            raise ConfigError(f"upload is {self.upload!r}", expected="one of " + ", ".join(UPLOADS))
        if self.token and not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise ConfigError("token is no token", expected="the text that the hub printed, without spaces")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `HETEROFED_*` variables.

        Raises:
            ConfigError: a variable does not have the form of its field; the text names it.
        """
        source = os.environ if environ is None else environ
        values: dict[str, object] = {}
        for each in fields(cls):
            variable = f"HETEROFED_{each.name.upper()}"
            text = source.get(variable)
            if not text:
                continue
            convert = _CONVERTERS[each.name]
            try:
                values[each.name] = convert(text)
            except ValueError:
                raise ConfigError(f"{variable} is {text!r}", expected=f"a value like {each.default!r}") from None
        return cls(**values)  # type: ignore[arg-type]  # each value went through its field's converter


LEAST_MESSAGE_BYTES = 1 << 20
"""A part of the intersection takes up to half of this (512 elements of 8192 bits)."""

LEAST_KEY_BITS, MOST_KEY_BITS = 2048, 8192
"""NIST SP 800-57: 2048 bits are about 112 bits of security; beyond 8192 a run takes for ever."""


def _folder(text: str) -> Path:
    """Return a folder that means the same wherever a party is started."""
    return Path(text).expanduser().absolute()


def _flag(text: str) -> bool:
    """Return what a variable says, yes or no.

    Raises:
        ValueError: it says neither.
    """
    answer = text.strip().lower()
    if answer not in _YES | _NO:
        raise ValueError(text)
    return answer in _YES


_YES, _NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


def _names(text: str) -> tuple[str, ...]:
    """Return what stands between commas."""
    return tuple(each.strip() for each in text.split(",") if each.strip())


PSI_PROTOCOLS = ("rsa", "ecdh")
PSI_ENGINES = ("fastest", "multibuffer", "openssl", "gmpy2", "cryptography")
PROGRESS_FORMS = ("auto", "bar", "plain", "json", "off")
UPLOADS = ("nothing", "metrics", "all")

_CONVERTERS: Mapping[str, Callable[[str], object]] = {
    "home": _folder,
    "bind": str,
    "advertise": str,
    "encryption": _flag,
    "gather_timeout_s": float,
    "rejoin_timeout_s": float,
    "notice_every_s": float,
    "max_message_bytes": int,
    "check_finite": _flag,
    "test_keep_bytes": int,
    "threads": int,
    "psi_max_ids": int,
    "psi_key_bits": int,
    "psi_protocol": str,
    "psi_pairwise": _flag,
    "psi_workers": int,
    "psi_engine": str,
    "progress": str,
    "plugins": _names,
    "hooks": _names,
    "trainer": str,
    "metrics": _names,
    "tensorboard": _flag,
    "hub": str,
    "token": str,
    "hub_ca": str,
    "upload": str,
}

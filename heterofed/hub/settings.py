"""How a hub runs: where it listens, where it keeps things, and how much it takes from whom."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from heterofed.config import Settings
from heterofed.errors import ConfigError

DATABASE_FILE = "hub.db"
"""Name of the hub's SQLite file under `Settings.home`."""


def _default_database() -> str:
    return str(Settings.from_env().home / DATABASE_FILE)


@dataclass(frozen=True, kw_only=True)
class HubSettings:
    """Everything that `heterofed hub` may be told. All limits hold for one process of the hub.

    Raises:
        ConfigError: a value cannot be one; the text names it.
    """

    bind_host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0: all of this machine's."""

    port: int = 8080
    """0 takes a free one."""

    database: str = field(default_factory=_default_database, repr=False)
    """A SQLite file or a SQLAlchemy URL such as postgresql://user@host/name. Not in `repr`: it may hold a password."""

    broker: str | None = field(default=None, repr=False)
    """URL of a Redis for Celery; None: what has to be done is done in this process."""

    workers: int = 1
    """How many Celery workers are started beside the server, with a broker."""

    certfile: Path | None = None
    """TLS certificate chain, PEM."""

    keyfile: Path | None = None
    """Its private key, PEM."""

    public_url: str = ""
    """How people and parties reach the hub, where it is not http(s)://bind_host:port."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses of reverse proxies whose X-Forwarded-For and -Proto are believed."""

    max_upload_bytes: int = 1 << 26
    """Largest file that a party may leave with a task."""

    max_task_bytes: int = 1 << 30
    """What the files of one task may take together."""

    max_body_bytes: int = 1 << 22
    """Largest body of any other request."""

    requests_per_minute: int = 1200
    """From one token; twenty a second, for a party that looks once a second and reports besides."""

    strangers_per_minute: int = 60
    """Requests without a valid token from one address."""

    session_hours: float = 12.0
    """How long a browser stays logged in."""

    invitation_days: float = 30.0
    """How long the token of an invitation works: longer than the training it is for."""

    def __post_init__(self) -> None:
        scheme, separator, rest = self.database.partition("://")
        if separator and scheme in ("postgresql", "postgres"):  # as people write it: with the driver that we bring
            object.__setattr__(self, "database", f"postgresql+psycopg://{rest}")
        if not 0 <= self.port < 1 << 16:
            raise ConfigError(f"port is {self.port}", expected="0 to 65535")
        for name in ("max_upload_bytes", "max_task_bytes", "max_body_bytes", "requests_per_minute"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", expected="1 or more")
        for name in ("session_hours", "invitation_days", "strangers_per_minute"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}", expected="more than 0")
        if self.workers < 1:
            raise ConfigError(f"workers is {self.workers}", expected="1 or more")
        if (self.certfile is None) != (self.keyfile is None):
            raise ConfigError("TLS needs a certificate and its key", expected="both --certfile and --keyfile")
        for path in (self.certfile, self.keyfile):
            if path is not None and not path.is_file():
                raise ConfigError(f"there is no file {path}", expected="a PEM file")
        if self.public_url and not self.public_url.startswith(("http://", "https://")):
            raise ConfigError(f"public_url is {self.public_url!r}", expected="a URL that begins with http(s)://")

    @property
    def encrypted(self) -> bool:
        """Whether browsers reach the hub by https, here or at a proxy before it."""
        return self.certfile is not None or self.public_url.startswith("https://")

    @property
    def only_here(self) -> bool:
        """Whether only programs of this machine can reach the hub."""
        try:
            return ipaddress.ip_address(self.bind_host).is_loopback
        except ValueError:
            return self.bind_host == "localhost"

    def url(self, port: int | None = None) -> str:
        """Return how the hub is reached, without a slash at the end; `port` is the one it really listens on."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = "127.0.0.1" if self.bind_host in ("0.0.0.0", "") else self.bind_host  # noqa: S104 - compared, not bound
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self.certfile else 'http'}://{host}:{port or self.port}"

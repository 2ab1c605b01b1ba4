"""Run the hub as one process: the server, who carries out what reports lead to, and, with a broker, its workers."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack

import uvicorn
from fastapi import FastAPI

from heterofed.errors import ConfigError
from heterofed.hub.app import create_app
from heterofed.hub.settings import HubSettings

_PATIENCE_S = 3
"""How long open requests may go on when the hub is told to end."""


class Server(uvicorn.Server):
    """A uvicorn that tells open streams to end before it waits for them."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        app = self.config.app
        if isinstance(app, FastAPI):
            app.state.closing.set()
        await super().shutdown(sockets)


def make_server(settings: HubSettings, app: FastAPI) -> Server:
    """Return a server that is not running yet."""
    proxies = ",".join(settings.trusted_proxies)
    config = uvicorn.Config(
        app,
        host=settings.bind_host,
        port=settings.port,
        ssl_certfile=settings.certfile,
        ssl_keyfile=settings.keyfile,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies or None,
        server_header=False,
        access_log=False,
        log_level=logging.WARNING,
        lifespan="on",  # by default a start that fails would be passed over in silence
        timeout_graceful_shutdown=_PATIENCE_S,
    )
    return Server(config)


def bind(settings: HubSettings) -> socket.socket:
    """Take the hub's address.

    Raises:
        ConfigError: it is not free, or not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.bind_host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((settings.bind_host, settings.port))
        taken.listen(512)
    except OSError as error:
        taken.close()
        raise ConfigError(
            f"the hub cannot listen on {settings.bind_host}:{settings.port}: {error.strerror or error}",
            expected="a free port of an address of this machine",
            advice="Choose another one with --port or --bind.",
        ) from None
    return taken


def serve(settings: HubSettings, say: Callable[[str], object]) -> None:
    """Run until the process is told to end.

    Args:
        settings: how.
        say: told, for people, where the hub is; on its first start the link with the token, this once.

    Raises:
        ConfigError: the address is taken, TLS cannot be set up, or the database or the broker's URL cannot be used.
        OutputError: the database fails.
    """
    with ExitStack() as stack:
        taken = stack.enter_context(bind(settings))
        app = create_app(settings)
        server = make_server(settings, app)
        try:
            server.config.load()
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"the certificate or its key cannot be used: {error}", expected="PEM files") from None
        if settings.broker is not None:
            from heterofed.hub.coordinator.worker import start_workers  # celery takes a while to load

            workers = start_workers(settings.database, settings.broker, settings.workers)
            stack.callback(workers.stop)
        url = settings.url(taken.getsockname()[1])
        first = app.state.hub.first_token()
        if first is not None:
            say(f"open {url}/login?token={first.token}")
            say(f"on the command line: export HETEROFED_HUB={url} HETEROFED_TOKEN=(the token of this link)")
            say("it is not shown again; `heterofed hub token owner` makes another one")
        say(f"the hub is at {url}, its tasks in {app.state.hub.store.where}")
        if not settings.encrypted and not settings.only_here:
            say("others on the network can read what is sent, tokens too: use --certfile and --keyfile, or a TLS proxy")
        server.run(sockets=[taken])

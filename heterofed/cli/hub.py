"""`heterofed hub` and `heterofed agent`: the service that people look at, and the daemon that starts a party."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from heterofed.errors import ConfigError

hub_app = typer.Typer(invoke_without_command=True)

_Database = Annotated[
    str | None,
    typer.Option(
        envvar="HETEROFED_HUB_DATABASE",
        help="A SQLite file or a URL as postgresql://USER@HOST/NAME; by default hub.db in HETEROFED_HOME.",
    ),
]


@hub_app.callback()
def run_hub(
    context: typer.Context,
    bind: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8080,
    database: _Database = None,
    broker: Annotated[
        str | None,
        typer.Option(
            envvar="HETEROFED_HUB_BROKER",
            help="A Redis, redis://HOST, for Celery; without it the hub does its work itself.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Celery workers to start; with a broker only.")] = 1,
    certfile: Annotated[Path | None, typer.Option(help="TLS certificate, PEM.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    public_url: Annotated[
        str, typer.Option(help="How people and parties reach the hub, where it is another address.")
    ] = "",
    proxy: Annotated[
        str, typer.Option(help="Addresses of reverse proxies that are believed, separated by commas.")
    ] = "",
) -> None:
    """Run a hub until it is told to end. The first start prints the link to log in with.

    Example: heterofed hub --port 8080
    """
    if context.invoked_subcommand is not None:
        return
    settings = _settings(
        bind_host=bind,
        port=port,
        database=database,
        broker=broker,
        workers=workers,
        certfile=certfile,
        keyfile=keyfile,
        public_url=public_url,
        trusted_proxies=tuple(each.strip() for each in proxy.split(",") if each.strip()),
    )
    _commands().serve(settings)


@hub_app.command("token")
def make_token(
    name: Annotated[str, typer.Argument(metavar="USER", help="Who it is for; a new user is made.")],
    role: Annotated[str | None, typer.Option(help="owner, party or viewer; by default the user's, or party.")] = None,
    expires: Annotated[str | None, typer.Option(help="For how long it works, for example 12h or 30d.")] = None,
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    database: _Database = None,
) -> None:
    """Make a token straight in the hub's database and print it, once. For the machine that the hub runs on.

    Example: heterofed hub token --role owner --expires 30d anna
    """
    typer.echo(_commands().token(_settings(database=database), name, role=role, expires=expires, label=label))


def _settings(**values: Any) -> Any:
    settings: Any = _needs_extra("heterofed.hub.settings").HubSettings
    return settings(**{name: value for name, value in values.items() if value is not None})


def _commands() -> Any:
    return _needs_extra("heterofed.hub.commands")


def _needs_extra(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "heterofed":
            raise
        raise ConfigError(
            f"the hub needs the package {error.name}, which is not installed",
            advice='Run: pip install "heterofed[hub]"',
        ) from None


def run_agent(
    serve: Annotated[
        list[str],
        typer.Option(help="A scheduler to run when its task is launched: [PARTY=]package.module:Class. Repeat it."),
    ],
    check: Annotated[
        list[str] | None,
        typer.Option(help="A data checker to run when a task comes: [PARTY=]package.module:Class. Repeat it."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the parties' results and logs go.")] = None,
) -> None:
    """Wait for tasks of this machine's parties, check their data, and start them when they are launched.

    It runs only what is named here; nobody else can make it run anything.

    Example: heterofed agent --serve shop=shop.training:ShopCollaborator
    """
    agent: Any = importlib.import_module("heterofed.agent.commands")
    agent.serve(serve, check or [], out=out)

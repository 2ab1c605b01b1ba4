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
        metavar="FILE|URL",
        help="A SQLite file or a URL as postgresql://USER@HOST/NAME; by default hub.db in HETEROFED_HOME.",
    ),
]


@hub_app.callback()
def run_hub(
    context: typer.Context,
    bind: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to listen on; 0.0.0.0 for all of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="The port to listen on; 0 takes a free one.")] = 8080,
    database: _Database = None,
    broker: Annotated[
        str | None,
        typer.Option(
            envvar="HETEROFED_HUB_BROKER",
            metavar="URL",
            help="A Redis, redis://HOST, for Celery; without it the hub does its work itself.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", help="Celery workers to start; with a broker only.")] = 1,
    certfile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TLS certificate, PEM; without it, the hub speaks plain HTTP.")
    ] = None,
    keyfile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The private key of --certfile, PEM; not needed without it.")
    ] = None,
    public_url: Annotated[
        str,
        typer.Option(
            metavar="URL", help="How people and parties reach the hub; by default the address that it listens on."
        ),
    ] = "",
    proxy: Annotated[
        str,
        typer.Option(
            metavar="ADDRESSES", help="Reverse proxies that are believed, separated by commas; by default none."
        ),
    ] = "",
) -> None:
    """Run a hub: a page and an API where parties share tasks.

    It runs until it is told to end. The first start prints the link to log in with.

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
    role: Annotated[
        str | None,
        typer.Option(
            metavar="owner|party|viewer",
            autocompletion=lambda: ["owner", "party", "viewer"],
            help="What its owner may do; by default as the user may already, and party for a new user.",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="For how long it works, for example 12h or 30d; by default 90 days."),
    ] = None,
    label: Annotated[
        str, typer.Option(metavar="TEXT", help="What it is for, as the hub's page shows it; by default nothing.")
    ] = "",
    database: _Database = None,
) -> None:
    """Make a token straight in the hub's database and print it, once.

    This is for the machine that the hub runs on.

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
        typer.Option(
            metavar="[PARTY=]MODULE:CLASS",
            help="A scheduler to run when its task is launched; may be given several times.",
        ),
    ],
    check: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[PARTY=]MODULE:CLASS",
            help="A data checker to run when a task comes; may be given several times.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where results and logs go, a folder for each task; by default as each scheduler says.",
        ),
    ] = None,
) -> None:
    """Wait for tasks of this machine's parties, and start them.

    When a task comes, their data is checked; when it is launched, they start. The agent runs only what is named here;
    nobody else can make it run anything.

    Example: heterofed agent --serve shop=shop.training:ShopCollaborator
    """
    agent: Any = importlib.import_module("heterofed.agent.commands")
    agent.serve(serve, check or [], out=out)

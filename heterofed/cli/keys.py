"""`heterofed keys …`: make keys, show them, and say whose is whose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heterofed.cli.common import TaskId, directory
from heterofed.config import Settings
from heterofed.tasks.joined import pin
from heterofed.tasks.model import check_feature_key
from heterofed.wire.keys import check_public_key, create, keys_folder, load

keys_app = typer.Typer(
    help="""Keys: make them, show them, and say whose is whose.

    A party that has no key gets one when it is launched; these are for more care than that.

    Example: heterofed keys show bank
    """,
    no_args_is_help=True,
)

_KeyName = Annotated[str, typer.Argument(metavar="NAME", help="The party's feature key.")]


def _folder() -> Path:
    return keys_folder(Settings.from_env().home)


@keys_app.command("new")
def new_key(name: _KeyName) -> None:
    """Make a party's key and print its public half. A key that is there is never overwritten.

    Example: heterofed keys new bank
    """
    typer.echo(create(_folder(), check_feature_key(name)).public.decode("ascii"))


@keys_app.command("show")
def show_key(name: _KeyName) -> None:
    """Print the public half of a party's key. Anybody may see it; the secret half never leaves its file.

    Example: heterofed keys show bank
    """
    typer.echo(load(_folder(), check_feature_key(name)).public.decode("ascii"))


@keys_app.command("trust", context_settings={"ignore_unknown_options": True})  # a key may begin with a hyphen
def trust_key(
    task_id: TaskId,
    party: Annotated[str, typer.Argument(metavar="PARTY", help="A feature key of the task.")],
    public_key: Annotated[
        str, typer.Argument(metavar="PUBLIC_KEY", help="As `keys show` prints it, in single quotes.")
    ],
) -> None:
    """Say which public key a party of a task has.

    From now on only that key is this party, whoever announces another.

    Example: heterofed keys trust ID bank 'PUBLIC_KEY'
    """
    place, key = directory(task_id), check_public_key(public_key)
    place.store.trust(task_id, party, key)
    if place.at_hub:
        pin(place.home, task_id, party, key)  # whatever the hub says later
    typer.echo(f"only the key {public_key.strip()[:8]}… is {party} of task {task_id} now", err=True)

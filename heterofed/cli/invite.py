"""`heterofed task invite` and `heterofed task join`: one line to paste that brings a party in, from any machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Annotated

import typer

from heterofed.cli.common import TaskId, directory
from heterofed.config import Settings
from heterofed.errors import ConfigError, UnknownTask
from heterofed.tasks.directory import STORE_FILE, open_hub
from heterofed.tasks.interface import Tasks
from heterofed.tasks.invitation import Invitation, check_endpoint
from heterofed.tasks.joined import Joined, read_joined, remember
from heterofed.tasks.model import Party, Task
from heterofed.tasks.store import TaskStore
from heterofed.wire.keys import check_public_key, keys_folder, load_or_create


def invite(
    task_id: TaskId,
    party: Annotated[str, typer.Argument(metavar="PARTY", help="A feature key of the task.")],
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Where the host listens, as that party reaches it. Not needed with a hub."
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="PARTY", help="The host, if it is a party of this machine; by default the one known, or the first."
        ),
    ] = None,
) -> None:
    """Print one line that PARTY pastes on its machine to come in.

    A hub's line holds a token: send it as you send a password. One without a hub holds no secret.

    Example: heterofed task invite --endpoint host.example:7000 ID shop
    """
    settings = Settings.from_env()
    place = directory(task_id)
    task = place.find(task_id)
    task.party(party)
    if (why := task.why_over()) is not None:
        raise ConfigError(f"task {task_id} {why}, and nobody can come in", advice="Create a new one.")
    from heterofed.tasks.client import HubClient  # here, because HTTP takes a while to load

    if isinstance(place.store, HubClient):
        invitation = Invitation.parse(place.store.invite(task_id, party)[0])
        if host is not None:
            invitation = replace(invitation, host=task.party(host).feature_key, host_key=_own_key(settings, host))
        if endpoint is not None:
            invitation = replace(invitation, endpoint=check_endpoint(f"tcp://{endpoint}"))
    else:
        invitation = _from_here(settings, task, party, endpoint, host)
        told = (invitation.endpoint or "").removeprefix("tcp://")
        typer.echo(
            f"{invitation.host} has to be reached at {told} then: start it with "
            f"HETEROFED_BIND=0.0.0.0:{told.rpartition(':')[2]} HETEROFED_ADVERTISE={told}",
            err=True,
        )
    if invitation.token is not None:
        typer.echo(f"give this line to {party}, and to nobody else: whoever has it is {party}", err=True)
    else:
        typer.echo(f"give this line to {party}; it holds no secret, and says whose key is the host's:", err=True)
    typer.echo(f"heterofed task join {invitation}")


def _from_here(settings: Settings, task: Task, party: str, endpoint: str | None, host: str | None) -> Invitation:
    chosen = task.party(host) if host is not None else task.host or task.parties[0]
    if chosen.feature_key == party:
        raise ConfigError(
            f"{party} is the host of task {task.id} and needs no invitation",
            expected="another party, or --host with the one that is the host",
        )
    return Invitation(
        task=task.id,
        party=party,
        parties=task.feature_keys,
        name=task.name,
        endpoint=check_endpoint(f"tcp://{endpoint}") if endpoint is not None else _endpoint(settings, chosen),
        host=chosen.feature_key,
        host_key=_own_key(settings, chosen.feature_key),
        expires=task.expires_at,
        rounds=task.rounds,
        options=task.options,
        uncertainty=task.uncertainty,
    )


def _own_key(settings: Settings, party: str) -> str:
    return load_or_create(keys_folder(settings.home), party).public.decode("ascii")


def _endpoint(settings: Settings, host: Party) -> str:
    if host.endpoint is not None and host.endpoint.startswith("tcp://"):
        return check_endpoint(host.endpoint)
    told = settings.advertise or settings.bind
    if told.endswith(":0"):
        raise ConfigError(
            f"nobody knows yet where {host.feature_key} will listen",
            expected="an address with a port that stays",
            advice="Give it as --endpoint HOST:PORT, and start the host with HETEROFED_BIND=0.0.0.0:PORT and "
            "HETEROFED_ADVERTISE=HOST:PORT.",
        )
    return check_endpoint(f"tcp://{told}")


def join(
    line: Annotated[str, typer.Argument(metavar="INVITATION", help="As `task invite` or the hub's page printed it.")],
) -> None:
    """Take an invitation, so that this machine knows the task.

    Afterwards the party may be launched with the task's id.

    Example: heterofed task join INVITATION
    """
    settings = Settings.from_env()
    invitation = Invitation.parse(line)
    if invitation.expires is not None and invitation.expires <= datetime.now(timezone.utc):
        raise ConfigError(
            f"the invitation expired at {invitation.expires:%Y-%m-%d %H:%M} UTC",
            advice="Ask for a new one: `heterofed task invite` prints it, or the hub's page.",
        )
    task_id, party = invitation.task, invitation.party
    host_key = None if invitation.host_key is None else check_public_key(invitation.host_key)
    own_key = _own_key(settings, party)
    if invitation.hub is not None and invitation.token is not None:
        _ask_hub(open_hub(settings, invitation.hub, invitation.token), invitation)
        keys = {} if host_key is None or invitation.host is None else {invitation.host: host_key}
        remember(settings.home, task_id, Joined(party, invitation.hub, invitation.token, keys))
        where = f" at {invitation.hub}"
    else:
        _keep_here(settings, invitation, host_key)
        where = f", whose host {invitation.host} listens at {invitation.endpoint}"
    typer.echo(f"you are {party} in task {invitation.name!r} ({task_id}){where}", err=True)
    typer.echo(
        f"next: launch your scheduler with feature_key={party!r} and launch_task({task_id!r}), or let "
        f"`heterofed agent` do it",
        err=True,
    )
    if invitation.hub is None:
        typer.echo(f"before that, {invitation.host} has to run this line, which tells it your key:", err=True)
        typer.echo(f"heterofed keys trust {task_id} {party} '{own_key}'")
    else:
        typer.echo("to rule out a hub that names false keys, let the others run this line too:", err=True)
        typer.echo(f"heterofed keys trust {task_id} {party} '{own_key}'")


def _ask_hub(hub: Tasks, invitation: Invitation) -> None:
    """Let the hub confirm the invitation before anything is kept."""
    hub.get(invitation.task).party(invitation.party)


def _keep_here(settings: Settings, invitation: Invitation, host_key: bytes | None) -> None:
    store = TaskStore(settings.home / STORE_FILE)
    joined = read_joined(settings.home).get(invitation.task)
    try:
        task = store.get(invitation.task)
    except UnknownTask:
        task = store.create(
            invitation.name,
            invitation.parties,
            rounds=invitation.rounds,
            options=invitation.options,
            uncertainty=invitation.uncertainty,
            task_id=invitation.task,
        )
    else:
        if joined is None or joined.party is None:
            raise ConfigError(
                f"task {task.id} was created on this machine, and all its parties here know it",
                expected="an invitation on another machine, or with another HETEROFED_HOME",
            )
        if task.feature_keys != invitation.parties:
            raise ConfigError(
                f"task {task.id} is known here with the parties {', '.join(task.feature_keys)}",
                expected=f"{', '.join(invitation.parties)}, as the invitation says",
                advice="Ask who invited you which is right.",
            )
    if host_key is None or invitation.host is None:  # an Invitation without a hub has both
        raise ConfigError("the invitation does not say who the host is")
    store.trust(task.id, invitation.host, host_key)
    store.set_party(task.id, invitation.host, role="host", endpoint=invitation.endpoint)
    remember(settings.home, task.id, Joined(invitation.party))

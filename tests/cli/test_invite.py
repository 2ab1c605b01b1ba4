"""Invitations on the command line: what is printed, what is refused, what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from heterofed.config import Settings
from heterofed.errors import ConfigError, NotAllowed
from heterofed.tasks import TaskStatus, TrainerOptions, open_directory
from heterofed.tasks.directory import host_in
from heterofed.tasks.invitation import Invitation
from heterofed.tasks.joined import read_joined
from heterofed.wire.keys import create, load
from tests.cli.words import heterofed, well
from tests.hub.running import RunningHub, running_hub
from tests.tasks.lives import expire


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture
def other(tmp_path: Path) -> str:
    """The home of another machine."""
    return str(tmp_path / "other")


def created(*words: str, **variables: str) -> str:
    return well("task", "create", "--parties", "bank,shop", *words, **variables).lines[-1]


def invited(task_id: str, *words: str, **variables: str) -> str:
    (line,) = well("task", "invite", "--endpoint", "host.example:7000", *words, task_id, "shop", **variables).lines
    return line.removeprefix("heterofed task join ")


def test_an_invitation_names_the_host_its_endpoint_and_its_key(home: Path) -> None:
    task_id = created("--name", "credit", "--rounds", "4", "--tests", "none", "--uncertainty", "swag")
    said = well("task", "invite", "--endpoint", "host.example:7000", task_id, "shop")

    invitation = Invitation.parse(said.lines[0])
    assert (invitation.task, invitation.party, invitation.host) == (task_id, "shop", "bank")
    assert invitation.host_key == load(home / "keys", "bank").public.decode()
    assert (invitation.rounds, invitation.options) == (4, TrainerOptions(skip_model_tests=True))
    assert invitation.uncertainty == "swag"
    assert "HETEROFED_BIND=0.0.0.0:7000 HETEROFED_ADVERTISE=host.example:7000" in said.err
    assert "give this line to shop; it holds no secret" in said.err and "nobody else" not in said.err
    assert well("task", "invite", "--endpoint", "host.example:7000", task_id, "shop").lines == said.lines


def test_the_endpoint_is_the_running_hosts_or_what_the_environment_says(home: Path) -> None:
    task_id = created()
    nobody = heterofed("task", "invite", task_id, "shop")
    assert "nobody knows yet where bank will listen" in str(nobody.error)
    (line,) = well("task", "invite", task_id, "shop", HETEROFED_ADVERTISE="me.example:7001").lines
    assert Invitation.parse(line).endpoint == "tcp://me.example:7001"
    (line,) = well("task", "invite", task_id, "shop", HETEROFED_BIND="10.0.0.1:7002").lines
    assert Invitation.parse(line).endpoint == "tcp://10.0.0.1:7002"
    open_directory(Settings.from_env()).announce_host(task_id, "bank", "tcp://10.0.0.2:7003", b"k" * 40)
    (line,) = well("task", "invite", task_id, "shop").lines
    assert Invitation.parse(line).endpoint == "tcp://10.0.0.2:7003"
    for wrong in ("host.example", "0.0.0.0:7000", "h:99999", "tcp://h:1"):
        assert "none that others can reach" in str(
            heterofed("task", "invite", "--endpoint", wrong, task_id, "shop").error
        )


def test_the_host_itself_a_stranger_and_a_task_that_is_over_are_not_invited(home: Path) -> None:
    task_id = created()
    words = ("task", "invite", "--endpoint", "h:1", task_id)
    assert "bank is the host of task" in str(heterofed(*words, "bank").error)
    assert "has no party 'mill'" in str(heterofed(*words, "mill").error)
    assert Invitation.parse(well(*words, "bank", "--host", "shop").lines[0]).host == "shop"
    expire(open_directory(Settings.from_env()).store, task_id)
    assert "and nobody can come in" in str(heterofed(*words, "shop").error)


def test_who_joins_knows_the_task_and_is_told_what_to_do(other: str) -> None:
    task_id = created("--name", "credit", "--rounds", "4", "--uncertainty", "swag")

    said = well("task", "join", invited(task_id), HETEROFED_HOME=other)

    own = load(Path(other) / "keys", "shop").public.decode()
    assert said.lines == [f"heterofed keys trust {task_id} shop '{own}'"]
    assert f"you are shop in task 'credit' ({task_id}), whose host bank listens at tcp://host.example:7000" in said.err
    assert f"launch_task('{task_id}')" in said.err
    place = open_directory(Settings(home=Path(other)), task_id)
    task = place.find(task_id)
    assert (task.name, task.rounds, task.feature_keys, place.joined_as) == ("credit", 4, ("bank", "shop"), "shop")
    assert task.uncertainty == "swag"
    host = host_in(task)
    assert host is not None
    assert (host.feature_key, host.endpoint) == ("bank", "tcp://host.example:7000")
    assert task.party("bank").key_trusted


def test_joining_again_takes_the_new_endpoint_and_key(other: str, home: Path) -> None:
    task_id = created()
    well("task", "join", invited(task_id), HETEROFED_HOME=other)
    (home / "keys" / "bank.key").rename(home / "keys" / "old.key")
    new = create(home / "keys", "bank").public
    (line,) = well("task", "invite", "--endpoint", "h:2", task_id, "shop").lines
    well("task", "join", line, HETEROFED_HOME=other)
    host = host_in(open_directory(Settings(home=Path(other)), task_id).find(task_id))
    assert host is not None
    assert (host.endpoint, host.public_key) == ("tcp://h:2", new)


def test_the_machine_that_made_the_task_does_not_join_it(home: Path) -> None:
    task_id = created()
    error = heterofed("task", "join", invited(task_id)).error
    assert f"task {task_id} was created on this machine" in str(error)
    assert open_directory(Settings.from_env()).find(task_id).party("bank").endpoint is None


def test_an_invitation_that_expired_is_refused(other: str) -> None:
    task_id = created("--expires", "1m")
    line = invited(task_id)
    invitation = Invitation.parse(line)
    assert invitation.expires is not None
    late = str(replace(invitation, expires=invitation.expires - timedelta(hours=1)))
    assert "the invitation expired at" in str(heterofed("task", "join", late, HETEROFED_HOME=other).error)
    assert not (Path(other) / "tasks.db").exists()


# -- with a hub -------------------------------------------------------------------------------------------------------


def test_a_hubs_invitation_brings_its_url_and_a_token_of_that_party_alone(
    hub: RunningHub, other: str, home: Path
) -> None:
    at_hub = {"HETEROFED_HUB": hub.url, "HETEROFED_TOKEN": hub.token}
    task_id = created(**at_hub)
    printed = well("task", "invite", "--host", "bank", task_id, "shop", **at_hub)
    assert "give this line to shop, and to nobody else: whoever has it is shop" in printed.err
    (line,) = printed.lines

    said = well("task", "join", line, HETEROFED_HOME=other)

    assert f"you are shop in task 'task' ({task_id}) at {hub.url}" in said.err
    joined = read_joined(Path(other))[task_id]
    assert (joined.party, joined.hub) == ("shop", hub.url)
    assert joined.keys == {"bank": load(home / "keys", "bank").public}
    assert joined.token not in {"", hub.token}
    assert task_id in well("task", "show", task_id, HETEROFED_HOME=other).out
    refused = heterofed("task", "start", task_id, HETEROFED_HOME=other).error
    assert isinstance(refused, NotAllowed)
    assert joined.token not in f"{said.err}{said.out}{refused}"
    # who has a token that may do more uses that one, here too
    well("task", "cancel", task_id, HETEROFED_HOME=other, **at_hub)


def test_a_token_that_the_hub_does_not_know_joins_nothing(hub: RunningHub, other: str) -> None:
    at_hub = {"HETEROFED_HUB": hub.url, "HETEROFED_TOKEN": hub.token}
    task_id = created(**at_hub)
    (line,) = well("task", "invite", task_id, "shop", **at_hub).lines
    false = str(replace(Invitation.parse(line), token="false"))  # noqa: S106 - of nobody
    assert isinstance(heterofed("task", "join", false, HETEROFED_HOME=other).error, NotAllowed)
    assert read_joined(Path(other)) == {}


def test_a_key_that_is_trusted_at_a_hub_is_pinned_here_whatever_the_hub_says_later(hub: RunningHub, home: Path) -> None:
    at_hub = {"HETEROFED_HUB": hub.url, "HETEROFED_TOKEN": hub.token}
    task_id = created(**at_hub)
    key, other_key = create(home / "keys", "shop").public, create(home / "keys", "mill").public
    well("keys", "trust", task_id, "shop", key.decode(), **at_hub)
    assert read_joined(home)[task_id].keys == {"shop": key}

    hub.hub.store.trust(task_id, "shop", other_key)  # the hub, on its own

    place = open_directory(Settings(home=home, hub=hub.url, token=hub.token), task_id)
    assert place.store.get(task_id).party("shop").public_key == other_key
    assert place.find(task_id).party("shop").public_key == key
    task = place.find(task_id)
    assert (task.owner_of(other_key), task.owner_of(key)) == (None, "shop")


def test_a_task_that_ended_at_the_hub_is_not_invited_to(hub: RunningHub) -> None:
    at_hub = {"HETEROFED_HUB": hub.url, "HETEROFED_TOKEN": hub.token}
    task_id = created(**at_hub)
    hub.hub.store.move(task_id, TaskStatus.CANCELLED, "wrong table")
    error = heterofed("task", "invite", task_id, "shop", **at_hub).error
    assert isinstance(error, ConfigError)
    assert "is CANCELLED: wrong table, and nobody can come in" in str(error)

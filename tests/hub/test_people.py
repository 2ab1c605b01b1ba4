"""Users, tokens, members, invitations and the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from heterofed.errors import ConfigError, NotAllowed
from heterofed.hub.access import Actor
from heterofed.hub.app import open_hub
from heterofed.hub.people import NewInvitation
from heterofed.hub.service import Hub
from heterofed.hub.settings import HubSettings
from heterofed.tasks.invitation import Invitation
from heterofed.tasks.model import TaskStatus

KEY = b"k" * 40


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    opened = open_hub(HubSettings(database=str(tmp_path / "hub.db"), session_hours=1))
    yield opened
    opened.close()


@pytest.fixture
def admin(hub: Hub) -> Actor:
    first = hub.first_token()
    assert first is not None
    return hub.authenticate(first.token, "192.0.2.1")


def actor(hub: Hub, by: Actor, name: str, role: str) -> Actor:
    hub.make_user(by, name, role)
    return hub.authenticate(hub.local_token(name, None, None, "test").token)


def invited(hub: Hub, made: NewInvitation) -> Actor:
    token = Invitation.parse(made.invitation).token
    assert token is not None
    return hub.authenticate(token)


def test_an_invitation_makes_a_user_who_is_that_party_of_that_task_alone(hub: Hub, admin: Actor) -> None:
    task, other = (hub.create_task(admin, name, ["h", "c", "d"]) for name in ("one", "two"))
    made = hub.invite(admin, task.id, "c", url="https://hub.example")
    party = invited(hub, made)
    told = Invitation.parse(made.invitation)

    assert (told.task, told.party, told.parties, told.name, told.hub) == (
        *(task.id, "c", ("h", "c", "d"), "one", "https://hub.example"),
    )
    assert told.expires == made.expires_at
    assert [each.id for each in hub.tasks(party)] == [task.id]
    assert hub.set_party(party, task.id, "c", role="collaborator").party("c").role == "collaborator"
    for deed in (
        lambda: hub.set_party(party, task.id, "d", role="collaborator"),
        lambda: hub.task(party, other.id),
        lambda: hub.create_task(party, "mine", ["a", "b"]),
        lambda: hub.make_token(party, party.user),
        lambda: hub.invite(party, task.id, "d"),
    ):
        with pytest.raises(NotAllowed):
            deed()


def test_an_invitation_is_good_for_its_party_alone_also_where_its_user_is_another_one_too(
    hub: Hub, admin: Actor
) -> None:
    hub.make_user(admin, "bank", "party")
    task, other = (hub.create_task(admin, name, ["h", "c"]) for name in ("one", "two"))
    for each, key in ((task, "h"), (task, "c"), (other, "c")):
        hub.set_member(admin, each.id, key, "bank")
    party = invited(hub, hub.invite(admin, task.id, "c"))
    assert party.user == "bank"

    hub.set_party(party, task.id, "c", reason="mine")
    with pytest.raises(NotAllowed, match="bank may not change party h"):
        hub.set_party(party, task.id, "h", reason="mine too")
    with pytest.raises(NotAllowed, match="bank may not see task"):
        hub.task(party, other.id)
    assert [each.id for each in hub.tasks(party)] == [task.id]
    for each in (task, other):
        hub.start(admin, each.id)
    assert {(each.training_uuid, each.party) for each in hub.notifications(party)} == {(task.id, "c")}


def test_an_invitation_brings_the_hosts_key_where_it_is_known(hub: Hub, admin: Actor) -> None:
    task = hub.create_task(admin, "t", ["h", "c"])
    before = Invitation.parse(hub.invite(admin, task.id, "c").invitation)
    hub.set_party(admin, task.id, "h", role="host", public_key=KEY)
    after = Invitation.parse(hub.invite(admin, task.id, "c").invitation)
    own = Invitation.parse(hub.invite(admin, task.id, "h").invitation)

    assert (before.host, before.host_key) == (None, None)
    assert (after.host, after.host_key) == ("h", KEY.decode())
    assert (own.host, own.host_key) == (None, None)


def test_an_invitation_does_not_show_its_token_where_it_is_printed_by_accident(hub: Hub, admin: Actor) -> None:
    made = hub.invite(admin, hub.create_task(admin, "t", ["h", "c"]).id, "c")

    assert made.invitation not in repr(made)
    assert hub.make_token(admin, "owner").token not in repr(hub.make_token(admin, "owner"))


def test_nobody_can_make_the_user_that_an_invited_party_will_be(hub: Hub, admin: Actor) -> None:
    """Or a party of a task could take another party's place before that one is invited."""
    owner = actor(hub, admin, "eve", "owner")
    task = hub.create_task(admin, "t", ["h", "c"])
    name = invited(hub, hub.invite(admin, task.id, "c")).user

    with pytest.raises(ConfigError, match="the name of a user is wrong"):
        hub.make_user(owner, name.replace("/c", "/h"), "party")


def test_nobody_is_invited_to_a_task_that_is_over(hub: Hub, admin: Actor) -> None:
    task = hub.create_task(admin, "t", ["h", "c"])
    hub.cancel(admin, task.id, "wrong table")

    with pytest.raises(ConfigError, match="is CANCELLED: wrong table; expected a task that parties can still come in"):
        hub.invite(admin, task.id, "c")


def test_a_party_that_is_removed_is_out_with_all_its_invitations(hub: Hub, admin: Actor) -> None:
    task = hub.create_task(admin, "t", ["h", "c"])
    lines = [hub.invite(admin, task.id, "c") for _ in range(2)]
    parties = [invited(hub, each) for each in lines]
    assert parties[0].user == parties[1].user

    hub.remove_member(admin, task.id, "c")

    for each in lines:
        with pytest.raises(NotAllowed, match="this token was revoked"):
            invited(hub, each)
    assert invited(hub, hub.invite(admin, task.id, "c")).party == "c"


def test_who_creates_a_task_speaks_for_its_parties_until_somebody_is_one(hub: Hub, admin: Actor) -> None:
    task = hub.create_task(admin, "t", ["h", "c"])
    hub.set_party(admin, task.id, "c", reason="mine still")
    hub.invite(admin, task.id, "c")

    with pytest.raises(NotAllowed, match=r"owner may not change party c of task .*; expected that party itself"):
        hub.set_party(admin, task.id, "c", reason="no more")
    hub.set_party(admin, task.id, "h", reason="this one is")


def test_an_owner_sees_and_does_nothing_in_another_owners_task(hub: Hub, admin: Actor) -> None:
    first, second = (actor(hub, admin, name, "owner") for name in ("ann", "bob"))
    task = hub.create_task(first, "t", ["h", "c"])

    assert hub.tasks(second) == ()
    assert [each.id for each in hub.tasks(admin)] == [task.id]
    for deed in ("see", "start", "cancel", "invite", "choose the members of"):
        assert hub.may(first, deed, task.id)
        assert not hub.may(second, deed, task.id)
    with pytest.raises(NotAllowed, match="bob may not see task"):
        hub.task(second, task.id)


def test_a_viewer_sees_a_task_and_changes_nothing_whatever_the_task_says_it_is(hub: Hub, admin: Actor) -> None:
    viewer = actor(hub, admin, "vera", "viewer")
    task = hub.create_task(admin, "t", ["h", "c"])
    assert hub.tasks(viewer) == ()
    hub.add_viewer(admin, task.id, "vera")
    hub.add_viewer(admin, task.id, "vera")

    assert [each.id for each in hub.tasks(viewer)] == [task.id]
    assert len(hub.members(admin, task.id)) == 2
    with pytest.raises(ConfigError, match="vera is a viewer and only reads"):
        hub.set_member(admin, task.id, "c", "vera")
    with pytest.raises(NotAllowed):
        hub.cancel(viewer, task.id)


def test_a_token_may_do_less_than_its_user_and_never_more(hub: Hub, admin: Actor) -> None:
    task = hub.create_task(admin, "t", ["h", "c"])
    reader = hub.authenticate(hub.make_token(admin, "owner", role="viewer").token)

    assert hub.task(reader, task.id).id == task.id
    assert not reader.admin
    for deed in (
        lambda: hub.cancel(reader, task.id),
        lambda: hub.create_task(reader, "u", ["h", "c"]),
        lambda: hub.make_token(reader, "owner"),
        lambda: hub.make_token(reader, "owner", role="party"),
        lambda: hub.audit(reader),
    ):
        with pytest.raises(NotAllowed):
            deed()
    assert hub.make_token(reader, "owner", role="viewer").id
    hub.make_user(admin, "bank", "party")
    hub.set_member(admin, task.id, "c", "bank")
    with pytest.raises(NotAllowed, match="bank may not change party c"):
        reading = hub.authenticate(hub.make_token(admin, "bank", role="viewer").token)
        hub.set_party(reading, task.id, "c", reason="as a reader")
    with pytest.raises(ConfigError, match="bank is party and cannot have a token of role owner"):
        hub.make_token(admin, "bank", role="owner")


def test_an_owner_makes_parties_and_only_who_is_in_charge_makes_owners(hub: Hub, admin: Actor) -> None:
    ann, bob = (actor(hub, admin, name, "owner") for name in ("ann", "bob"))
    hub.make_user(ann, "bank", "party")

    assert hub.authenticate(hub.make_token(ann, "bank").token).role == "party"
    assert hub.make_token(admin, "bank").id
    with pytest.raises(NotAllowed, match="ann may not make owners"):
        hub.make_user(ann, "eve", "owner")
    with pytest.raises(NotAllowed, match="bob may not make tokens for that user"):
        hub.make_token(bob, "bank")
    with pytest.raises(NotAllowed, match="ann may not make tokens for that user"):
        hub.make_token(ann, "owner")
    bank = hub.authenticate(hub.make_token(ann, "bank").token)
    for name in ("ann", "nobody"):  # and it does not learn which of them is there
        with pytest.raises(NotAllowed, match="bank may not make tokens for that user"):
            hub.make_token(bank, name)


@pytest.mark.parametrize("name", ["", "a" * 101, "a b", "../x", "-a", "a\n", "owner"])
def test_a_user_needs_a_name_of_its_own_that_can_be_typed(hub: Hub, admin: Actor, name: str) -> None:
    with pytest.raises(ConfigError, match=r"the name of a user is wrong|there is a user 'owner' already"):
        hub.make_user(admin, name, "party")


@pytest.mark.parametrize("lives_for", [timedelta(), timedelta(days=-1), timedelta(days=3651)])
def test_a_token_lives_for_some_time_and_not_for_ever(hub: Hub, admin: Actor, lives_for: timedelta) -> None:
    with pytest.raises(ConfigError, match="the life of a token is wrong"):
        hub.make_token(admin, "owner", lives_for=lives_for)

    expires_at = hub.make_token(admin, "owner").expires_at
    assert expires_at is not None
    assert timedelta(days=89) < expires_at - datetime.now(timezone.utc) < timedelta(days=91)


def test_a_users_tokens_are_listed_without_themselves(hub: Hub, admin: Actor) -> None:
    made = hub.make_token(admin, "owner", label="laptop")
    hub.revoke_token(admin, made.id)
    hub.authenticate(hub.make_token(admin, "owner", label="desk").token)

    listed = {each.label: each for each in hub.tokens(admin, "owner")}

    now = datetime.now(timezone.utc)
    assert [listed[label].works(now) for label in ("laptop", "desk", "first start")] == [False, True, True]
    assert listed["desk"].last_used_at is not None
    assert listed["laptop"].last_used_at is None
    assert made.token not in repr(listed)


def test_a_session_ends_after_its_hours_and_not_after_the_token_behind_it(hub: Hub, admin: Actor) -> None:
    long = hub.login(hub.make_token(admin, "owner", lives_for=timedelta(days=2)).token)
    short = hub.login(hub.make_token(admin, "owner", lives_for=timedelta(minutes=5)).token)
    now = datetime.now(timezone.utc)

    assert long.expires_at is not None and short.expires_at is not None
    assert timedelta(minutes=59) < long.expires_at - now < timedelta(minutes=61)
    assert timedelta(minutes=4) < short.expires_at - now < timedelta(minutes=6)
    with pytest.raises(NotAllowed, match="does not know this token"):
        hub.login("hub_nothing")


def test_a_session_can_do_what_its_token_can(hub: Hub, admin: Actor) -> None:
    task = hub.create_task(admin, "t", ["h", "c"])
    token = Invitation.parse(hub.invite(admin, task.id, "c").invitation).token
    assert token is not None

    session = hub.authenticate(hub.login(token).token)

    assert (session.role, session.task_id, session.party) == ("party", task.id, "c")


def test_an_endpoint_needs_a_url_and_a_secret_of_some_length(hub: Hub, admin: Actor) -> None:
    assert (
        hub.set_endpoint(admin, "https://bank.example/hook", "s" * 16).message_endpoint == "https://bank.example/hook"
    )
    for url, secret in (
        ("ftp://bank.example", "s" * 16),
        ("https://bank.example", "s" * 15),
        ("https://b.example", None),
    ):
        with pytest.raises(ConfigError):
            hub.set_endpoint(admin, url, secret)
    assert hub.me(admin).message_endpoint == "https://bank.example/hook"
    assert hub.set_endpoint(admin, None, None).message_endpoint is None


def test_users_that_only_an_invitation_made_are_not_listed(hub: Hub, admin: Actor) -> None:
    hub.make_user(admin, "bank", "party")
    hub.invite(admin, hub.create_task(admin, "t", ["h", "c"]).id, "c")

    assert [each.name for each in hub.users(admin)] == ["bank", "owner"]


def test_a_partys_model_is_for_the_tasks_owner_and_its_party_and_its_tables_are_for_all(hub: Hub, admin: Actor) -> None:
    viewer = actor(hub, admin, "vera", "viewer")
    task = hub.create_task(admin, "t", ["h", "c"])
    hub.add_viewer(admin, task.id, "vera")
    host, other = (invited(hub, hub.invite(admin, task.id, key)) for key in ("h", "c"))
    for name in ("infer_model.pt", "model.zip", "report.zip", "scores.csv"):
        hub.put_output(host, task.id, "h", name, b"bytes")

    seen = {each.user: {file.name for file in hub.outputs(each, task.id)} for each in (admin, host, other, viewer)}

    everything = {"infer_model.pt", "model.zip", "report.zip", "scores.csv"}
    assert (seen["owner"], seen[host.user]) == (everything, everything)
    assert seen[other.user] == seen["vera"] == {"report.zip", "scores.csv"}
    assert hub.output(viewer, task.id, "h", "scores.csv") == b"bytes"
    for each in (other, viewer):
        with pytest.raises(NotAllowed, match=r"may not fetch a model of party h .*; expected its owner or that party"):
            hub.output(each, task.id, "h", "model.zip")


def test_the_audit_log_tells_who_did_what_from_where_and_who_was_refused(hub: Hub, admin: Actor) -> None:
    ann = actor(hub, admin, "ann", "owner")
    task = hub.create_task(admin, "t", ["h", "c"])
    hub.cancel(admin, task.id, "wrong table")
    with pytest.raises(NotAllowed):
        hub.cancel(ann.at("192.0.2.7"), task.id)
    entries = hub.audit(admin)

    assert [(each.user, each.action, each.address) for each in entries] == [
        ("(command line)", "make user", None),
        ("owner", "make user", "192.0.2.1"),
        ("(command line)", "make token", None),
        ("owner", "create", "192.0.2.1"),
        ("owner", "cancel", "192.0.2.1"),
        ("ann", "refused", "192.0.2.7"),
    ]
    assert entries[4].detail == "CANCELLED wrong table"
    assert hub.audit(admin, after=entries[3].number) == entries[4:]


def test_the_audit_log_holds_no_token(hub: Hub, admin: Actor) -> None:
    hub.login(hub.make_token(admin, "owner").token)
    made = hub.make_token(admin, "owner", label="x")
    hub.set_endpoint(admin, "https://bank.example/hook", "a secret of mine")
    hub.revoke_token(admin, made.id)

    text = repr(hub.audit(admin))

    assert made.token not in text
    assert "hub_" not in text
    assert "a secret of mine" not in text


def test_data_are_checked_by_parties_and_noted_as_verified_when_all_said_yes(hub: Hub, admin: Actor) -> None:
    """Item 60: True verifies, False says why."""
    task = hub.create_task(admin, "t", ["h", "c"])
    first, second = (invited(hub, hub.invite(admin, task.id, key)) for key in ("h", "c"))

    assert hub.verify(first, task.id, "h", True).status is TaskStatus.VERIFYING
    with pytest.raises(ConfigError, match="is not verified: c did not say yes"):
        hub.move(first, task.id, TaskStatus.VERIFIED)
    assert hub.verify(second, task.id, "c", False, "a column is missing").party("c").reason == "a column is missing"
    with pytest.raises(ConfigError, match="the data check of c said no: a column is missing"):
        hub.start(admin, task.id)
    assert hub.verify(second, task.id, "c", True).status is TaskStatus.VERIFIED

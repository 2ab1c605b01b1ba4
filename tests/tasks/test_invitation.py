from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterofed.errors import ConfigError
from heterofed.tasks import TrainerOptions
from heterofed.tasks.invitation import Invitation

HOST_KEY = "vVB0Ndqr?8fZ#Bp[0hXc1zB.i@8f3m@fZ$kH&J*u"
DIRECT = Invitation(
    task="abcdefghjkmn",
    party="shop",
    parties=("bank", "shop"),
    name="Kredit für alle",
    endpoint="tcp://host.example:7000",
    host="bank",
    host_key=HOST_KEY,
    expires=datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    rounds=5,
    options=TrainerOptions(skip_model_tests=True),
)
BY_HUB = Invitation(
    task="abcdefghjkmn",
    party="shop",
    parties=("bank", "shop"),
    hub="https://hub.example",
    token="secret-token",  # noqa: S106 - of nobody
)


def packed(**changes: object) -> str:
    """A line whose parts are right by form, and whose check fits."""
    form = {"task": "abcdefghjkmn", "party": "shop", "parties": ["bank", "shop"], "hub": "http://h:1", "token": "t"}
    content = json.dumps({name: value for name, value in {**form, **changes}.items() if value is not ...}).encode()
    return f"hf1.{base64.urlsafe_b64encode(content).decode().rstrip('=')}.{hashlib.sha256(content).hexdigest()[:6]}"


@pytest.mark.parametrize("invitation", [DIRECT, BY_HUB, replace(BY_HUB, host="bank", host_key=HOST_KEY)])
def test_a_line_says_what_the_invitation_says(invitation: Invitation) -> None:
    line = str(invitation)

    assert Invitation.parse(line) == invitation
    assert line.startswith("hf1.")
    assert line.isascii() and not set(line) & set(" '\"$`\\!&|;<>*?")  # nothing that a shell changes


def test_a_line_may_come_with_its_command_and_be_wrapped_by_a_mail() -> None:
    line = str(BY_HUB)
    assert Invitation.parse(f"  heterofed task join {line}\n") == BY_HUB
    assert Invitation.parse("\n> ".join((line[:50], line[50:])).replace("> ", "")) == BY_HUB


@given(st.integers(0, len(str(DIRECT)) - 1), st.sampled_from(["cut", "drop", "swap"]))
def test_a_line_that_was_cut_or_changed_is_refused(place: int, how: str) -> None:
    line = str(DIRECT)
    other = "A" if line[place] != "A" else "B"
    wrong = {
        "cut": line[:place],
        "drop": line[:place] + line[place + 1 :],
        "swap": line[:place] + other + line[place + 1 :],
    }
    with pytest.raises(ConfigError, match=r"the invitation cannot be used: .*`heterofed task invite` prints it"):
        Invitation.parse(wrong[how])


@pytest.mark.parametrize(
    "line", ["", "hello", "hf1.", "hf1..", "hf1.e30.44136f", "hf2.e30.44136f", "hf1." + "A" * 20_000]
)
def test_what_is_no_line_is_refused(line: str) -> None:
    with pytest.raises(ConfigError):
        Invitation.parse(line)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"task": "../etc"}, "a task id is wrong"),
        ({"task": ...}, "task is missing"),
        ({"party": "other"}, "a party that the task does not have"),
        ({"parties": "bank"}, "parties is str"),
        ({"parties": ["shop", 7]}, "feature_key is int"),
        ({"hub": "ftp://x"}, "the hub's URL is 'ftp://x'"),
        ({"hub": "http://u:p@h"}, "one with a password"),
        ({"token": "a b"}, "its token is none"),
        ({"token": ...}, "neither a hub with a token nor a host"),
        ({"endpoint": "tcp://h"}, "the endpoint 'tcp://h' is none that others can reach"),
        ({"endpoint": "tcp://0.0.0.0:7000"}, "none that others can reach"),
        ({"endpoint": "plain+tcp://127.0.0.1:7000"}, "none that others can reach"),
        ({"endpoint": "tcp://h:70000"}, "none that others can reach"),
        ({"host": "shop"}, "its host is not another party"),
        ({"host": "bank", "host_key": "short"}, "its public key is none"),
        ({"host_key": HOST_KEY}, "whose public key it brings"),
        ({"expires": "soon"}, "a time is none"),
        ({"rounds": 0}, "number of rounds is wrong"),
        ({"options": {"nonsense": True}}, "the options are wrong"),
    ],
)
def test_a_part_that_cannot_be_is_named(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Invitation.parse(packed(**changes))


def test_the_token_is_in_no_repr() -> None:
    assert "secret" not in repr(BY_HUB)

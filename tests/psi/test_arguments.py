"""What the caller gives: ids and settings."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import pytest

import psi
from psi.ids import check_ids


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], "the list of ids is empty"),
        ("abc", "one string"),
        (b"abc", "one string"),
        (["ann-1", "bob-1", "ann-1", "ann-1"], "of 4 ids 2 repeat another"),
        (["ann-1", "", "bob-1"], "of 3 ids 1 are empty"),
        (["ann-1", 7, None], "of 3 ids 2 are not text"),
        (["ann-1", "\ud800"], "of 2 ids 1 hold characters"),
        (["ann-1", "ann-1", "", 3], "of 4 ids 1 are not text, 1 are empty, 1 repeat another"),
    ],
)
def test_bad_ids_are_counted_and_never_shown(ids: Sequence[str], text: str) -> None:
    for role in (psi.Initiator, psi.Responder):
        with pytest.raises(psi.BadIds, match=text) as caught:
            role(ids, task="t", session=b"s")
        assert not any(name in str(caught.value) for name in ("ann-1", "bob-1", "\ud800"))


def test_subclasses_of_text_become_plain_text() -> None:
    class Colour(str, enum.Enum):
        RED = "red"

    checked = check_ids([Colour.RED, "blue"])
    assert checked == ["red", "blue"]
    assert [type(each) for each in checked] == [str, str]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"task": ""}, "task"),
        ({"task": 3}, "task"),
        ({"task": "\ud800"}, "task"),
        ({"session": b""}, "session"),
        ({"session": "text"}, "session"),
        ({"chunk": 0}, "chunk is 0"),
        ({"chunk": 16385}, "chunk is 16385"),
        ({"chunk": 1.5}, "chunk is 1.5"),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, Any], text: str) -> None:
    for role in (psi.Initiator, psi.Responder):
        with pytest.raises(psi.BadArgument, match=text):
            role(["a"], **{"task": "t", "session": b"s", **settings})


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"key_bits": 1024}, "key_bits is 1024"),
        ({"key_bits": 2047}, "key_bits is 2047"),
        ({"key_bits": 2052}, "key_bits is 2052"),
        ({"key_bits": 32768}, "key_bits is 32768"),
        ({"workers": 0}, "workers is 0"),
        ({"workers": 1.5}, "workers is 1.5"),
    ],
)
def test_settings_of_the_responder_that_cannot_work_are_named(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(psi.BadArgument, match=text):
        psi.Responder(["a"], task="t", session=b"s", **settings)


def test_the_public_names_are_sorted_and_there() -> None:
    assert list(psi.__all__) == sorted(psi.__all__)
    assert all(hasattr(psi, name) for name in psi.__all__)


def test_every_error_is_a_psi_error() -> None:
    from psi import errors

    named = [each for each in vars(errors).values() if isinstance(each, type)]
    assert all(issubclass(each, psi.PsiError) and each.__doc__ for each in named)
    assert {each.__name__ for each in named} <= set(psi.__all__)

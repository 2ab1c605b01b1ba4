"""What the caller gives: ids and settings."""

from __future__ import annotations

from typing import Any

import pytest

import psi
from tests.psi.helpers import initiator, responder

KEY = bytes(range(32))


def test_both_roles_refuse_ids_that_cannot_be_matched() -> None:
    ids: list[Any] = ["ann-1", "ann-1", "", 3]
    for role in (psi.Initiator, psi.Responder):
        with pytest.raises(psi.BadIds, match="of 4 ids 1 are not text, 1 are empty, 1 repeat another"):
            role(ids, task="t", session=b"s")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"task": ""}, "task"),
        ({"task": 3}, "task"),
        ({"task": "\ud800"}, "task"),
        ({"session": b""}, "session"),
        ({"session": "text"}, "session"),
        ({"chunk": 0}, "chunk is 0"),
        ({"chunk": -1}, "chunk is -1"),
        ({"chunk": 16385}, "chunk is 16385"),
        ({"chunk": 1.5}, "chunk is 1.5"),
        ({"workers": 0}, "workers is 0"),
        ({"workers": 1.5}, "workers is 1.5"),
        ({"executor": 3}, "the executor has no submit"),
        ({"protocol": "dsa"}, "protocol is 'dsa'; expected one of rsa, ecdh"),
        ({"protocol": None}, "protocol is None"),
        ({"reveal": "all"}, "reveal is 'all'; expected one of both, initiator, cardinality"),
        ({"reveal": None}, "reveal is None"),
        ({"reveal": "cardinality"}, "needs protocol='ecdh'"),
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
        ({"key_bits": 2048.0}, "key_bits is 2048.0"),
        ({"joint": KEY}, "no key"),
        ({"joint": "text"}, "no key"),
        ({"joint": [KEY[:31]]}, "no key"),
        ({"joint": [KEY + b"\0"]}, "no key"),
        ({"joint": ["x" * 32]}, "no key"),
        ({"joint": [KEY, psi.PairKey()]}, "no key"),
        ({"joint": True}, "no key"),
        ({"joint": False}, "no key"),
        ({"joint": [KEY, KEY]}, "a key twice"),
    ],
)
def test_settings_of_the_responder_that_cannot_work_are_named(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(psi.BadArgument, match=text) as caught:
        psi.Responder(["a"], task="t", session=b"s", **settings)
    assert "1f" not in str(caught.value).replace("\\x", "")  # no key material


def test_a_number_alone_is_for_two_parties() -> None:
    with pytest.raises(psi.BadArgument, match="is for two parties"):
        psi.Initiator(["a"], task="t", session=b"s", protocol="ecdh", reveal="cardinality", joint=True)
    with pytest.raises(psi.BadArgument, match="is for two parties"):
        psi.Responder(["a"], task="t", session=b"s", protocol="ecdh", reveal="cardinality", joint=[KEY])


@pytest.mark.parametrize(
    ("protocol", "names"), [("rsa", "multibuffer, openssl, gmpy2"), ("ecdh", "multibuffer, cryptography")]
)
def test_an_engine_that_does_not_exist_is_refused_by_the_constructor(protocol: str, names: str) -> None:
    for make in (initiator, responder):
        with pytest.raises(psi.BadArgument, match=rf"^engine is 'abacus'; expected one of {names}, or None"):
            make(["a"], protocol=protocol, engine="abacus")


def test_a_reveal_may_be_given_as_its_enum() -> None:
    left = psi.Initiator(["a"], task="t", session=b"s", reveal=psi.Reveal.INITIATOR)
    assert left.terms == psi.Terms("rsa", psi.Reveal.INITIATOR, False)
    assert str(left.terms) == "protocol='rsa', reveal='initiator', joint=False"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"protocol": "ecdh"}, {"protocol": "rsa"}),
        ({"protocol": "rsa"}, {"protocol": "ecdh"}),
        ({"reveal": "both"}, {"reveal": "initiator"}),
        ({"protocol": "ecdh", "reveal": "cardinality"}, {"protocol": "ecdh", "reveal": "initiator"}),
        ({"joint": True}, {"joint": False}),
        ({"joint": False}, {"joint": True}),
    ],
)
def test_parties_that_chose_different_terms_are_told_both(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    left, right = initiator(["a"], **ours), responder(["a"], **theirs)
    with pytest.raises(
        psi.BadMessage, match=r"the responder offers .*; expected .*Give both parties the same"
    ) as caught:
        left.receive(next(right.start()))
    assert str(left.terms) in str(caught.value) and str(right.terms) in str(caught.value)


def test_joining_takes_joint_runs_of_one_list_of_ids() -> None:
    left = initiator(["a"], joint=True)
    cases: list[tuple[list[psi.Initiator], str]] = [
        ([], "at least one"),
        ([initiator(["a"])], "only joint runs"),
        ([left, initiator(["a"])], "only joint runs"),
        ([left, initiator(["b"], joint=True)], "not of the same ids"),
        ([left, initiator(["a", "b"], joint=True)], "not of the same ids"),
    ]
    for runs, text in cases:
        with pytest.raises(psi.BadArgument, match=text):
            psi.join(runs)


def test_intersect_refuses_what_it_cannot_run() -> None:
    with pytest.raises(psi.BadArgument, match="protocol is 'dsa'"):
        psi.intersect(["a"], ["b"], protocol="dsa")
    with pytest.raises(psi.BadArgument, match="key_bits is 1024"):
        psi.intersect(["a"], ["b"], key_bits=1024)
    with pytest.raises(psi.BadIds, match="one string"):
        psi.intersect(["a"], "b")


def test_the_public_names_are_there_each_once() -> None:
    assert len(set(psi.__all__)) == len(psi.__all__)
    assert all(hasattr(psi, name) for name in psi.__all__)


def test_every_error_is_a_psi_error() -> None:
    from psi import errors

    named = [each for each in vars(errors).values() if isinstance(each, type)]
    assert all(issubclass(each, psi.PsiError) and each.__doc__ for each in named)
    assert {each.__name__ for each in named} <= set(psi.__all__)

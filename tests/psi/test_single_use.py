"""Each object is for one run, each run for one order of calls."""

from __future__ import annotations

from typing import Any

import pytest

import psi
from tests.psi.helpers import answers, asked, initiator, key, matched, responder


def test_a_second_start_is_refused() -> None:
    right = responder(["a"])
    list(right.start())
    with pytest.raises(psi.UsedTwice, match="started before"):
        right.start()


def test_a_second_reveal_is_refused_and_the_result_stays() -> None:
    left, right = matched(["a", "b"], ["b"])
    answers(right, left.reveal(["b"]))
    with pytest.raises(psi.UsedTwice, match="revealed its ids already"):
        left.reveal([])
    assert left.intersection == ["b"]


def test_a_message_after_the_end_is_refused_and_the_result_stays() -> None:
    left, right = matched(["a", "b"], ["b"])
    reveal = list(left.reveal(["b"]))
    answers(right, reveal)
    for run in (left, right):
        with pytest.raises(psi.BadMessage, match="after the end"):
            run.receive(reveal[0])
        assert run.finished and run.intersection == ["b"]


def test_results_asked_for_too_early_are_refused_and_the_run_goes_on() -> None:
    left, right = initiator(["a"]), responder(["a"])
    with pytest.raises(psi.NotYet, match="waiting for the key offer"):
        _ = left.intersection
    with pytest.raises(psi.NotYet, match="not started"):
        _ = right.intersection
    with pytest.raises(psi.NotYet, match="nothing can be revealed"):
        left.reveal([])
    answers(left, answers(right, answers(left, right.start())))
    with pytest.raises(psi.NotYet, match="waiting for the reveal"):
        _ = right.intersection
    assert left.intersection == ["a"]


def test_a_reveal_of_ids_that_are_not_shared_is_refused_and_reveals_nothing() -> None:
    left, right = matched(["ann-1", "bob-1"], ["bob-1", "eve-1"])
    wrong: list[Any] = [["bob-1", "ann-1"], ["bob-1", "eve-1"], ["bob-1", "bob-1"], [None], [[]], "bob-1"]
    for ids in wrong:
        with pytest.raises(psi.BadIds) as caught:
            left.reveal(ids)
        assert not any(name in str(caught.value) for name in ("ann-1", "bob-1", "eve-1"))
    answers(right, left.reveal(["bob-1"]))
    assert right.intersection == ["bob-1"]


def test_a_run_that_failed_takes_and_gives_nothing_more() -> None:
    left, right, chunks = asked(["a"], ["a"])
    replies = right.receive(chunks[0])
    with pytest.raises(psi.BadMessage):
        right.receive(b"garbage")
    with pytest.raises(psi.UsedTwice, match="failed earlier"):
        next(replies)
    with pytest.raises(psi.UsedTwice, match="failed earlier"):
        right.receive(chunks[0])
    with pytest.raises(psi.BadMessage):
        left.receive(b"garbage")
    with pytest.raises(psi.UsedTwice, match="failed earlier"):
        left.reveal([])
    assert not left.finished and not right.finished


def test_answers_taken_out_of_order_are_refused() -> None:
    _, right, chunks = asked([str(i) for i in range(8)], ["a"])
    first, second = (right.receive(chunk) for chunk in chunks)
    with pytest.raises(psi.UsedTwice, match="out of order"):
        next(second)
    assert next(first)


def test_secrets_are_dropped_at_the_end_of_a_run() -> None:
    left, right = matched(["a", "b"], ["b", "c"])
    assert right._key is None and left._pending is None and left._own_tags is None
    answers(right, left.reveal(["b"]))
    assert right._own_tags is None and left._shared is None


def test_secrets_are_dropped_when_a_run_fails() -> None:
    left, right, _ = asked(["a", "b"], ["b", "c"])
    for run in (left, right):
        with pytest.raises(psi.BadMessage):
            run.receive(b"garbage")
    assert right._key is None and right._own_tags is None
    assert left._pending is None and left._own_tags is None


def test_a_private_key_does_not_show_itself() -> None:
    assert str(int(key().p)) not in repr(key()) and "d_p" not in repr(key())

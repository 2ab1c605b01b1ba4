"""Each object is for one run, each run for one order of calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import psi
from psi.oprf import PROTOCOLS
from tests.psi.helpers import (
    SESSION,
    Seeded,
    answers,
    asked,
    carry,
    finish,
    holder,
    initiator,
    key,
    matched,
    responder,
    revealed,
)

TERMS = [("rsa", "both"), ("rsa", "initiator"), ("ecdh", "both"), ("ecdh", "cardinality")]


def test_a_second_start_is_refused() -> None:
    right = responder(["a"])
    list(right.start())
    with pytest.raises(psi.UsedTwice, match="started before"):
        right.start()


@pytest.mark.parametrize(("protocol", "reveal"), TERMS)
def test_a_second_reveal_is_refused_and_the_run_goes_on(protocol: str, reveal: str) -> None:
    left, right, said = revealed(["a", "b"], ["b"], protocol=protocol, reveal=reveal)
    with pytest.raises(psi.UsedTwice, match="revealed its result already"):
        left.reveal()
    answers(left, answers(right, said))
    with pytest.raises(psi.UsedTwice, match="revealed its result already"):
        left.reveal()
    assert left.finished and right.finished and left.cardinality == 1


@pytest.mark.parametrize(("protocol", "reveal"), TERMS)
def test_a_message_after_the_end_is_refused_and_the_result_stays(protocol: str, reveal: str) -> None:
    left, right, said = revealed(["a", "b"], ["b"], protocol=protocol, reveal=reveal)
    last = answers(right, said)
    answers(left, last)
    for run, messages in ((left, last), (right, said)):
        for message in messages:
            with pytest.raises(psi.BadMessage, match=r"after the end|while this run is finished; expected"):
                run.receive(message)
        assert run.finished
    assert left.cardinality == 1
    if reveal != "initiator":
        assert right.cardinality == 1


def test_an_offer_to_a_run_that_has_one_is_refused() -> None:
    left, right = initiator(["a"]), responder(["a"])
    offer = next(right.start())
    left.receive(offer)
    with pytest.raises(psi.BadMessage, match="kind offer while this run is exchanging"):
        left.receive(offer)


def test_results_asked_for_too_early_are_refused_and_the_run_goes_on() -> None:
    left, right = initiator(["a"]), responder(["a"])
    for name in ("intersection", "cardinality"):
        with pytest.raises(psi.NotYet, match="waiting for the offer"):
            getattr(left, name)
        with pytest.raises(psi.NotYet, match="not started"):
            getattr(right, name)
    with pytest.raises(psi.NotYet, match="nothing can be revealed"):
        left.reveal([])
    offer = next(right.start())
    questions = list(left.receive(offer))
    with pytest.raises(psi.NotYet, match="exchanging blinded ids"):
        _ = left.intersection
    with pytest.raises(psi.NotYet, match="nothing can be revealed"):
        left.reveal()
    answers(left, answers(right, questions))
    for name in ("intersection", "cardinality"):
        with pytest.raises(psi.NotYet, match="waiting for the reveal"):
            getattr(right, name)
    assert left.intersection == ["a"]


def test_a_run_is_finished_only_once_the_responder_has_confirmed() -> None:
    left, right, said = revealed(["a"], ["a"])
    assert left.matched and not left.finished and not right.finished
    last = answers(right, said[:-1])
    assert last == [] and not right.finished  # the reveal alone is not the end
    last = answers(right, said[-1:])
    assert right.finished and not left.finished
    assert answers(left, last) == [] and left.finished


def test_a_responder_that_was_not_started_takes_no_message() -> None:
    right = responder(["a"])
    _, _, questions = asked(["a"], ["a"])
    with pytest.raises(psi.BadMessage, match="not started; expected nothing more"):
        right.receive(questions[0])


def test_joint_runs_are_brought_together_before_anything_is_known() -> None:
    left, right = matched(["a", "b"], ["b"], joint=True)
    assert left.matched
    for name in ("intersection", "cardinality"):
        with pytest.raises(psi.NotYet, match="join"):
            getattr(left, name)
    with pytest.raises(psi.NotYet, match=r"psi\.join first"):
        left.reveal()
    early = initiator(["a", "b"], joint=True)
    with pytest.raises(psi.NotYet, match="no shares"):
        psi.join([left, early])
    with pytest.raises(psi.NotYet, match="join"):
        _ = left.intersection  # the failed attempt settled nothing
    psi.join([left])  # under the pair key that nobody else has, nothing cancels
    assert left.intersection == []
    finish(left, right)
    assert right.intersection == []
    with pytest.raises(psi.NotYet, match="no shares"):
        psi.join([left])


def test_a_reveal_of_ids_that_are_not_shared_is_refused_and_reveals_nothing() -> None:
    left, right = matched(["ann-1", "bob-1"], ["bob-1", "eve-1"])
    wrong: list[Any] = [["bob-1", "ann-1"], ["bob-1", "eve-1"], ["bob-1", "bob-1"], [None], [[]], "bob-1", b"bob-1"]
    for ids in wrong:
        with pytest.raises(psi.BadIds) as caught:
            left.reveal(ids)
        assert not any(name in str(caught.value) for name in ("ann-1", "bob-1", "eve-1"))
    finish(left, right, ["bob-1"])
    assert right.intersection == ["bob-1"]


@pytest.mark.parametrize(("protocol", "reveal"), [("rsa", "initiator"), ("ecdh", "cardinality")])
def test_terms_that_reveal_no_ids_take_none(protocol: str, reveal: str) -> None:
    left, right = matched(["a"], ["a"], protocol=protocol, reveal=reveal)
    for ids in (["a"], []):
        with pytest.raises(psi.BadArgument, match="reveal no ids"):
            left.reveal(ids)
    finish(left, right)
    assert left.finished and right.finished


def test_a_run_that_failed_takes_and_gives_nothing_more() -> None:
    left, right, questions = asked(["a"], ["a"])
    replies = right.receive(questions[0])
    with pytest.raises(psi.BadMessage):
        right.receive(b"garbage")
    assert list(replies) == []  # its answers were dropped with the key
    calls: list[Callable[[], object]] = [right.start, right.advance, lambda: right.receive(questions[0])]
    for call in calls:
        with pytest.raises(psi.UsedTwice, match=r"failed earlier|started before"):
            call()
    with pytest.raises(psi.BadMessage):
        left.receive(b"garbage")
    calls = [left.reveal, left.resume, lambda: left.receive(b"")]
    for call in calls:
        with pytest.raises(psi.UsedTwice, match="failed earlier"):
            call()
    assert not left.finished and not right.finished
    assert not right.busy


def test_answers_begun_before_a_failure_end_there() -> None:
    left, right, questions = asked([str(i) for i in range(12)], [str(i) for i in range(9)])
    replies = right.receive(questions[0])
    assert next(replies)
    waiting = right.receive(questions[1])
    with pytest.raises(psi.BadMessage):
        right.receive(b"garbage")
    assert list(replies) == list(waiting) == []
    blinding = initiator([str(i) for i in range(12)])
    more = blinding.receive(next(responder(["a"]).start()))
    assert next(more)
    with pytest.raises(psi.BadMessage):
        blinding.receive(b"garbage")
    assert list(more) == []
    assert not left.finished


@pytest.mark.parametrize(("protocol", "reveal"), TERMS)
def test_a_run_that_failed_has_no_result(protocol: str, reveal: str) -> None:
    for at_the_end in (False, True):
        left, right, said = revealed(["a", "b"], ["b"], protocol=protocol, reveal=reveal)
        assert left.cardinality == 1
        if at_the_end:
            last = answers(right, said)[-1]
            with pytest.raises(psi.ResultMismatch):
                left.receive(last[:-1] + bytes([last[-1] ^ 1]))
        else:
            _fail(left, b"garbage")
            with pytest.raises(psi.ResultMismatch):
                answers(right, [*said[:-1], said[-1][:-1] + bytes([said[-1][-1] ^ 1])])
        for run in (left, right)[: 1 if at_the_end else 2]:
            for name in ("intersection", "cardinality"):
                with pytest.raises(psi.NotYet, match="no result: this run failed"):
                    getattr(run, name)


def test_a_confirmed_number_that_was_changed_on_the_way_is_noticed() -> None:
    for at_the_end in (False, True):
        left, right, said = revealed(["a", "b"], ["b"])
        assert said[-1][19:27] == bytes(7) + b"\1"
        if not at_the_end:
            with pytest.raises(psi.ResultMismatch):
                answers(right, [*said[:-1], said[-1][:26] + b"\2" + said[-1][27:]])
            continue
        last = answers(right, said)[-1]
        with pytest.raises(psi.ResultMismatch):
            left.receive(last[:26] + b"\2" + last[27:])


def _broken(_: Any) -> Any:
    raise psi.ComputeFault("broken")


def _no_randomness(_: int) -> bytes:
    raise OSError("no randomness")


def test_a_fault_of_our_own_ends_the_run_too(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right, questions = asked(["a"], ["a", "b"])
    assert right._answers is not None
    monkeypatch.setattr(right._answers, "compute", lambda: _broken(0))
    with pytest.raises(psi.ComputeFault):
        list(right.receive(questions[0]))
    with pytest.raises(psi.UsedTwice):
        right.receive(questions[0])
    assert right._own is None and right._answers is None
    without = psi.Responder(["a"], task="t", session=b"s", protocol="ecdh", workers=1, _entropy=_no_randomness)
    with pytest.raises(OSError, match="no randomness"):
        without.start()
    with pytest.raises(psi.UsedTwice):
        without.start()
    assert left.peer_count == 2


@pytest.mark.parametrize(("protocol", "reveal"), TERMS)
def test_secrets_are_dropped_at_the_end_of_a_run(protocol: str, reveal: str) -> None:
    left, right = matched(["a", "b"], ["b", "c"], protocol=protocol, reveal=reveal)
    # the key goes as soon as everything is answered, before the initiator says what is shared
    assert right._given_key is None
    assert right._answers is not None and right._answers._holder is None
    assert right._own is not None and right._own._holder is None
    finish(left, right)
    assert _held(left) == _held(right) == []
    assert left._closing is None


def test_the_key_is_dropped_though_the_tags_were_told_first() -> None:
    left, right = initiator(["a"], protocol="ecdh"), responder(["a"], protocol="ecdh")
    offer = next(right.start())
    tags = list(right.advance())
    assert not right.busy
    carry(left, right, [offer, *tags])
    assert left.matched
    assert right._answers is not None and right._answers._holder is None


def _held(run: psi.Initiator | psi.Responder) -> list[str]:
    """Names of what a run still has that it must not have after its end."""
    names = ("_asker", "_questions", "_shares", "_items_seen", "_given_key", "_answers", "_shuffled", "_own")
    held = [name for name in names if getattr(run, name, None) is not None]
    held += [name for name in ("_items", "_revealed") if getattr(run, name, None)]
    return held + ["workers"] * (run._workers._own is not None)


STOPS: list[Callable[[psi.Initiator | psi.Responder], None]] = [
    lambda run: run.close(),
    lambda run: _fail(run, b"garbage"),
]


def _fail(run: psi.Initiator | psi.Responder, message: bytes) -> None:
    with pytest.raises(psi.BadMessage):
        run.receive(message)


@pytest.mark.parametrize("stop", STOPS, ids=["closed", "failed"])
@pytest.mark.parametrize(("protocol", "reveal"), TERMS)
def test_secrets_are_dropped_wherever_a_run_is_given_up(
    protocol: str, reveal: str, stop: Callable[[psi.Initiator | psi.Responder], None]
) -> None:
    stages = (
        (initiator(["a"], protocol=protocol, reveal=reveal), responder(["b"], protocol=protocol, reveal=reveal)),
        asked(["a", "b"], ["b", "c"], protocol=protocol, reveal=reveal)[:2],
        matched(["a", "b"], ["b", "c"], protocol=protocol, reveal=reveal),
        revealed(["a", "b"], ["b", "c"], protocol=protocol, reveal=reveal)[:2],
    )
    for stage in stages:
        for run in stage:
            stop(run)
            assert _held(run) == [] and not run.finished
            with pytest.raises(psi.UsedTwice):
                run.receive(b"anything")


def test_closing_a_finished_run_keeps_its_result() -> None:
    left, right = matched(["a", "b"], ["b"])
    finish(left, right)
    for run in (left, right):
        run.close()
        run.close()
        assert run.finished and run.intersection == ["b"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_secrets_do_not_show_themselves(protocol: str) -> None:
    shown = repr(key()) + repr(holder(protocol))
    assert not any(str(each) in shown for each in (key().p, key().q, key().d_p, key().d_q, key().q_inverse))
    left, right = initiator(["ann-1"], protocol=protocol), responder(["ann-1"], protocol=protocol)
    carry(left, right, right.start())
    for run in (left, right):
        assert "ann-1" not in repr(run)
    if protocol == "ecdh":
        scalar = getattr(holder(protocol), "scalar")  # noqa: B009  # the interface of both protocols has no scalar
        assert repr(scalar) not in shown
        again = psi.Initiator(
            ["a"], task="task-7", session=SESSION, protocol=protocol, workers=1, _entropy=Seeded(b"x")
        )
        again.receive(next(responder(["a"], protocol=protocol).start()))
        assert again._asker is not None and "scalar" not in repr(again._asker) and "spot" not in repr(again._asker)

"""What a dishonest or broken initiator may send; each is refused, ends the run and gives nothing away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from gmpy2 import mpz

import psi
from psi.messages import Kind, Side, write_chunk
from tests.psi.helpers import (
    SESSION,
    TASK,
    answers,
    asked,
    blinded,
    key,
    matched,
    responder,
    run_of,
    started,
    tag_of,
    units_near,
)

N = key().public.n


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (mpz(0), "out of range"),
        (mpz(1), "out of range"),
        (N - 1, "out of range"),
        (N, "out of range"),
        (N + 5, "out of range"),
        (key().p, "shares a factor"),
        (key().q * 12345, "shares a factor"),
    ],
    ids=["zero", "one", "minus one", "n", "above n", "p", "multiple of q"],
)
def test_a_number_outside_the_group_is_refused(value: mpz, fault: str) -> None:
    right, run = started(["a"])
    with pytest.raises(psi.BadElement, match=rf"element 1 of the peer .*{fault}"):
        right.receive(blinded(run, [5, value]))
    with pytest.raises(psi.UsedTwice):
        right.receive(blinded(run, [5, 7]))
    assert right._key is None


@pytest.mark.parametrize("value", [2, N - 2], ids=["two", "minus two"])
def test_the_outermost_numbers_of_the_group_are_taken(value: int) -> None:
    right, run = started(["a"])
    assert len(answers(right, [blinded(run, [value])])) == 2


def test_an_element_repeated_in_one_message_is_refused() -> None:
    right, run = started(["a"])
    with pytest.raises(psi.BadElement, match="came before"):
        right.receive(blinded(run, [5, 6, 5]))


def test_an_element_repeated_in_a_later_message_is_refused() -> None:
    right, run = started(["a"])
    answers(right, [blinded(run, [5, 6], total=4)])
    with pytest.raises(psi.BadElement, match="element 2 of the peer came before"):
        right.receive(blinded(run, [5, 7], position=2, total=4))


def test_more_elements_than_declared_are_refused() -> None:
    right, run = started(["a"])
    with pytest.raises(psi.BadMessage, match="3 of the blinded items; expected 1 to 2"):
        right.receive(blinded(run, [5, 6, 7], total=2))


def test_elements_after_the_declared_number_are_refused() -> None:
    right, run = started(["a"])
    answers(right, [blinded(run, [5, 6])])
    with pytest.raises(psi.BadMessage, match="expected only a reveal message"):
        right.receive(blinded(run, [7], position=2, total=3))


def test_a_declaration_that_grows_is_refused() -> None:
    """Otherwise an initiator could ask one more question each time, for ever."""
    right, run = started(["a"])
    answers(right, [blinded(run, [5], total=2)])
    with pytest.raises(psi.BadMessage, match="second declaration of 3"):
        right.receive(blinded(run, [6], position=1, total=3))


@pytest.mark.parametrize("total", [0, 10**10 + 1, 2**64 - 1])
def test_an_impossible_declaration_is_refused(total: int) -> None:
    right, run = started(["a"])
    with pytest.raises(psi.BadMessage, match=f"declaration of {total}"):
        right.receive(blinded(run, [5], total=total))


def test_a_message_without_elements_is_refused() -> None:
    right, run = started(["a"])
    with pytest.raises(psi.BadMessage, match="a message of 0"):
        right.receive(blinded(run, [], total=2))


def test_a_reveal_before_all_elements_came_is_refused() -> None:
    right, run = started(["a"])
    answers(right, [blinded(run, [5], total=2)])
    with pytest.raises(psi.BadMessage, match="signing the initiator's ids; expected only a blinded message"):
        right.receive(write_chunk(Side.INITIATOR, Kind.REVEAL, run, 0, 0, b""))


def test_a_replayed_message_is_refused() -> None:
    right, run = started(["a"])
    message = blinded(run, [5, 6], total=4)
    answers(right, [message])
    with pytest.raises(psi.BadMessage, match="from position 0 came; expected position 2"):
        right.receive(message)


def test_messages_in_the_wrong_order_are_refused() -> None:
    _, right, chunks = asked([str(i) for i in range(8)], ["a"])
    with pytest.raises(psi.BadMessage, match="from position 4 came; expected position 0"):
        right.receive(chunks[1])


def test_a_message_of_an_earlier_run_is_refused() -> None:
    """The fresh nonce of the key offer tells two runs of one session apart."""
    _, _, chunks = asked(["a", "b"], ["a"])
    right = psi.Responder(["a"], task=TASK, session=SESSION, workers=1, _key=key())
    next(right.start())
    with pytest.raises(psi.BadMessage, match="another run"):
        right.receive(chunks[0])


def test_a_message_before_the_start_is_refused() -> None:
    _, _, chunks = asked(["a"], ["a"])
    with pytest.raises(psi.BadMessage, match="not started; expected nothing more"):
        responder(["a"]).receive(chunks[0])


def test_a_message_reflected_to_the_responder_is_refused() -> None:
    _, right, chunks = asked(["a"], ["a"])
    replies = answers(right, chunks)
    for own in replies:
        _, fresh, _ = asked(["a"], ["a"])
        with pytest.raises(psi.WrongRole, match="a message of the responder came to the responder"):
            fresh.receive(own)


def _forged(run: bytes, tags: list[bytes]) -> bytes:
    return write_chunk(Side.INITIATOR, Kind.REVEAL, run, 0, len(tags), b"".join(tags))


@pytest.mark.parametrize(
    ("tags", "fault"),
    [
        (lambda: [tag_of("a"), b"\xff" * 16], "not one of ours"),
        (lambda: [tag_of("nobody")], "not one of ours"),
        (lambda: [tag_of("a")] * 2, "repeated or out of order"),
        (lambda: sorted([tag_of("a"), tag_of("b")], reverse=True), "repeated or out of order"),
        (lambda: [bytes([i]) * 16 for i in range(3)], "declaration of 3"),
    ],
    ids=["made up", "of an id we lack", "repeated", "not ascending", "more than either has"],
)
def test_a_forged_reveal_is_refused(tags: Callable[[], list[bytes]], fault: str) -> None:
    left, right = matched(["a", "b"], ["a", "b", "c"])
    run = run_of(next(left.reveal([])))
    with pytest.raises(psi.BadMessage, match=fault):
        right.receive(_forged(run, tags()))
    with pytest.raises(psi.NotYet):
        _ = right.intersection


def test_a_tag_repeated_across_reveal_messages_is_refused() -> None:
    left, right = matched(["a", "b"], ["a", "b", "c"])
    run, tag = run_of(next(left.reveal([]))), tag_of("a")
    right.receive(write_chunk(Side.INITIATOR, Kind.REVEAL, run, 0, 2, tag))
    assert not right.finished
    with pytest.raises(psi.BadMessage, match="repeated or out of order"):
        right.receive(write_chunk(Side.INITIATOR, Kind.REVEAL, run, 1, 2, tag))


def test_a_half_computed_answer_never_leaves_with_a_wrong_power() -> None:
    """A computing fault in one half of the remainder theorem would give p away: gcd(s^e - y, n) = p."""
    broken = replace(key(), d_q=key().d_q + 2)
    with pytest.raises(psi.ComputeFault, match="was not sent"):
        broken.power(mpz(5))


def test_many_honest_elements_are_taken() -> None:
    right, run = started(["a"])
    values = list(units_near(key().public, 1000, 20))
    assert len(answers(right, [blinded(run, values)])) == 2

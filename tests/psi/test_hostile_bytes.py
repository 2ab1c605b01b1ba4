"""Whatever bytes come, a run either takes them or raises a PsiError, never anything else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import psi
from psi.messages import MAX_MESSAGE_BYTES
from tests.psi.helpers import answers, asked, initiator, matched, responder, started


def _feed(run: psi.Initiator | psi.Responder, message: bytes) -> None:
    try:
        answers(run, [message])
    except psi.PsiError as error:
        assert len(str(error)) < 400


@settings(max_examples=60, deadline=None)
@given(message=st.binary(max_size=200), side=st.sampled_from([b"I", b"R", b""]), kind=st.integers(0, 7))
def test_garbage_raises_only_psi_errors(message: bytes, side: bytes, kind: int) -> None:
    for body in (message, side + bytes([kind]) + message):
        _feed(initiator(["a"]), body)
        _feed(started(["a"])[0], body)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_changed_message_raises_only_psi_errors(data: st.DataObject) -> None:
    left, right = initiator(["a", "b"]), responder(["b", "c"])
    offer = next(right.start())
    chunks = answers(left, [offer])
    replies = answers(right, chunks)
    message = data.draw(st.sampled_from([offer, *chunks, *replies]))
    position = data.draw(st.integers(0, len(message) - 1))
    changed = bytearray(message)
    changed[position] ^= data.draw(st.integers(1, 255))
    if message is offer:
        _feed(initiator(["a", "b"]), bytes(changed))
    elif message in chunks:
        _feed(asked(["a", "b"], ["b", "c"])[1], bytes(changed))
    else:
        fresh = asked(["a", "b"], ["b", "c"])[0]
        for reply in replies[: replies.index(message)]:
            fresh.receive(reply)
        _feed(fresh, bytes(changed))


def test_a_key_offer_cut_anywhere_is_refused() -> None:
    offer = next(responder(["a"]).start())
    for size in [*range(80), *range(80, len(offer), 61), len(offer) - 1]:
        with pytest.raises(psi.BadMessage):
            initiator(["a"]).receive(offer[:size])
    with pytest.raises(psi.BadMessage):
        initiator(["a"]).receive(offer + b"\0")


def test_blinded_ids_cut_anywhere_are_refused() -> None:
    _, _, chunks = asked(["a", "b"], ["c"])
    for size in [*range(36), *range(36, len(chunks[0]), 41), len(chunks[0]) - 1]:
        right, _ = started(["c"])
        if (size - 34) % 256 == 0 and size > 34:
            assert list(right.receive(chunks[0][:size]))  # one whole element of two: more may follow
            continue
        with pytest.raises(psi.BadMessage):
            right.receive(chunks[0][:size])


def test_tags_and_reveals_cut_inside_a_tag_are_refused() -> None:
    left, right, chunks = asked(["a"], ["a", "b"])
    *signed, tags = answers(right, chunks)
    answers(left, signed)
    with pytest.raises(psi.BadMessage, match="cut or too long"):
        left.receive(tags[:-1])
    left, right = matched(["a"], ["a", "b"])
    reveal = next(left.reveal(["a"]))
    with pytest.raises(psi.BadMessage, match="cut or too long"):
        right.receive(reveal[:-1])


def test_a_message_that_is_too_long_is_refused_unread() -> None:
    with pytest.raises(psi.BadMessage, match=f"expected 18 to {MAX_MESSAGE_BYTES}"):
        initiator(["a"]).receive(b"R\x01" + bytes(MAX_MESSAGE_BYTES))


def test_a_message_that_is_not_bytes_is_refused() -> None:
    for thing in ("text", None, 7, bytearray(b"R\x01"), [b"R"]):
        with pytest.raises(psi.BadMessage, match="not bytes"):
            initiator(["a"]).receive(thing)  # type: ignore[arg-type]  # what a careless caller hands over

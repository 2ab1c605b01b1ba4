"""Whatever bytes come: a run takes them or refuses them with an error that blames the peer; no result is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import psi
from psi.messages import MAX_CHUNK, MAX_MESSAGE_BYTES, Kind, Side, Writer
from tests.psi.attacks import PROTOCOLS, TERMS, both, declared, end, play, refused
from tests.psi.helpers import (
    CHUNK_HEAD,
    HEAD,
    SPOTS,
    WIDTH,
    TermsOf,
    answers,
    asked,
    carry,
    initiator,
    matched,
    of_kind,
    responder,
    revealed,
    started,
)

BLAMED = (psi.BadMessage, psi.BadElement, psi.WeakKey, psi.WrongRole, psi.ResultMismatch)
"""What a peer's bytes may end in. `BadArgument`, `BadIds` or `UsedTwice` would blame our own side."""
MINE, THEIRS, SHARED = ["ann-1", "bob-1", "chloé-1", "dan-1"], ["bob-1", "dan-1", "eve-1"], ["bob-1", "dan-1"]

each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
each_terms = pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
names = st.sampled_from(sorted(TERMS))


@cache
def _honest(name: str) -> tuple[bytes, ...]:
    """All messages of an honest run, in their order."""
    said: list[bytes] = []

    def listen(number: int, message: bytes) -> list[bytes]:
        said.append(message)
        return [message]

    left, right = both(MINE, THEIRS, **TERMS[name])
    assert play(left, right, listen) is None
    assert left.finished and right.finished
    _assert_right(left, right)
    return tuple(said)


def _assert_right(left: psi.Initiator, right: psi.Responder) -> None:
    """A run that says that it is finished has the right result."""
    for run in (left, right):
        if not run.finished:
            continue
        try:
            assert run.intersection == SHARED
        except psi.NotRevealed:
            assert run.terms.reveal != "both"
        try:
            assert run.cardinality == len(SHARED)
        except psi.NotRevealed:
            assert run.terms.reveal == "initiator" and run is right


def _assert_blamed(error: psi.PsiError | None) -> None:
    if error is not None:
        assert type(error) in BLAMED
        text = str(error)
        assert len(text) < 400
        assert not any(each in text for each in (*MINE, *THEIRS))


def _attacked(name: str, tamper: Callable[[int, bytes], Sequence[bytes]]) -> psi.PsiError | None:
    """A run over a link that is not honest; returns how it ended."""
    left, right = both(MINE, THEIRS, **TERMS[name])
    error = play(left, right, tamper)
    _assert_blamed(error)
    _assert_right(left, right)
    return error


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=names)
def test_one_message_changed_anywhere_is_refused_or_shows_at_the_end(data: st.DataObject, name: str) -> None:
    which = data.draw(st.integers(0, len(_honest(name)) - 1))
    size = len(_honest(name)[which])
    # Half of the changes in the header and the fields behind it, where there is more to decide.
    position = data.draw(st.one_of(st.integers(0, min(size - 1, HEAD + 40)), st.integers(0, size - 1)))
    bits = data.draw(st.integers(1, 255))

    def tamper(number: int, message: bytes) -> list[bytes]:
        if number != which:
            return [message]
        changed = bytearray(message)
        changed[position % len(message)] ^= bits
        return [bytes(changed)]

    error = _attacked(name, tamper)
    # Without harm are only another count in the offer of a joint run, which rounds to the same size of a store, and a
    # smaller one in an ack, which gives less room to send.
    harmless = (TERMS[name].get("joint") and which == 0) or _honest(name)[which][1] == Kind.ACK
    assert error is not None or harmless


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=names)
def test_a_message_cut_or_longer_is_refused(data: st.DataObject, name: str) -> None:
    which = data.draw(st.integers(0, len(_honest(name)) - 1))
    cut = data.draw(st.integers(0, 5000))
    tail = data.draw(st.one_of(st.just(b""), st.binary(min_size=1, max_size=40)))

    def tamper(number: int, message: bytes) -> list[bytes]:
        if number != which:
            return [message]
        return [message + tail if tail else message[: cut % len(message)]]

    # A cut between two items stalls the run (too few came), or ends it where the next message comes too early.
    _attacked(name, tamper)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=names)
def test_messages_lost_doubled_or_moved_give_no_wrong_result(data: st.DataObject, name: str) -> None:
    honest = _honest(name)
    which = data.draw(st.integers(0, len(honest) - 1))
    what = data.draw(st.sampled_from(["lose", "double", "hold back", "another's place"]))
    other = data.draw(st.integers(0, len(honest) - 1))
    held: list[bytes] = []

    def tamper(number: int, message: bytes) -> list[bytes]:
        if number == which:
            if what == "lose":
                return []
            if what == "double":
                return [message, message]
            if what == "another's place":
                return [honest[other]]
            held.append(message)
            return []
        late = [each for each in held if each[0] == message[0]]
        for each in late:
            held.remove(each)
        return [message, *late]

    error = _attacked(name, tamper)
    if what == "double" and number_of_items(honest[which]) != 0:
        assert error is not None or honest[which][1] in (Kind.ACK, Kind.CONFIRM)


def number_of_items(message: bytes) -> int | None:
    """How many items a chunk declares; None if it is no chunk."""
    if message[1] not in (Kind.BLINDED, Kind.ANSWERS, Kind.TAGS, Kind.CELLS, Kind.REVEAL):
        return None
    return int.from_bytes(message[CHUNK_HEAD - 8 : CHUNK_HEAD], "big")


@settings(max_examples=80, deadline=None)
@given(data=st.data(), name=names, noise=st.binary(max_size=120), kind=st.integers(0, 12), framed=st.booleans())
@example(data=None, name="rsa", noise=b"", kind=0, framed=False)
def test_noise_at_any_moment_raises_only_errors_that_blame_the_peer(
    data: st.DataObject | None, name: str, noise: bytes, kind: int, framed: bool
) -> None:
    which = data.draw(st.integers(0, len(_honest(name)) - 1)) if data is not None else 0
    attempt = data.draw(st.integers(0, 2)) if data is not None else 0

    def tamper(number: int, message: bytes) -> list[bytes]:
        if number != which:
            return [message]
        header = bytes([message[0], kind, attempt]) + message[3:HEAD] if framed else b""
        return [header + noise, message]

    _attacked(name, tamper)


@settings(max_examples=60, deadline=None)
@given(
    name=names,
    kind=st.sampled_from(Kind),
    numbers=st.tuples(*[st.one_of(st.integers(0, 50), st.integers(0, 2**64 - 1))] * 2),
    items=st.binary(max_size=70),
    data=st.data(),
)
def test_any_wellformed_words_at_any_moment_raise_only_errors_that_blame_the_peer(
    name: str, kind: Kind, numbers: tuple[int, int], items: bytes, data: st.DataObject
) -> None:
    which = data.draw(st.integers(0, len(_honest(name)) - 1))
    attempt = data.draw(st.integers(0, 1))

    def tamper(number: int, message: bytes) -> list[bytes]:
        if number != which:
            return [message]
        own = Writer(Side(message[0]), message[3:HEAD], attempt)
        if kind in (Kind.RESUME, Kind.RESUMED):
            return [own.pair(kind, *numbers), message]
        if kind is Kind.CONFIRM:
            return [own.confirm(numbers[0], items.ljust(32, b"\0")[:32]), message]
        if kind is Kind.ACK:
            return [own.ack(numbers[0]), message]
        return [own.chunk(kind, *numbers, items), message]

    _attacked(name, tamper)


@settings(max_examples=25, deadline=None)
@given(name=names, other=names, data=st.data())
def test_a_message_of_another_run_is_refused_in_every_place(name: str, other: str, data: st.DataObject) -> None:
    """The same seeds make the same run id for the same terms, so these are those of another initiator or terms."""
    which = data.draw(st.integers(0, len(_honest(name)) - 1))
    foreign = _honest_elsewhere(other)
    same_side = [each for each in foreign if each[0] == _honest(name)[which][0]]
    message = data.draw(st.sampled_from(same_side))
    error = _attacked(name, lambda number, own: [message] if number == which else [own])
    assert type(error) is psi.BadMessage


@cache
def _honest_elsewhere(name: str) -> tuple[bytes, ...]:
    """The messages of a run of another session on the same ids."""
    said: list[bytes] = []

    def listen(number: int, message: bytes) -> list[bytes]:
        said.append(message)
        return [message]

    session: dict[str, object] = {"session": b"another session"}
    left, right = both(MINE, THEIRS, **TERMS[name], **session)
    assert play(left, right, listen) is None
    return tuple(said)


@settings(max_examples=40, deadline=None)
@given(message=st.binary(max_size=200), side=st.sampled_from([b"I", b"R", b""]), kind=st.integers(0, 12))
def test_garbage_to_a_fresh_run_is_refused(message: bytes, side: bytes, kind: int) -> None:
    for protocol in PROTOCOLS:
        for body in (message, side + bytes([kind]) + message):
            for run in (initiator(["a"], protocol=protocol), responder(["a"], protocol=protocol)):
                with pytest.raises(psi.PsiError) as caught:
                    list(run.receive(body))
                _assert_blamed(caught.value)


@each_protocol
def test_an_offer_cut_anywhere_is_refused(protocol: str) -> None:
    offer = next(responder(["a"], protocol=protocol).start())
    for size in [*range(min(80, len(offer))), *range(80, len(offer), 61), len(offer) - 1]:
        with pytest.raises((psi.BadMessage, psi.WeakKey)):
            initiator(["a"], protocol=protocol).receive(offer[:size])
    with pytest.raises((psi.BadMessage, psi.WeakKey)):
        initiator(["a"], protocol=protocol).receive(offer + b"\0")


@each_protocol
def test_blinded_ids_cut_anywhere_are_refused(protocol: str) -> None:
    _, _, chunks = asked(["a", "b", "c"], ["c"], protocol=protocol)
    for size in [*range(CHUNK_HEAD + 2), *range(CHUNK_HEAD + 2, len(chunks[0]), 31), len(chunks[0]) - 1]:
        right, _ = started(["c"], protocol=protocol)
        rest = size - CHUNK_HEAD
        if rest > 0 and rest % WIDTH[protocol] == 0:
            assert list(right.receive(chunks[0][:size]))  # some whole elements of those declared: more may follow
            continue
        with pytest.raises(psi.BadMessage):
            right.receive(chunks[0][:size])


@each_protocol
def test_tags_and_reveals_cut_inside_a_tag_are_refused(protocol: str) -> None:
    left, right, chunks = asked(["a"], ["a", "b"], protocol=protocol)
    tags = of_kind(answers(right, chunks), Kind.TAGS)
    refused(left, tags[0][:-1], psi.BadMessage, "cut or too long; expected items of 16 bytes")
    left, right, (reveal, _) = revealed(["a"], ["a", "b"], protocol=protocol)
    refused(right, reveal[:-1], psi.BadMessage, "cut or too long; expected items of 12 bytes")


@each_protocol
@pytest.mark.parametrize("missing", range(1, 17))
def test_a_chunk_without_its_numbers_is_refused(protocol: str, missing: int) -> None:
    """What is left must not pass for a negative number of items."""
    left, right, chunks = asked(["a"], ["a"], protocol=protocol)
    own = Writer(Side.RESPONDER, chunks[0][3:HEAD])
    message = own.chunk(Kind.TAGS, 0, 1, b"")[:-missing]
    refused(left, message, psi.BadMessage, "a message of the tags items that is cut or too long")
    refused(right, chunks[0][: CHUNK_HEAD - missing], psi.BadMessage, "of the blinded items that is cut or too long")
    _, right, (reveal, _) = revealed(["a"], ["a"], protocol=protocol)
    refused(right, reveal[: CHUNK_HEAD - missing], psi.BadMessage, "of the reveal items that is cut or too long")


@each_protocol
def test_chunks_of_the_greatest_size_are_said_and_taken(protocol: str) -> None:
    left, right = both(["a"], ["a"], protocol=protocol, chunk=MAX_CHUNK)
    assert play(left, right, lambda number, message: [message]) is None
    assert left.finished and right.finished


@pytest.mark.parametrize("size", [0, 1, HEAD - 1])
def test_a_message_without_a_whole_header_is_refused(size: int) -> None:
    message = (b"R\1" + bytes(HEAD))[:size]
    refused(initiator(["a"]), message, psi.BadMessage, f"{size} bytes long; expected {HEAD} to {MAX_MESSAGE_BYTES}")


def test_a_message_that_is_too_long_is_refused_unread() -> None:
    message = b"R\1" + bytes(MAX_MESSAGE_BYTES - 1)
    refused(initiator(["a"]), message, psi.BadMessage, f"expected {HEAD} to {MAX_MESSAGE_BYTES}")
    refused(initiator(["a"]), message[:-1], psi.BadMessage, "of another version")  # of the greatest length: it is read


@pytest.mark.parametrize("side", [0, ord("i"), ord("X"), 255])
def test_a_message_of_no_known_side_is_refused(side: int) -> None:
    message = bytes([side, Kind.OFFER]) + bytes(HEAD)
    text = "of no known side; expected the initiator's or the responder's mark"
    refused(initiator(["a"]), message, psi.BadMessage, text)
    refused(started(["a"])[0], message, psi.BadMessage, text)


@pytest.mark.parametrize("kind", [0, 11, 255])
def test_a_message_of_no_known_kind_is_refused(kind: int) -> None:
    for run, side in ((initiator(["a"]), "R"), (started(["a"])[0], "I")):
        message = bytes([ord(side), kind]) + bytes(HEAD)
        refused(run, message, psi.BadMessage, f"of kind {kind}; expected a kind of 1 to 10")


def test_a_message_that_is_not_bytes_is_refused() -> None:
    things: list[object] = ["text", None, 7, bytearray(b"R\1"), memoryview(b"R\1"), [b"R"]]
    for thing in things:
        for run in (initiator(["a"]), started(["a"])[0]):
            refused(run, thing, psi.BadMessage, "a message is not bytes")  # type: ignore[arg-type]  # a careless caller


@each_terms
def test_nobody_is_kept_busy_with_messages_of_nothing(terms: TermsOf) -> None:
    """Each chunk has to bring something where something was declared."""
    left, right = both(["a", "b"], ["a", "b"], **terms)
    chunks = [message for message in carry(left, right, right.start()) if number_of_items(message)]
    assert {message[1] for message in chunks} >= {Kind.BLINDED, Kind.ANSWERS}
    for message in chunks:
        left, right = both(["a", "b"], ["a", "b"], **terms)
        left.receive(next(right.start()))
        run: psi.Initiator | psi.Responder = left if message[0] == Side.RESPONDER else right
        refused(run, declared(message, position=0)[:CHUNK_HEAD], psi.BadMessage, "a message of 0 of the")


@each_protocol
def test_an_empty_reveal_may_be_heard_twice(protocol: str) -> None:
    """After a lost link nobody knows whether it came; it says the same both times."""
    left, right = matched(["a", "x"], ["a", "y"], protocol=protocol)
    empty, confirm = left.reveal([])
    (word,) = answers(right, [empty, empty, confirm])
    answers(left, [word])
    assert left.finished and right.finished and right.intersection == []


@each_protocol
def test_the_elements_of_nobody_may_be_heard_twice_without_harm(protocol: str) -> None:
    left, right = both([], ["a"], protocol=protocol)
    messages = carry(left, right, right.start())
    assert len(of_kind(messages, Kind.BLINDED)) == (1 if SPOTS[protocol] == 0 else SPOTS[protocol] // 4)
    (word,) = answers(right, end(left))
    answers(left, [word])
    assert left.intersection == right.intersection == []

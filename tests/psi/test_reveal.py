"""Who learns what: each party, looked at with all that it has, can say what its terms tell it and nothing more."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import psi
from psi.answering import ShuffledAnswers
from psi.closing import Closing
from psi.ecdh import EcdhHolder
from psi.hashing import ITEM_BYTES, TAG_BYTES
from psi.messages import Kind, Side, Writer
from psi.oprf import PROTOCOLS
from psi.tags import rows
from tests.psi.helpers import (
    HEAD,
    SESSION,
    SPOTS,
    TASK,
    WIDTH,
    Seeded,
    answers,
    asked,
    carry,
    chunk_of,
    finish,
    holder,
    initiator,
    item_of,
    items_of,
    matched,
    of_kind,
    responder,
    run_of,
    tag_of,
)
from tests.psi.lossy import TERMS

OWN, OTHERS = ["a", "b", "c", "d", "e"], ["c", "x", "e", "a"]
few_ids = st.lists(st.integers(0, 20).map(str), max_size=15, unique=True)


def transcript(ids: Sequence[str], peer_ids: Sequence[str], protocol: str, reveal: str) -> list[bytes]:
    """All that is said in a run with seeded randomness."""
    left, right = (
        initiator(ids, protocol=protocol, reveal=reveal),
        responder(peer_ids, protocol=protocol, reveal=reveal),
    )
    said = carry(left, right, right.start())
    return said + finish(left, right)


def of_side(messages: Sequence[bytes], side: Side) -> list[bytes]:
    return [message for message in messages if message[0] == side]


@pytest.mark.parametrize(("protocol", "reveal"), TERMS)
def test_a_run_says_only_the_kinds_that_its_terms_have(protocol: str, reveal: str) -> None:
    kinds = {Kind(message[1]) for message in transcript(OWN, OTHERS, protocol, reveal)}
    more = {"both": {Kind.REVEAL}, "initiator": set(), "cardinality": {Kind.ACK}}[reveal]
    assert kinds == {Kind.OFFER, Kind.BLINDED, Kind.ANSWERS, Kind.TAGS, Kind.CONFIRM} | more


@pytest.mark.parametrize(
    ("protocol", "ours", "theirs"),
    [
        ("rsa", "both", "initiator"),
        ("rsa", "initiator", "both"),
        *(("ecdh", *pair) for pair in permutations(["both", "initiator", "cardinality"], 2)),
    ],
)
def test_parties_that_chose_different_reveals_do_not_begin(protocol: str, ours: str, theirs: str) -> None:
    left, right = initiator(OWN, protocol=protocol, reveal=ours), responder(OTHERS, protocol=protocol, reveal=theirs)
    with pytest.raises(psi.BadMessage, match=f"offers .*reveal='{theirs}'.*expected .*reveal='{ours}'"):
        left.receive(next(right.start()))


@pytest.mark.parametrize("party", [initiator, responder])
def test_a_reveal_that_does_not_exist_is_refused(party: type) -> None:
    for reveal in ("all", "", None, "Both", 1):
        with pytest.raises(psi.BadArgument, match="expected one of both, initiator, cardinality"):
            party(OWN, reveal=reveal)


@pytest.mark.parametrize("party", [initiator, responder])
def test_a_number_alone_cannot_be_had_with_rsa_nor_of_joint_runs(party: type) -> None:
    with pytest.raises(psi.BadArgument, match=r"reveal='cardinality' needs protocol='ecdh'.*which ids are shared"):
        party(OWN, protocol="rsa", reveal="cardinality")
    with pytest.raises(psi.BadArgument, match="reveal='cardinality' is for two parties"):
        party(OWN, protocol="ecdh", reveal="cardinality", joint=True)


# reveal="both"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chosen", [None, ["a", "c", "e"], ["e"], []])
def test_the_responder_hears_the_tags_of_the_chosen_ids_and_of_no_other(
    protocol: str, chosen: list[str] | None
) -> None:
    left, right = matched(OWN, OTHERS, protocol=protocol)
    said = finish(left, right, chosen)
    expected = ["a", "c", "e"] if chosen is None else chosen
    heard = [tag for message in of_kind(said, Kind.REVEAL) for tag in items_of(message, TAG_BYTES)]
    assert heard == sorted(tag_of(each, protocol) for each in expected)
    assert left.intersection == ["a", "c", "e"] and right.intersection == expected
    everything = b"".join(said)
    assert not any(tag_of(each, protocol) in everything for each in {*OWN, *OTHERS} - set(expected))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ids_that_are_revealed_are_those_that_both_have(protocol: str) -> None:
    """The responder can only name tags of its own ids, so nobody can make it hold an id that it lacks."""
    left, right = matched(OWN, OTHERS, protocol=protocol)
    run = left._writer.run
    with pytest.raises(psi.BadMessage, match="not one of ours"):
        right.receive(chunk_of(Side.INITIATOR, Kind.REVEAL, run, [tag_of("b", protocol)]))


# reveal="initiator"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(max_examples=15, deadline=None)
@given(own=few_ids, others=few_ids)
def test_only_the_initiator_learns_which_and_how_many(protocol: str, own: list[str], others: list[str]) -> None:
    left, right = matched(own, others, protocol=protocol, reveal="initiator")
    finish(left, right)
    assert left.intersection == sorted(set(own) & set(others)) and left.cardinality == len(left.intersection)
    assert right.finished and right.peer_count == len(own)
    for name in ("intersection", "cardinality"):
        with pytest.raises(psi.NotRevealed, match="reveal='initiator'"):
            getattr(right, name)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_the_responder_hears_is_the_same_whatever_is_shared(protocol: str) -> None:
    """Byte for byte, up to the digest at the end; and that it can compute from what it has heard and said itself."""
    heard = []
    for others in (OWN, ["v", "w", "x", "y", "z"]):
        left, right = matched(OWN, others, protocol=protocol, reveal="initiator")
        assert right._context is not None
        predicted = right._digest(Side.INITIATOR, right._context, 0, b"")
        said = of_side(transcript(OWN, others, protocol, "initiator"), Side.INITIATOR)
        assert said[-1] == Writer(Side.INITIATOR, run_of(said[-1])).confirm(0, predicted)
        finish(left, right)
        heard.append(said[:-1])
    assert heard[0] == heard[1]
    assert [message[1] for message in heard[0]] == [Kind.BLINDED] * len(heard[0])


@pytest.mark.parametrize("reveal", ["initiator", "cardinality"])
def test_no_ids_can_be_revealed_where_the_terms_reveal_none(reveal: str) -> None:
    left, right = matched(OWN, OTHERS, protocol="ecdh", reveal=reveal)
    for ids in (["a"], []):
        with pytest.raises(psi.BadArgument, match=f"reveal no ids to the responder: .*reveal='{reveal}'"):
            left.reveal(ids)
    finish(left, right)
    assert left.finished and right.finished


@pytest.mark.parametrize("reveal", ["initiator", "cardinality"])
def test_a_responder_takes_no_tags_where_the_terms_reveal_none(reveal: str) -> None:
    left, right = matched(OWN, OTHERS, protocol="ecdh", reveal=reveal)
    with pytest.raises(psi.BadMessage, match="a message of kind reveal while"):
        right.receive(chunk_of(Side.INITIATOR, Kind.REVEAL, left._writer.run, [tag_of("a", "ecdh")]))


# reveal="cardinality"


@settings(max_examples=25, deadline=None)
@given(own=few_ids, others=few_ids, chunks=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_both_learn_how_many_and_nobody_which(own: list[str], others: list[str], chunks: tuple[int, int]) -> None:
    left = initiator(own, protocol="ecdh", reveal="cardinality", chunk=chunks[0])
    right = responder(others, protocol="ecdh", reveal="cardinality", chunk=chunks[1])
    carry(left, right, right.start())
    finish(left, right)
    assert left.finished and right.finished
    assert left.cardinality == right.cardinality == len(set(own) & set(others))
    for run in (left, right):
        with pytest.raises(psi.NotRevealed, match="reveal='cardinality'"):
            _ = run.intersection


def test_what_the_responder_hears_differs_only_in_the_number() -> None:
    heard = []
    for others in (["a", "x"], ["y", "b"], ["e", "z"]):
        left, right = matched(OWN, others, protocol="ecdh", reveal="cardinality")
        assert right._context is not None
        predicted = right._digest(Side.INITIATOR, right._context, 1, b"")
        *said, last = of_side(transcript(OWN, others, "ecdh", "cardinality"), Side.INITIATOR)
        assert last == Writer(Side.INITIATOR, run_of(last)).confirm(1, predicted)
        heard.append(said)
        finish(left, right)
    assert heard[0] == heard[1] == heard[2]


def questions_and_answers(seed: bytes, count: int = 30) -> tuple[list[bytes], list[bytes]]:
    """The elements of a run in the order in which they were asked, and their answers in the order of the answers."""
    ids = [str(i) for i in range(count)]
    left = initiator(ids, protocol="ecdh", reveal="cardinality", chunk=16, seed=seed)
    right = responder(["1"], protocol="ecdh", reveal="cardinality", chunk=10, seed=seed)
    said = carry(left, right, right.start())
    power = EcdhHolder.fresh(TASK, SESSION, source=Seeded(seed), engine="cryptography").answer
    elements = [item for message in of_kind(said, Kind.BLINDED) for item in items_of(message, WIDTH["ecdh"])]
    given = [item for message in of_kind(said, Kind.ANSWERS) for item in items_of(message, WIDTH["ecdh"])]
    return [power(element) for element in elements], given


def test_answers_come_in_an_order_of_the_responders_own() -> None:
    orders = []
    for number in range(8):
        in_order, given = questions_and_answers(b"seed %d" % number)
        assert sorted(in_order) == sorted(given) and len(set(given)) == 30 + SPOTS["ecdh"]
        orders.append(tuple(given.index(answer) for answer in in_order))
    count = len(orders[0])
    for order in orders:
        stayed = sum(at == place for at, place in enumerate(order))
        nearly = sum(abs(at - place) < count // 4 for at, place in enumerate(order))
        assert stayed < 8 and nearly < 45  # about 1 and 27 in a random order
    assert len(set(orders)) == len(orders)


def test_every_answer_is_as_likely_at_every_place() -> None:
    """Chi-squared over the 64 pairs of question and place, 49 degrees of freedom: above 110 once in a million."""
    items, times, counts = 8, 4000, np.zeros((8, 8))
    for number in range(times):
        shuffled = ShuffledAnswers(1)
        shuffled.add(b"\0\1\2")
        shuffled.add(b"\3\4\5\6\7")
        shuffled.shuffle(Seeded(b"%d" % number))
        part = shuffled.next(items)
        assert part is not None
        for place, item in enumerate(part[1]):
            counts[item, place] += 1
    expected = times / items
    assert ((counts - expected) ** 2 / expected).sum() < 110


def test_no_answer_is_given_before_the_last_question_came() -> None:
    """Answers to a part of the questions would tell in which part an id was asked."""
    _, right, questions = asked(OWN, OTHERS, protocol="ecdh", reveal="cardinality")
    for number, question in enumerate(questions):
        kinds = [message[1] for message in right.receive(question)]
        last = number == len(questions) - 1
        assert kinds[:1] == [Kind.ACK]
        assert (Kind.ANSWERS in kinds) == last and (Kind.TAGS in kinds) == last


def test_an_acknowledgement_says_how_many_came_and_nothing_else() -> None:
    _, right, questions = asked(OWN, OTHERS, protocol="ecdh", reveal="cardinality")
    acks = of_kind(answers(right, questions), Kind.ACK)
    assert [message[HEAD:] for message in acks] == [
        min(4 * number, len(OWN) + SPOTS["ecdh"]).to_bytes(8, "big") for number in range(1, len(questions) + 1)
    ]


def test_an_acknowledgement_of_more_than_was_sent_is_refused() -> None:
    left, _, questions = asked(OWN, OTHERS, protocol="ecdh", reveal="cardinality")
    writer = Writer(Side.RESPONDER, left._writer.run)
    assert list(left.receive(writer.ack(len(OWN) + SPOTS["ecdh"]))) == [] and len(questions) == 10
    with pytest.raises(psi.BadMessage, match="acknowledges more than was sent"):
        left.receive(writer.ack(len(OWN) + SPOTS["ecdh"] + 1))


def test_the_initiator_keeps_nothing_that_says_which_answer_is_whose() -> None:
    left, right, questions = asked(OWN, OTHERS, protocol="ecdh", reveal="cardinality")
    replies = answers(right, questions)
    acks, rest = of_kind(replies, Kind.ACK), [message for message in replies if message[1] != Kind.ACK]
    answers(left, acks)
    assert left._questions is not None and not left._questions._pending  # the elements are forgotten
    asked_at = [left._questions._order.tolist().index(number) for number in range(len(OWN))]
    answers(left, rest)
    key_holder = holder("ecdh")
    tags = [key_holder.context.bare_tags(key_holder.powers([each]), 32) for each in OWN]
    kept = [row.tobytes() for row in left._questions.outputs]
    places = [kept.index(tag) for tag in tags]  # with the responder's key one could find them
    assert places != asked_at and places != list(range(len(OWN)))
    assert left._shared is None and left._intersection is None


def test_tags_of_such_a_run_are_bound_to_no_id_and_are_not_those_of_other_runs() -> None:
    _, right, questions = asked(OWN, OTHERS, protocol="ecdh", reveal="cardinality")
    told = {item for message in of_kind(answers(right, questions), Kind.TAGS) for item in items_of(message, ITEM_BYTES)}
    key_holder = holder("ecdh")
    powers = key_holder.powers(OTHERS)
    assert told == {row.tobytes() for row in rows(key_holder.context.bare_tags(powers, 32), ITEM_BYTES)}
    assert not {tag[:TAG_BYTES] for tag in told} & {item_of(each, "ecdh")[:TAG_BYTES] for each in OTHERS}


def test_a_number_that_was_changed_on_the_way_is_found() -> None:
    left, right = matched(OWN, OTHERS, protocol="ecdh", reveal="cardinality")
    (word,) = left.reveal()
    assert word[HEAD : HEAD + 8] == bytes([0] * 7 + [3])
    with pytest.raises(psi.ResultMismatch):
        right.receive(word[: HEAD + 7] + b"\2" + word[HEAD + 8 :])
    assert not right.finished
    left, right = matched(OWN, OTHERS, protocol="ecdh", reveal="cardinality")
    (reply,) = answers(right, left.reveal())
    with pytest.raises(psi.ResultMismatch):
        left.receive(reply[: HEAD + 7] + b"\2" + reply[HEAD + 8 :])
    assert not left.finished and right.finished


def test_the_number_is_part_of_the_digest() -> None:
    """So a responder cannot agree to one number and mean another."""
    _, right = matched(OWN, OTHERS, protocol="ecdh", reveal="cardinality")
    assert right._context is not None
    digests = {right._digest(Side.INITIATOR, right._context, count, b"") for count in range(5)}
    assert len(digests) == 5


def test_a_reveal_of_nothing_is_said_once_and_before_the_digest() -> None:
    writer = Writer(Side.INITIATOR)
    digest = hashlib.blake2b(digest_size=32).digest()
    closing = Closing(b"", 0, mine=digest, theirs=digest, chunk=4)
    kinds = []
    while (message := closing.next(writer)) is not None:
        kinds.append(message[1])
    assert kinds == [Kind.REVEAL, Kind.CONFIRM]

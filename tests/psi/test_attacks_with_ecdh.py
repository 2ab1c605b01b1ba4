"""What only `ecdh` has: points that must not meet a scalar, answers that cannot be verified one by one, cardinality."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import gmpy2
import numpy as np
import pytest

import psi
from psi import engines
from psi.curve25519 import BASE_POINT, ORDER, check_points, hash_to_field, points_of
from psi.ecdh import SPOT_CHECKS, EcdhAsker, EcdhHolder, scalar_and_inverse, scalar_from
from psi.messages import Kind, Offer, Side, Writer
from psi.oprf import ECDH, RSA
from psi.parallel import Workers
from psi.run import terms_of
from psi.telling import OwnItems
from tests.psi.attacks import AT_ONCE, TERMS, ask, both, end, flipped, good, play, refused, with_items, writer_of
from tests.psi.helpers import (
    SESSION,
    TASK,
    Seeded,
    TermsOf,
    answers,
    asked,
    carry,
    finish,
    holder,
    initiator,
    item_of,
    items_of,
    key,
    matched,
    of_kind,
    point,
    responder,
    started,
)

PRIME = 2**255 - 19
_J = 486662
ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
"""The points of order 8; those of order 4 have u = 1 on the curve and u = -1 on its twist, that of order 2 u = 0."""

OUT_OF_RANGE = r"is out of range; expected a number below 2\^255 - 19"
ON_THE_TWIST = "is not on Curve25519; expected a point of the curve"
SMALL = "has small order, so its multiple is zero; expected a point of the large subgroup"

ecdh_terms = pytest.mark.parametrize("name", [name for name in TERMS if name.startswith("ecdh")])


def on_the_curve(u: int) -> bool:
    """Whether v² = u³ + 486662·u² + u has a solution, by Euler's criterion."""
    square = (u**3 + _J * u * u + u) % PRIME
    return square == 0 or gmpy2.powmod(square, (PRIME - 1) // 2, PRIME) == 1


def off_the_curve(label: str) -> bytes:
    """Random bytes below p that are no point of the curve."""
    for at in range(99):
        value = int.from_bytes(hashlib.sha256(f"{label} {at}".encode()).digest(), "little") % PRIME
        if not on_the_curve(value):
            return point(value)
    raise AssertionError


BAD_POINTS = {
    "zero": (point(0), SMALL),
    "one, of order 4": (point(1), SMALL),
    "order 8": (point(ORDER_8[0]), SMALL),
    "the other of order 8": (point(ORDER_8[1]), SMALL),
    "p-1": (point(PRIME - 1), ON_THE_TWIST),
    "p": (point(PRIME), OUT_OF_RANGE),
    "p+1": (point(PRIME + 1), OUT_OF_RANGE),
    "the base point plus p": (point(PRIME + 9), OUT_OF_RANGE),
    "2^255-1": (point(2**255 - 1), OUT_OF_RANGE),
    "the base point with the top bit": (point(9 + 2**255), OUT_OF_RANGE),
    "zero with the top bit": (point(2**255), OUT_OF_RANGE),
    "all bits": (b"\xff" * 32, OUT_OF_RANGE),
    "the least of the twist": (point(2), ON_THE_TWIST),
    "random off the curve": (off_the_curve("first"), ON_THE_TWIST),
    "random off the curve again": (off_the_curve("second"), ON_THE_TWIST),
}
bad_points = pytest.mark.parametrize(("bad", "fault"), BAD_POINTS.values(), ids=BAD_POINTS)


def test_the_points_of_small_order_are_what_they_are_said_to_be() -> None:
    for u in (0, 1, *ORDER_8):
        assert on_the_curve(u)
        check_points(point(u), 0)
    assert not on_the_curve(PRIME - 1) and not on_the_curve(2)
    for u in ORDER_8:  # twice a point of order 8 is one of order 4: u' = (u² - 1)² / 4u(u² + 486662u + 1)
        assert (u * u - 1) ** 2 * pow(4 * u * (u * u + _J * u + 1), -1, PRIME) % PRIME == 1


# To the responder.


@bad_points
@ecdh_terms
def test_a_point_that_must_not_meet_the_key_is_refused(name: str, bad: bytes, fault: str) -> None:
    """None of the message is answered, not even the good points in front of it."""
    right, run = started(["a"], **TERMS[name])
    message = ask(ECDH, run, [*good(ECDH, 2), bad, *good(ECDH, 1, first=2)], ids=9)
    place = "the point at position 2 of this call" if fault is SMALL else "element 2 of the peer"
    refused(right, message, psi.BadElement, f"{place} {fault}")


@bad_points
def test_a_bad_point_is_named_by_its_place_in_the_run(bad: bytes, fault: str) -> None:
    right, run = started(["a"], protocol=ECDH)
    answers(right, [ask(ECDH, run, good(ECDH, 2), ids=9)])
    message = ask(ECDH, run, [*good(ECDH, 1, first=2), bad], position=2, ids=9)
    place = "the point at position 1 of this call" if fault is SMALL else "element 3 of the peer"
    refused(right, message, psi.BadElement, f"{place} {fault}")


def test_a_component_of_small_order_changes_no_answer() -> None:
    """So the answer says nothing of the scalar modulo 8, and asking so gives nothing that the point alone would not."""
    # y + T for the point T = (0, 0) of order 2 has u' = 1 / u.
    (element,) = good(ECDH, 1)
    assert isinstance(element, bytes)
    other = point(pow(int.from_bytes(element, "little"), -1, PRIME))
    right, run = started(["a"], protocol=ECDH)
    (message, *_) = answers(right, [ask(ECDH, run, [element, other], ids=9)])
    first, second = items_of(message, 32)
    assert first == second and element != other


def test_the_least_points_of_the_curve_that_are_not_small_are_taken() -> None:
    right, run = started(["a"], protocol=ECDH)
    least = [point(u) for u in range(3, 40) if on_the_curve(u)]
    largest = [point(u) for u in range(PRIME - 40, PRIME - 1) if on_the_curve(u)]
    (message, *_) = answers(right, [ask(ECDH, run, [*least, *largest])])
    assert len(items_of(message, 32)) == len(least) + len(largest)


# To the initiator.


def _replies(ids: list[str], peer_ids: list[str], name: str = "ecdh") -> tuple[psi.Initiator, bytes, list[bytes]]:
    """An initiator that asked all in one message, the answers and the tags that it should get."""
    left = initiator(ids, chunk=AT_ONCE, **TERMS[name])
    right = responder(peer_ids, chunk=1000, **TERMS[name])
    replies = answers(right, answers(left, right.start()))
    (signed,) = of_kind(replies, Kind.ANSWERS)
    return left, signed, [each for each in replies if each[1] in (Kind.TAGS, Kind.CELLS, Kind.ACK)]


def _places(left: psi.Initiator, numbers: Sequence[int]) -> list[int]:
    """Where the elements of these ids (from the number of ids on: spot checks) stand among the questions."""
    assert left._questions is not None
    asked_at = {int(number): place for place, number in enumerate(left._questions._order)}
    return [asked_at[number] for number in numbers]


def _put(place: int, answer: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda items: [*items[:place], answer, *items[place + 1 :]]


@bad_points
@pytest.mark.parametrize("name", ["ecdh", "ecdh, joint"])
def test_an_answer_that_is_no_good_point_is_refused(name: str, bad: bytes, fault: str) -> None:
    left, signed, _ = _replies(["1", "2", "3"], ["1"], name)
    (place,) = _places(left, [1])
    own = sorted(_places(left, [0, 1, 2])).index(place)  # spot checks are taken out before
    place_in_call = f"the point at position {own} of this call" if fault is SMALL else f"element {own} of the peer"
    text = f"{place_in_call} {fault}"
    refused(left, with_items(signed, 32, _put(place, bad)), psi.BadElement, text)


@bad_points
def test_an_answer_that_is_no_good_point_is_refused_where_their_order_is_random(bad: bytes, fault: str) -> None:
    left, signed, acks = _replies(["1", "2", "3"], ["1"], "ecdh, cardinality")
    answers(left, of_kind(acks, Kind.ACK))
    text = f"the point at position 7 of this call {SMALL}" if fault is SMALL else f"element 7 of the peer {fault}"
    refused(left, with_items(signed, 32, _put(7, bad)), psi.BadElement, text)


@pytest.mark.parametrize("name", ["ecdh", "ecdh, cardinality", "ecdh, joint"])
def test_an_answer_repeated_in_one_message_is_refused(name: str) -> None:
    left, signed, acks = _replies(["1", "2", "3"], ["1"], name)
    answers(left, of_kind(acks, Kind.ACK))
    message = with_items(signed, 32, lambda items: _put(9, items[4])(items))
    refused(left, message, psi.BadElement, "answer 9 of the responder came before in this run; expected a different")


@pytest.mark.parametrize("name", ["ecdh", "ecdh, cardinality", "ecdh, joint"])
def test_an_answer_repeated_in_a_later_message_is_refused(name: str) -> None:
    left, right, chunks = asked([str(i) for i in range(8)], ["1"], **TERMS[name])
    replies = answers(right, chunks)
    first, second = of_kind(replies, Kind.ANSWERS)[:2]
    answers(left, [*of_kind(replies, Kind.ACK), first])
    message = with_items(second, 32, _put(2, items_of(first, 32)[1]))
    refused(left, message, psi.BadElement, "answer 6 of the responder came before in this run; expected a different")


class _Lying(EcdhHolder):
    """A responder that does its own ids well and answers with another key."""

    def answer(self, elements: bytes) -> bytes:
        return engines.curve("cryptography")(scalar_from(Seeded(b"another key")), elements)


def _lying(ids: Sequence[str], name: str, kind: type[EcdhHolder]) -> psi.Responder:
    right = responder(ids, chunk=1000, **TERMS[name])
    offer = next(right.start())
    assert right._answers is not None and isinstance(right._answers._holder, EcdhHolder)
    honest = right._answers._holder
    right._answers._holder = kind(honest.context, honest.scalar, honest.engine)
    right.start = lambda: iter((offer,))  # type: ignore[method-assign]  # it has started already
    return right


@ecdh_terms
def test_answers_under_another_key_are_refused(name: str) -> None:
    left, right = initiator(["1", "2", "3"], chunk=AT_ONCE, **TERMS[name]), _lying(["1", "2"], name, _Lying)
    *acks, signed = [
        message for message in answers(right, answers(left, right.start())) if message[1] in (Kind.ACK, Kind.ANSWERS)
    ]
    answers(left, acks)
    text = "a spot check failed: an element whose answer is known got another one; expected answers under the offered"
    refused(left, signed, psi.BadElement, text)


def test_a_single_wrong_answer_to_a_spot_check_is_refused() -> None:
    for number in (3, 3 + SPOT_CHECKS // 2, 3 + SPOT_CHECKS - 1):
        left, signed, _ = _replies(["1", "2", "3"], ["1"])
        (place,) = _places(left, [number])
        message = with_items(signed, 32, _put(place, (9).to_bytes(32, "little")))
        refused(left, message, psi.BadElement, "a spot check failed")


def test_a_single_wrong_answer_to_a_spot_check_is_refused_where_the_order_is_random() -> None:
    left, signed, acks = _replies(["1", "2", "3"], ["1"], "ecdh, cardinality")
    answers(left, of_kind(acks, Kind.ACK))
    assert left._questions is not None
    known = left._questions._spots[5][1]
    place = items_of(signed, 32).index(known)
    message = with_items(signed, 32, _put(place, (9).to_bytes(32, "little")))
    refused(left, message, psi.BadElement, "a spot check failed")


def test_spot_checks_cannot_be_told_from_ids_and_stand_among_them() -> None:
    """Every element is a point of the curve with no component that an id's would not have, in random places."""
    ids = [str(i) for i in range(100)]
    left, right = initiator(ids, protocol=ECDH, chunk=1000), responder(["1"], protocol=ECDH)
    (chunk,) = answers(left, right.start())
    check_points(chunk[-132 * 32 :], 0)
    places = _places(left, range(100, 132))
    assert len(set(places)) == SPOT_CHECKS and min(places) < 20 and max(places) > 112
    assert 40 < sum(places) / SPOT_CHECKS < 92
    for place, number in zip(places, range(32), strict=True):
        assert left._questions is not None
        asked_point, answer = left._questions._spots[number]
        assert items_of(chunk, 32)[place] == asked_point
        assert answer not in items_of(chunk, 32)


def test_spot_checks_are_other_ones_in_each_run() -> None:
    offer = list(responder(["1"], protocol=ECDH).start())
    seen = set()
    for seed in (b"one", b"two", b"three"):
        left = initiator(["1"], protocol=ECDH, seed=seed, chunk=AT_ONCE)
        (chunk,) = answers(left, offer)
        seen |= set(items_of(chunk, 32))
    assert len(seen) == 3 * 33


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0), (0, 2), (0, 3)], ids=str)
def test_a_responder_that_swaps_two_answers_one_of_them_of_a_shared_id_is_refused(first: int, second: int) -> None:
    """The tag of the shared id then comes out for the other id, whom the four bytes behind the tag do not fit.

    The ids 0 and 3 are shared; where both are swapped, both come out wrong.
    """
    left, signed, tags = _replies(["a", "b", "c", "d"], ["a", "d", "z"])
    one, other = _places(left, [first, second])
    message = with_items(signed, 32, lambda items: _swap(items, one, other))
    assert not left.matched
    answers(left, [message])
    refused(left, tags[0], psi.BadElement, "a tag of the responder matches an id that its check does not fit; expected")


def _swap(items: list[bytes], one: int, other: int) -> list[bytes]:
    items[one], items[other] = items[other], items[one]
    return items


def test_a_responder_that_swaps_an_answer_with_that_of_a_spot_check_is_refused() -> None:
    left, signed, _ = _replies(["a", "b", "c", "d"], ["a"])
    one, other = _places(left, [2, 4 + 7])
    message = with_items(signed, 32, lambda items: _swap(items, one, other))
    refused(left, message, psi.BadElement, "a spot check failed")


def test_answers_of_ids_that_are_not_shared_can_be_swapped_without_effect() -> None:
    """By the responder itself: on the way, the digests would differ."""

    class Swapping(EcdhHolder):
        def answer(self, elements: bytes) -> bytes:
            return b"".join(_swap(_split(super().answer(elements)), *_places(left, [1, 2])))

    left = initiator(["a", "b", "c", "d"], chunk=AT_ONCE, protocol=ECDH)
    right = _lying(["a", "d", "z"], "ecdh", Swapping)
    assert play(left, right, lambda number, message: [message]) is None
    assert left.finished and right.finished and left.intersection == right.intersection == ["a", "d"]


def _split(data: bytes) -> list[bytes]:
    return [data[at : at + 32] for at in range(0, len(data), 32)]


def test_swapped_answers_show_in_a_joint_run_as_ids_that_are_not_shared() -> None:
    """A store has no check beside it: the id is lost, and the digest, here of one who swapped on the way, differs."""
    left, right = both(["a", "b", "c"], ["a", "c", "z"], protocol=ECDH, joint=True)
    left._chunk, right._chunk = AT_ONCE, 1000
    signed, cells = answers(right, answers(left, right.start()))
    one, other = _places(left, [0, 1])
    changed = [with_items(signed, 32, lambda items: _swap(items, one, other)), cells]
    answers(left, changed)
    assert psi.join([left]) == ["c"]
    reveal, confirm = left.reveal()
    answers(right, [reveal])
    refused(right, confirm, psi.ResultMismatch, "the parties' results differ")


def test_one_spoilt_answer_equals_leaving_the_id_out() -> None:
    """Nothing can tell the two apart, and the responder gains nothing by it that its own list would not give."""

    class Spoiling(EcdhHolder):
        def answer(self, elements: bytes) -> bytes:
            (place,) = _places(left, [1])
            items = _split(super().answer(elements))
            items[place] = engines.curve("cryptography")(scalar_from(Seeded(b"another")), items[place])
            return b"".join(items)

    left = initiator(["a", "b", "c"], chunk=AT_ONCE, protocol=ECDH)
    right = _lying(["a", "b", "z"], "ecdh", Spoiling)
    assert play(left, right, lambda number, message: [message]) is None
    fair_left, fair_right = matched(["a", "b", "c"], ["a", "y", "z"], protocol=ECDH)
    finish(fair_left, fair_right)
    for spoilt, fair in ((left, fair_left), (right, fair_right)):
        assert spoilt.finished and fair.finished
        assert spoilt.intersection == fair.intersection == ["a"] and spoilt.peer_count == fair.peer_count


@ecdh_terms
def test_an_answer_spoilt_on_the_way_shows_at_the_end(name: str) -> None:
    """The id seems unshared to the initiator; the responder's digest is over the answer that it gave."""
    left, right = both(["a", "b", "c"], ["a", "b", "z"], **TERMS[name])
    left._chunk, right._chunk = AT_ONCE, 1000
    replies = answers(right, answers(left, right.start()))
    (signed,) = of_kind(replies, Kind.ANSWERS)
    if name == "ecdh, cardinality":
        assert left._questions is not None
        spots = {answer for _, answer in left._questions._spots}
        place = next(at for at, each in enumerate(items_of(signed, 32)) if each not in spots)
    else:
        (place,) = _places(left, [1])
    changed = with_items(signed, 32, _put(place, BASE_POINT))
    answers(left, [changed if each is signed else each for each in replies])
    *reveal, confirm = end(left)
    answers(right, reveal)
    refused(right, confirm, psi.ResultMismatch, "the parties' results differ")


def test_a_bare_tag_changed_behind_its_first_twelve_bytes_is_refused() -> None:
    left, signed, others = _replies(["a", "b"], ["a", "b"], "ecdh, cardinality")
    answers(left, [*of_kind(others, Kind.ACK), signed])
    (tags,) = of_kind(others, Kind.TAGS)
    message = with_items(tags, 16, lambda items: [each[:15] + bytes([each[15] ^ 1]) for each in items])
    refused(left, message, psi.BadElement, "matches an id that its check does not fit")


def test_no_tag_of_a_run_that_reveals_a_number_fits_an_id() -> None:
    """Such tags are hashed for another purpose and bound to no id, so that they tell nothing when they meet others."""
    left, right = both(["a"], ["a", "b"], **TERMS["ecdh, cardinality"])
    tags = {item for message in of_kind(carry(left, right, right.start()), Kind.TAGS) for item in items_of(message, 16)}
    assert len(tags) == 2 and not tags & {item_of(each, ECDH) for each in "ab"}
    assert not {each[:12] for each in tags} & {item_of(each, ECDH)[:12] for each in "ab"}


# The responder's key.


@pytest.mark.parametrize("name", ["ecdh", "ecdh, cardinality", "ecdh, joint"])
@pytest.mark.parametrize(
    "public",
    [
        *(bad for bad, _ in BAD_POINTS.values()),
        b"",
        BASE_POINT[:-1],
        BASE_POINT + b"\0",
        BASE_POINT * 2,
    ],
    ids=[*BAD_POINTS, "nothing", "31 bytes", "33 bytes", "two points"],
)
def test_a_key_that_is_no_good_point_is_refused(name: str, public: bytes) -> None:
    right, run = started(["a"], **TERMS[name])
    assert right._offer is not None
    offer = Writer(Side.RESPONDER, run).offer(Offer(right.terms, right._offer.nonce, 1, public))
    text = "the responder's key cannot be used: it is not a point of the large group; expected one on Curve25519"
    refused(initiator(["a"], **TERMS[name]), offer, psi.WeakKey, text)


def test_a_key_with_a_component_of_small_order_changes_nothing() -> None:
    """K + T for the T of order 2. Every scalar is a multiple of 8, and the key is bound into all hashes as it came."""
    right, run = started(["a", "b"], protocol=ECDH)
    assert right._offer is not None
    public = point(pow(int.from_bytes(right._offer.public, "little"), -1, PRIME))
    offer = Writer(Side.RESPONDER, run).offer(Offer(terms_of(ECDH, "both", False), right._offer.nonce, 2, public))
    left = initiator(["a"], protocol=ECDH, chunk=AT_ONCE)
    replies = answers(right, answers(left, [offer]))
    answers(left, replies)  # the spot checks pass: c·(K + T) = c·K
    assert left.intersection == []  # but no hash agrees any more
    reveal, confirm = left.reveal()
    answers(right, [reveal])
    refused(right, confirm, psi.ResultMismatch, "the parties' results differ")


@pytest.mark.parametrize("seed", range(20))
def test_every_secret_scalar_is_a_large_multiple_of_8_whose_inverse_is_one_too(seed: int) -> None:
    scalar, inverse = (int.from_bytes(each, "little") for each in scalar_and_inverse(Seeded(bytes([seed]))))
    for each in (scalar, inverse):
        assert each % 8 == 0 and 2**254 <= each < 2**255
    assert scalar * inverse % ORDER == 1
    assert int.from_bytes(scalar_from(Seeded(bytes([seed]))), "little") >> 254 == 1


def test_secrets_of_a_run_are_drawn_apart() -> None:
    """The scalar of the spot checks is not that of the ids: else the quotient of an id's element would be known."""
    theirs = EcdhHolder.fresh(TASK, SESSION, source=Seeded(b"k"), engine="cryptography")
    asker = EcdhAsker.fresh(theirs.context.public, TASK, SESSION, source=Seeded(b"a"), engine="cryptography")
    multiply = engines.curve("cryptography")
    assert multiply(asker.scalar, BASE_POINT) not in {spot for spot, _ in asker.spot_checks}
    assert len({spot for spot, _ in asker.spot_checks}) == SPOT_CHECKS
    assert all(multiply(theirs.scalar, spot) == answer for spot, answer in asker.spot_checks)
    shown = repr(asker) + repr(theirs)
    for secret in (asker.scalar, asker.inverse, theirs.scalar, asker.spot_checks[0][1]):
        assert repr(secret) not in shown


# What an observer could count.


def test_every_id_enters_on_the_curve_and_on_both_branches_of_the_map() -> None:
    """Were the hash itself the u-coordinate, half of the ids would be on the twist, before and after any scalar."""
    ids = [f"id {number}" for number in range(2000)]
    context, dst = bytes(32), b"tests of the map"
    points = _split(points_of(ids, context, dst))
    assert all(on_the_curve(int.from_bytes(each, "little")) for each in points)
    naive = sum(on_the_curve(int.from_bytes(hashlib.sha256(each.encode()).digest(), "little") % PRIME) for each in ids)
    assert 900 < naive < 1100  # what this test would see of a map that is none
    first = 0
    for field, each in zip(hash_to_field(ids, context, dst), points, strict=True):
        u = -_J * gmpy2.invert(1 + 2 * field * field, PRIME) % PRIME
        first += int.from_bytes(each, "little") == u
    assert 900 < first < 1100
    assert len(set(points)) == len(ids)
    table = np.frombuffer(b"".join(points), np.uint8).reshape(-1, 32)
    ones = np.unpackbits(table, axis=1, bitorder="little").sum(axis=0)
    assert ((ones[:254] > 900) & (ones[:254] < 1100)).all() and ones[255] == 0


def test_blinded_ids_stay_on_the_curve() -> None:
    left, right = initiator([str(i) for i in range(500)], protocol=ECDH, chunk=1000), responder(["1"], protocol=ECDH)
    (chunk,) = answers(left, right.start())
    assert all(on_the_curve(int.from_bytes(each, "little")) for each in items_of(chunk, 32))


RUNS = 300
"""Each place is then taken RUNS / 5 = 60 times on average; 30 and 90 are more than four standard deviations off."""
IDS = ["a", "b", "c", "d", "e"]


def _assert_uniform(ranks: list[list[int]]) -> None:
    """Each id takes each rank about equally often, and neighbours follow each other in either order."""
    table = np.array(ranks)
    assert table.shape == (RUNS, len(IDS))
    for column in table.T:
        counts = np.bincount(column, minlength=len(IDS))
        assert counts.min() > 30 and counts.max() < 90
    for one in range(len(IDS)):
        for other in range(one):
            assert 110 < (table[:, one] < table[:, other]).sum() < 190


def _ranks(places: Sequence[int]) -> list[int]:
    return [sorted(places).index(place) for place in places]


def test_blinded_points_are_in_random_order() -> None:
    offer = list(responder(["1"], protocol=ECDH).start())
    multiply, ranks, among = engines.curve("cryptography"), [], []
    for run in range(RUNS):
        left = initiator(IDS, protocol=ECDH, chunk=AT_ONCE, seed=b"run %d" % run)
        (chunk,) = answers(left, offer)
        assert isinstance(left._asker, EcdhAsker)
        dst = b"HETEROFED-PSI-V2-CS-curve25519_XMD:SHA-512_ELL2_NU_"
        hidden = multiply(left._asker.scalar, points_of(IDS, left._asker.context.derive("element"), dst))
        places = [items_of(chunk, 32).index(each) for each in _split(hidden)]
        ranks.append(_ranks(places))
        among += places
    _assert_uniform(ranks)
    assert 17 < sum(among) / len(among) < 19 and {min(among), max(among)} == {0, 36}  # spot checks stand between them


def test_blinded_numbers_are_in_random_order() -> None:
    offer = list(responder(["1"]).start())
    ranks = []
    for run in range(RUNS):
        left = initiator(IDS, chunk=AT_ONCE, seed=b"run %d" % run)
        (chunk,) = answers(left, offer)
        assert left._asker is not None and left._questions is not None
        factors = _numbers(left._questions._pending[0].secrets)
        hashed = [
            int(_numbers(item)[0] * gmpy2.invert(gmpy2.powmod(factor, 65537, key().n), key().n) % key().n)
            for item, factor in zip(items_of(chunk, 256), factors, strict=True)
        ]
        ranks.append(_ranks([hashed.index(each) for each in _elements(left._asker.context.derive("element"))]))
    _assert_uniform(ranks)


def _numbers(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 256], "big") for at in range(0, len(data), 256)]


def _elements(context: bytes) -> list[int]:
    wide = [hashlib.shake_256(context + each.encode()).digest(256 + 16) for each in IDS]
    return [int.from_bytes(each, "big") % key().n for each in wide]


@pytest.mark.parametrize("protocol", [RSA, ECDH])
def test_tags_are_in_random_order(protocol: str) -> None:
    """One key for all runs, to save powers; the order is drawn apart from it."""
    known = [item_of(each, protocol) for each in IDS]
    ranks = []
    for run in range(RUNS):
        own = OwnItems(
            holder(protocol), IDS, terms_of(protocol, "both", False), (), Workers(1), Seeded(b"run %d" % run)
        )
        _, tags = own.step(len(IDS))
        told = [tags[at : at + 16] for at in range(0, len(tags), 16)]
        ranks.append(_ranks([told.index(each) for each in known]))
    _assert_uniform(ranks)


def test_answers_of_a_run_that_reveals_a_number_are_in_random_order() -> None:
    """Of 37 answers five are looked at: where they stand says nothing of where they were asked."""
    elements = [each for each in good(ECDH, 37) if isinstance(each, bytes)]
    ranks, among = [], []
    for run in range(RUNS):
        right = responder(["1"], chunk=AT_ONCE, seed=b"run %d" % run, **TERMS["ecdh, cardinality"])
        offer = next(right.start())
        assert right._answers is not None and right._answers._holder is not None
        powers = _split(right._answers._holder.answer(b"".join(elements[:5])))
        message = writer_of(offer, Side.INITIATOR).chunk(Kind.BLINDED, 0, 37, b"".join(elements))
        (signed,) = of_kind(answers(right, [message]), Kind.ANSWERS)
        places = [items_of(signed, 32).index(each) for each in powers]
        ranks.append(_ranks(places))
        among += places
    _assert_uniform(ranks)
    assert 17 < sum(among) / len(among) < 19 and {min(among), max(among)} == {0, 36}


def test_no_answer_leaves_before_all_have_come_where_a_number_is_revealed() -> None:
    """The first answers, given early, could only belong to the first questions."""
    terms: TermsOf = TERMS["ecdh, cardinality"]
    right, run = started(["1", "2"], **terms)
    elements = good(ECDH, 40)
    for at in range(0, 36, 4):
        (ack,) = of_kind(answers(right, [ask(ECDH, run, elements[at : at + 4], position=at, ids=8)]), Kind.ACK)
        assert ack[1] == Kind.ACK
    replies = answers(right, [ask(ECDH, run, elements[36:], position=36, ids=8)])
    assert sum(len(items_of(each, 32)) for each in of_kind(replies, Kind.ANSWERS)) == 40


def test_a_run_id_that_is_one_bit_off_is_another_run() -> None:
    left, right, chunks = asked(["a"], ["a"], protocol=ECDH)
    refused(right, flipped(chunks[0], 18), psi.BadMessage, "belongs to another run")
    left.close()

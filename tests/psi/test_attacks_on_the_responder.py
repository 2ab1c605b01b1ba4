"""What a dishonest or broken initiator may send; each is refused, ends the run and gives nothing away.

Points of Curve25519 that are none, or of small order: see `test_attacks_with_ecdh`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

import psi
from psi.engines import plain
from psi.engines.interface import CurveMultiply, RsaNumbers
from psi.messages import MAX_IDS, NO_RUN, Kind, Side, Writer, read_confirm
from psi.oprf import ECDH, RSA
from psi.result import result_digest
from tests.psi.attacks import (
    AT_ONCE,
    PROTOCOLS,
    TERMS,
    ask,
    both,
    declared,
    end,
    flipped,
    good,
    over,
    refused,
    swapped,
    with_items,
    writer_of,
)
from tests.psi.helpers import (
    HEAD,
    SPOTS,
    WIDTH,
    TermsOf,
    answers,
    asked,
    blinded,
    carry,
    chunk_of,
    finish,
    initiator,
    item_of,
    items_of,
    key,
    matched,
    of_kind,
    output_of,
    responder,
    revealed,
    run_of,
    started,
    tag_of,
)

N, P, Q = key().n, key().p, key().q

each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
each_terms = pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (0, "is out of range; expected 2..n-2"),
        (1, "is out of range; expected 2..n-2"),
        (N - 1, "is out of range; expected 2..n-2"),
        (N, "is out of range; expected 2..n-2"),
        (N + 5, "is out of range; expected 2..n-2"),
        (2**2048 - 1, "is out of range; expected 2..n-2"),
        (P, "shares a factor with the modulus; expected a unit"),
        (P * 98765, "shares a factor with the modulus; expected a unit"),
        (Q, "shares a factor with the modulus; expected a unit"),
        (Q * 12345, "shares a factor with the modulus; expected a unit"),
        (N - P, "shares a factor with the modulus; expected a unit"),
    ],
    ids=["zero", "one", "n-1", "n", "above n", "2^2048-1", "p", "multiple of p", "q", "multiple of q", "n-p"],
)
def test_a_number_outside_the_group_is_refused(value: int, fault: str) -> None:
    right, run = started(["a"])
    refused(right, blinded(run, [5, value, 6]), psi.BadElement, f"element 1 of the peer {fault}")


def test_a_number_outside_the_group_is_named_by_its_place_in_the_run() -> None:
    right, run = started(["a"])
    answers(right, [ask(RSA, run, [5, 6], ids=4)])
    refused(right, ask(RSA, run, [7, P], position=2, ids=4), psi.BadElement, "element 3 of the peer shares a factor")


@pytest.mark.parametrize("value", [2, N - 2], ids=["two", "n-2"])
def test_the_outermost_numbers_of_the_group_are_taken(value: int) -> None:
    right, run = started(["a"])
    signed, _ = answers(right, [blinded(run, [value])])
    (root,) = items_of(signed, WIDTH[RSA])
    assert pow(int.from_bytes(root, "big"), 65537, N) == value


@each_protocol
def test_an_element_repeated_in_one_message_is_refused(protocol: str) -> None:
    right, run = started(["a"], protocol=protocol)
    first, second = good(protocol, 2)
    message = ask(protocol, run, [first, second, first])
    refused(right, message, psi.BadElement, "element 2 of the peer came before in this run")


@each_protocol
def test_an_element_repeated_in_a_later_message_is_refused(protocol: str) -> None:
    right, run = started(["a"], protocol=protocol)
    first, second, third = good(protocol, 3)
    answers(right, [ask(protocol, run, [first, second], ids=9)])
    message = ask(protocol, run, [third, first], position=2, ids=9)
    refused(right, message, psi.BadElement, "element 3 of the peer came before in this run")


@each_protocol
def test_more_elements_than_declared_are_refused(protocol: str) -> None:
    right, run = started(["a"], protocol=protocol)
    total = SPOTS[protocol] + 2
    message = blinded(run, good(protocol, total + 1), total=total)
    refused(right, message, psi.BadMessage, f"a message of {total + 1} of the blinded items; expected 1 to {total}")


@each_protocol
def test_more_elements_than_are_left_of_the_declared_are_refused(protocol: str) -> None:
    right, run = started(["a"], protocol=protocol)
    total = SPOTS[protocol] + 2
    answers(right, [blinded(run, good(protocol, total - 1), total=total)])
    message = blinded(run, good(protocol, 2, first=total), position=total - 1, total=total)
    refused(right, message, psi.BadMessage, "a message of 2 of the blinded items; expected 1 to 1")


@each_protocol
def test_elements_after_the_declared_number_are_refused(protocol: str) -> None:
    right, run = started(["a"], protocol=protocol)
    total = SPOTS[protocol] + 1
    answers(right, [blinded(run, good(protocol, total))])
    message = blinded(run, good(protocol, 1, first=total), position=total, total=total + 1)
    refused(right, message, psi.BadMessage, "kind blinded while this run is waiting for the reveal; expected .* reveal")


@each_protocol
def test_elements_after_the_last_are_refused_while_our_own_are_not_all_told(protocol: str) -> None:
    right = responder(list("abcdefghi"), protocol=protocol, chunk=4)
    run = run_of(next(right.start()))
    total = SPOTS[protocol] + 1
    assert len(list(zip(right.receive(blinded(run, good(protocol, total))), range(1), strict=False))) == 1
    message = blinded(run, good(protocol, 1, first=total), position=total, total=total)
    refused(right, message, psi.BadMessage, "a message of 1 of the blinded items; expected 1 to 0")


@each_protocol
@pytest.mark.parametrize("change", [1, -1, 10**6], ids=["grows", "shrinks", "grows much"])
def test_a_declaration_that_changes_is_refused(protocol: str, change: int) -> None:
    """Otherwise an initiator could ask one more question each time, for ever."""
    right, run = started(["a"], protocol=protocol)
    total = SPOTS[protocol] + 5
    answers(right, [blinded(run, good(protocol, 2), total=total)])
    message = blinded(run, good(protocol, 1, first=2), position=2, total=total + change)
    refused(right, message, psi.BadMessage, f"a second declaration of {total + change} for .*; expected {total} as")


@each_protocol
@pytest.mark.parametrize("total", [MAX_IDS + 1, 2**64 - 1])
def test_an_impossible_declaration_is_refused(protocol: str, total: int) -> None:
    right, run = started(["a"], protocol=protocol)
    message = blinded(run, good(protocol, 1), total=total)
    text = f"a declaration of {total} for the blinded items; expected {SPOTS[protocol]} to"
    refused(right, message, psi.BadMessage, text)


def test_elements_with_a_declaration_of_none_are_refused() -> None:
    right, run = started(["a"])
    refused(right, blinded(run, [5], total=0), psi.BadMessage, "a message of 1 of the blinded items")


@pytest.mark.parametrize("total", [0, 1, 31])
def test_a_declaration_of_fewer_than_the_spot_checks_is_refused(total: int) -> None:
    """The count of the initiator's ids, which the responder shows its user, would be below zero."""
    right, run = started(["a"], protocol=ECDH)
    message = blinded(run, good(ECDH, 1), total=total)
    refused(right, message, psi.BadMessage, f"a declaration of {total} for the blinded items; expected 32 to")


@each_protocol
def test_a_message_without_elements_is_refused(protocol: str) -> None:
    """It would keep the run alive for ever without getting on."""
    right, run = started(["a"], protocol=protocol)
    refused(right, ask(protocol, run, [], ids=2), psi.BadMessage, "a message of 0 of the blinded items")


@each_protocol
def test_half_an_element_is_refused(protocol: str) -> None:
    right, run = started(["a"], protocol=protocol)
    whole = ask(protocol, run, good(protocol, 3), ids=9)
    text = f"blinded items that is cut or too long; expected items of {WIDTH[protocol]} bytes"
    refused(right, whole[:-1], psi.BadMessage, text)
    right, _ = started(["a"], protocol=protocol)
    refused(right, whole + b"\1", psi.BadMessage, text)


def test_more_elements_than_a_message_may_hold_are_refused() -> None:
    right, run = started(["a"], protocol=ECDH)
    message = blinded(run, [bytes(32) * 16385], total=10**6)
    refused(right, message, psi.BadMessage, "a message of 16385 of the blinded items; expected 1 to 16384")


@each_terms
def test_a_reveal_before_all_elements_came_is_refused(terms: TermsOf) -> None:
    right, run = started(["a"], **terms)
    protocol = terms["protocol"]
    answers(right, [ask(protocol, run, good(protocol, 1), ids=2)])
    message = Writer(Side.INITIATOR, run).chunk(Kind.REVEAL, 0, 0, b"")
    refused(right, message, psi.BadMessage, "kind reveal while this run is exchanging blinded ids; expected .* blinded")


@each_terms
def test_a_confirm_before_all_elements_came_is_refused(terms: TermsOf) -> None:
    right, run = started(["a"], **terms)
    protocol = terms["protocol"]
    answers(right, [ask(protocol, run, good(protocol, 1), ids=2)])
    message = Writer(Side.INITIATOR, run).confirm(0, bytes(32))
    refused(right, message, psi.BadMessage, "kind confirm while this run is exchanging blinded ids")


@each_terms
def test_a_confirm_before_our_own_ids_are_told_is_refused(terms: TermsOf) -> None:
    right = responder(list("abcdefghi"), chunk=4, **terms)
    run, protocol = run_of(next(right.start())), terms["protocol"]
    elements = good(protocol, SPOTS[protocol] + 1)
    replies = right.receive(blinded(run, elements, total=len(elements)))
    assert next(replies)[1] in (Kind.ANSWERS, Kind.ACK)
    refused(right, Writer(Side.INITIATOR, run).confirm(0, bytes(32)), psi.BadMessage, "kind confirm while this run is")
    assert not list(replies)  # what was not said yet is never said


@each_protocol
def test_a_replayed_message_is_refused(protocol: str) -> None:
    right, run = started(["a"], protocol=protocol)
    message = ask(protocol, run, good(protocol, 2), ids=4)
    answers(right, [message])
    refused(right, message, psi.BadMessage, "blinded items from position 0 came; expected position 2")


@each_protocol
def test_messages_in_the_wrong_order_are_refused(protocol: str) -> None:
    _, right, chunks = asked([str(i) for i in range(8)], ["a"], protocol=protocol)
    refused(right, chunks[1], psi.BadMessage, "blinded items from position 4 came; expected position 0")


@each_protocol
def test_a_gap_between_messages_is_refused(protocol: str) -> None:
    _, right, chunks = asked([str(i) for i in range(12)], ["a"], protocol=protocol)
    answers(right, chunks[:1])
    refused(right, chunks[2], psi.BadMessage, "blinded items from position 8 came; expected position 4")


@each_protocol
def test_a_message_of_an_earlier_run_of_the_same_session_is_refused(protocol: str) -> None:
    """The fresh nonce of the offer tells two runs of one session apart."""
    _, _, chunks = asked(["a", "b"], ["a"], protocol=protocol)
    right = responder(["a"], protocol=protocol, seed=b"another run")
    next(right.start())
    refused(right, chunks[0], psi.BadMessage, "belongs to another run; expected this run's id")


@each_protocol
@pytest.mark.parametrize("other", [{"session": b"another session"}, {"task": "task-8"}], ids=["session", "task"])
def test_a_message_of_another_session_or_task_is_refused(protocol: str, other: dict[str, str]) -> None:
    left = initiator(["a"], protocol=protocol, **other)  # type: ignore[arg-type]  # one of two keywords
    elsewhere = responder(["a"], protocol=protocol, **other)  # type: ignore[arg-type]  # the same one
    chunks = answers(left, elsewhere.start())
    right, _ = started(["a"], protocol=protocol)
    refused(right, chunks[0], psi.BadMessage, "belongs to another run; expected this run's id")


@each_protocol
def test_a_message_before_the_start_is_refused(protocol: str) -> None:
    _, _, chunks = asked(["a"], ["a"], protocol=protocol)
    right = responder(["a"], protocol=protocol)
    refused(right, chunks[0], psi.BadMessage, "this run is not started; expected nothing more")


@each_terms
def test_each_message_reflected_to_the_responder_is_refused(terms: TermsOf) -> None:
    left, right = both(["a", "b"], ["a"], **terms)
    messages = carry(left, right, right.start())
    last = [reply for message in end(left) for reply in right.receive(message)]
    own = [message for message in (*messages, *last) if message[0] == Side.RESPONDER]
    assert {message[1] for message in own} >= {Kind.OFFER, Kind.ANSWERS, Kind.CONFIRM}
    for message in own:
        fresh, _ = started(["a"], **terms)
        refused(fresh, message, psi.WrongRole, "a message of the responder came to the responder")


@pytest.mark.parametrize("kind", [Kind.OFFER, Kind.ANSWERS, Kind.TAGS, Kind.ACK, Kind.CELLS, Kind.RESUMED])
@each_terms
def test_kinds_of_message_that_only_a_responder_says_are_refused(terms: TermsOf, kind: Kind) -> None:
    right, run = started(["a"], **terms)
    message = Writer(Side.INITIATOR, run).chunk(kind, 0, 1, bytes(16))
    refused(right, message, psi.BadMessage, f"sent a message of kind {kind.name.lower()} while")


@pytest.mark.parametrize("name", ["rsa, initiator", "ecdh, initiator", "ecdh, cardinality"])
def test_a_reveal_that_the_terms_do_not_have_is_refused(name: str) -> None:
    """An honest responder would not want to know; a dishonest one must not be able to say that it was told."""
    left, right = matched(["a", "b"], ["a", "b"], **TERMS[name])
    message = writer_of(next(left.reveal()), Side.INITIATOR).chunk(Kind.REVEAL, 0, 1, bytes(12))
    refused(right, message, psi.BadMessage, "kind reveal while this run is waiting for the reveal; expected .* confirm")


def _forged(run: bytes, tags: list[bytes], total: int | None = None) -> bytes:
    return chunk_of(Side.INITIATOR, Kind.REVEAL, run, tags, total=total)


@each_protocol
@pytest.mark.parametrize(
    ("tags", "fault"),
    [
        (lambda tag: [tag("a"), b"\xff" * 12], "a revealed tag is not one of ours"),
        (lambda tag: [bytes(12)], "a revealed tag is not one of ours"),
        (lambda tag: [tag("nobody")], "a revealed tag is not one of ours"),
        (lambda tag: [tag("a")[:8] + bytes(4)], "a revealed tag is not one of ours"),
        (lambda tag: [tag("a")] * 2, "repeated or out of order; expected ascending"),
        (lambda tag: sorted([tag("a"), tag("b")], reverse=True), "repeated or out of order; expected ascending"),
        (lambda tag: [bytes([i]) * 12 for i in range(3)], "a declaration of 3 for the reveal items; expected 0 to 2"),
    ],
    ids=["made up", "zeros", "of an id we lack", "nearly ours", "repeated", "not ascending", "more than both have"],
)
def test_a_forged_reveal_is_refused(
    protocol: str, tags: Callable[[Callable[[str], bytes]], list[bytes]], fault: str
) -> None:
    left, right = matched(["a", "b"], ["a", "b", "c"], protocol=protocol)
    run = run_of(next(left.reveal([])))
    refused(right, _forged(run, tags(lambda each: tag_of(each, protocol))), psi.BadMessage, fault)


@each_protocol
def test_more_tags_than_we_have_ids_are_refused(protocol: str) -> None:
    left, right = matched(["a", "b", "c"], ["a", "b"], protocol=protocol)
    run = run_of(next(left.reveal([])))
    refused(right, _forged(run, [bytes(12)], total=3), psi.BadMessage, "a declaration of 3 for .*; expected 0 to 2")


@each_protocol
def test_a_tag_repeated_across_reveal_messages_is_refused(protocol: str) -> None:
    left, right = matched(["a", "b"], ["a", "b", "c"], protocol=protocol)
    run, tag = run_of(next(left.reveal([]))), tag_of("a", protocol)
    assert not answers(right, [_forged(run, [tag], total=2)])
    message = chunk_of(Side.INITIATOR, Kind.REVEAL, run, [tag], position=1, total=2)
    refused(right, message, psi.BadMessage, "a revealed tag is repeated or out of order")


@each_protocol
def test_a_reveal_that_goes_on_after_its_end_is_refused(protocol: str) -> None:
    left, right = matched(["a", "b"], ["a", "b", "c"], protocol=protocol)
    first, last = sorted([tag_of("a", protocol), tag_of("b", protocol)])
    run = run_of(next(left.reveal([])))
    answers(right, [_forged(run, [first])])
    message = chunk_of(Side.INITIATOR, Kind.REVEAL, run, [last], position=1, total=1)
    refused(right, message, psi.BadMessage, "a message of 1 of the reveal items; expected 1 to 0")


@each_protocol
def test_a_confirm_without_a_reveal_is_refused(protocol: str) -> None:
    _, right, (reveal, confirm) = revealed(["a", "b"], ["a", "c"], protocol=protocol)
    assert reveal[1] == Kind.REVEAL
    refused(right, confirm, psi.BadMessage, "confirms what it has not revealed; expected a reveal")


@each_protocol
def test_a_confirm_after_half_of_the_reveal_is_refused(protocol: str) -> None:
    ids = [str(i) for i in range(7)]
    _, right, (first, _, confirm) = revealed(ids, ids, protocol=protocol)
    answers(right, [first])
    refused(right, confirm, psi.BadMessage, "confirms what it has not revealed; expected a reveal")


@each_protocol
def test_an_id_lost_from_the_reveal_on_the_way_shows(protocol: str) -> None:
    _, right, (reveal, confirm) = revealed(["a", "b", "x"], ["a", "b", "y"], protocol=protocol)
    lost = with_items(declared(reveal, total=1), 12, lambda items: items[1:])
    assert not answers(right, [lost])
    refused(right, confirm, psi.ResultMismatch, "the parties' results differ")


@each_protocol
def test_an_id_added_to_the_reveal_on_the_way_shows(protocol: str) -> None:
    """Anybody who saw the responder's tags pass could add one of them."""
    left, right = matched(["a", "b", "x"], ["a", "b", "y"], protocol=protocol)
    reveal, confirm = left.reveal(["a"])
    message = chunk_of(
        Side.INITIATOR, Kind.REVEAL, run_of(reveal), sorted(tag_of(each, protocol) for each in ("a", "b"))
    )
    assert not answers(right, [message])
    refused(right, confirm, psi.ResultMismatch, "the parties' results differ")


@each_protocol
def test_an_id_exchanged_in_the_reveal_on_the_way_shows(protocol: str) -> None:
    left, right = matched(["a", "b", "x"], ["a", "b", "y"], protocol=protocol)
    reveal, confirm = left.reveal(["a"])
    assert not answers(right, [with_items(reveal, 12, lambda _: [tag_of("b", protocol)])])
    refused(right, confirm, psi.ResultMismatch, "the parties' results differ")


@each_protocol
@pytest.mark.parametrize("guessed", ["c", "somebody"], ids=["right guess of the id", "wrong guess"])
def test_an_initiator_cannot_claim_an_id_that_it_does_not_have(protocol: str, guessed: str) -> None:
    """It can take any tag from the responder's list and reveal it, and it may even guess whose tag that is. But the
    digest that it has to show holds the companion, which only those can compute who asked for this very id."""
    left, right = both(["a", "b"], ["b", "c"], protocol=protocol)
    told = of_kind(carry(left, right, right.start()), Kind.TAGS)
    tags = sorted(item[:12] for message in told for item in items_of(message, 16))
    assert tag_of("c", protocol) in tags
    claimed = [("b", output_of("b", protocol)), (guessed, tag_of("c", protocol) + bytes(20))]
    assert left._asker is not None
    lie = left._digest(Side.INITIATOR, left._asker.context, 2, result_digest(claimed))
    own = Writer(Side.INITIATOR, run_of(told[0]))
    assert not answers(right, [own.chunk(Kind.REVEAL, 0, 2, b"".join(tags))])
    refused(right, own.confirm(2, lie), psi.ResultMismatch, "the parties' results differ")


def test_the_claim_of_the_last_test_passes_with_the_companion() -> None:
    """So it is the companion that makes the claim fail, not another mistake of the test."""
    left, right = both(["a", "b"], ["b", "c"])
    told = of_kind(carry(left, right, right.start()), Kind.TAGS)
    claimed = [(each, output_of(each)) for each in ("b", "c")]
    assert left._asker is not None
    truth = left._digest(Side.INITIATOR, left._asker.context, 2, result_digest(claimed))
    own = Writer(Side.INITIATOR, run_of(told[0]))
    tags = sorted(tag_of(each) for each in ("b", "c"))
    answers(right, [own.chunk(Kind.REVEAL, 0, 2, b"".join(tags)), own.confirm(2, truth)])
    assert right.intersection == ["b", "c"]


@each_terms
@pytest.mark.parametrize("position", [HEAD + 8, -1], ids=["first byte of the digest", "last"])
def test_a_digest_changed_on_the_way_to_the_responder_shows(terms: TermsOf, position: int) -> None:
    left, right = both(["a", "b"], ["b", "c"], **terms)
    carry(left, right, right.start())
    *reveal, confirm = end(left)
    answers(right, reveal)
    refused(right, flipped(confirm, position), psi.ResultMismatch, "Use neither result")


@each_terms
def test_a_count_changed_on_the_way_to_the_responder_shows(terms: TermsOf) -> None:
    left, right = both(["a", "b"], ["b", "c"], **terms)
    carry(left, right, right.start())
    *reveal, confirm = end(left)
    answers(right, reveal)
    count, digest = read_confirm(confirm[HEAD:])
    message = writer_of(confirm, Side.INITIATOR).confirm(count + 1, digest)
    refused(right, message, psi.ResultMismatch, "the parties' results differ")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("rsa", 0),
        ("rsa", 2),
        ("ecdh", 2**64 - 1),
        ("rsa, initiator", 1),
        ("ecdh, initiator", 1),
    ],
)
def test_a_count_that_cannot_be_is_refused_though_its_digest_fits(name: str, count: int) -> None:
    """The initiator itself lies: the digest fits its count."""
    left, right = matched(["a", "b"], ["b", "c", "d"], **TERMS[name])
    assert left._asker is not None and left._questions is not None
    row = output_of("b", left.terms.protocol)
    result = result_digest([("b", row)]) if left.terms.reveal == "both" else b""
    lie = left._digest(Side.INITIATOR, left._asker.context, count, result)
    *reveal, confirm = left.reveal()
    answers(right, reveal)
    message = writer_of(confirm, Side.INITIATOR).confirm(count, lie)
    refused(right, message, psi.ResultMismatch, "the parties' results differ")


@pytest.mark.parametrize(("ids", "peer_ids"), [("ab", "bcd"), ("abc", "bd")], ids=["than it has", "than we have"])
def test_a_number_of_more_shared_ids_is_refused_though_its_digest_fits(ids: str, peer_ids: str) -> None:
    left, right = matched(list(ids), list(peer_ids), **TERMS["ecdh, cardinality"])
    assert left._asker is not None
    lie = left._digest(Side.INITIATOR, left._asker.context, 3, b"")
    (confirm,) = left.reveal()
    message = writer_of(confirm, Side.INITIATOR).confirm(3, lie)
    refused(right, message, psi.ResultMismatch, "the parties' results differ")


def test_a_number_that_could_be_is_all_that_a_lying_initiator_can_claim() -> None:
    """Where only a number is revealed the responder has nothing to hold it against."""
    left, right = matched(["a", "b"], ["b", "c", "d"], **TERMS["ecdh, cardinality"])
    assert left._asker is not None
    lie = left._digest(Side.INITIATOR, left._asker.context, 2, b"")
    (confirm,) = left.reveal()
    answers(right, [writer_of(confirm, Side.INITIATOR).confirm(2, lie)])
    assert right.cardinality == 2


@each_terms
def test_the_responders_own_digest_sent_back_to_it_does_not_fit(terms: TermsOf) -> None:
    left, right = both(["a", "b"], ["b", "c"], **terms)
    carry(left, right, right.start())
    *reveal, confirm = end(left)
    answers(right, reveal)
    assert left._closing is not None
    count, _ = read_confirm(confirm[HEAD:])
    message = writer_of(confirm, Side.INITIATOR).confirm(count, left._closing._theirs)
    refused(right, message, psi.ResultMismatch, "the parties' results differ")


@each_terms
def test_a_confirm_of_another_length_is_refused(terms: TermsOf) -> None:
    for size in (39, 41):
        left, right = both(["a", "b"], ["b", "c"], **terms)
        carry(left, right, right.start())
        *reveal, confirm = end(left)
        answers(right, reveal)
        message = (confirm + b"\0")[: HEAD + size]
        refused(right, message, psi.BadMessage, f"a confirm of {size} bytes; expected 40")


@each_protocol
def test_elements_exchanged_on_the_way_show_at_the_end(protocol: str) -> None:
    """The responder cannot tell; the initiator may not either, if the answers are exchanged back."""
    left, right = both(["a", "b", "x"], ["a", "b", "y"], protocol=protocol)
    left._chunk = AT_ONCE
    (chunk,) = answers(left, right.start())
    signed, *tags = answers(right, [with_items(chunk, WIDTH[protocol], swapped(0, 1))])
    answers(left, [with_items(signed, WIDTH[protocol], swapped(0, 1)), *tags])
    reveal, confirm = left.reveal()
    answers(right, [reveal])
    refused(right, confirm, psi.ResultMismatch, "the parties' results differ")


@each_terms
def test_a_message_replayed_after_the_end_is_refused_and_the_result_stays(terms: TermsOf) -> None:
    left, right = both(["a", "b"], ["b", "c"], **terms)
    messages = carry(left, right, right.start())
    last = end(left)
    answers(right, last)
    assert right.finished
    for message in [each for each in (*messages, *last) if each[0] == Side.INITIATOR]:
        with pytest.raises(psi.BadMessage, match="while this run is finished"):
            right.receive(message)
    assert right.finished
    if right.terms.reveal == "both":
        assert right.intersection == ["b"]


# The link is lost, says the initiator.


def _resume(run: bytes, answered: int, told: int, *, attempt: int = 1) -> bytes:
    return Writer(Side.INITIATOR, run, attempt).pair(Kind.RESUME, answered, told)


@each_terms
def test_a_resume_with_more_tags_than_were_sent_is_refused(terms: TermsOf) -> None:
    right, run = started(["a", "b"], **terms)
    refused(right, _resume(run, 0, 1), psi.BadMessage, "has tags that were not sent; expected no more")


@each_protocol
def test_a_resume_after_answers_that_were_not_given_is_refused(protocol: str) -> None:
    right, run = started(["a", "b"], protocol=protocol)
    answers(right, [ask(protocol, run, good(protocol, 2), ids=9)])
    for answered in (1, 3):
        text = "asks for answers that it must have; expected the last ones"
        with pytest.raises(psi.BadMessage, match=text):
            right.receive(_resume(run, answered, 0))
        over(right)
        right, run = started(["a", "b"], protocol=protocol)
        answers(right, [ask(protocol, run, good(protocol, 2), ids=9)])


@each_protocol
def test_a_resume_from_answers_that_are_not_kept_any_more_is_refused(protocol: str) -> None:
    right, run = started(["a", "b"], protocol=protocol)
    chunks = [ask(protocol, run, good(protocol, 1, first=at), position=at, ids=40) for at in range(17)]
    answers(right, chunks)
    refused(right, _resume(run, 0, 0), psi.BadMessage, "asks for answers that it must have; expected the last ones")


@each_protocol
def test_a_resume_asks_no_new_questions(protocol: str) -> None:
    """It gets the answers that were given, again; never one more than was declared."""
    right, run = started(["a", "b"], protocol=protocol)
    first = answers(right, [ask(protocol, run, good(protocol, 2), ids=9)])
    _, *again = answers(right, [_resume(run, 0, 0)])
    assert [message[HEAD:] for message in of_kind(again, Kind.ANSWERS)] == [
        message[HEAD:] for message in of_kind(first, Kind.ANSWERS)
    ]
    message = blinded(run, good(protocol, 2), total=9 + SPOTS[protocol], attempt=1)
    refused(right, message, psi.BadMessage, "blinded items from position 0 came; expected position 2")


@each_protocol
def test_the_offer_is_not_given_again_to_one_that_answered_it(protocol: str) -> None:
    right, run = started(["a", "b"], protocol=protocol)
    answers(right, [ask(protocol, run, good(protocol, 2), ids=9)])
    refused(right, _resume(NO_RUN, 0, 0), psi.BadMessage, "asks for the offer again, which it has answered")


@each_terms
def test_a_message_of_an_attempt_that_was_not_begun_is_refused(terms: TermsOf) -> None:
    right, run = started(["a", "b"], **terms)
    message = blinded(run, good(terms["protocol"], 2), total=40, attempt=1)
    refused(right, message, psi.BadMessage, "of an attempt that was not begun; expected one of this attempt")


@each_protocol
def test_a_resume_of_another_run_is_refused(protocol: str) -> None:
    right, run = started(["a", "b"], protocol=protocol)
    refused(right, _resume(flipped(run, 0), 0, 0), psi.BadMessage, "belongs to another run")


def test_a_resume_of_another_length_is_refused() -> None:
    right, run = started(["a", "b"])
    refused(right, _resume(run, 0, 0)[:-1], psi.BadMessage, "a resume of 15 bytes; expected 16")


@each_terms
def test_a_resume_after_the_end_gives_the_last_word_and_nothing_else(terms: TermsOf) -> None:
    left, right = both(["a", "b"], ["b", "c"], **terms)
    carry(left, right, right.start())
    last = end(left)
    (word,) = answers(right, last)
    resumed, again = answers(right, [_resume(run_of(word), 0, 0)])
    assert resumed[1] == Kind.RESUMED and again[1] == Kind.CONFIRM and again[HEAD:] == word[HEAD:]
    with pytest.raises(psi.BadMessage, match="asks for the offer again"):
        right.receive(_resume(NO_RUN, 0, 0, attempt=2))
    assert right.finished


# Our own machine computes wrongly.


class _FaultyPower(plain.PlainPrivate):
    """The real private power until it has computed `sound` numbers; one bit of the next one is wrong."""

    sound = 0

    def __call__(self, elements: bytes) -> bytes:
        results = bytearray(super().__call__(elements))
        count = len(elements) // 256
        if 0 <= _FaultyPower.sound < count:
            results[256 * _FaultyPower.sound + 255] ^= 1
        _FaultyPower.sound -= count
        return bytes(results)


@pytest.fixture
def faulty_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def set_up(sound: int) -> None:
        monkeypatch.setattr(_FaultyPower, "sound", sound)
        monkeypatch.setattr("psi.rsa.engines.rsa_private", lambda numbers, engine: _FaultyPower(numbers))

    return set_up


def test_a_fault_in_the_powers_of_the_offer_never_leaves_the_machine(faulty_after: Callable[[int], None]) -> None:
    faulty_after(3)
    right = responder(["a", "b"])
    with pytest.raises(psi.ComputeFault, match=r"does not verify and was not sent; expected result\^e = element"):
        right.start()
    over(right)


def test_a_fault_in_an_answer_never_leaves_the_machine(faulty_after: Callable[[int], None]) -> None:
    """One wrong half of the remainder theorem would give p away: gcd(s^e - y, n) = p."""
    faulty_after(8 + 2)
    right, run = started(["a", "b"])
    refused(right, blinded(run, [5, 6, 7, 8]), psi.ComputeFault, "does not verify and was not sent")


def test_a_fault_in_our_own_powers_never_leaves_the_machine(faulty_after: Callable[[int], None]) -> None:
    """It would lose one of the shared ids."""
    faulty_after(8 + 1)
    right, _ = started(["a", "b"])
    with pytest.raises(psi.ComputeFault, match="does not verify and was not sent"):
        right.advance()
    over(right)


def test_a_key_with_a_wrong_half_gives_nothing_away() -> None:
    broken = replace(key(), d_q=key().d_q + 2)
    right = responder(["a"], numbers=broken)
    with pytest.raises(psi.ComputeFault, match="was not sent"):
        right.start()
    over(right)


def test_an_engine_that_fails_in_the_middle_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(plain.PlainCurve):
        def __call__(self, scalar: bytes, points: bytes) -> bytes:
            if len(points) > 64:
                raise psi.ComputeFault("broken")
            return super().__call__(scalar, points)

    def curve(engine: str | None) -> CurveMultiply:
        return Failing()

    right, run = started(["a"], protocol=ECDH)
    monkeypatch.setattr("psi.ecdh.engines.curve", curve)
    answers(right, [ask(ECDH, run, good(ECDH, 2), ids=9)])
    refused(right, ask(ECDH, run, good(ECDH, 3, first=2), position=2, ids=9), psi.ComputeFault, "broken")


def test_an_interrupted_run_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only errors of psi: what was half done must not be taken up again."""

    def interrupted(engine: str | None) -> CurveMultiply:
        raise KeyboardInterrupt

    right, run = started(["a"], protocol=ECDH)
    monkeypatch.setattr("psi.ecdh.engines.curve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(right.receive(ask(ECDH, run, good(ECDH, 2), ids=9)))
    over(right)


def test_a_private_key_does_not_show_itself() -> None:
    numbers: RsaNumbers = key()
    assert str(numbers.p) not in repr(numbers) and "d_p" not in repr(numbers)
    right, _ = started(["a"])
    assert right._own is not None and str(numbers.p) not in repr(right._own._holder)


MANY = [str(i) for i in range(128)]
"""As many as a run shares out among threads."""


def test_threads_end_with_the_failed_run() -> None:
    left, right = initiator(MANY, workers=2, chunk=128), responder(MANY, workers=2, chunk=128)
    offer = next(right.start())
    next(right.advance())
    assert len(answers(left, [offer])) == 1
    for run in (left, right):
        assert run._workers._own is not None
        refused(run, b"garbage", psi.BadMessage, "7 bytes long")


def test_threads_and_key_end_with_the_last_use_of_the_key() -> None:
    left, right = initiator(["1"], chunk=128), responder(MANY, workers=2, chunk=128)
    offer = next(right.start())
    next(right.advance())
    assert right._workers._own is not None and right._given_key is not None
    answers(right, answers(left, [offer]))
    assert right._workers._own is None and right._given_key is None
    assert right._answers is not None and right._answers._holder is None
    assert right._own is not None and right._own._holder is None


@each_protocol
def test_an_honest_run_beside_all_these_attacks_ends_well(protocol: str) -> None:
    left, right = matched(["a", "b", "x"], ["a", "b", "y"], protocol=protocol)
    finish(left, right)
    assert left.intersection == right.intersection == ["a", "b"] and left.finished and right.finished
    assert item_of("a", protocol)[:12] == tag_of("a", protocol)

"""One key answers one run, of as many questions as were declared: with `rsa` and `ecdh`, between two and jointly.

What else a dishonest peer may send is in the `test_attacks_*` files; these are the ways to get more out of a key than
one intersection.
"""

from __future__ import annotations

import pytest

import psi
from psi.messages import Kind, Side
from psi.oprf import ECDH, RSA
from tests.psi.attacks import TERMS, ask, declared, end, good, refused
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
    initiator,
    items_of,
    key,
    matched,
    of_kind,
    point,
    responder,
    run_of,
    started,
)

each_terms = pytest.mark.parametrize(
    "terms", [TERMS[name] for name in ("rsa", "rsa, joint", "ecdh", "ecdh, joint")], ids=lambda terms: str(terms)
)
IDS = [str(number) for number in range(20)]


def over_with(terms: TermsOf) -> tuple[psi.Responder, list[bytes], list[bytes]]:
    """A responder that has finished a run, what the initiator asked it, and what it said last."""
    left, right, chunks = asked(IDS, IDS[:3], **terms)
    replies = answers(right, chunks)
    chunks += [message for message in carry(left, right, replies) if message[0] == Side.INITIATOR]
    last = end(left)
    assert answers(right, last) and right.finished
    return right, chunks, last


# More than was declared.


@each_terms
def test_a_question_more_than_declared_is_refused(terms: TermsOf) -> None:
    right, run = started(["a"], **terms)
    total = SPOTS[terms["protocol"]] + 2
    message = blinded(run, good(terms["protocol"], total + 1), total=total)
    refused(right, message, psi.BadMessage, f"a message of {total + 1} of the blinded items; expected 1 to {total}")


@each_terms
def test_a_question_after_the_declared_ones_is_refused(terms: TermsOf) -> None:
    right, run = started(["a"], **terms)
    total = SPOTS[terms["protocol"]] + 2
    answers(right, [blinded(run, good(terms["protocol"], total))])
    message = blinded(run, good(terms["protocol"], 1, first=total), position=total, total=total + 1)
    refused(right, message, psi.BadMessage, "kind blinded while this run is waiting for the reveal")


@each_terms
def test_a_declaration_that_grows_on_the_way_is_refused(terms: TermsOf) -> None:
    _, right, chunks = asked(IDS, ["a"], **terms)
    answers(right, chunks[:1])
    total = len(IDS) + SPOTS[terms["protocol"]]
    refused(right, declared(chunks[1], total=total + 1), psi.BadMessage, f"a second declaration of {total + 1} for")


@each_terms
def test_more_items_of_the_responder_than_it_offered_are_refused(terms: TermsOf) -> None:
    left, right, chunks = asked(["a"], IDS, **terms)
    said = answers(right, chunks)
    kind = Kind.CELLS if terms.get("joint") else Kind.TAGS
    last = of_kind(said, kind)[-1]
    answers(left, said[: said.index(last)])
    refused(left, last + bytes(16), psi.BadMessage, f"a message of .* of the {kind.name.lower()} items; expected 1 to")


@each_terms
def test_more_items_revealed_than_either_party_has_are_refused(terms: TermsOf) -> None:
    _, right = matched(["a", "b"], ["a"], **terms)
    run = right._writer.run
    tags = sorted([bytes(12), b"\1" * 12])
    message = chunk_of(Side.INITIATOR, Kind.REVEAL, run, tags)
    refused(right, message, psi.BadMessage, "a declaration of 2 for the reveal items; expected 0 to 1")


# Outside the group.

OUTSIDE: dict[str, list[int | bytes]] = {
    RSA: [0, 1, key().n - 1, key().n, key().p],
    ECDH: [point(0), point(1), point(2**255 - 20), point(2**255 - 19), point(2), b"\xff" * 32],
}


@each_terms
def test_an_element_outside_the_group_is_refused_wherever_it_stands(terms: TermsOf) -> None:
    for bad in OUTSIDE[terms["protocol"]]:
        for place in (0, 2):
            right, run = started(["a"], **terms)
            items = good(terms["protocol"], 2)
            message = ask(terms["protocol"], run, [*items[:place], bad, *items[place:]], ids=9)
            refused(right, message, psi.BadElement, "element .* of the peer|point at position")


@each_terms
def test_an_answer_outside_the_group_is_refused(terms: TermsOf) -> None:
    width = WIDTH[terms["protocol"]]
    for bad in OUTSIDE[terms["protocol"]]:
        left, right, chunks = asked(IDS, ["a"], **terms)
        reply = of_kind(answers(right, chunks), Kind.ANSWERS)[0]
        spelled = bad if isinstance(bad, bytes) else bad.to_bytes(width, "big")
        refused(left, reply[:-width] + spelled, psi.BadElement, "expected")


# A second run against one key.


@each_terms
def test_a_run_cannot_be_started_twice(terms: TermsOf) -> None:
    right, _ = started(["a"], **terms)
    with pytest.raises(psi.UsedTwice, match="this run was started before; expected one start"):
        right.start()


@each_terms
def test_the_questions_of_a_finished_run_are_not_answered_again(terms: TermsOf) -> None:
    right, chunks, last = over_with(terms)
    for message in (*chunks, *last):
        with pytest.raises(psi.BadMessage, match="while this run is finished; expected"):
            list(right.receive(message))
    assert right.finished


@each_terms
def test_a_second_initiator_that_has_the_offer_gets_no_run_of_its_own(terms: TermsOf) -> None:
    """Not in the middle of the first one's questions, and not after its run."""
    left, right = initiator(IDS, **terms), responder(IDS[:3], **terms)
    offer = next(right.start())
    chunks = list(left.receive(offer))
    other = list(initiator(["x", "y"], seed=b"another", **terms).receive(offer))
    answers(right, chunks[:1])
    position = len(items_of(chunks[0], WIDTH[terms["protocol"]]))
    refused(right, other[0], psi.BadMessage, rf"a second declaration of .*|came; expected position {position}")

    right, chunks, _ = over_with(terms)
    run = run_of(chunks[0])
    later = [message[:3] + run + message[HEAD:] for message in other]
    with pytest.raises(psi.BadMessage, match="kind blinded while this run is finished"):
        list(right.receive(later[0]))


@each_terms
def test_a_run_that_failed_answers_nobody(terms: TermsOf) -> None:
    _, right, chunks = asked(IDS, ["a"], **terms)
    with pytest.raises(psi.PsiError):
        right.receive(chunks[1])
    for message in chunks:
        with pytest.raises(psi.UsedTwice, match="this run failed earlier; expected no further use"):
            right.receive(message)


@each_terms
def test_a_resume_starts_no_second_run(terms: TermsOf) -> None:
    """What was answered longer ago than a window is not answered again, nor is anything new asked for its place."""
    left, right, chunks = asked(IDS, IDS[:3], **terms)
    answers(right, chunks)
    answers(right, [left.resume()])
    again = chunks[0][:2] + b"\1" + chunks[0][3:]  # the first question, in the attempt that was just begun
    refused(right, again, psi.BadMessage, "kind blinded while this run is|from position 0 came; expected position")


# A second task under the same key.


@each_terms
@pytest.mark.parametrize("other", [{"task": "task-8"}, {"session": b"another session"}], ids=["task", "session"])
def test_questions_of_another_task_are_not_answered_under_the_same_key(terms: TermsOf, other: dict[str, str]) -> None:
    elsewhere = responder(["a"], **terms, **other)  # type: ignore[arg-type]  # one of two keywords
    asks = initiator(IDS, **terms, **other)  # type: ignore[arg-type]  # the same one
    foreign = answers(asks, elsewhere.start())
    right, _ = started(["a"], **terms)  # the same key and seed: only the task differs
    refused(right, foreign[0], psi.BadMessage, "the peer's message belongs to another run")


@each_terms
@pytest.mark.parametrize("other", [{"task": "task-8"}, {"session": b"another session"}], ids=["task", "session"])
def test_the_offer_of_another_task_is_not_taken(terms: TermsOf, other: dict[str, str]) -> None:
    offer = next(responder(["a"], **terms, **other).start())  # type: ignore[arg-type]  # one of two keywords
    refused(initiator(IDS, **terms), offer, psi.BadMessage, "another task or session")


@each_terms
def test_a_responder_makes_a_key_of_its_own_for_every_run(terms: TermsOf) -> None:
    publics = set()
    for _ in range(2):
        right = psi.Responder(
            ["a"],
            task="task-7",
            session=b"a session of sixteen or more bytes",
            protocol=terms["protocol"],
            joint=[bytes(32)] if terms.get("joint") else None,
        )
        publics.add(next(right.start())[HEAD + 4 + 16 + 8 :])
        right.close()
    assert len(publics) == 2


def test_the_pair_keys_of_two_tasks_differ_though_the_parties_keep_theirs() -> None:
    one, other = psi.PairKey(), psi.PairKey()
    session = b"a session of sixteen or more bytes"
    keys = {one.shared(other.public, task=task, session=session) for task in ("task-7", "task-8")}
    assert len(keys) == 2


@each_terms
def test_an_honest_run_beside_these_abuses_ends_well(terms: TermsOf) -> None:
    right, _, _ = over_with(terms)
    assert right.cardinality == (0 if terms.get("joint") else 3)

"""A run goes on after its link was lost, wherever that was, from what both have; and nobody gains by asking for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import psi
from psi.messages import MAX_ATTEMPT, Kind, Side, Writer
from psi.oprf import PROTOCOLS
from psi.run import WINDOW
from tests.psi.helpers import (
    SESSION,
    WIDTH,
    answers,
    asked,
    blinded,
    carry,
    finish,
    initiator,
    matched,
    of_kind,
    responder,
    run_of,
)
from tests.psi.lossy import (
    ATTEMPT,
    IDLE_WORK_FIRST,
    IDLE_WORK_NEVER,
    MOVES,
    QUESTIONS_FIRST,
    TERMS,
    Act,
    Lossy,
    counted,
)

CHUNKS = {"rsa": (2, 3), "ecdh": (13, 2)}
"""Of initiator and responder: two or three messages of each kind, of which some are not full."""
OWN, OTHERS = ["a", "b", "c", "d", "e"], ["c", "x", "e", "a"]
Pair = tuple[psi.Initiator, psi.Responder]
Make = Callable[[], Pair]


def pair_of(
    protocol: str,
    reveal: str = "both",
    ids: Sequence[str] = OWN,
    peer_ids: Sequence[str] = OTHERS,
    *,
    chunks: tuple[int, int] | None = None,
    joint: Sequence[bytes] | None = None,
    session: bytes = SESSION,
) -> Pair:
    first, second = chunks or CHUNKS[protocol]
    left = initiator(ids, session=session, protocol=protocol, reveal=reveal, chunk=first, joint=joint is not None)
    right = responder(
        peer_ids,
        session=session,
        protocol=protocol,
        reveal=reveal,
        chunk=second,
        joint=False if joint is None else joint,
    )
    return left, right


def every_cut(make: Callable[[], Lossy], moves: Sequence[Act]) -> Iterator[Lossy]:
    """The run with a cut before its first act, the same with one after it, and so on, each gone on with to its end."""
    whole = make().run(moves)
    for acts in range(whole + 1):
        link = make()
        assert link.run(moves, limit=acts) == acts
        link.act(Act.CUT)
        link.finish(moves)
        yield link


# Cut anywhere


@pytest.mark.parametrize("moves", [IDLE_WORK_FIRST, QUESTIONS_FIRST], ids=["idle work first", "questions first"])
@pytest.mark.parametrize(("protocol", "reveal"), TERMS)
def test_a_run_that_is_cut_anywhere_goes_on_and_computes_nothing_twice(
    protocol: str, reveal: str, moves: Sequence[Act]
) -> None:
    runs = 1  # the one that counts the acts
    with counted() as work:
        for link in every_cut(lambda: Lossy(*pair_of(protocol, reveal), late=True), moves):
            link.check(OWN, OTHERS)
            runs += 1
    assert runs > 20
    work.check(protocol, reveal, len(OWN), len(OTHERS), runs=runs)


@pytest.mark.parametrize(
    ("ids", "peer_ids"),
    [([], []), ([], ["x", "y", "z", "v"]), (["a", "b", "c"], []), (["a"], ["a"]), (["a", "b", "c"], ["x"])],
    ids=["nobody has any", "none asked", "none told", "one", "none shared"],
)
@pytest.mark.parametrize(
    ("protocol", "reveal", "moves"),
    [
        ("rsa", "both", IDLE_WORK_FIRST),
        ("rsa", "initiator", QUESTIONS_FIRST),
        ("ecdh", "cardinality", IDLE_WORK_NEVER),
    ],
    ids=["rsa-both", "rsa-initiator", "ecdh-cardinality"],
)
def test_a_run_of_few_or_no_ids_that_is_cut_anywhere_goes_on(
    protocol: str, reveal: str, moves: Sequence[Act], ids: list[str], peer_ids: list[str]
) -> None:
    for link in every_cut(lambda: Lossy(*pair_of(protocol, reveal, ids, peer_ids), late=True), moves):
        link.check(ids, peer_ids)


@pytest.mark.parametrize(
    ("protocol", "reveal", "moves"),
    [("rsa", "initiator", QUESTIONS_FIRST), ("ecdh", "both", IDLE_WORK_FIRST)],
    ids=["rsa", "ecdh"],
)
def test_a_joint_run_that_is_cut_anywhere_goes_on(protocol: str, reveal: str, moves: Sequence[Act]) -> None:
    """One of two responders' links is cut; the other's run waits for it."""
    keys, peers = [bytes(range(32))], (["c", "x", "e", "a"], ["a", "b", "c"])
    second = pair_of(protocol, reveal, OWN, peers[1], joint=keys, chunks=(50, 200), session=b"of the other")
    others = Lossy(*second, reveal=lambda: None)
    others.run()
    assert others.left.matched

    def make() -> Lossy:
        left, right = pair_of(protocol, reveal, OWN, peers[0], joint=keys, chunks=(CHUNKS[protocol][0], 48))

        def reveal_joined() -> Iterator[bytes]:
            assert psi.join([left, others.left]) == ["a", "c"]
            return left.reveal()

        return Lossy(left, right, late=True, reveal=reveal_joined)

    for link in every_cut(make, moves):
        link.check(OWN, peers[0], shared=["a", "c"])
        assert not of_kind(link.said, Kind.TAGS)


@pytest.mark.parametrize(("protocol", "reveal"), TERMS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_run_that_is_cut_many_times_goes_on_and_computes_nothing_twice(
    protocol: str, reveal: str, data: st.DataObject
) -> None:
    own = data.draw(st.lists(st.integers(0, 9).map(str), max_size=8, unique=True), "own ids")
    others = data.draw(st.lists(st.integers(0, 9).map(str), max_size=8, unique=True), "peer's ids")
    least = 1 if protocol == "rsa" else 2  # so that a run may have more chunks than a window
    chunks = data.draw(st.tuples(st.integers(least, 12), st.integers(1, 5)), "chunks")
    acts = data.draw(st.lists(st.sampled_from([*MOVES, *MOVES, *MOVES, Act.CUT]), max_size=80), "acts")
    with counted() as work:
        link = Lossy(*pair_of(protocol, reveal, own, others, chunks=chunks), late=data.draw(st.booleans(), "late"))
        for act in acts:
            link.act(act)
        link.finish()
    link.check(own, others)
    work.check(protocol, reveal, len(own), len(others))


@pytest.mark.parametrize("after", [1, 16])
@pytest.mark.parametrize(("protocol", "reveal"), TERMS)
def test_a_run_that_is_cut_again_and_again_comes_to_its_end(protocol: str, reveal: str, after: int) -> None:
    """More chunks than a window, and a link that is lost after every few acts (later each time)."""
    ids, peer_ids = [str(i) for i in range(20)], [str(i) for i in range(0, 40, 2)]
    link = Lossy(*pair_of(protocol, reveal, ids, peer_ids, chunks=(1, 1)), late=True)
    while not link.finished and link.attempts < 200:
        link.run(limit=after + link.attempts)
        link.act(Act.CUT)
    link.finish()
    link.check(ids, peer_ids)
    assert link.attempts > 2


@pytest.mark.parametrize(("protocol", "reveal"), TERMS)
def test_a_window_whose_answers_are_all_lost_does_not_hold_the_run_up(protocol: str, reveal: str) -> None:
    ids = [str(i) for i in range(WINDOW + 4)]
    link = Lossy(*pair_of(protocol, reveal, ids, ["3"], chunks=(1, 1)))
    hears_nothing = [act for act in MOVES if act is not Act.INITIATOR_HEARS]
    assert link.run([Act.RESPONDER_SAYS, Act.INITIATOR_HEARS], limit=2) == 2
    for _ in range(2):
        link.run(hears_nothing)  # a window of chunks is answered (or acknowledged); nothing of it comes
        assert link.right._answers is not None and link.right._answers.computed == WINDOW
        link.act(Act.CUT)
    link.finish()
    link.check(ids, ["3"])
    assert link.attempts == 2


# Moments


def offer_of(right: psi.Responder) -> bytes:
    (offer,) = right.start()
    return offer


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_run_is_resumed_before_its_offer_came(protocol: str) -> None:
    left, right = pair_of(protocol)
    lost = offer_of(right)
    told = list(right.advance())  # and so are the first tags
    (offer,) = right.receive(left.resume())
    assert offer[ATTEMPT] == 1 and offer[3:] == lost[3:]
    assert list(left.receive(lost)) == list(left.receive(told[0])) == []  # late
    said = carry(left, right, [offer])
    finish(left, right)
    assert left.intersection == right.intersection == ["a", "c", "e"]
    assert all(message[ATTEMPT] == 1 for message in said)


def test_a_responder_that_begins_after_the_resume_offers_again() -> None:
    left, right = pair_of("ecdh")
    request = left.resume()
    assert list(left.receive(offer_of(right))) == []
    carry(left, right, right.receive(request))
    finish(left, right)
    assert left.intersection == right.intersection == ["a", "c", "e"]


def test_an_offer_that_came_is_not_asked_for_again() -> None:
    left, right = pair_of("rsa")
    list(left.receive(offer_of(right)))  # and the first questions are lost
    assert list(right.receive(left.resume())) == [Writer(Side.RESPONDER, left._writer.run, 1).pair(Kind.RESUMED, 0, 0)]


def test_a_resume_is_answered_with_what_came_and_then_with_what_did_not() -> None:
    left, right, questions = asked(OWN, OTHERS)
    replies = answers(right, questions[:1])
    answers(left, replies)
    lost = answers(right, questions[1:])
    assert [message[1] for message in lost] == [Kind.ANSWERS, Kind.TAGS]
    resumed, *repeated = right.receive(left.resume())
    assert resumed == Writer(Side.RESPONDER, run_of(resumed), 1).pair(Kind.RESUMED, 5, 0)
    assert [message[:2] + b"\0" + message[3:] for message in repeated] == lost
    assert {message[ATTEMPT] for message in repeated} == {1}


@pytest.mark.parametrize(("protocol", "reveal"), TERMS)
def test_a_lost_last_word_is_said_again(protocol: str, reveal: str) -> None:
    left, right = matched(OWN, OTHERS, protocol=protocol, reveal=reveal)
    lost = answers(right, left.reveal())
    assert len(lost) == 1 and right.finished and not left.finished
    resumed, confirm = right.receive(left.resume())
    assert confirm[3:] == lost[0][3:]
    (own_word,) = left.receive(resumed)  # the initiator does not know yet that its own came
    assert own_word[1] == Kind.CONFIRM and list(right.receive(own_word)) == []
    assert list(left.receive(confirm)) == [] and left.finished and left.cardinality == 3


def test_a_word_that_is_repeated_without_a_resume_is_refused() -> None:
    left, right = matched(OWN, OTHERS)
    *_, confirm = left.reveal()
    with pytest.raises(psi.BadMessage, match="not revealed"):
        right.receive(confirm)
    left, right = matched(OWN, OTHERS, reveal="initiator")
    (confirm,) = left.reveal()
    assert list(right.receive(confirm))
    with pytest.raises(psi.BadMessage, match="expected a message of kind resume"):
        right.receive(confirm)
    assert right.finished


@pytest.mark.parametrize("reveal", ["both", "initiator"])
@pytest.mark.parametrize("ids", [["a", "b"], []], ids=["some shared", "none asked"])
def test_a_reveal_may_come_at_any_time_of_a_resume(reveal: str, ids: list[str]) -> None:
    for moment in ("before", "while it is under way", "after"):
        left, right = matched(ids, ["b", "a", "c"], reveal=reveal)
        gives = list(left.reveal()) if moment == "before" else []  # all lost
        request = left.resume()
        if moment == "while it is under way":
            assert list(left.reveal()) == []  # it waits for what the responder says
        (resumed,) = right.receive(request)
        gives = list(left.receive(resumed))
        if moment == "after":
            assert gives == []
            gives = list(left.reveal())
        for reply in answers(right, gives):
            assert list(left.receive(reply)) == []
        assert left.finished and right.finished and left.intersection == ids


def test_two_resumes_in_a_row_are_one() -> None:
    left, right, questions = asked(OWN, OTHERS)
    first_replies = answers(right, questions[:1])
    first, second = left.resume(), left.resume()
    old = list(right.receive(first))
    new = list(right.receive(second))
    assert answers(left, [*first_replies, *old]) == []  # of attempts that are over
    assert list(right.receive(first)) == list(right.receive(second)) == []  # late, and twice
    carry(left, right, new)
    finish(left, right)
    assert left.intersection == right.intersection == ["a", "c", "e"]


def test_nothing_is_said_between_a_resume_and_its_answer() -> None:
    left, right = pair_of("rsa", chunks=(1, 1))
    gives = left.receive(offer_of(right))
    next(gives)
    request = left.resume()
    assert list(gives) == []
    carry(left, right, right.receive(request))
    finish(left, right)
    assert left.intersection == ["a", "c", "e"]


def test_what_a_responder_had_begun_to_say_is_answered_after_the_resume() -> None:
    """It took a chunk in and was cut before it answered, so its answer comes without being asked for again."""
    left, right, questions = asked(OWN, OTHERS)
    for question in questions:
        right.receive(question)
    assert right._answers is not None and right._answers.computed == 0
    replies = list(right.receive(left.resume()))
    assert [message[1] for message in replies] == [Kind.RESUMED, Kind.ANSWERS, Kind.ANSWERS, Kind.TAGS]


def test_a_run_is_resumed_255_times_and_no_more() -> None:
    left, right, _ = asked(OWN, OTHERS, reveal="cardinality", protocol="ecdh")
    for attempt in range(1, MAX_ATTEMPT + 1):
        request = left.resume()
        assert request[ATTEMPT] == attempt
        replies = list(right.receive(request))
    with pytest.raises(psi.UsedTwice, match="cannot be resumed"):
        left.resume()
    carry(left, right, replies)
    finish(left, right)
    assert left.cardinality == right.cardinality == 3


def test_a_run_that_is_over_cannot_be_resumed() -> None:
    left, right = matched(OWN, OTHERS)
    finish(left, right)
    with pytest.raises(psi.UsedTwice, match="it is over"):
        left.resume()
    assert left.intersection == ["a", "c", "e"]
    left, _, _ = asked(OWN, OTHERS)
    left.close()
    with pytest.raises(psi.UsedTwice, match="failed earlier"):
        left.resume()


# Resumes that no honest initiator asks for


def resume_of(right: psi.Responder, answered: int, told: int, *, attempt: int = 1, run: bytes | None = None) -> bytes:
    return Writer(Side.INITIATOR, right._writer.run if run is None else run, attempt).pair(Kind.RESUME, answered, told)


@pytest.mark.parametrize(
    ("answered", "told"),
    [(6, 0), (5, 5), (2**64 - 1, 0), (0, 2**64 - 1), (1, 0), (3, 0), (1, 4)],
    ids=["never given", "never told", "huge", "huge told", "inside a chunk", "inside another", "inside, with tags"],
)
def test_a_resume_from_where_nobody_was_is_refused(answered: int, told: int) -> None:
    _, right, questions = asked(OWN, OTHERS)
    answers(right, questions)  # 5 answers in two chunks, 4 tags in one
    with pytest.raises(psi.BadMessage, match=r"that it must have|that were not sent"):
        right.receive(resume_of(right, answered, told))
    with pytest.raises(psi.UsedTwice):
        right.receive(questions[0])


@pytest.mark.parametrize("answered", [38, 2**64 - 1])
def test_a_resume_that_claims_shuffled_answers_which_were_not_given_is_refused(answered: int) -> None:
    _, right, questions = asked(OWN, OTHERS, protocol="ecdh", reveal="cardinality")
    replies = answers(right, questions)
    assert len(of_kind(replies, Kind.ANSWERS)) > 2
    with pytest.raises(psi.BadMessage, match="answers that were not sent"):
        right.receive(resume_of(right, answered, 0))
    _, right, questions = asked(OWN, OTHERS, protocol="ecdh", reveal="cardinality")
    answers(right, questions[:2])
    with pytest.raises(psi.BadMessage, match="answers that were not sent"):
        right.receive(resume_of(right, 4, 0))  # nothing may be given before all have come


def test_shuffled_answers_are_the_same_in_each_attempt_and_no_shuffle_is_made_twice() -> None:
    """Two orders of the same answers would tell more than one."""
    left, right, questions = asked(OWN, OTHERS, protocol="ecdh", reveal="cardinality")
    given = [message[19:] for message in of_kind(answers(right, questions), Kind.ANSWERS)]
    for attempt in (1, 2):
        replies = list(right.receive(left.resume()))
        assert [message[19:] for message in of_kind(replies, Kind.ANSWERS)] == given, attempt


def test_answers_older_than_a_window_are_not_given_again() -> None:
    left, right = pair_of("rsa", "both", [str(i) for i in range(WINDOW + 3)], ["1"], chunks=(1, 1))
    carry(left, right, right.start())
    with pytest.raises(psi.BadMessage, match="answers that it must have"):
        right.receive(resume_of(right, 2, 0))


def test_as_many_answers_as_a_window_holds_are_given_again() -> None:
    left, right = pair_of("rsa", "both", [str(i) for i in range(WINDOW + 3)], ["1"], chunks=(1, 1))
    said = of_kind(carry(left, right, right.start()), Kind.ANSWERS)
    replies = of_kind(right.receive(resume_of(right, 3, 0)), Kind.ANSWERS)
    assert [message[3:] for message in replies] == [message[3:] for message in said[3:]]


def test_an_offer_is_not_given_again_once_it_was_answered() -> None:
    _, right, questions = asked(OWN, OTHERS)
    right.receive(questions[0])
    with pytest.raises(psi.BadMessage, match="asks for the offer again"):
        right.receive(resume_of(right, 0, 0, run=bytes(16)))


def test_an_offer_that_is_given_again_is_the_same_key_and_nonce() -> None:
    right = responder(OTHERS, protocol="ecdh")
    first = offer_of(right)
    for attempt in (1, 9, 255):
        (again,) = right.receive(resume_of(right, 0, 0, attempt=attempt, run=bytes(16)))
        assert again == first[:2] + bytes([attempt]) + first[3:]


def test_a_resume_of_an_earlier_attempt_changes_nothing() -> None:
    _, right, questions = asked(OWN, OTHERS)
    list(right.receive(resume_of(right, 0, 0, attempt=7)))
    before = right.progress
    for attempt in (0, 3, 6, 7):
        assert list(right.receive(resume_of(right, 9, 9, attempt=attempt))) == []
    assert answers(right, questions) == []  # they are of attempt 0: dropped unread, like any bytes of then
    assert right.progress == before and right._blinded_in is not None and right._blinded_in.done == 0
    writer_run = right._writer.run
    replies = answers(right, [blinded(writer_run, [4, 5], attempt=7)])
    assert replies and all(message[ATTEMPT] == 7 for message in replies)


def test_a_message_of_an_attempt_that_nobody_began_is_refused() -> None:
    left, right, questions = asked(OWN, OTHERS)
    with pytest.raises(psi.BadMessage, match="not begun"):
        right.receive(questions[0][:ATTEMPT] + b"\1" + questions[0][ATTEMPT + 1 :])
    left, right, questions = asked(OWN, OTHERS)
    (first, *_) = answers(right, questions)
    with pytest.raises(psi.BadMessage, match="not begun"):
        left.receive(first[:ATTEMPT] + b"\1" + first[ATTEMPT + 1 :])


def test_elements_cannot_be_asked_twice_by_way_of_a_resume() -> None:
    """A resume does not make the responder forget what it was asked, nor where it is."""
    right = responder(OTHERS)
    run = run_of(offer_of(right))
    list(right.receive(blinded(run, [4, 5], total=9)))
    list(right.receive(resume_of(right, 2, 0)))
    with pytest.raises(psi.BadMessage, match="position 0 came; expected position 2"):
        right.receive(blinded(run, [4, 5], total=9, attempt=1))
    right = responder(OTHERS)
    list(right.receive(blinded(run_of(offer_of(right)), [4, 5], total=9)))
    list(right.receive(resume_of(right, 2, 0)))
    with pytest.raises(psi.BadElement, match="came before"):
        right.receive(blinded(run, [5], position=2, total=9, attempt=1))


def test_a_malformed_resume_is_refused() -> None:
    for size in (19, 34, 36):
        _, right, _ = asked(OWN, OTHERS)
        with pytest.raises(psi.BadMessage, match=f"a resume of {size - 19} bytes"):
            right.receive((resume_of(right, 0, 0) + b"\0")[:size])
    _, right, _ = asked(OWN, OTHERS)
    with pytest.raises(psi.BadMessage, match="another run"):
        right.receive(resume_of(right, 0, 0, run=bytes(15) + b"\1"))
    left, right, _ = asked(OWN, OTHERS)
    with pytest.raises(psi.WrongRole):
        left.receive(resume_of(right, 0, 0))


def test_a_faulty_resume_of_a_finished_run_leaves_its_result() -> None:
    left, right = matched(OWN, OTHERS)
    finish(left, right)
    for message in (resume_of(right, 0, 0, run=bytes(16)), resume_of(right, 0, 0)[:-1], b"", left.terms):
        with pytest.raises(psi.BadMessage):
            right.receive(message)  # type: ignore[arg-type]  # the last is no bytes
        assert right.finished and right.intersection == ["a", "c", "e"]
    assert [each[1] for each in right.receive(resume_of(right, 77, 77))] == [Kind.RESUMED, Kind.CONFIRM]


# Answers to a resume that no honest responder gives


def resumed(left: psi.Initiator, blinded_in: int, revealed: int = 0, *, attempt: int = 1) -> bytes:
    return Writer(Side.RESPONDER, left._writer.run, attempt).pair(Kind.RESUMED, blinded_in, revealed)


@pytest.mark.parametrize("position", [1, 3, 6, 2**64 - 1])
@pytest.mark.parametrize(
    ("protocol", "reveal", "more"), [("rsa", "both", 0), ("ecdh", "cardinality", 32)], ids=["rsa", "ecdh-cardinality"]
)
def test_a_resumed_from_where_no_chunk_ends_is_refused(protocol: str, reveal: str, more: int, position: int) -> None:
    left, _, _ = asked(OWN, OTHERS, protocol=protocol, reveal=reveal)  # 4 and 1 elements; 9 times 4 and 1
    left.resume()
    with pytest.raises(psi.BadMessage, match=r"ends no chunk|not sent|more than was sent"):
        left.receive(resumed(left, position + (more if position == 6 else 0)))
    with pytest.raises(psi.UsedTwice):
        left.resume()


def test_a_resumed_that_lost_what_was_answered_is_refused() -> None:
    for terms in ({"protocol": "rsa"}, {"protocol": "ecdh", "reveal": "cardinality"}):
        left, right, questions = asked(OWN, OTHERS, **terms)  # type: ignore[arg-type]  # mypy widens the dicts
        answers(left, answers(right, questions[:1]))
        left.resume()
        with pytest.raises(psi.BadMessage, match=r"lost what it answered|ends no chunk"):
            left.receive(resumed(left, 0))


def test_a_resumed_that_nobody_asked_for_is_refused() -> None:
    left, _, _ = asked(OWN, OTHERS)
    with pytest.raises(psi.BadMessage, match="not interrupted"):
        left.receive(resumed(left, 0, attempt=0))
    left, right, _ = asked(OWN, OTHERS)
    (first,) = right.receive(left.resume())
    list(left.receive(first))
    with pytest.raises(psi.BadMessage, match="not interrupted"):
        left.receive(first)


def test_a_resumed_with_more_revealed_than_there_is_is_refused() -> None:
    for reveal, most in (("both", 3), ("initiator", 0)):
        left, _ = matched(OWN, OTHERS, reveal=reveal)
        list(left.reveal())
        left.resume()
        with pytest.raises(psi.BadMessage, match="more tags than were revealed"):
            left.receive(resumed(left, 5, most + 1))


def test_a_faulty_answer_counts_like_any_other_after_a_resume() -> None:
    left, right, questions = asked(OWN, OTHERS)
    answers(right, questions)
    _, repeated, *_ = right.receive(left.resume())
    list(left.receive(resumed(left, 5)))
    with pytest.raises(psi.BadElement, match="does not verify"):
        left.receive(repeated[:-1] + bytes([repeated[-1] ^ 1]))


def test_a_responder_that_swaps_repeated_answers_is_found() -> None:
    left, right, questions = asked(OWN, OTHERS)
    answers(right, questions)
    _, repeated, *_ = right.receive(left.resume())
    list(left.receive(resumed(left, 5)))
    start, width = 35, WIDTH["rsa"]
    first, second = repeated[start : start + width], repeated[start + width : start + 2 * width]
    with pytest.raises(psi.BadElement, match="does not verify"):
        left.receive(repeated[:start] + second + first + repeated[start + 2 * width :])

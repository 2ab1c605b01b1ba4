"""What a run is for: the same sets as Python's own, for both protocols and two to six parties."""

from __future__ import annotations

import os
import random
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import psi
from psi import local
from psi.joint import Shares
from psi.messages import Kind
from psi.oprf import PROTOCOLS
from psi.run import WINDOW
from tests.psi.helpers import (
    SESSION,
    SPOTS,
    TASK,
    WIDTH,
    Seeded,
    answers,
    asked,
    carry,
    finish,
    initiator,
    items_of,
    key,
    matched,
    of_kind,
    responder,
)

RUNS = int(os.environ.get("HETEROFED_PSI_RUNS", "30"))
"""How many seeded random runs the last test does; 1000 takes a minute or two."""

TERMS = [("rsa", "both"), ("rsa", "initiator"), ("ecdh", "both"), ("ecdh", "initiator"), ("ecdh", "cardinality")]

shapes = st.sampled_from(
    [
        "a", "aa", "a\0", "\0", "\0a", "a\0a", "A", " a", "a ", "a\n", "\u00e9", "e\u0301", "\u1e69", "s\u0323\u0307",
        "\u212b", "\u00c5", "\uac00", "\u1100\u1161", "\ufb01", "fi", "\u0130", "i\u0307", "\U0001f600", "\ufeffa",
        "\u202ea", "\uffff", "7", "007", "7.0", "x" * 70_000, "x" * 70_000 + "y", "\u00e9" * 5000,
    ]
)  # fmt: skip
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
id_lists = st.lists(
    st.one_of(st.integers(0, 12).map(str), texts, shapes),
    max_size=14,
    unique_by=lambda each: unicodedata.normalize("NFC", each),
)
chunks = st.integers(1, 6)


def common(*lists: Sequence[str]) -> list[str]:
    """What Python says that all of them share."""
    return sorted(set.intersection(*({unicodedata.normalize("NFC", each) for each in ids} for ids in lists)))


def check_pair(
    own: Sequence[str],
    others: Sequence[str],
    left: psi.Initiator,
    right: psi.Responder,
    steps: Iterator[int] | None = None,
) -> None:
    """Run two parties to the end, and hold what each learns against Python's sets.

    Args:
        own: the initiator's ids.
        others: the responder's ids.
        left: the initiator.
        right: the responder.
        steps: how often the responder works on its own ids after each message that it takes.
    """
    expected, reveal, spots = common(own, others), left.terms.reveal, SPOTS[left.terms.protocol]
    waiting = list(right.start())
    while waiting:
        for message in left.receive(waiting.pop(0)):
            waiting += right.receive(message)
            for _ in range(next(steps, 0) if steps else 0):
                waiting += right.advance()
    assert left.matched and not left.finished and not right.finished and not right.busy
    assert finish(left, right)[-1][1] == Kind.CONFIRM
    assert left.finished and right.finished
    assert left.cardinality == len(expected)
    if reveal == "cardinality":
        assert right.cardinality == len(expected)
    else:
        assert left.intersection == expected
    if reveal == "both":
        assert right.intersection == expected and right.cardinality == len(expected)
    assert left.progress == psi.Progress(*[2 * (len(own) + spots) + len(others)] * 2)
    assert right.progress == psi.Progress(*[len(own) + spots + len(others)] * 2)
    assert (left.peer_count, right.peer_count) == (len(others), len(own))


@settings(max_examples=20, deadline=None)
@given(own=id_lists, others=id_lists, chunk=chunks, other_chunk=chunks)
@example(own=[], others=[], chunk=1, other_chunk=1)
@example(own=[], others=["a"], chunk=1, other_chunk=1)
@example(own=["a"], others=[], chunk=1, other_chunk=1)
@example(own=["a", "\0", "e\u0301"], others=["\u00e9", "\0", "a"], chunk=1, other_chunk=6)
@pytest.mark.parametrize(("protocol", "reveal"), TERMS)
def test_a_run_finds_exactly_the_set_intersection(
    protocol: str, reveal: str, own: list[str], others: list[str], chunk: int, other_chunk: int
) -> None:
    left = initiator(own, protocol=protocol, reveal=reveal, chunk=chunk)
    right = responder(others, protocol=protocol, reveal=reveal, chunk=other_chunk)
    check_pair(own, others, left, right)


@settings(max_examples=20, deadline=None)
@given(
    own=id_lists,
    others=id_lists,
    chunk=chunks,
    other_chunk=chunks,
    steps=st.lists(st.integers(0, 4), max_size=30),
    terms=st.sampled_from(TERMS),
)
@example(["a"], ["b"], 1, 1, [1], ("rsa", "both"))
@example(["a", "b"], ["b", "c", "d"], 1, 1, [4], ("ecdh", "cardinality"))
def test_work_done_while_waiting_changes_no_result(
    own: list[str], others: list[str], chunk: int, other_chunk: int, steps: list[int], terms: tuple[str, str]
) -> None:
    protocol, reveal = terms
    left = initiator(own, protocol=protocol, reveal=reveal, chunk=chunk)
    right = responder(others, protocol=protocol, reveal=reveal, chunk=other_chunk)
    check_pair(own, others, left, right, iter(steps))


@pytest.mark.parametrize("reveal", ["both", "cardinality"])
def test_the_responder_can_do_all_its_own_work_before_the_first_question(reveal: str) -> None:
    own, others = [str(i) for i in range(9)], [str(i) for i in range(5, 30)]
    left, right = initiator(own, protocol="ecdh", reveal=reveal), responder(others, protocol="ecdh", reveal=reveal)
    offer = next(right.start())
    tags = []
    while right.busy:
        tags += list(right.advance())
    assert len(of_kind(tags, Kind.TAGS)) == len(tags) == 7
    assert right.progress.done == 25
    assert list(right.advance()) == []
    questions = answers(left, [offer, *tags])  # all tags before any answer
    replies = answers(right, questions)
    assert not of_kind(replies, Kind.TAGS)
    answers(left, replies)
    finish(left, right)
    assert left.cardinality == right.cardinality == 4 and right.finished


def test_advance_does_nothing_before_the_start_and_after_the_end() -> None:
    right = responder(["a"])
    assert not right.busy and list(right.advance()) == []
    left, right = matched(["a"], ["a"])
    assert not right.busy and list(right.advance()) == []
    finish(left, right)
    assert not right.busy and list(right.advance()) == [] and right.intersection == ["a"]


@pytest.mark.parametrize(("sizes", "overlap"), [
    ((0, 5000), 0), ((5000, 0), 0), ((1, 5000), 1), ((5000, 1), 1), ((5000, 5000), 2500), ((3000, 2000), 0),
    ((1025, 1024), 1024),
])  # fmt: skip
def test_large_sets_with_ecdh(sizes: tuple[int, int], overlap: int) -> None:
    own = [f"id-{i}" for i in range(sizes[0])]
    others = [f"id-{i}" for i in range(sizes[0] - overlap, sizes[0] - overlap + sizes[1])]
    assert len(common(own, others)) == overlap
    left = initiator(own, protocol="ecdh", chunk=None, engine=None)
    right = responder(others, protocol="ecdh", chunk=1000, engine=None)
    check_pair(own, others, left, right)


@pytest.mark.parametrize(("sizes", "overlap"), [((0, 600), 0), ((600, 1), 1), ((520, 515), 300)])
def test_larger_sets_with_rsa(sizes: tuple[int, int], overlap: int) -> None:
    own = [f"id-{i}" for i in range(sizes[0])]
    others = [f"id-{i}" for i in range(sizes[0] - overlap, sizes[0] - overlap + sizes[1])]
    left = initiator(own, chunk=None, engine=None)
    right = responder(others, chunk=100, engine=None, workers=2)
    check_pair(own, others, left, right)


@settings(max_examples=25, deadline=None)
@given(own=id_lists, others=id_lists, protocol=st.sampled_from(PROTOCOLS), data=st.data())
def test_the_responder_learns_only_the_revealed_subset(
    own: list[str], others: list[str], protocol: str, data: st.DataObject
) -> None:
    left, right = matched(own, others, protocol=protocol)
    shared = left.intersection
    some = data.draw(st.lists(st.sampled_from(shared), unique=True)) if shared else []
    finish(left, right, some)
    assert right.intersection == sorted(some)
    assert right.cardinality == len(some)
    assert left.intersection == shared and left.cardinality == len(shared)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_reveal_of_none_is_a_result(protocol: str) -> None:
    for own, others in ((["a", "b"], ["c"]), (["a", "b"], ["b"]), (["a"], []), ([], ["a"]), ([], [])):
        left, right = matched(own, others, protocol=protocol)
        finish(left, right, [])
        assert left.finished and right.finished and right.intersection == [] and right.cardinality == 0
        assert left.intersection == common(own, others)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_reveal_takes_any_spelling_of_an_id(protocol: str) -> None:
    left, right = matched(["e\u0301", "b"], ["\u00e9", "b"], protocol=protocol)
    finish(left, right, iter(["e\u0301"]))
    assert right.intersection == ["\u00e9"]


def test_the_initiator_alone_learns_the_ids_where_the_terms_say_so() -> None:
    for protocol in PROTOCOLS:
        left, right = matched(["a", "b"], ["b"], protocol=protocol, reveal="initiator")
        said = finish(left, right)
        assert left.intersection == ["b"] and right.finished
        assert [message[1] for message in said] == [Kind.CONFIRM, Kind.CONFIRM]
        assert said[0][19:27] == bytes(8)  # not even how many
        for name in ("intersection", "cardinality"):
            with pytest.raises(psi.NotRevealed, match="not for this party to know"):
                getattr(right, name)


def test_a_number_alone_tells_nobody_which() -> None:
    left, right = matched(["a", "b"], ["b"], protocol="ecdh", reveal="cardinality")
    finish(left, right)
    assert left.cardinality == right.cardinality == 1
    for run in (left, right):
        with pytest.raises(psi.NotRevealed, match="reveal='cardinality'"):
            _ = run.intersection


def test_answers_of_a_run_for_a_number_come_in_another_order_than_the_questions() -> None:
    """Otherwise the initiator would know whose answer is whose, and so which ids are shared."""
    left = initiator([str(i) for i in range(40)], protocol="ecdh", reveal="cardinality", chunk=16)
    right = responder(["1"], protocol="ecdh", reveal="cardinality")
    offer = next(right.start())
    holder = right._answers._holder if right._answers else None
    assert holder is not None
    questions = answers(left, [offer])
    replies = answers(right, questions)
    asked_for = [item for message in questions for item in items_of(message, 32)]
    given_back = [item for message in of_kind(replies, Kind.ANSWERS) for item in items_of(message, 32)]
    in_order = [holder.answer(item) for item in asked_for]
    assert sorted(given_back) == sorted(in_order) and len(given_back) == 72
    assert sum(one == other for one, other in zip(given_back, in_order, strict=True)) < 10
    first_answer = next(at for at, message in enumerate(replies) if message[1] == Kind.ANSWERS)
    assert [message[1] for message in replies[:first_answer]] == [Kind.ACK] * len(questions)


# Many parties


def joint_keys(count: int) -> list[list[bytes]]:
    """For each of so many responders its keys with the others."""
    halves = [psi.PairKey() for _ in range(count)]
    return [[own.shared(o.public, task=TASK, session=SESSION) for o in halves if o is not own] for own in halves]


def joint_runs(
    own: Sequence[str],
    others: Sequence[Sequence[str]],
    protocol: str,
    steps: Iterator[int] | None = None,
    *,
    reveal: str = "both",
) -> list[tuple[psi.Initiator, psi.Responder]]:
    """One joint run for each responder, matched, with chunks of different sizes."""
    runs = []
    for number, (ids, keys) in enumerate(zip(others, joint_keys(len(others)), strict=True)):
        session = SESSION + bytes([number])
        left = initiator(
            own, session=session, protocol=protocol, reveal=reveal, joint=True, chunk=1 + number, seed=b"i%d" % number
        )
        right = responder(
            ids, session=session, protocol=protocol, reveal=reveal, joint=keys, chunk=5 - number, seed=b"r%d" % number
        )
        waiting = list(right.start())
        while waiting:
            for message in left.receive(waiting.pop(0)):
                waiting += right.receive(message)
                for _ in range(next(steps, 0) if steps else 0):
                    waiting += right.advance()
        runs.append((left, right))
    return runs


party_lists = st.lists(st.lists(st.integers(0, 9).map(str), max_size=9, unique=True), min_size=2, max_size=5)


@settings(max_examples=15, deadline=None)
@given(own=id_lists, others=party_lists, steps=st.lists(st.integers(0, 3), max_size=20))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_joint_runs_of_up_to_six_parties_find_what_all_share(
    protocol: str, own: list[str], others: list[list[str]], steps: list[int]
) -> None:
    expected = common(own, *others)
    runs = joint_runs(own, others, protocol, iter(steps))
    assert psi.join([left for left, _ in runs]) == expected
    for left, right in runs:
        finish(left, right)
        assert left.finished and right.finished
        assert left.intersection == right.intersection == expected
        assert left.cardinality == right.cardinality == len(expected)
        assert left.progress.done == left.progress.total
        assert right.progress.done == right.progress.total


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("parties", [2, 3, 4, 5, 6])
def test_every_number_of_parties_finds_what_all_share(protocol: str, parties: int) -> None:
    lists = [[f"all-{i}" for i in range(5)] + [f"not-{p}-{i}" for i in range(7) if i != p] for p in range(parties)]
    lists = [[*ids, *(f"but-{other}" for other in range(parties) if other != p)] for p, ids in enumerate(lists)]
    expected = common(*lists)
    assert len(expected) >= 5
    for pairwise in (False, True):
        shared = psi.intersect(lists[0], lists[1], *lists[2:], protocol=protocol, pairwise=pairwise, workers=1)
        assert shared == expected


def test_a_joint_run_with_the_initiator_alone_informed() -> None:
    runs = joint_runs(["a", "b", "c"], [["b", "c"], ["c", "d"], ["c"]], "ecdh", reveal="initiator")
    assert psi.join([left for left, _ in runs]) == ["c"]
    for left, right in runs:
        finish(left, right)
        assert right.finished and left.intersection == ["c"]
        with pytest.raises(psi.NotRevealed):
            _ = right.intersection


def test_a_joint_run_reveals_to_each_responder_what_is_chosen_for_it() -> None:
    runs = joint_runs(["a", "b", "c"], [["a", "b", "c"], ["b", "c", "d"]], "rsa")
    assert psi.join([left for left, _ in runs]) == ["b", "c"]
    for (left, right), some in zip(runs, (["c"], []), strict=True):
        finish(left, right, some)
        assert right.intersection == some


def test_an_id_that_one_responder_lacks_looks_like_one_that_all_lack() -> None:
    """The sum over all stores is all that could tell; it is random for both."""
    runs = joint_runs(["all", "two", "one", "none"], [["all", "two", "one"], ["all", "two"], ["all"]], "ecdh")
    values = [left.shares.values for left, _ in runs]
    ids = runs[0][0]._ids
    for subset in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2)):
        together = values[subset[0]].copy()
        for other in subset[1:]:
            together ^= values[other]
        assert together.all()  # no smaller group's values cancel, not even for an id that they share
    total = values[0] ^ values[1] ^ values[2]
    assert [bool(row.any()) for row in total] == [each != "all" for each in ids]


def test_half_of_a_sum_that_cancels_is_no_match() -> None:
    left, _ = matched(["a", "b", "c", "d"], ["c"], joint=True)
    left._shares = Shares(np.array([[0, 5], [7, 0], [0, 0], [1, 1]], np.uint64))
    assert psi.join([left]) == ["c"]


def test_three_parties_pairwise_reveal_only_what_all_of_them_share() -> None:
    own, second, third = ["a", "b", "c", "d"], ["b", "c", "x"], ["c", "d", "y"]
    runs = []
    for number, ids in enumerate((second, third)):
        session = SESSION + bytes([number])
        left, right = initiator(own, session=session), responder(ids, session=session)
        carry(left, right, right.start())
        runs.append((left, right))
    assert [left.intersection for left, _ in runs] == [["b", "c"], ["c", "d"]]
    shared = set.intersection(*(set(left.intersection) for left, _ in runs))
    for left, right in runs:
        finish(left, right, shared)
        assert right.intersection == ["c"]


# How a run behaves on the way


def test_intersect_runs_any_number_of_parties_with_keys_of_its_own() -> None:
    assert psi.intersect(["b", "a", "c"], ["c", "b"], workers=2) == ["b", "c"]
    assert psi.intersect(["b", "a", "c"], ["c", "b"], ["a", "c"], chunk=1, key_bits=2056) == ["c"]
    assert psi.intersect([], ["a"], protocol="ecdh") == psi.intersect(["a"], [], protocol="ecdh") == []


def test_intersect_is_joint_with_three_parties_and_more_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then its initiator learns nothing of what it shares with only some of the others."""
    made: list[psi.Initiator] = []

    def noted(*args: Any, **settings: Any) -> psi.Initiator:
        made.append(psi.Initiator(*args, **settings))
        return made[-1]

    monkeypatch.setattr(local, "Initiator", noted)
    lists = [["a", "b"], ["b", "c"], ["b", "d"]]
    choices: list[tuple[int, dict[str, Any], bool]] = [(3, {}, True), (3, {"pairwise": True}, False), (2, {}, False)]
    for parties, choice, joint in choices:
        made.clear()
        assert psi.intersect(lists[0], lists[1], *lists[2:parties], protocol="ecdh", **choice) == ["b"]
        assert [run.terms.joint for run in made] == [joint] * (parties - 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ids_are_compared_as_text_in_normal_form_c(protocol: str) -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    assert psi.intersect([composed, "A", " x", "1"], [decomposed, "a", "x", "01"], protocol=protocol) == [composed]
    assert psi.intersect(["\u212b", "\ufb01"], ["\u00c5", "fi"], protocol=protocol) == ["\u00c5"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_answers_may_come_while_blinding_goes_on(protocol: str) -> None:
    """A driver that sends and receives at the same time holds one chunk, not the whole run."""
    left = initiator([str(i) for i in range(7)], chunk=2, protocol=protocol)
    right = responder(["3", "5"], chunk=2, protocol=protocol)
    for offer in right.start():
        for chunk in left.receive(offer):
            waiting = list(right.receive(chunk))
            while waiting:
                for more in left.receive(waiting.pop(0)):
                    waiting += right.receive(more)
    assert left.intersection == ["3", "5"]


@pytest.mark.parametrize(("protocol", "reveal"), TERMS)
def test_no_more_than_a_window_of_chunks_is_unanswered(protocol: str, reveal: str) -> None:
    own = [str(i) for i in range(3 * WINDOW)]
    left = initiator(own, chunk=1, protocol=protocol, reveal=reveal)
    right = responder(["7", "40", "x"], chunk=2, protocol=protocol, reveal=reveal)
    to_right = answers(left, right.start())
    assert len(to_right) == WINDOW
    to_left: list[bytes] = []
    kinds = {Kind.ACK} if reveal == "cardinality" else {Kind.ANSWERS}
    asked_for = answered = WINDOW
    while to_right or to_left:
        while to_right:  # the slowest possible responder: it answers when nothing more comes
            to_left += right.receive(to_right.pop(0))
        message = to_left.pop(0)
        answered += message[1] in kinds
        new = list(left.receive(message))
        assert len(new) == (message[1] in kinds and asked_for < len(own) + SPOTS[protocol])
        asked_for += len(new)
        to_right += new
    finish(left, right)
    assert asked_for == len(own) + SPOTS[protocol] and left.cardinality == 2


def test_the_responder_keeps_no_more_answers_than_a_window() -> None:
    left = initiator([str(i) for i in range(40)], chunk=1, protocol="ecdh")
    right = responder(["3"], protocol="ecdh")
    most = 0
    waiting = list(right.start())
    while waiting:
        for message in left.receive(waiting.pop(0)):
            waiting += right.receive(message)
            if right._answers is not None:
                most = max(most, len(right._answers._given))
    assert most == WINDOW


def test_each_answer_can_be_sent_before_the_next_is_computed() -> None:
    _, right, questions = asked(["a", "b"], ["a", "b", "c", "d", "e", "f"])
    replies = right.receive(questions[0])
    seen = [right.progress.done]
    for _ in replies:
        seen.append(right.progress.done)
    assert seen == [0, 2, 6, 8]
    assert right.progress == psi.Progress(8, 8)


def test_answers_are_asked_for_in_any_order_and_come_in_the_right_one() -> None:
    left, right, questions = asked([str(i) for i in range(12)], ["3"])
    first, second, third = (right.receive(chunk) for chunk in questions)
    taken = [next(third), next(first), *second, *first, *third]
    assert [int.from_bytes(message[19:27], "big") for message in of_kind(taken, Kind.ANSWERS)] == [0, 4, 8]
    answers(left, taken)
    assert left.intersection == ["3"]


def test_blinded_chunks_that_are_left_are_given_by_the_next_call() -> None:
    left, right = initiator([str(i) for i in range(12)], chunk=4), responder(["3"])
    given = left.receive(next(right.start()))
    first = next(given)  # and no more of this one
    more = [each for reply in right.receive(first) for each in left.receive(reply)]
    assert len(more) == 2 and next(given, None) is None
    carry(left, right, answers(right, more))
    assert left.intersection == ["3"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_progress_only_rises_and_ends_equal(protocol: str) -> None:
    left = initiator([str(i) for i in range(9)], protocol=protocol)
    right = responder([str(i) for i in range(5)], protocol=protocol)
    seen = [(left.progress, right.progress)]
    waiting = list(right.start())
    while waiting:
        for message in left.receive(waiting.pop(0)):
            waiting += right.receive(message)
            seen.append((left.progress, right.progress))
    finish(left, right)
    seen.append((left.progress, right.progress))
    for side in (0, 1):
        done = [each[side].done for each in seen]
        assert done == sorted(done) and done[0] == 0
        assert done[-1] == seen[-1][side].total > 0
        assert all(each[side].total in (0, seen[-1][side].total) for each in seen)


def test_progress_has_no_total_before_both_sizes_are_known() -> None:
    left, right = initiator(["a"]), responder(["a", "b"])
    assert left.progress == right.progress == psi.Progress(0, 0)
    questions = answers(left, right.start())
    assert left.progress == psi.Progress(1, 4) and right.progress.total == 0
    replies = right.receive(questions[0])
    assert right.progress == psi.Progress(0, 3)
    answers(left, replies)
    assert (left.progress.done, right.progress.done) == (4, 3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_side_knows_how_many_ids_the_other_has(protocol: str) -> None:
    """Spot checks are no ids."""
    left, right, questions = asked(["a"], ["a", "b"], protocol=protocol)
    assert (initiator(["a"]).peer_count, right.peer_count) == (None, None)
    right.receive(questions[0])
    assert (left.peer_count, right.peer_count) == (2, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_initiator_asks_in_an_order_of_its_own(protocol: str) -> None:
    ids = [f"{i:02}" for i in range(60)]
    left, _, _ = asked(ids, ["x"], protocol=protocol)
    assert left._questions is not None
    sent = [int(number) for asked_for in left._questions._pending for number in asked_for.numbers]
    total = len(ids) + SPOTS[protocol]
    assert len(sent) == min(total, 4 * WINDOW) and len(set(sent)) == len(sent)
    assert sent != sorted(sent)
    if protocol == "ecdh":  # spot checks stand anywhere among the ids
        places = [place for place, number in enumerate(sent) if number >= len(ids)]
        assert places and places != list(range(places[0], places[0] + len(places)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_responder_tags_in_an_order_of_its_own(protocol: str) -> None:
    ids = [f"{i:02}" for i in range(25)]
    _, right = matched(["x"], ids, protocol=protocol)
    assert right._own is not None
    sent = [ids[number] for number in right._own._order]
    assert sorted(sent) == ids
    assert sent != ids


def test_the_reveal_is_sorted_by_tag_whatever_order_it_was_given_in() -> None:
    messages = []
    for order in (["a", "b", "c"], ["c", "a", "b"]):
        left, _ = matched(["a", "b", "c"], ["a", "b", "c"])
        messages.append(list(left.reveal(order)))
    assert messages[0] == messages[1]
    tags = items_of(messages[0][0], 12)
    assert len(tags) == 3 and tags == sorted(tags)


def test_a_long_reveal_takes_several_messages() -> None:
    ids = [str(i) for i in range(10)]
    left, right = matched(ids, ids)
    said = finish(left, right)
    assert [message[1] for message in said] == [Kind.REVEAL] * 3 + [Kind.CONFIRM] * 2
    assert right.intersection == sorted(ids)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_real_randomness_blinds_the_same_id_differently_each_time(protocol: str) -> None:
    offer = next(responder(["x"], protocol=protocol).start())
    first, second = (
        answers(psi.Initiator(["a"], task=TASK, session=SESSION, protocol=protocol, workers=1), [offer])
        for _ in range(2)
    )
    width = WIDTH[protocol]
    seen = [item for message in (*first, *second) for item in items_of(message, width)]
    assert len(set(seen)) == len(seen) == 2 * (1 + SPOTS[protocol])


def test_real_randomness_makes_another_key_each_time() -> None:
    for protocol in PROTOCOLS:
        offers = [
            next(psi.Responder(["x"], task=TASK, session=SESSION, protocol=protocol, workers=1).start())
            for _ in range(2)
        ]
        assert offers[0][-32:] != offers[1][-32:]


@pytest.mark.parametrize(("protocol", "workers"), [("rsa", 1), ("rsa", 2), ("ecdh", 1)])
def test_bytes_of_randomness_come_from_the_injected_source_alone(protocol: str, workers: int) -> None:
    def whole_run() -> list[bytes]:
        left = psi.Initiator(
            ["a", "b"], task=TASK, session=SESSION, protocol=protocol, workers=1, _entropy=Seeded(b"1")
        )
        right = psi.Responder(
            ["b", "c"],
            task=TASK,
            session=SESSION,
            protocol=protocol,
            workers=workers,
            _key=key() if protocol == "rsa" else None,
            _entropy=Seeded(b"2"),
        )
        return [*carry(left, right, right.start()), *finish(left, right, ["b"])]

    assert whole_run() == whole_run()


def test_changing_a_result_does_not_change_the_run() -> None:
    left, right = matched(["a", "b"], ["b"])
    left.intersection.clear()
    finish(left, right)
    right.intersection.clear()
    assert left.intersection == right.intersection == ["b"]


def test_a_list_that_is_changed_after_the_start_does_not_change_the_run() -> None:
    own, others = ["a", "b"], ["b"]
    left, right = initiator(own), responder(others)
    own.clear()
    others.append("a")
    carry(left, right, right.start())
    assert left.intersection == ["b"]


@pytest.mark.timeout(60 + RUNS)
def test_seeded_random_runs_agree_with_python() -> None:
    """HETEROFED_PSI_RUNS=1000 is the long form: any terms, sizes, overlaps, chunks and two to six parties."""
    draw = random.Random(20)
    for number in range(RUNS):
        parties = draw.choice([2, 2, 2, 3, 4, 6])
        protocol = draw.choice(PROTOCOLS)
        most = draw.choice([3, 12, 60])
        world = [f"{draw.getrandbits(32):x}-\u00e9{i}" for i in range(draw.randint(1, 2 * most))]
        lists = [draw.sample(world, draw.randint(0, min(most, len(world)))) for _ in range(parties)]
        steps = iter([draw.randrange(3) for _ in range(40)])
        if parties == 2:
            reveal = draw.choice([reveal for name, reveal in TERMS if name == protocol])
            left = initiator(
                lists[0], protocol=protocol, reveal=reveal, chunk=draw.randint(1, 20), seed=b"i%d" % number
            )
            right = responder(
                lists[1], protocol=protocol, reveal=reveal, chunk=draw.randint(1, 20), seed=b"r%d" % number
            )
            check_pair(lists[0], lists[1], left, right, steps)
            continue
        runs = joint_runs(lists[0], lists[1:], protocol, steps)
        expected = common(*lists)
        assert psi.join([left for left, _ in runs]) == expected, f"run {number}"
        for left, right in runs:
            finish(left, right)
            assert right.intersection == expected, f"run {number}"

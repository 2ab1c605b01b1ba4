"""What a run is for: the same sets as Python's own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import psi
from psi.hashing import RunHash
from tests.psi.helpers import SESSION, TASK, Seeded, answers, asked, initiator, key, matched, responder

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
id_lists = st.lists(st.one_of(st.integers(0, 12).map(str), texts), min_size=1, max_size=14, unique=True)


@settings(max_examples=40, deadline=None)
@given(own=id_lists, others=id_lists, chunk=st.integers(1, 6), other_chunk=st.integers(1, 6))
def test_a_run_finds_exactly_the_set_intersection(
    own: list[str], others: list[str], chunk: int, other_chunk: int
) -> None:
    left, right = initiator(own, chunk=chunk), responder(others, chunk=other_chunk)
    answers(left, answers(right, answers(left, right.start())))
    answers(right, left.reveal(left.intersection))
    assert left.intersection == right.intersection == sorted(set(own) & set(others))
    assert left.finished and right.finished
    assert left.progress.done == left.progress.total == 2 * len(own) + len(others)
    assert right.progress.done == right.progress.total == len(own) + len(others)


@settings(max_examples=15, deadline=None)
@given(own=id_lists, others=id_lists, data=st.data())
def test_the_responder_learns_only_the_revealed_subset(own: list[str], others: list[str], data: st.DataObject) -> None:
    left, right = matched(own, others)
    shared = left.intersection
    some = data.draw(st.lists(st.sampled_from(shared), unique=True)) if shared else []
    answers(right, left.reveal(some))
    assert right.intersection == sorted(some)
    assert left.intersection == shared


def test_three_parties_reveal_only_what_all_of_them_share() -> None:
    own, second, third = ["a", "b", "c", "d"], ["b", "c", "x"], ["c", "d", "y"]
    runs = []
    for number, ids in enumerate((second, third)):
        session = SESSION + bytes([number])
        left, right = initiator(own, session=session), responder(ids, session=session)
        answers(left, answers(right, answers(left, right.start())))
        runs.append((left, right))
    assert [left.intersection for left, _ in runs] == [["b", "c"], ["c", "d"]]
    shared = set.intersection(*(set(left.intersection) for left, _ in runs))
    for left, right in runs:
        answers(right, left.reveal(shared))
        assert right.intersection == ["c"]


def test_intersect_runs_any_number_of_parties_with_keys_of_its_own() -> None:
    assert psi.intersect(["b", "a", "c"], ["c", "b"], workers=2) == ["b", "c"]
    assert psi.intersect(["b", "a", "c"], ["c", "b"], ["a", "c"], chunk=1) == ["c"]


def test_an_empty_intersection_is_a_result() -> None:
    left, right = matched(["a", "b"], ["c"])
    assert left.matched and left.intersection == []
    answers(right, left.reveal([]))
    assert right.finished and right.intersection == []


def test_ids_are_compared_as_exact_text() -> None:
    composed, decomposed = "é", "e\u0301"
    assert psi.intersect([composed, "A", " x", "1"], [decomposed, "a", "x", "01"]) == []
    assert psi.intersect([composed, decomposed], [decomposed]) == [decomposed]


def test_signatures_may_come_while_blinding_goes_on() -> None:
    """A driver that sends and receives at the same time holds one chunk, not the whole run."""
    left, right = initiator([str(i) for i in range(7)], chunk=2), responder(["3", "5"], chunk=2)
    for offer in right.start():
        for chunk in left.receive(offer):
            answers(left, right.receive(chunk))
    assert left.intersection == ["3", "5"]


def test_each_answer_can_be_sent_before_the_next_is_computed() -> None:
    _, right, chunks = asked(["a", "b"], ["a", "b", "c", "d", "e", "f"])
    replies = right.receive(chunks[0])
    seen = [right.progress.done]
    for _ in replies:
        seen.append(right.progress.done)
    assert seen == [0, 2, 6, 8]
    assert right.progress == psi.Progress(8, 8)


def test_progress_has_no_total_before_both_sizes_are_known() -> None:
    left, right = initiator(["a"]), responder(["a", "b"])
    assert left.progress == right.progress == psi.Progress(0, 0)
    chunks = answers(left, right.start())
    assert left.progress == psi.Progress(1, 4) and right.progress.total == 0
    replies = right.receive(chunks[0])
    assert right.progress == psi.Progress(0, 3)
    answers(left, replies)
    assert (left.progress.done, right.progress.done) == (4, 3)


def test_each_side_knows_how_many_ids_the_other_has() -> None:
    left, right, chunks = asked(["a"], ["a", "b"])
    assert (initiator(["a"]).peer_count, right.peer_count) == (None, None)
    right.receive(chunks[0])
    assert (left.peer_count, right.peer_count) == (2, 1)


def test_the_initiator_asks_in_an_order_of_its_own() -> None:
    ids = [f"{i:02}" for i in range(25)]
    left, _, _ = asked(ids, ["x"])
    sent = [sample_id for sample_id, _, _ in left._pending or ()]
    assert sorted(sent) == ids
    assert sent != ids


def test_the_responder_tags_in_an_order_of_its_own() -> None:
    ids = [f"{i:02}" for i in range(25)]
    _, right, chunks = asked(["x"], ids)
    answers(right, chunks)
    sent = list((right._own_tags or {}).values())
    assert sorted(sent) == ids
    assert sent != ids


def test_the_reveal_is_sorted_by_tag_whatever_order_it_was_given_in() -> None:
    messages = []
    for order in (["a", "b", "c"], ["c", "a", "b"]):
        left, _ = matched(["a", "b", "c"], ["a", "b", "c"])
        messages.append(list(left.reveal(order)))
    assert messages[0] == messages[1]


def test_real_randomness_blinds_the_same_id_differently_each_time() -> None:
    offer = next(responder(["x"]).start())
    first, second = (answers(psi.Initiator(["a"], task=TASK, session=SESSION), [offer]) for _ in range(2))
    assert first != second


@pytest.mark.parametrize(("session", "task"), [(b"another session", TASK), (SESSION, "task-8")])
def test_another_session_or_task_gives_the_same_id_another_tag(session: bytes, task: str) -> None:
    def tag(some_task: str, some_session: bytes) -> bytes:
        run_hash = RunHash(some_task, some_session, key().public.n)
        return run_hash.tag(key().power(run_hash.element("a")))

    assert tag(TASK, SESSION) != tag(task, session)


def test_bytes_of_randomness_come_from_the_injected_source_alone() -> None:
    def whole_run() -> list[bytes]:
        left = psi.Initiator(["a", "b"], task=TASK, session=SESSION, _entropy=Seeded(b"1"))
        right = psi.Responder(["b", "c"], task=TASK, session=SESSION, workers=2, _key=key(), _entropy=Seeded(b"2"))
        offer = list(right.start())
        chunks = answers(left, offer)
        replies = answers(right, chunks)
        answers(left, replies)
        return [*offer, *chunks, *replies, *left.reveal(["b"])]

    assert whole_run() == whole_run()


def test_changing_a_result_does_not_change_the_run() -> None:
    left, right = matched(["a", "b"], ["b"])
    left.intersection.clear()
    answers(right, left.reveal(left.intersection))
    right.intersection.clear()
    assert left.intersection == right.intersection == ["b"]

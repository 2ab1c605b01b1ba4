"""The same ids in the same order everywhere, and no id in any text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import heterofed
from heterofed.errors import AlignmentError, ConfigError
from heterofed.features.alignment import (
    DIGEST_BYTES,
    OrderedIds,
    check_same_ids,
    checked_ids,
    default_split,
    digest_of,
    ordered,
    same,
)

KEY = bytes(range(16))
PATIENT = "patient-4711"

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
id_lists = st.lists(texts, min_size=1, max_size=40, unique=True)
quick = settings(max_examples=50, deadline=None)  # a busy machine is no failure


# --- ordered ids ------------------------------------------------------------------------------------------------------


@quick
@given(id_lists)
def test_ordered_ids_behave_as_the_list_that_they_came_from(ids: list[str]) -> None:
    found = OrderedIds(ids)

    assert list(found) == ids
    assert len(found) == len(ids)
    assert [found[index] for index in range(-len(ids), len(ids))] == ids + ids
    assert found[:3] == ids[:3]
    assert found[::-1] == ids[::-1] == list(reversed(found))
    assert all(found.index(each) == ids.index(each) and found.count(each) == 1 for each in ids)
    with pytest.raises(IndexError):
        found[len(ids)]


@quick
@given(id_lists, id_lists)
def test_set_operations_of_ordered_ids_give_the_right_ids_in_their_order(ids: list[str], others: list[str]) -> None:
    ours, theirs = OrderedIds(ids), set(others)
    common = [each for each in ids if each in theirs]

    assert list(ours & theirs) == common
    assert list(theirs & ours) == common
    assert list(ours & others) == common
    assert list(ours & OrderedIds(others)) == common
    assert list(ours - theirs) == [each for each in ids if each not in theirs]
    assert list(ours | OrderedIds(others)) == [*ids, *(each for each in others if each not in set(ids))]
    assert set(ours ^ theirs) == set(ids) ^ theirs
    assert set(theirs - ours) == theirs - set(ids)
    assert ours.isdisjoint(theirs) == set(ids).isdisjoint(theirs)
    assert (ours <= theirs, ours >= theirs) == (set(ids) <= theirs, set(ids) >= theirs)
    assert all(isinstance(each, OrderedIds) for each in (ours & theirs, ours | theirs, ours - theirs, ours ^ theirs))


def test_an_intersection_is_in_the_same_order_in_every_process() -> None:
    # The order of a Python set of str depends on a random number that each process draws.
    program = (
        "from heterofed.features.alignment import OrderedIds as O; ids = [f'p{n}' for n in range(50)];"
        "print(*(O(ids) & set(ids[::2])), *(set(ids[::2]) & O(ids)), *(O(ids) - set(ids[::3])))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", f"import sys, types; {_BARE}; {program}", str(Path(heterofed.__file__).parent)],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(outputs) == 1


_BARE = "h = types.ModuleType('heterofed'); h.__path__ = [sys.argv[1]]; sys.modules['heterofed'] = h"
"""A package without its __init__, which would import torch: three times too slow here."""


def test_ordered_ids_equal_any_set_of_the_same_ids() -> None:
    found: object = OrderedIds("abc")
    others: list[object] = [{"a", "b", "c"}, frozenset("abc"), OrderedIds("cba"), {"a", "b"}]

    assert [found == each for each in others] == [True, True, True, False]
    assert [each == found for each in others] == [True, True, True, False]
    assert set(OrderedIds("abc")) == set("abc")


def test_ordered_ids_keep_the_first_of_two_equal_ids() -> None:
    assert list(OrderedIds(["b", "a", "b"])) == ["b", "a"]


def test_ordered_ids_answer_whether_they_hold_something_of_any_kind() -> None:
    found = OrderedIds(["1", "2"])
    things: list[object] = ["1", "3", 1, None]

    assert [each in found for each in things] == [True, False, False, False]


def test_ordered_ids_show_how_many_they_are_and_not_which() -> None:
    assert repr(OrderedIds([PATIENT])) == "OrderedIds(1 ids)"
    assert f"{OrderedIds()}" == "OrderedIds(0 ids)"


# --- what a user's method may return ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ids",
    [["b", "a"], ("b", "a"), iter(["b", "a"]), np.array(["b", "a"]), {"b": 1, "a": 2}],
    ids=["list", "tuple", "iterator", "array", "dict"],
)
def test_any_collection_of_unique_text_is_taken_in_its_order(ids: object) -> None:
    assert checked_ids(ids, "load_local_ids") == ["b", "a"]


def test_text_of_any_script_is_taken_as_it_is_when_it_is_in_normal_form() -> None:
    ids = ["Zo\u00eb", "\u674e\u96f7", "\U0001f600", "q\u0307", "\ufb01"]

    assert checked_ids(ids, "load_local_ids") == ids


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (None, "load_local_ids returned NoneType; expected a list of str."),
        (PATIENT, "load_local_ids returned str; expected a list of str."),
        (PATIENT.encode(), "load_local_ids returned bytes; expected a list of str."),
        (4711, "load_local_ids returned int; expected a list of str."),
        ([], "load_local_ids returned no ids; expected at least one. Check this party's data."),
        (
            [PATIENT, 4711, 4712],
            "load_local_ids returned 2 of 3 ids that are no str but int; expected only str, written alike at every "
            "party. Convert them, for example with str(); 7 and '7' would never meet.",
        ),
        (
            [PATIENT, "", ""],
            "load_local_ids returned 2 empty ids; expected none. Drop or name these rows.",
        ),
        (
            [PATIENT, "other", PATIENT, PATIENT],
            "load_local_ids returned 4 ids of which 2 repeat an earlier one; expected every id once. "
            "Drop or merge the rows that share an id.",
        ),
        (
            [PATIENT, PATIENT + "\udcff"],
            "load_local_ids returned 1 of 2 ids with characters that UTF-8 cannot write; expected none. "
            "Read the table with its right encoding.",
        ),
        (
            [PATIENT, "Zo\u00eb", "Zoe\u0308", "e\u0301" + PATIENT],
            "load_local_ids returned 2 of 4 ids that are not in Unicode normal form C; expected none: an accented "
            "letter written as two characters would not meet the same letter written as one. Apply psi.normalise_ids "
            "to the id column, in the table too.",
        ),
    ],
    ids=["None", "text", "bytes", "a number", "nothing", "numbers", "empty", "repeated", "no UTF-8", "not normal"],
)
def test_ids_that_cannot_be_matched_are_refused_and_none_is_named(ids: object, text: str) -> None:
    with pytest.raises(AlignmentError) as caught:
        checked_ids(ids, "load_local_ids")

    assert str(caught.value) == text
    shown = f"{caught.value} {caught.value!r} {caught.value.args}"
    assert PATIENT not in shown
    assert "4711" not in shown


@pytest.mark.parametrize(
    "ids", [{"b", "c", "a"}, frozenset("bca"), {"b": 1, "c": 1, "a": 1}.keys()], ids=["set", "frozenset", "keys"]
)
def test_a_split_given_as_a_set_is_sorted(ids: object) -> None:
    assert ordered(ids, "split_dataset") == ["a", "b", "c"]


@pytest.mark.parametrize("ids", [["b", "c", "a"], ("b", "c", "a"), OrderedIds("bca"), np.array(["b", "c", "a"])])
def test_a_split_with_an_order_of_its_own_keeps_it(ids: object) -> None:
    assert ordered(ids, "split_dataset") == ["b", "c", "a"]


@pytest.mark.parametrize("ids", [[], (), set(), frozenset(), OrderedIds(), np.array([], dtype=str)], ids=repr)
def test_a_part_of_a_split_may_be_empty(ids: object) -> None:
    assert ordered(ids, "split_dataset") == []


@pytest.mark.parametrize(
    "ids",
    [None, "", b"", "abc", {1, "a"}, [1], ["a", "a"], [""]],
    ids=["None", "no text", "no bytes", "text", "a number in a set", "a number", "twice", "empty"],
)
def test_a_split_that_is_no_collection_of_unique_text_is_refused(ids: object) -> None:
    with pytest.raises(AlignmentError, match="split_dataset returned"):
        ordered(ids, "split_dataset")


# --- the default split ------------------------------------------------------------------------------------------------


@quick
@given(id_lists, st.randoms(use_true_random=False), st.floats(0, 0.99))
def test_the_default_split_depends_on_nothing_but_the_ids(ids: list[str], source: object, fraction: float) -> None:
    mixed = list(ids)
    source.shuffle(mixed)  # type: ignore[attr-defined]  # a random.Random that Hypothesis replays

    train, test = default_split(ids, fraction)

    assert default_split(set(mixed), fraction) == (train, test)
    assert not set(train) & set(test)
    assert set(train) | set(test) == set(ids)
    assert len(train) + len(test) == len(ids)
    assert (train, test) == (sorted(train), sorted(test))
    assert train


@pytest.mark.parametrize(
    ("people", "tests"), [(0, 0), (1, 0), (2, 1), (4, 1), (5, 1), (9, 1), (10, 2), (100, 20), (1234, 246)]
)
def test_a_fifth_of_the_ids_but_at_least_one_is_for_the_test(people: int, tests: int) -> None:
    train, test = default_split(f"person-{number}" for number in range(people))

    assert (len(train), len(test)) == (people - tests, tests)


def test_the_default_split_is_the_same_in_every_version() -> None:
    _, test = default_split(f"person-{number}" for number in range(10))

    # printf %s person-3 | sha256sum, and so on: these two are the smallest
    assert test == ["person-3", "person-4"]


def test_a_share_of_0_leaves_no_test_ids() -> None:
    assert default_split(["b", "a"], 0) == (["a", "b"], [])


@pytest.mark.parametrize("share", [-0.1, 1, 2, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"test_fraction is .*; expected 0 <= test_fraction < 1"):
        default_split(["a"], share)


# --- digests ----------------------------------------------------------------------------------------------------------


@quick
@given(id_lists, id_lists)
def test_digests_agree_exactly_when_the_ids_and_their_order_do(ours: list[str], theirs: list[str]) -> None:
    assert same(digest_of(ours, KEY), digest_of(theirs, KEY)) == (ours == theirs)
    assert digest_of(ours, KEY) == digest_of(iter(ours), KEY)


def test_a_digest_depends_on_order_key_and_the_borders_of_the_ids() -> None:
    digests = {
        digest_of(ids, key)
        for ids, key in [
            (["ab", "c"], KEY),
            (["c", "ab"], KEY),
            (["a", "bc"], KEY),
            (["abc"], KEY),
            (["ab", "c", ""], KEY),
            (["ab", "c"], bytes(16)),
            ([], KEY),
        ]
    }

    assert len(digests) == 7
    assert {len(each) for each in digests} == {DIGEST_BYTES}


def test_the_digest_is_the_same_in_every_version() -> None:
    assert digest_of(["a", "é", "person-3"], KEY).hex() == "acb8eda119b45e20d2545fba1e42bac8"


def test_digests_of_unequal_lengths_differ() -> None:
    assert not same(b"", digest_of([], KEY))


def compare(theirs: list[str], ours: list[str]) -> None:
    check_same_ids(
        "train",
        party="c1",
        theirs=len(theirs),
        their_digest=digest_of(theirs, KEY),
        our_name="hospital",
        ours=len(ours),
        our_digest=digest_of(ours, KEY),
    )


def test_the_same_ids_in_the_same_order_pass() -> None:
    compare(["a", "b"], ["a", "b"])


@pytest.mark.parametrize(
    ("theirs", "problem"),
    [
        (["a", "b", "c"], "has 3 train ids where hospital has 2"),
        (["b", "a"], "has other train ids, or another order of them, than hospital (2 each)"),
        (["a", "c"], "has other train ids, or another order of them, than hospital (2 each)"),
    ],
    ids=["another count", "another order", "other ids"],
)
def test_other_ids_at_a_peer_stop_the_task_with_both_names_and_counts(theirs: list[str], problem: str) -> None:
    with pytest.raises(AlignmentError) as caught:
        compare(theirs, ["a", "b"])

    assert str(caught.value) == (
        f"c1, while comparing the splits: {problem}; expected the same ids in the same order everywhere. "
        "split_dataset must be the same function of the ids at every party; of tables, fractions and salt must be the "
        "same."
    )

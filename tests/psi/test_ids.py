"""Which lists of ids a run takes."""

from __future__ import annotations

import enum
import tracemalloc
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from psi.errors import BadIds
from psi.ids import check_ids

COMPOSED, DECOMPOSED = "Zo\u00eb", "Zoe\u0308"


class SameHash(str):
    """Text whose hash says nothing."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ("abc", "the ids are one string; expected a list of strings"),
        (b"abc", "one string"),
        (bytearray(b"abc"), "one string"),
        (None, "the ids are a NoneType, no collection; expected one column"),
        (4711, "a int, no collection"),
        (np.array("abc"), "a ndarray, of 0 dimensions"),
        (np.array([["ann-1"], ["bob-1"]]), "of 2 dimensions"),
        (pd.DataFrame({"ann-1": ["bob-1"]}), "a DataFrame, of 2 dimensions"),
        (["ann-1", "bob-1", "ann-1", "ann-1"], "of 4 ids 2 repeat another; expected non-empty strings, each once"),
        (["ann-1", "", "bob-1"], "of 3 ids 1 are empty; "),
        (["\u00e4", "", ""], "of 3 ids 2 are empty, 1 repeat another; "),
        (["ann-1", 7, None], "of 3 ids 2 are not text; .* psi.normalise_ids makes text of numbers"),
        (pd.Series(["ann-1", None, "bob-1"]), "of 3 ids 1 are not text"),
        (["ann-1", b"bob-1"], "of 2 ids 1 are not text"),
        (["ann-1", "\ud800"], "of 2 ids 1 hold characters that UTF-8 cannot write"),
        (["ann-1", "ann-1", "", 3], "of 4 ids 1 are not text, 1 are empty, 1 repeat another; "),
        ([COMPOSED, "ann-1", DECOMPOSED], "of 3 ids 1 repeat another once they are in Unicode normal form C; "),
    ],
    ids=ascii,
)
def test_bad_ids_are_counted_and_never_shown(ids: Sequence[str], text: str) -> None:
    with pytest.raises(BadIds, match=text) as caught:
        check_ids(ids)

    assert not any(name in str(caught.value) for name in ("ann-1", "bob-1", "\ud800", COMPOSED, DECOMPOSED))


@pytest.mark.parametrize(
    "ids",
    [
        ["b", "a"],
        ("b", "a"),
        {"b": 1, "a": 2},
        iter(["b", "a"]),
        np.array(["b", "a"]),
        np.array(["b", "a"], dtype=object),
        pd.Series(["b", "a"], index=[7, 3]),
        pd.Index(["b", "a"]),
    ],
    ids=lambda ids: type(ids).__name__,
)
def test_any_collection_of_text_is_taken_in_its_order(ids: Sequence[str]) -> None:
    checked = check_ids(ids)

    assert checked == ["b", "a"]
    assert [type(each) for each in checked] == [str, str]


@pytest.mark.parametrize("ids", [[], (), set(), iter(()), np.array([], dtype=str), pd.Series([], dtype=str)])
def test_a_list_without_ids_is_fine(ids: Sequence[str]) -> None:
    assert check_ids(ids) == []


def test_the_list_given_is_left_as_it_is() -> None:
    ids = [DECOMPOSED, "a"]
    checked = check_ids(ids)
    checked.append("b")

    assert ids == [DECOMPOSED, "a"]


def test_subclasses_of_text_become_plain_text() -> None:
    class Colour(str, enum.Enum):
        RED = "red"

    checked = check_ids([Colour.RED, "blue", np.str_("gr\u00fcn")])

    assert checked == ["red", "blue", "gr\u00fcn"]
    assert {type(each) for each in checked} == {str}


def test_a_subclass_with_a_hash_of_its_own_hides_no_repeat() -> None:
    with pytest.raises(BadIds, match="of 3 ids 1 repeat another"):
        check_ids([SameHash("a"), "b", "a"])


def test_ids_are_given_back_in_normal_form_c_and_otherwise_as_they_are() -> None:
    assert check_ids([DECOMPOSED, " a", "A", "\ufb01", "007", "\u212b"]) == [
        COMPOSED,
        " a",
        "A",
        "\ufb01",
        "007",
        "\u00c5",
    ]


def test_ids_with_equal_hashes_are_compared_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes of 64 bits may be equal by chance; ids are never called repeats for that."""
    monkeypatch.setattr("psi.ids._hashes", lambda plain: np.array([len(each) for each in plain], np.int64))
    monkeypatch.setattr("psi.ids.hash", len, raising=False)

    assert check_ids(["aa", "ab", "b", "ba"]) == ["aa", "ab", "b", "ba"]
    with pytest.raises(BadIds, match="of 7 ids 3 repeat another;"):
        check_ids(["aa", "ab", "b", "aa", "ba", "b", "aa"])


@example([DECOMPOSED, COMPOSED, DECOMPOSED])
@given(st.lists(st.text(max_size=3), max_size=30))
def test_what_is_taken_and_what_is_counted_agrees_with_sets(ids: list[str]) -> None:
    normal = [unicodedata.normalize("NFC", each) for each in ids]
    repeated = sum(Counter(normal).values()) - len(set(normal))
    empty = normal.count("")
    try:
        assert check_ids(ids) == normal
    except BadIds as error:
        assert empty or repeated
        assert (f"{empty} are empty" in str(error)) == bool(empty)
        assert (f"{repeated} repeat another" in str(error)) == bool(repeated)
    else:
        assert not empty
        assert not repeated


def test_a_long_list_costs_little_besides_its_copy() -> None:
    ids = [f"person-{number}" for number in range(100_000)]
    tracemalloc.start()
    check_ids(ids)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 20 * len(ids)  # 8 for the list, 8 for its hashes, and a mask

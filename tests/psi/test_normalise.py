"""One text for one id, however a table holds it."""

from __future__ import annotations

import enum
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psi.errors import BadIds
from psi.ids import check_ids
from psi.normalise import normalise_ids

CET = timezone(timedelta(hours=1))


class Unfinished(tzinfo):
    """A time zone that somebody forgot to write."""

    def utcoffset(self, when: datetime | None, /) -> timedelta | None:
        raise NotImplementedError

    dst = utcoffset

    def tzname(self, when: datetime | None, /) -> str | None:
        raise NotImplementedError


class Number(enum.IntEnum):
    SEVEN = 7


class Word(str, enum.Enum):
    SEVEN = " seven"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ann-1", "ann-1"),
        (" \t\u3000ann  1\u00a0\x1f\n", "ann  1"),
        ("007", "007"),
        ("7.0", "7.0"),
        ("Zoe\u0308", "Zo\u00eb"),
        (" \u0301a", "\u0301a"),
        (np.str_("ann-1 "), "ann-1"),
        (Word.SEVEN, "seven"),
        (7, "7"),
        (-7, "-7"),
        (0, "0"),
        (2**53 + 1, "9007199254740993"),
        (1 << 2047, str(1 << 2047)),
        (np.int8(-7), "-7"),
        (np.uint64(2**64 - 1), "18446744073709551615"),
        (Number.SEVEN, "7"),
        (7.0, "7"),
        (-0.0, "0"),
        (1e15, "1000000000000000"),
        (2.0**53 - 1, "9007199254740991"),
        (np.float64(7), "7"),
        (np.float32(2**24 - 1), "16777215"),
        (np.float16(2047), "2047"),
        (np.longdouble(7), "7"),
        (Decimal(7), "7"),
        (Decimal("7.00"), "7"),
        (Decimal("-7E+2"), "-700"),
        (Decimal("-0E+999999"), "0"),
        (Decimal(2**53 + 1), "9007199254740993"),
        (date(2024, 1, 31), "2024-01-31"),
        (date(1, 1, 1), "0001-01-01"),
        (np.datetime64("2024-01-31"), "2024-01-31"),
        (datetime(2024, 1, 31), "2024-01-31T00:00:00"),
        (datetime(33, 1, 31, 9, 5, 7), "0033-01-31T09:05:07"),
        (datetime(2024, 1, 31, 9, 5, 7, 250_000), "2024-01-31T09:05:07.25"),
        (datetime(2024, 1, 31, 9, 5, tzinfo=CET), "2024-01-31T08:05:00Z"),
        (datetime(2024, 1, 31, 0, 5, 0, 1, tzinfo=CET), "2024-01-30T23:05:00.000001Z"),
        (np.datetime64("2024-01-31T09"), "2024-01-31T09:00:00"),
        (np.datetime64("2024-01-31T09:05"), "2024-01-31T09:05:00"),
        (np.datetime64("2024-01-31T09:05:10"), "2024-01-31T09:05:10"),
        (np.datetime64("2024-01-31T09:05:10.250", "ms"), "2024-01-31T09:05:10.25"),
        (np.datetime64("2024-01-31T09:05:10.250", "ns"), "2024-01-31T09:05:10.25"),
        (np.datetime64("2024-01-31", "ns"), "2024-01-31T00:00:00"),
        (pd.Timestamp("2024-01-31 09:05:10.250"), "2024-01-31T09:05:10.25"),
        (pd.Timestamp("2024-01-31 09:05:10.000000001"), "2024-01-31T09:05:10.000000001"),
        (pd.Timestamp("2024-01-31 09:05:10.000000001", tz="Europe/Berlin"), "2024-01-31T08:05:10.000000001Z"),
        (b" ann-1\n", "ann-1"),
        (bytearray(b"Zoe\xcc\x88"), "Zo\u00eb"),
        (np.bytes_(b"ann-1"), "ann-1"),
        (UUID("{6BA7B810-9DAD-11D1-80B4-00C04FD430C8}"), "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    ],
    ids=ascii,
)
def test_every_kind_of_id_has_one_text(value: object, text: str) -> None:
    assert normalise_ids([value]) == [text]
    assert normalise_ids([text]) == [text]
    assert type(normalise_ids([value])[0]) is str


MISSING = r"of 2 ids 1 are missing \(None, NaN or NaT\): drop these rows\. Expected"
FLOAT = "of 2 ids 1 are floats that are not whole or too large .* missing values"
DATE = "of 2 ids 1 are dates or times outside"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, MISSING),
        (float("nan"), MISSING),
        (np.float32("nan"), MISSING),
        (Decimal("NaN"), MISSING),
        (Decimal("sNaN"), MISSING),
        (np.datetime64("NaT"), MISSING),
        (pd.NaT, MISSING),
        (pd.NA, MISSING),
        (np.ma.masked, MISSING),
        (True, "1 are bools"),
        (np.bool_(False), "1 are bools"),
        ("", "1 are empty"),
        (" \u2003", "1 are empty"),
        (b"", "1 are empty"),
        ("4711\ud800", "1 hold characters that UTF-8 cannot write"),
        (b"4711\xff", "1 are bytes that are not UTF-8"),
        (4711.5, FLOAT),
        (float("inf"), FLOAT),
        (-float("inf"), FLOAT),
        (2.0**53, FLOAT),
        (-(2.0**53), FLOAT),
        (np.float32(2**24), FLOAT),
        (np.float16(2048), FLOAT),
        (np.longdouble(2) ** 60, FLOAT),
        (1 << 2048, "1 are ints of more than 2048 bits"),
        (Decimal("4711.5"), "1 are Decimals that are not whole"),
        (Decimal("1E-999999"), "1 are Decimals"),
        (Decimal("1E+999999"), "1 are Decimals"),
        (Decimal("9E+600"), None),
        (Decimal("1E+601"), "1 are Decimals"),
        (Decimal("Infinity"), "1 are Decimals"),
        (datetime(1, 1, 1, tzinfo=CET), DATE),
        (datetime(2024, 1, 31, tzinfo=Unfinished()), DATE),
        (np.datetime64("2024-01"), DATE),
        (np.datetime64("2024-01-31T09:05:10", "ps"), DATE),
        (np.datetime64(1 << 60, "s"), DATE),
        (np.datetime64(1 << 40, "D"), DATE),
        (np.timedelta64(4711, "s"), "1 are of type timedelta64"),
        (timedelta(seconds=4711), "1 are of type timedelta"),
        (time(4, 7, 11), "1 are of type time,"),
        (4711 + 0j, "1 are of type complex"),
        (np.complex128(4711), "1 are of type complex128"),
        (Fraction(4711), "1 are of type Fraction"),
        (["4711"], "1 are of type list"),
        (np.array([4711]), "1 are of type ndarray"),
        (object(), "1 are of type object"),
    ],
    ids=lambda each: re.sub(" at 0x[0-9a-f]+", "", ascii(each)),  # the same in every process
)
def test_what_has_no_text_is_counted_by_kind_and_never_shown(value: object, text: str | None) -> None:
    if text is None:
        assert len(normalise_ids([value])[0]) == 601
        return
    with pytest.raises(BadIds, match=text) as caught:
        normalise_ids(["bob-1", value])

    assert "bob-1" not in str(caught.value)
    assert "4711" not in str(caught.value)
    assert caught.value.__context__ is None


def test_all_kinds_of_faults_are_in_one_error() -> None:
    with pytest.raises(BadIds, match=r"^of 7 ids 1 are bools, which are no ids; 2 are missing .*; 3 are of type tuple"):
        normalise_ids([(), None, "a", (), True, None, ()])


@pytest.mark.parametrize(
    "values", ["abc", b"abc", bytearray(b"abc"), None, 7, np.array(7), np.zeros((2, 2)), pd.DataFrame()]
)
def test_what_is_no_column_is_refused(values: Any) -> None:
    with pytest.raises(BadIds, match="the ids are"):
        normalise_ids(values)


@pytest.mark.parametrize(
    "column",
    [
        [7, -3, 0],
        (7.0, -3.0, 0.0),
        iter([Decimal(7), b"-3", "0 "]),
        np.array([7, -3, 0], np.int16),
        np.array([7, -3, 0], np.float32),
        np.array([7, -3, 0], object),
        np.array(["7", "-3", "0"]),
        np.array([b"7", b"-3", b"0"]),
        np.ma.array([7, -3, 0]),
        pd.Series([7, -3, 0], index=["x", "y", "x"]),
        pd.Series([7, -3, 0], dtype="float32"),
        pd.Series([7, -3, 0], dtype="Int64"),
        pd.Series([7, -3, 0], dtype="Float32"),
        pd.Series(["7", "-3", "0"], dtype="string"),
        pd.Series(["7", "-3", "0"], dtype="category"),
        pd.Series([7, -3, 0], dtype="category"),
        pd.Series([7, -3, 0], dtype=object),
        pd.Index([7, -3, 0]),
        pd.array([7, -3, 0], dtype="Int64"),
    ],
    ids=lambda column: f"{type(column).__name__} {getattr(column, 'dtype', '')}",
)
def test_a_number_meets_itself_from_any_column(column: Any) -> None:
    assert normalise_ids(column) == ["7", "-3", "0"]


@pytest.mark.parametrize(
    ("column", "fault"),
    [
        (pd.Series([7, None]), "1 are missing"),
        (pd.Series([7, None], dtype="Int64"), "1 are missing"),
        (pd.Series(["7", None]), "1 are missing"),
        (pd.Series(["7", None], dtype="string"), "1 are missing"),
        (pd.Series(["7", None], dtype="category"), "1 are missing"),
        (pd.to_datetime(pd.Series(["2024-01-31", None])), "1 are missing"),
        (pd.to_datetime(pd.Series(["2024-01-31", None]), utc=True), "1 are missing"),
        (np.ma.array([7, 8], mask=[False, True]), "1 are missing"),
        (pd.Series([True, False]), "2 are bools"),
        (pd.Series([2**24, 1], dtype="float32"), "1 are floats"),
        (np.array([2**24, 1], dtype="float32"), "1 are floats"),
        (np.array([(7, 8)], dtype="i4,i4"), "1 are of type void"),
        (pd.Series([7, 7.5]), "1 are floats"),
    ],
    ids=lambda each: f"{type(each).__name__} {getattr(each, 'dtype', '')}",
)
def test_what_a_column_lacks_is_counted(column: Any, fault: str) -> None:
    with pytest.raises(BadIds, match=f"ids {fault}"):
        normalise_ids(column)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_column_of_times_has_the_text_of_its_moments(unit: str) -> None:
    moments = pd.to_datetime(pd.Series(["2024-01-31 00:00:00", "2024-02-01 09:05:10"])).dt.as_unit(unit)  # type: ignore[arg-type]  # parametrize gives a str

    assert normalise_ids(moments) == ["2024-01-31T00:00:00", "2024-02-01T09:05:10"]
    assert normalise_ids(moments.dt.tz_localize("Asia/Tokyo")) == ["2024-01-30T15:00:00Z", "2024-02-01T00:05:10Z"]
    assert normalise_ids(moments.dt.date) == ["2024-01-31", "2024-02-01"]
    assert normalise_ids(moments.dt.to_pydatetime()) == normalise_ids(list(moments)) == normalise_ids(moments)


def test_two_values_of_one_text_are_left_to_the_check_of_a_run() -> None:
    ids = normalise_ids([7, "7", 7.0, "8"])

    assert ids == ["7", "7", "7", "8"]
    with pytest.raises(BadIds, match="of 4 ids 2 repeat another"):
        check_ids(ids)


FORMS: list[Callable[[int], object]] = [
    int,
    str,
    float,
    Decimal,
    np.int64,
    np.float64,
    lambda number: f" {number}\n",
    lambda number: str(number).encode(),
    lambda number: Decimal(number * 10).scaleb(-1),
]


@given(st.lists(st.tuples(st.integers(-(2**53) + 1, 2**53 - 1), st.sampled_from(FORMS), st.sampled_from(FORMS))))
def test_all_forms_of_a_whole_number_meet(
    numbers: list[tuple[int, Callable[[int], object], Callable[[int], object]]],
) -> None:
    ours = normalise_ids([form(number) for number, form, _ in numbers])
    theirs = normalise_ids([form(number) for number, _, form in numbers])

    assert ours == theirs == [str(number) for number, _, _ in numbers]


anything = st.one_of(
    st.text(),
    st.text(st.sampled_from(" \u00a0\u0301e\u1100\u1161\u11a8\u2000\u212b\u0340")),
    st.binary(max_size=6),
    st.integers(),
    st.integers(1 << 2040, 1 << 2056),
    st.floats(),
    st.floats(width=16).map(np.float16),
    st.decimals(),
    st.decimals(allow_nan=False, allow_infinity=False, places=0),
    st.dates(),
    st.datetimes(timezones=st.none() | st.timezones()),
    st.integers(-(2**63), 2**63 - 1).map(lambda n: np.datetime64(n, "s")),
    st.integers(-(2**63), 2**63 - 1).map(lambda n: np.datetime64(n, "ns")),
    st.integers(-(2**63), 2**63 - 1).map(lambda n: np.datetime64(n, "D")),
    st.uuids(),
    st.booleans(),
    st.none(),
    st.complex_numbers(),
    st.timedeltas(),
    st.from_type(type),
)


@given(st.lists(anything, max_size=4))
def test_whatever_comes_is_either_written_once_and_for_all_or_refused_by_name(values: list[object]) -> None:
    try:
        texts = normalise_ids(values)
    except BadIds:
        return

    assert len(texts) == len(values)
    assert normalise_ids(texts) == texts
    assert sorted(check_ids(sorted(set(texts)))) == sorted(set(texts))


def test_pandas_is_not_imported_for_it() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from psi.normalise import normalise_ids; "
        "sys.exit(normalise_ids([7]) != ['7'] or 'pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(Path(__file__).parents[2])], check=True, timeout=30)

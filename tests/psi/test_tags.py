"""Tags are found wherever they are, and only they."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psi import tags
from psi.tags import Rows, TagIndex, as_texts, rows

# Tags that differ in few places, so that many begin alike: in the first 8 bytes, in all but the last, …
tag_bytes = st.tuples(
    st.sampled_from([b"\0", b"\1", b"\x7f", b"\x80", b"\xff"]),
    st.sampled_from([bytes(7), b"\0\0\0\0\0\0\1", b"\xff" * 7]),
    st.sampled_from([bytes(4), b"\0\0\0\1", b"\1\0\0\0", b"\xff" * 4]),
).map(b"".join)


def table(items: list[bytes], width: int) -> Rows:
    return rows(b"".join(items), width)


@given(
    known=st.lists(tag_bytes, unique=True, max_size=25),
    wanted=st.lists(tag_bytes, max_size=25),
    width=st.sampled_from([12, 16, 32]),
    wanted_width=st.sampled_from([12, 16]),
)
def test_every_tag_is_found_where_it_stands(
    known: list[bytes], wanted: list[bytes], width: int, wanted_width: int
) -> None:
    """What stands behind the tag of a row counts for nothing."""
    index = TagIndex(table([tag + bytes([at]) * (width - 12) for at, tag in enumerate(known)], width))
    found = index.find(table([tag + b"\x77" * (wanted_width - 12) for tag in wanted], wanted_width))
    places = {tag: at for at, tag in enumerate(known)}
    assert found.tolist() == [places.get(tag, -1) for tag in wanted]


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_many_tags_are_looked_up_batch_by_batch(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "_BATCH", batch)
    known = [bytes(4) + number.to_bytes(8, "big") for number in range(7)]
    wanted = [known[3], known[6], bytes(12)[:-1] + b"\x09", known[0], known[3]]
    assert TagIndex(table(known, 12)).find(table(wanted, 12)).tolist() == [3, 6, -1, 0, 3]


def test_nothing_is_found_in_nothing() -> None:
    empty = np.zeros((0, 16), np.uint8)
    assert TagIndex(empty).find(empty).tolist() == []
    assert TagIndex(empty).find(table([bytes(12)], 12)).tolist() == [-1]
    assert TagIndex(table([bytes(16)], 16)).find(empty).tolist() == []


def test_heads_are_compared_as_unsigned_numbers() -> None:
    known = [b"\xff" * 12, b"\x80" + bytes(11), b"\x7f" + b"\xff" * 11, bytes(12)]
    assert TagIndex(table(known, 12)).find(table(known, 12)).tolist() == [0, 1, 2, 3]


def test_rows_are_a_view_of_whole_items() -> None:
    data = bytearray(range(24))
    view = rows(data, 12)
    data[12] = 99
    assert view.shape == (2, 12) and view[1, 0] == 99
    with pytest.raises(ValueError, match="reshape"):
        rows(bytes(13), 12)


@given(found=st.lists(tag_bytes, max_size=25))
def test_tags_are_compared_as_python_compares_bytes(found: list[bytes]) -> None:
    """Not as numpy compares texts of different lengths, which ends at a zero byte."""
    texts = as_texts(table(found, 12))
    assert np.sort(texts).tobytes() == b"".join(sorted(found))
    for one, other, ascends, same in zip(
        found, found[1:], texts[1:] > texts[:-1], texts[1:] == texts[:-1], strict=False
    ):
        assert (other > one, other == one) == (bool(ascends), bool(same))
    assert as_texts(table(found, 12)[:, :4]).tobytes() == b"".join(tag[:4] for tag in found)

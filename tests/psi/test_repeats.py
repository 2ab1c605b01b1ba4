"""A memory that says which element came before."""

from __future__ import annotations

import os
import secrets
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psi import repeats
from psi.errors import BadArgument
from psi.repeats import Repeats


def reference(seen: set[bytes], count: int, chunk: list[bytes]) -> int | None:
    """What a set of everything says."""
    first = None
    for place, item in enumerate(chunk):
        if item in seen and first is None:
            first = count + place
        seen.add(item)
    return first


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(1, 9), st.sampled_from([1, 2, 7, 1 << 16]))
def test_it_agrees_with_a_set_of_everything(data: st.DataObject, width: int, block: int) -> None:
    few = st.integers(0, 255).map(lambda number: number.to_bytes(width, "big"))
    chunks = data.draw(
        st.lists(st.lists(st.one_of(few, st.binary(min_size=width, max_size=width)), max_size=20), max_size=12)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeats, "BLOCK", block)
        memory, seen, count = Repeats(width), set[bytes](), 0
        for chunk in chunks:
            assert memory.add(b"".join(chunk)) == reference(seen, count, chunk)
            count += len(chunk)
            assert len(memory) == count


@pytest.mark.parametrize("width", [1, 12, 31, 32, 256, 384])
def test_one_repeat_among_many_is_found_where_it_is(width: int) -> None:
    many = 200 if width == 1 else 3000
    items = [bytes([number]) for number in range(many)] if width == 1 else [os.urandom(width) for _ in range(many)]
    for earlier, later in ((0, many - 1), (many // 2, many // 2 + 1), (7, many // 3)):
        changed = [*items[:later], items[earlier], *items[later:]]
        memory = Repeats(width)
        found = [memory.add(b"".join(changed[start : start + 100])) for start in range(0, len(changed), 100)]
        assert [each for each in found if each is not None] == [later]


@pytest.mark.parametrize("width", [12, 32, 256])
def test_items_that_differ_in_one_bit_are_different(width: int) -> None:
    base = int.from_bytes(os.urandom(width), "big")
    items = [(base ^ bits).to_bytes(width, "big") for bits in (0, *(1 << place for place in range(8 * width)))]

    assert Repeats(width).add(b"".join(items)) is None


def test_many_different_items_raise_no_alarm_in_any_pattern() -> None:
    """Counters and multiples are what a weak hash would trip over."""
    for step in (1, 1 << 16, 1 << 32, (1 << 64) - 1):
        memory = Repeats(16)
        for start in range(0, 100_000, 5000):
            assert memory.add(b"".join((step * n).to_bytes(16, "little") for n in range(start, start + 5000))) is None
        assert memory.add((step * 99_999).to_bytes(16, "little")) == 100_000


def test_items_whose_first_64_bits_of_digest_agree_are_told_apart_by_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def digests(_: Repeats, data: bytes, count: int) -> tuple[object, object]:
        items = np.frombuffer(data, np.uint8).reshape(count, 2)
        return items[:, 0].astype(np.uint64), items[:, 1].astype(np.uint32)

    monkeypatch.setattr(Repeats, "_digests", digests)
    memory = Repeats(2)

    assert memory.add(b"a1a2b1a3") is None
    assert memory.add(b"b2b3") is None
    assert memory.add(b"c1a4b4c2b2c1") == 10
    assert memory.add(b"d1d2d1d2a3") == 14
    assert memory.add(b"a2") == 17


def test_every_part_of_the_digest_depends_on_every_word_and_on_the_secret_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = Repeats(12)
    for changed in range(3):
        item = np.zeros((2, 3), "<u4")
        item[1, changed] = 1 << 31
        heads, tails = fixed._digests(item.tobytes(), 2)
        assert heads[0] >> np.uint64(32) != heads[1] >> np.uint64(32)
        assert heads[0] & np.uint64(0xFFFFFFFF) != heads[1] & np.uint64(0xFFFFFFFF)
        assert tails[0] != tails[1]
        assert len({int(heads[1]) >> 32, int(heads[1]) & 0xFFFFFFFF, int(tails[1])}) == 3
    assert fixed._digests(bytes(12), 1) != Repeats(12)._digests(bytes(12), 1)
    calls: list[int] = []
    system = secrets.token_bytes

    def counted(size: int) -> bytes:
        calls.append(size)
        return system(size)

    monkeypatch.setattr(secrets, "token_bytes", counted)
    Repeats(12)
    assert calls == [3 * 8 * 4]  # three functions, one key of 64 bits for each word and one to add


def test_the_runs_take_twelve_bytes_per_item_and_stay_few() -> None:
    memory = Repeats(8)
    for number in range(300):
        assert memory.add(os.urandom(8 * (1 + number % 7))) is None
    lengths = [len(run) for run in memory._runs]

    assert sum(lengths) == len(memory)
    assert all(longer >= 2 * shorter for longer, shorter in pairwise(lengths))
    assert sum(run.heads.nbytes + run.tails.nbytes for run in memory._runs) == 12 * len(memory)


def test_a_merge_gives_the_memory_of_both_runs_back_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "BLOCK", 100)
    left, right = (
        repeats._Run(np.sort(np.frombuffer(os.urandom(8000), np.uint64)), np.arange(1000, dtype=np.uint32))
        for _ in "ab"
    )
    expected = sorted(
        [
            *zip(left.heads.tolist(), left.tails.tolist(), strict=True),
            *zip(right.heads.tolist(), right.tails.tolist(), strict=True),
        ]
    )
    largest: list[int] = []
    cut = repeats._Run.cut

    def watched(run: repeats._Run, length: int) -> None:
        largest.append(len(run) - length)
        cut(run, length)

    monkeypatch.setattr(repeats._Run, "cut", watched)
    both = repeats._merged(left, right)

    assert list(zip(both.heads.tolist(), both.tails.tolist(), strict=True)) == expected
    assert len(left) == len(right) == 0
    assert sum(largest) == 2000
    assert max(largest) < 250


def test_items_of_a_memoryview_are_taken() -> None:
    memory = Repeats(3)

    assert memory.add(memoryview(b"xabcdef")[1:]) is None
    assert memory.add(b"def") == 2
    assert memory.add(b"") is None


@pytest.mark.parametrize("width", [0, -1, 1.0, True, "8"])
def test_a_width_that_is_no_number_of_bytes_is_refused(width: int) -> None:
    with pytest.raises(BadArgument, match="width is"):
        Repeats(width)


def test_half_an_item_is_refused_and_nothing_is_remembered() -> None:
    memory = Repeats(4)
    with pytest.raises(BadArgument, match="7 bytes are no whole number of items; expected a multiple of 4"):
        memory.add(b"abcdabc")

    assert len(memory) == 0
    assert memory.add(b"abcd") is None

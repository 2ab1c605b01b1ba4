"""A store gives back what was put in, and does not show what that was."""

from __future__ import annotations

import secrets
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from psi import okvs
from psi.errors import BadArgument, ComputeFault

Words = NDArray[np.uint64]
counts = st.integers(0, 300)
numbers = st.integers(0, 2**32)
KNOWN_0 = [["aa8d69be35d78d68", "bbf0884fe04e26a8"], ["cf71015817f9e084", "c065c28c8ff5f4c4"]]
KNOWN_63 = [["9d9809de29247a84", "22c612cd649355c4"], ["f3854482f9a27c9c", "333d59c9ff945a4d"]]


def words(generator: np.random.Generator, count: int, width: int) -> Words:
    return generator.integers(0, 2**64, (count, width), np.uint64)


def pairs(seed: int, count: int) -> tuple[Words, Words]:
    generator = np.random.default_rng(seed)
    return words(generator, count, 3), words(generator, count, 2)


def ones(array: Words) -> float:
    """The share of bits that are set."""
    return float(np.unpackbits(np.ascontiguousarray(array).view(np.uint8)).mean())


@settings(max_examples=150, deadline=None)
@given(seed=numbers, count=counts)
def test_every_key_gets_its_value_back_in_any_order(seed: int, count: int) -> None:
    keys, values = pairs(seed, count)
    store, cells = okvs.encode(keys, values, source=secrets.token_bytes)
    assert cells.shape == (okvs.cells_for(count), 2)
    order = np.random.default_rng(seed).permutation(count)
    assert np.array_equal(okvs.decode(keys[order], store, cells), values[order])


@pytest.mark.parametrize("count", [1, 2, 3, 1000, 65_535, 65_536, 65_537, 150_000])
def test_stores_larger_than_one_batch_hold_too(count: int) -> None:
    keys, values = pairs(count, count)
    store, cells = okvs.encode(keys, values, source=secrets.token_bytes)
    assert store == 0
    assert np.array_equal(okvs.decode(keys, store, cells), values)


def test_a_thousand_stores_need_no_second_seed() -> None:
    # Without the tail about 23 of them would.
    for seed in range(1000):
        keys, values = pairs(seed, 100)
        store, cells = okvs.encode(keys, values, source=Random(seed).randbytes)
        assert store == 0
        assert np.array_equal(okvs.decode(keys, store, cells), values)


def same_cells(count: int, groups: int) -> tuple[Words, Words]:
    """Keys of which each `groups` share their three cells (the upper halves under seed 0) but not their tail bits."""
    generator = np.random.default_rng(count)
    mixed = words(generator, count, 3)
    mixed &= np.uint64(0xFFFFFFFF)
    mixed |= np.repeat(words(generator, count // groups, 3), groups, axis=0) & np.uint64(0xFFFFFFFF00000000)
    return unmixed(mixed), words(generator, count, 2)


def unmixed(mixed: Words) -> Words:
    """splitmix64 backwards, under seed 0: the words that mix to these."""

    def undo_shift(value: Words, bits: int) -> Words:
        result = value
        for _ in range(64 // bits):
            result = value ^ result >> np.uint64(bits)
        return result

    value = undo_shift(mixed, 31) * np.uint64(pow(0x94D049BB133111EB, -1, 1 << 64))
    value = undo_shift(value, 27) * np.uint64(pow(0xBF58476D1CE4E5B9, -1, 1 << 64))
    value = undo_shift(value, 30)
    value -= np.uint64(0x9E3779B97F4A7C15)
    return value


@pytest.mark.parametrize(("count", "groups"), [(2, 2), (30, 2), (300, 3), (40, 40), (90, 5)])
def test_keys_that_share_all_three_cells_are_told_apart_by_the_tail(count: int, groups: int) -> None:
    # `count - count // groups` keys more than cells, at least: up to 40 of the tail's 64 cells have to decide.
    count = min(count, groups * (40 // (groups - 1)))
    keys, values = same_cells(count, groups)
    store, cells = okvs.encode(keys, values, source=secrets.token_bytes)
    assert store == 0
    assert np.array_equal(okvs.decode(keys, store, cells), values)


def test_the_next_seed_is_taken_where_one_has_no_solution() -> None:
    keys, values = same_cells(100, 100)
    store, cells = okvs.encode(keys, values, source=secrets.token_bytes)
    assert store == 1
    assert np.array_equal(okvs.decode(keys, store, cells), values)
    assert not np.any(okvs.decode(keys, 0, cells) == values)


def test_words_that_cannot_be_solved_end_with_an_error_and_not_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(okvs, "_mix", lambda words, seed: words & np.uint64(1))
    keys, values = pairs(1, 40)
    with pytest.raises(ComputeFault, match=r"store of 40 keys has no solution under any of 64 seeds.*fresh key"):
        okvs.encode(keys, values, source=secrets.token_bytes)


def test_a_core_too_large_to_solve_is_given_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(okvs, "_LARGEST_CORE", 39)
    keys, values = same_cells(40, 40)
    assert okvs.encode(keys, values, source=secrets.token_bytes)[0] == 1


@settings(max_examples=60, deadline=None)
@given(seed=numbers, count=st.integers(1, 300))
def test_a_key_that_was_not_put_in_decodes_to_nothing_that_was(seed: int, count: int) -> None:
    keys, values = pairs(seed, count)
    store, cells = okvs.encode(keys, values, source=secrets.token_bytes)
    others = words(np.random.default_rng(seed + 2**33), 200, 3)
    found = okvs.decode(others, store, cells)
    assert len(np.unique(found[:, 0])) == 200
    assert not np.isin(found, values).any()
    assert 0.45 < ones(found) < 0.55


def test_even_values_of_zero_leave_random_cells_and_random_answers_to_others() -> None:
    # The worst values: any cell left at a default, or the tail, would show.
    keys, _ = pairs(5, 200)
    store, cells = okvs.encode(keys, np.zeros((200, 2), np.uint64), source=secrets.token_bytes)
    assert not okvs.decode(keys, store, cells).any()
    assert cells.all()
    # With values of zero two keys may leave equal cells, but only where they share cells.
    assert len(np.unique(cells[-64:], axis=0)) == 64
    others = words(np.random.default_rng(6), 500, 3)
    found = okvs.decode(others, store, cells)
    assert found.all()
    assert 0.48 < ones(found) < 0.52


@pytest.mark.parametrize("count", [0, 1, 100, 3000])
def test_a_cell_does_not_show_whether_a_key_uses_it(count: int) -> None:
    keys, values = pairs(7, count)
    _, cells = okvs.encode(keys, values, source=secrets.token_bytes)
    assert len(np.unique(cells[:, 0])) == len(np.unique(cells[:, 1])) == len(cells) == okvs.cells_for(count)
    assert cells.all()
    assert abs(ones(cells) - 0.5) < 4 * 0.5 / np.sqrt(128 * len(cells))


def test_each_bit_of_each_cell_is_a_fair_coin_over_many_stores() -> None:
    # Cells of a core, of peeled keys, free ones and the tail: position by position, not only on average.
    keys, _ = pairs(8, 12)
    twins, _ = same_cells(12, 2)
    for chosen in (keys, twins):
        total = np.zeros((okvs.cells_for(12), 128))
        generator = np.random.default_rng(9)
        for _ in range(600):
            _, cells = okvs.encode(chosen, words(generator, 12, 2), source=generator.bytes)
            total += np.unpackbits(cells.view(np.uint8), axis=1)
        assert np.abs(total / 600 - 0.5).max() < 6 * 0.5 / np.sqrt(600)


def test_the_same_source_gives_the_same_cells_and_another_one_does_not() -> None:
    keys, values = pairs(10, 50)
    first, again, other = (okvs.encode(keys, values, source=Random(seed).randbytes)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_known_store_decodes_to_known_values() -> None:
    # Made with this code, which the scalar decoder below checks: a change of the mixing would part us from older peers.
    cells = np.arange(2 * okvs.cells_for(3), dtype=np.uint64).reshape(-1, 2) * np.uint64(0x0123456789ABCDF1)
    keys = np.arange(6, dtype=np.uint64).reshape(2, 3) * np.uint64(0x9E3779B97F4A7C15)
    assert [[f"{word:016x}" for word in row] for row in okvs.decode(keys, 0, cells).tolist()] == KNOWN_0
    assert [[f"{word:016x}" for word in row] for row in okvs.decode(keys, 63, cells).tolist()] == KNOWN_63


def test_a_scalar_decoder_written_from_the_header_agrees() -> None:
    keys, values = pairs(11, 40)
    store, cells = okvs.encode(keys, values, source=secrets.token_bytes)
    mask = (1 << 64) - 1

    def mix(word: int) -> int:
        word = (word + (store + 1) * 0x9E3779B97F4A7C15) & mask
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & mask
        word = (word ^ word >> 27) * 0x94D049BB133111EB & mask
        return word ^ word >> 31

    block = (len(cells) - 64) // 3
    for key, value in zip(keys.tolist(), values.tolist(), strict=True):
        first, second, third = map(mix, key)
        places = [(word >> 32) * block // 2**32 + part * block for part, word in enumerate((first, second, third))]
        tail = (first << 32 & mask | second & 0xFFFFFFFF) ^ third & 0xFFFFFFFF
        places += [3 * block + bit for bit in range(64) if tail >> bit & 1]
        assert np.bitwise_xor.reduce(cells[places]).tolist() == value


def test_the_store_does_not_change_its_arguments() -> None:
    keys, values = pairs(12, 20)
    kept = keys.copy(), values.copy()
    store, cells = okvs.encode(keys, values, source=secrets.token_bytes)
    table = cells.copy()
    okvs.decode(keys, store, cells)
    assert np.array_equal(keys, kept[0]) and np.array_equal(values, kept[1]) and np.array_equal(cells, table)


def test_cells_grow_by_1_3_for_each_key_and_make_three_equal_blocks() -> None:
    assert okvs.cells_for(0) == 112
    assert okvs.cells_for(10_000_000) == 13_000_114
    for count in range(500):
        cells = okvs.cells_for(count)
        assert (cells - 64) % 3 == 0
        assert 1.3 * count + 112 <= cells < 1.3 * count + 115
    for count in (-1, 2**31):
        with pytest.raises(BadArgument, match="cannot hold"):
            okvs.cells_for(count)


@settings(max_examples=30, deadline=None)
@given(seed=numbers, count=st.integers(1, 50), repeats=st.integers(1, 5))
def test_a_key_that_comes_twice_is_refused_with_the_count(seed: int, count: int, repeats: int) -> None:
    keys, _ = pairs(seed, count)
    again = keys[np.random.default_rng(seed).integers(0, count, repeats)]
    both = np.random.default_rng(seed).permutation(np.concatenate([keys, again]))
    with pytest.raises(BadArgument, match=rf"^{repeats} of the {count + repeats} keys come a second time"):
        okvs.encode(both, words(np.random.default_rng(seed), count + repeats, 2), source=secrets.token_bytes)


def test_keys_that_share_one_word_are_still_two_keys() -> None:
    keys, values = pairs(13, 10)
    keys[:, 0] = keys[0, 0]
    store, cells = okvs.encode(keys, values, source=secrets.token_bytes)
    assert np.array_equal(okvs.decode(keys, store, cells), values)


def test_arrays_of_another_form_are_refused_by_name() -> None:
    keys, values = pairs(14, 4)
    store, cells = okvs.encode(keys, values, source=secrets.token_bytes)
    with pytest.raises(
        BadArgument, match=r"store's keys are uint64 of shape \(4, 2\); expected uint64 of shape \(n, 3\)"
    ):
        okvs.encode(keys[:, :2], values, source=secrets.token_bytes)
    with pytest.raises(BadArgument, match="store's values are int64"):
        okvs.encode(keys, values.astype(np.int64), source=secrets.token_bytes)
    with pytest.raises(BadArgument, match="4 keys but 3 values"):
        okvs.encode(keys, values[:3], source=secrets.token_bytes)
    with pytest.raises(BadArgument, match="store's keys"):
        okvs.decode(keys.ravel(), store, cells)
    with pytest.raises(BadArgument, match="store's cells"):
        okvs.decode(keys, store, cells.ravel())
    for wrong in (0, 64, len(cells) - 1, len(cells) + 1):
        with pytest.raises(BadArgument, match=rf"^{wrong} cells are no store"):
            okvs.decode(keys, store, np.zeros((wrong, 2), np.uint64))
    for seed in (-1, 64):
        with pytest.raises(BadArgument, match=f"seed is {seed}; expected 0 to 63"):
            okvs.decode(keys, seed, cells)

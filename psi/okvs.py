"""An oblivious key-value store: n keys and their values as a table in which the keys cannot be seen.

The garbled cuckoo table with three hashes of Garimella, Pinkas, Rosulek, Trieu and Yanai, "Oblivious Key-Value Stores
and Amplification for Private Set Intersection" (CRYPTO 2021), in its linear form: c = 3b + 64 cells of 16 bytes,
three blocks of b and a dense tail of 64. A key selects one cell in each block, and each cell of the tail with
probability one half; its value is the XOR of all that it selects:

    cells[p0(k)] ^ cells[p1(k)] ^ cells[p2(k)] ^ (XOR of tail[i] for each bit i set in d(k)) = value(k)

Solving. A cell that only one key selects can be set last, to whatever that key still lacks: the key is peeled off,
which may leave other cells to one key. With 1.23 cells or more for each key (Molloy, "Cores in random hypergraphs and
Boolean formulas", 2005) nothing is left in the end, but for accidents: two keys in the same three cells come once in
n / 6 stores. The tail is for these. What cannot be peeled, the core, is a small system of equations, solved by
elimination over the block cells that it touches and the tail. It has no solution only if rows depend on each other,
against which each row has 64 coin flips: with probability 2^(e - 64), e the excess of the core's keys over the rank
of their block cells. In 105,000 stores of 1 to 5,000 keys e was 1 in 1.1 %, 2 in seven, and never more.

What it hides. Take values that look uniform to the receiver, except those that it is meant to get. Every cell is then
uniform: those that no equation fixes are drawn at random, the others are a bijection of the values. So the table is
16c uniform bytes whatever the keys, and a key that is not in it decodes to 16 uniform bytes. It says how many keys
there are (c), nothing about which. Two conditions are the caller's:

* Mask the values with bytes of the same pseudorandom function that gave the keys' words, but not with those words.
  Values that somebody can compute from a guessed key (such as shares under known pair keys, or zeros) could be
  searched for among the XORs of three cells and the tail.
* The words come from a function under a key of the sender's: uniform, fresh for this store, unknown to the receiver
  for all keys but its own. Then nobody can choose keys that form a core.

Why the seed tells nothing. A receiver knows the words of its own keys. If a store were built anew whenever peeling
stops (2.4 % of the stores of 100 keys), the seed would say that certain sets of the receiver's keys are not all in
it. With the tail seed 0 fails with probability under 2^-60, over the choice of the words and for any keys: in
practice the seed is a constant.

Cost: about 1.3 cells, 21 bytes, for a key. The time depends on the words, not on the values.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from psi.errors import BadArgument, ComputeFault

KEY_WORDS = 3
"""Uniform 64-bit words that make a key."""

CELL_BYTES = 16
"""Bytes of a cell and of a value."""

SEEDS = 64
"""Seeds that a store may have: 0 to 63."""

_Words = NDArray[np.uint64]
_Index = NDArray[np.int64]

_TAIL = 64  # dense cells: one for each bit of a word
_LARGEST = 1 << 30  # keys; a block's size has to fit the 32 bits that choose a cell in it
_LARGEST_CORE = 4096  # rows of the elimination: seconds of work; never seen above a few hundred
_BATCH = 1 << 16  # keys at a time where arrays of all of them would only be temporary
_ONE = 1 << 40  # a cell's state counts its keys above this bit and adds up their numbers below it


def cells_for(count: int) -> int:
    """Cells of a store of `count` keys: 1.3 for each key and 112 for the smallest store."""
    if not 0 <= count <= _LARGEST:
        raise BadArgument(f"a store cannot hold {count} keys; expected 0 to {_LARGEST}. Split the ids.")
    return 3 * (16 + -(-13 * count // 30)) + _TAIL


def encode(keys: _Words, values: _Words, *, source: Callable[[int], bytes]) -> tuple[int, _Words]:
    """Build the store in which each key decodes to its value.

    Args:
        keys: (n, 3), three words of a pseudorandom function's output for each key, all keys different; n may be 0.
        values: (n, 2), 16 bytes for each key; they should look uniform, see above.
        source: random bytes for the free cells: `secrets.token_bytes`, outside tests.

    Returns:
        The seed, 0 to 63, and the cells, (cells_for(n), 2).

    Raises:
        BadArgument: an array has another shape or type, or a key comes twice.
        ComputeFault: none of the 64 seeds works: the words are not pseudorandom.
    """
    _check(keys, KEY_WORDS, "keys")
    _check(values, 2, "values")
    if len(keys) != len(values):
        raise BadArgument(f"the store got {len(keys)} keys but {len(values)} values; expected one value for each key.")
    repeated = _repeats(keys)
    if repeated:
        raise BadArgument(
            f"{repeated} of the {len(keys)} keys come a second time; expected each once. Remove the duplicate ids."
        )
    count = cells_for(len(keys))
    for seed in range(SEEDS):
        cells = _solve(keys, values, seed, count, source)
        if cells is not None:
            return seed, cells
    raise ComputeFault(
        f"a store of {len(keys)} keys has no solution under any of {SEEDS} seeds; expected one under the first. "
        "The keys' words are not pseudorandom: check this machine's memory, and start a new run with a fresh key."
    )


def decode(keys: _Words, seed: int, cells: _Words) -> _Words:
    """The value of each key; 16 bytes that look random for a key that is not in the store.

    Args:
        keys: (n, 3), as in `encode`.
        seed: what `encode` gave.
        cells: what `encode` gave, (c, 2); whoever received it checks that c is `cells_for` of the declared count.

    Returns:
        (n, 2).

    Raises:
        BadArgument: an array has another shape or type, c is no store's size, or the seed is not 0 to 63.
    """
    _check(keys, KEY_WORDS, "keys")
    _check(cells, 2, "cells")
    block, rest = divmod(len(cells) - _TAIL, 3)
    if block < 1 or rest:
        raise BadArgument(
            f"{len(cells)} cells are no store; expected cells_for(count) of them. Check the message's length."
        )
    if not 0 <= seed < SEEDS:
        raise BadArgument(f"the store's seed is {seed}; expected 0 to {SEEDS - 1}. Check the message that it came in.")
    tables = _tail_tables(cells)
    values = np.empty((len(keys), 2), np.uint64)
    for start in range(0, len(keys), _BATCH):
        places, dense = _places(keys[start : start + _BATCH], seed, block)
        values[start : start + _BATCH] = _from_blocks(cells, places) ^ _from_tail(tables, dense)
    return values


def _solve(keys: _Words, values: _Words, seed: int, count: int, source: Callable[[int], bytes]) -> _Words | None:
    """The cells under one seed, or None if the core's rows depend on each other."""
    block = (count - _TAIL) // 3
    places = np.empty((3, len(keys)), np.int32)
    dense = np.empty(len(keys), np.uint64)
    for start in range(0, len(keys), _BATCH):
        piece = slice(start, start + _BATCH)
        places[:, piece], dense[piece] = _places(keys[piece], seed, block)
    rounds, core = _peel(places, count)
    if len(core) > _LARGEST_CORE:
        return None
    # Every cell that no peeled key decides is random; the core then corrects as many of them as it has keys.
    free = np.ones(count, np.bool_)
    for _, decided in rounds:
        free[decided] = False
    cells = np.zeros((count, 2), np.uint64)
    where = np.flatnonzero(free)
    for start in range(0, len(where), _BATCH):
        some = where[start : start + _BATCH]
        cells[some] = np.frombuffer(source(CELL_BYTES * len(some)), np.uint64).reshape(-1, 2)
    if len(core) and not _solve_core(cells, places[:, core], dense[core], values[core]):
        return None
    tables = _tail_tables(cells)
    # Last peeled, first set: a key's other cells are free, the core's, or decided by keys peeled after it.
    for peeled, decided in reversed(rounds):
        for start in range(0, len(peeled), _BATCH):
            some = peeled[start : start + _BATCH]
            # The cell to set is still zero, so it adds nothing to its own sum.
            known = _from_blocks(cells, places.take(some, axis=1)) ^ _from_tail(tables, dense.take(some))
            cells[decided[start : start + _BATCH]] = values.take(some, axis=0) ^ known
    return cells


def _peel(places: NDArray[np.int32], count: int) -> tuple[list[tuple[_Index, _Index]], _Index]:
    """Take off, round by round, the keys that have a cell for themselves.

    Returns:
        For each round the keys taken and the cell of each; and the keys that were never taken.
    """
    total = places.shape[1]
    state = np.zeros(count, np.uint64)
    for row in places:
        for start in range(0, total, _BATCH):
            numbers = np.arange(start, min(start + _BATCH, total), dtype=np.uint64)
            np.add.at(state, row[start : start + _BATCH], numbers + np.uint64(_ONE))
    taken_at = np.full(total, -1, np.int64)
    rounds: list[tuple[_Index, _Index]] = []
    alone = np.flatnonzero(state >> np.uint64(40) == 1)
    while len(alone):
        # The sum of one key's number is the key. Where a key stands several times (it has several cells for itself, or
        # its cell lost two keys in the last round) the one written last stays.
        keys = (state.take(alone) & np.uint64(_ONE - 1)).astype(np.int64)
        entry = np.arange(len(keys))
        taken_at[keys] = entry
        stays = taken_at.take(keys) == entry
        keys, alone = keys[stays], alone[stays]
        rounds.append((keys, alone))
        touched = places.take(keys, axis=1).astype(np.int64).ravel()
        np.subtract.at(state, touched, np.tile(keys.astype(np.uint64) + np.uint64(_ONE), KEY_WORDS))
        alone = touched[state.take(touched) >> np.uint64(40) == 1]
    return rounds, np.flatnonzero(taken_at < 0)


def _solve_core(cells: _Words, places: NDArray[np.int32], dense: _Words, values: _Words) -> bool:
    """Correct cells so that the keys that could not be peeled decode to their values; False if they depend.

    A row is an integer: the tail's 64 columns in its low bits, the block cells that the core touches above them, so
    that the sparse columns go first. Columns that decide no row keep the random value that `cells` has.
    """
    used, columns = np.unique(places, return_inverse=True)
    columns = columns.reshape(places.shape)
    base = len(cells) - _TAIL
    cell_of = [*range(base, base + _TAIL), *used.tolist()]
    pivots: dict[int, tuple[int, int]] = {}
    for (a, b, c), tail, value in zip(columns.T.tolist(), dense.tolist(), _as_integers(values), strict=True):
        row = (1 << _TAIL + a) | (1 << _TAIL + b) | (1 << _TAIL + c) | tail
        while row:
            top = row.bit_length() - 1
            if top not in pivots:
                pivots[top] = row, value
                break
            row, value = row ^ pivots[top][0], value ^ pivots[top][1]
        else:
            # Consistent or not: dependent rows would make the cells depend on which keys there are.
            return False
    known = _as_integers(cells[cell_of])
    for top in sorted(pivots):
        row, value = pivots[top]
        row ^= 1 << top
        while row:
            lowest = row & -row
            value ^= known[lowest.bit_length() - 1]
            row ^= lowest
        known[top] = value
    cells[cell_of] = np.frombuffer(b"".join(each.to_bytes(CELL_BYTES, "little") for each in known), "<u8").reshape(
        -1, 2
    )
    return True


def _places(keys: _Words, seed: int, block: int) -> tuple[NDArray[np.int32], _Words]:
    """Each key's cells in the three blocks, (3, n), and its 64 bits for the tail, (n,).

    Each word chooses a cell with its upper half, by multiplication (some cells are likelier than others by block /
    2^32, which peeling does not notice); the lower halves, independent of the upper ones, make the tail's bits.
    """
    words = [_mix(keys[:, number], seed) for number in range(KEY_WORDS)]
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    places = np.empty((KEY_WORDS, len(keys)), np.int32)
    for number, word in enumerate(words):
        places[number] = ((word >> half) * np.uint64(block) >> half) + np.uint64(number * block)
    return places, (words[0] << half | words[1] & low) ^ words[2] & low


def _mix(words: _Words, seed: int) -> _Words:
    """The output step of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).

    A bijection for each seed, so uniform words stay uniform; the words are secret, the mixing need not be.
    """
    mixed: _Words = words + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % (1 << 64))
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _from_blocks(cells: _Words, places: NDArray[np.int32]) -> _Words:
    # take() moves rows several times as fast as indexing does.
    total: _Words = cells.take(places[0], axis=0)
    for row in places[1:]:
        total ^= cells.take(row, axis=0)
    return total


def _tail_tables(cells: _Words) -> list[_Words]:
    """For each byte of a key's tail bits: the XOR of the selected cells, for all 256 selections, (256, 2)."""
    tables = []
    for start in range(len(cells) - _TAIL, len(cells), 8):
        table = np.zeros((1, 2), np.uint64)
        for cell in cells[start : start + 8]:
            table = np.concatenate([table, table ^ cell])
        tables.append(table)
    return tables


def _from_tail(tables: list[_Words], dense: _Words) -> _Words:
    total = np.zeros((len(dense), 2), np.uint64)
    for number, table in enumerate(tables):
        total ^= table.take((dense >> np.uint64(8 * number) & np.uint64(255)).astype(np.intp), axis=0)
    return total


def _as_integers(rows: _Words) -> list[int]:
    return [low | high << 64 for low, high in rows.tolist()]


def _repeats(keys: _Words) -> int:
    """How many keys came before."""
    first = np.sort(keys[:, 0])
    if not np.any(first[1:] == first[:-1]):
        return 0
    return len(keys) - len(np.unique(keys, axis=0))


def _check(array: _Words, width: int, name: str) -> None:
    if array.dtype != np.uint64 or array.ndim != 2 or array.shape[1] != width:
        raise BadArgument(
            f"the store's {name} are {array.dtype} of shape {array.shape}; expected uint64 of shape (n, {width})."
        )

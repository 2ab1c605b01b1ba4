"""Many parties: what all of them share, and no party learns what only some of the others do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import psi
from psi import joint
from psi.hashing import OUTPUT_BYTES, TAG_BYTES
from psi.messages import Kind
from psi.okvs import decode
from psi.oprf import PROTOCOLS
from psi.pairing import shares
from psi.tags import rows
from tests.psi.helpers import (
    SESSION,
    TASK,
    Seeded,
    carry,
    finish,
    holder,
    initiator,
    items_of,
    key,
    matched,
    of_kind,
    responder,
)

Words = NDArray[np.uint64]
Run = tuple[psi.Initiator, psi.Responder]
Keys = dict[frozenset[int], bytes]

few_ids = st.lists(st.integers(0, 9).map(str), max_size=9, unique=True)


def agree(count: int) -> Keys:
    """The key of each two of so many responders."""
    halves = [psi.PairKey() for _ in range(count)]
    return {
        frozenset(pair): halves[pair[0]].shared(halves[pair[1]].public, task=TASK, session=SESSION)
        for pair in combinations(range(count), 2)
    }


def known_keys(count: int) -> Keys:
    """The same, and the same in every run of the tests, so that what is judged by its looks looks the same."""
    return {frozenset(pair): Seeded(b"%d and %d" % pair)(32) for pair in combinations(range(count), 2)}


def keys_of(responder_number: int, keys: Keys) -> list[bytes]:
    return [agreed for pair, agreed in keys.items() if responder_number in pair]


def joint_runs(
    own: Sequence[str],
    others: Sequence[Sequence[str]],
    protocol: str = "ecdh",
    *,
    keys: Keys | None = None,
    reveal: str = "both",
    chunk: int | None = None,
) -> tuple[list[Run], list[list[bytes]]]:
    """One run with each responder up to where all can be joined, and what was said in each."""
    agreed = agree(len(others)) if keys is None else keys
    runs, said = [], []
    for number, ids in enumerate(others):
        session, seed = SESSION + bytes([number]), b"%d" % number
        left = initiator(
            own, session=session, protocol=protocol, reveal=reveal, joint=True, chunk=chunk, seed=b"initiator" + seed
        )
        right = responder(
            ids,
            session=session,
            protocol=protocol,
            reveal=reveal,
            joint=keys_of(number, agreed),
            chunk=chunk,
            seed=b"responder" + seed,
            numbers=key("test" if number % 2 else "other"),
        )
        said.append(carry(left, right, right.start()))
        runs.append((left, right))
    return runs, said


def joined(runs: Sequence[Run]) -> list[str]:
    return psi.join([left for left, _ in runs])


def xor(values: Sequence[Words]) -> Words:
    total: Words = np.bitwise_xor.reduce(np.stack(values), axis=0)
    return total


# The result


@pytest.mark.parametrize("reveal", ["both", "initiator"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(max_examples=8, deadline=None)
@given(own=few_ids, others=st.lists(few_ids, min_size=1, max_size=5), chunk=st.sampled_from([3, 40, None]))
def test_two_to_six_parties_find_what_pythons_sets_find(
    protocol: str, reveal: str, own: list[str], others: list[list[str]], chunk: int | None
) -> None:
    runs, _ = joint_runs(own, others, protocol, reveal=reveal, chunk=chunk)
    expected = sorted(set(own).intersection(*others))
    assert joined(runs) == expected
    for left, right in runs:
        finish(left, right)
        assert left.finished and right.finished
        assert left.intersection == expected and left.cardinality == len(expected)
        assert (left.peer_count, right.peer_count) == (len(right._ids), len(own))
        if reveal == "both":
            assert right.intersection == expected
        else:
            with pytest.raises(psi.NotRevealed):
                _ = right.cardinality
        for run in (left, right):
            assert run.progress.done == run.progress.total


@pytest.mark.parametrize(
    ("protocol", "sizes"),
    [
        ("ecdh", (0, 0, 0)),
        ("ecdh", (0, 1, 300)),
        ("ecdh", (1, 0, 1)),
        ("ecdh", (1, 1, 1, 1)),
        ("ecdh", (400, 300, 500)),
        ("ecdh", (3, 700, 2)),
        ("rsa", (0, 2, 0)),
        ("rsa", (1, 1, 1)),
        ("rsa", (120, 150, 100)),
    ],
)
def test_sets_of_any_size(protocol: str, sizes: tuple[int, ...]) -> None:
    own, *others = ([f"all-{i}" for i in range(size // 2 + size % 2)] for size in sizes)
    own += [f"own-{i}" for i in range(sizes[0] // 2)]
    for number, (ids, size) in enumerate(zip(others, sizes[1:], strict=True)):
        ids += [f"{number}-{i}" for i in range(size // 2)]
    runs, _ = joint_runs(own, others, protocol)
    assert joined(runs) == sorted(set(own).intersection(*others))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_responder_confirms_the_same_ordered_list(protocol: str) -> None:
    own = ["b", "é", "a", "c", "10", "9"]
    runs, _ = joint_runs(own, [["9", "b", "é", "10", "x"], ["y", "10", "9", "é", "b", "a"], ["é", "b", "9", "10"]])
    assert joined(runs) == ["10", "9", "b", "é"]
    for left, right in runs:
        assert not right.finished
        finish(left, right)
        assert left.finished and right.intersection == left.intersection == ["10", "9", "b", "é"]


def test_runs_may_be_joined_in_any_order() -> None:
    runs, _ = joint_runs(["a", "b", "c"], [["a", "b"], ["b", "c"], ["b"]])
    lefts = [left for left, _ in runs]
    assert psi.join(lefts[::-1]) == psi.join(lefts) == psi.join((lefts[1], lefts[2], lefts[0])) == ["b"]


def test_one_joint_run_alone_is_the_run_of_two_parties() -> None:
    runs, _ = joint_runs(["a", "b", "c"], [["c", "b", "x"]])
    assert joined(runs) == ["b", "c"]


# Refusals


def test_runs_that_are_not_joint_or_none_at_all_cannot_be_joined() -> None:
    left, _ = matched(["a"], ["a"])
    runs, _ = joint_runs(["a"], [["a"], ["a"]])
    for wrong in ([], [left], [runs[0][0], left]):
        with pytest.raises(psi.BadArgument, match="only joint runs can be joined, and at least one"):
            psi.join(wrong)
    assert joined(runs) == ["a"] and left.intersection == ["a"]


def test_a_run_with_itself_is_not_joined() -> None:
    """Its shares would cancel for every id."""
    runs, _ = joint_runs(["a", "b"], [["a"], ["a"]])
    (first, _), (second, _) = runs
    for twice in ([first, first], [first, second, second], [first, second, first]):
        with pytest.raises(psi.BadArgument, match="comes twice and would cancel itself"):
            psi.join(twice)
    assert joined(runs) == ["a"]


def test_runs_of_different_ids_are_not_joined() -> None:
    """Nor of the same in another order: shares are compared by their places."""
    keys = agree(2)
    first, _ = joint_runs(["a", "b"], [["a"], ["a"]], keys=keys)
    for own in (["b", "a"], ["a", "b", "c"], ["a"]):
        second, _ = joint_runs(own, [["a"], ["a"]], keys=keys)
        with pytest.raises(psi.BadArgument, match="not of the same ids"):
            joined([first[0], second[1]])
    assert joined(first) == ["a"]


def test_runs_are_not_joined_before_all_has_come_nor_after_the_reveal() -> None:
    runs, _ = joint_runs(["a", "b"], [["a"], ["a"]])
    fresh = initiator(["a", "b"], joint=True)
    with pytest.raises(psi.NotYet, match="no shares: this run is waiting for the offer"):
        psi.join([runs[0][0], fresh])
    assert joined(runs) == ["a"]
    finish(*runs[0])
    with pytest.raises(psi.NotYet, match="no shares: this run is finished"):
        joined(runs)
    finish(*runs[1])
    assert [left.intersection for left, _ in runs] == [right.intersection for _, right in runs] == [["a"], ["a"]]


def test_a_joint_run_has_no_result_before_it_is_joined() -> None:
    runs, _ = joint_runs(["a", "b"], [["a"], ["a"]])
    for left, _ in runs:
        assert left.matched
        for name in ("intersection", "cardinality"):
            with pytest.raises(psi.NotYet, match=r"call psi\.join"):
                getattr(left, name)
        with pytest.raises(psi.NotYet, match=r"call psi\.join first"):
            left.reveal()
    assert joined(runs) == ["a"]


def test_a_joint_party_and_one_that_is_not_do_not_begin() -> None:
    for ours in (False, True):
        with pytest.raises(psi.BadMessage, match=f"joint={not ours}; expected .*joint={ours}"):
            initiator(["a"], joint=ours).receive(next(responder(["a"], joint=not ours).start()))


# What the initiator learns


def test_a_joint_run_says_no_tags() -> None:
    own, others = ["all", "two", "own"], [["all", "two", "x"], ["all", "y"], ["two", "all", "z"]]
    runs, said = joint_runs(own, others)
    tags = {}
    for number, (_, right) in enumerate(runs):
        assert right._own is not None
        for place, row in zip(right._own._order, right._own._outputs, strict=True):
            tags[number, right._ids[place]] = row[:TAG_BYTES].tobytes()
        assert len(right._own._outputs) == len(others[number])
        assert {Kind(message[1]) for message in said[number]} == {
            Kind.OFFER,
            Kind.BLINDED,
            Kind.ANSWERS,
            Kind.CELLS,
        }
        cells = of_kind(said[number], Kind.CELLS)
        assert sum(len(items_of(message, 16)) for message in cells) == joint.store_items(len(others[number]))
    before = b"".join(message for each in said for message in each)
    assert not any(tag in before for tag in tags.values())
    assert joined(runs) == ["all"]
    for number, (left, right) in enumerate(runs):
        end = b"".join(finish(left, right))
        assert [each for each in others[number] if tags[number, each] in end] == ["all"]


def test_a_share_stands_in_its_store_behind_a_mask() -> None:
    """Whoever knows the pair keys, another responder say, could otherwise look for the shares of guessed ids."""
    ids, keys = [f"id-{i}" for i in range(50)], [bytes(range(32))]
    key_holder = holder("ecdh")
    powers = key_holder.powers(ids)
    outputs = rows(key_holder.context.outputs(ids, powers, key_holder.width), OUTPUT_BYTES)
    items = joint.store(outputs, ids, keys, key_holder.context, Seeded(b"store"))
    assert np.array_equal(joint.unmask(outputs, key_holder.context, items).values, shares(ids, keys))
    words, _ = joint._words_and_masks(outputs, key_holder.context)
    cells = np.frombuffer(items[16:], ">u8").reshape(-1, 2).astype(np.uint64)
    stored = decode(words, 0, cells)
    assert not (stored == shares(ids, keys)).any()
    assert not (np.diff(stored ^ shares(ids, keys), axis=0) == 0).any()  # nor behind the same mask


def members(count: int, responders: int) -> tuple[list[str], list[list[str]], NDArray[np.bool_]]:
    """Ids of which each group of responders holds equally many, and who holds which: (responders, ids)."""
    ids = [f"id-{i}" for i in range(count)]
    groups = np.arange(count) % (1 << responders)
    holds = np.stack([groups >> number & 1 == 1 for number in range(responders)])
    others = [[f"only-{number}"] for number in range(responders)]
    for held_ids, row in zip(others, holds, strict=True):
        held_ids += [each for each, held in zip(ids, row, strict=True) if held]
    return ids, others, holds


@pytest.mark.parametrize("responders", [2, 3, 4])
def test_shares_of_any_ids_but_the_shared_ones_look_random_whoever_holds_them(responders: int) -> None:
    """What a store gives for an id does not depend on whether the responder holds it, nor on who else does."""
    ids, others, holds = members(384, responders)
    runs, _ = joint_runs(ids, others, keys=known_keys(responders))
    values = [left.shares.values for left, _ in runs]
    everywhere = holds.all(axis=0)
    assert np.array_equal((xor(values) == 0).all(axis=1), everywhere)
    groups = np.arange(len(ids)) % (1 << responders)
    for size in range(1, responders + 1):
        for some in combinations(range(responders), size):
            sums = xor([values[number] for number in some])
            if size == responders:
                sums = sums[~everywhere]
            # No sum is zero, and no two are equal in even one of their words: 128 bits that all differ.
            assert sums.all()
            assert len(np.unique(sums[:, 0])) == len(np.unique(sums[:, 1])) == len(sums)
            if size < responders:
                for group in range(1 << responders):
                    assert_random(sums[groups == group])
    stacked = np.concatenate([row[~everywhere] for row in values])
    assert len(np.unique(stacked[:, 0])) == len(np.unique(stacked[:, 1])) == len(stacked)  # nor across responders
    for row in values:
        assert_random_bytes(row)


def assert_random(words: Words) -> None:
    """As many ones as zeros, within five standard deviations."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8))
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(bits))


def assert_random_bytes(words: Words) -> None:
    """Chi-squared of the bytes: 255 degrees of freedom, above 375 less than once in a million."""
    values = np.ascontiguousarray(words).view(np.uint8).ravel()
    expected = len(values) / 256
    assert ((np.bincount(values, minlength=256) - expected) ** 2 / expected).sum() < 375


def test_differences_between_neighbours_say_nothing_about_who_holds_them() -> None:
    """An id held by all but one responder and one held by none cannot be told apart by any value they have."""
    ids, others, holds = members(256, 3)
    runs, _ = joint_runs(ids, others, keys=known_keys(3))
    values = np.stack([left.shares.values for left, _ in runs])
    all_but_one, none = holds.sum(axis=0) == 2, holds.sum(axis=0) == 0
    assert all_but_one.sum() == 96 and none.sum() == 32
    seen = {row.tobytes() for number in range(3) for row in values[number][all_but_one]}
    assert not seen & {row.tobytes() for number in range(3) for row in values[number][none]}
    for chosen in (all_but_one, none):
        for number in range(3):
            some = values[number][chosen]
            assert_random(some)
            assert_random(np.stack([first ^ second for first, second in pairwise(some)]))
        assert_random(xor(list(values))[chosen])


def test_the_same_sets_give_other_shares_in_the_next_run() -> None:
    """Even where everything but the pair keys is the same."""
    ids, others, holds = members(64, 3)
    first, second = (np.stack([left.shares.values for left, _ in joint_runs(ids, others)[0]]) for _ in range(2))
    assert not (first == second)[holds].any()


# Faults and coalitions


@pytest.mark.parametrize("reveal", ["both", "initiator"])
@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_a_responder_with_a_wrong_pair_key_makes_the_result_empty(wrong: int, reveal: str) -> None:
    own, others = ["a", "b", "c"], [["a", "b"], ["b", "a", "x"], ["b", "c", "a"]]
    keys = agree(3)
    runs = []
    for number in range(3):
        agreed = dict(keys)
        if number == wrong:
            agreed[next(pair for pair in keys if number in pair)] = bytes(range(32))
        runs.append(joint_runs(own, others, keys=agreed, reveal=reveal)[0][number])
    assert joined(runs) == []
    for left, right in runs:
        finish(left, right)
        assert left.finished and right.finished and left.intersection == [] and left.cardinality == 0
        if reveal == "both":
            assert right.intersection == []


def test_a_run_that_is_left_out_makes_the_result_empty() -> None:
    runs, _ = joint_runs(["a", "b"], [["a", "b"], ["b", "a"], ["b"]])
    assert joined(runs[:2]) == joined(runs[1:]) == joined(runs[:1]) == []
    assert joined(runs) == ["b"]  # and is found when it is there


def test_a_responder_of_another_joint_run_makes_the_result_empty() -> None:
    first, _ = joint_runs(["a", "b"], [["a", "b"], ["b", "a"]])
    second, _ = joint_runs(["a", "b"], [["a", "b"], ["b", "a"]])
    assert joined([first[0], second[1]]) == []
    assert joined(first) == joined(second) == ["a", "b"]


@pytest.mark.parametrize("honest", [set(group) for size in (1, 2, 3, 4) for group in combinations(range(4), size)])
def test_a_coalition_of_the_initiator_and_some_learns_what_pairing_says(honest: set[int]) -> None:
    """Pair keys that a member of the coalition has are known to it, so their hashes can be taken away.

    Left are the shares under the keys of two honest responders: of one honest responder nothing, and the coalition
    sees what it holds; of more, only for what all of them hold the sum is zero.
    """
    ids, others, holds = members(128, 4)
    keys = agree(4)
    runs, _ = joint_runs(ids, others, keys=keys)
    left_over = []
    for number in sorted(honest):
        known = [agreed for pair, agreed in keys.items() if number in pair and not pair <= honest]
        left_over.append(runs[number][0].shares.values ^ shares(ids, known))
    together = (xor(left_over) == 0).all(axis=1)
    assert np.array_equal(together, holds[sorted(honest)].all(axis=0))
    for size in range(1, len(honest)):
        for some in combinations(left_over, size):
            sums = xor(some)
            assert sums.all() and len(np.unique(sums[:, 0])) == len(ids)  # nothing about a smaller group


def test_a_reveal_after_join_names_only_joint_ids() -> None:
    """The initiator cannot reveal to one responder what it shares with that one alone; it does not know it."""
    runs, _ = joint_runs(["a", "b", "c"], [["a", "b"], ["b", "c"]])
    joined(runs)
    for left, right in runs:
        for ids in (["a"], ["b", "c"], ["b", "b"]):
            with pytest.raises(psi.BadIds):
                left.reveal(ids)
        finish(left, right, ["b"])
        assert right.intersection == ["b"]

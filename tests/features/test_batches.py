"""Who is in which batch follows from the ids, one seed and the batch size alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterofed.errors import AlignmentError, ConfigError
from heterofed.features.alignment import OrderedIds, digest_of
from heterofed.features.batches import RoundOrder, round_seed, shuffled

KEY = bytes(range(16))
quick = settings(max_examples=50, deadline=None)  # a busy machine is no failure


def people(count: int) -> list[str]:
    return [f"person-{number}" for number in range(count)]


@quick
@given(st.integers(0, 50), st.integers(1, 60))
def test_batches_hold_all_ids_in_order_and_only_the_last_may_be_smaller(count: int, batch_size: int) -> None:
    order = RoundOrder(people(count), batch_size, KEY)

    batches = list(order)

    assert [each for batch in batches for each in batch] == people(count)
    assert len(batches) == len(order)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(1 <= len(batch) <= batch_size for batch in batches)


def test_an_order_can_be_walked_twice() -> None:
    order = RoundOrder(people(5), 2, KEY)

    assert list(order) == list(order) == [["person-0", "person-1"], ["person-2", "person-3"], ["person-4"]]


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_1_is_refused(batch_size: int) -> None:
    with pytest.raises(ConfigError, match=f"batch_size is {batch_size}; expected 1 or more"):
        RoundOrder(people(3), batch_size, KEY)


def test_the_digest_of_an_order_is_that_of_its_ids() -> None:
    assert RoundOrder(people(3), 2, KEY).digest() == digest_of(people(3), KEY)
    assert RoundOrder(people(3)[::-1], 2, KEY).digest() != digest_of(people(3), KEY)


def test_an_equal_order_at_a_peer_passes_whatever_its_batch_size() -> None:
    RoundOrder(people(3), 2, KEY).check(RoundOrder(people(3), 3, KEY).digest(), "host", 4)


def test_another_order_at_a_peer_is_an_error_with_its_name_the_count_and_the_round() -> None:
    with pytest.raises(AlignmentError) as caught:
        RoundOrder(people(3), 2, KEY).check(digest_of(people(3)[::-1], KEY), "host", 4)

    assert str(caught.value) == (
        "host: orders the 3 train ids of round 4 in another way; expected one order from one seed at every party. "
        "Check that all parties run the same version of heterofed and of their split_dataset."
    )


@quick
@given(st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_shuffling_is_a_permutation_that_the_seed_decides(count: int, seed: int) -> None:
    ids = people(count)

    mixed = shuffled(ids, seed)

    assert sorted(mixed) == sorted(ids)
    assert ids == people(count)
    assert shuffled(OrderedIds(ids), seed) == mixed


def test_the_permutation_of_a_seed_is_the_same_in_every_version() -> None:
    assert "".join(shuffled("abcdefghij", 12345)) == "ahdjgebifc"


def test_other_seeds_give_other_orders() -> None:
    assert len({tuple(shuffled(people(20), seed)) for seed in range(20)}) == 20


@quick
@given(st.integers(0, 2**63), st.integers(1, 2**31))
def test_the_seed_of_a_round_is_one_that_a_plan_can_carry(base: int, round_: int) -> None:
    seed = round_seed(base, round_)

    assert type(seed) is int
    assert 0 <= seed < 2**32
    assert seed == round_seed(base, round_)


def test_every_round_and_every_task_has_a_seed_of_its_own() -> None:
    assert len({round_seed(base, round_) for base in range(30) for round_ in range(1, 31)}) == 900


def test_the_seed_of_a_round_is_the_same_in_every_version() -> None:
    assert [round_seed(5, 1), round_seed(5, 2)] == [3796490668, 3226123765]

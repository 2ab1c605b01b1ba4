"""Every party comes to the same split without a word, and the host can keep the mix of labels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterofed.errors import ConfigError
from heterofed.tables.splitting import FRACTIONS, Split, hash_split, stratified_split

IDS = [f"id {number}" for number in range(5000)]
KEY = bytes(range(16))


def parts_of(split: Split) -> list[list[str]]:
    return [split.train, split.valid, split.test]


@settings(max_examples=40, deadline=None)  # a busy machine is no failure
@given(
    ids=st.sets(st.text(min_size=1, max_size=5).filter(lambda each: each.isprintable()), max_size=40),
    fractions=st.sampled_from([FRACTIONS, (1, 0, 0), (0.5, 0, 0.5), (0.8, 0.2, 0.0), (0.01, 0.01, 0.98)]),
    data=st.data(),
)
def test_the_order_of_the_ids_does_not_matter_and_each_is_in_one_part(
    ids: set[str], fractions: Any, data: st.DataObject
) -> None:
    split = hash_split(data.draw(st.permutations(sorted(ids))), fractions=fractions)

    assert split == hash_split(ids, fractions=fractions)
    assert sorted([*split.train, *split.valid, *split.test]) == sorted(ids)
    assert all(part == sorted(part) for part in parts_of(split))
    for share, part in zip(fractions, parts_of(split), strict=True):
        if share == 0:
            assert part == []
        elif len(ids) >= 3:
            assert part != []


def test_parts_are_about_as_large_as_they_should_be() -> None:
    sizes = [len(part) for part in parts_of(hash_split(IDS))]

    for size, share in zip(sizes, FRACTIONS, strict=True):
        assert abs(size - share * len(IDS)) < 4 * (len(IDS) * share * (1 - share)) ** 0.5


def test_a_split_is_the_same_in_every_version() -> None:
    split = hash_split([f"p{number}" for number in range(12)], salt="task", fractions=(0.5, 0.25, 0.25))

    assert split == Split(["p1", "p10", "p9"], ["p0", "p11", "p3", "p6", "p7", "p8"], ["p2", "p4", "p5"])


def test_another_salt_is_another_split_and_a_salt_is_bytes_or_text() -> None:
    assert hash_split(IDS, salt="a") != hash_split(IDS, salt="b")
    assert hash_split(IDS, salt="a") == hash_split(IDS, salt=b"a")


def test_people_who_come_or_go_move_nobody() -> None:
    fewer, more = hash_split(IDS[:3000]), hash_split(IDS)

    for few, many in zip(parts_of(fewer), parts_of(more), strict=True):
        assert set(few) == set(many) & set(IDS[:3000])


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0, 0.5, 0.5), (0.5, 0.2, 0.2), (1.2, -0.2, 0), (float("nan"), 0.5, 0.5)]
)
def test_fractions_that_are_none_are_refused(fractions: Any) -> None:
    with pytest.raises(ConfigError, match="the fractions of the split are"):
        hash_split(IDS, fractions=fractions)
    with pytest.raises(ConfigError, match="the fractions of the split are"):
        stratified_split([], [], key=KEY, fractions=fractions)


@pytest.mark.parametrize(
    "labels",
    [
        np.random.default_rng(0).choice(3, 500, p=[0.9, 0.08, 0.02]),
        np.random.default_rng(0).choice(["a", "b"], 500, p=[0.95, 0.05]),
        np.random.default_rng(0).integers(0, 2, (500, 2)),
    ],
    ids=["classes", "texts", "rows"],
)
def test_every_part_has_the_same_mix_of_labels(labels: Any) -> None:
    ids = IDS[:500]
    of = {each: str(label) for each, label in zip(ids, labels, strict=True)}

    split = stratified_split(ids, labels, key=KEY)

    assert sorted([*split.train, *split.valid, *split.test]) == sorted(ids)
    counts = Counter(of.values())
    for share, part in zip(FRACTIONS, parts_of(split), strict=True):
        assert abs(len(part) - share * 500) <= 1
        found = Counter(of[each] for each in part)
        assert all(abs(found[label] - share * count) <= 2 for label, count in counts.items())


def test_numbers_are_cut_into_tenths_first() -> None:
    ids, labels = IDS[:1000], np.random.default_rng(0).exponential(size=1000)
    of = dict(zip(ids, labels, strict=True))

    split = stratified_split(ids, labels, key=KEY)

    highest = set(sorted(ids, key=lambda each: of[each])[900:])
    for share, part in zip(FRACTIONS, parts_of(split), strict=True):
        assert abs(len(highest & set(part)) - share * 100) <= 2


def test_a_stratified_split_depends_on_its_key_and_not_on_the_order() -> None:
    labels = [number % 3 for number in range(300)]
    ids = IDS[:300]

    split = stratified_split(ids, labels, key=KEY)

    assert split == stratified_split(ids[::-1], labels[::-1], key=KEY)
    assert split != stratified_split(ids, labels, key=KEY[::-1])
    assert "id " not in repr(split)


def test_a_key_that_is_short_and_labels_that_are_too_few_are_refused() -> None:
    with pytest.raises(ConfigError, match="has 15 bytes; expected 16 or more, secret"):
        stratified_split(IDS[:2], [0, 1], key=KEY[:15])
    with pytest.raises(ConfigError, match="there are 1 labels for 2 ids"):
        stratified_split(IDS[:2], [0], key=KEY)

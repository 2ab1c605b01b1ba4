from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from heterofed.errors import ConfigError
from heterofed.training.data import (
    BatchCounts,
    NoBatches,
    ReIterator,
    calculate_batch_epoch_num,
    loader_of,
    parse_data,
)


def rows(count: int) -> TensorDataset:
    return TensorDataset(torch.arange(count, dtype=torch.float32)[:, None], torch.arange(count) % 2)


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(7))


class StreamOfKnownLength(Stream):
    def __len__(self) -> int:
        return 7


class Endless(Dataset[int]):
    def __getitem__(self, row: int) -> int:
        return row


# -- parse_data ------------------------------------------------------------------------------------------------


def test_parse_data_takes_a_dataset_a_loader_and_a_dict_of_arrays() -> None:
    train, test = rows(7), {"x": np.zeros((5, 2)), "y": np.zeros(5)}
    val = DataLoader(rows(4), batch_size=3)
    assert parse_data({"train": train, "val": val, "test": test}) == {
        "train_data": train,
        "train_loader": None,
        "num_train_data": 7,
        "val_data": None,
        "val_loader": val,
        "num_val_data": 4,
        "test_data": test,
        "test_loader": None,
        "num_test_data": 5,
    }


def test_the_three_usual_splits_are_told_about_when_they_are_absent_or_none() -> None:
    nothing = {
        f"{prefix}{split}_{suffix}": value
        for split in ("train", "val", "test")
        for prefix, suffix, value in (("", "data", None), ("", "loader", None), ("num_", "data", 0))
    }
    assert parse_data({}) == nothing
    assert parse_data({"train": None, "test": None}) == nothing


def test_a_split_of_another_name_is_parsed_too() -> None:
    parsed = parse_data({"holdout": rows(3), "later": None})
    assert parsed["num_holdout_data"] == 3
    assert (parsed["later_data"], parsed["later_loader"], parsed["num_later_data"]) == (None, None, 0)
    assert parsed["num_train_data"] == 0


@pytest.mark.parametrize("labels", [[1, 0, 1], torch.zeros(3, 1), np.zeros(3), pd.Series([1, 2, 3])])
def test_the_labels_of_a_dict_count_its_rows(labels: Any) -> None:
    assert parse_data({"train": {"y": labels}})["num_train_data"] == 3


@pytest.mark.parametrize("data", [None, rows(2), [("train", rows(2))], 3])
def test_data_that_are_no_mapping_are_a_type_error(data: Any) -> None:
    with pytest.raises(TypeError, match=r"^Type of data should be dict, not .*\{\"train\": \.\.\.,"):
        parse_data(data)


@pytest.mark.parametrize("split", [3, "rows", [1, 2], np.zeros(3), object(), torch.zeros(3)])
def test_a_split_of_any_other_type_is_a_type_error_that_names_it(split: Any) -> None:
    with pytest.raises(TypeError, match=rf"^val: type {type(split).__name__} is not supported"):
        parse_data({"val": split})


def test_a_dict_without_labels_is_a_type_error_that_says_what_it_has() -> None:
    with pytest.raises(TypeError, match=r"^train: a dict of arrays needs the labels under \"y\"; it has \['x', 'z'\]"):
        parse_data({"train": {"x": [1], "z": [2]}})


@pytest.mark.parametrize("labels", [None, 3, "ab", np.float64(1), torch.tensor(1.0), np.zeros(())])
def test_labels_that_are_no_rows_are_a_type_error(labels: Any) -> None:
    with pytest.raises(TypeError, match=r'^test: "y" is .*; rows are an array'):
        parse_data({"test": {"y": labels}})


def test_inputs_and_labels_of_different_lengths_are_refused() -> None:
    with pytest.raises(ConfigError, match='train: "x" has 4 rows and "y" has 3; expected one label per row'):
        parse_data({"train": {"x": np.zeros((4, 2)), "y": np.zeros(3)}})


@pytest.mark.parametrize("name", [3, "", None, ("train",)])
def test_a_split_is_named_by_a_string(name: Any) -> None:
    with pytest.raises(TypeError, match="name of a split must be a non-empty string"):
        parse_data({name: None})


def test_a_name_that_would_overwrite_the_count_of_another_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="'num_train' would overwrite 'num_train_data'"):
        parse_data({"train": rows(3), "num_train": rows(2)})


@pytest.mark.parametrize("split", [Stream(), DataLoader(Stream()), Endless(), DataLoader(Endless(), batch_sampler=[])])
def test_a_split_without_a_length_is_refused_by_name(split: Any) -> None:
    with pytest.raises(ConfigError, match=r"train: (Stream|Endless) has no length.*Give it a __len__"):
        parse_data({"train": split})


def test_a_stream_that_knows_its_length_is_taken_with_and_without_a_loader() -> None:
    parsed = parse_data({"train": StreamOfKnownLength(), "test": DataLoader(StreamOfKnownLength(), batch_size=2)})
    assert (parsed["num_train_data"], parsed["num_test_data"]) == (7, 7)


def test_a_loader_with_a_sampler_counts_what_the_sampler_draws() -> None:
    subset = DataLoader(rows(10), batch_size=2, sampler=SubsetRandomSampler([1, 2, 5]))
    one_by_one = DataLoader(rows(10), batch_size=None, sampler=SubsetRandomSampler([1, 2]))
    assert parse_data({"train": subset})["num_train_data"] == 3 == sum(len(y) for _, y in subset)
    assert parse_data({"train": one_by_one})["num_train_data"] == 2


def test_a_loader_over_the_users_own_batches_counts_its_dataset() -> None:
    class Pairs(BatchSampler):
        pass

    class Unsized(Sampler[int]):
        def __iter__(self) -> Iterator[int]:
            return iter([1, 2])

    own = DataLoader(rows(6), batch_sampler=Pairs(SequentialSampler(range(4)), 2, drop_last=False))
    assert parse_data({"train": own})["num_train_data"] == 6
    assert parse_data({"train": DataLoader(rows(6), sampler=Unsized())})["num_train_data"] == 6


# -- calculate_batch_epoch_num ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((3, "epoch", 10, 4, False), (3, 3, 3, 9)),
        ((3, "epoch", 10, 4, True), (2, 2, 3, 6)),
        ((1, "epoch", 8, 4, True), (2, 2, 1, 2)),
        ((7, "batch", 10, 4, False), (3, 1, 3, 7)),
        ((6, "batch", 10, 4, False), (3, 3, 2, 6)),
        ((2, "batch", 10, 4, False), (2, 2, 1, 2)),
        ((5, "batch", 10, 4, True), (2, 1, 3, 5)),
        ((1, "batch", 1, 100, False), (1, 1, 1, 1)),
        ((np.int64(2), "epoch", np.int32(5), np.int64(5), True), (1, 1, 2, 2)),
    ],
)
def test_batch_and_epoch_counts_equal_calculate_batch_epoch_num(arguments: Any, expected: tuple[int, ...]) -> None:
    assert calculate_batch_epoch_num(*arguments) == expected


def simulated(steps: int, unit: str, rows_: int, size: int, drop_last: bool, counts: BatchCounts) -> list[int]:
    """Walk the rows as a routine does and return the batches of each pass."""
    sizes = [len(range(rows_)[at : at + size]) for at in range(0, rows_, size)]
    available = [each for each in sizes if each == size or not drop_last]
    passes = []
    for epoch in range(counts.epochs):
        walked = 0
        for batch in range(counts.per_epoch):
            assert batch < len(available)  # a pass never needs a batch that the rows do not have
            walked += 1
            if epoch == counts.epochs - 1 and batch >= counts.last_epoch - 1:
                break
        passes.append(walked)
    return passes


@given(st.integers(1, 40), st.sampled_from(["batch", "epoch"]), st.integers(1, 60), st.integers(1, 25), st.booleans())
def test_the_counts_are_those_of_a_loop_that_is_really_walked(
    steps: int, unit: str, count: int, size: int, drop_last: bool
) -> None:
    if drop_last and count < size:
        with pytest.raises(NoBatches):
            calculate_batch_epoch_num(steps, unit, count, size, drop_last)
        return
    counts = calculate_batch_epoch_num(steps, unit, count, size, drop_last)
    passes = simulated(steps, unit, count, size, drop_last, counts)
    assert sum(passes) == counts.total
    assert passes[-1] == counts.last_epoch
    assert set(passes[:-1]) <= {counts.per_epoch}
    whole = count // size if drop_last else math.ceil(count / size)
    if unit == "epoch":
        assert passes == [whole] * steps
    else:
        assert sum(passes) == steps
        assert counts.per_epoch == min(whole, steps)


def test_zero_batches_raise_and_say_why_and_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"^The number of batch is 0: there are no rows\. Give this split"):
        calculate_batch_epoch_num(1, "epoch", 0, 4, False)
    with pytest.raises(RuntimeError, match=r"^The number of batch is 0: 3 rows do not fill one batch of 4") as caught:
        calculate_batch_epoch_num(1, "batch", 3, 4, True)
    assert "Set drop_last=False, or a batch_size of at most 3." in str(caught.value)
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"steps": 0}, "steps is 0; expected a whole number, 1 or more"),
        ({"steps": 1.5}, "steps is 1.5; expected"),
        ({"steps": True}, "steps is True; expected"),
        ({"batch_or_epoch": "round"}, 'batch_or_epoch is \'round\'; expected "batch" or "epoch"'),
        ({"num_data": -1}, "num_data is -1; expected a whole number, 0 or more"),
        ({"num_data": None}, "num_data is None; expected"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"drop_last": 1}, "drop_last is int; expected True or False"),
    ],
)
def test_an_argument_that_cannot_work_is_named(changed: dict[str, Any], text: str) -> None:
    right = {"steps": 1, "batch_or_epoch": "batch", "num_data": 4, "batch_size": 2, "drop_last": False}
    with pytest.raises(ConfigError) as caught:
        calculate_batch_epoch_num(**{**right, **changed})
    assert text in str(caught.value)


# -- loader_of -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop_last", [False, True])
def test_a_loader_of_arrays_gives_the_same_batches_as_torchs_own_over_the_same_rows(drop_last: bool) -> None:
    x, y = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32), np.arange(11) % 3
    arrays: dict[str, Any] = {"x": x, "y": y}
    own = loader_of(arrays, 4, shuffle=True, drop_last=drop_last, generator=torch.Generator().manual_seed(7))
    plain = DataLoader(
        TensorDataset(torch.from_numpy(x), torch.from_numpy(y)),
        batch_size=4,
        shuffle=True,
        drop_last=drop_last,
        generator=torch.Generator().manual_seed(7),
    )
    for _ in range(2):  # passes
        pairs = list(zip(own, plain, strict=True))
        assert len(pairs) == (2 if drop_last else 3)
        for (x1, y1), (x2, y2) in pairs:
            assert torch.equal(x1, x2)
            assert torch.equal(y1, y2)
            assert (x1.dtype, y1.dtype) == (torch.float32, torch.int64)


def test_the_rows_of_a_loader_of_arrays_can_be_read_one_by_one() -> None:
    loader = loader_of({"x": [[1.0], [2.0]], "y": [0, 1]}, 2)
    x, y = loader.dataset[1]
    assert (x.tolist(), int(y)) == ([2.0], 1)
    assert parse_data({"train": loader})["num_train_data"] == 2


def test_a_loader_of_arrays_works_with_worker_processes() -> None:
    loader = loader_of({"x": torch.arange(5), "y": torch.arange(5)}, 2)
    several = DataLoader(loader.dataset, batch_size=2, num_workers=1, collate_fn=loader.collate_fn)
    assert [x.tolist() for x, _ in several] == [[0, 1], [2, 3], [4]]


def test_a_loader_of_a_dataset_has_the_given_batches() -> None:
    loader = loader_of(rows(5), 2, drop_last=True)
    assert [y.tolist() for _, y in loader] == [[0, 1], [0, 1]]
    assert (loader.batch_size, loader.drop_last) == (2, True)


def test_shuffling_is_repeated_by_the_generator_and_differs_from_pass_to_pass() -> None:
    def passes() -> list[list[int]]:
        loader = loader_of({"x": np.zeros(50), "y": np.arange(50)}, 50, True, False, torch.Generator().manual_seed(1))
        return [y.tolist() for _ in range(2) for _, y in loader]

    first, second = passes()
    assert first != second
    assert sorted(first) == list(range(50))
    assert passes() == [first, second]


@pytest.mark.parametrize(
    "x",
    [
        pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}),
        np.array([[1.0, 3.0], [2.0, 4.0]])[:, ::-1][:, ::-1],
        np.broadcast_to(np.array([[1.0, 3.0]]), (2, 2)) + np.array([[0.0], [1.0]]),
        [[1.0, 3.0], [2.0, 4.0]],
    ],
)
def test_tables_views_and_lists_become_tensors(x: Any) -> None:
    ((batch, _),) = loader_of({"x": x, "y": [0, 1]}, 2)
    assert batch.tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_an_array_that_is_read_only_is_copied() -> None:
    x = np.ones((2, 1))
    x.setflags(write=False)
    ((batch, _),) = loader_of({"x": x, "y": [0, 1]}, 2)
    batch[:] = 5
    assert x.tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("x", [["a", "b"], [[1.0], [2.0, 3.0]], np.array([object(), object()])])
def test_rows_that_are_no_numbers_are_a_type_error_without_the_rows(x: Any) -> None:
    with pytest.raises(TypeError, match=r'^"x" \((list|ndarray)\) cannot become a tensor'):
        loader_of({"x": x, "y": [0, 1]}, 2)


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        ({"y": [1]}, TypeError, r'needs "x" and "y"; it has \[\'y\'\]'),
        ({"x": [1]}, TypeError, 'needs the labels under "y"'),
        ({"x": [1, 2], "y": [1]}, ConfigError, '"x" has 2 rows and "y" has 1'),
        ([1, 2], TypeError, "list is not supported"),
        (DataLoader(rows(2)), TypeError, "DataLoader is not supported"),
    ],
)
def test_a_loader_of_anything_else_is_refused(data: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        loader_of(data, 2)


def test_a_stream_gets_a_loader_but_is_not_shuffled() -> None:
    assert [batch.tolist() for batch in loader_of(Stream(), 4)] == [[0, 1, 2, 3], [4, 5, 6]]
    with pytest.raises(ConfigError, match="Stream gives its rows one by one and cannot be shuffled"):
        loader_of(Stream(), 4, shuffle=True)


def test_a_batch_size_that_cannot_work_is_named() -> None:
    with pytest.raises(ConfigError, match="batch_size is 0"):
        loader_of(rows(3), 0)


# -- ReIterator ------------------------------------------------------------------------------------------------


def test_a_re_iterator_starts_again_at_the_end() -> None:
    batches = ReIterator([1, 2, 3])
    assert iter(batches) is batches
    assert [next(batches) for _ in range(8)] == [1, 2, 3, 1, 2, 3, 1, 2]


def test_a_reset_begins_a_new_pass() -> None:
    batches = ReIterator([1, 2, 3])
    batches.reset()
    assert [next(batches), next(batches)] == [1, 2]
    batches.reset()
    batches.reset()
    assert [next(batches) for _ in range(4)] == [1, 2, 3, 1]


def test_each_pass_over_a_shuffled_loader_has_an_order_of_its_own() -> None:
    batches = ReIterator(loader_of(rows(20), 20, shuffle=True, generator=torch.Generator().manual_seed(3)))
    first, second = next(batches)[0].flatten().tolist(), next(batches)[0].flatten().tolist()
    assert first != second
    assert sorted(first) == sorted(second)


def test_making_and_resetting_one_draws_no_random_numbers() -> None:
    generator = torch.Generator().manual_seed(3)
    batches = ReIterator(loader_of(rows(4), 2, shuffle=True, generator=generator))
    before = generator.get_state()
    batches.reset()
    assert torch.equal(generator.get_state(), before)
    next(batches)
    assert not torch.equal(generator.get_state(), before)
    drawn = generator.get_state()
    batches.reset()
    assert torch.equal(generator.get_state(), drawn)


def test_a_batch_that_is_none_is_a_batch() -> None:
    batches = ReIterator([None, 1])
    assert [next(batches) for _ in range(3)] == [None, 1, None]


def test_an_empty_loader_raises_instead_of_looking_for_ever() -> None:
    with pytest.raises(RuntimeError, match="The number of batch is 0: the DataLoader gave nothing"):
        next(ReIterator(DataLoader(rows(2), batch_size=4, drop_last=True)))


def test_a_loader_that_becomes_empty_raises_at_its_end() -> None:
    source = [1]
    batches = ReIterator(source)
    next(batches)
    source.clear()
    with pytest.raises(NoBatches, match="the list gave nothing"):
        next(batches)


def test_a_generator_is_refused_because_it_cannot_be_read_again() -> None:
    with pytest.raises(ConfigError, match="a generator can be read only once"):
        ReIterator(each for each in [1, 2])

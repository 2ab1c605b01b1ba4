"""What comes through either door is checked at the party whose code made it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heterofed.errors import AlignmentError, EmbeddingError, HeterofedError
from heterofed.features.alignment import digest_of_places
from heterofed.features.batches import RoundOrder
from heterofed.features.embedder import PlannedBatches, UserBatches, check_labels
from heterofed.features.form import FLOATS, EmbeddingForm
from heterofed.frames.tensors import DTYPE_NAMES

KEY = bytes(range(16))
IDS = ["p0", "p1", "p2", "p3", "p4"]
SCALE = 10.0


class Scale(nn.Module):
    """A feature model whose work is easy to check."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(SCALE))

    def forward(self, rows: Tensor) -> Tensor:
        return rows * self.factor


def rows_of(ids: list[str]) -> Tensor:
    return torch.tensor([[float(each[1:]), 1.0] for each in ids])


def form() -> EmbeddingForm:
    return EmbeddingForm("c1", "make_it")


# --- the form of an embedding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (4, 10), (2, 3, 4)], ids=str)
def test_floating_point_tensors_with_rows_and_width_may_cross(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    value = torch.zeros(shape, dtype=dtype)

    assert form().check(value) is value


def test_the_dtypes_that_pass_here_are_those_that_can_be_packed() -> None:
    assert set(FLOATS) == set(DTYPE_NAMES)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([[1.0]], "gave list; expected a torch.Tensor."),
        (None, "gave NoneType; expected a torch.Tensor."),
        (
            torch.zeros(2, 3, dtype=torch.int64),
            "gave a tensor of torch.int64; expected one of torch.float16, torch.bfloat16, torch.float32, torch.float64",
        ),
        (torch.zeros(3), "gave a tensor of shape (3,); expected (rows, width, …), batch first, not empty."),
        (torch.zeros(()), "gave a tensor of shape (); expected (rows, width, …), batch first, not empty."),
        (torch.zeros(0, 3), "gave a tensor of shape (0, 3); expected (rows, width, …), batch first, not empty."),
        (torch.zeros(3, 0), "gave a tensor of shape (3, 0); expected (rows, width, …), batch first, not empty."),
    ],
    ids=["a list", "None", "integers", "1-D", "0-D", "no rows", "no width"],
)
def test_what_cannot_cross_is_refused_with_party_source_and_advice(value: object, problem: str) -> None:
    with pytest.raises(EmbeddingError) as caught:
        form().check(value)

    assert str(caught.value).startswith(f"c1: make_it {problem}")
    assert str(caught.value).endswith("Mend the feature model, or the method that yields its output.")


@pytest.mark.parametrize(
    ("later", "problem"),
    [
        (torch.zeros(4, 5), "gave torch.float32 of shape (4, 5)"),
        (torch.zeros(4, 3, 1), "gave torch.float32 of shape (4, 3, 1)"),
        (torch.zeros(4, 3, dtype=torch.float64), "gave torch.float64 of shape (4, 3)"),
    ],
    ids=["another width", "another dimension", "another dtype"],
)
def test_an_embedding_unlike_the_first_is_refused(later: Tensor, problem: str) -> None:
    checking = form()
    checking.check(torch.zeros(2, 3))
    checking.check(torch.zeros(7, 3))  # any number of rows

    with pytest.raises(EmbeddingError) as caught:
        checking.check(later)

    assert f"{problem}; expected torch.float32 of shape (rows, 3) as in its first batch" in str(caught.value)


def test_a_refused_embedding_does_not_become_the_measure_of_the_next() -> None:
    checking = form()
    with pytest.raises(EmbeddingError):
        checking.check(torch.zeros(0, 5))

    checking.check(torch.zeros(2, 3))


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels", [torch.zeros(3), [1, 2, 3], "abc", torch.zeros(3, 2)], ids=["1-D", "list", "", "2-D"]
)
def test_labels_of_any_kind_pass_when_there_is_one_for_each_row(labels: object) -> None:
    check_labels(labels, 3, "load_batch")


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (torch.zeros(2), "load_batch gave 2 labels for 3 rows; expected one label for each row. Make the labels from"),
        (torch.zeros(4), "load_batch gave 4 labels for 3 rows; expected one label for each row. Make the labels from"),
        (torch.zeros(()), "load_batch gave labels of type Tensor; expected a tensor."),
        (None, "load_batch gave labels of type NoneType; expected a tensor."),
    ],
    ids=["too few", "too many", "0-D", "None"],
)
def test_labels_that_do_not_match_the_rows_are_refused(labels: object, problem: str) -> None:
    with pytest.raises(AlignmentError) as caught:
        check_labels(labels, 3, "load_batch")

    assert str(caught.value).startswith(problem)


# --- the user's own generator -----------------------------------------------------------------------------------------


def unguarded(method: str) -> AbstractContextManager[None]:
    return nullcontext()


def user_batches(generate: Callable[[], Any], *, with_labels: bool = False) -> UserBatches:
    return UserBatches(
        generate,
        rows_expected=100,
        with_labels=with_labels,
        form=form(),
        method="iterate_train_feature",
        guard=unguarded,
        warn=lambda text: None,
    )


def test_the_batches_of_a_users_generator_come_in_its_order_without_digests() -> None:
    values = [torch.full((2, 3), float(number)) for number in range(3)]

    batches = list(user_batches(lambda: iter(values)))

    assert [batch.embedding for batch in batches] == values
    assert all(batch.labels is None and batch.digest == b"" for batch in batches)


def test_a_hosts_generator_gives_labels_with_each_embedding() -> None:
    labels = torch.tensor([1, 0])

    (batch,) = user_batches(lambda: iter([(torch.zeros(2, 3), labels)]), with_labels=True)

    assert batch.labels is labels
    assert batch.embedding.shape == (2, 3)


def test_an_embedding_keeps_its_graph() -> None:
    model = Scale()

    (batch,) = user_batches(lambda: iter([model(torch.ones(2, 3))]))

    assert batch.embedding.grad_fn is not None


def test_a_users_generator_is_not_run_ahead() -> None:
    made: list[int] = []

    def generate() -> Iterator[Tensor]:
        for number in range(3):
            made.append(number)
            yield torch.zeros(2, 3)

    source = user_batches(generate)
    for seen, _ in enumerate(source):
        source.prefetch()
        assert made == list(range(seen + 1))


def test_a_users_generator_is_asked_anew_for_every_pass() -> None:
    source = user_batches(lambda: iter([torch.zeros(2, 3)]))

    assert len(list(source)) == len(list(source)) == 1


def test_a_users_generator_is_closed_when_the_pass_ends_early() -> None:
    def generate() -> Iterator[Tensor]:
        while True:
            yield torch.zeros(2, 3)

    generator = generate()  # this reference keeps it from being collected
    walk = user_batches(lambda: generator).__iter__()
    next(walk)
    assert isinstance(walk, Generator)

    walk.close()

    assert inspect.getgeneratorstate(generator) == inspect.GEN_CLOSED  # type: ignore[arg-type]  # a generator function's


def test_what_a_users_generator_raises_comes_out_as_it_is() -> None:
    def generate() -> Iterator[Tensor]:
        yield torch.zeros(2, 3)
        raise KeyError("their own bug")

    with pytest.raises(KeyError, match="their own bug"):
        list(user_batches(generate))


@pytest.mark.parametrize("returned", [None, [torch.zeros(2, 3)], torch.zeros(2, 3)], ids=["None", "list", "tensor"])
def test_a_method_that_returns_instead_of_yielding_is_refused(returned: object) -> None:
    with pytest.raises(EmbeddingError) as caught:
        list(user_batches(lambda: returned))

    assert str(caught.value) == (
        f"iterate_train_feature returned {type(returned).__name__}; expected a generator: use yield, not return."
    )


@pytest.mark.parametrize(
    ("yielded", "kind"),
    [
        (torch.zeros(2, 3), "Tensor"),
        ([torch.zeros(2, 3), torch.zeros(2)], "list"),
        ((torch.zeros(2, 3),), "tuple"),
        ((torch.zeros(2, 3), torch.zeros(2), None), "tuple"),
    ],
    ids=["no labels", "a list", "a single", "a triple"],
)
def test_a_hosts_generator_that_yields_no_pair_is_refused(yielded: object, kind: str) -> None:
    with pytest.raises(EmbeddingError, match=rf"yielded {kind}; expected \(embedding, labels\)\."):
        list(user_batches(lambda: iter([yielded]), with_labels=True))


def test_a_pair_from_a_collaborator_is_refused_as_no_tensor() -> None:
    with pytest.raises(EmbeddingError, match=r"make_it gave tuple; expected a torch\.Tensor"):
        list(user_batches(lambda: iter([(torch.zeros(2, 3), torch.zeros(2))])))


@pytest.mark.parametrize(
    ("first", "second", "error", "problem"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), EmbeddingError, "as in its first batch"),
        (torch.zeros(2, 3), torch.zeros(2, 3).half(), EmbeddingError, "as in its first batch"),
        (torch.zeros(2, 3), torch.zeros(3), EmbeddingError, "batch first"),
        (torch.zeros(2, 3), torch.zeros(0, 3), EmbeddingError, "not empty"),
    ],
    ids=["width", "dtype", "1-D", "empty"],
)
def test_a_later_batch_is_checked_as_the_first_and_the_first_is_given(
    first: Tensor, second: Tensor, error: type[HeterofedError], problem: str
) -> None:
    walk = iter(user_batches(lambda: iter([first, second])))
    assert next(walk).embedding is first

    with pytest.raises(error, match=problem):
        next(walk)


def test_a_hosts_generator_with_too_few_labels_is_refused() -> None:
    with pytest.raises(AlignmentError, match="iterate_train_feature gave 1 labels for 2 rows"):
        list(user_batches(lambda: iter([(torch.zeros(2, 3), torch.zeros(1))]), with_labels=True))


# --- the framework's batches ------------------------------------------------------------------------------------------


def planned(
    load: Callable[[list[str]], Any] = rows_of, *, with_labels: bool = False, model: nn.Module | None = None
) -> PlannedBatches:
    return PlannedBatches(
        RoundOrder(IDS, 2, KEY),
        load=load,
        model=model or Scale(),
        with_labels=with_labels,
        form=form(),
        guard=unguarded,
    )


def with_labels(ids: list[str]) -> tuple[Tensor, Tensor]:
    return rows_of(ids), torch.tensor([int(each[1:]) for each in ids])


def test_planned_batches_hold_the_embeddings_of_the_planned_ids_and_prove_them() -> None:
    batches = list(planned())

    assert [batch.embedding[:, 0].tolist() for batch in batches] == [[0.0, 10.0], [20.0, 30.0], [40.0]]
    expected = [digest_of_places(np.array(each), KEY) for each in ([0, 1], [2, 3], [4])]
    assert [batch.digest for batch in batches] == expected
    assert all(batch.labels is None for batch in batches)
    assert all(batch.embedding.grad_fn is not None for batch in batches)


def test_planned_batches_of_a_host_hold_the_labels_of_the_same_ids() -> None:
    batches = list(planned(with_labels, with_labels=True))

    assert [batch.labels.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert all(torch.equal(batch.labels * SCALE, batch.embedding[:, 0]) for batch in batches)


def test_prefetch_loads_exactly_one_batch_ahead() -> None:
    loaded: list[list[str]] = []

    def load(ids: list[str]) -> Tensor:
        loaded.append(ids)
        return rows_of(ids)

    source = planned(load)
    walk = iter(source)

    next(walk)
    assert loaded == [IDS[:2]]
    for _ in range(3):
        source.prefetch()
        assert loaded == [IDS[:2], IDS[2:4]]
    next(walk)
    assert loaded == [IDS[:2], IDS[2:4]]
    source.prefetch()
    assert loaded == [IDS[:2], IDS[2:4], IDS[4:]]
    next(walk)
    source.prefetch()
    assert list(walk) == []
    assert loaded == [IDS[:2], IDS[2:4], IDS[4:]]


def test_prefetch_does_not_run_the_model_which_has_not_stepped_yet() -> None:
    model = Scale()
    source = planned(model=model)
    walk = iter(source)
    next(walk)

    source.prefetch()
    with torch.no_grad():
        model.factor.fill_(1.0)

    assert next(walk).embedding[:, 0].tolist() == [2.0, 3.0]


@pytest.mark.parametrize("ahead", [False, True])
def test_prefetching_changes_nothing_but_the_time_of_loading(ahead: bool) -> None:
    source = planned(with_labels, with_labels=True)
    seen = []
    for batch in source:
        seen.append((batch.embedding.tolist(), batch.labels.tolist(), batch.digest))
        if ahead:
            source.prefetch()

    assert seen == [
        (batch.embedding.tolist(), batch.labels.tolist(), batch.digest)
        for batch in planned(with_labels, with_labels=True)
    ]


def test_a_second_pass_begins_at_the_first_batch_though_one_was_prefetched() -> None:
    source = planned()
    next(iter(source))
    source.prefetch()

    assert next(iter(source)).embedding[:, 0].tolist() == [0.0, 10.0]


def test_prefetch_before_the_pass_does_nothing() -> None:
    source = planned()
    source.prefetch()

    assert len(list(source)) == 3


@pytest.mark.parametrize("first", range(6))
def test_a_pass_that_goes_on_in_its_middle_loads_nothing_of_what_is_done(first: int) -> None:
    loaded: list[list[str]] = []

    def load(ids: list[str]) -> Tensor:
        loaded.append(ids)
        return rows_of(ids)

    order = RoundOrder(IDS, 2, KEY)
    source = PlannedBatches(
        order, load=load, model=Scale(), with_labels=False, form=form(), guard=unguarded, first=first
    )
    whole = list(planned())

    rest = list(source)

    assert loaded == list(order)[first:]
    assert [each.digest for each in rest] == [each.digest for each in whole[first:]]
    assert all(torch.equal(a.embedding, b.embedding) for a, b in zip(rest, whole[first:], strict=True))


def test_an_order_without_ids_gives_no_batch() -> None:
    source = PlannedBatches(
        RoundOrder([], 2, KEY), load=rows_of, model=Scale(), with_labels=False, form=form(), guard=unguarded
    )

    assert list(source) == []


@pytest.mark.parametrize(
    ("load", "labels", "error", "problem"),
    [
        (
            lambda ids: rows_of(ids)[:1],
            False,
            AlignmentError,
            "load_batch and the feature model gave 1 rows for 2 ids; expected one row for each id, in their order.",
        ),
        (rows_of, True, EmbeddingError, "load_batch returned Tensor; expected (inputs, labels)."),
        (lambda ids: [*with_labels(ids)], True, EmbeddingError, "load_batch returned list; expected (inputs, labels)."),
        (
            lambda ids: (rows_of(ids), torch.zeros(3)),
            True,
            AlignmentError,
            "load_batch gave 3 labels for 2 rows; expected one label for each row.",
        ),
        (
            lambda ids: rows_of(ids).sum(1),
            False,
            EmbeddingError,
            "c1: make_it gave a tensor of shape (2,); expected (rows, width, …), batch first, not empty.",
        ),
    ],
    ids=["rows", "no tuple", "a list", "labels", "1-D"],
)
def test_what_load_batch_gets_wrong_is_refused(
    load: Callable[[list[str]], Any], labels: bool, error: type[HeterofedError], problem: str
) -> None:
    with pytest.raises(error) as caught:
        list(planned(load, with_labels=labels))

    assert str(caught.value).startswith(problem)


def test_no_refusal_of_a_batch_names_an_id() -> None:
    with pytest.raises(AlignmentError) as caught:
        list(planned(lambda ids: rows_of(ids)[:1]))

    assert not any(each in f"{caught.value}{caught.value!r}" for each in IDS)

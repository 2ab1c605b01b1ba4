"""A test's batches are exchanged while `test()` reads them, in bounded memory, and look like lists all the same."""

from __future__ import annotations

import copy
import gc
import json
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heterofed import (
    AlignmentError,
    BatchesPassed,
    ConfigError,
    TaskAborted,
    TemplateError,
    TrainingDiverged,
    run_locally,
)
from heterofed.scheduler.batches import streamed
from heterofed.scheduler.batches.exchange import HostExchange
from heterofed.scheduler.batches.streamed import BatchStream, bytes_of
from tests import tiny
from tests.own_batches import OwnCollaborator, OwnHost
from tests.scheduler.rejoining import Federation, Kill, run_with
from tests.scheduler.test_hooks import ends_of
from tests.scheduler.test_resume import ResumingCollaborator, ResumingHost, same, state_of
from tests.tiny import BareHost, Collaborator, Host

pytestmark = pytest.mark.usefixtures("quick_and_exact")

ROWS, WIDTH = 4, 64
BATCH_BYTES = 2 * ROWS * WIDTH * 4
"""Of the embeddings of both parties."""


class Steps(Iterator[Any]):
    """Batches of two parties, each with its number everywhere, that count how many were run."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.run = 0
        self.alive: list[weakref.ref[Tensor]] = []

    def __next__(self) -> Any:
        if self.run == self.batches:
            raise StopIteration
        number, self.run = self.run, self.run + 1
        projection = {key: torch.full((ROWS, WIDTH), float(number)) for key in ("host", "c1")}
        self.alive.append(weakref.ref(projection["host"]))
        return projection, torch.full((ROWS,), number)

    @property
    def held(self) -> int:
        """How many batches are in memory."""
        return sum(each() is not None for each in self.alive)


def stream_of(batches: int = 5, keep_bytes: int = 1 << 20, *, known: bool = True) -> tuple[BatchStream, Steps]:
    steps = Steps(batches)
    return BatchStream(steps, batches if known else None, keep_bytes), steps


def numbers(values: Any) -> list[int]:
    """Return the numbers of batches, embeddings or labels."""
    return [int((each["c1"] if isinstance(each, dict) else each).flatten()[0]) for each in values]


TOO_MUCH = 3 * BATCH_BYTES
"""Room for fewer than the five batches."""

# --- one pass ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_a_loop_over_both_runs_each_batch_when_it_comes(known: bool) -> None:
    stream, steps = stream_of(known=known)
    seen = []

    for projection, truth in zip(stream.projections, stream.labels, strict=True):
        seen.append(numbers([projection, truth]))
        assert steps.run == len(seen)

    assert seen == [[number, number] for number in range(5)]


def test_nothing_but_the_batch_at_hand_is_held_where_nothing_is_to_be_kept() -> None:
    stream, steps = stream_of(50, 0)
    most = 0

    for projection, truth in zip(stream.projections, stream.labels, strict=True):
        most = max(most, steps.held)
        del projection, truth

    assert most == 1


def test_what_is_kept_is_let_go_when_it_is_too_much() -> None:
    stream, steps = stream_of(50, TOO_MUCH)
    most = 0

    for _ in zip(stream.projections, stream.labels, strict=True):
        most = max(most, steps.held)

    assert most == 2
    assert steps.held == 1


def test_free_memory_goes_back_to_the_system_now_and_then_in_a_large_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    went_back: list[str] = []
    monkeypatch.setattr(streamed, "TRIM_EVERY", 10 * bytes_of(next(Steps(1))[0]))
    monkeypatch.setattr(streamed, "_trim", lambda: went_back.append("now"))

    list(stream_of(9)[0].labels)
    assert went_back == []
    list(stream_of(29)[0].labels)
    assert went_back == ["now", "now"]


def test_giving_memory_back_does_no_harm() -> None:
    kept = [torch.arange(1000) for _ in range(10)]

    streamed._trim()

    assert all(torch.equal(each, torch.arange(1000)) for each in kept)


def pair(projection: Any, truth: Any) -> list[int]:
    return numbers([projection, truth])


def test_enumerate_and_indices_in_step_need_one_pass_too() -> None:
    ways: list[Callable[[Any, Any], Any]] = [
        lambda p, t: [numbers([a, b]) for _, (a, b) in enumerate(zip(p, t, strict=True))],
        lambda p, t: [numbers([p[i], t[i]]) for i in range(len(p))],
        lambda p, t: [numbers([each, t[i]]) for i, each in enumerate(p)],
        lambda p, t: [*map(pair, p, t)],
    ]
    for read in ways:
        stream, _ = stream_of(5, 0)
        assert read(stream.projections, stream.labels) == [[number, number] for number in range(5)]


# --- as lists ---------------------------------------------------------------------------------------------------------

AS_LISTS: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "tuple": tuple,
    "unpacked": lambda b: [*b],
    "comprehension": lambda b: [each.sum() for each in b],
    "len": len,
    "truth": bool,
    "first": lambda b: b[0],
    "third": lambda b: b[np.int64(2)],
    "last": lambda b: b[-1],
    "from the front": lambda b: b[:2],
    "from the middle": lambda b: b[1:4],
    "to the end": lambda b: b[3:],
    "beyond the end": lambda b: b[3:99],
    "nothing": lambda b: b[3:1],
    "every second": lambda b: b[::2],
    "backwards": lambda b: b[::-1],
    "without the last": lambda b: b[:-1],
    "none": lambda b: b[:0],
    "names": lambda b: named(*b),
    "the first and the rest": lambda b: first_and_rest(b),
    "sorted": lambda b: sorted(b, key=lambda each: -each[0].item()),
    "reversed": lambda b: list(reversed(b)),
    "twice": lambda b: [*b, *b],
    "enumerate": lambda b: list(enumerate(b)),
    "cat": torch.cat,
    "cat by name": lambda b: torch.cat(tensors=b, dim=0),
    "stack": lambda b: torch.stack(b, dim=1),
    "hstack": torch.hstack,
    "padded": torch.nn.utils.rnn.pad_sequence,
    "cat of a list": lambda b: torch.cat(list(b)),
    "cat of a part": lambda b: torch.cat(b[1:]),
    "concatenate": np.concatenate,
    "array": lambda b: np.array([each.numpy() for each in b]),
    "sum": sum,
    "plus": lambda b: b + [torch.zeros(1)],  # noqa: RUF005 - it is the operator that is tried
    "plus itself": lambda b: b + b,
    "plus from the left": lambda b: [torch.zeros(1)] + b,  # noqa: RUF005 - it is the operator that is tried
    "added to a list": lambda b: added([torch.zeros(1)], b),
    "times": lambda b: b * 2,
    "times from the left": lambda b: 2 * b,
    "copy": lambda b: b.copy(),
    "shallow copy": copy.copy,
    "deep copy": copy.deepcopy,
    "is a list": lambda b: isinstance(b, list),
    "place": lambda b: [each.sum().item() for each in b].index(8),
    "max": lambda b: max(each.max() for each in b),
    "items of all": lambda b: [item for each in b for item in each.tolist()],
}


def named(first: Any, *rest: Any) -> tuple[Any, ...]:
    return (*rest, first)


def first_and_rest(batches: Any) -> list[Any]:
    first, *rest = batches
    return [rest, first]


def added(left: list[Any], right: Any) -> list[Any]:
    left += right
    return left


@pytest.mark.parametrize("known", [True, False], ids=["planned", "own batches"])
@pytest.mark.parametrize("name", AS_LISTS)
def test_what_reads_a_list_reads_them(name: str, known: bool) -> None:
    stream, _ = stream_of(known=known)
    a_list = [truth for _, truth in Steps(5)]

    found, expected = AS_LISTS[name](stream.labels), AS_LISTS[name](a_list)

    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert type(found) is type(expected)


@pytest.mark.parametrize("index", [5, -6, 99])
def test_a_batch_that_is_not_there_is_an_index_error_and_costs_nothing_where_their_number_is_known(index: int) -> None:
    stream, steps = stream_of()
    own, _ = stream_of(known=False)

    for batches in (stream.labels, own.labels):
        with pytest.raises(IndexError):
            batches[index]
    assert steps.run == 0


def test_values_that_compare_are_found_and_counted() -> None:
    def words() -> Iterator[Any]:
        yield from (({}, each) for each in ("a", "b", "a"))

    def batches() -> Any:
        return BatchStream(words(), 3, 1 << 20).labels

    assert batches() == ["a", "b", "a"]
    assert json.dumps(batches()) == '["a", "b", "a"]'
    assert ["a", "b", "a"] == batches()  # noqa: SIM300 - the other side
    assert batches() != ["a", "b"]
    assert batches() == batches()
    assert "b" in batches()
    assert "c" not in batches()
    assert (batches().index("b"), batches().count("a")) == (1, 2)
    assert batches() < ["b"]
    assert batches() <= batches()
    assert batches() > ["a", "a"]
    assert batches() >= ["a", "b", "a"]
    with pytest.raises(TypeError):
        hash(batches())


def test_a_test_without_batches_is_an_empty_list() -> None:
    for known in (True, False):
        stream, _ = stream_of(0, known=known)
        assert not stream.labels
        assert len(stream.labels) == 0
        assert list(stream.projections) == stream.labels[:3] == []
        with pytest.raises(Exception, match="non-empty list of Tensors"):  # a ValueError since torch 2.10
            torch.cat(stream.labels)


def test_the_number_of_planned_batches_is_known_before_any_is_run() -> None:
    stream, steps = stream_of(known=True)
    own, own_steps = stream_of(known=False)

    assert len(stream.labels) == len(own.labels) == 5

    assert (steps.run, own_steps.run) == (0, 5)


@pytest.mark.parametrize("known", [True, False])
def test_what_is_asked_of_the_front_runs_only_the_front(known: bool) -> None:
    for read, run in (
        (lambda b: b[0], 1),
        (lambda b: b[:2], 2),
        (lambda b: b[1:3], 3),
        (bool, 1),
        (lambda b: next(iter(b)), 1),
        (repr, 0),
    ):
        stream, steps = stream_of(known=known)
        read(stream.projections)
        assert steps.run == run


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.append(1),
        lambda b: b.pop(),
        lambda b: b.sort(),
        lambda b: b.clear(),
        lambda b: b.__setitem__(0, 1),
        lambda b: b.__delitem__(0),
        lambda b: added(b, [1]),
    ],
)
def test_they_cannot_be_changed(change: Any) -> None:
    stream, _ = stream_of()

    with pytest.raises(TypeError, match=r"cannot be changed; list\(batches\) makes a list that can"):
        change(stream.labels)
    assert len(list(stream.labels)) == 5


def test_they_say_how_far_they_are() -> None:
    stream, _ = stream_of()
    own, _ = stream_of(known=False)
    next(iter(stream.labels))

    assert repr(stream.projections) == "<1 of 5 batches of a test so far>"
    assert repr(own.projections) == "<0 of ? batches of a test so far>"


def test_what_torch_is_given_without_them_is_an_error_and_no_wrong_number() -> None:
    stream, _ = stream_of()

    with pytest.raises(TypeError, match=r"expected list\(batches\)"):
        torch.cat(list.copy(stream.labels))


# --- too much to keep -------------------------------------------------------------------------------------------------

SAYS = (
    f"a batch of the test has passed and was not kept: they are more than {TOO_MUCH} bytes; expected one pass over "
    "both lists, for projection, labels in zip(batched_feature_projections, batched_labels). Read each batch while "
    "it is at hand, or raise HETEROFED_TEST_KEEP_BYTES (test_keep_bytes)."
)


def test_one_list_alone_and_then_the_other_works_while_they_fit() -> None:
    stream, _ = stream_of(5, 5 * BATCH_BYTES + 4096)

    assert numbers(stream.labels) == numbers(stream.projections) == numbers(stream.labels) == [0, 1, 2, 3, 4]


def test_embeddings_first_and_then_labels_works_in_one_pass_over_the_embeddings() -> None:
    """The labels alone fit, so `torch.cat([… for each in projections])` and `torch.cat(labels)` need no more memory."""
    stream, steps = stream_of(50, TOO_MUCH)

    assert numbers(stream.projections) == list(range(50))
    assert steps.held == 1
    assert torch.cat(stream.labels).tolist() == torch.arange(50).repeat_interleave(ROWS).tolist()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "read",
    [
        lambda p, t: (list(t), list(p)),
        lambda p, t: (torch.cat(t), p[0]),
        lambda p, t: (list(p), list(p)),
        lambda p, t: (list(zip(p, t, strict=True)), next(iter(p))),
        lambda p, t: (t[4], p[0]),
        lambda p, t: p[::-1],
        lambda p, t: [p[each] for each in (0, 4, 0)],
    ],
)
def test_a_batch_that_has_passed_and_was_too_much_is_an_error_that_says_what_to_do(read: Any, known: bool) -> None:
    stream, _ = stream_of(5, TOO_MUCH, known=known)

    with pytest.raises(BatchesPassed) as caught:
        read(stream.projections, stream.labels)

    assert str(caught.value) == SAYS
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize("known", [True, False])
def test_torch_takes_in_one_pass_what_is_too_much_to_be_kept(known: bool) -> None:
    stream, _ = stream_of(5, 0, known=known)

    assert len(torch.cat(stream.labels)) == 5 * ROWS


def test_torch_gets_the_error_too_and_no_part_of_the_batches() -> None:
    stream, _ = stream_of(5, 0)
    list(stream.labels)

    with pytest.raises(BatchesPassed):
        torch.cat(stream.labels)


def test_the_batch_at_hand_can_be_read_again_whatever_is_kept() -> None:
    stream, _ = stream_of(5, 0)

    for number, _ in enumerate(stream.labels):
        assert numbers([stream.projections[number], stream.labels[number]]) == [number, number]
    assert numbers([stream.projections[-1]]) == [4]


def test_a_batch_that_was_not_asked_for_while_the_test_ran_is_gone() -> None:
    stream, steps = stream_of()
    later = stream.labels
    later[1]
    stream.end()

    assert numbers(later[:2]) == [0, 1]
    with pytest.raises(BatchesPassed, match="a batch of the test was not asked for while test") as caught:
        list(later)
    assert str(caught.value).endswith("expected lists that are read inside test().")
    assert steps.run == 2


def test_the_batch_at_hand_is_let_go_with_the_test() -> None:
    stream, steps = stream_of(5, 0)
    later = stream.labels
    later[1]
    stream.end()

    assert steps.held == 0
    with pytest.raises(BatchesPassed):
        later[2]


def test_an_error_of_the_exchange_is_not_the_end_of_a_list() -> None:
    class Failing(Steps):
        def __next__(self) -> Any:
            if self.run == 2:
                raise AlignmentError("the other has no such batch")
            return super().__next__()

    stream = BatchStream(Failing(5), 5, 1 << 20)

    for _ in range(2):
        with pytest.raises(AlignmentError):
            list(stream.labels)


def test_the_memory_of_what_labels_are_made_of_is_counted() -> None:
    assert bytes_of(torch.zeros(100, dtype=torch.float64)) == 800
    assert bytes_of(np.zeros((10, 10), dtype=np.int16)) == 200
    assert bytes_of({"class": torch.zeros(100), "weight": (torch.zeros(50), torch.zeros(50))}) >= 800
    assert bytes_of(["a word"] * 10) > 500


# --- with other parties -----------------------------------------------------------------------------------------------


class Reads(BareHost):
    """A host whose test is a function that is given to it."""

    def __init__(self, read: Callable[[Any, Any, Any], Any], **kwargs: Any) -> None:
        super().__init__(max_rounds=1, **kwargs)
        self.read = read

    def test(self, batched_feature_projections: Any, batched_labels: Any) -> None:
        self.read(self, batched_feature_projections, batched_labels)


class Reading(Reads, Host):
    """With planned batches."""

    def __init__(self, read: Callable[[Any, Any, Any], Any], **kwargs: Any) -> None:
        super().__init__(read, batch_size=4, **kwargs)


class ReadingOwn(Reads, OwnHost):
    """With batches of its own, all of which it yields in the same memory."""

    def iterate_test_feature(self, feature_model: nn.Module, test_ids: list[str]) -> Any:
        embedding, truth = torch.empty(4, tiny.WIDTH), torch.empty(4, dtype=torch.int64)
        for own, mine in super().iterate_test_feature(feature_model, test_ids):
            yield embedding.copy_(own), truth.copy_(mine)


def with_own_batches(read: Callable[[Any, Any, Any], Any]) -> tuple[ReadingOwn, OwnCollaborator]:
    return ReadingOwn(read, size=4), OwnCollaborator(size=4)


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batches that a host has received, tests and training alike."""
    seen: list[int] = []
    original = HostExchange.receive

    def receive(self: HostExchange, *args: Any, **kwargs: Any) -> Any:
        found = original(self, *args, **kwargs)
        seen.append(self.batch)
        return found

    monkeypatch.setattr(HostExchange, "receive", receive)
    return seen


TESTED = 3
"""Batches of 4 of the 12 test ids."""


def test_the_loop_of_the_user_drives_the_exchange(received: list[int]) -> None:
    seen: list[tuple[int, int]] = []

    def read(host: Any, projections: Any, truth: Any) -> None:
        received.clear()
        assert len(projections) == TESTED
        for projection, batch in zip(projections, truth, strict=True):
            assert [*projection] == ["host", "c1"]
            assert all(each.shape == (4, 4) for each in projection.values())
            seen.append((len(received), len(batch)))

    run_locally(Reading(read), Collaborator())

    assert seen == [(1, 4), (2, 4), (3, 4)]


@pytest.mark.parametrize("asked", [0, 1])
def test_what_the_test_did_not_ask_for_is_exchanged_and_counted_all_the_same(asked: int, received: list[int]) -> None:
    counted: list[int] = []

    def read(host: Any, projections: Any, truth: Any) -> None:
        received.clear()
        for number in range(asked):
            projections[number]

    host = Reading(read)
    host.trainer.register_hook_in_eval(lambda ctx: counted.append(ctx.num_samples), "on_fit_end")
    run_locally(host, Collaborator())

    assert received == [0, 1, 2]
    assert counted == [12]


def test_streamed_or_kept_or_both_ways_the_numbers_are_the_same() -> None:
    found: dict[int, list[Tensor]] = {}

    def read(host: Any, projections: Any, truth: Any) -> None:
        mine = found.setdefault(host.settings.test_keep_bytes, [])
        for projection, batch in zip(projections, truth, strict=True):
            mine += [*projection.values(), batch]

    for keep in (0, 1 << 26):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HETEROFED_TEST_KEEP_BYTES", str(keep))
            run_locally(Reading(read), Collaborator(), seed=1)

    nothing, all_ = found.values()
    assert len(nothing) == 3 * TESTED
    assert all(torch.equal(one, other) for one, other in zip(nothing, all_, strict=True))


def test_what_the_users_code_keeps_of_a_test_does_not_change_later() -> None:
    kept: list[Any] = []

    def read(host: Any, projections: Any, truth: Any) -> None:
        for projection, batch in zip(projections, truth, strict=True):
            now = [*projection.values(), batch]
            kept.append((now, [each.clone() for each in now]))

    run_locally(*with_own_batches(read))

    assert len(kept) == TESTED
    for now, then in kept:
        assert all(torch.equal(one, other) for one, other in zip(now, then, strict=True))


def test_own_batches_are_as_many_as_they_are() -> None:
    counted: list[int] = []

    run_locally(
        *with_own_batches(lambda host, projections, truth: counted.extend((len(projections), len(list(truth)))))
    )

    assert counted == [TESTED, TESTED]


def test_lists_that_are_read_after_the_test_do_not_look_empty() -> None:
    later: list[Any] = []

    run_locally(Reading(lambda host, projections, truth: later.append(truth)), Collaborator())

    with pytest.raises(BatchesPassed, match="was not asked for while test"):
        list(later[0])


def test_nothing_of_a_test_is_held_after_it() -> None:
    alive: list[Any] = []
    held: list[int] = []
    gc.disable()

    def read(host: Any, projections: Any, truth: Any) -> None:
        for projection, batch in zip(projections, truth, strict=True):
            alive.extend(weakref.ref(each) for each in (*projection.values(), batch))

    host = Reading(read)
    host.trainer.register_hook_in_eval(lambda ctx: held.append(sum(each() is not None for each in alive)), "on_fit_end")
    try:
        run_locally(host, Collaborator())
    finally:
        gc.enable()

    assert len(alive) == 3 * TESTED
    assert held == [0]


def test_modes_that_the_test_sets_do_not_reach_the_feature_model() -> None:
    grads: list[bool] = []

    def read(host: Any, projections: Any, truth: Any) -> None:
        with torch.enable_grad():
            for projection in projections:
                grads.append(projection["host"].requires_grad)

    run_locally(Reading(read), Collaborator())

    assert grads == [False] * TESTED


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_exception_of_the_test_between_two_batches_fails_the_task() -> None:
    def read(host: Any, projections: Any, truth: Any) -> None:
        for number, _ in enumerate(projections):
            if number == 1:
                raise ValueError("not this one")

    ends = ends_of(Reading(read), Collaborator())

    assert isinstance(ends["host"], TemplateError)
    assert "Reading.test() raised ValueError" in str(ends["host"])
    assert isinstance(ends["host"].__cause__, ValueError)
    assert isinstance(ends["c1"], TaskAborted)


def test_a_second_pass_over_too_much_fails_the_task_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HETEROFED_TEST_KEEP_BYTES", "0")
    host = Reading(lambda host, projections, truth: (torch.cat(truth), list(projections)))

    error = ends_of(host, Collaborator())["host"]

    assert isinstance(error, BatchesPassed)
    assert str(error) == "host, while testing: " + SAYS.replace(str(TOO_MUCH), "0")


class NotANumber(Collaborator):
    """Its test rows hold a NaN from the second batch on."""

    def load_batch(self, ids: list[str]) -> Any:
        rows = super().load_batch(ids)
        return rows * float("nan") if set(ids) <= set(self.test_ids[4:]) else rows


def careless(host: Any, projections: Any, truth: Any) -> None:
    with suppress(Exception):
        list(projections)


def transforming(host: Any, projections: Any, truth: Any) -> None:
    try:
        list(projections)
    except Exception as error:
        raise ValueError("what a pity") from error


def swallowing(host: Any, projections: Any, truth: Any) -> None:
    for _ in range(20):
        with suppress(Exception):
            list(projections)


@pytest.mark.parametrize("read", [careless, transforming, swallowing])
def test_an_error_of_the_exchange_comes_out_as_itself_whatever_the_test_makes_of_it(read: Any) -> None:
    ends = ends_of(Reading(read), NotANumber())

    assert isinstance(ends["host"], TaskAborted)
    assert isinstance(ends["c1"], TrainingDiverged)
    assert "the feature model gave NaN" in str(ends["host"])


@pytest.mark.parametrize("read", [careless, transforming])
def test_an_error_of_the_hosts_own_batch_comes_out_as_itself(read: Any) -> None:
    class Unreadable(Reading):
        def load_batch(self, ids: list[str]) -> Any:
            if ids[0] == self.test_ids[8]:
                raise KeyError("no such row")
            return super().load_batch(ids)

    error = ends_of(Unreadable(read), Collaborator())["host"]

    assert isinstance(error, TemplateError)
    assert "Unreadable.load_batch() raised KeyError" in str(error)


class SwallowingHost(ResumingHost):
    """Goes on whatever happens while it reads."""

    def test(self, batched_feature_projections: Any, batched_labels: Any) -> None:
        batches: list[Any] = []
        with suppress(Exception):
            batches += zip(batched_feature_projections, batched_labels, strict=True)
        if len(batches) == len(batched_labels):
            super().test([each for each, _ in batches], [each for _, each in batches])


@pytest.mark.parametrize("kill", [Kill("host", "Proceed", 2), Kill("c1", "Embedding", 4, after=True)], ids=str)
def test_a_party_that_is_killed_in_a_test_is_waited_for_though_the_test_catches_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: Kill
) -> None:
    monkeypatch.setenv("HETEROFED_REJOIN_TIMEOUT_S", "20")

    def maker(folder: Path) -> Callable[[str], Any]:
        def make(key: str) -> Any:
            kind = SwallowingHost if key == "host" else ResumingCollaborator
            return kind(out_dir=folder / key)

        return make

    expected = Federation(maker(tmp_path / "undisturbed"), ("host", "c1"))
    expected.run()
    federation = Federation(maker(tmp_path / "cut"), ("host", "c1"))

    run_with(federation, kill)

    for key in ("host", "c1"):
        assert same(state_of(federation.schedulers[key]), state_of(expected.schedulers[key]))
    scores = "host/scores.csv"
    assert (tmp_path / "cut" / scores).read_text() == (tmp_path / "undisturbed" / scores).read_text()

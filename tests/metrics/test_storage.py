from __future__ import annotations

import io
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heterofed.errors import ConfigError
from heterofed.metrics.history import HistoryBuffer
from heterofed.metrics.storage import (
    KEPT_PICTURES,
    EventStorage,
    active_event_storage,
    get_event_storage,
)


@pytest.fixture
def storage() -> Iterator[EventStorage]:
    with EventStorage() as storage:
        yield storage


# -- the active storage ----------------------------------------------------------------------------------------


def test_get_event_storage_outside_a_storage_raises_and_says_what_to_do() -> None:
    assert active_event_storage() is None
    with pytest.raises(ConfigError, match=r"no EventStorage in this thread.*with EventStorage"):
        get_event_storage()


def test_storages_nest_and_the_innermost_is_active() -> None:
    with EventStorage() as outer:
        assert get_event_storage() is outer
        with EventStorage() as inner:
            assert get_event_storage() is inner
        assert get_event_storage() is outer
    assert active_event_storage() is None


def test_a_storage_is_left_also_when_its_block_raises() -> None:
    with pytest.raises(ZeroDivisionError), EventStorage():
        _ = 1 / 0
    assert active_event_storage() is None


def test_leaving_storages_out_of_order_is_refused() -> None:
    outer, inner = EventStorage(), EventStorage()
    with outer:
        inner.__enter__()
        with pytest.raises(ConfigError, match="not the one entered last"):
            outer.__exit__(None, None, None)
        assert get_event_storage() is inner
        inner.__exit__(None, None, None)
    with pytest.raises(ConfigError, match="not the one entered last"):
        outer.__exit__(None, None, None)


def test_parties_in_threads_of_one_process_have_their_own_active_storage() -> None:
    both_inside = threading.Barrier(2, timeout=10)
    seen: dict[str, tuple[bool, str]] = {}

    def party(name: str) -> None:
        empty = active_event_storage() is None
        with EventStorage(reporter=name):
            both_inside.wait()
            seen[name] = empty, get_event_storage().reporter
            both_inside.wait()

    with EventStorage(reporter="outside"):
        threads = [threading.Thread(target=party, args=(name,)) for name in ("host", "collaborator")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert get_event_storage().reporter == "outside"
    assert seen == {"host": (True, "host"), "collaborator": (True, "collaborator")}


def test_neither_storage_nor_writers_load_torch() -> None:
    code = "import heterofed.metrics.storage, heterofed.metrics.writers, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=50).returncode == 0


# -- scalars ---------------------------------------------------------------------------------------------------


def test_scalars_are_read_back_through_history_histories_and_latest(storage: EventStorage) -> None:
    storage.put_scalar("loss", 2)
    storage.step()
    storage.put_scalars(loss=1.5, acc=True)
    storage.iter = 7
    storage.put_scalars({"a/b": 1, "lr": 0.1}, smoothing_hint=False)
    assert storage.iter == 7
    assert storage.history("loss").values() == [(2.0, 0), (1.5, 1)]
    assert sorted(storage.histories()) == ["a/b", "acc", "loss", "lr"]
    assert storage.latest() == {"loss": (1.5, 1), "acc": (1.0, 1), "a/b": (1.0, 7), "lr": (0.1, 7)}
    assert storage.smoothing_hints() == {"loss": True, "acc": True, "a/b": False, "lr": False}


def test_the_first_iteration_is_the_one_given() -> None:
    storage = EventStorage(start_iter=20)
    storage.put_scalar("loss", 1)
    assert storage.latest() == {"loss": (1.0, 20)}


def test_samples_and_round_are_zero_before_the_first_set(storage: EventStorage) -> None:
    assert (storage.samples, storage.round) == (0, 0)
    storage.samples, storage.round = 640, 2
    assert (storage.samples, storage.round) == (640, 2)


def test_an_unknown_history_raises_a_key_error_that_names_the_known_ones(storage: EventStorage) -> None:
    with pytest.raises(KeyError, match="no scalar 'loss' was put; there are: none"):
        storage.history("loss")
    storage.put_scalars(lr=1, acc=1)
    with pytest.raises(KeyError, match="there are: acc, lr"):
        storage.history("loss")


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (3, 3.0),
        (True, 1.0),
        (np.float64(0.1), 0.1),
        (np.int64(7), 7.0),
        (np.bool_(True), 1.0),
        (np.array([[2.5]]), 2.5),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([3]), 3.0),
        (torch.tensor(1.5, requires_grad=True) * 2, 3.0),
        (torch.tensor(0.25, dtype=torch.bfloat16), 0.25),
    ],
)
def test_a_number_or_a_tensor_of_one_is_stored_as_a_float(storage: EventStorage, value: object, stored: float) -> None:
    storage.put_scalar("x", value)
    storage.put_scalars(x=value)
    found = [value for value, _ in storage.history("x").values()]
    assert found == [stored, stored]
    assert type(found[0]) is float


@pytest.mark.parametrize("value", [torch.tensor(math.nan), math.nan, np.float32(math.nan)])
def test_nan_is_stored(storage: EventStorage, value: object) -> None:
    storage.put_scalar("loss", value)
    assert math.isnan(storage.history("loss").latest())


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("0.5", "str"),
        (None, "NoneType"),
        ([1.0], "list"),
        (1j, "complex"),
        (torch.tensor(1j), "complex"),
        (torch.ones(2), r"shape \(2,\)"),
        (np.ones((2, 3)), r"shape \(2, 3\)"),
        (np.array("text"), "str"),
        (torch.ones(0), r"shape \(0,\)"),
        (10**400, "too large"),
    ],
)
def test_any_other_value_is_a_type_error_that_names_the_scalar(
    storage: EventStorage, value: object, named: str
) -> None:
    with storage.name_scope("host"):
        with pytest.raises(TypeError, match=f"'host/loss' got .*{named}"):
            storage.put_scalar("loss", value)
        with pytest.raises(TypeError, match=f"'host/loss' got .*{named}"):
            storage.put_scalars(lr=1, loss=value)
    assert storage.histories() == {}


@pytest.mark.parametrize("name", ["", "iteration", "round"])
def test_a_name_that_a_line_of_metrics_json_needs_is_refused(storage: EventStorage, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a scalar"):
        storage.put_scalar(name, 1)
    with pytest.raises(ConfigError, match="cannot name a scalar"):
        storage.put_scalars({"ok": 1, name: 1})
    assert storage.histories() == {}
    with storage.name_scope("x"):
        storage.put_scalar("round", 1)
    assert storage.latest() == {"x/round": (1.0, 0)}


def test_a_name_that_is_no_string_is_refused(storage: EventStorage) -> None:
    with pytest.raises(TypeError, match="name of a scalar is a string, not int"):
        storage.put_scalar(3, 1)  # type: ignore[arg-type]  # the mistake under test
    assert storage.histories() == {}


@pytest.mark.parametrize("first", [True, False])
def test_a_changed_smoothing_hint_is_refused_with_nothing_stored(storage: EventStorage, first: bool) -> None:
    storage.put_scalar("lr", 1, smoothing_hint=first)
    with pytest.raises(ConfigError, match=f"'lr' came with smoothing_hint={not first}.*={first}"):
        storage.put_scalar("lr", 2, smoothing_hint=not first)
    with pytest.raises(ConfigError, match="'lr' came with"):
        storage.put_scalars({"acc": 3, "lr": 2}, smoothing_hint=not first)
    assert storage.latest() == {"lr": (1.0, 0)}
    assert storage.smoothing_hints() == {"lr": first}
    storage.put_scalar("lr", 2, smoothing_hint=np.bool_(first))  # type: ignore[arg-type]  # as good as a bool
    assert storage.history("lr").values() == [(1.0, 0), (2.0, 0)]


def test_latest_with_smoothing_hint_is_the_median_of_the_window(storage: EventStorage) -> None:
    for value in (100, 1, 9, 2, 4):
        storage.put_scalar("loss", value)
        storage.put_scalar("lr", value, smoothing_hint=False)
        storage.step()
    assert storage.latest_with_smoothing_hint(3) == {"loss": (4.0, 4), "lr": (4.0, 4)}
    assert storage.latest_with_smoothing_hint(2) == {"loss": (3.0, 4), "lr": (4.0, 4)}
    assert storage.latest_with_smoothing_hint() == {"loss": (4.0, 4), "lr": (4.0, 4)}


def test_name_scopes_nest_and_are_restored_also_after_an_exception(storage: EventStorage) -> None:
    with storage.name_scope("a"):
        with storage.name_scope("b/"):
            storage.put_scalar("x", 1)
            storage.put_scalars(y=2)
        with pytest.raises(ZeroDivisionError), storage.name_scope("c"):
            storage.put_scalar("x", 1 / 0)
        storage.put_scalar("x", 3)
    storage.put_scalar("x", 4)
    assert storage.latest() == {"a/b/x": (1.0, 0), "a/b/y": (2.0, 0), "a/x": (3.0, 0), "x": (4.0, 0)}


def test_a_scalar_is_of_the_round_whose_batch_was_last_begun(storage: EventStorage) -> None:
    storage.put_scalar("before", 1)
    iteration = 0
    for number in (1, 2, 3):
        storage.round = number
        for _ in range(2):
            storage.iter = iteration
            iteration += 1
            storage.put_scalar("loss", 1)
        storage.put_scalar(f"end{number}", 1)  # nothing has begun since: it belongs to the batch before
    assert [storage.round_at(number) for number in range(6)] == [1, 1, 2, 2, 3, 3]
    assert [storage.round_of(name) for name in ("before", "end1", "end2", "end3", "loss")] == [1, 1, 2, 3, 3]


def test_a_round_set_after_the_first_batch_began_holds_for_that_batch(storage: EventStorage) -> None:
    storage.iter = 0
    storage.round = 1
    storage.step()
    storage.round = 2
    storage.step()
    assert [storage.round_at(number) for number in range(4)] == [1, 1, 2, 2]


def test_what_was_measured_before_the_first_batch_is_of_the_first_round() -> None:
    storage = EventStorage(start_iter=3)
    storage.put_scalar("before", 1)
    for number in (5, 6):
        storage.round, storage.iter = number, number
    assert storage.round_of("before") == 5


def test_going_back_to_an_earlier_iteration_forgets_the_rounds_after_it(storage: EventStorage) -> None:
    for number, iteration in ((1, 0), (2, 5), (3, 10), (2, 5), (3, 8)):
        storage.round, storage.iter = number, iteration
    assert [storage.round_at(number) for number in (4, 5, 7, 8, 10)] == [1, 2, 2, 3, 3]


# -- pictures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (3, 4, 5), (4, 4, 5)])
def test_an_image_is_kept_as_a_copy_until_it_is_cleared(storage: EventStorage, shape: tuple[int, ...]) -> None:
    picture = torch.full(shape, 0.5, requires_grad=True)
    storage.iter = 3
    with storage.name_scope("host"):
        storage.put_image("digit", picture)
    with torch.no_grad():
        picture.zero_()
    (kept,) = storage.images
    assert (kept.name, kept.iteration, kept.image.shape) == ("host/digit", 3, shape)
    assert (kept.image == 0.5).all()
    storage.clear_images()
    assert storage.images == []


@pytest.mark.parametrize("shape", [(4,), (2, 4, 5), (28, 28, 3), (1, 1, 4, 5), (0, 5)])
def test_what_has_no_shape_of_an_image_is_refused(storage: EventStorage, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="image 'digit' has shape"):
        storage.put_image("digit", np.zeros(shape))
    assert storage.images == []


def test_a_histogram_counts_what_is_finite(storage: EventStorage) -> None:
    values = torch.tensor([[0.0, 1.0, 1.0], [4.0, math.nan, math.inf]], dtype=torch.bfloat16)
    storage.put_histogram("gradient", values, bins=4)
    (kept,) = storage.histograms
    assert kept.counts.tolist() == [1, 2, 0, 1]
    assert kept.edges.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert (kept.name, kept.total, kept.squares, kept.iteration) == ("gradient", 6.0, 18.0, 0)
    storage.clear_histograms()
    assert storage.histograms == []


def test_a_histogram_of_nothing_finite_is_not_kept(storage: EventStorage) -> None:
    storage.put_histogram("gradient", torch.tensor([math.nan]))
    storage.put_histogram("gradient", torch.ones(0))
    assert storage.histograms == []


def test_a_histogram_of_huge_values_does_not_warn(storage: EventStorage) -> None:
    storage.put_histogram("gradient", np.array([1e200, 2e200]))
    assert storage.histograms[0].squares == math.inf


def test_a_histogram_needs_a_bin(storage: EventStorage) -> None:
    with pytest.raises(ConfigError, match="'gradient' with 0 bins"):
        storage.put_histogram("gradient", np.ones(3), bins=0)


def test_pictures_that_nobody_takes_do_not_pile_up(storage: EventStorage) -> None:
    for number in range(KEPT_PICTURES + 5):
        storage.iter = number
        storage.put_image("digit", np.zeros((2, 2)))
        storage.put_histogram("gradient", np.zeros(2))
    for kept in (storage.images, storage.histograms):
        assert [each.iteration for each in kept] == list(range(5, KEPT_PICTURES + 5))


# -- history ---------------------------------------------------------------------------------------------------


def test_a_history_evicts_the_oldest_and_its_global_average_covers_them() -> None:
    history = HistoryBuffer(max_length=3)
    for value in (10, 20, 3, 1, 2):
        history.update(value)
    assert history.values() == [(3.0, 2), (1.0, 3), (2.0, 4)]
    assert (len(history), history.count) == (3, 5)
    assert (history.latest(), history.latest_iteration) == (2.0, 4)
    assert (history.median(100), history.avg(2), history.global_avg()) == (2.0, 1.5, 36 / 5)


_NUMBERS = st.floats(-1e6, 1e6)


@settings(max_examples=150, deadline=None)
@given(
    puts=st.lists(st.tuples(_NUMBERS, st.integers(0, 2**62)), max_size=40),
    more=st.lists(st.tuples(_NUMBERS, st.integers(0, 2**62)), min_size=1, max_size=10),
    max_length=st.integers(1, 12),
    other_length=st.integers(1, 12),
    window=st.integers(1, 15),
    keep=st.integers(1, 15),
)
def test_a_history_is_a_list_that_forgets(
    puts: list[tuple[float, int]],
    more: list[tuple[float, int]],
    max_length: int,
    other_length: int,
    window: int,
    keep: int,
) -> None:
    def matches(history: HistoryBuffer, kept: list[tuple[float, int]], ever: list[tuple[float, int]]) -> None:
        assert history.values() == kept
        assert len(history) == len(kept)
        assert history.count == len(ever)
        assert [history.recent(number) for number in range(15)] == [
            kept[len(kept) - min(number, len(kept)) :] for number in range(15)
        ]
        if kept:
            newest = [value for value, _ in kept[-window:]]
            assert (history.latest(), history.latest_iteration) == kept[-1]
            assert history.median(window) == np.median(newest)
            assert history.avg(window) == pytest.approx(np.mean(newest), abs=1e-6)
            assert history.global_avg() == pytest.approx(np.mean([value for value, _ in ever]), abs=1e-6)

    history, model = HistoryBuffer(max_length), list[tuple[float, int]]()
    for put in puts:
        history.update(*put)
        model.append(put)
        matches(history, model[-max_length:], model)

    restored = HistoryBuffer(other_length)
    for put in more:
        restored.update(*put)  # forgotten
    restored.load_state_dict(history.state_dict(keep))
    kept = model[-min(max_length, other_length, keep) :]
    for put in more:
        matches(restored, kept, model)
        restored.update(*put)
        model.append(put)
        kept = [*kept, put][-other_length:]
    matches(restored, kept, model)


def test_a_median_with_nan_in_its_window_is_nan() -> None:
    history = HistoryBuffer()
    for value in (math.nan, 1.0, 2.0, 3.0):
        history.update(value)
    assert math.isnan(history.median(4))
    assert history.median(3) == 2.0


def test_an_update_that_is_refused_leaves_the_history_whole() -> None:
    history = HistoryBuffer(max_length=2)
    for value in (1.0, 2.0, 3.0):
        for wrong in ((value, 2**70), ("text", 0)):
            with pytest.raises((OverflowError, ValueError)):
                history.update(*wrong)
        history.update(value)
    assert history.values() == [(2.0, 1), (3.0, 2)]
    assert history.global_avg() == 2.0


def test_a_history_of_no_value_has_no_latest() -> None:
    history = HistoryBuffer()
    assert history.values() == []
    for read in (history.latest, history.global_avg, lambda: history.median(3), lambda: history.avg(3)):
        with pytest.raises(IndexError, match="no value yet"):
            read()
    with pytest.raises(IndexError, match="no value yet"):
        _ = history.latest_iteration


def test_a_length_or_window_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="a history of 0 values"):
        HistoryBuffer(0)
    history = HistoryBuffer()
    history.update(1)
    for read in (history.median, history.avg):
        with pytest.raises(ConfigError, match="a window of 0 values"):
            read(0)


def test_a_value_takes_sixteen_bytes_and_eviction_does_not_move_the_rest() -> None:
    history = HistoryBuffer(max_length=100_000)
    for number in range(250_000):  # would take minutes if each eviction moved 100 000 values
        history.update(1.0, number)
    assert history.values()[0] == (1.0, 150_000)
    columns = (history._values, history._iterations)
    assert [column.itemsize * len(column) for column in columns] == [800_000, 800_000]


# -- checkpoints -----------------------------------------------------------------------------------------------


def _through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def test_a_storage_restored_from_a_checkpoint_goes_on_as_if_nothing_had_happened() -> None:
    def advance(storage: EventStorage, start: int, stop: int) -> None:
        for number in range(start, stop):
            storage.round, storage.iter, storage.samples = number // 4 + 1, number, 32 * (number + 1)
            storage.put_scalar("loss", torch.tensor(math.sin(number)))
            storage.put_scalar("lr", 0.1 * number, smoothing_hint=False)

    whole, first, second = EventStorage(), EventStorage(), EventStorage()
    advance(whole, 0, 30)
    advance(first, 0, 18)
    second.put_scalar("forgotten", 1)
    second.load_state_dict(_through_a_file(first.state_dict()))
    advance(first, 18, 20)  # what was saved does not change under the hands of the one who loads it
    assert (second.iter, second.round, second.samples) == (17, 5, 576)
    advance(second, 18, 30)
    assert second.latest() == whole.latest()
    assert second.latest_with_smoothing_hint(20) == whole.latest_with_smoothing_hint(20)
    assert second.history("loss").values() == whole.history("loss").values()
    assert second.history("loss").global_avg() == whole.history("loss").global_avg()
    assert second.smoothing_hints() == whole.smoothing_hints()
    assert [second.round_at(number) for number in range(30)] == [number // 4 + 1 for number in range(30)]


def test_a_state_keeps_the_newest_values_and_the_average_of_all() -> None:
    storage, restored = EventStorage(), EventStorage()
    for number in range(1200):
        storage.iter = number
        storage.put_scalar("loss", number)
    restored.load_state_dict(storage.state_dict())
    assert restored.history("loss").values() == [(float(number), number) for number in range(200, 1200)]
    assert restored.history("loss").global_avg() == 1199 / 2
    for number in (1200, 1201, 1202):
        storage.round, storage.iter = number, number
    restored.load_state_dict(storage.state_dict(keep=2))
    assert [restored.round_at(number) for number in (1201, 1202)] == [1201, 1202]
    assert restored.history("loss").values() == [(1198.0, 1198), (1199.0, 1199)]
    with pytest.raises(ConfigError, match="a state with 0 values"):
        storage.state_dict(keep=0)

"""Several predictions of the same rows with all parties: each draws for itself, and all is as it was afterwards."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heterofed import ConfigError, HeterofedError, NotAllowed, TaskAborted
from heterofed.frames.messages import Ask, PsiPart
from heterofed.scheduler.link import Link
from heterofed.scheduler.manifest import read_manifest
from heterofed.scheduler.predicting import predictions as module
from heterofed.scheduler.predicting.drawing import part_of
from heterofed.scheduler.predicting.predicted import RowStatus, SpreadBatch
from heterofed.scheduler.predicting.predictions import Predictions
from heterofed.scheduler.predicting.serve_limits import ServeLimits
from heterofed.simulate import predict_locally, run_locally
from heterofed.tasks.directory import open_local
from heterofed.uncertainty import SwagHook, SwagMoments, interpret
from tests.scheduler.predicting.parties import (
    EVERYBODY,
    TASK,
    Knowing,
    Predicting,
    completed_task,
    in_a_thread,
    quick,
    values_of,
)
from tests.tiny import CLASSES, WIDTH, bottom, person, table

EVERY = frozenset({"host", "c1", "infer"})
SIZE = 16


def dropping(model: nn.Module, p: float) -> nn.Module:
    first, active, second = model.children()
    return nn.Sequential(first, active, nn.Dropout(p), second)


def head(p: float) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(300)
        return nn.Sequential(nn.Linear(2 * WIDTH, 8), nn.ReLU(), nn.Dropout(p), nn.Linear(8, CLASSES), nn.Softmax(1))


class Unsure(Predicting):
    """Has dropout where it is told, and collects moments; keeps the spread at the end of training."""

    mean_rows = 0
    in_the_end: list[SpreadBatch]

    def __init__(self, *args: Any, drops: Collection[str] = EVERY, collects: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, settings=quick(), **kwargs)
        self.drops = drops
        self.collects = collects

    def build_hooks(self) -> Any:
        return [*super().build_hooks(), *([SwagHook()] if self.collects else [])]

    def make_feature_model(self) -> nn.Module:
        return dropping(bottom(0), 0.5 if "host" in self.drops else 0.0)

    def make_infer_model(self) -> nn.Module:
        return head(0.5 if "infer" in self.drops else 0.0)

    def conclude(self, predictions: Predictions) -> None:
        super().conclude(predictions)
        if self.collects:
            self.in_the_end = list(predictions.spread(method="swag", draws=3, seed=7))


class Shop(Knowing):
    """The same for a collaborator."""

    def __init__(self, *args: Any, drops: Collection[str] = EVERY, collects: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, settings=quick(), **kwargs)
        self.drops = drops
        self.collects = collects

    def build_hooks(self) -> Any:
        return [*super().build_hooks(), *([SwagHook()] if self.collects else [])]

    def make_feature_model(self) -> nn.Module:
        return dropping(bottom(1), 0.5 if "c1" in self.drops else 0.0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(folder: Path, *, host: Any = None, shop: Any = None, rounds: int = 3) -> Unsure:
    party = Unsure(out_dir=folder / "host", max_rounds=rounds, **host or {})
    run_locally(party, Shop(out_dir=folder / "c1", **shop or {}), seed=1, task_id=TASK)
    return party


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Unsure]:
    """A completed run with moments, and its host."""
    folder = tmp_path_factory.mktemp("run")
    return folder, train(folder)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A completed run in which only the host has collected moments."""
    folder = tmp_path_factory.mktemp("half")

    class Quiet(Unsure):
        """Asks for nothing when training ends."""

        def conclude(self, predictions: Predictions) -> None:
            pass

    run_locally(Quiet(out_dir=folder / "host"), Shop(out_dir=folder / "c1", collects=False), seed=1, task_id=TASK)
    return folder


def parties(folder: Path, drops: Collection[str] = EVERY) -> tuple[Unsure, Shop]:
    return Unsure(out_dir=folder / "host", drops=drops), Shop(out_dir=folder / "c1", drops=drops)


def several(predictions: Predictions, method: Any, ids: Any = None, **how: Any) -> list[SpreadBatch]:
    given = {"draws": 4, "seed": 7, "batch_size": SIZE, **how}
    return list(predictions.spread(ids, method=method, **given))


def means(batches: list[SpreadBatch]) -> Tensor:
    return torch.cat([each.values for each in batches if each.values is not None])


def same(left: list[SpreadBatch], right: list[SpreadBatch]) -> bool:
    return torch.equal(means(left), means(right)) and all(
        torch.equal(a.spread.variance, b.spread.variance)
        for a, b in zip(left, right, strict=True)
        if a.spread is not None and b.spread is not None
    )


def kept(folder: Path, drops: Collection[str] = EVERY) -> tuple[dict[str, nn.Module], dict[str, SwagMoments]]:
    """Return all parts of the network in one place, and their moments."""
    host, shop = parties(folder, drops)
    parts = {"host": host.feature_model, "infer": host.infer_model, "c1": shop.feature_model}
    files = {"host": "host/feature_model_host.pt", "infer": "host/infer_model.pt", "c1": "c1/feature_model_c1.pt"}
    moments = {}
    for name, file in files.items():
        parts[name].load_state_dict(torch.load(folder / file))
        parts[name].eval()
        states = torch.load(folder / Path(file).parent / "swag_moments.pt")
        moments[name] = SwagMoments()
        moments[name].load_state_dict(states["infer" if name == "infer" else "feature"])
    return parts, moments


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_the_spread_by_swag_is_that_of_the_models_put_together(run: tuple[Path, Unsure]) -> None:
    folder, _ = run
    with predict_locally(*parties(folder)) as predictions:
        found = several(predictions, "swag", EVERYBODY[:SIZE])

    parts, moments = kept(folder)
    names = {name: part_of(name, part) for name, part in parts.items()}
    outputs = []
    for draw in range(4):
        with ExitStack() as drawn, torch.no_grad():
            for name, part in parts.items():
                drawn.enter_context(moments[name].drawn(part, 7, draw, names[name]))
            fused = torch.cat([parts["host"](table(0)[:SIZE]), parts["c1"](table(1)[:SIZE])], 1)
            outputs.append(parts["infer"](fused))
    expected = interpret(torch.stack(outputs))

    (batch,) = found
    assert torch.equal(batch.values, torch.stack(outputs).double().mean(0).float())
    assert batch.spread is not None
    assert torch.equal(batch.spread.variance, expected.variance)
    assert batch.spread.mutual_info is not None
    assert batch.spread.mutual_info.max() > 0
    assert batch.spread.std.min() > 0


@pytest.mark.parametrize("where", sorted(EVERY))
def test_dropout_is_active_at_every_party(run: tuple[Path, Unsure], where: str) -> None:
    folder, _ = run
    with predict_locally(*parties(folder, {where})) as predictions:
        (batch,) = several(predictions, "mc_dropout", EVERYBODY[:SIZE], draws=8)
        again = several(predictions, "mc_dropout", EVERYBODY[:SIZE], draws=8)
        plain = values_of(predictions, EVERYBODY[:SIZE])

    parts, _ = kept(folder, {where})
    with torch.no_grad():
        fused = torch.cat([parts["host"](table(0)[:SIZE]), parts["c1"](table(1)[:SIZE])], 1)
        assert torch.equal(torch.stack(list(plain.values())), parts["infer"](fused))
    assert batch.spread is not None
    assert batch.spread.std.max() > 1e-3
    assert same([batch], again)


def test_every_row_and_every_draw_has_units_of_its_own(run: tuple[Path, Unsure]) -> None:
    folder, _ = run
    ids = [person(3)] * SIZE
    with predict_locally(*parties(folder)) as predictions:
        (batch,) = several(predictions, "mc_dropout", ids)
        (first,), (second,) = (several(predictions, "mc_dropout", ids, seed=seed) for seed in (1, 2))
        one, other = several(predictions, "mc_dropout", [*ids, *ids[1:], person(4)])

    assert not torch.equal(one.values[:-1], other.values[:-1])
    assert len({tuple(each) for each in batch.values.tolist()}) > SIZE // 2
    assert not torch.equal(first.values, second.values)


@pytest.mark.parametrize("method", ["mc_dropout", "swag"])
def test_equal_seeds_give_equal_bits_whenever_and_however_they_are_asked(run: tuple[Path, Unsure], method: str) -> None:
    folder, _ = run
    with predict_locally(*parties(folder)) as predictions:
        whole = several(predictions, method)
        several(predictions, "mc_dropout", seed=9)
        torch.rand(3)
        again = several(predictions, method)
        other = several(predictions, method, seed=8)
        random = [several(predictions, method, seed=None) for _ in range(2)]
    with predict_locally(*parties(folder), ids=EVERYBODY[SIZE:]) as predictions:
        later = several(predictions, method, EVERYBODY[SIZE:])

    assert [len(each.ids) for each in whole] == [16, 16, 16, 12]
    assert same(whole, again)
    assert same(whole[1:], later)
    assert not same(whole, other)
    assert not same(*random)


def test_what_a_party_draws_cannot_be_known_without_its_weights(run: tuple[Path, Unsure]) -> None:
    parts, moments = kept(run[0])
    before = part_of("c1", parts["c1"])
    with torch.no_grad():
        next(parts["c1"].parameters())[0, 0] += 1e-3

    after = part_of("c1", parts["c1"])
    one, other = (moments["c1"].sample(7, 0, part) for part in (before, after))

    assert before != after
    assert part_of("infer", parts["c1"]) != after
    assert not torch.equal(one["0.weight"], other["0.weight"])


# --- no spread --------------------------------------------------------------------------------------------------------


def test_without_any_dropout_the_mean_is_the_prediction_and_a_warning_says_why(
    run: tuple[Path, Unsure], caplog: pytest.LogCaptureFixture
) -> None:
    folder, _ = run
    with predict_locally(*parties(folder, ())) as predictions, caplog.at_level(logging.WARNING):
        found = several(predictions, "mc_dropout", draws=7)
        plain = list(predictions.predict(batch_size=SIZE))

    assert torch.equal(means(found), torch.cat([each.values for each in plain]))
    assert all(each.spread is not None and each.spread.variance.count_nonzero() == 0 for each in found)
    assert ["so their spread is 0" in each.getMessage() for each in caplog.records] == [True]


def test_the_moments_of_one_round_give_the_prediction_itself(tmp_path: Path) -> None:
    train(tmp_path, rounds=1)
    with predict_locally(*parties(tmp_path)) as predictions:
        found = several(predictions, "swag")
        plain = list(predictions.predict(batch_size=SIZE))

    assert torch.equal(means(found), torch.cat([each.values for each in plain]))


# --- the run and its moments ------------------------------------------------------------------------------------------


def test_the_moments_of_a_run_are_kept_and_used_as_they_were_in_memory(run: tuple[Path, Unsure]) -> None:
    folder, trained = run
    with predict_locally(*parties(folder)) as predictions:
        again = list(predictions.spread(trained.id_intersection, method="swag", draws=3, seed=7))

    assert "swag_moments.pt" in read_manifest(folder / "host").files
    assert "swag_moments.pt" in read_manifest(folder / "c1").files
    assert sorted(torch.load(folder / "host" / "swag_moments.pt")) == ["feature", "infer"]
    assert same(again, trained.in_the_end)


def test_a_task_that_asks_for_moments_has_them_kept_at_every_party(tmp_path: Path) -> None:
    task = open_local(quick()).store.create("t", ["host", "c1"], rounds=2, uncertainty="swag").id
    host = Unsure(out_dir=tmp_path / "host", collects=False)
    run_locally(host, Shop(out_dir=tmp_path / "c1", collects=False), seed=1, task_id=task)

    assert torch.load(tmp_path / "c1" / "swag_moments.pt")["feature"]["collected"] == 2
    with predict_locally(*parties(tmp_path)) as predictions:
        assert len(means(several(predictions, "swag"))) == len(EVERYBODY)


def test_moments_of_a_run_before_do_not_stay_in_the_folder(tmp_path: Path) -> None:
    train(tmp_path, rounds=1)
    train(tmp_path, rounds=1, host={"collects": False}, shop={"collects": False})

    for party in ("host", "c1"):
        assert not (tmp_path / party / "swag_moments.pt").exists()


def test_a_host_without_moments_says_so_before_it_asks(tmp_path: Path) -> None:
    train(tmp_path, rounds=1, host={"collects": False})

    with predict_locally(*parties(tmp_path)) as predictions:
        with pytest.raises(
            ConfigError, match=r"host: SWAG .* no moments of its feature and infer .*--uncertainty swag"
        ):
            predictions.spread(method="swag")
        assert len(values_of(predictions)) == len(EVERYBODY)


def test_a_collaborator_without_moments_is_named_at_both_ends(half: Path) -> None:
    completed_task()
    words = r"c1, while .*no moments of its feature model; expected moments at every party\. .*--uncertainty swag"
    host, shop = parties(half)

    with pytest.raises(ConfigError, match=words), predict_locally(*parties(half)) as predictions:
        several(predictions, "swag")
    with (
        in_a_thread(shop.answer_predictions) as ends,
        pytest.raises(TaskAborted, match=words),
        host.open_predictions() as predictions,
    ):
        several(predictions, "swag")
    assert isinstance(ends[0], ConfigError)
    assert "--uncertainty swag" in str(ends[0])


# --- all is as it was -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["mc_dropout", "swag"])
def test_models_modes_and_generators_are_as_they_were(run: tuple[Path, Unsure], method: Any) -> None:
    folder, _ = run
    host, shop = parties(folder)
    host.feature_model.train()
    with predict_locally(host, shop) as predictions:
        plain = values_of(predictions)
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        own = {name: value.clone() for name, value in host.infer_model.state_dict().items()}
        for batch in predictions.spread(method=method, draws=2, batch_size=SIZE):
            assert batch.spread is not None
            assert not any(each.training for each in host.infer_model.modules())
            assert all(torch.equal(value, host.infer_model.state_dict()[name]) for name, value in own.items())
            break
        assert torch.equal(torch.rand(1), expected)
        assert all(torch.equal(value, plain[id_]) for id_, value in values_of(predictions).items())

    assert host.feature_model.training
    saved = torch.load(folder / "c1" / "feature_model_c1.pt")
    assert all(torch.equal(value, saved[name]) for name, value in shop.feature_model.state_dict().items())
    assert all(each.training for each in shop.feature_model.modules())


def test_what_predict_a_batch_raises_leaves_the_session_and_the_weights_as_they_were(run: tuple[Path, Unsure]) -> None:
    folder, _ = run

    class Failing(Unsure):
        """Cannot predict at its fourth try."""

        tries = 0

        def predict_a_batch(self, feature_projection: dict[str, Tensor]) -> Any:
            self.tries += 1
            if self.tries == 4:
                raise OverflowError
            return super().predict_a_batch(feature_projection)

    host = Failing(out_dir=folder / "host")
    with predict_locally(host, parties(folder)[1]) as predictions:
        with pytest.raises(HeterofedError, match="OverflowError") as caught:
            several(predictions, "swag", batch_size=5)
        after = values_of(predictions)
    assert isinstance(caught.value.__cause__, OverflowError)  # whose frames are still there
    with predict_locally(*parties(folder)) as predictions:
        assert all(torch.equal(value, after[id_]) for id_, value in values_of(predictions).items())


# --- requests ---------------------------------------------------------------------------------------------------------


def test_rows_come_as_in_predict_with_unknown_ids_among_them(run: tuple[Path, Unsure]) -> None:
    folder, _ = run
    ids = ["nobody", person(2), "nemo", person(1), person(2), "niemand"]
    with predict_locally(*parties(folder), ids=ids) as predictions:
        plain = list(predictions.predict(batch_size=2))
        found = several(predictions, "swag", batch_size=2)
        nothing = several(predictions, "swag", ["x", "y"])

    assert [(each.ids, each.status, each.stand_ins) for each in found] == [
        (each.ids, each.status, each.stand_ins) for each in plain
    ]
    assert [each.values.shape for each in found] == [each.values.shape for each in plain]
    assert [(each.values, each.spread) for each in nothing] == [(None, None)]


def test_stand_ins_do_not_draw(run: tuple[Path, Unsure]) -> None:
    folder, _ = run
    host, _ = parties(folder, {"host"})
    with predict_locally(host, absent="zeros") as predictions:
        (batch,) = several(predictions, "mc_dropout", [person(1), "nobody"])

    assert batch.status == [RowStatus.PARTIAL, RowStatus.UNKNOWN]
    assert batch.spread is not None
    assert batch.spread.std.max() > 0


def test_a_draw_asks_for_some_batches_at_once_and_ids_are_matched_once(
    run: tuple[Path, Unsure], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run
    asked: list[tuple[int, int]] = []
    matched = [0]
    send = Link.send

    def sent(self: Link, to: str, message: Any, timeout_s: float = 0.0) -> None:
        if isinstance(message, Ask):
            assert message.draw is not None
            asked.append((message.draw.number, message.rows.nbytes // 4))
        matched[0] += isinstance(message, PsiPart)
        send(self, to, message, timeout_s)

    with predict_locally(*parties(folder)) as predictions:
        whole = several(predictions, "mc_dropout", draws=3)
    monkeypatch.setattr(Link, "send", sent)
    monkeypatch.setattr(module, "ROWS_OF_A_DRAW", 2 * SIZE + 5)
    with predict_locally(*parties(folder)) as predictions:
        before = matched[0]
        assert same(several(predictions, "mc_dropout", draws=3), whole)

    assert asked == [(draw, rows) for rows in (32, 28) for draw in range(3)]
    assert matched[0] == before


def test_arguments_that_cannot_work_are_refused(run: tuple[Path, Unsure]) -> None:
    folder, _ = run

    class Words(Unsure):
        """Predicts no numbers."""

        def predict_a_batch(self, feature_projection: dict[str, Tensor]) -> Any:
            return super().predict_a_batch(feature_projection).argmax(1)

    with predict_locally(*parties(folder)) as predictions:
        for wrong, words in (
            ({"method": "ensemble"}, "several runs"),
            ({"draws": 1}, "draws"),
            ({"seed": -1}, "seed"),
            ({"seed": 2**63}, "seed"),
            ({"batch_size": 0}, "batch_size"),
        ):
            with pytest.raises(ConfigError, match=words):
                predictions.spread(**{"method": "swag", **wrong})  # type: ignore[arg-type]
    host = Words(out_dir=folder / "host")
    with (
        predict_locally(host, parties(folder)[1]) as predictions,
        pytest.raises(ConfigError, match=r"torch.int64 of shape \(16,\) for 16 rows"),
    ):
        several(predictions, "swag")


def test_predictions_of_one_column_without_a_second_dimension_will_do(run: tuple[Path, Unsure]) -> None:
    folder, _ = run

    class Flat(Unsure):
        """Predicts one number."""

        def predict_a_batch(self, feature_projection: dict[str, Tensor]) -> Any:
            return super().predict_a_batch(feature_projection)[:, 0]

    with predict_locally(Flat(out_dir=folder / "host"), parties(folder)[1]) as predictions:
        (batch,) = several(predictions, "swag", EVERYBODY[:5])
    assert batch.values.shape == (5,)
    assert batch.spread is not None
    assert batch.spread.variance.shape == (5, 1)


def test_a_server_counts_the_rows_of_every_draw(run: tuple[Path, Unsure], tmp_path: Path) -> None:
    completed_task()
    folder, _ = run
    audit, stop = tmp_path / "audit.jsonl", threading.Event()
    limits = ServeLimits(rows_per_session=30)

    with in_a_thread(lambda: parties(folder)[1].serve_predictions(limits=limits, audit=audit, stop=stop)) as ends:
        try:
            with parties(folder)[0].open_predictions() as predictions:
                several(predictions, "swag", EVERYBODY[:10], draws=3)
            with (
                pytest.raises(HeterofedError, match="more than 30 rows"),
                parties(folder)[0].open_predictions() as predictions,
            ):
                several(predictions, "swag", EVERYBODY[:10], draws=4)
        finally:
            stop.set()

    told = [json.loads(each) for each in audit.read_text().splitlines()]
    asked = [(each["method"], each["draw"], each["rows"]) for each in told if each["event"] == "asked"]
    assert asked == [("swag", draw, 10) for draw in range(3)] * 2
    assert [each["rows"] for each in told if each["event"] == "closed"] == [30, 30]
    assert NotAllowed.__name__ in told[-1]["outcome"]
    assert ends == [1]

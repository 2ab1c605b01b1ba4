"""The course of a task as its users see it: rounds, tests, outputs, and the template methods on the way."""

from __future__ import annotations

import csv
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from heterofed import ConfigError, HostScheduler, register_metrics, run_locally
from tests.own_batches import OwnCollaborator, OwnHost
from tests.tiny import Collaborator, Host, person, same_bits


def test_each_party_gets_its_own_outputs_and_only_its_own(tmp_path: Path) -> None:
    host, other = Host(out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c")

    run = run_locally(host, other)

    models = ["feature_model_host.pt", "infer_model.pt"]
    assert names(tmp_path / "h") == [*models, "metrics.json", "model.zip", "report.zip", "run.json", "scores.csv"]
    assert names(tmp_path / "c") == ["feature_model_c1.pt", "metrics.json", "model.zip", "report.zip", "run.json"]
    assert sorted(path.name for path in run.host.files) == names(tmp_path / "h")
    with zipfile.ZipFile(tmp_path / "h" / "model.zip") as archive:
        assert sorted(archive.namelist()) == ["feature_model_host.pt", "infer_model.pt"]
    with zipfile.ZipFile(tmp_path / "h" / "report.zip") as archive:
        assert archive.namelist() == ["scores.csv", "metrics.json"]
        assert archive.read("scores.csv") == (tmp_path / "h" / "scores.csv").read_bytes()


def test_the_written_models_are_those_in_memory(tmp_path: Path) -> None:
    host, other = Host(out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c")

    run_locally(host, other)

    for path, model in [
        (tmp_path / "h" / "feature_model_host.pt", host.feature_model),
        (tmp_path / "h" / "infer_model.pt", host.infer_model),
        (tmp_path / "c" / "feature_model_c1.pt", other.feature_model),
    ]:
        state = torch.load(path, weights_only=True)
        assert all(torch.equal(state[name], each) for name, each in model.state_dict().items())


def test_every_round_leaves_a_checkpoint_and_the_newest_two_are_kept(tmp_path: Path) -> None:
    host, other = Host(out_dir=tmp_path / "h", max_rounds=3), Collaborator(out_dir=tmp_path / "c")

    run_locally(host, other)

    for party in ("h", "c"):
        folder = tmp_path / party / "checkpoints"
        # Numbered by their last batch: 48 train ids make 3 batches of 16 in each of the rounds.
        kept = ["alignment.msgpack", "last_checkpoint", "model_0000005", "model_0000008", "model_final"]
        assert names(folder) == kept
        assert (folder / "last_checkpoint").read_text() == "model_final"


@pytest.mark.parametrize(
    ("log_rounds", "max_rounds", "tested"),
    [(0, 3, []), (1, 3, [1, 2, 3]), (2, 5, [1, 2, 4, 5]), (9, 3, [1, 3])],
    ids=["never", "every round", "every second, the first and the last", "the first and the last"],
)
def test_tests_come_at_their_cadence(log_rounds: int, max_rounds: int, tested: list[int]) -> None:
    class Counting(Host):
        def test(self, *args: Any) -> None:
            rounds.append(self.current_round)

    rounds: list[int] = []

    run_locally(Counting(log_rounds=log_rounds, max_rounds=max_rounds), Collaborator())

    assert rounds == tested


def test_training_ends_when_is_task_finished_says_so() -> None:
    class UntilTheThird(Host):
        def is_task_finished(self) -> bool:
            return self.current_round == 3

    host = UntilTheThird(max_rounds=None)

    result = run_locally(host, Collaborator())

    assert result.host.rounds == result.parties["c1"].rounds == 3


def test_the_round_that_turns_out_to_be_the_last_is_tested_too() -> None:
    class UntilTheThird(Host):
        def is_task_finished(self) -> bool:
            return self.current_round == 3

        def test(self, *args: Any) -> None:
            rounds.append(self.current_round)

    rounds: list[int] = []

    run_locally(UntilTheThird(max_rounds=None, log_rounds=9), Collaborator())

    assert rounds == [1, 3]


def test_a_model_that_learns_nothing_is_in_training_mode_all_the_same() -> None:
    class Normalised(Collaborator):
        def make_feature_model(self) -> nn.Module:
            return nn.BatchNorm1d(3, affine=False)

    class WiderHost(Host):
        def make_infer_model(self) -> nn.Module:
            return nn.Linear(4 + 3, 3)

    other = Normalised()

    run_locally(WiderHost(max_rounds=1), other)

    assert other.feature_model.state_dict()["num_batches_tracked"] == 3


def test_settings_that_a_subclass_made_before_our_constructor_stay() -> None:
    class Early(Host):
        def __init__(self) -> None:
            self.batch_size, self.seed, self.shuffle = 7, 3, True
            HostScheduler.__init__(self, "host", max_rounds=1)

    early = Early()

    assert (early.batch_size, early.seed, early.shuffle) == (7, 3, True)
    assert (HostOnly("host").batch_size, HostOnly("host").shuffle) == (128, False)


class HostOnly(Host):
    def __init__(self, feature_key: str) -> None:
        HostScheduler.__init__(self, feature_key, max_rounds=1)


def test_labels_may_be_a_dict_or_a_tuple_of_labels() -> None:
    class Weighted(Host):
        def load_batch(self, ids: list[str]) -> Any:
            inputs, truth = super().load_batch(ids)
            return inputs, {"class": truth, "weight": (torch.ones(len(ids)), truth)}

        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            return super().train_a_batch(feature_projection, labels["class"])

        def test(self, batched_feature_projections: Any, batched_labels: Any) -> None:
            super().test(batched_feature_projections, [each["class"] for each in batched_labels])

    run_locally(Weighted(), Collaborator())


@pytest.mark.parametrize(
    ("rows", "told"), [(32, "yielded 32 rows for the 48 ids"), (64, "yields more rows than the 48")]
)
def test_batches_that_do_not_cover_the_ids_once_draw_one_warning_at_each_party(
    rows: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    class OtherHost(OwnHost):
        def iterate_train_feature(self, feature_model: nn.Module, train_ids: list[str]) -> Any:
            return super().iterate_train_feature(feature_model, (train_ids + train_ids)[:rows])

    class OtherCollaborator(OwnCollaborator):
        def iterate_train_feature(self, feature_model: nn.Module, train_ids: list[str]) -> Any:
            return super().iterate_train_feature(feature_model, (train_ids + train_ids)[:rows])

    run_locally(OtherHost(), OtherCollaborator())

    warnings = [each for each in caplog.messages if "iterate_train_feature yield" in each]
    assert len(warnings) == 2
    assert all(told in each for each in warnings)


def test_parties_that_compute_one_after_another_do_not_run_out_of_time() -> None:
    class Slow(Collaborator):
        def load_batch(self, ids: list[str]) -> Any:
            time.sleep(0.15)
            return super().load_batch(ids)

    others = [Slow(f"c{party}", party=party) for party in range(1, 5)]

    run_locally(Host(parties=5, calculation_timeout=0.3, max_rounds=1, log_rounds=0), *others)


def test_models_are_made_after_the_constructor_of_the_subclass() -> None:
    class Later(Host):
        def __init__(self) -> None:
            super().__init__()
            self.width = 8

        def make_feature_model(self) -> nn.Module:
            return nn.Linear(3, self.width // 2)

    host = Later()

    run_locally(host, Collaborator())

    assert isinstance(host.feature_model, nn.Linear)


def test_a_frozen_feature_model_keeps_its_bits_at_either_role() -> None:
    for host_learns, other_learns in [(True, False), (False, True), (False, False)]:
        host = Host(is_feature_trainable=host_learns)
        other = Collaborator(is_feature_trainable=other_learns)
        fresh_host, fresh_other = Host().make_feature_model(), Collaborator().make_feature_model()

        run_locally(host, other)

        assert same_bits(host.feature_model, fresh_host) is not host_learns
        assert same_bits(other.feature_model, fresh_other) is not other_learns


def test_a_frozen_model_keeps_its_batch_statistics_too() -> None:
    class Normalised(Collaborator):
        def make_feature_model(self) -> nn.Module:
            return nn.Sequential(nn.BatchNorm1d(3), super().make_feature_model())

    other = Normalised(is_feature_trainable=False)

    run_locally(Host(), other)

    assert other.feature_model.state_dict()["0.num_batches_tracked"] == 0


def test_a_party_without_parameters_takes_part() -> None:
    class Raw(Collaborator):
        def make_feature_model(self) -> nn.Module:
            return nn.Identity()

        def make_feature_optimizer(self, feature_model: nn.Module) -> Optimizer:
            raise NotImplementedError

    class WiderHost(Host):
        def make_infer_model(self) -> nn.Module:
            return nn.Linear(4 + 3, 3)

    run_locally(WiderHost(), Raw())


def test_models_train_in_training_mode_and_are_tested_in_evaluation_mode_without_gradients() -> None:
    class Watched(Host):
        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            seen.append(("train", self.feature_model.training, self.infer_model.training, torch.is_grad_enabled()))
            return super().train_a_batch(feature_projection, labels)

        def test(self, *args: Any) -> None:
            seen.append(("test", self.feature_model.training, self.infer_model.training, torch.is_grad_enabled()))

    seen: list[tuple[str, bool, bool, bool]] = []

    run_locally(Watched(max_rounds=1), Collaborator())

    assert set(seen) == {("train", True, True, True), ("test", False, False, False)}


def test_train_a_batch_gets_every_key_with_the_hosts_own_first() -> None:
    class Watched(Host):
        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            seen.add(tuple(feature_projection))
            assert feature_projection["c1"].is_leaf
            assert feature_projection["c1"].requires_grad
            assert all(each.shape == (len(labels), 4) for each in feature_projection.values())
            return super().train_a_batch(feature_projection, labels)

    seen: set[tuple[str, ...]] = set()

    run_locally(Watched(parties=3), Collaborator("c1", party=1), Collaborator("c2", party=2))

    assert seen == {("host", "c1", "c2")}


def test_only_the_people_that_all_parties_share_are_used() -> None:
    class Even(Host):
        def load_local_ids(self) -> list[str]:
            return [person(row) for row in range(0, 60, 2)]

    class Some(Collaborator):
        def load_local_ids(self) -> list[str]:
            return [person(row) for row in range(20, 90)]

    class Others(Collaborator):
        def load_local_ids(self) -> list[str]:
            return [person(row) for row in reversed(range(50))]

    host, some, others = Even(parties=3), Some("c1", party=1), Others("c2", party=2)

    run_locally(host, some, others)

    expected = [person(row) for row in range(20, 50, 2)]
    for party in (host, some, others):
        assert list(party.id_intersection) == expected
        assert party.train_ids == host.train_ids
        assert sorted([*party.train_ids, *party.test_ids]) == expected


def test_shuffling_gives_each_round_its_own_order_of_the_same_ids() -> None:
    host = Host(log_rounds=0, max_rounds=2, shuffle=True)
    still = Host(log_rounds=0, max_rounds=2, shuffle=False)

    run_locally(host, Collaborator())
    run_locally(still, Collaborator())

    batches = len(host.orders) // 2
    first, second = (flat(host.orders[part : part + batches]) for part in (0, batches))
    assert first != second
    assert sorted(first) == sorted(second) == host.train_ids
    assert flat(still.orders[:batches]) == still.train_ids


def test_parties_that_choose_their_own_batches_come_to_the_same_bits() -> None:
    own_host, own_other = OwnHost(), OwnCollaborator()
    host, other = Host(shuffle=False), Collaborator()

    run_locally(own_host, own_other)
    run_locally(host, other)

    assert same_bits(own_host.infer_model, host.infer_model)
    assert same_bits(own_host.feature_model, host.feature_model)
    assert same_bits(own_other.feature_model, other.feature_model)


def test_a_collaborator_may_choose_its_batches_where_the_host_follows_a_plan() -> None:
    run_locally(Host(shuffle=False), OwnCollaborator())


def test_an_unused_embedding_gets_a_zero_gradient_and_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Ignoring(Host):
        def make_infer_model(self) -> nn.Module:
            return nn.Linear(4, 3)

        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            return super().train_a_batch({"host": feature_projection["host"]}, labels)

    class Plain(Collaborator):
        def make_feature_optimizer(self, feature_model: nn.Module) -> Optimizer:
            return SGD(feature_model.parameters(), lr=0.1)

    other = Plain()

    run_locally(Ignoring(log_rounds=0), other)

    assert same_bits(other.feature_model, Plain().make_feature_model())
    warnings = [each for each in caplog.messages if "zero gradient" in each]
    assert len(warnings) == 1
    assert "c1" in warnings[0]


def test_metric_sets_can_be_declared_on_any_method_and_are_there_before_the_first_call(tmp_path: Path) -> None:
    class Measured(Host):
        @register_metrics(name="batches", keys=["rows"])
        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            self.get_metrics("batches").append_metrics_item({"rows": len(labels)})
            return super().train_a_batch(feature_projection, labels)

    host = Measured(out_dir=tmp_path / "h", max_rounds=1)
    assert len(host.get_metrics("batches")) == 0
    assert len(host.get_metrics("scores")) == 0

    run_locally(host, Collaborator())

    with (tmp_path / "h" / "batches.csv").open() as file:
        assert [int(row["rows"]) for row in csv.DictReader(file)] == [16, 16, 16]
    with (tmp_path / "h" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1
    assert 0 <= float(rows[0]["accuracy"]) <= 1


def test_an_unknown_metric_set_is_named_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"no metric set 'speed'; declared: scores\. Put @register_metrics"):
        Host().get_metrics("speed")


def test_push_log_shows_a_line_and_refuses_an_empty_one(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    with caplog.at_level("INFO", logger="heterofed"):
        host.push_log("half way")

    assert "half way" in caplog.messages
    with pytest.raises(ConfigError, match="push_log got an empty message"):
        host.push_log("")


def test_predict_a_batch_concatenates_by_default() -> None:
    host = Host()
    projection = {"host": torch.ones(2, 4), "c1": torch.zeros(2, 4)}

    out = host.predict_a_batch(projection)

    assert torch.equal(out, host.infer_model(torch.cat([torch.ones(2, 4), torch.zeros(2, 4)], dim=1)))


def test_the_collaborators_progress_shows_the_loss_unless_the_host_keeps_it() -> None:
    for share in (True, False):
        losses: list[float | None] = []

        class Watched(Collaborator):
            losses_seen = losses

            def load_batch(self, ids: list[str]) -> Any:
                if self._seat is not None:
                    self.losses_seen.append(self._seat.progress.now.loss)
                return super().load_batch(ids)

        run_locally(Host(share_loss=share, max_rounds=1, batch_size=8), Watched())

        assert any(each is not None for each in losses) is share


def flat(orders: list[list[str]]) -> list[str]:
    return [each for order in orders for each in order]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("checkpoints", ".in-use.lock"))

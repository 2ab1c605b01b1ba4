"""A run that was cut off goes on from its checkpoints to the bits it would have had, and says when it cannot."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import StepLR

from heterofed import (
    ConfigError,
    DataError,
    HeterofedError,
    PeerRefused,
    Settings,
    TaskAborted,
    register_metrics,
    run_locally,
)
from heterofed.tasks.directory import open_directory
from heterofed.tasks.model import TaskStatus
from heterofed.training.hooks import EarlyStopper, HookBase, LRScheduler, PeriodicCheckpointer
from tests.forked import Forked
from tests.own_batches import OwnCollaborator, OwnHost
from tests.tiny import Collaborator, Host, bottom, same_bits

BATCHES = 3


pytestmark = pytest.mark.usefixtures("quick_and_exact")


def with_chance(model: nn.Module) -> nn.Module:
    return nn.Sequential(model, nn.Dropout(0.2))


def schedule(optimizer: Optimizer) -> StepLR:
    return StepLR(optimizer, 4, 0.5)


def scheduled(hooks: list[HookBase]) -> list[HookBase]:
    return [LRScheduler(schedule) if isinstance(each, LRScheduler) else each for each in hooks]


class ResumingHost(Host):
    """Has dropout, momentum, a schedule, and two tables: one filled batch by batch, one test by test."""

    def load_local_ids(self) -> list[str]:
        torch.rand(1)  # nothing that a party draws before its first round may change what comes then
        return super().load_local_ids()

    def make_feature_model(self) -> nn.Module:
        return with_chance(super().make_feature_model())

    def make_infer_optimizer(self, infer_model: nn.Module) -> Optimizer:
        return Adam(infer_model.parameters(), lr=0.01)

    def build_hooks(self) -> list[HookBase]:
        return scheduled(super().build_hooks())

    @register_metrics(name="batches", keys=["round", "loss"])
    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
        loss = super().train_a_batch(feature_projection, labels)
        self.get_metrics("batches").append_metrics_item({"round": self.current_round, "loss": loss})
        return loss


class ResumingCollaborator(Collaborator):
    """Has dropout, momentum and a schedule."""

    def load_local_ids(self) -> list[str]:
        torch.rand(1)
        return super().load_local_ids()

    def make_feature_model(self) -> nn.Module:
        return with_chance(super().make_feature_model())

    def build_hooks(self) -> list[HookBase]:
        return scheduled(super().build_hooks())


class ResumingOwnHost(OwnHost):
    def make_feature_model(self) -> nn.Module:
        return with_chance(super().make_feature_model())


class ResumingOwnCollaborator(OwnCollaborator):
    def make_feature_model(self) -> nn.Module:
        return with_chance(super().make_feature_model())


Doors = Literal["load_batch", "iterate"]
CLASSES: dict[str, tuple[type[Any], type[Any]]] = {
    "load_batch": (ResumingHost, ResumingCollaborator),
    "iterate": (ResumingOwnHost, ResumingOwnCollaborator),
}


def parties_in(folder: Path, *, doors: str = "load_batch", collaborators: int = 1, **of_host: Any) -> list[Any]:
    """Return fresh parties whose results go to folder/<feature key>."""
    host, other = CLASSES[doors]
    return [
        host(parties=collaborators + 1, out_dir=folder / "host", **of_host),
        *(other(f"c{n}", party=n, out_dir=folder / f"c{n}") for n in range(1, collaborators + 1)),
    ]


class Cut(Exception):
    """What stops a run."""


def stop_at(party: Any, round_: int, trigger: str = "on_round_start") -> None:
    """Let a hook of a party raise in a round."""

    def cut(ctx: Any) -> None:
        if ctx.trainer.current_round == round_:
            raise Cut

    party.trainer.register_hook_in_train(cut, trigger)


def run_until(parties: list[Any], round_: int, culprit: str = "host", **how: Any) -> None:
    """Run a task that breaks off when a round begins."""
    stop_at(next(each for each in parties if each.feature_key == culprit), round_)
    with pytest.raises(HeterofedError, match="raised Cut"):
        run_locally(*parties, **how)


def state_of(party: Any) -> dict[str, Any]:
    return {
        **{name: model.state_dict() for name, model in party.trainer.models.items()},
        **{f"{name}'s optimizer": each.state_dict() for name, each in party.trainer.optimizers.items()},
    }


def same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return torch.equal(left, right) if isinstance(left, Tensor) else bool(left == right)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "metrics.json").read_text().splitlines()]


def of_the_clock(name: str) -> bool:
    return name in ("time", "data_time") or name.endswith(("_s", "seconds")) or "wait_s/" in name or "bytes" in name


def measured(folder: Path) -> list[dict[str, Any]]:
    """Return what metrics.json says at the end of each round, but for what a clock measures."""
    ends = [line for line in lines(folder) if "round/loss" in line]
    return [{name: value for name, value in line.items() if not of_the_clock(name)} for line in ends]


# --- the same bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("culprit", "collaborators", "transport", "doors"),
    [
        ("host", 1, "memory", "load_batch"),
        ("c1", 2, "memory", "load_batch"),
        ("host", 2, "zeromq", "load_batch"),
        ("c1", 1, "memory", "iterate"),
    ],
)
def test_a_resumed_run_has_the_bits_tables_and_measurements_of_one_that_was_not_cut_off(
    tmp_path: Path, culprit: str, collaborators: int, transport: Literal["memory", "zeromq"], doors: str
) -> None:
    how: dict[str, Any] = {"doors": doors, "collaborators": collaborators, "log_rounds": 2}
    at_once = parties_in(tmp_path / "at once", max_rounds=5, **how)
    run_locally(*at_once, seed=1, transport=transport)

    run_until(parties_in(tmp_path / "cut", max_rounds=5, **how), 4, culprit, seed=1, transport=transport)
    # Other seeds: of the parties' generators, and of the order in which the host shuffles.
    resumed = parties_in(tmp_path / "cut", max_rounds=5, seed=77, **how)
    run = run_locally(*resumed, seed=2, transport=transport, recover=True)

    assert run.host.rounds == 5
    assert resumed[0].seed == at_once[0].seed == 5
    for mine, expected in zip(resumed, at_once, strict=True):
        assert mine.trainer.start_iter == 3 * BATCHES
        assert same(state_of(mine), state_of(expected))
        key = mine.feature_key
        for table in [*(tmp_path / "at once" / key).glob("*.csv")]:
            assert (tmp_path / "cut" / key / table.name).read_text() == table.read_text()
        iterations = [line["iteration"] for line in lines(tmp_path / "cut" / key)]
        assert iterations == sorted(set(iterations))
        ends = measured(tmp_path / "cut" / key)
        assert [line["round"] for line in ends] == [1, 2, 3, 4, 5]
        assert ends == measured(tmp_path / "at once" / key)
        assert mine.storage.samples == expected.storage.samples == 5 * 48


def test_the_bits_of_a_resumed_run_depend_on_what_was_resumed(tmp_path: Path) -> None:
    """The other seeds above would tell, if nothing were restored."""
    first, second = parties_in(tmp_path / "a", max_rounds=1), parties_in(tmp_path / "b", max_rounds=1, seed=77)

    run_locally(*first, seed=1)
    run_locally(*second, seed=2)

    assert not same_bits(first[1].feature_model, second[1].feature_model)


def test_what_a_cut_off_round_wrote_is_gone_when_it_is_run_again(tmp_path: Path) -> None:
    cut = parties_in(tmp_path, max_rounds=3)
    stop_at(cut[1], 2, "on_batch_end")
    with pytest.raises(HeterofedError, match="raised Cut"):
        run_locally(*cut)
    assert len((tmp_path / "host" / "batches.csv").read_text().splitlines()) > 1 + BATCHES

    run_locally(*parties_in(tmp_path, max_rounds=3), recover=True)

    rounds = [line.split(",")[0] for line in (tmp_path / "host" / "batches.csv").read_text().splitlines()[1:]]
    assert rounds == ["1"] * BATCHES + ["2"] * BATCHES + ["3"] * BATCHES
    assert [line["round"] for line in lines(tmp_path / "host") if "round/loss" in line] == [1, 2, 3]


def test_a_run_may_be_cut_off_and_resumed_again_and_again(tmp_path: Path) -> None:
    at_once = parties_in(tmp_path / "at once", max_rounds=4)
    run_locally(*at_once, seed=1)

    run_until(parties_in(tmp_path / "cut", max_rounds=4), 2, "host", seed=1)
    run_until(parties_in(tmp_path / "cut", max_rounds=4), 3, "c1", seed=2, recover=True)
    resumed = parties_in(tmp_path / "cut", max_rounds=4)
    run_locally(*resumed, seed=3, recover=True)

    assert all(same(state_of(mine), state_of(expected)) for mine, expected in zip(resumed, at_once, strict=True))


def test_schedules_go_on_where_they_were(tmp_path: Path) -> None:
    run_until(parties_in(tmp_path, max_rounds=4), 3)
    resumed = parties_in(tmp_path, max_rounds=4)
    rates: dict[str, list[float]] = {"host": [], "c1": []}
    for party in resumed:
        told = rates[party.feature_key]
        party.trainer.register_hook_in_train(
            lambda ctx, told=told: told.append(ctx.optimizer.param_groups[0]["lr"]), "on_optimizer_step"
        )

    run_locally(*resumed, recover=True)

    expected = [0.1 * 0.5 ** (number // 4) for number in range(2 * BATCHES, 4 * BATCHES)]
    assert rates["host"] == pytest.approx(expected)
    assert rates["c1"] == pytest.approx(expected)


# --- hooks that remember ----------------------------------------------------------------------------------------------


class ToldHost(ResumingHost):
    """Its test reports numbers that are given to it, round by round."""

    accuracies: ClassVar[list[float]] = [0.1, 0.5, 0.3, 0.2, 0.1, 0.1]

    def test(self, batched_feature_projections: Any, batched_labels: Any) -> None:
        row = {"loss": 1.0, "accuracy": self.accuracies[self.current_round - 1]}
        self.get_metrics("scores").append_metrics_item(row)


def told_parties(folder: Path, patience: int = 3, **of_host: Any) -> list[Any]:
    of_host.setdefault("max_rounds", 6)
    host = ToldHost(out_dir=folder / "host", best_metric="scores/accuracy", **of_host)
    host.trainer.register_hooks([EarlyStopper("scores/accuracy", patience, larger_is_better=True)])
    return [host, ResumingCollaborator(out_dir=folder / "c1")]


def test_an_early_stopper_counts_on_where_it_was(tmp_path: Path) -> None:
    run_until(told_parties(tmp_path), 5)

    run = run_locally(*told_parties(tmp_path), recover=True)

    assert run.host.rounds == run.parties["c1"].rounds == 5  # the best was round 2, and three were no better


def test_the_best_checkpoint_and_its_value_survive(tmp_path: Path) -> None:
    run_until(told_parties(tmp_path), 4)
    before = best_of(tmp_path)

    resumed = told_parties(tmp_path)
    run_locally(*resumed, recover=True)

    assert before == best_of(tmp_path) == {"host": 2 * BATCHES, "c1": 2 * BATCHES}
    assert resumed[0].trainer.hooks["BestCheckpointer"].best == 0.5
    assert resumed[0].trainer.hooks["BestCheckpointer"].best_iteration == 2 * BATCHES - 1


def best_of(folder: Path) -> dict[str, int]:
    """Return how many batches were done when each party wrote its best checkpoint."""
    paths = {key: folder / key / "checkpoints" / "model_best" / "trainer.pt" for key in ("host", "c1")}
    return {key: int(torch.load(path, weights_only=True)["iter"]) for key, path in paths.items()}


@pytest.mark.parametrize("end", ["max_rounds", "early stopper", "is_task_finished"])
def test_a_run_that_broke_off_after_its_last_round_is_completed_without_another_one(tmp_path: Path, end: str) -> None:
    class UntilTheSecond(ToldHost):
        def is_task_finished(self) -> bool:
            return self.current_round == 2

    def parties() -> list[Any]:
        if end == "max_rounds":
            return parties_in(tmp_path, max_rounds=2)
        if end == "early stopper":
            return told_parties(tmp_path, patience=1)
        return [
            UntilTheSecond(max_rounds=None, out_dir=tmp_path / "host"),
            ResumingCollaborator(out_dir=tmp_path / "c1"),
        ]

    rounds = 3 if end == "early stopper" else 2
    cut = parties()
    stop_at(cut[0], rounds, "after_train")
    with pytest.raises(HeterofedError, match="the hook cut at after_train raised Cut"):
        run_locally(*cut, seed=1)
    resumed = parties()
    run = run_locally(*resumed, seed=2, recover=True)

    assert run.host.rounds == run.parties["c1"].rounds == rounds
    assert all(same(state_of(mine), state_of(before)) for mine, before in zip(resumed, cut, strict=True))
    for key in ("host", "c1"):
        assert (tmp_path / key / "checkpoints" / "last_checkpoint").read_text() == "model_final"


# --- what cannot be resumed -------------------------------------------------------------------------------------------


def texts_of(*parties: Any, **how: Any) -> tuple[HeterofedError, dict[str, BaseException]]:
    """Run a task that fails; return what `run_locally` raised and each party's error."""
    ends: dict[str, BaseException] = {}
    for party in parties:
        original = party.take_part

        def take_part(*seat: Any, original: Any = original, key: str = party.feature_key, **more: Any) -> Any:
            try:
                return original(*seat, **more)
            except BaseException as error:
                ends[key] = error
                raise

        party.take_part = take_part
    with pytest.raises(HeterofedError) as caught:
        run_locally(*parties, **how)
    assert set(ends) == {party.feature_key for party in parties}
    return caught.value, ends


@pytest.mark.parametrize("behind", ["host", "c1"])
def test_parties_at_different_rounds_go_on_from_the_newest_that_all_hold(
    tmp_path: Path, behind: str, caplog: pytest.LogCaptureFixture
) -> None:
    at_once = parties_in(tmp_path / "at once", max_rounds=4)
    run_locally(*at_once, seed=1)
    run_until(parties_in(tmp_path / "cut", max_rounds=4), 3, seed=1)
    shutil.rmtree(tmp_path / "cut" / behind / "checkpoints" / "model_0000005")
    resumed = parties_in(tmp_path / "cut", max_rounds=4)

    run_locally(*resumed, seed=2, recover=True)

    assert [each.trainer.start_iter for each in resumed] == [BATCHES, BATCHES]
    assert all(same(state_of(mine), state_of(expected)) for mine, expected in zip(resumed, at_once, strict=True))
    ahead = "c1" if behind == "host" else "host"
    told = [each for each in caplog.messages if "goes back from batch" in each]
    assert told == [f"{ahead} goes back from batch 6 to 3, the newest point that every party holds"]


def test_parties_that_hold_no_round_in_common_are_told_who_holds_what(tmp_path: Path) -> None:
    run_until(parties_in(tmp_path, max_rounds=4), 4)
    shutil.rmtree(tmp_path / "host" / "checkpoints" / "model_0000005")
    shutil.rmtree(tmp_path / "c1" / "checkpoints" / "model_0000008")

    error, ends = texts_of(*parties_in(tmp_path, max_rounds=4), recover=True)

    assert error is ends["c1"]
    assert isinstance(error, PeerRefused)
    assert re.search(
        r"turned this party away: the task goes on after batch 9 of run \w{6}, and it can go on after batch 6 of run "
        r"\w{6}\. Restore its results folder \(out_dir\), or stop all parties to begin anew",
        str(error),
    )


def test_a_party_without_any_checkpoint_cannot_join_one_that_has_some(tmp_path: Path) -> None:
    run_until(parties_in(tmp_path, max_rounds=4), 3)
    host, other = parties_in(tmp_path, max_rounds=4)
    other.out_dir = tmp_path / "new"

    began = time.monotonic()
    error, ends = texts_of(host, other, recover=True)

    assert error is ends["c1"]
    assert isinstance(error, PeerRefused)
    assert "the task goes on after batch 3 or batch 6 of run " in str(error)
    assert "and it can go on from the start. Restore its results folder (out_dir), or stop all" in str(error)
    assert isinstance(ends["host"], TaskAborted)
    assert time.monotonic() - began < 10, "in one process nobody comes again, so nobody is waited for"


def test_a_host_without_any_checkpoint_cannot_lead_those_that_have_some(tmp_path: Path) -> None:
    run_until(parties_in(tmp_path, max_rounds=4), 3)
    host, other = parties_in(tmp_path, max_rounds=4)
    host.out_dir = tmp_path / "new"

    error, ends = texts_of(host, other, recover=True)

    assert isinstance(error, ConfigError)
    assert "no checkpoint in common: host can go on from the start; c1 can go on after batch 3 or batch 6" in str(error)
    assert isinstance(ends["c1"], TaskAborted)
    assert "Restore the results folder of the party that lacks it, or begin anew" in str(ends["c1"])


@pytest.mark.parametrize(
    ("given", "text"),
    [({"batch_size": 8}, "batch_size is 8; expected 16"), ({"shuffle": False}, "shuffle is False; expected True")],
)
def test_a_run_is_not_resumed_with_other_batches(tmp_path: Path, given: dict[str, Any], text: str) -> None:
    run_until(parties_in(tmp_path, max_rounds=4), 3)
    host, other = parties_in(tmp_path, max_rounds=4, **given)

    error, ends = texts_of(host, other, recover=True)

    assert isinstance(error, ConfigError)
    assert f"{text}, with which the run began that is to be resumed" in str(error)
    assert isinstance(ends["c1"], TaskAborted)
    assert same_bits(host.feature_model, with_chance(bottom(0)))


@pytest.mark.parametrize("rounds", [2, 4])
def test_a_run_that_was_complete_may_go_on_to_more_rounds(tmp_path: Path, rounds: int) -> None:
    at_once = parties_in(tmp_path / "at once", max_rounds=rounds)
    run_locally(*at_once, seed=1)
    run_locally(*parties_in(tmp_path / "twice", max_rounds=2), seed=1)
    resumed = parties_in(tmp_path / "twice", max_rounds=rounds)

    run = run_locally(*resumed, seed=2, recover=True)

    assert run.host.rounds == run.parties["c1"].rounds == rounds
    assert all(same(state_of(mine), state_of(expected)) for mine, expected in zip(resumed, at_once, strict=True))
    assert measured(tmp_path / "twice" / "host") == measured(tmp_path / "at once" / "host")
    for key in ("host", "c1"):
        assert (tmp_path / "twice" / key / "checkpoints" / "last_checkpoint").read_text() == "model_final"


@pytest.mark.parametrize("torn", ["model", "trainer", "optimizer", "rng"])
@pytest.mark.parametrize("culprit", ["host", "c1"])
def test_a_torn_checkpoint_is_passed_over_and_all_go_on_from_the_one_before(
    tmp_path: Path, culprit: str, torn: str, caplog: pytest.LogCaptureFixture
) -> None:
    at_once = parties_in(tmp_path / "at once", max_rounds=3)
    run_locally(*at_once, seed=1)
    run_until(parties_in(tmp_path / "cut", max_rounds=3), 3, seed=1)
    path = tmp_path / "cut" / culprit / "checkpoints" / "model_0000005" / f"{torn}.pt"
    path.write_bytes(path.read_bytes()[:-100])
    resumed = parties_in(tmp_path / "cut", max_rounds=3)

    run_locally(*resumed, seed=2, recover=True)

    assert [each.trainer.start_iter for each in resumed] == [BATCHES, BATCHES]
    assert all(same(state_of(mine), state_of(expected)) for mine, expected in zip(resumed, at_once, strict=True))
    assert sum(f"{torn}.pt cannot be read" in each for each in caplog.messages) == 1


def test_where_no_checkpoint_of_a_party_can_be_read_nothing_changes(tmp_path: Path) -> None:
    run_until(parties_in(tmp_path, max_rounds=4), 3)
    for path in (tmp_path / "c1" / "checkpoints").glob("model_000*/model.pt"):
        path.write_bytes(path.read_bytes()[:-100])
    files = contents(tmp_path / "c1")
    parties = parties_in(tmp_path, max_rounds=4)
    fresh = [state_of(each) for each in parties_in(tmp_path, max_rounds=4)]

    _, ends = texts_of(*parties, recover=True)

    assert isinstance(ends["c1"], PeerRefused)
    assert all(same(state_of(mine), other) for mine, other in zip(parties, fresh, strict=True))
    assert contents(tmp_path / "c1") == files


@pytest.mark.parametrize("lost", ["told", "packers", "tables"])
def test_a_checkpoint_without_a_part_of_its_state_is_refused_and_nothing_is_loaded(tmp_path: Path, lost: str) -> None:
    run_until(parties_in(tmp_path, max_rounds=3), 3)
    path = tmp_path / "c1" / "checkpoints" / "model_0000005" / "trainer.pt"
    state = torch.load(path, weights_only=True)
    del state["own"][lost]
    torch.save(state, path)
    parties = parties_in(tmp_path, max_rounds=3)
    fresh = parties_in(tmp_path, max_rounds=3)[1].feature_model.state_dict()

    error, _ = texts_of(*parties, recover=True)

    assert isinstance(error, DataError)
    assert f"trainer.pt does not fit: it has no '{lost}'; expected the state of this run's trainer" in str(error)
    assert same(parties[1].feature_model.state_dict(), fresh)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("culprit", ["host", "c1"])
def test_a_checkpoint_inside_a_round_from_which_no_run_can_go_on_is_refused(tmp_path: Path, culprit: str) -> None:
    parties = parties_in(tmp_path)
    party = parties[culprit == "c1"]
    party.trainer.remove_hook("PeriodicCheckpointer")
    party.trainer.register_hooks([PeriodicCheckpointer(2, every="batch")])

    error, _ = texts_of(*parties)

    assert isinstance(error, ConfigError)
    assert str(error).startswith(f"{culprit}, while training")
    assert "a party cannot go on from a checkpoint inside a round; expected checkpoints at the ends of" in str(error)


def test_without_any_checkpoint_a_recovering_run_begins_anew_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recovering, plain = parties_in(tmp_path / "a"), parties_in(tmp_path / "b")

    with caplog.at_level("INFO", logger="heterofed"):
        run_locally(*recovering, seed=1, recover=True)
        run_locally(*plain, seed=1)

    for key in ("host", "c1"):
        assert recovering[key == "c1"].trainer.start_iter == 0
    assert caplog.messages.count("host begins with the first round") == 1
    assert all(same(state_of(mine), state_of(other)) for mine, other in zip(recovering, plain, strict=True))


def test_a_resumed_party_says_where_it_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_until(parties_in(tmp_path, max_rounds=3), 3)

    with caplog.at_level("INFO", logger="heterofed"):
        run_locally(*parties_in(tmp_path, max_rounds=3), recover=True)

    for key in ("host", "c1"):
        assert f"{key} goes on after round 2 (checkpoint model_0000005)" in caplog.messages


def test_without_recovery_a_run_begins_anew_in_the_same_folder(tmp_path: Path) -> None:
    run_until(parties_in(tmp_path / "cut", max_rounds=3), 3, seed=1)
    again, plain = parties_in(tmp_path / "cut", max_rounds=2), parties_in(tmp_path / "new", max_rounds=2)

    run_locally(*again, seed=1)
    run_locally(*plain, seed=1)

    assert all(same(state_of(mine), state_of(other)) for mine, other in zip(again, plain, strict=True))
    assert [line["round"] for line in lines(tmp_path / "cut" / "host") if "round/loss" in line] == [1, 2]


# --- processes --------------------------------------------------------------------------------------------------------

DIES = """
import os, signal
from heterofed.training.registries import register_hook

@register_hook("dies")
def dies(trainer):
    def die(ctx):
        if trainer.current_round == 3 and ctx.cur_batch_i == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    trainer.register_hook_in_train(die, "on_batch_start")
"""

PARTY = Path(__file__).resolve().parents[1] / "party.py"


def start(what: str, task_id: str, folder: Path, *more: str, **environment: str) -> Forked:
    words = [f"out_dir={str(folder / what)!r}", *(["max_rounds=4"] if what == "host" else []), *more]
    return Forked(PARTY, [what, task_id, *words], {**os.environ, "OMP_NUM_THREADS": "1", **environment})


@pytest.mark.processes
@pytest.mark.timeout(180)
def test_two_processes_that_were_killed_in_a_round_are_launched_again_and_come_to_the_same_bits(tmp_path: Path) -> None:
    directory = open_directory(Settings.from_env())
    task_id = directory.store.create("tiny", ["host", "c1"]).id
    plugin = tmp_path / "dies.py"
    plugin.write_text(DIES)
    processes: list[Forked] = []
    try:
        host = start("host", task_id, tmp_path, HETEROFED_PLUGINS=str(plugin), HETEROFED_HOOKS="dies")
        other = start("collaborator", task_id, tmp_path, HETEROFED_REJOIN_TIMEOUT_S="30")
        processes += [host, other]
        assert host.wait(60) == -signal.SIGKILL
        other.send_signal(signal.SIGKILL)
        assert other.wait(20) == -signal.SIGKILL
        for party in ("host", "collaborator"):
            assert (tmp_path / party / "checkpoints" / "last_checkpoint").read_text() == "model_0000005"

        again = [start(party, task_id, tmp_path, "recover") for party in ("host", "collaborator")]
        processes += again
        for each in again:
            output, _ = each.communicate(timeout=60)
            assert each.returncode == 0, output
    finally:
        for each in processes:
            each.kill()
            each.wait()

    reference = Host(max_rounds=4), Collaborator()
    run_locally(*reference)
    for path, model in [
        (tmp_path / "host" / "feature_model_host.pt", reference[0].feature_model),
        (tmp_path / "host" / "infer_model.pt", reference[0].infer_model),
        (tmp_path / "collaborator" / "feature_model_c1.pt", reference[1].feature_model),
    ]:
        state = torch.load(path, weights_only=True)
        assert all(torch.equal(state[name], each) for name, each in model.state_dict().items())
    assert directory.find(task_id).status is TaskStatus.COMPLETED
    assert [line["round"] for line in lines(tmp_path / "host") if "round/loss" in line] == [1, 2, 3, 4]


def test_a_checkpoint_holds_plain_numbers_and_tensors_only(tmp_path: Path) -> None:
    began = time.time()
    run_until(parties_in(tmp_path, max_rounds=4), 3)

    for key in ("host", "c1"):
        files = sorted((tmp_path / key / "checkpoints" / "model_0000005").iterdir())
        assert [each.name for each in files] == ["lr_scheduler.pt", "model.pt", "optimizer.pt", "rng.pt", "trainer.pt"]
        assert all(isinstance(torch.load(each, weights_only=True), dict) for each in files)
        assert all(each.stat().st_mtime >= began - 2 for each in files)


def test_a_model_that_needs_an_optimizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    class Other(ResumingCollaborator):
        def make_feature_optimizer(self, feature_model: nn.Module) -> Optimizer:
            return Adam(feature_model.parameters(), lr=0.1)

    run_until(parties_in(tmp_path, max_rounds=4), 3)
    host, _ = parties_in(tmp_path, max_rounds=4)

    error, _ = texts_of(host, Other(out_dir=tmp_path / "c1"), recover=True)

    assert isinstance(error, DataError)
    assert "optimizer.pt does not fit" in str(error)
    assert SGD.__name__ not in str(error)

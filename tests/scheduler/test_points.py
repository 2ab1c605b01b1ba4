"""Checkpoints in the middle of rounds: when there are some, how many stay, and the bits of a run that goes on there."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from heterofed import ConfigError, HeterofedError, HookBase, run_locally
from heterofed.frames.messages import BatchPlan, Gradient, Proceed
from heterofed.scheduler.link import Link
from heterofed.scheduler.recovery import START_NAME
from heterofed.training.checkpoint import Checkpointer
from tests.own_batches import OwnCollaborator, OwnHost
from tests.scheduler.test_resume import BATCHES, Cut, lines, measured, parties_in, same, state_of
from tests.tiny import Collaborator, Host

pytestmark = pytest.mark.usefixtures("quick_and_exact")

SMALL: dict[str, Any] = {"batch_size": 8}
"""Six batches a round."""


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))


class Watching:
    """Notes every checkpoint that a party keeps, and those that are there then."""

    kept: ClassVar[dict[str, list[tuple[str, list[str]]]]]

    @pytest.fixture(autouse=True)
    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        save = Checkpointer.save
        kept: dict[str, list[tuple[str, list[str]]]] = {}
        type(self).kept = kept

        def saving(checkpointer: Any, name: str, *, tag: bool = True) -> Path:
            path = save(checkpointer, name, tag=tag)
            kept.setdefault(checkpointer.folder.parent.name, []).append((name, names(checkpointer.folder)))
            return path

        monkeypatch.setattr(Checkpointer, "save", saving)

    def points(self, key: str) -> list[str]:
        return [name for name, _ in self.kept[key]]


class TestWhen(Watching):
    """Which checkpoints there are."""

    @pytest.mark.parametrize(
        ("every", "batches"),
        [
            (None, [6, 12]),
            (1, [*range(1, 13)]),
            (2, [2, 4, 6, 8, 10, 12]),
            (4, [4, 6, 8, 12]),
            (5, [5, 6, 10, 12]),
            (100, [6, 12]),
        ],
    )
    @pytest.mark.parametrize("frozen", [False, True], ids=["learning", "frozen"])
    def test_every_party_keeps_one_after_every_so_many_batches_of_the_run_and_after_each_round(
        self, tmp_path: Path, every: int | None, batches: list[int], frozen: bool
    ) -> None:
        host = Host(parties=3, out_dir=tmp_path / "host", checkpoint_every=every, **SMALL)
        others = [
            Collaborator(f"c{n}", party=n, out_dir=tmp_path / f"c{n}", is_feature_trainable=not frozen) for n in (1, 2)
        ]

        run_locally(host, *others)

        expected = [START_NAME, *(f"model_{each - 1:07d}" for each in batches), "model_final"]
        assert {key: self.points(key) for key in ("host", "c1", "c2")} == dict.fromkeys(("host", "c1", "c2"), expected)

    @pytest.mark.parametrize("keep", [2, 3])
    def test_the_newest_ones_stay_and_the_start_goes_when_there_are_enough_others(
        self, tmp_path: Path, keep: int
    ) -> None:
        host = Host(out_dir=tmp_path / "host", checkpoint_every=2, max_to_keep=keep, **SMALL)
        run_locally(host, Collaborator(out_dir=tmp_path / "c1", max_to_keep=keep))

        for key in ("host", "c1"):
            assert self.kept[key][0][1] == [START_NAME]
            for number, (_, there) in enumerate(self.kept[key][1:-1], 1):
                numbered = [each for each in there if each != START_NAME]
                assert len(numbered) >= min(number, keep)
                assert (START_NAME in there) == (number <= keep)
            last = [f"model_{each - 1:07d}" for each in range(14 - 2 * keep, 13, 2)]
            assert names(tmp_path / key / "checkpoints") == sorted([*last, "model_final"])

    def test_by_time_all_parties_keep_the_same_ones(self, tmp_path: Path) -> None:
        class Slow(Host):
            def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
                time.sleep(0.05)
                return super().train_a_batch(feature_projection, labels)

        host = Slow(out_dir=tmp_path / "host", checkpoint_every_s=0.12, max_rounds=1, **SMALL)
        run_locally(host, Collaborator(out_dir=tmp_path / "c1"))

        points = self.points("host")
        assert points == self.points("c1")
        assert 1 <= len(points) - len([START_NAME, "model_0000005", "model_final"]) <= 3

    def test_the_time_counts_from_the_checkpoint_before(self, tmp_path: Path) -> None:
        host = Host(out_dir=tmp_path / "host", checkpoint_every_s=3600, **SMALL)
        run_locally(host, Collaborator(out_dir=tmp_path / "c1"))

        assert self.points("c1") == [START_NAME, "model_0000005", "model_0000011", "model_final"]

    def test_where_one_collaborator_chooses_its_batches_there_is_none_in_a_round_and_the_host_says_so(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        host = Host(parties=3, out_dir=tmp_path / "host", checkpoint_every=1, shuffle=False, batch_size=16)
        run_locally(
            host,
            Collaborator(out_dir=tmp_path / "c1"),
            OwnCollaborator("c2", party=2, out_dir=tmp_path / "c2"),
        )

        for key in ("host", "c1", "c2"):
            assert self.points(key) == [START_NAME, "model_0000002", "model_0000005", "model_final"]
        told = [each for each in caplog.messages if "checkpoints are kept only after rounds" in each]
        assert told == ["host: a collaborator chooses its own batches, so checkpoints are kept only after rounds"]


@pytest.mark.parametrize("wanted", [{"checkpoint_every": 2}, {"checkpoint_every_s": 5.0}])
def test_a_host_that_chooses_its_batches_cannot_have_checkpoints_in_a_round(wanted: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="checkpoints in the middle of rounds are wanted, but this party chooses its"):
        run_locally(OwnHost(**wanted), OwnCollaborator())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"checkpoint_every": 0}, "checkpoint_every is 0; expected a whole number, 1 or more, or None: only after"),
        ({"checkpoint_every": 2.5}, "checkpoint_every is 2.5"),
        ({"checkpoint_every_s": -1}, "checkpoint_every_s is -1"),
        ({"checkpoint_every_s": float("nan")}, "checkpoint_every_s is nan"),
        ({"max_to_keep": 1}, "max_to_keep is 1; expected a whole number, 2 or more"),
        ({"max_to_keep": None}, "max_to_keep is None"),
        ({"rejoin_timeout": -1}, "rejoin_timeout is -1; expected seconds, 0 or more"),
    ],
)
def test_arguments_that_cannot_work_are_refused_at_once(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Host(**arguments)


# --- what is said of them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True], ids=["learning", "frozen"])
def test_the_host_says_one_batch_ahead_after_which_ones_all_keep_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, frozen: bool
) -> None:
    said: list[tuple[int, int, bool | int | None]] = []
    send = Link.send

    def sending(self: Link, to: str, message: Any, timeout_s: float = 0.0) -> None:
        if isinstance(message, BatchPlan):
            said.append((message.round, -1, message.keep))
        elif isinstance(message, Gradient | Proceed):
            said.append((message.round, message.batch, message.keep))
        send(self, to, message, timeout_s)

    monkeypatch.setattr(Link, "send", sending)
    run_locally(Host(checkpoint_every=4, log_rounds=0, **SMALL), Collaborator(is_feature_trainable=not frozen))

    assert [(round_, batch) for round_, batch, keep in said if keep] == [(1, 2), (2, 0)]  # after batches 4 and 8
    assert [batch for _, batch, _ in said] == [*range(-1, 6)] * 2


def test_rows_are_not_drawn_ahead_of_a_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They may be drawn at random; a run that goes on from there would draw them again."""
    course: list[str] = []
    folder = tmp_path / "c1"

    class Noting(Collaborator):
        def load_batch(self, ids: list[str]) -> Any:
            course.append("load")
            return super().load_batch(ids)

    other = Noting(out_dir=folder)
    keep_point = other.trainer.keep_point

    def keeping() -> None:
        course.append("keep")
        keep_point()

    monkeypatch.setattr(other.trainer, "keep_point", keeping)
    run_locally(Host(checkpoint_every=3, max_rounds=1, log_rounds=0, out_dir=tmp_path / "host", **SMALL), other)

    assert course == ["load"] * 3 + ["keep"] + ["load"] * 3 + ["keep"]


# --- going on from them -----------------------------------------------------------------------------------------------


def cut_off(parties: list[Any], batch: int) -> None:
    """Run a task that breaks off, without a new checkpoint, when a batch of the run begins at the host."""

    def cut(ctx: Any) -> None:
        if ctx.trainer.iter == batch:
            raise Cut

    parties[0].trainer.register_hook_in_train(cut, "on_batch_start")
    with pytest.raises(HeterofedError, match="raised Cut"):
        run_locally(*parties, seed=1)


def drawing(parties: list[Any]) -> list[Any]:
    """Let all parties draw random numbers whenever they load rows."""
    for party in parties:
        load = party.load_batch

        def drawn(ids: list[str], load: Any = load) -> Any:
            loaded = load(ids)
            rows = loaded[0] if isinstance(loaded, tuple) else loaded
            noisy = rows + 0.01 * torch.randn(rows.shape)
            return (noisy, loaded[1]) if isinstance(loaded, tuple) else noisy

        party.load_batch = drawn
    return parties


@pytest.mark.parametrize(("batch", "point"), [(1, 0), (3, 2), (4, 4), (5, 4), (7, 6), (11, 10)])
def test_a_run_that_was_cut_off_in_a_round_goes_on_in_it_to_the_same_bits_tables_and_measurements(
    tmp_path: Path, batch: int, point: int
) -> None:
    """With dropout, momentum, schedules, shuffled rows, and random numbers drawn in load_batch and before rounds."""

    def parties(folder: str, **of_host: Any) -> list[Any]:
        made = drawing(
            parties_in(tmp_path / folder, collaborators=2, max_rounds=2, checkpoint_every=2, **SMALL, **of_host)
        )
        for party in made:
            party.trainer.register_hook_in_train(lambda ctx: torch.rand(1), "before_train")
        return made

    at_once = parties("at once")
    run_locally(*at_once, seed=1)
    cut_off(parties("cut"), batch)
    resumed = parties("cut", seed=77)
    loaded: list[int] = []
    resumed[1].trainer.register_hook_in_train(lambda ctx: loaded.append(ctx.trainer.iter), "on_batch_start")

    run = run_locally(*resumed, seed=2, recover=True)

    assert loaded == [*range(point, 12)]
    assert run.host.rounds == 2
    for mine, expected in zip(resumed, at_once, strict=True):
        key = mine.feature_key
        assert mine.trainer.start_iter == point
        assert same(state_of(mine), state_of(expected)), key
        for table in (tmp_path / "at once" / key).glob("*.csv"):
            assert (tmp_path / "cut" / key / table.name).read_text() == table.read_text()
        assert measured(tmp_path / "cut" / key) == measured(tmp_path / "at once" / key)
        iterations = [line["iteration"] for line in lines(tmp_path / "cut" / key)]
        assert iterations == sorted(set(iterations)), "no line is doubled"
        assert mine.storage.samples == expected.storage.samples == 2 * 48


def test_the_rounds_mean_loss_is_that_of_all_its_batches_though_it_was_cut_off_in_between(tmp_path: Path) -> None:
    at_once = parties_in(tmp_path / "a", max_rounds=1, checkpoint_every=1)
    run_locally(*at_once, seed=1)
    cut = parties_in(tmp_path / "b", max_rounds=1, checkpoint_every=1)
    cut_off(cut, BATCHES - 1)
    resumed = parties_in(tmp_path / "b", max_rounds=1, checkpoint_every=1)
    run_locally(*resumed, recover=True)

    for mine, expected in zip(resumed, at_once, strict=True):
        assert mine.trainer.round_loss.value == expected.trainer.round_loss.value
        assert mine.storage.history("round/loss").latest() == expected.storage.history("round/loss").latest()


def test_a_run_may_be_cut_off_at_every_batch(tmp_path: Path) -> None:
    at_once = parties_in(tmp_path / "at once", max_rounds=2, checkpoint_every=1)
    run_locally(*at_once, seed=1)
    for batch in range(1, 2 * BATCHES):
        parties = parties_in(tmp_path / "cut", max_rounds=2, checkpoint_every=1)

        def cut(ctx: Any, batch: int = batch) -> None:
            if ctx.trainer.iter == batch:
                raise Cut

        parties[batch % 2].trainer.register_hook_in_train(cut, "on_batch_start")
        with pytest.raises(HeterofedError, match="raised Cut"):
            run_locally(*parties, seed=1 if batch == 1 else 1 + batch, recover=True)
    resumed = parties_in(tmp_path / "cut", max_rounds=2, checkpoint_every=1)
    run_locally(*resumed, seed=77, recover=True)

    assert all(same(state_of(mine), state_of(other)) for mine, other in zip(resumed, at_once, strict=True))
    json_lines = [json.loads(each) for each in (tmp_path / "cut" / "host" / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in json_lines] == sorted({line["iteration"] for line in json_lines})


class DrawsBetweenRounds(HookBase):
    """Draws random numbers wherever a hook may before a round's first batch."""

    def before_round(self) -> None:
        torch.rand(1)

    def before_fit(self) -> None:
        torch.rand(2)


@pytest.mark.parametrize("where", ["before_round", "trainable_parties"])
def test_random_numbers_that_were_drawn_before_the_rounds_first_batch_are_not_drawn_twice(
    tmp_path: Path, where: str
) -> None:
    """Dropout and load_batch draw too: one number more, and all bits are others."""

    def parties(folder: str, **of_host: Any) -> list[Any]:
        made = drawing(parties_in(tmp_path / folder, max_rounds=2, checkpoint_every=2, **SMALL, **of_host))
        if where == "trainable_parties":

            def all_of_them() -> None:
                torch.rand(3)

            made[0].trainable_parties = all_of_them
        else:
            for each in made:
                each.trainer.register_hooks([DrawsBetweenRounds()])
        return made

    at_once = parties("at once")
    run_locally(*at_once, seed=1)
    cut_off(parties("cut"), 9)
    resumed = parties("cut", seed=77)
    run_locally(*resumed, seed=2, recover=True)

    for mine, expected in zip(resumed, at_once, strict=True):
        assert mine.trainer.start_iter == 8
        assert same(state_of(mine), state_of(expected)), mine.feature_key


def test_a_checkpoint_beyond_the_point_where_all_go_on_is_gone_at_once(tmp_path: Path) -> None:
    """It belongs to a course that was given up; the one that is run now may come there with other numbers."""

    def parties() -> list[Any]:
        return parties_in(tmp_path, max_rounds=2, checkpoint_every=2, **SMALL)

    cut_off(parties(), 7)
    shutil.rmtree(tmp_path / "c1" / "checkpoints" / "model_0000005")
    assert "model_0000005" in names(tmp_path / "host" / "checkpoints")
    again = parties()

    def cut(ctx: Any) -> None:
        if ctx.trainer.iter == 5:
            raise Cut

    again[0].trainer.register_hook_in_train(cut, "on_batch_start")
    with pytest.raises(HeterofedError, match="raised Cut"):
        run_locally(*again, recover=True)

    assert again[0].trainer.start_iter == 4
    for key in ("host", "c1"):
        numbered = [each for each in names(tmp_path / key / "checkpoints") if each != START_NAME]
        assert numbered[-1] == "model_0000003"


def test_a_time_of_zero_seconds_between_checkpoints_is_none(tmp_path: Path) -> None:
    run_locally(
        Host(out_dir=tmp_path / "host", checkpoint_every_s=0, max_rounds=1, max_to_keep=9, log_rounds=0, **SMALL),
        Collaborator(out_dir=tmp_path / "c1", max_to_keep=9),
    )

    for key in ("host", "c1"):
        assert names(tmp_path / key / "checkpoints") == ["model_0000005", "model_final", START_NAME]

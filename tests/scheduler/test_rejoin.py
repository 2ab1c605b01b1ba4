"""A party that is killed anywhere and started again joins the others, who go on; nobody can tell from the result."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch.nn.functional import cross_entropy

from heterofed import ConfigError, PeerRefused, TaskFailed
from heterofed.frames.messages import CheckIn
from heterofed.scheduler import base, checks
from heterofed.scheduler.link import Link
from heterofed.tasks.model import PartyStatus, TaskStatus
from heterofed.training.hooks import EarlyStopper, HookBase
from heterofed.training.stateful import read_state
from tests.scheduler.rejoining import Federation, Kill, Killed, PartyRecord, first_error, killed, run_with
from tests.scheduler.test_resume import (
    BATCHES,
    ResumingCollaborator,
    ResumingHost,
    ToldHost,
    best_of,
    lines,
    measured,
    same,
    state_of,
)
from tests.tiny import Collaborator, Host

pytestmark = [pytest.mark.usefixtures("quick_and_exact", "patient"), pytest.mark.timeout(120)]

KEYS = ("host", "c1", "c2")
ROUNDS = 3


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parties that are away are waited for."""
    monkeypatch.setenv("HETEROFED_REJOIN_TIMEOUT_S", "20")


class Drawing:
    """Draws random numbers for every batch, so that one which is loaded too early or twice is noticed."""

    def load_batch(self, ids: list[str]) -> Any:
        rows: Any = super().load_batch(ids)  # type: ignore[misc]  # a mix-in
        if isinstance(rows, tuple):
            return rows[0] + 0.01 * torch.randn(rows[0].shape), rows[1]
        return rows + 0.01 * torch.randn(rows.shape)


class DrawingHost(Drawing, ResumingHost): ...


class DrawingCollaborator(Drawing, ResumingCollaborator): ...


def maker(
    folder: Path, host: type[ResumingHost] = DrawingHost, frozen: str = "", **of_host: Any
) -> Callable[[str], Any]:
    of_host = {"checkpoint_every": 2, "max_rounds": ROUNDS, "parties": len(KEYS), **of_host}

    def make(key: str) -> Any:
        of_both: dict[str, Any] = {"out_dir": folder / key, "is_feature_trainable": key != frozen}
        if key == "host":
            return host(**of_both, **of_host)
        return DrawingCollaborator(key, party=int(key[1:]), **of_both)

    return make


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Federation, Path]:
    """A run in which nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HETEROFED_PSI_PROTOCOL", "ecdh")
        patch.setenv("HETEROFED_PROGRESS", "off")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        federation = Federation(maker(folder), KEYS)
        federation.run()
        torch.set_num_threads(threads)
    return federation, folder


def assert_nobody_can_tell(
    federation: Federation, folder: Path, undisturbed: tuple[Federation, Path], dead: frozenset[str] = frozenset()
) -> None:
    """Compare parameters, tables, measurements, records and files with a run in which nothing happened."""
    expected, there = undisturbed
    for key in KEYS:
        mine = federation.schedulers[key]
        assert same(state_of(mine), state_of(expected.schedulers[key])), f"{key} has other bits"
        for table in (there / key).glob("*.csv"):
            assert (folder / key / table.name).read_text() == table.read_text()
        iterations = [line["iteration"] for line in lines(folder / key)]
        assert iterations == sorted(set(iterations)), f"{key} wrote a line twice"
        assert measured(folder / key) == measured(there / key)
        names = [each.name for each in federation.results[key].files]
        assert sorted(names) == sorted(each.name for each in expected.results[key].files)
        assert federation.results[key].rounds == ROUNDS
        assert (folder / key / "checkpoints" / "last_checkpoint").read_text() == "model_final"
    assert federation.record.statuses[-1] is TaskStatus.COMPLETED
    assert federation.record.failed == {}
    for key in set(KEYS) - dead:
        assert federation.record.parties[key][-1] is PartyStatus.FINISHED


EARLY = [
    *(Kill("c1", message) for message in ("CheckIn", "PairingKey", "PsiPart", "Split")),
    *(Kill("host", message) for message in ("Welcome", "PairingKeys", "PsiPart", "Split")),
    Kill("c1", "CheckIn", after=True),
    Kill("c2", "Split", after=True),
    Kill("host", "Welcome", 1, after=True),
    Kill("host", "Split", 2, after=True),
]


@pytest.mark.parametrize("kill", EARLY, ids=str)
def test_one_killed_before_the_first_round_is_waited_for_and_all_match_again(
    tmp_path: Path, undisturbed: tuple[Federation, Path], kill: Kill
) -> None:
    """With nothing kept it begins anew, so only the same seed leads to the same bits."""
    federation = Federation(maker(tmp_path), KEYS, reseed=False)

    run_with(federation, kill)

    assert_nobody_can_tell(federation, tmp_path, undisturbed)


# The number of a message counts what the host says to its two collaborators: 6 gradients a round.
IN_ROUNDS = [
    Kill("c1", "RoundReady", 1),
    Kill("c1", "RoundReady", 2, after=True),
    Kill("c2", "Embedding", 1),
    Kill("c1", "Embedding", 2, after=True),
    Kill("c1", "Embedding", 3),
    Kill("c1", "Embedding", 6, after=True),
    Kill("c1", "BatchesEnd", 1),
    Kill("c1", "BatchesEnd", 2, after=True),
    Kill("c1", "RoundClosed", 1),
    Kill("c2", "RoundClosed", 3, after=True),
    Kill("c1", "Completed"),
    Kill("c1", "Completed", after=True),
    Kill("host", "BatchPlan", 1, after=True),
    Kill("host", "BatchPlan", 4),
    Kill("host", "Gradient", 1),
    Kill("host", "Gradient", 4, after=True),
    Kill("host", "Gradient", 9),
    Kill("host", "StartTest", 1, after=True),
    Kill("host", "Proceed", 2),
    Kill("host", "CloseRound", 1),
    Kill("host", "CloseRound", 1, after=True),
    Kill("host", "CloseRound", 6, after=True),
    Kill("host", "CompleteTask", 1),
    Kill("host", "CompleteTask", 2, after=True),
    Kill("host", "Dismissed", 1),
    Kill("host", "Dismissed", 2),
]


@pytest.mark.parametrize("kill", IN_ROUNDS, ids=str)
def test_one_killed_in_a_round_or_at_the_end_goes_on_with_the_others_to_the_same_bits(
    tmp_path: Path, undisturbed: tuple[Federation, Path], kill: Kill
) -> None:
    federation = Federation(maker(tmp_path), KEYS)

    run_with(federation, kill)

    assert_nobody_can_tell(federation, tmp_path, undisturbed, frozenset([kill.party]))
    assert federation.starts == {key: 1 + (key == kill.party) for key in KEYS}


@pytest.mark.parametrize(
    "kills",
    [
        [Kill("c1", "Embedding", 4), Kill("c1", "CheckIn", 1)],
        [Kill("c1", "Embedding", 4), Kill("c1", "Split", 1, after=True)],
        [Kill("c1", "Embedding", 4), Kill("host", "Welcome", 2)],
        [Kill("host", "Gradient", 8), Kill("c2", "CheckIn", 1, after=True)],
        [Kill("host", "Gradient", 8), Kill("host", "Split", 1)],
        [Kill("c1", "RoundClosed", 1), Kill("c2", "RoundClosed", 1), Kill("host", "CloseRound", 1)],
        [Kill("c1", "Embedding", 2), Kill("c1", "Embedding", 2), Kill("c1", "Embedding", 2)],
        [Kill("c1", "Completed"), Kill("host", "CompleteTask", 1, after=True), Kill("c2", "Completed")],
    ],
    ids=lambda kills: " then ".join(map(str, kills)),
)
def test_one_killed_while_the_parties_meet_again_is_waited_for_too(
    tmp_path: Path, undisturbed: tuple[Federation, Path], kills: list[Kill]
) -> None:
    federation = Federation(maker(tmp_path), KEYS)

    run_with(federation, *kills)

    assert_nobody_can_tell(federation, tmp_path, undisturbed, frozenset(each.party for each in kills))


class ToldDrawingHost(Drawing, ToldHost):
    """Its second round is the best one."""


class StoppingHost(Drawing, ToldHost):
    """Has a hook that ends the training after `ROUNDS`."""

    accuracies: ClassVar[list[float]] = [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]

    def build_hooks(self) -> list[HookBase]:
        return [*super().build_hooks(), EarlyStopper("scores/accuracy", ROUNDS - 1)]


class TurnsHost(DrawingHost):
    """Lets other parties learn in each round."""

    def trainable_parties(self) -> Collection[str] | None:
        return (("c1", "c2"), ("host", "c1"), ("c2",))[self.trainer.current_round - 1]


class OpenHost(DrawingHost):
    """Knows by its own tables when it is enough."""

    def is_task_finished(self) -> bool:
        return len(self.get_metrics("scores")) >= ROUNDS


SETUPS: dict[str, dict[str, Any]] = {
    "an early stopper": {"host": StoppingHost, "max_rounds": 2 * ROUNDS},
    "a best round": {"host": ToldDrawingHost, "best_metric": "scores/accuracy"},
    "other learners in each round": {"host": TurnsHost},
    "a frozen collaborator": {"frozen": "c1"},
    "checkpoints by time": {"checkpoint_every": None, "checkpoint_every_s": 0.001},
    "no known number of rounds": {"host": OpenHost, "max_rounds": None},
}


@pytest.mark.parametrize("how", SETUPS.values(), ids=SETUPS)
def test_what_a_run_remembers_besides_its_batches_goes_back_with_them(tmp_path: Path, how: dict[str, Any]) -> None:
    undisturbed = Federation(maker(tmp_path / "undisturbed", **how), KEYS)
    undisturbed.run()
    federation = Federation(maker(tmp_path / "killed", **how), KEYS)

    run_with(
        federation,
        Kill("c1", "Embedding", BATCHES + 2),
        Kill("host", "CloseRound", 1, after=True),
        Kill("c2", "RoundClosed", 1),
    )

    assert_nobody_can_tell(federation, tmp_path / "killed", (undisturbed, tmp_path / "undisturbed"), frozenset(KEYS))
    for best in (tmp_path / "undisturbed").glob("*/checkpoints/model_best/*.pt"):
        mine = tmp_path / "killed" / best.relative_to(tmp_path / "undisturbed")
        assert best.stem == "trainer" or same(read_state(mine), read_state(best))
    assert "best_metric" not in how or best_of(tmp_path / "killed") == {"host": 2 * BATCHES, "c1": 2 * BATCHES}


def test_those_who_were_not_killed_hear_why_they_go_back_and_where_they_go_on(tmp_path: Path) -> None:
    federation = Federation(maker(tmp_path), KEYS)

    run_with(federation, Kill("c1", "Embedding", 4))

    host, other = federation.said["host"], federation.said["c2"]
    assert "c1 was started again; all parties go on from where all of them can" in host
    assert "host opens a new session; all parties go on from where all of them can" in other
    assert sum(line == "the 60 shared ids are known from before" for line in host) == 1
    for told, key in ((host, "host"), (other, "c2"), (federation.said["c1"], "c1")):
        assert sum(line.startswith(f"{key} goes on after ") for line in told) == 1


def test_no_id_is_matched_a_second_time_by_parties_that_know_the_shared_ones(tmp_path: Path) -> None:
    federation = Federation(maker(tmp_path), KEYS)

    run_with(federation, Kill("c1", "Embedding", 4))

    for key in KEYS:
        assert sum(line.startswith("matching 60 ids") for line in federation.said[key]) == 1


def test_rounds_without_checkpoints_in_them_are_run_again_from_their_beginning(tmp_path: Path) -> None:
    plain = Federation(maker(tmp_path / "a", checkpoint_every=None), KEYS)
    plain.run()
    federation = Federation(maker(tmp_path / "b", checkpoint_every=None), KEYS)

    run_with(federation, Kill("c1", "Embedding", BATCHES + 2))

    assert all(same(state_of(federation.schedulers[key]), state_of(plain.schedulers[key])) for key in KEYS)
    assert federation.schedulers["c1"].trainer.start_iter == BATCHES


def test_a_run_that_is_begun_anew_by_all_keeps_a_start_of_its_own(
    tmp_path: Path, undisturbed: tuple[Federation, Path]
) -> None:
    """One lost its folder in the first batches, where that costs the others nothing; then another one is killed."""
    federation = Federation(maker(tmp_path), KEYS, reseed=False)
    start = federation.start

    def starting(key: str, *, recover: bool = False) -> None:
        if key == "c1" and federation.starts[key] == 1:
            shutil.rmtree(tmp_path / key)
        start(key, recover=recover)

    federation.start = starting  # type: ignore[method-assign]  # to lose the folder
    run_with(federation, Kill("c1", "Embedding", 1), Kill("c2", "Embedding", 2))

    assert_nobody_can_tell(federation, tmp_path, undisturbed, frozenset(["c1", "c2"]))
    assert sum(line.startswith("matching 60 ids") for line in federation.said["host"]) == 2


def test_gradients_of_a_batch_that_was_cut_off_are_forgotten(tmp_path: Path) -> None:
    """A party may zero them after its step, where that of the batch never came."""

    class Accumulating(ResumingHost):
        def train_a_batch(self, feature_projection: dict[str, Any], labels: Any) -> Any:
            loss = cross_entropy(self.infer_model(torch.cat(list(feature_projection.values()), dim=1)), labels)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            return loss

    def make(key: str) -> Any:
        folder = tmp_path / name / key
        if key == "host":
            return Accumulating(out_dir=folder, parties=3, max_rounds=ROUNDS, checkpoint_every=2)
        return ResumingCollaborator(key, party=int(key[1:]), out_dir=folder)

    name = "a"
    plain_run = Federation(make, KEYS)
    plain_run.run()
    name = "b"
    federation = Federation(make, KEYS)
    begin = Federation.start

    def starting(key: str, *, recover: bool = False) -> None:
        if federation.starts[key]:  # the others are in the middle of a batch
            for parameter in federation.schedulers["host"].infer_model.parameters():
                parameter.grad = torch.ones_like(parameter)
        begin(federation, key, recover=recover)

    federation.start = starting  # type: ignore[method-assign]  # to leave gradients behind
    run_with(federation, Kill("c1", "Embedding", 5))

    assert all(same(state_of(federation.schedulers[key]), state_of(plain_run.schedulers[key])) for key in KEYS)


# --- who cannot join --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mistake", ["another folder", "other ids"])
def test_one_that_cannot_go_on_is_turned_away_alone_and_let_in_when_it_can(
    tmp_path: Path, undisturbed: tuple[Federation, Path], mistake: str
) -> None:
    make = maker(tmp_path)
    attempts: list[str] = []
    errors: list[BaseException] = []

    def making(key: str) -> Any:
        party = make(key)
        attempts.append(key)
        if key == "c1" and attempts.count("c1") == 2:
            if mistake == "another folder":
                party.out_dir = tmp_path / "elsewhere"
            else:
                party.load_local_ids = lambda: ResumingCollaborator.load_local_ids(party)[:-20]
        return party

    federation = Federation(making, KEYS)
    start = federation.start

    def starting(key: str, *, recover: bool = False) -> None:
        start(key, recover=recover)
        if key == "c1" and federation.starts[key] == 2:
            federation.await_end(key)
            errors.append(federation.errors.pop(key))
            start(key, recover=True)

    federation.start = starting  # type: ignore[method-assign]  # the second attempt is a person's mistake
    run_with(federation, Kill("c1", "Embedding", 6))

    assert isinstance(errors[0], PeerRefused)
    assert "turned this party away: the task goes on after batch " in str(errors[0])
    assert "Restore its results folder (out_dir), or stop all parties to begin anew" in str(errors[0])
    assert federation.record.parties["c1"] == [
        PartyStatus.ONLINE,  # and killed
        PartyStatus.ONLINE,
        PartyStatus.INVITED,
        PartyStatus.ONLINE,
        PartyStatus.FINISHED,
    ]
    assert federation.starts == {"host": 1, "c1": 3, "c2": 1}
    assert_nobody_can_tell(federation, tmp_path, undisturbed)


def test_a_check_in_says_from_where_a_party_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[CheckIn] = []
    send = Link.send

    def sending(self: Link, to: str, message: Any, timeout_s: float = 0.0) -> None:
        if isinstance(message, CheckIn) and message.feature_key == "c1":
            said.append(message)
        send(self, to, message, timeout_s)

    monkeypatch.setattr(Link, "send", sending)
    federation = Federation(maker(tmp_path), KEYS)
    run_with(federation, Kill("c1", "Embedding", 3), Kill("c2", "Embedding", 3))

    assert [(each.recover, each.points) for each in said[:2]] == [(False, (0,)), (True, (0, 2))]
    assert said[2].recover  # one that was not killed would not begin anew either
    assert {0, 2} <= set(said[2].points) <= {0, 2, 3}
    assert said[0].run == b""
    assert said[1].run == said[2].run != b""


# --- what a review found ----------------------------------------------------------------------------------------------


def plain(folder: Path, **of_host: Any) -> Callable[[str], Any]:
    """Make parties whose bits depend on the host's `seed` alone."""
    of_host = {"max_rounds": 2, **of_host}
    return lambda key: (
        Host(out_dir=folder / key, **of_host) if key == "host" else Collaborator(key, out_dir=folder / key)
    )


def run_to_its_end(make: Callable[[str], Any], **how: Any) -> Federation:
    federation = Federation(make, ("host", "c1"), **how)
    federation.run()
    return federation


def end_all(federation: Federation) -> None:
    """Kill what still runs, each party where it looks around."""
    for key in federation.keys:
        if key not in federation.record.dead:
            federation.record.dead.add(key)
            federation.await_end(key)
            federation.ends[key].close()
        federation.await_end(key)
    assert {type(each) for each in federation.errors.values()} == {Killed}


@pytest.fixture
def dead_ones_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A party that is said to be dead ends where it looks around."""
    look = PartyRecord.look

    def looking(self: PartyRecord) -> None:
        if self._me in self._record.dead:
            raise Killed(self._me)
        look(self)

    monkeypatch.setattr(PartyRecord, "look", looking)


@pytest.mark.usefixtures("dead_ones_end")
@pytest.mark.parametrize("at", ["CheckIn", "PsiPart"])
def test_a_run_begun_anew_in_an_old_folder_and_killed_early_never_ends_with_the_old_runs_result(
    tmp_path: Path, at: str
) -> None:
    old = run_to_its_end(plain(tmp_path / "here", seed=5))
    expected = run_to_its_end(plain(tmp_path / "elsewhere", seed=77))
    anew = Federation(plain(tmp_path / "here", seed=77), ("host", "c1"))
    with killed(anew, Kill("c1", at)):
        for key in anew.keys:
            anew.start(key)
        anew.await_end("c1")
        end_all(anew)

    again = run_to_its_end(plain(tmp_path / "here", seed=77), recover=True)

    for key in ("host", "c1"):
        assert same(state_of(again.schedulers[key]), state_of(expected.schedulers[key]))
        assert not same(state_of(again.schedulers[key]), state_of(old.schedulers[key]))
    assert len(again.schedulers["host"].losses) == len(expected.schedulers["host"].losses)


def test_one_that_was_started_again_without_recover_by_mistake_is_turned_away_and_can_still_go_on(
    tmp_path: Path, undisturbed: tuple[Federation, Path]
) -> None:
    federation = Federation(maker(tmp_path, max_to_keep=2), KEYS)
    start, errors = federation.start, []

    def starting(key: str, *, recover: bool = False) -> None:
        if key == "c1" and federation.starts[key] == 1:
            start(key, recover=False)
            federation.await_end(key)
            errors.append(federation.errors.pop(key))
        start(key, recover=recover)

    federation.start = starting  # type: ignore[method-assign]  # a person's mistake
    run_with(federation, Kill("c1", "Embedding", 2 * BATCHES + 2))

    assert [type(each) for each in errors] == [PeerRefused]
    assert "Start it again with recover=True, or stop all parties to begin anew" in str(errors[0])
    assert_nobody_can_tell(federation, tmp_path, undisturbed, frozenset(["c1"]))


def test_a_host_that_was_started_again_without_recover_by_mistake_costs_nothing_but_another_start(
    tmp_path: Path,
) -> None:
    expected = run_to_its_end(plain(tmp_path / "a", max_rounds=4))
    run_to_its_end(plain(tmp_path / "b", max_rounds=3, max_to_keep=2))

    def mixed(key: str) -> Any:
        return plain(tmp_path / "b", max_rounds=4)(key)

    mistaken = Federation(mixed, ("host", "c1"))
    mistaken.start("host")
    mistaken.start("c1", recover=True)
    for key in mistaken.keys:
        mistaken.await_end(key)
    assert isinstance(mistaken.errors["host"], ConfigError)
    assert "the parties hold no checkpoint in common" in str(mistaken.errors["host"])

    again = run_to_its_end(mixed, recover=True)
    assert len(again.schedulers["host"].losses) == BATCHES
    for key in ("host", "c1"):
        assert same(state_of(again.schedulers[key]), state_of(expected.schedulers[key]))


def test_a_run_that_is_to_end_after_its_round_ends_there_though_a_party_is_killed_in_its_last_word(
    tmp_path: Path,
) -> None:
    def stopping(folder: Path) -> Callable[[str], Any]:
        def make(key: str) -> Any:
            party = plain(folder, max_rounds=6)(key)
            if key == "host":
                party.trainer.register_hooks([EarlyStopper("scores/loss", patience=1, delta=100.0)])
            return party

        return make

    expected = run_to_its_end(stopping(tmp_path / "a"))
    rounds = expected.results["host"].rounds
    assert 1 < rounds < 6
    federation = Federation(stopping(tmp_path / "b"), ("host", "c1"))
    results = run_with(federation, Kill("c1", "RoundClosed", rounds))

    assert {each.rounds for each in results.values()} == {rounds}
    for key in ("host", "c1"):
        assert same(state_of(federation.schedulers[key]), state_of(expected.schedulers[key]))


def test_a_party_that_ends_at_one_point_again_and_again_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MOST_MEETINGS", 3)
    federation = Federation(plain(tmp_path), ("host", "c1"))

    with killed(federation, *[Kill("c1", "Embedding", 2)] * 5) as happened:
        error = first_error(federation)

    assert len(happened) == 3
    assert "the parties have met 3 times and gone on after batch 0 each time; expected a restart now and then" in str(
        error
    )
    assert "Some party ends there again and again: look at its output, its memory and its code." in str(error)
    assert isinstance(federation.errors["host"], TaskFailed)


def test_meetings_at_other_points_do_not_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MOST_MEETINGS", 2)
    federation = Federation(plain(tmp_path, max_rounds=3), ("host", "c1"))

    run_with(federation, *[Kill("c1", "RoundReady", 2)] * 2)  # before rounds 2 and 3

    assert federation.results["host"].rounds == 3


def test_ids_are_not_matched_again_and_again_in_one_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MOST_MATCHINGS", 2)
    federation = Federation(plain(tmp_path), ("host", "c1"))

    with killed(federation, *[Kill("c1", "PsiPart")] * 4) as happened:
        error = first_error(federation)

    assert 2 <= len(happened) <= 3  # c1 may be there once more before it hears of it
    assert "the ids were to be matched a 3th time; expected at most 2 times in one launch" in str(error)
    assert "If parties really are killed so often, start all of them again." in str(error)
    assert isinstance(federation.errors["host"], TaskFailed)

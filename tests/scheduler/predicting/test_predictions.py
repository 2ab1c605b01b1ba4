"""Predictions with what a completed run has trained: in one process, over sockets, in new processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch import nn

from heterofed import (
    AlignmentError,
    ConfigError,
    DataError,
    EmbeddingError,
    HeterofedError,
    PeerGone,
    PeerTimeout,
    RemoteProtocolError,
    TaskAborted,
    TemplateError,
)
from heterofed.features.batches import shuffled
from heterofed.frames.messages import MOST_ASKED, Ask, Embedding
from heterofed.frames.tensors import pack
from heterofed.protocol.phases import TEST_AHEAD
from heterofed.protocol.session import Session
from heterofed.scheduler.link import Link
from heterofed.scheduler.manifest import read_manifest, write_manifest
from heterofed.scheduler.predicting.predicted import RowStatus
from heterofed.simulate import predict_locally, run_locally
from heterofed.tasks.directory import host_in, open_directory, open_local
from heterofed.tasks.model import PartyStatus, TaskStatus
from tests.own_batches import OwnCollaborator, OwnHost
from tests.scheduler.predicting.parties import (
    EVERYBODY,
    TASK,
    Knowing,
    Predicting,
    collaborators,
    completed_task,
    host_of,
    in_a_thread,
    quick,
    train,
    trained_run,
    values_of,
)
from tests.tiny import Host, bottom, person, row_of, table

Runs = Callable[[int], tuple[Path, Predicting]]
PREDICTED, PARTIAL, UNKNOWN = RowStatus.PREDICTED, RowStatus.PARTIAL, RowStatus.UNKNOWN


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def runs() -> Runs:
    """Completed runs of 2 and of 3 parties."""
    return trained_run


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[each], right[each]) for each in left)


# --- requests that are not read to their end --------------------------------------------------------------------------


def test_a_session_ends_well_though_a_request_was_not_read_to_its_end(runs: Runs) -> None:
    folder, trained = runs(2)

    with predict_locally(host_of(folder), *collaborators(folder)) as predictions:
        left = predictions.predict(batch_size=8)
        first = next(left)

    assert torch.allclose(first.values[0], trained.concluded[first.ids[0]], atol=1e-6)


def test_a_request_that_is_closed_before_a_shared_row_came_lets_the_next_one_be_made(runs: Runs) -> None:
    folder, _ = runs(2)
    theirs = [person(row) for row in range(30, 60)]
    others = Knowing("c1", ids=theirs, out_dir=folder / "c1", settings=quick())

    with predict_locally(host_of(folder), others, absent="zeros") as predictions:
        left = predictions.predict([person(row) for row in range(60)], batch_size=8)
        assert next(left).status == [RowStatus.PARTIAL] * 8
        left.close()
        (batch,) = predictions.predict([person(40)])

    assert batch.status == [PREDICTED]


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parties", [2, 3])
def test_a_saved_run_predicts_the_same_bits_as_the_models_in_memory(runs: Runs, parties: int) -> None:
    folder, trained = runs(parties)

    with predict_locally(host_of(folder, parties), *collaborators(folder, parties)) as predictions:
        again = values_of(predictions)

    assert len(again) == len(EVERYBODY)
    assert same(again, trained.concluded)


def test_the_prediction_is_that_of_the_models_put_together(runs: Runs) -> None:
    folder, trained = runs(2)
    theirs = bottom(1)
    theirs.load_state_dict(torch.load(folder / "c1" / "feature_model_c1.pt"))
    ids = [person(5), person(41), person(5)]
    rows = [row_of(each) for each in ids]

    with predict_locally(host_of(folder), *collaborators(folder)) as predictions:
        (batch,) = predictions.predict(ids)

    with torch.no_grad():
        expected = trained.infer_model(torch.cat([trained.feature_model(table(0)[rows]), theirs(table(1)[rows])], 1))
    assert batch.ids == ids
    assert torch.equal(batch.values, expected)
    assert not batch.values.requires_grad


def test_rows_come_in_the_order_asked_and_unknown_ids_say_so(runs: Runs) -> None:
    folder, trained = runs(2)
    ids = ["nobody", person(9), person(3), "no-one", person(9), "nemo", person(0), "niemand", "keiner"]

    with predict_locally(host_of(folder), *collaborators(folder), ids=ids) as predictions:
        batches = list(predictions.predict(batch_size=2))
        assert list(predictions.predict(["x", "y", "z"], batch_size=2))[1].values is None
        assert list(predictions.predict([])) == []

    assert [each for batch in batches for each in batch.ids] == ids
    known = [each.startswith("person") for each in ids]
    assert [status is PREDICTED for batch in batches for status in batch.status] == known
    assert [status is UNKNOWN for batch in batches for status in batch.status] == [not each for each in known]
    assert [batch.values.shape[0] for batch in batches] == [2, 2]
    assert torch.allclose(batches[0].values[0], trained.concluded[person(9)], atol=1e-6)
    assert torch.equal(batches[0].values[0], batches[1].values[0])
    assert all(who == () for batch in batches for who in batch.stand_ins)


def test_unknown_ids_between_them_do_not_change_the_bits_of_the_others(runs: Runs) -> None:
    folder, _ = runs(2)
    mixed = [each for id_ in EVERYBODY for each in (f"not-{id_}", id_)]

    with predict_locally(host_of(folder), *collaborators(folder)) as predictions:
        alone = values_of(predictions, EVERYBODY, batch_size=7)
        assert same(values_of(predictions, mixed, batch_size=7), alone)


def test_projections_are_those_of_all_parties_host_first_without_gradients(runs: Runs) -> None:
    folder, _ = runs(3)
    fresh = list(reversed(collaborators(folder, 3)))

    with predict_locally(host_of(folder, 3), *fresh) as predictions:
        pieces = list(predictions.projections([person(1), "nobody", person(2)], batch_size=1))

    assert [ids for ids, _ in pieces] == [[person(1)], [person(2)]]
    for _, projection in pieces:
        assert list(projection) == ["host", "c1", "c2"]
        assert all(each.shape == (1, 4) and not each.requires_grad for each in projection.values())


def test_a_host_without_any_of_the_ids_gets_rows_that_say_so(runs: Runs) -> None:
    folder, _ = runs(2)

    with predict_locally(host_of(folder), *collaborators(folder), ids=["a", "b"]) as predictions:
        assert [each.status for each in predictions.predict()] == [[UNKNOWN, UNKNOWN]]
        assert predictions.shared == 0


def test_an_id_that_another_party_lacks_is_unknown(runs: Runs) -> None:
    folder, _ = runs(2)
    few = Knowing(out_dir=folder / "c1", ids=EVERYBODY[:10], settings=quick())

    with predict_locally(host_of(folder), few) as predictions:
        status = predictions.status_of([person(9), person(10), "nobody"])
        assert len(values_of(predictions)) == 10

    assert status == [PREDICTED, UNKNOWN, UNKNOWN]


# --- parties and ids that are not there -------------------------------------------------------------------------------


def test_without_a_policy_a_party_that_does_not_come_ends_the_session(runs: Runs) -> None:
    folder, _ = runs(3)

    with (
        pytest.raises(PeerTimeout) as caught,
        predict_locally(host_of(folder, 3), collaborators(folder, 3)[0], wait=0.5),
    ):
        raise AssertionError

    assert caught.value.party == "c2"


@pytest.mark.parametrize("absent", ["mean", "zeros"])
def test_stand_ins_take_the_place_of_an_absent_party(runs: Runs, absent: Any) -> None:
    folder, trained = runs(3)
    first, second = collaborators(folder, 3)
    first.ids = EVERYBODY[:30]

    with predict_locally(host_of(folder, 3), *collaborators(folder, 3)) as predictions:
        true = dict(next(predictions.projections([person(1)]))[1])
        mean = predictions.mean_embedding("c2")
    with predict_locally(host_of(folder, 3), first, absent=absent, wait=0.5) as predictions:
        assert predictions.absent == ("c2",)
        (batch,) = predictions.predict([person(1), person(40), "nobody"])
        ((_, some),) = predictions.projections([person(1), person(40)])

    assert batch.status == [PARTIAL, PARTIAL, UNKNOWN]
    assert batch.stand_ins == [("c2",), ("c1", "c2"), ()]
    stand_in = mean[0] if absent == "mean" else torch.zeros(4)
    assert torch.allclose(some["c1"][0], true["c1"][0])
    assert torch.equal(some["c2"], stand_in.expand(2, 4))
    assert torch.equal(some["c1"][1], trained._means["c1"][0] if absent == "mean" else stand_in)  # type: ignore[index]
    assert second.ids == EVERYBODY


def test_a_host_alone_predicts_with_stand_ins_for_all(runs: Runs) -> None:
    folder, trained = runs(2)

    with predict_locally(host_of(folder), absent="mean") as predictions:
        (batch,) = predictions.predict([person(0)])
        means = predictions.mean_embedding("c1")

    with torch.no_grad():
        fused = torch.cat([trained.feature_model(table(0)[:1]), means], 1)
        assert torch.equal(batch.values, trained.infer_model(fused))
    assert batch.status == [PARTIAL]


def test_the_means_are_those_of_train_ids(runs: Runs) -> None:
    folder, trained = runs(2)
    theirs = bottom(1)
    theirs.load_state_dict(torch.load(folder / "c1" / "feature_model_c1.pt"))
    with torch.no_grad():
        some = theirs(table(1)[[row_of(each) for each in shuffled(trained.train_ids, 0)[:20]]])

    kept = torch.load(folder / "host" / "mean_embeddings.pt")

    assert list(kept) == ["host", "c1"]
    assert kept["c1"].shape == (1, 4)
    assert torch.allclose(kept["c1"][0], some.mean(0), atol=1e-6)


def test_rows_with_and_without_stand_ins_mix_in_a_batch(runs: Runs) -> None:
    folder, _ = runs(2)
    few = Knowing(out_dir=folder / "c1", ids=EVERYBODY[::3], settings=quick())

    with predict_locally(host_of(folder), *collaborators(folder)) as predictions:
        whole = {ids[0]: each for ids, each in predictions.projections(batch_size=1)}
    with predict_locally(host_of(folder), few, absent="zeros") as predictions:
        ids = EVERYBODY * 2
        found = list(predictions.projections(ids, batch_size=8))

    assert [each for ids, _ in found for each in ids] == ids
    for ids, projection in found:
        for id_, values in zip(ids, projection["c1"], strict=True):
            expected = whole[id_]["c1"][0] if id_ in few.ids else torch.zeros(4)
            assert torch.allclose(values, expected, atol=1e-6)


def test_a_policy_that_the_run_has_nothing_for_is_refused(runs: Runs, tmp_path: Path) -> None:
    class WithoutMeans(Host):
        """Keeps no means."""

    run_locally(
        WithoutMeans(out_dir=tmp_path / "host", settings=quick()), Knowing(out_dir=tmp_path / "c1", settings=quick())
    )

    for absent, words in (("mean", "mean_rows"), ("nothing", "'fail', 'mean' or 'zeros'")):
        with pytest.raises(ConfigError, match=words), predict_locally(host_of(tmp_path), absent=absent):  # type: ignore[arg-type]
            raise AssertionError
    with (
        predict_locally(host_of(runs(2)[0]), absent="zeros") as predictions,
        pytest.raises(ConfigError, match="no mean embedding of c9"),
    ):
        predictions.mean_embedding("c9")


# --- many rows --------------------------------------------------------------------------------------------------------


def test_a_long_request_is_asked_in_parts_and_only_a_few_batches_are_in_flight(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = runs(2)
    asked: list[int] = []
    send = Link.send

    def sent(self: Link, to: str, message: Any, timeout_s: float = 0.0) -> None:
        if isinstance(message, Ask):
            asked.append(message.rows.nbytes // 4)
        send(self, to, message, timeout_s)

    monkeypatch.setattr(Link, "send", sent)
    made = [0]

    class Counting(Knowing):
        """Counts the batches that it embeds."""

        def load_batch(self, ids: list[str]) -> Any:
            made[0] += 1
            return super().load_batch(ids)

    rows, size, ahead = 150_000, 3000, []
    ids = (EVERYBODY * (rows // len(EVERYBODY) + 1))[:rows]
    with predict_locally(host_of(folder), Counting(out_dir=folder / "c1", settings=quick())) as predictions:
        count = 0
        for number, batch in enumerate(predictions.predict(ids, batch_size=size), start=1):
            count += len(batch.ids)
            ahead.append(made[0] - number)

    whole = MOST_ASKED // size * size
    assert asked == [whole, whole, rows - 2 * whole]
    assert count == rows
    assert max(ahead) <= TEST_AHEAD + 2


def test_a_request_that_is_left_in_the_middle_leaves_room_for_another(runs: Runs) -> None:
    folder, trained = runs(2)

    with predict_locally(host_of(folder), *collaborators(folder)) as predictions:
        for many in (1, 2, 9):
            for number, _ in enumerate(predictions.predict(EVERYBODY * 3, batch_size=4), start=1):
                if number == many:
                    break
            assert same(values_of(predictions), trained.concluded)


def test_a_request_that_is_left_leaves_the_next_part_of_it_in_order_too(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, trained = runs(2)
    monkeypatch.setattr("heterofed.scheduler.predicting.asking.MOST_ASKED", 8)

    with predict_locally(host_of(folder), *collaborators(folder)) as predictions:
        for many in (1, 2, 3, 4):
            for number, _ in enumerate(predictions.predict(batch_size=4), start=1):
                if number == many:
                    break
            assert torch.allclose(values_of(predictions, [person(3)])[person(3)], trained.concluded[person(3)])


def test_one_request_at_a_time_and_none_after_the_end(runs: Runs) -> None:
    folder, _ = runs(2)

    with predict_locally(host_of(folder), *collaborators(folder)) as predictions:
        first = predictions.predict(batch_size=4)
        next(first)
        with pytest.raises(ConfigError, match="one request at a time"):
            predictions.projections()
        first.close()
        for wrong in (0, True, "many"):
            with pytest.raises(ConfigError, match="batch_size"):
                predictions.predict(batch_size=wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="one str"):
            predictions.predict("person-001")
        assert len(values_of(predictions)) == len(EVERYBODY)
    with pytest.raises(ConfigError, match="inside the `with` block"):
        predictions.predict()


def test_the_models_are_in_the_mode_that_they_were_in(runs: Runs) -> None:
    folder, _ = runs(2)
    host = host_of(folder)
    host.infer_model[1:] if isinstance(host.infer_model, torch.nn.Sequential) else host.infer_model.train()
    host.feature_model.eval()
    modes: list[bool] = []

    with predict_locally(host, *collaborators(folder)) as predictions:
        modes = [host.infer_model.training, host.feature_model.training]
        values_of(predictions)
        assert torch.is_grad_enabled()

    assert modes == [False, False]
    assert host.infer_model.training
    assert not host.feature_model.training


def test_a_collaborators_model_evaluates_while_it_answers_and_is_then_as_before(runs: Runs) -> None:
    folder, _ = runs(2)

    class Dropping(Knowing):
        """Its model is another one in training."""

        def make_feature_model(self) -> torch.nn.Module:
            return torch.nn.Sequential(*super().make_feature_model().children(), torch.nn.Dropout(0.5))

    party = Dropping(out_dir=folder / "c1", settings=quick())
    with predict_locally(host_of(folder), party) as predictions:
        first, again = values_of(predictions), values_of(predictions)

    assert same(first, again)
    assert party.feature_model.training


# --- over sockets, in processes of their own --------------------------------------------------------------------------


def test_new_processes_predict_the_same_bits_and_a_killed_one_ends_the_session() -> None:
    folder, trained = completed_task()
    task = TASK
    command = [sys.executable, str(Path(__file__).with_name("parties.py")), str(folder / "c1")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            with pytest.raises(PeerGone) as caught, host_of(folder).open_predictions(task) as predictions:
                assert same(values_of(predictions), trained.concluded)
                began = time.monotonic()
                for _ in range(20):
                    next(predictions.predict([person(1)]))
                assert time.monotonic() - began < 2.0
                process.kill()
                process.wait()
                values_of(predictions)
            assert caught.value.party == "c1"
            assert "open predictions again" in str(caught.value)
        finally:
            process.kill()
    found = open_directory(quick()).find(task)
    assert found.status is TaskStatus.COMPLETED
    assert {each.status for each in found.parties} == {PartyStatus.FINISHED}
    assert host_in(open_directory(quick()).find(task)) is None


def test_a_session_over_sockets_is_answered_and_both_sides_are_free_afterwards() -> None:
    folder, trained = completed_task(3)
    first, second = collaborators(folder, 3)

    for _ in range(2):
        with (
            in_a_thread(first.answer_predictions) as one,
            in_a_thread(second.answer_predictions) as two,
            host_of(folder, 3).open_predictions(ids=[person(4), "nobody"]) as predictions,
        ):
            (batch,) = predictions.predict()
            next(predictions.predict([person(4)]))

        assert torch.allclose(batch.values[0], trained.concluded[person(4)], atol=1e-6)
        for end in (*one, *two):
            assert (end.ids, end.requests, end.rows) == (1, 2, 2)


def test_a_party_that_comes_too_late_is_turned_away_and_the_session_goes_on() -> None:
    folder, _ = completed_task(3)
    first, second = collaborators(folder, 3)

    with (
        in_a_thread(first.answer_predictions) as one,
        host_of(folder, 3).open_predictions(absent="mean", wait=1.5) as predictions,
        in_a_thread(second.answer_predictions) as two,
    ):
        deadline = time.monotonic() + 10
        while not two and time.monotonic() < deadline:
            assert next(predictions.predict([person(1)])).stand_ins == [("c2",)]
            time.sleep(0.02)

    assert one[0].requests > 0
    assert "the session has begun without it" in str(two[0])


def test_a_task_that_is_not_completed_gives_no_predictions() -> None:
    folder, _ = trained_run()

    with pytest.raises(ConfigError, match=f"is the run of task {TASK}"), host_of(folder).open_predictions("other"):
        raise AssertionError
    with pytest.raises(ConfigError, match="no task"), host_of(folder).open_predictions():
        raise AssertionError
    open_local(quick()).store.create("new", ["host", "c1"], task_id=TASK)  # type: ignore[call-arg]  # a TaskStore
    with (
        pytest.raises(ConfigError, match="is CREATED; expected one that is COMPLETED"),
        host_of(folder).open_predictions(),
    ):
        raise AssertionError
    with pytest.raises(ConfigError, match="neither out_dir nor a task id"), Predicting().open_predictions():
        raise AssertionError


# --- faults -----------------------------------------------------------------------------------------------------------


def test_a_folder_of_another_run_is_refused_at_both_ends(runs: Runs, tmp_path: Path) -> None:
    folder, _ = runs(2)
    train(tmp_path, seed=2)

    with (
        pytest.raises(ConfigError, match="another run of this task") as caught,
        predict_locally(host_of(folder), *collaborators(tmp_path)),
    ):
        raise AssertionError

    assert caught.value.party == "c1"


def test_both_ends_hear_of_another_number_of_rounds(tmp_path: Path) -> None:
    folder, _ = completed_task()
    shutil.copytree(folder / "c1", tmp_path / "c1")
    write_manifest(tmp_path / "c1", replace(read_manifest(folder / "c1"), rounds=3))

    with (
        in_a_thread(collaborators(tmp_path)[0].answer_predictions) as ends,
        pytest.raises(ConfigError, match="3 rounds; expected 2 rounds"),
        host_of(folder).open_predictions(),
    ):
        raise AssertionError

    assert isinstance(ends[0], TaskAborted)
    assert "3 rounds" in str(ends[0])


@pytest.mark.parametrize("name", ["feature_model_host.pt", "infer_model.pt", "mean_embeddings.pt", "run.json"])
def test_a_file_of_the_run_with_one_other_byte_is_refused_by_name(runs: Runs, tmp_path: Path, name: str) -> None:
    folder, _ = runs(2)
    copy = shutil.copytree(folder / "host", tmp_path / "host")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)

    with pytest.raises(DataError, match=name), predict_locally(host_of(tmp_path), *collaborators(folder)):
        raise AssertionError


def test_a_folder_of_another_party_role_or_architecture_is_refused(runs: Runs, tmp_path: Path) -> None:
    folder, _ = runs(2)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: Knowing(out_dir=folder / "host").answer_predictions(), "run of a host"),
        (lambda: Knowing("c2", out_dir=folder / "c1").answer_predictions(), "run of c1"),
        (lambda: Knowing(out_dir=tmp_path).answer_predictions(), "not the folder of a completed run"),
        (
            lambda: Knowing(out_dir=folder / "c1").answer_predictions("task9"),
            f"run of task {TASK}; expected that of task task9",
        ),
        (lambda: OwnCollaborator(out_dir=folder / "c1").answer_predictions(), "load_batch in the place of"),
    ]
    for call, words in calls:
        with pytest.raises(HeterofedError, match=words):
            call()
    with (
        pytest.raises(DataError, match="does not fit the infer model"),
        predict_locally(host_of(folder, 3), *collaborators(folder)),
    ):
        raise AssertionError
    with (
        pytest.raises(ConfigError, match="some of c1, each once"),
        predict_locally(host_of(folder), *collaborators(folder), *collaborators(folder)),
    ):
        raise AssertionError


def test_what_a_collaborators_code_raises_ends_the_session_at_both_ends(runs: Runs) -> None:
    folder, _ = runs(2)

    class Failing(Knowing):
        """Cannot read a row."""

        def load_batch(self, ids: list[str]) -> Any:
            if person(33) in ids:
                raise KeyError("person-033")
            return super().load_batch(ids)

    with (
        pytest.raises(TemplateError, match=r"Failing.load_batch\(\) raised KeyError") as caught,
        predict_locally(host_of(folder), Failing(out_dir=folder / "c1", settings=quick())) as predictions,
    ):
        assert len(values_of(predictions, EVERYBODY[:16])) == 16
        values_of(predictions)
    assert "person-033" not in str(caught.value)


def test_what_the_hosts_own_code_raises_in_the_block_is_raised_there(runs: Runs) -> None:
    folder, _ = runs(2)

    with pytest.raises(ZeroDivisionError), predict_locally(host_of(folder), *collaborators(folder)) as predictions:
        next(predictions.predict([person(1)]))
        raise ZeroDivisionError
    with (
        pytest.raises(TemplateError),
        predict_locally(Wrong(out_dir=folder / "host", settings=quick()), *collaborators(folder)) as predictions,
    ):
        values_of(predictions)


def test_a_request_that_is_not_read_when_the_session_ends_does_not_read_on(
    runs: Runs,
) -> None:
    folder, _ = runs(2)

    with pytest.raises(ZeroDivisionError), predict_locally(host_of(folder), *collaborators(folder)) as predictions:
        first = predictions.predict(batch_size=4)
        next(first)
        raise ZeroDivisionError
    first.close()  # an error of the closed link otherwise


class Wrong(Predicting):
    """Cannot predict."""

    def predict_a_batch(self, feature_projection: Any) -> Any:
        raise ValueError


def test_a_row_that_is_not_shared_is_not_given_away(runs: Runs) -> None:
    folder, _ = runs(2)

    with (
        pytest.raises(RemoteProtocolError, match="asks for a row beyond the 60 shared ones"),
        predict_locally(host_of(folder), *collaborators(folder)) as predictions,
    ):
        predictions._places[person(3)] = 60
        values_of(predictions, [person(3)])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"digest": b"0" * 16}, AlignmentError, "sent 16 rows of other ids"),
        ({"batch": 1}, RemoteProtocolError, "Embedding of batch 1 at batch 0"),
        ({"round": 9}, RemoteProtocolError, "of round 9 in round 2"),
        ({"form": (8, torch.float32)}, EmbeddingError, r"of float32 and shape \(8,\).*expected float32 and \(4,\)"),
        ({"form": (4, torch.float16)}, EmbeddingError, r"of float16 and shape \(4,\).*expected float32 and \(4,\)"),
        ({"short": True}, AlignmentError, "sent 15 rows"),
    ],
    ids=["other-ids", "batch", "round", "wide", "half", "short"],
)
def test_a_collaborator_that_answers_something_else_is_found_out(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    folder, _ = runs(2)
    together = Link.send_together
    sending = Session.sending

    def lying(self: Link, to: str, messages: Any, timeout_s: float = 0.0) -> None:
        said = list(messages)
        first = said[0]
        if isinstance(first, Embedding):
            fields = dict(change)
            if form := fields.pop("form", None):
                fields["values"] = pack(torch.zeros(first.rows, form[0], dtype=form[1]))
            if fields.pop("short", False):
                fields |= {"values": pack(torch.zeros(first.rows - 1, 4)), "rows": first.rows - 1}
            said[0] = replace(first, **fields)
        together(self, to, said, timeout_s)

    def not_looking(self: Session, message: Any) -> None:
        if not isinstance(message, Embedding) or (message.batch, message.round) == (self.batch + self.unanswered, 2):
            sending(self, message)

    monkeypatch.setattr(Link, "send_together", lying)
    monkeypatch.setattr(Session, "sending", not_looking)
    with (
        pytest.raises(error, match=words) as caught,
        predict_locally(host_of(folder), *collaborators(folder)) as predictions,
    ):
        values_of(predictions)
    assert caught.value.party == "c1"  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_what_training_may_have_made_of_an_embedding_is_made_of_it_again(runs: Runs, dtype: torch.dtype) -> None:
    folder, trained = runs(2)

    class Other(Knowing):
        """Has the model in another dtype."""

        def make_feature_model(self) -> nn.Module:
            return super().make_feature_model().to(dtype)

        def load_batch(self, ids: list[str]) -> Any:
            return super().load_batch(ids).to(dtype)

    with predict_locally(host_of(folder), Other(out_dir=folder / "c1", settings=quick())) as predictions:
        projection = next(predictions.projections(EVERYBODY[:3]))[1]
        assert projection["c1"].dtype == torch.float32
        found = values_of(predictions, EVERYBODY[:3])
    for id_, values in found.items():
        assert torch.allclose(values, trained.concluded[id_], atol=0.1)


# --- at the end of training -------------------------------------------------------------------------------------------


def test_a_run_whose_parties_choose_their_batches_cannot_conclude(tmp_path: Path) -> None:
    class Concluding(OwnHost):
        """Would predict."""

        mean_rows = 5

    with pytest.raises(ConfigError, match="would predict when training ends"):
        run_locally(Concluding(out_dir=tmp_path / "a"), OwnCollaborator(out_dir=tmp_path / "b"))
    with pytest.raises(ConfigError, match="c1 chooses its own batches"):
        run_locally(
            Predicting(out_dir=tmp_path / "c", shuffle=False, settings=quick()),
            OwnCollaborator(out_dir=tmp_path / "d", settings=quick()),
        )


def test_what_conclude_raises_ends_the_task_before_it_is_completed(tmp_path: Path) -> None:
    class Failing(Predicting):
        """Cannot conclude."""

        def conclude(self, predictions: Any) -> None:
            raise OverflowError

    with pytest.raises(TemplateError, match=r"conclude\(\) raised OverflowError"):
        run_locally(Failing(out_dir=tmp_path / "host", settings=quick()), *collaborators(tmp_path))
    assert not (tmp_path / "host" / "run.json").exists()


def test_concluding_changes_nothing_of_what_was_trained(tmp_path: Path) -> None:
    plain = Host(out_dir=tmp_path / "plain", settings=quick())
    run_locally(plain, Knowing(out_dir=tmp_path / "c", settings=quick()), seed=1)
    trained = train(tmp_path)

    assert all(
        torch.equal(a, b) for a, b in zip(plain.infer_model.parameters(), trained.infer_model.parameters(), strict=True)
    )
    assert len(trained.concluded) == len(EVERYBODY)

"""What goes wrong ends every party at once, with an error that says whose trouble it is, where, and what to do."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heterofed import (
    AlignmentError,
    CollaboratorScheduler,
    ConfigError,
    EmbeddingError,
    HeterofedError,
    HostScheduler,
    OutputError,
    PeerTimeout,
    Settings,
    TaskAborted,
    TemplateError,
    TrainingDiverged,
    run_locally,
)
from heterofed.simulate.training import root_of
from tests.own_batches import OwnCollaborator, OwnHost
from tests.tiny import Collaborator, Host, person, same_bits


class Outcome:
    """How each party of a run ended."""

    def __init__(self, *schedulers: HostScheduler | CollaboratorScheduler) -> None:
        self.errors: dict[str, BaseException] = {}
        for each in schedulers:
            self._watch(each)
        host, *others = schedulers
        assert isinstance(host, HostScheduler)
        with pytest.raises(HeterofedError) as caught:
            run_locally(host, *[each for each in others if isinstance(each, CollaboratorScheduler)])
        self.raised = caught.value

    def _watch(self, scheduler: HostScheduler | CollaboratorScheduler) -> None:
        original = scheduler.take_part

        def take_part(seat: Any, **how: Any) -> Any:
            try:
                return original(seat, **how)
            except BaseException as error:
                self.errors[scheduler.feature_key] = error
                raise

        scheduler.take_part = take_part  # type: ignore[method-assign]  # to see every party's end


def end_of(*schedulers: HostScheduler | CollaboratorScheduler) -> Outcome:
    before = threading.active_count()
    outcome = Outcome(*schedulers)
    assert set(outcome.errors) == {each.feature_key for each in schedulers}, "every party ends"
    deadline = time.monotonic() + 2
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # the intersection's idle worker threads are on their way out
    assert threading.active_count() == before
    return outcome


# --- ids ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], r"load_local_ids returned no ids"),
        ([person(1), person(1), person(2)], r"3 ids of which 1 repeat an earlier one; expected every id once"),
        ([1, 2], r"2 of 2 ids that are no str but int; expected only str"),
        (["", "a"], r"returned 1 empty ids"),
        ("abc", r"load_local_ids returned str; expected a list of str"),
        (None, r"load_local_ids returned NoneType"),
    ],
    ids=["none", "repeated", "no str", "empty", "one str", "nothing"],
)
@pytest.mark.parametrize("culprit", ["host", "c1"])
def test_ids_that_cannot_be_matched_are_refused_at_their_own_party(culprit: str, ids: Any, text: str) -> None:
    class BadHost(Host):
        def load_local_ids(self) -> Any:
            return ids

    class BadCollaborator(Collaborator):
        def load_local_ids(self) -> Any:
            return ids

    outcome = end_of(*((BadHost(), Collaborator()) if culprit == "host" else (Host(), BadCollaborator())))

    assert isinstance(outcome.errors[culprit], AlignmentError)
    assert_text(outcome.errors[culprit], rf"^{culprit}, while .*{text}")
    victim = outcome.errors["c1" if culprit == "host" else "host"]
    assert isinstance(victim, TaskAborted)
    assert_text(victim, text)


def test_no_common_id_is_a_clear_error_at_every_party() -> None:
    class Strangers(Collaborator):
        def load_local_ids(self) -> list[str]:
            return [f"other-{row}" for row in range(30)]

    outcome = end_of(Host(), Strangers())

    assert_text(
        outcome.errors["host"],
        r"host, while matching ids: no id is common to all 2 parties; expected at least one\. Check that every party",
    )
    assert_text(outcome.errors["c1"], r"host, while .*ended the task \(AlignmentError\): .*no id is common")


def test_no_id_is_in_any_message() -> None:
    class Twice(Collaborator):
        def load_local_ids(self) -> list[str]:
            return ["secret-person", "secret-person"]

    outcome = end_of(Host(), Twice())

    assert not any("secret" in str(each) for each in outcome.errors.values())


# --- splits -------------------------------------------------------------------------------------------------------


def test_splits_of_different_sizes_name_the_party_and_both_counts() -> None:
    class HalfAndHalf(Collaborator):
        def split_dataset(self, id_intersection: Any) -> Any:
            return id_intersection[:30], id_intersection[30:]

    outcome = end_of(Host(), HalfAndHalf())

    assert isinstance(outcome.raised, AlignmentError)
    assert_text(outcome.raised, r"^c1, while comparing the splits: has 30 train ids where host has 48; expected")
    assert_text(outcome.errors["c1"], "has 30 train ids where host has 48")


def test_the_same_ids_in_another_order_are_noticed() -> None:
    class Backwards(Collaborator):
        def split_dataset(self, id_intersection: Any) -> Any:
            train, test = super().split_dataset(id_intersection)
            return train[::-1], test

    outcome = end_of(Host(), Backwards())

    assert_text(outcome.raised, r"c1, .*has other train ids, or another order of them, than host \(48 each\)")


def test_other_test_ids_are_noticed() -> None:
    class OneTestMore(Collaborator):
        def split_dataset(self, id_intersection: Any) -> Any:
            train, test = super().split_dataset(id_intersection)
            return train, test[1:]

    assert_text(end_of(Host(), OneTestMore()).raised, "c1, .*has 11 test ids where host has 12")


@pytest.mark.parametrize(
    ("split", "text"),
    [
        (lambda ids: ids, "split_dataset returned OrderedIds; expected .train ids, test ids."),
        (lambda ids: ([], ids), "split_dataset left no train ids of 60 shared ones"),
        (lambda ids: (ids, ids[:5]), "0 ids that are not shared and 5 for both train and test"),
        (lambda ids: ([*ids, "new"], []), "1 ids that are not shared and 0 for both"),
    ],
)
def test_a_split_that_is_none_is_refused(split: Any, text: str) -> None:
    class BadHost(Host):
        def split_dataset(self, id_intersection: Any) -> Any:
            return split(id_intersection)

    assert_text(end_of(BadHost(), Collaborator()).raised, rf"^host, while .*{text}")


# --- batches ------------------------------------------------------------------------------------------------------


def test_unequal_batch_sizes_stop_the_first_batch_before_it_is_trained() -> None:
    host = OwnHost(size=16)

    outcome = end_of(host, OwnCollaborator(size=48))

    assert isinstance(outcome.raised, AlignmentError)
    assert_text(
        outcome.raised,
        r"^c1, while training.*: sent 48 rows in round 1, batch 0; expected 16 as at host\. Use the same batch size",
    )
    assert host.losses == []


def test_a_batch_too_few_is_noticed() -> None:
    class Short(OwnCollaborator):
        def iterate_train_feature(self, feature_model: nn.Module, train_ids: list[str]) -> Any:
            return super().iterate_train_feature(feature_model, train_ids[:32])

    outcome = end_of(OwnHost(), Short())

    assert_text(outcome.raised, r"^c1, .*ended after 2 batches where host has more in round 1, batch 2; expected as")


def test_a_batch_too_many_is_noticed() -> None:
    class Long(OwnCollaborator):
        def iterate_train_feature(self, feature_model: nn.Module, train_ids: list[str]) -> Any:
            return super().iterate_train_feature(feature_model, [*train_ids, *train_ids[:16]])

    outcome = end_of(OwnHost(), Long())

    assert_text(outcome.raised, r"^c1, .*has more batches than the 3 of host in round 1, batch 3")


def test_a_test_batch_too_few_is_noticed() -> None:
    class Short(OwnCollaborator):
        def iterate_test_feature(self, feature_model: nn.Module, test_ids: list[str]) -> Any:
            return super().iterate_test_feature(feature_model, [])

    assert_text(
        end_of(OwnHost(), Short()).raised, r"^c1, while ending a test: ended after 0 batches where host has more"
    )


def test_labels_of_the_wrong_length_are_refused_at_the_host() -> None:
    class FewLabels(Host):
        def load_batch(self, ids: list[str]) -> Any:
            inputs, truth = super().load_batch(ids)
            return inputs, truth[:-1]

    assert_text(
        end_of(FewLabels(), Collaborator()).raised,
        r"^host, while training.*: load_batch gave 15 labels for 16 rows; expected one label for each row",
    )


def test_rows_that_do_not_match_the_ids_are_refused() -> None:
    class FewRows(Collaborator):
        def load_batch(self, ids: list[str]) -> Any:
            return super().load_batch(ids)[:-1]

    assert_text(end_of(Host(), FewRows()).raised, r"^c1, while .*gave 15 rows for 16 ids; expected one row for each id")


def test_doors_that_do_not_fit_are_refused_before_training() -> None:
    assert_text(
        end_of(OwnHost(), Collaborator()).raised,
        "c1 wrote load_batch and needs a batch plan, but host chooses its own batches; expected load_batch at the host",
    )
    assert_text(
        end_of(Host(shuffle=True), OwnCollaborator()).raised,
        "host shuffles, but c1 chooses its own batches; expected load_batch at every party, or shuffle=False",
    )


# --- embeddings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda e: e.long(), r"gave a tensor of torch.int64; expected one of torch.float16"),
        (lambda e: e[:, 0], r"gave .*shape \(16,\).*; expected \(rows, width"),
        (lambda e: e.tolist(), r"gave list; expected a torch.Tensor"),
        (lambda e: e.detach(), r"does not depend on the feature model's parameters"),
    ],
    ids=["dtype", "dimensions", "no tensor", "detached"],
)
def test_an_embedding_that_cannot_cross_is_refused_where_it_was_made(make: Any, text: str) -> None:
    class Odd(OwnCollaborator):
        def iterate_train_feature(self, feature_model: nn.Module, train_ids: list[str]) -> Any:
            for each in super().iterate_train_feature(feature_model, train_ids):
                yield make(each)

    outcome = end_of(OwnHost(), Odd())

    assert isinstance(outcome.errors["c1"], EmbeddingError)
    assert_text(outcome.errors["c1"], rf"^c1, while training.*{text}")
    assert_text(outcome.errors["host"], text)


def test_an_embedding_that_changes_its_width_is_refused() -> None:
    class Widening(OwnCollaborator):
        def iterate_train_feature(self, feature_model: nn.Module, train_ids: list[str]) -> Any:
            for batch, each in enumerate(super().iterate_train_feature(feature_model, train_ids)):
                yield torch.cat([each, each], dim=1) if batch else each

    assert_text(
        end_of(OwnHost(), Widening()).raised,
        r"gave torch.float32 of shape \(16, 8\); expected .* \(rows, 4\) as",
    )


# --- the user's own code ------------------------------------------------------------------------------------------

METHODS = [
    "load_local_ids",
    "split_dataset",
    "make_feature_model",
    "make_feature_optimizer",
    "load_batch",
    "validate_context",
]


@pytest.mark.parametrize("method", [*METHODS, "make_infer_model", "train_a_batch", "test", "is_task_finished"])
def test_a_template_method_that_raises_at_the_host_ends_everybody(method: str) -> None:
    def broken(self: Any, *args: Any) -> Any:
        raise KeyError("secret-person")

    outcome = end_of(type("Broken", (Host,), {method: broken})(), Collaborator())

    error = outcome.errors["host"]
    assert isinstance(error, TemplateError)
    assert isinstance(error.__cause__, KeyError)
    assert_text(error, rf"^host, while .*: Broken\.{method}\(\) raised KeyError\. The traceback is in the")
    assert isinstance(outcome.errors["c1"], TaskAborted)
    assert_text(outcome.errors["c1"], rf"^host, while .*Broken\.{method}\(\) raised KeyError")
    assert not any("secret" in str(each) for each in outcome.errors.values())


@pytest.mark.parametrize("method", METHODS)
def test_a_template_method_that_raises_at_a_collaborator_ends_everybody(method: str) -> None:
    def broken(self: Any, *args: Any) -> Any:
        raise KeyError("secret-person")

    class Second(Collaborator):
        def make_feature_model(self) -> nn.Module:
            return super().make_feature_model()

    broken_one = type("Broken", (Collaborator,), {method: broken})("c1", party=1)

    outcome = end_of(Host(parties=3), broken_one, Second("c2", party=2))

    assert isinstance(outcome.errors["c1"], TemplateError)
    for other in ("host", "c2"):
        assert isinstance(outcome.errors[other], TaskAborted)
        assert_text(outcome.errors[other], rf"c1.*Broken\.{method}\(\) raised KeyError")
    assert not any("secret" in str(each) for each in outcome.errors.values())


def test_an_error_of_ours_from_user_code_keeps_its_class() -> None:
    class Picky(Host):
        def validate_context(self) -> None:
            super().validate_context()
            raise ConfigError("the table is from last year", expected="this year's")

    outcome = end_of(Picky(), Collaborator())

    assert type(outcome.errors["host"]) is ConfigError
    assert_text(outcome.errors["host"], "host, while .*: the table is from last year; expected this year's")


@pytest.mark.parametrize(
    ("where", "text"),
    [("loss", r"the loss is nan"), ("gradient", r"the gradient for c1 is NaN or infinite")],
)
def test_a_loss_that_is_not_a_number_stops_the_task(where: str, text: str) -> None:
    class Diverging(Host):
        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            loss = super().train_a_batch(feature_projection, labels)
            if where == "loss":
                return float("nan")
            (feature_projection["c1"] * 0 + feature_projection["host"]).sum().mul(float("nan")).backward()
            return loss

    class NanGradient(Host):
        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            feature_projection["c1"].sum().mul(float("nan")).backward()

    outcome = end_of(Diverging() if where == "loss" else NanGradient(), Collaborator())

    assert isinstance(outcome.raised, TrainingDiverged)
    assert_text(outcome.raised, rf"^host, while training.*{text}; expected .*\. Lower the learning rate")


@pytest.mark.parametrize("culprit", ["host", "c1"])
def test_numbers_that_are_none_in_a_partys_rows_are_laid_at_its_door(culprit: str) -> None:
    def with_nan(inputs: Tensor) -> Tensor:
        inputs[3, 1] = float("nan")
        return inputs

    class NanHost(Host):
        def load_batch(self, ids: list[str]) -> Any:
            inputs, truth = super().load_batch(ids)
            return with_nan(inputs), truth

    class NanCollaborator(Collaborator):
        def load_batch(self, ids: list[str]) -> Any:
            return with_nan(super().load_batch(ids))

    outcome = end_of(*((NanHost(), Collaborator()) if culprit == "host" else (Host(), NanCollaborator())))

    assert isinstance(outcome.raised, TrainingDiverged)
    assert_text(
        outcome.raised, f"^{culprit}, while training.*: the feature model gave NaN or infinite numbers; expected"
    )


def test_a_forgotten_backward_is_no_success() -> None:
    class Forgetful(Host):
        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            self.optimizer.zero_grad()
            self.optimizer.step()

    outcome = end_of(Forgetful(), Collaborator())

    assert isinstance(outcome.raised, ConfigError)
    assert_text(
        outcome.raised, r"^host, .*: train_a_batch gave no embedding a gradient in all 3 batches; .*backward\(\)"
    )


def test_a_misspelt_method_is_named_with_the_one_it_should_be() -> None:
    class Misspelt(CollaboratorScheduler):
        def load_local_ids(self) -> Any: ...

        def make_feature_modle(self) -> Any: ...

    with pytest.raises(
        ConfigError,
        match=r"Misspelt lacks make_feature_model, make_feature_optimizer; .* Write it in your class; "
        r"is make_feature_modle meant to be make_feature_model\?",
    ):
        Misspelt("c1")  # type: ignore[abstract]  # what the test is about


def test_a_frozen_federation_notices_it_too() -> None:
    class Silent(Host):
        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            self.optimizer.zero_grad()
            (self.infer_model(torch.cat(list(feature_projection.values()), dim=1)).sum() * float("nan")).backward()
            self.optimizer.step()

    outcome = end_of(Silent(), Collaborator(is_feature_trainable=False))

    assert_text(outcome.raised, "^host, while training.*: a gradient of the infer model is NaN or infinite; expected")


@pytest.mark.parametrize("numpy", [True, False])
def test_a_buffer_that_load_batch_uses_again_is_noticed_before_it_does_harm(numpy: bool) -> None:
    class Reusing(Collaborator):
        buffer = torch.zeros(16, 3)

        def load_batch(self, ids: list[str]) -> Any:
            self.buffer[: len(ids)] = super().load_batch(ids)
            return torch.from_numpy(self.buffer.numpy())[: len(ids)] if numpy else self.buffer[: len(ids)]

    other = Reusing()

    outcome = end_of(Host(), other)

    assert isinstance(outcome.errors["c1"], EmbeddingError)
    assert_text(outcome.errors["c1"], "load_batch returned memory that still holds the batch before; expected new")
    assert same_bits(other.feature_model, Reusing().make_feature_model())


def test_user_code_that_fails_later_than_the_first_batch_is_named() -> None:
    class Later(Collaborator):
        def load_batch(self, ids: list[str]) -> Any:
            if ids[0] != self.train_ids[0]:
                raise KeyError
            return super().load_batch(ids)

    assert_text(end_of(Host(shuffle=False), Later()).raised, r"^c1, .*: Later\.load_batch\(\) raised KeyError")


def test_a_feature_model_or_optimizer_that_fails_is_named() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            raise IndexError

    class BrokenModel(Collaborator):
        def make_feature_model(self) -> nn.Module:
            return Broken()

    class BrokenStep(Collaborator):
        def make_feature_optimizer(self, feature_model: nn.Module) -> Any:
            return torch.optim.LBFGS(feature_model.parameters())  # its step needs a closure

    assert_text(end_of(Host(), BrokenModel()).raised, "^c1, .*: the feature model raised IndexError")
    assert_text(
        end_of(Host(), BrokenStep()).raised,
        "^c1, .*: the backward pass of the feature model or the step of its optimizer raised TypeError",
    )


def test_of_several_errors_the_one_that_the_others_follow_from_is_raised() -> None:
    aborted, timeout, own = TaskAborted("ended the task"), PeerTimeout("no part"), ConfigError("wrong")
    keys = ["host", "c1", "c2"]

    assert root_of({"host": aborted, "c1": timeout}, keys) is timeout
    assert root_of({"host": timeout, "c1": aborted, "c2": own}, keys) is own
    assert root_of({"c1": aborted}, keys) is aborted
    interrupt = KeyboardInterrupt()
    assert root_of({"host": own, "c1": interrupt}, keys) is interrupt


def test_two_parties_cannot_share_a_results_folder(tmp_path: Path) -> None:
    outcome = end_of(Host(out_dir=tmp_path / "same"), Collaborator(out_dir=tmp_path / "same"))

    assert isinstance(outcome.raised, ConfigError)
    assert_text(outcome.raised, "another running party writes to .*same; expected a folder of its own for every party")


def test_private_names_of_the_framework_cannot_be_taken_by_accident() -> None:
    with pytest.raises(ConfigError, match=r"Mine defines _calling, _run, which heterofed uses itself; expected other"):
        type("Mine", (Host,), {"_run": None, "_calling": None, "_own": 1, "_is_reach_max_rounds": None})


def test_a_constructor_that_forgets_ours_is_told_so() -> None:
    class Forgetful(Host):
        def __init__(self) -> None:
            self.data = 1

    with pytest.raises(ConfigError, match=r"Forgetful.__init__ does not call super\(\).__init__\(feature_key=…\)"):
        run_locally(Forgetful(), Collaborator())
    with pytest.raises(ConfigError, match=r"Forgetful.__init__ does not call super"):
        Forgetful().launch_task("task")


def test_nothing_is_updated_by_a_gradient_that_is_not_a_number() -> None:
    class NanLoss(Host):
        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            out = self.infer_model(torch.cat(list(feature_projection.values()), dim=1))
            (out.sum() * float("inf") * 0).backward()
            self.optimizer.step()

    host, other = NanLoss(), Collaborator()

    end_of(host, other)

    for model in (host.feature_model, host.infer_model, other.feature_model):
        assert all(each.isfinite().all() for each in model.parameters())


def test_two_backward_passes_in_one_batch_are_refused() -> None:
    class Twice(Host):
        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            for _ in range(2):
                feature_projection["c1"].sum().backward()

    assert_text(end_of(Twice(), Collaborator()).raised, "differentiated the embedding of c1 twice in one batch")


# --- set-up -------------------------------------------------------------------------------------------------------


def test_equal_feature_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match="feature keys a, a repeat; expected a feature_key of its own"):
        run_locally(Host("a"), Collaborator("a"))


def test_a_host_needs_a_collaborator() -> None:
    with pytest.raises(ConfigError, match="0 collaborators; expected 1 to 8"):
        run_locally(Host())


def test_a_scheduler_runs_once() -> None:
    host, other = Host(), Collaborator()
    run_locally(host, other)

    with pytest.raises(ConfigError, match="this scheduler has run already"):
        run_locally(host, other)


@pytest.mark.parametrize("culprit", ["host", "c1"])
def test_an_output_folder_that_cannot_be_written_stops_the_task_before_training(culprit: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    bad = tmp_path / "file" / "out"
    host = Host(out_dir=bad if culprit == "host" else None)
    other = Collaborator(out_dir=bad if culprit == "c1" else None)

    outcome = end_of(host, other)

    assert isinstance(outcome.errors[culprit], OutputError)
    assert_text(outcome.errors[culprit], rf"^{culprit}, .*cannot write .*file/out.*; expected a folder that")
    assert host.losses == []
    victim = outcome.errors["c1" if culprit == "host" else "host"]
    assert_text(victim, f"a file or folder cannot be written. The output of {culprit} says more")
    assert str(tmp_path) not in str(victim)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"feature_key": ""}, "feature_key"),
        ({"feature_key": "a/b"}, "feature_key"),
        (
            {"max_rounds": 0},
            "max_rounds is 0; expected a whole number, 1 or more, or None: train",
        ),
        ({"max_rounds": -1}, "max_rounds is -1"),
        ({"max_rounds": 2.5}, "max_rounds is 2.5"),
        ({"log_rounds": -1}, "log_rounds is -1; expected a whole number, 0 or more"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1; expected a whole number from 0 to 4294967295"),
        ({"calculation_timeout": -1}, "calculation_timeout is -1; expected seconds, 0 or more"),
        ({"schedule_timeout": float("nan")}, "schedule_timeout is nan"),
        ({"data_channel_timeout": 30}, "data_channel_timeout is 30; expected two numbers of seconds"),
        ({"data_channel_timeout": (30, "x")}, "data_channel_timeout is 'x'"),
        ({"name": ""}, "name is ''"),
    ],
)
def test_arguments_that_cannot_work_are_refused_at_once(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Host(**{"feature_key": "host", **arguments})


def test_unlimited_rounds_need_an_end() -> None:
    assert_text(end_of(Host(max_rounds=None), Collaborator()).raised, "max_rounds is not given; expected 1 or more")


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("make_feature_model", r"make_feature_model\(\) returned int; expected a torch.nn.Module"),
        ("make_feature_optimizer", r"make_feature_optimizer\(\) returned int; expected a torch.optim.Optimizer"),
        ("make_infer_model", r"make_infer_model\(\) returned int; expected a torch.nn.Module"),
        ("make_infer_optimizer", r"make_infer_optimizer\(\) returned int; expected a torch.optim.Optimizer"),
    ],
)
def test_a_make_method_that_gives_something_else_is_named(method: str, text: str) -> None:
    odd = type("Odd", (Host,), {method: lambda self, *args: 3})

    assert_text(end_of(odd(), Collaborator()).raised, text)


def test_a_scheduler_without_a_door_is_told_which_there_are() -> None:
    class Doorless(Host):
        load_batch = HostScheduler.load_batch

    assert_text(
        end_of(Doorless(), Collaborator()).raised,
        "does not say how to make its embeddings; expected iterate",
    )


def test_log_rounds_without_a_test_method_is_refused() -> None:
    class Untested(Host):
        test = HostScheduler.test

    assert_text(end_of(Untested(), Collaborator()).raised, r"log_rounds is 1, but there is no test\(\)")


def test_a_method_that_returns_instead_of_yielding_is_told_so() -> None:
    class Returning(OwnCollaborator):
        def iterate_train_feature(self, feature_model: nn.Module, train_ids: list[str]) -> Any:
            return [feature_model(self.rows(train_ids))]

    assert_text(end_of(OwnHost(), Returning()).raised, "iterate_train_feature returned list; expected a generator")


def assert_text(error: BaseException, pattern: str) -> None:
    assert re.search(pattern, str(error)), f"{pattern!r} is not in {error!s}"


@pytest.mark.parametrize("culprit", ["host", "c1"])
def test_who_asks_for_it_may_see_numbers_that_are_none_cross(monkeypatch: pytest.MonkeyPatch, culprit: str) -> None:
    """For who looks into a training that diverges: embeddings and gradients, at both ends."""
    monkeypatch.setenv("HETEROFED_CHECK_FINITE", "no")
    seen: dict[str, list[bool]] = {"embedding": [], "gradient": []}

    class Lenient(Host):
        def load_batch(self, ids: list[str]) -> Any:
            inputs, truth = super().load_batch(ids)
            return (inputs * float("nan") if culprit == "host" else inputs), truth

        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            seen["embedding"].append(bool(feature_projection[culprit].isnan().any()))
            (feature_projection["c1"].sum() * float("nan")).backward()

    class Spoilt(Collaborator):
        def load_batch(self, ids: list[str]) -> Any:
            return super().load_batch(ids) * (float("nan") if culprit == "c1" else 1.0)

    host, other = Lenient(max_rounds=1, log_rounds=0), Spoilt()
    other.trainer.register_hook_in_train(
        lambda ctx: seen["gradient"].append(bool(ctx.gradient.isnan().all())), "on_batch_backward"
    )

    run_locally(host, other)

    assert seen == {"embedding": [True] * 3, "gradient": [True] * 3}
    assert any(bool(each.isnan().any()) for each in other.feature_model.parameters())


@pytest.mark.parametrize("end", ["host", "c1"])
def test_each_end_has_its_own_say_whether_it_takes_numbers_that_are_none(end: str) -> None:
    """The one that is lenient lets them go; the other, which is not, refuses them."""

    class Sending(Host):
        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            (feature_projection["c1"].sum() * float("nan")).backward()

    class Spoilt(Collaborator):
        def load_batch(self, ids: list[str]) -> Any:
            return super().load_batch(ids) * float("nan")

    lenient = Settings(check_finite=False)
    if end == "host":
        outcome = end_of(Host(), Spoilt(settings=lenient))
        assert_text(outcome.raised, r"^c1, while training.*NaN or infinite")
    else:
        outcome = end_of(Sending(settings=lenient), Collaborator())
        assert_text(outcome.raised, r"^host, while training: sent a gradient that is NaN or infinite")
    assert isinstance(outcome.raised, TrainingDiverged)

"""The host: has the labels, runs the infer model, leads the course of the task."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from heterofed.checks import check_count
from heterofed.config import Settings
from heterofed.errors import ConfigError
from heterofed.grads.optimizer import OptimizerFacade
from heterofed.metrics.calculator import score
from heterofed.scheduler.batches.host_trainer import HostTrainer
from heterofed.scheduler.checks import check_seconds
from heterofed.scheduler.host_course import HostCourse
from heterofed.scheduler.launch import launch
from heterofed.scheduler.party import LEAST_KEPT
from heterofed.scheduler.predicting.loading import find_run
from heterofed.scheduler.predicting.opening import predicting
from heterofed.scheduler.predicting.predicted import Absent
from heterofed.scheduler.predicting.predictions import Predictions
from heterofed.scheduler.predicting.seat import prediction_seat
from heterofed.scheduler.seat import TaskResult
from heterofed.scheduler.templates import HostTemplates
from heterofed.scheduler.terms import declared
from heterofed.training.devices import unwrapped
from heterofed.training.hooks import BestCheckpointer, EvalHook, HookBase, PeriodicCheckpointer


class HostScheduler(HostCourse):
    """The party with the labels. Subclass it, write the template methods, call `launch_task(task_id=…)`.

    Args:
        feature_key: this party's name in the task, and the name of its embedding.
        name: what people call this run; the task's name by default.
        max_rounds: rounds to train, 1 or more; None: until `is_task_finished()`, which must then be overridden.
        calculation_timeout: longest time that any one step of any party may take, in seconds; 0: no limit.
        schedule_timeout: longest wait for an answer between two steps, in seconds; 0: no limit.
        data_channel_timeout: (longest wait for room in a peer's queue, longest wait for a part of the
            intersection), in seconds; 0: no limit.
        log_rounds: test after every so many rounds, and after the first and the last; 0: never.
        is_feature_trainable: False freezes this party's feature model.
        batch_size: rows of a batch, where `load_batch` is written; 128 by default.
        shuffle: a new order in every round, the same at every party, where `load_batch` is written; False by default.
        seed: of these orders, 0 <= seed < 2**32; a random one by default.
        best_metric: the number of a metric set by which the best round is known, "<set>/<key>", for example
            "test_results/accuracy"; every party then keeps that round's checkpoint as `model_best`.
        best_mode: "max" or "min": whether more or less of it is better; by default what its name tells, else "max".
        share_loss: whether the collaborators' progress shows the round's mean loss so far.
        checkpoint_every: keep a checkpoint after every so many batches besides those of rounds, where every party wrote
            `load_batch`; a run that was cut off then goes on in the middle of a round.
        checkpoint_every_s: the same by time: after so many seconds.
        max_staleness: for long links: how many batches the collaborators may be ahead of the gradients that they have
            applied, up to 32. 0: none, and the training is exact.
        local_steps: for long links: how many steps every party makes with one exchange of embeddings and gradients.
        batches_per_message: for long links: how many embeddings travel in one message, and then their gradients; at
            most `max_staleness` + 1.
        embedding_precision: how embeddings cross the wire: "float32", "float16", "bfloat16", "int8" or "topk:0.1", the
            tenth of each row that is largest; None: as they are.
        gradient_precision: the same for gradients.
        rejoin_timeout: how long to wait for a party whose link is down or whose process has ended, in seconds; 0: no
            limit. By default as the settings say.
        max_to_keep: how many numbered checkpoints to keep, 2 or more.
        device: where this party's models compute, "cuda" for example; they and what `load_batch` returns are moved
            there. None: the models stay where they were made.
        mixed_precision: "bfloat16": forward passes under `torch.autocast`; embeddings cross as float32. None: no.
        compile_models: True: the models are compiled by `torch.compile`; or the name of one of its backends.
        out_dir: folder for checkpoints and results; `runs/<task id>/<feature key>` by default.
        settings: what `HETEROFED_*` variables say, unless given.

    Raises:
        ConfigError: an argument cannot work.
    """

    batch_size: int
    shuffle: bool
    seed: int

    mean_rows: int = 0
    """Over how many train ids, at most, the mean embedding of each party is taken when training ends; 0: none is kept.

    It stands in for a party that is absent when predictions are made (`absent="mean"`).
    """

    def __init__(
        self,
        feature_key: str,
        name: str | None = None,
        max_rounds: int | None = None,
        calculation_timeout: float = 300,
        schedule_timeout: float = 30,
        data_channel_timeout: tuple[float, float] = (30, 60),
        log_rounds: int = 0,
        is_feature_trainable: bool = True,
        *,
        batch_size: int | None = None,
        shuffle: bool | None = None,
        seed: int | None = None,
        best_metric: str | None = None,
        best_mode: Literal["max", "min"] | None = None,
        share_loss: bool = True,
        checkpoint_every: int | None = None,
        checkpoint_every_s: float | None = None,
        max_staleness: int = 0,
        local_steps: int = 1,
        batches_per_message: int = 1,
        embedding_precision: str | None = None,
        gradient_precision: str | None = None,
        rejoin_timeout: float | None = None,
        max_to_keep: int = LEAST_KEPT,
        device: str | torch.device | None = None,
        mixed_precision: str | None = None,
        compile_models: bool | str = False,
        out_dir: str | Path | None = None,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(
            feature_key,
            name,
            schedule_timeout=schedule_timeout,
            data_channel_timeout=data_channel_timeout,
            is_feature_trainable=is_feature_trainable,
            rejoin_timeout=rejoin_timeout,
            max_to_keep=max_to_keep,
            device=device,
            mixed_precision=mixed_precision,
            compile_models=compile_models,
            out_dir=out_dir,
            settings=settings,
        )
        check_count("max_rounds", max_rounds, 1, or_none="train until is_task_finished()")
        check_count("log_rounds", log_rounds, 0)
        check_count("batch_size", batch_size, 1, or_none="128")
        check_count("seed", seed, 0, 2**32 - 1, or_none="a random one")
        check_seconds("calculation_timeout", calculation_timeout)
        check_count("checkpoint_every", checkpoint_every, 1, or_none="only after rounds")
        if checkpoint_every_s is not None:
            check_seconds("checkpoint_every_s", checkpoint_every_s)
        self.checkpoint_every = checkpoint_every
        self.checkpoint_every_s = checkpoint_every_s
        self._terms = declared(
            max_staleness=max_staleness,
            local_steps=local_steps,
            batches_per_message=batches_per_message,
            embedding_precision=embedding_precision,
            gradient_precision=gradient_precision,
            checkpoint_every=checkpoint_every,
        )
        self.max_rounds = max_rounds
        self.calculation_timeout = float(calculation_timeout)
        self.log_rounds = log_rounds
        # What a subclass has set before it called us stays, unless it is given here.
        for name, given, default in (
            ("batch_size", batch_size, 128),
            ("shuffle", shuffle, False),
            ("seed", seed, secrets.randbits(32)),
        ):
            if given is not None or name not in vars(self):
                setattr(self, name, default if given is None else given)
        if best_mode not in ("max", "min", None):
            raise ConfigError(f"best_mode is {best_mode!r}", expected='"max", "min" or None')
        if best_metric is not None and not log_rounds:
            raise ConfigError(f"best_metric is {best_metric!r}, but log_rounds is 0", expected="tests that measure it")
        self.best_metric = best_metric
        self.best_mode = best_mode
        self.share_loss = bool(share_loss)

    # --- what users may override --------------------------------------------------------------------------------------

    def is_task_finished(self) -> bool:
        """Whether training ends with the round just trained and, if it was due, tested; asked once a round.

        By default when `max_rounds` is reached.
        """
        return self._is_reach_max_rounds()

    def _is_reach_max_rounds(self) -> bool:
        return self.max_rounds is not None and self.current_round >= self.max_rounds

    def build_hooks(self) -> list[HookBase]:
        """Return the hook objects of every party, and the round's test and the best checkpoint besides."""
        hooks = super().build_hooks()
        place = next(i for i, each in enumerate(hooks) if isinstance(each, PeriodicCheckpointer)) + 1
        tests: list[HookBase] = [EvalHook(1, lambda: self.trainer.test_if_due(), every="round", name="RoundTest")]
        if self.best_metric is not None:
            tests.append(BestCheckpointer(self.best_metric, self.best_mode, every="round"))
        return [*hooks[:place], *tests, *hooks[place:]]

    def trainable_parties(self) -> Collection[str] | None:
        """Return the feature keys of the parties whose models move in the round that begins; None, the default: all.

        The other parties give their embeddings and stay as they are; every party runs its hooks of fine-tuning.
        Asked before each round, whose number is `self.trainer.current_round`.
        """
        return None

    def validate_context(self) -> None:
        """Check that this party can run, as in `Scheduler`, and the infer model and the end of training besides."""
        super().validate_context()
        if not isinstance(self.infer_model, nn.Module):
            raise self._made_wrong("make_infer_model", self.infer_model, "a torch.nn.Module")
        if not isinstance(self.infer_optimizer, Optimizer):
            raise self._made_wrong("make_infer_optimizer", self.infer_optimizer, "a torch.optim.Optimizer")
        if self.max_rounds is None and type(self).is_task_finished is HostScheduler.is_task_finished:
            raise ConfigError("max_rounds is not given", expected="1 or more", advice="Or override is_task_finished().")
        table, _, column = (self.best_metric or "").rpartition("/")
        if table in self._metric_sets and column not in self._metric_sets[table].headers:
            raise ConfigError(
                f"best_metric is {self.best_metric!r}, but the metric set {table} has no {column!r}",
                expected="one of " + ", ".join(f"{table}/{each}" for each in self._metric_sets[table].headers),
            )
        if self.log_rounds and type(self).test is HostTemplates.test:
            raise ConfigError(f"log_rounds is {self.log_rounds}, but there is no test()", expected="a test() method")

    # --- what users may call ------------------------------------------------------------------------------------------

    @cached_property
    def infer_model(self) -> nn.Module:
        """The model over the fused embeddings, made at its first use."""
        return self._made_model("make_infer_model", self.make_infer_model)

    @cached_property
    def infer_optimizer(self) -> Optimizer:
        """The optimizer of the infer model, made at its first use."""
        with self._calling("make_infer_optimizer"):
            return self.make_infer_optimizer(self.infer_model)

    @cached_property
    def optimizer(self) -> OptimizerFacade:
        """`zero_grad()` and `step()` of the infer model and, unless frozen, of this party's feature model."""
        own = [self.feature_optimizer] if self.is_trainable else []
        return OptimizerFacade([self.infer_optimizer, *own], lambda: self.trainer.before_optimizer_step())

    @cached_property
    def trainer(self) -> HostTrainer:
        """The loop that runs this party's rounds; hooks are registered here."""
        return self._make_trainer(HostTrainer)

    def score(self, y_true: Any, y_prob: Any, *names: str, loss: float | None = None) -> dict[str, float]:
        """Return metrics by name, those of `HETEROFED_METRICS` besides, and keep them as "score/<name>".

        Args:
            y_true: (rows,) the labels.
            y_prob: (rows, classes) the scores, or (rows,) of two classes; the highest wins.
            names: metrics, as `heterofed.metrics.calculator` or `register_metric` names them.
            loss: the mean loss, for the metrics that want it.

        Raises:
            ConfigError: there is no metric of a name.
        """
        values = score(dict.fromkeys([*names, *self.settings.metrics]), y_true, y_prob, loss=loss)
        self.storage.put_scalars({f"score/{name}": value for name, value in values.items()}, smoothing_hint=False)
        return values

    def launch_task(self, task_id: str, recover: bool = False) -> TaskResult:
        """Run this party of a task to its end, with the other parties over the network.

        Args:
            task_id: as `heterofed task create` printed it.
            recover: go on from the newest checkpoint that every party holds, if there is one.

        Raises:
            HeterofedError: the task cannot go on; the text says whose trouble it is and what to do. Every other
                party ends with the same reason.
        """
        return launch(self, task_id, host=True, recover=recover)

    @contextmanager
    def open_predictions(
        self,
        task_id: str | None = None,
        ids: Sequence[str] | None = None,
        *,
        absent: Absent = "fail",
        wait: float | None = None,
    ) -> Iterator[Predictions]:
        """Predict with what a completed run has trained, together with the other parties, inside a `with` block.

        The weights are those of the run in `out_dir`, whose files are checked. The ids are matched once, when the
        session is opened; requests are a trip there and back each.

        Args:
            task_id: the task that run must be of; None: whichever it is.
            ids: all that will be asked for, those that this host does not have too; None: `load_local_ids()`.
            absent: what to do without a collaborator that does not come, and for ids that not all parties have:
                "fail": such a party ends the session, such ids are UNKNOWN; "mean" or "zeros": each party's mean
                embedding of the training (see `mean_rows`), or zeros, stand in for what is not there.
            wait: how long to wait for the collaborators, in seconds; 0: for ever. By default as the settings say.

        Raises:
            ConfigError: the folder is of another party or task, or an argument cannot work.
            DataError: the folder does not hold a completed run, or a file of it was changed.
            HeterofedError: a party failed or did not come; every other party ends with the same reason.
        """
        if wait is not None:
            check_seconds("wait", wait)
        manifest = find_run(self, "host", task_id)
        with (
            prediction_seat(self, manifest, wait_s=0.0) as seat,
            predicting(self, seat, manifest, ids, absent=absent, wait_s=wait) as predictions,
        ):
            yield predictions

    # --- small things -------------------------------------------------------------------------------------------------

    def _kept_models(self) -> dict[str, nn.Module]:
        return {**super()._kept_models(), "infer": unwrapped(self.infer_model)}

    def _kept_optimizers(self) -> dict[str, Optimizer]:
        return {**super()._kept_optimizers(), "infer": self.infer_optimizer}

"""A party as one that learns: its models, its trainer with hooks and writers, its batches, what it measures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, Literal, TypeVar

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler as TorchScheduler

from heterofed.errors import ConfigError, HeterofedError
from heterofed.features.batches import RoundOrder
from heterofed.features.embedder import BatchSource, PlannedBatches, UserBatches
from heterofed.features.form import EmbeddingForm
from heterofed.frames.messages import LOCK_STEP
from heterofed.grads.cut_layer import device_of
from heterofed.metrics.calculator import MetricCalculator
from heterofed.metrics.storage import LINE_KEYS, EventStorage
from heterofed.metrics.tables import MetricsTable
from heterofed.metrics.tensorboard import TensorboardWriter
from heterofed.metrics.writers import CSVWriter, EventWriter, JSONWriter
from heterofed.scheduler.batches.figures import ExchangeFigures, RoundFigures
from heterofed.scheduler.batches.party_trainer import PartyTrainer
from heterofed.scheduler.party import Party
from heterofed.scheduler.terms import summary
from heterofed.tasks.options import UncertaintyName
from heterofed.training.devices import unwrapped
from heterofed.training.hooks import (
    HookBase,
    IterationTimer,
    LRScheduler,
    PeriodicCheckpointer,
    PeriodicWriter,
    ProgressBar,
)
from heterofed.training.registries import apply_hook, load_plugins, trainer_class
from heterofed.uncertainty import SwagHook

T = TypeVar("T", bound=PartyTrainer[Any])

WRITE_EVERY = 50
"""After how many batches `metrics.json` gets a line. To write one takes about as long as 15 batches of all hooks."""


class Learner(Party):
    """What of a scheduler concerns its trainer; see `Scheduler`."""

    _terms = LOCK_STEP

    # --- what users may override --------------------------------------------------------------------------------------

    schedule_every: Literal["batch", "round"] = "round"
    """How often the schedules of `make_schedule` step."""

    def make_schedule(self, optimizer: Optimizer) -> TorchScheduler | None:
        """Return a schedule of torch.optim.lr_scheduler for one of this party's optimizers; None, the default: none.

        Called once for each optimizer, when the first round begins or the run resumes.
        """
        return None

    def build_hooks(self) -> list[HookBase]:
        """Return the hook objects of this party's trainer, in the order in which they are called.

        Extend the list: `return [*super().build_hooks(), MyHook()]`. Called once, when `trainer` is made.
        """
        return [
            IterationTimer(),
            LRScheduler(self._schedule_of, every=self.schedule_every),
            PeriodicCheckpointer(every="round"),
            ProgressBar(lambda: self._at_seat.progress, rows_total=lambda: len(self.train_ids)),
            RoundFigures(lambda: self._linked.meter, lambda: self.trainer.round_loss.value),
            ExchangeFigures(lambda: self._linked.meter, lambda: summary(self._terms), self._last_scores),
            PeriodicWriter(lambda: self.trainer.build_writers(), WRITE_EVERY),
        ]

    def build_writers(self) -> list[EventWriter]:
        """Return what writes the measurements down.

        Called when the first round begins, and again when a run goes back to a checkpoint.
        """
        folder = self._results_folder
        first = min([self.trainer.start_iter, *self._unshown()])
        writers: list[EventWriter] = [
            JSONWriter(folder / "metrics.json", start_iter=first),
            CSVWriter(folder, self._metric_sets),
        ]
        if self.settings.tensorboard:
            writers.append(TensorboardWriter(folder / "tensorboard", start_iter=first))
        return writers

    def _unshown(self) -> list[int]:
        """Return the first iteration that was not shown when the checkpoint was written which the run goes on from.

        What was shown of it and later, when a run was cut off, an undisturbed run would not have shown there.
        """
        return [hook.shown_until + 1 for hook in self.trainer.hooks.values() if isinstance(hook, PeriodicWriter)][:1]

    # --- what users may call ------------------------------------------------------------------------------------------

    def get_metrics(self, name: str) -> MetricsTable:
        """Return the metric set that `register_metrics(name=…)` declared.

        Raises:
            ConfigError: no set has this name.
        """
        try:
            return self._metric_sets[name]
        except KeyError:
            known = ", ".join(self._metric_sets) or "none"
            raise ConfigError(
                f"there is no metric set {name!r}; declared: {known}",
                advice=f"Put @register_metrics(name={name!r}, keys=[…]) on a method of {type(self).__name__}.",
            ) from None

    @property
    @abstractmethod
    def trainer(self) -> PartyTrainer[Any]:
        """The loop that runs this party's rounds; hooks are registered here."""

    @property
    def storage(self) -> EventStorage:
        """What this party has measured so far."""
        return self.trainer.storage

    @property
    def current_round(self) -> int:
        """Number of the round in progress, or of the last one; from 1, and 0 before the first."""
        return self.trainer.current_round if "trainer" in vars(self) else 0

    @property
    def train_ids(self) -> list[str]:
        """The shared ids to train on, in the order of every party."""
        return self._id_split[0]

    @property
    def test_ids(self) -> list[str]:
        """The shared ids to test on, in the order of every party."""
        return self._id_split[1]

    @cached_property
    def feature_model(self) -> nn.Module:
        """This party's feature model, made at its first use."""
        model = self._made_model("make_feature_model", self.make_feature_model)
        if not isinstance(model, nn.Module):
            return model
        if not self.is_feature_trainable:
            model.requires_grad_(False)
        said = vars(self).pop("is_trainable", False)  # before there was a model
        if said and not _learns(model) and self._seat is not None and self.feature_key != self.task_parties[0]:
            raise ConfigError(
                "the feature model has no parameter that learns, and the host was told that it learns",
                expected="is_feature_trainable=False where a model is made after the matching and does not learn",
                advice="Give it to this party's class; `heterofed train` has --frozen for it.",
            )
        return model

    def _made_model(self, method: str, make: Callable[[], nn.Module]) -> nn.Module:
        """Return a model that the user's method makes, where and how it is to compute."""
        self._computing.check()
        with self._calling(method):
            model = make()
        if isinstance(model, nn.Module):
            with self._calling(f"the preparation of the model of {method}()"):
                self._computing.prepare(model)
        return model

    @cached_property
    def feature_optimizer(self) -> Optimizer:
        """The optimizer of the feature model, made at its first use."""
        with self._calling("make_feature_optimizer"):
            return self.make_feature_optimizer(self.feature_model)

    @cached_property
    def is_trainable(self) -> bool:
        """False when the feature model is frozen or has no parameter that learns.

        Of models that are made after the matching, what the host is told before goes by `is_feature_trainable` alone.
        """
        made = "feature_model" in vars(self) or not self.models_after_alignment
        return self.is_feature_trainable and (not made or _learns(self.feature_model))

    # --- for the trainer ----------------------------------------------------------------------------------------------

    @property
    def own_batches(self) -> bool:
        """True when this party's code chooses its batches (`iterate_*`), False when it wrote `load_batch`."""
        return not self._wrote("load_batch")

    def _pass_over(self, order: RoundOrder, *, train: bool, with_labels: bool, first: int = 0) -> BatchSource:
        """Return the batches of one pass, from the first that is not done, by the door that the user wrote."""
        method = "iterate_train_feature" if train else "iterate_test_feature"
        source = method if self.own_batches else "the feature model"
        computing = self._computing
        form = EmbeddingForm(
            self.feature_key,
            source,
            finite=self.settings.check_finite,
            widen=computing.mixed,
            may_be_hollow=with_labels,
        )
        if not self.own_batches:
            load: Callable[[list[str]], Any] = self.load_batch
            model: Callable[[Any], Any] = self.feature_model
            place: Callable[[Any], Any] = computing.place
            if self._replicas is not None:  # this party has several processes
                load, model, place = self._replicas.pass_over(order, train=train, with_labels=with_labels, first=first)
            return PlannedBatches(
                order,
                load=load,
                model=partial(self._in_mixed_precision, model) if computing.mixed else model,
                with_labels=with_labels,
                form=form,
                guard=self._calling,
                place=place,
                first=first,
                in_use=self._terms.max_staleness + 1,
            )
        ids = list(self.train_ids if train else self.test_ids)
        return UserBatches(
            lambda: getattr(self, method)(self.feature_model, ids),
            rows_expected=len(ids),
            with_labels=with_labels,
            form=form,
            method=method,
            guard=self._calling_in_mixed_precision if computing.mixed else self._calling,
            place=computing.place,
            warn=self._warn_once,
        )

    def _in_mixed_precision(self, model: Callable[[Any], Any], inputs: Any) -> Any:
        with self._computing.autocast(device_of(self.feature_model)):
            return model(inputs)

    @contextmanager
    def _calling_in_mixed_precision(self, method: str) -> Iterator[None]:
        with self._calling(method), self._computing.autocast(device_of(self.feature_model)):
            yield

    def _round_at_hand(self) -> int:
        return self.current_round

    def _note_round(self) -> None:
        """Keep for the task's record what the round at hand has cost."""
        now = self.current_round
        swag = any(isinstance(each, SwagHook) and now >= each.from_round for each in self.trainer.hooks.values())
        # Where the task asks for moments, each round is waited for, also one after which our user's hook takes none.
        asked = self._seat is not None and self._seat.uncertainty == "swag"
        self._telling.done(now, self.storage, swag=swag or asked)

    def _collect(self, uncertainty: UncertaintyName | None) -> None:
        """Collect what the task wants after each round; a hook of the user's own that does stays the only one."""
        collects = any(isinstance(each, SwagHook) for each in self.trainer.hooks.values())
        if uncertainty == "swag" and not collects:
            self.trainer.register_hooks([SwagHook()])

    def _last_scores(self) -> str:
        """Return the last row of every metric set, in words."""
        last = [(table.headers, table.rows()[-1]) for table in self._metric_sets.values() if len(table)]
        return ", ".join(
            f"{header} {cell:.4g}" if isinstance(cell, float) else f"{header} {cell}"
            for headers, row in last
            for header, cell in zip(headers, row, strict=True)
        )

    def _schedule_of(self, optimizer: Optimizer) -> TorchScheduler | None:
        with self._calling("make_schedule"):
            return self.make_schedule(optimizer)

    def _check_plugins(self) -> None:
        """Find out now whether what hooks and settings need is there, rather than after the matching."""
        _ = self.trainer  # loads the plugins, which may register what follows
        MetricCalculator(self.settings.metrics)
        if self.settings.tensorboard:
            TensorboardWriter(self._results_folder)

    def _make_trainer(self, default: type[T]) -> T:
        """Return a new trainer, of the class and with the hooks that the settings name."""
        if self._making_trainer:
            raise ConfigError(
                f"{type(self).__name__}.build_hooks() uses the trainer that it is to make hooks for",
                expected="hooks that use their own self.trainer, when they are called",
            )
        self._making_trainer = True
        try:
            load_plugins(self.settings.plugins)
        except HeterofedError as error:
            raise error.privately("it cannot load a plug-in") from error.__cause__
        kind = default
        if self.settings.trainer:
            found = trainer_class(self.settings.trainer)
            if not issubclass(found, default):
                raise ConfigError(
                    f"the trainer {self.settings.trainer} is a {found.__name__}",
                    expected=f"a subclass of {default.__name__}",
                )
            kind = found
        with self._calling(f"the constructor of {kind.__name__}"):
            trainer = kind(self)
        self._making_trainer = False
        for name, table in self._metric_sets.items():
            table.report_to(partial(_put, trainer.storage, name))
        for name in self.settings.hooks:
            with self._calling(f"the hook {name} of the settings"):
                apply_hook(name, trainer)
        return trainer

    def _go_on_from(self, name: str) -> None:
        """Take the state of a checkpoint."""
        try:
            self.trainer.go_to(name)
        except HeterofedError as error:
            raise error.privately("it cannot go on from its checkpoint") from error.__cause__
        trainer = self.trainer
        where = f"after round {trainer.round}" if trainer.round else "from the start"
        if trainer.done_in_routine:
            where = f"after batch {trainer.done_in_routine} of round {trainer.round + 1}"
        self._at_seat.progress.say(f"{self.feature_key} goes on {where} (checkpoint {name})")
        self._telling.tell_again(self._metric_sets)

    def _kept_models(self) -> dict[str, nn.Module]:
        return {"feature": unwrapped(self.feature_model)}

    def _kept_optimizers(self) -> dict[str, Optimizer]:
        return {"feature": self.feature_optimizer} if self.is_trainable else {}


def _learns(model: nn.Module) -> bool:
    return any(each.requires_grad for each in model.parameters())


def _put(storage: EventStorage, table: str, header: str, value: int | float) -> None:
    """Put a number of a metric table into the storage too, but for what each of its points says anyway."""
    if header in LINE_KEYS:
        return
    storage.put_scalar(f"{table}/{header}", value, smoothing_hint=False)

"""Learning rates that change as training goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler as TorchScheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau

from heterofed.errors import ConfigError
from heterofed.training.hooks.base import HookBase
from heterofed.training.hooks.cadence import Latest, checked_every


class LRScheduler(HookBase):
    """Records the learning rate of every batch, then lets schedules change it for the next.

    Scalars: `lr`, and with several optimizers `lr/<name>` for each, of which the first one's is `lr`. Of an optimizer
    with several parameter groups it is the group with the most parameters that counts; of several such the one whose
    first learning rate is the most common.

    Args:
        make: makes a schedule of torch.optim.lr_scheduler for an optimizer; called for each of `trainer.optimizers`,
            when the run begins or resumes; None for one that has no schedule. Without it, and without `scheduler`,
            learning rates are only recorded.
        optimizer: the name of one optimizer, or "all".
        every: step the schedules after each "batch" or each "round".
        scheduler: a schedule that is made already, instead of `make`.
        metric: the scalar that ReduceLROnPlateau follows; it steps when this has a new value.

    Raises:
        ConfigError: (at once) `make` and `scheduler` both, or another `every`; (when the run begins) no optimizer of
            this name, `make` gave no schedule, or one that needs a metric and has none.
    """

    part = "lr_scheduler"
    patient = True

    def __init__(
        self,
        make: Callable[[Optimizer], TorchScheduler | None] | None = None,
        *,
        optimizer: str = "all",
        every: str = "batch",
        scheduler: TorchScheduler | None = None,
        metric: str = "",
    ) -> None:
        if make is not None and scheduler is not None:
            raise ConfigError("an LRScheduler got both make and scheduler", expected="one of them, or neither")
        self._make = make
        self._which = optimizer
        self._every = checked_every(every)
        self._ready = scheduler
        self._metric = Latest(metric, "LRScheduler") if metric else None
        self._schedulers: dict[str, TorchScheduler] | None = None
        self._recorded: list[tuple[str, Optimizer, int]] | None = None

    @property
    def schedulers(self) -> dict[str, TorchScheduler]:
        """The schedules by the name of their optimizer; made when first asked for."""
        if self._schedulers is None:
            # Not earlier: to make one changes its optimizer, which a checkpoint's state then puts right.
            self._schedulers = dict(self._made())
        return self._schedulers

    def _made(self) -> Iterator[tuple[str, TorchScheduler]]:
        optimizers = self.trainer.optimizers
        if self._which != "all" and self._which not in optimizers:
            raise ConfigError(
                f"there is no optimizer {self._which!r}", expected="one of " + (", ".join(optimizers) or "none")
            )
        if self._ready is not None:
            of = (name for name, each in optimizers.items() if each is self._ready.optimizer)
            yield next(of, "given"), self._checked(self._ready)
        elif self._make is not None:
            for name, optimizer in optimizers.items():
                made = self._make(optimizer) if self._which in ("all", name) else None
                if made is not None:
                    yield name, self._checked(made)

    def _checked(self, scheduler: object) -> TorchScheduler:
        if not isinstance(scheduler, TorchScheduler):
            raise ConfigError(
                f"an LRScheduler got a {type(scheduler).__name__}",
                expected="a schedule of torch.optim.lr_scheduler",
                advice="Give a function that makes one: LRScheduler(lambda optimizer: StepLR(optimizer, 30)).",
            )
        if isinstance(scheduler, ReduceLROnPlateau) and self._metric is None:
            raise ConfigError(
                "ReduceLROnPlateau has no metric to follow", advice='Name a scalar: LRScheduler(…, metric="loss").'
            )
        # Its steps come after those of the optimizer, always. torch doubts that where no parameters have changed yet in
        # this process, as when a run resumes at the end of a round or a model is frozen, and would warn.
        vars(scheduler.optimizer)["_opt_called"] = True
        return scheduler

    def before_train(self) -> None:
        """Make the schedules, unless that is done."""
        _ = self.schedulers

    def before_fit(self) -> None:
        """Make the schedules before the first batch of a routine that is called without a run."""
        _ = self.schedulers

    def after_step(self) -> None:
        """Record the batch's learning rates; step if batches count."""
        trainer = self.trainer
        if trainer.ctx.nested:
            return
        if self._recorded is None:
            named = [(f"lr/{name}", each) for name, each in trainer.optimizers.items()]
            named = [("lr", each) for _, each in named[:1]] + (named if len(named) > 1 else [])
            self._recorded = [(name, each, best_group(each.param_groups)) for name, each in named]
        put = trainer.storage.put_scalar
        for name, optimizer, best in self._recorded:
            put(name, optimizer.param_groups[best]["lr"], False)
        if self._every == "batch":
            self._step()

    def after_round(self) -> None:
        """Step if rounds count."""
        if self._every == "round":
            self._step()

    def _step(self) -> None:
        new = self._metric.look(self.trainer.storage) if self._metric is not None else None
        for scheduler in self.schedulers.values():
            if not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()
            elif new is not None:
                scheduler.step(new[0])

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedules are; nothing where there are none."""
        if not self.schedulers:
            return {}
        seen = self._metric.seen if self._metric is not None else 0
        return {"schedulers": {name: each.state_dict() for name, each in self.schedulers.items()}, "seen": seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there. The optimizers' own states, with the learning rates, have to be loaded after this.

        Raises:
            ConfigError: the state is of schedules for other optimizers.
        """
        saved = state["schedulers"]
        if saved.keys() != self.schedulers.keys():
            raise ConfigError(
                f"the checkpoint has schedules for {', '.join(saved) or 'no optimizer'}",
                expected=", ".join(self.schedulers) or "none: this LRScheduler makes no schedule",
            )
        for name, scheduler in self.schedulers.items():
            scheduler.load_state_dict(saved[name])
        if self._metric is not None:
            self._metric.seen = state["seen"]


def best_group(groups: list[dict[str, Any]]) -> int:
    """Return the position of the parameter group whose learning rate stands for its optimizer's; see `LRScheduler`."""
    first = [float(group.get("initial_lr", group["lr"])) for group in groups]
    most = max(len(group["params"]) for group in groups)
    rates = {at: first[at] for at, group in enumerate(groups) if len(group["params"]) == most}
    common = Counter(rates.values()).most_common(1)[0][0]
    return next(at for at, rate in rates.items() if rate == common)

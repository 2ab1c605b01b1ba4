"""Hooks that measure how good the model is, and end a run that gets no better."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any

from heterofed.errors import ConfigError
from heterofed.metrics.calculator import direction_of
from heterofed.metrics.early_stop import EarlyStop
from heterofed.training.hooks.cadence import Latest, PeriodicHook


class EvalHook(PeriodicHook):
    """Calls a function every so often, and once at a good end, and puts what it returns into the storage.

    Args:
        period: after how many batches or rounds; 0: only at the end.
        function: returns {"test": {"accuracy": 0.9}}, which becomes the scalar `test/accuracy`, nested as deep as it
            likes; or None or something empty, where there is nothing to report.
        every: "batch" or "round".
        name: what this hook is called, where there are several of them.

    Raises:
        ConfigError: an argument is none of these; (when called) the function returned something else.
        ValueError: (when called) a value is no number.
    """

    def __init__(self, period: int, function: Callable[[], Any], *, every: str = "batch", name: str = "") -> None:
        super().__init__(period, every)
        if not callable(function):
            raise ConfigError(
                f"an EvalHook evaluates with a {type(function).__name__}", expected="a function without arguments"
            )
        self.name = name
        self._function = function
        self._evaluated_at: int | None = None
        self._busy = False

    def act(self) -> None:
        """Evaluate."""
        self._evaluate(self.done())

    def after_train(self) -> None:
        """Evaluate a good run's last parameters, unless that was the last thing it did."""
        trainer = self.trainer
        done = trainer.iter if self.every == "batch" else trainer.round
        if trainer.run_ok and done != self._evaluated_at:
            self._evaluate(done)

    def _evaluate(self, done: int) -> None:
        if self._busy:
            return  # the function trains, on a copy say, with this trainer
        self._busy = True
        try:
            result = self._function()
        finally:
            self._busy = False
        self._evaluated_at = done
        if isinstance(result, Mapping):
            self.trainer.storage.put_scalars(dict(flattened(result)), smoothing_hint=False)
        elif not (result is None or result is False or (isinstance(result, Sized) and len(result) == 0)):
            raise ConfigError(
                f"the function of {self.name or 'EvalHook'} returned a {type(result).__name__}",
                expected="a dict, name -> number, or None",
            )

    def state_dict(self) -> dict[str, Any]:
        """Return when the last evaluation was."""
        return {"evaluated_at": self._evaluated_at}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self._evaluated_at = state["evaluated_at"]


def flattened(results: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of nested dicts, named by their way: a/b.

    Raises:
        ValueError: a value is no number.
    """
    for key, value in results.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flattened(value, f"{name}/")
            continue
        try:
            if isinstance(value, str | bytes):
                raise TypeError("a text")
            number = float(value.item() if hasattr(value, "item") else value)
        except (TypeError, ValueError, RuntimeError) as error:  # torch: RuntimeError for several elements
            raise ValueError(f"{name} of an evaluation is a {type(value).__name__}; it has to be one number") from error
        yield name, number


class EarlyStopper(PeriodicHook):
    """Ends the run after the round in which a scalar has not got better for long. Register it after what measures it.

    Args:
        metric: the scalar's name in the storage, for example "val/loss". Each new value counts once; if several come
            between two looks, the newest.
        patience, delta, mode: as in `EarlyStop`.
        larger_is_better: by default what the metric's name tells ("test_results/accuracy": True), else False.
        every: look at the scalar after each "batch" or "round".

    Raises:
        ConfigError: an argument is none of these.
    """

    def __init__(
        self,
        metric: str,
        patience: int,
        delta: float = 0.0,
        mode: str = "best",
        larger_is_better: bool | None = None,
        every: str = "round",
    ) -> None:
        super().__init__(1, every)
        if larger_is_better is None:
            larger_is_better = direction_of(metric) is True
        self.early_stop = EarlyStop(patience, delta, mode, larger_is_better)
        self._latest = Latest(metric, "EarlyStopper")
        self._asked: str | None = None
        self._resumed = False

    def before_train(self) -> None:
        """End at once if the run that this one resumes was about to end; otherwise begin."""
        resumed, self._resumed = self._resumed, False
        if not resumed:
            self._asked = None
        elif self._asked is not None and self.trainer.done_in_routine == 0:
            self.trainer.stop(self._asked)

    def after_rewind(self) -> None:
        """End at once if the round gone back to was to be the last one."""
        self.before_train()

    def before_round(self) -> None:
        """Repeat the word, if a resumed run still has the rest of its last round to do."""
        if self._asked is not None:
            self.trainer.stop(self._asked)

    def act(self) -> None:
        """Look at the scalar; end the run if it was patient enough."""
        new = self._latest.look(self.trainer.storage)
        if new is None or not self.early_stop.track(new[0]) or self._asked is not None:
            return
        stop = self.early_stop
        best = "no finite value so far" if stop.best is None else f"best {stop.best:.6g}"
        against = "the best one" if stop.mode == "best" else "the mean of those before"
        better = "more" if stop.larger_is_better else "less"
        self._asked = (
            f"{self._latest.metric} is no better than {against}, with a patience of {stop.patience} "
            f"({best}; {better} counts as better)"
        )
        self.trainer.stop(self._asked)

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen, and whether the run is to end."""
        return {"early_stop": self.early_stop.state_dict(), "seen": self._latest.seen, "asked": self._asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self.early_stop.load_state_dict(state["early_stop"])
        self._latest.seen, self._asked = state["seen"], state["asked"]
        self._resumed = True

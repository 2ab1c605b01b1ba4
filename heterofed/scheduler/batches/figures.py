"""What each round cost: seconds of own computing, of waiting and for whom, of the wire, and bytes each way."""

from __future__ import annotations

import time
from collections.abc import Callable

from heterofed.metrics.meter import Meter
from heterofed.metrics.progress import logger
from heterofed.metrics.runs import human_bytes
from heterofed.training.hooks import HookBase


class RoundFigures(HookBase):
    """Puts the figures of each round, its test included, into the storage under `round/…`.

    Args:
        meter: gives the sums of this party's link.
        mean_loss: gives the round's mean loss, where it is known.
    """

    def __init__(self, meter: Callable[[], Meter], mean_loss: Callable[[], float | None]) -> None:
        self._meter = meter
        self._mean_loss = mean_loss
        self._before = Meter()
        self._began = self._fit_began = self._fit_s = 0.0
        self._samples = 0

    def before_round(self) -> None:
        """Read the sums."""
        self._before = self._meter().copy()
        self._began = time.perf_counter()
        self._samples = self.trainer.storage.samples

    def before_fit(self) -> None:
        """Note when training begins."""
        self._fit_began = time.perf_counter()

    def after_fit(self) -> None:
        """Note how long training took."""
        self._fit_s = time.perf_counter() - self._fit_began

    def after_round(self) -> None:
        """Put down what has been added."""
        seconds = time.perf_counter() - self._began
        cost = self._meter().since(self._before)
        figures: dict[str, float] = {
            "round/seconds": seconds,
            "round/compute_s": max(0.0, seconds - sum(cost.waited_s.values()) - cost.wire_s),
            "round/wire_s": cost.wire_s,
            "round/bytes_sent": cost.bytes_sent,
            "round/bytes_received": cost.bytes_received,
            "round/rows_per_s": (self.trainer.storage.samples - self._samples) / max(self._fit_s, 1e-9),
        }
        figures.update({f"round/wait_s/{peer}": waited for peer, waited in cost.waited_s.items()})
        mean = self._mean_loss()
        if mean is not None:
            figures["round/loss"] = mean
        self.trainer.storage.put_scalars(figures, smoothing_hint=False)


class ExchangeFigures(HookBase):
    """Says at the end of a run what the declared way of exchange has saved; says nothing of lock-step.

    Args:
        meter: gives the sums of this party's link.
        declared: gives what was declared, in words; empty for lock-step.
        scores: gives what the last test measured, in words; empty where this party measures nothing.
    """

    def __init__(self, meter: Callable[[], Meter], declared: Callable[[], str], scores: Callable[[], str]) -> None:
        self._meter = meter
        self._declared = declared
        self._scores = scores

    def after_train(self) -> None:
        """Log it."""
        if not self.trainer.run_ok or not (declared := self._declared()):
            return
        meter = self._meter()
        said = [f"exchange ({declared}): {human_bytes(meter.tensors_sent)} of tensors sent"]
        if meter.tensors_sent and meter.tensors_sent != meter.tensors_whole:
            times = meter.tensors_whole / meter.tensors_sent
            said.append(f"{human_bytes(meter.tensors_whole)} as they are ({times:.1f} times as much)")
        if meter.saved_s:
            said.append(f"about {meter.saved_s:.1f} s of waiting saved")
        if scores := self._scores():
            said.append(f"last test: {scores}")
        logger.info("%s", "; ".join(said))

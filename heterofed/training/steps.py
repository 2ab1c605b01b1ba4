"""The batches of a routine, run one at a time from inside code that does something between two of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Generic, TypeVar

import torch
from torch import nn

from heterofed.errors import ConfigError

T = TypeVar("T")


class Steps(Iterator[T], Generic[T]):
    """Runs a batch with all its hooks at each `next` and gives what the trainer's `outcome()` returns of it.

    What a batch raises is raised again by every `next` that follows, so that code which catches too much cannot take
    a failure for the end.

    Args:
        batches: runs them.
        surroundings: frames each; batches run in torch's modes of the routine, whatever the code around has changed.
    """

    def __init__(self, batches: Iterator[T], surroundings: Callable[[], AbstractContextManager[None]]) -> None:
        self.failure: BaseException | None = None
        """What a batch has raised."""
        self._batches = batches
        self._surroundings = surroundings
        self._running = False

    def __next__(self) -> T:
        """Run the next batch.

        Raises:
            ConfigError: a batch is being run; a hook of it, or another thread, has asked for the next one.
            Exception: what the batch raises, or one before it has raised.
        """
        if self.failure is not None:
            raise self.failure
        if self._running:
            raise ConfigError("a batch was asked for while the one before it is still being run")
        self._running = True
        try:
            with self._surroundings():
                outcome = next(self._batches, _END)
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self._running = False
        if outcome is _END:
            raise StopIteration
        return outcome  # type: ignore[return-value]  # mypy does not see that _END is gone


_END = object()


def as_now(
    models: Iterable[nn.Module], keep_mode: Callable[[], Callable[[], None]], apply_mode: Callable[[], None]
) -> Callable[[], AbstractContextManager[None]]:
    """Return what frames a batch so that it runs as if nobody had changed torch's modes since now.

    They are: whether autograd records, inference mode, automatic mixed precision, and whether models train.

    Args:
        models: whose `training` is looked at; what a batch itself changes of it stays until the next one.
        keep_mode: returns what puts all their modules back as they are when it is called.
        apply_mode: switches them to the routine's mode.
    """
    watched = tuple(models)
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    kinds = {"cpu", *(each.device.type for model in watched for each in model.parameters())}
    autocast = {
        kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        for kind in kinds
        if torch.amp.autocast_mode.is_autocast_available(kind)
    }
    training = [model.training for model in watched]

    @contextmanager
    def surroundings() -> Iterator[None]:
        nonlocal training
        with ExitStack() as back:
            if torch.is_inference_mode_enabled() != inference:
                back.enter_context(torch.inference_mode(inference))
            if torch.is_grad_enabled() != gradients:
                back.enter_context(torch.set_grad_enabled(gradients))
            for kind, (enabled, dtype) in autocast.items():
                if (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) != (enabled, dtype):
                    back.enter_context(torch.autocast(kind, dtype, enabled))
            moved = [model.training for model in watched] != training
            if moved:
                back.callback(keep_mode())
                apply_mode()
            yield
            if not moved:
                training = [model.training for model in watched]

    return surroundings

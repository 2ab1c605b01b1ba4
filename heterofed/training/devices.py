"""Where a party's models compute, and how: their device, mixed precision, compilation.

With the defaults nothing here does anything, and costs nothing that can be measured.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn

from heterofed.errors import ConfigError

DEFAULT_BACKEND = "inductor"
"""What torch.compile takes where no backend is named."""

_AS_IT_IS: AbstractContextManager[object] = nullcontext()
_WRAPPED = "_orig_mod"
"""Where torch.compile(model) keeps the model, and what it puts before the names of its state."""


class Computing:
    """How one party's models compute.

    Args:
        device: of the models and of all that they are given; None: the models stay where they were made, and so does
            what they are given.
        mixed_precision: "bfloat16": forward passes under `torch.autocast`; None: in the models' own dtype.
        compile_models: whether the models are compiled, or the name of the backend of torch.compile that does it.

    Raises:
        ConfigError: an argument cannot work on any machine.
    """

    def __init__(
        self,
        device: str | torch.device | None = None,
        mixed_precision: str | None = None,
        compile_models: bool | str = False,
    ) -> None:
        self._asked = device
        self.device = None if device is None else _understood(device)
        self._is_there = False
        if mixed_precision == "float16":
            raise ConfigError(
                "mixed_precision is 'float16'",
                expected='"bfloat16" or None',
                advice="float16 needs its loss scaled, and the gradients would reach the other parties scaled; "
                "bfloat16 needs no scaling.",
            )
        if mixed_precision not in (None, "bfloat16"):
            raise ConfigError(f"mixed_precision is {mixed_precision!r}", expected='"bfloat16" or None')
        self.mixed = mixed_precision is not None
        if not isinstance(compile_models, bool | str) or compile_models == "":
            raise ConfigError(f"compile_models is {compile_models!r}", expected="True, False or a backend's name")
        self.backend = DEFAULT_BACKEND if compile_models is True else compile_models or None

    def check(self) -> None:
        """Check that this machine has what was asked for.

        Raises:
            ConfigError: there is no such device here, or torch.compile knows no such backend.
        """
        if self.device is not None and not self._is_there:
            self.device = self._found(self.device)
            self._is_there = True
        if self.backend is not None and self.backend not in torch.compiler.list_backends(exclude_tags=()):
            usual = sorted({*torch.compiler.list_backends(), "aot_eager", "eager"})
            raise ConfigError(f"compile_models is {self.backend!r}", expected=f"True, or one of {', '.join(usual)}")

    def _found(self, device: torch.device) -> torch.device:
        """Return the device as tensors name it, with its number; under torchrun each process has its own GPU."""
        rank = os.environ.get("LOCAL_RANK", "")
        if device.type == "cuda" and device.index is None and rank.isdigit():
            device = torch.device("cuda", int(rank))
        try:
            tried = torch.zeros(1, device=device)
            tried.cpu()
        except Exception as error:  # torch names many: no driver, no such number, a build without it
            asked = f"device is {str(self._asked)!r}" + f" ({device} of this process)" * (device != self.device)
            reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
            raise ConfigError(
                f"{asked}, which torch cannot use here: {reason[:200]}",
                expected=f"one of {', '.join(_here())}",
                advice="Choose one of these, or leave device out.",
            ) from error
        return tried.device

    def prepare(self, model: nn.Module) -> None:
        """Move a model to the device and have it compiled at its first call; both in place.

        The names of its state stay as they are. A model that torch.compile has wrapped already is left to that.

        Raises:
            ConfigError: as `check`.
        """
        self.check()
        if self.device is not None:
            model.to(self.device)
        if self.backend is not None and unwrapped(model) is model:
            model.compile(backend=self.backend)

    def place(self, value: Any) -> Any:
        """Return what a model is given, on the device; see `moved`."""
        return value if self.device is None else moved(value, self.device)

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context of a forward pass on a device; without mixed precision one that does nothing."""
        return torch.autocast(device.type, torch.bfloat16) if self.mixed else _AS_IT_IS


def moved(value: Any, device: torch.device) -> Any:
    """Return a value on a device: a tensor, or tensors within dicts, lists and tuples.

    What has a `to(device)` of its own, such as a PackedSequence, is asked for it; arrays of numpy and anything else
    are returned as they are. To a GPU, tensors go through pinned memory, and nobody waits for them.
    """
    if isinstance(value, Tensor):
        return _tensor_moved(value, device)
    if callable(to := getattr(value, "to", None)):
        return to(device)
    if isinstance(value, Mapping):
        return {name: moved(each, device) for name, each in value.items()}
    if isinstance(value, list):
        return [moved(each, device) for each in value]
    if isinstance(value, tuple):
        parts = [moved(each, device) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _tensor_moved(tensor: Tensor, device: torch.device) -> Tensor:
    if tensor.device == device:
        return tensor
    if device.type != "cuda" or tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return tensor.to(device)
    # From memory that cannot be paged out the copy goes on by itself, in the order of the stream that uses it. torch
    # gives that memory to nobody else before the copy is over.
    pinned = tensor if tensor.is_pinned() else torch.empty_like(tensor, pin_memory=True).copy_(tensor)
    return pinned.to(device, non_blocking=True)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model within what torch.compile(model) gave; any other model is itself."""
    while isinstance(inner := getattr(model, _WRAPPED, None), nn.Module):
        model = inner
    return model


def portable(state: dict[str, Any]) -> dict[str, Any]:
    """Make a model's state one that every machine can load into the model as it was written; in place.

    Tensors come to the CPU; names lose what torch.compile puts before those of a model, or of a part of one.
    """
    for name in list(state):
        value = state.pop(name)
        state[name.replace(f"{_WRAPPED}.", "")] = value.cpu() if isinstance(value, Tensor) else value
    return state


def _understood(device: object) -> torch.device:
    if isinstance(device, torch.device):
        return device
    if isinstance(device, str):
        with suppress(RuntimeError):
            return torch.device(device)
    raise ConfigError(f"device is {device!r}", expected=f"one of {', '.join(_here())}, or None")


def _here() -> list[str]:
    """Return the devices of this machine that people have most."""
    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found

"""Parameters as they travel: filtered, checked before any is taken over, and written to files whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from heterofed.errors import ConfigError, DataError
from heterofed.files import write_whole
from heterofed.training.local_config import LocalConfig


def fitting(model: nn.Module, parameters: Mapping[str, Any], *, strict: bool) -> dict[str, Tensor]:
    """Return those of the given values that a model has, as tensors.

    Args:
        model: what they are for.
        parameters: name -> tensor, array or list.
        strict: whether a name that the model does not have is an error.

    Raises:
        ConfigError: a value is no array of numbers or of another shape; or an unknown name.
    """
    if not isinstance(parameters, Mapping):
        raise ConfigError(f"parameters are a {type(parameters).__name__}", expected="name -> tensor, array or list")
    own = model.state_dict()
    unknown = [name for name in parameters if name not in own]
    if unknown and strict:
        raise ConfigError(f"the model has no parameter {unknown[0]!r}", expected="one of " + ", ".join(own))
    found = {}
    for name in own.keys() & parameters.keys():
        try:
            value = torch.as_tensor(parameters[name])
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"the parameter {name} cannot become a tensor", expected="numbers") from error
        if value.shape != own[name].shape:
            raise ConfigError(
                f"the parameter {name} has shape {tuple(value.shape)}", expected=str(tuple(own[name].shape))
            )
        found[name] = value
    return found


def take_over(model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Copy values into a model; all others stay."""
    model.load_state_dict({**model.state_dict(), **parameters})


def write_parameters(path: Path, models: Sequence[nn.Module], cur_round: int) -> None:
    """Write {"cur_round", "model"} to a file; of several models a list.

    Raises:
        OutputError: it cannot be written; an earlier file is untouched.
    """
    states = [model.state_dict() for model in models]
    content = {"cur_round": cur_round, "model": states[0] if len(states) == 1 else states}
    write_whole(path, lambda file: torch.save(content, file))


def read_parameters(path: Path, models: Sequence[nn.Module]) -> int:
    """Load what `write_parameters` wrote, and return the round.

    Raises:
        ValueError: there is no such file.
        DataError: it cannot be read or does not fit; no model is changed.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path} to load a model from")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        cur_round, states = int(content["cur_round"]), content["model"]
    except Exception as error:  # torch has no type of its own for a file that it cannot read
        raise DataError(f"{path} cannot be read as a saved model", expected="a file that save_model wrote") from error
    states = states if isinstance(states, list) else [states]
    if len(states) != len(models):
        raise DataError(f"{path} holds {len(states)} models", expected=str(len(models)))
    for model, state in zip(models, states, strict=True):
        try:
            missing = model.state_dict().keys() - fitting(model, state, strict=True).keys()
        except ConfigError as error:
            raise DataError(f"{path} holds another model: {error.what}", expected=error.expected) from error
        if missing:
            raise DataError(f"{path} holds another model: it lacks {sorted(missing)[0]!r}")
    for model, state in zip(models, states, strict=True):
        take_over(model, state)
    return cur_round


class Parameters:
    """What of a `LocalTrainer` gives, takes, writes and reads parameters."""

    model: nn.Module
    models: dict[str, nn.Module]
    config: LocalConfig

    def get_model_para(self) -> Any:
        """Return name -> a copy, on the CPU, of each parameter that may be sent."""
        return self._para_of(self.model)

    def update(self, model_parameters: Any, strict: bool = False) -> None:
        """Take parameters that came from elsewhere; what may not be sent is not taken either.

        Args:
            model_parameters: name -> tensor, array or list; left as it is.
            strict: whether a name that the model does not have is an error; else it is left out.

        Raises:
            ConfigError: a value does not fit; nothing is changed.
        """
        self._update_one(self.model, model_parameters, strict)

    def _para_of(self, model: nn.Module) -> dict[str, Tensor]:
        state = {name: each.detach().cpu().clone() for name, each in model.state_dict().items()}
        return self._param_filter(state)

    def _update_one(self, model: nn.Module, parameters: Mapping[str, Any], strict: bool) -> None:
        fit = fitting(model, parameters, strict=strict)
        take_over(model, self._param_filter(fit))

    def _param_filter(
        self, state_dict: Mapping[str, Tensor], filter_keywords: Iterable[str] | None = None
    ) -> dict[str, Tensor]:
        """Return what may be sent: trainable, and with none of the texts (`local_param`) in its name."""
        keywords = self.config.local_param if filter_keywords is None else tuple(filter_keywords)
        shared = self.config.share_non_trainable_para
        trainable = {name for name, each in self.model.named_parameters() if each.requires_grad}
        return {
            name: value
            for name, value in state_dict.items()
            if (shared or name in trainable) and not any(each in name for each in keywords)
        }

    def save_model(self, path: str | Path, cur_round: int = -1) -> None:
        """Write all parameters and a round's number to a file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        write_parameters(Path(path), list(self.models.values()), cur_round)

    def load_model(self, path: str | Path) -> int:
        """Take the parameters that `save_model` wrote, and return the round.

        Raises:
            ValueError: there is no such file.
            DataError: it cannot be read or does not fit; nothing is changed.
        """
        return read_parameters(Path(path), list(self.models.values()))

    def discharge_model(self) -> None:
        """Move the models to the CPU, to make room; the next routine takes them back."""
        for model in self.models.values():
            model.to("cpu")

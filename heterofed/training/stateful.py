"""The states that checkpoints are made of: what can be kept, and how it gets into a file and back.

A file is torch.save's, and is read with `torch.load(weights_only=True)`: it cannot bring code along.
"""

from __future__ import annotations

import copy
import re
import zipfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from heterofed.errors import ConfigError, DataError
from heterofed.files import write_synced
from heterofed.training.generators import RandomGenerators


@runtime_checkable
class Stateful(Protocol):
    """What a checkpoint can keep: models, optimizers, schedules, `Group`, `RandomGenerators` and the like.

    A state is made of tensors, numbers, strings, None, and dicts, lists, tuples and sets of these. Long lists of
    numbers are better kept as one tensor: they are written and read a hundred times faster.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Take a state over; raise whatever it likes if that does not fit."""


class Group:
    """Several things that are kept in one file, as a party's feature model and infer model are.

    Args:
        members: name -> thing; looked at each time, so what is put in its place later is kept instead.
    """

    def __init__(self, members: Mapping[str, Stateful]) -> None:
        self.members = members

    def state_dict(self) -> dict[str, Any]:
        """Return name -> state."""
        return {name: each.state_dict() for name, each in self.members.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hand each member its state.

        Raises:
            DataError: the names are not exactly this group's; nothing was loaded.
        """
        if state.keys() != self.members.keys():
            raise DataError(
                f"it holds the states of {listed(state)}, not of {listed(self.members)}",
                advice="It was written by a run with other models or optimizers.",
            )
        for name, each in self.members.items():
            each.load_state_dict(state[name])


def put_states(parts: Mapping[str, Stateful], states: Mapping[str, dict[str, Any]], folder: Path) -> None:
    """Hand every part its state, in the order of the parts but random generators last; all of them or none.

    Args:
        parts: name -> part.
        states: name -> state; of all parts or of some.
        folder: where the states were read, for the error's text.

    Raises:
        DataError: a part does not take its state; all have back what they had.
    """
    # Generators come last, so that nothing is drawn from them on the way; Python's sort keeps the others' order.
    order = sorted(states, key=lambda each: isinstance(parts[each], RandomGenerators))
    before = {name: copy.deepcopy(parts[name].state_dict()) for name in order}
    for name in order:
        try:
            parts[name].load_state_dict(states[name])
            _check_optimizers(parts[name])
        except Exception as error:  # a part may raise anything
            for each in order:  # all, since the one that failed may have drawn random numbers
                with suppress(Exception):  # one that refuses even its own state must not cost the others theirs
                    parts[each].load_state_dict(before[each])
            text = error.what if isinstance(error, DataError) else " ".join(str(error).split())[:500]
            if isinstance(error, KeyError):
                text = f"it has no {text}"
            raise DataError(
                f"{folder / name}.pt does not fit: {text or type(error).__name__}",
                expected=f"the state of this run's {name}",
                advice="It was written by a run with other models or settings; nothing was loaded.",
            ) from error


def _check_optimizers(part: Stateful) -> None:
    # torch takes an SGD's state for an Adam's and fails at the next step, in words about a missing key.
    for each in part.members.values() if isinstance(part, Group) else ():
        _check_optimizers(each)
    if isinstance(part, Optimizer):
        missing = sorted({key for group in part.param_groups for key in part.defaults.keys() - group.keys()})
        if missing:
            raise DataError(f"it is another kind of optimizer's state, without {', '.join(missing)}")


def fit_weights(saved: dict[str, Any], mine: Mapping[str, Any]) -> tuple[int, dict[str, str]]:
    """Make a state fit a model: drop what is not the model's, add what only the model has.

    Returns:
        How many tensors of the file stayed; name -> why it was not loaded.
    """
    taken, reasons = 0, {}
    for name in [each for each in saved if each not in mine]:
        del saved[name]
        reasons[name] = "not in this model"
    for name, here in mine.items():
        there = saved.get(name)
        if name not in saved:
            reasons[name] = "not in the file"
        elif isinstance(here, torch.Tensor):
            if not isinstance(there, torch.Tensor):
                reasons[name] = "no tensor in the file"
            elif not is_lazy(here) and there.shape != here.shape:
                reasons[name] = f"{tuple(there.shape)} in the file, {tuple(here.shape)} here"
            else:
                taken += 1
        elif isinstance(here, Mapping) and not name.endswith("_extra_state"):  # a group's member
            if isinstance(there, dict):
                more, inner = fit_weights(there, here)
                taken += more
                reasons |= {f"{name}.{each}": why for each, why in inner.items()}
            else:
                reasons[name] = "no model in the file"
        if name in reasons:
            saved[name] = here
    return taken, reasons


def write_state(state: Mapping[str, Any], path: Path, part: str, *, named: Path | None = None) -> None:
    """Write a part's state into a folder that is temporary itself, and prove that it can be read.

    Args:
        state: of the part.
        path: the file.
        part: its name.
        named: what an error calls the file; by default `path`.

    Raises:
        ConfigError: it holds what no checkpoint can hold.
        OutputError: the file cannot be written.
    """
    write_synced(path, lambda file: torch.save(state, file), named=named)
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # the tensors themselves are not read
    except Exception as error:  # torch names many
        if isinstance(error, OSError):
            raise
        raise ConfigError(
            f"the state of {part} cannot be read back from a checkpoint: {_why_unreadable(error)}",
            expected="tensors, numbers, strings, None, and dicts, lists, tuples and sets of these",
            advice="Let its state_dict() return such types only, for example float(x) of a numpy number.",
        ) from error


def read_state(path: Path) -> dict[str, Any]:
    """Return a part's state.

    Raises:
        DataError: the file is not there, torn, changed since it was written, or no part of a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # torch writes checksums, but does not look at them
                raise ValueError("its bytes have changed since it was written")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"there is no {path}", advice="The checkpoint was written by a run with other parts, or a file was removed."
        ) from error
    except Exception as error:  # torch names many
        raise DataError(
            f"{path} cannot be read: {_why_unreadable(error)}",
            expected="a file of a checkpoint, as it was written",
            advice="Remove this checkpoint and go on from the one before it; nothing was loaded.",
        ) from error
    return state


def _why_unreadable(error: Exception) -> str:
    """Return torch's reason without its page of advice, which is to trust the file."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if foreign := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"it holds {foreign[1]}"
    return str(error) if type(error) is ValueError else "it is torn, or no file that torch has written"


def listed(names: Collection[str]) -> str:
    """Return names for an error's text."""
    return ", ".join(sorted(names)[:20]) or "none"

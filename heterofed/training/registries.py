"""Trainers and hooks by name, and the modules of users that add to them.

@register_trainer("proximal")
class ProximalTrainer(LocalTrainer): ...

@register_hook("log_weights")
class LogWeights(HookBase): ...

@register_hook("proximal_term")              # a function of a trainer registers with it what it likes
def wrap(trainer): trainer.register_hook_in_train(...)

load_plugins(["mine/trainers.py"])
trainer = trainer_class("proximal")(model, data)
apply_hook("log_weights", trainer)
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, overload

from heterofed.errors import ConfigError
from heterofed.training.base_trainer import BaseTrainer
from heterofed.training.hooks.base import HookBase
from heterofed.training.local import LocalTrainer
from heterofed.training.multi_model import MultiModelTrainer
from heterofed.training.trainer import Trainer

T = TypeVar("T", bound=Callable[..., Any])

_TRAINERS: dict[str, Callable[..., Any]] = {"local": LocalTrainer, "multi_model": MultiModelTrainer}
_HOOKS: dict[str, Callable[..., Any]] = {}


@overload
def register_trainer(name: str) -> Callable[[T], T]: ...


@overload
def register_trainer(name: str, trainer: T) -> T: ...


def register_trainer(name: str, trainer: Any = None) -> Any:
    """Make a trainer known by a name; as a decorator, or with the trainer as the second argument.

    Args:
        name: by which `trainer_class` finds it.
        trainer: a subclass of BaseTrainer or Trainer; or FederatedScope's function of a name that returns such a
            class, or None for a name that is not its own.

    Raises:
        ConfigError: it is none of these, or the name is another one's.
    """
    return _registered("trainer", _TRAINERS, _checked_trainer, name, trainer)


@overload
def register_hook(name: str) -> Callable[[T], T]: ...


@overload
def register_hook(name: str, hook: T) -> T: ...


def register_hook(name: str, hook: Any = None) -> Any:
    """Make a hook known by a name; as a decorator, or with the hook as the second argument.

    Args:
        name: by which `hook_of` and `apply_hook` find it.
        hook: a subclass of HookBase that is made without arguments, or a function of a trainer, which registers with
            it what it likes.

    Raises:
        ConfigError: it is none of these, or the name is another one's.
    """
    return _registered("hook", _HOOKS, _checked_hook, name, hook)


def trainer_class(name: str) -> type[Any]:
    """Return the trainer of a name; a class goes before what functions make of the name.

    Raises:
        ConfigError: there is none; the text names similar ones.
    """
    found = _TRAINERS.get(name)
    if isinstance(found, type):
        return found
    functions = [each for each in _TRAINERS.values() if not isinstance(each, type)]
    if found is not None:
        functions = [found, *(each for each in functions if each is not found)]
    for function in functions:
        made = function(name)
        if made is not None:
            return _checked_class(made)
    raise _unknown("trainer", name, _TRAINERS)


def hook_of(name: str) -> Callable[..., Any]:
    """Return what is registered as a hook: a class or a function.

    Raises:
        ConfigError: there is none of this name; the text names similar ones.
    """
    if name not in _HOOKS:
        raise _unknown("hook", name, _HOOKS)
    return _HOOKS[name]


def apply_hook(name: str, trainer: Any) -> Any:
    """Add a hook to a trainer, and return the trainer: the one that a function returns, if it returns any.

    Raises:
        ConfigError: there is no hook of this name, or the trainer takes none.
    """
    hook = hook_of(name)
    if not isinstance(trainer, Trainer):
        raise ConfigError(
            f"the hook {name} cannot be added to a {type(trainer).__name__}",
            expected="a Trainer; one that is only a BaseTrainer has no hooks",
        )
    if isinstance(hook, type):
        trainer.register_hooks([hook()])
        return trainer
    wrapped = hook(trainer)
    return trainer if wrapped is None else wrapped


def load_plugins(names: Iterable[str | os.PathLike[str]]) -> list[ModuleType]:
    """Import modules, which register what they have.

    Args:
        names: dotted names, or paths of .py files; a file is run once, however often it is named.

    Raises:
        ConfigError: one cannot be imported; it is the cause.
    """
    if isinstance(names, str | os.PathLike):
        raise ConfigError("plug-ins are one name", expected="a list of names")
    return [_imported(os.fspath(name)) for name in names]


def _imported(name: str) -> ModuleType:
    by_path = name.endswith(".py") or os.sep in name
    try:
        return _from_file(Path(name).resolve()) if by_path else importlib.import_module(name)
    except Exception as error:
        raise ConfigError(
            f"the plug-in {name} cannot be loaded: {type(error).__name__}: {error}",
            expected="the name of a module that can be imported, or the path of a .py file",
        ) from error


def _from_file(path: Path) -> ModuleType:
    name = f"heterofed_plugin_{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _registered(
    kind: str, known: dict[str, Callable[..., Any]], check: Callable[[str, Any], None], name: str, given: Any
) -> Any:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"the name of a {kind} is {name!r}", expected="a text", advice="Write @register_…(name).")

    def register(thing: Any) -> Any:
        check(name, thing)
        if name in known and known[name] is not thing and not _made_again(known[name], thing):
            raise ConfigError(f"there is another {kind} named {name!r}", expected="a name of its own for each")
        known[name] = thing
        return thing

    return register if given is None else register(given)


def _made_again(before: Any, now: Any) -> bool:
    """Whether two things come from one place: a cell of a notebook, say, that was run again."""
    places = [(getattr(each, "__module__", None), getattr(each, "__qualname__", None)) for each in (before, now)]
    return places[0] == places[1] and None not in places[0]


def _checked_trainer(name: str, thing: Any) -> None:
    if isinstance(thing, type):
        _checked_class(thing)
    elif not callable(thing):
        raise ConfigError(
            f"the trainer {name} is a {type(thing).__name__}", expected="a class, or a function of a name"
        )


def _checked_class(thing: Any) -> type[Any]:
    if not isinstance(thing, type) or not issubclass(thing, BaseTrainer | Trainer):
        name = thing.__name__ if isinstance(thing, type) else type(thing).__name__
        raise ConfigError(f"{name} is no trainer", expected="a subclass of BaseTrainer, LocalTrainer or Trainer")
    return thing


def _checked_hook(name: str, thing: Any) -> None:
    if not callable(thing) or (isinstance(thing, type) and not issubclass(thing, HookBase)):
        kind = thing.__name__ if isinstance(thing, type) else type(thing).__name__
        raise ConfigError(f"the hook {name} is a {kind}", expected="a subclass of HookBase, or a function of a trainer")


def _unknown(kind: str, name: object, known: Mapping[str, Any]) -> ConfigError:
    near = difflib.get_close_matches(str(name), known, n=3) or sorted(known)
    return ConfigError(
        f"there is no {kind} named {name!r}",
        expected="for example " + ", ".join(near) if near else f"one that is registered; no {kind} is",
        advice="Name the module or file that registers it: HETEROFED_PLUGINS, or load_plugins([…]).",
    )

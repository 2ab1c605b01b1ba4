"""What hooks read and write: `ctx`, a stack of scopes that lie inside each other.

    run > round > routine > epoch > batch

`ctx.x = CtxVar(value, LIFECYCLE.BATCH)` lives until the batch ends, however it ends; `ctx.x` is the bare value. A
plain `ctx.x = value` changes the variable where it is, so that `ctx.num_samples += n` still ends with its routine; a
name that is new lives until it is deleted.

A routine that runs inside another one (an evaluation in a hook of training) sees the run's and the round's variables
and its own, not those of the routine around it, and leaves them alone.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from heterofed.errors import ConfigError
from heterofed.training.triggers import LIFECYCLE

_COMPUTED = frozenset({"cur_mode", "cur_split"})
"""Names that look like variables and are computed."""


class NoVariable(AttributeError):
    """The context has no variable of a name here; the attribute `name` says which."""


class CtxVar:
    """A value with the lifecycle that the context gives it; the context keeps the bare value.

    Args:
        obj: the value.
        lifecycle: one of `LIFECYCLE`; None is never cleared.

    Raises:
        ConfigError: there is no such lifecycle.
    """

    __slots__ = ("lifecycle", "obj")

    def __init__(self, obj: Any, lifecycle: str | None = None) -> None:
        if lifecycle is not None and lifecycle not in LIFECYCLE.SCOPES:
            raise ConfigError(f"the lifecycle is {lifecycle!r}", expected="one of " + ", ".join(LIFECYCLE.SCOPES))
        self.obj = obj
        self.lifecycle = lifecycle


class _Scope:
    """Variables that end together."""

    __slots__ = ("kind", "variables")

    def __init__(self, kind: str | None) -> None:
        self.kind = kind
        self.variables: dict[str, Any] = {}


class _View:
    """The scopes that a routine sees: in the order in which names are looked up, and by kind."""

    __slots__ = ("by_kind", "inside_out", "scopes")

    def __init__(self, scopes: Iterable[_Scope]) -> None:
        self.scopes: list[_Scope] = []
        """Outermost first."""
        self.inside_out: list[dict[str, Any]] = []
        """The variables of each scope, innermost first."""
        self.by_kind: dict[str | None, list[dict[str, Any]]] = {}
        for scope in scopes:
            self.add(scope)

    def add(self, scope: _Scope) -> None:
        """Put a scope inside all others."""
        self.scopes.append(scope)
        self.inside_out.insert(0, scope.variables)
        self.by_kind.setdefault(scope.kind, []).append(scope.variables)

    def drop(self, scope: _Scope) -> None:
        """Take the innermost scope away."""
        self.scopes.pop()
        del self.inside_out[0]
        self.by_kind[scope.kind].pop()


class Context:
    """The variables of one party's training.

    Args:
        apply_mode: called with a mode when a routine enters it; switches the models to training or evaluation.
        keep_mode: called before that; returns what puts the models back as they are now.
        variables: what is there from the start and never cleared.
    """

    def __init__(
        self,
        *,
        apply_mode: Callable[[str], None] = lambda mode: None,
        keep_mode: Callable[[], Callable[[], None]] = lambda: lambda: None,
        **variables: Any,
    ) -> None:
        put = object.__setattr__
        put(self, "_scopes", [_Scope(LIFECYCLE.NONE)])
        put(self, "_views", [_View(self._scopes)])
        put(self, "_view", self._views[0])
        put(self, "_free_names", set())
        put(self, "_apply_mode", apply_mode)
        put(self, "_keep_mode", keep_mode)
        put(self, "_mode_stack", [])
        put(self, "_split_stack", [])
        put(self, "_restores", [])
        self._scopes[0].variables.update(variables)

    _scopes: list[_Scope]
    """All open scopes, outermost first."""
    _views: list[_View]
    """What is seen, by each routine within routines."""
    _view: _View
    """The last of them: what is seen here."""
    _free_names: set[str]
    """Names of variables that are known not to be the context's own; they are looked at once."""
    _apply_mode: Callable[[str], None]
    _keep_mode: Callable[[], Callable[[], None]]
    _mode_stack: list[str]
    _split_stack: list[str]
    _restores: list[Callable[[], None]]

    # --- variables ----------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name[0] == "_":
            raise AttributeError(name)  # Python itself asks, to copy an object for example; no variable is called so
        for variables in self._view.inside_out:
            if name in variables:
                return variables[name]
        self._missing(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._free_names:
            if name.startswith("_") or hasattr(type(self), name):
                raise ConfigError(f"ctx.{name} is heterofed's own", expected="another name for the variable")
            self._free_names.add(name)
        if type(value) is CtxVar:
            self._put(name, value)
            return
        for variables in self._view.inside_out:
            if name in variables:
                variables[name] = value
                return
        self._scopes[0].variables[name] = value

    def _put(self, name: str, variable: CtxVar) -> None:
        scopes = self._view.by_kind.get(variable.lifecycle)
        if not scopes:
            raise ConfigError(
                f"ctx.{name} is to live as long as the {variable.lifecycle}, but none is in progress",
                expected="a hook that is called inside one",
                advice="Give it a longer lifecycle, or set it in a later trigger.",
            )
        if variable.lifecycle is not None:
            for inner in self._view.inside_out:  # what it would hide behind
                if inner is scopes[-1]:
                    break
                inner.pop(name, None)
        scopes[-1][name] = variable.obj

    def __delattr__(self, name: str) -> None:
        for variables in self._view.inside_out:
            if name in variables:
                del variables[name]
                return
        self._missing(name)

    def _missing(self, name: str) -> NoReturn:
        near = difflib.get_close_matches(name, list(self.keys()), n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        open_ = [kind for kind in LIFECYCLE.SCOPES if self._view.by_kind.get(kind)]
        raise NoVariable(
            f"ctx has no variable {name!r} here{hint} A CtxVar ends with its scope: "
            f"{', '.join(open_) or 'no scope'} in progress.",
            name=name,
        )

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name) if name in _COMPUTED else self.__getattr__(name)

    __setitem__ = __setattr__
    __delitem__ = __delattr__

    def __contains__(self, name: object) -> bool:
        return name in _COMPUTED or any(name in variables for variables in self._view.inside_out)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a variable, or the default where there is none."""
        for variables in self._view.inside_out:
            if name in variables:
                return variables[name]
        return getattr(self, name) if name in _COMPUTED else default

    def keys(self) -> Iterator[str]:
        """Yield the names of all variables that can be seen here."""
        yield from dict.fromkeys(name for variables in reversed(self._view.inside_out) for name in variables)

    def put(self, lifecycle: str, **variables: Any) -> None:
        """Set several variables that live as long as the innermost scope of a kind; `CtxVar` for each, in one step.

        Raises:
            ConfigError: no such scope is open, or a name is the context's own.
        """
        scopes = self._view.by_kind.get(lifecycle)
        if not scopes or not self._free_names.issuperset(variables):
            for name, value in variables.items():
                setattr(self, name, CtxVar(value, lifecycle))
            return
        scopes[-1].update(variables)

    def merge_from_dict(self, variables: Mapping[str, Any]) -> None:
        """Set each variable; a CtxVar gets its lifecycle."""
        for name, value in variables.items():
            setattr(self, name, value)

    def clear(self, lifecycle: str) -> None:
        """Delete the variables of the innermost scope of a kind now, before the scope ends."""
        for variables in self._view.by_kind.get(lifecycle, [])[-1:]:
            variables.clear()

    # --- scopes -------------------------------------------------------------------------------------------------------

    def open(self, kind: str) -> None:
        """Begin a scope of a kind of `LIFECYCLE`; `close` ends it. For the hot path; others use `scope`."""
        scope = _Scope(kind)
        self._scopes.append(scope)
        self._view.add(scope)

    def close(self) -> None:
        """End the innermost scope with its variables."""
        self._view.drop(self._scopes.pop())

    def renew(self) -> None:
        """End the innermost scope with its variables and begin another of its kind."""
        self._scopes[-1].variables.clear()

    @contextmanager
    def scope(self, kind: str) -> Iterator[None]:
        """Frame a run, round, routine, epoch or batch: its variables end with the body, also on an exception."""
        self.open(kind)
        try:
            yield
        finally:
            self.close()

    @contextmanager
    def routine(self, mode: str, split: str) -> Iterator[None]:
        """Frame a routine: a scope that hides those of a routine around it, and a mode and a split of its own."""
        within = bool(self._view.by_kind.get(LIFECYCLE.ROUTINE))
        if within:
            outside = (each for each in self._scopes if each.kind in (LIFECYCLE.NONE, LIFECYCLE.RUN, LIFECYCLE.ROUND))
            self._look_at([*self._views, _View(outside)])
        try:
            with self.scope(LIFECYCLE.ROUTINE), self.mode(mode), self.split(split):
                yield
        finally:
            if within:
                self._look_at(self._views[:-1])

    def _look_at(self, views: list[_View]) -> None:
        object.__setattr__(self, "_views", views)
        object.__setattr__(self, "_view", views[-1])

    @property
    def nested(self) -> bool:
        """Whether this routine runs inside another one."""
        return len(self._views) > 1

    # --- mode and split -----------------------------------------------------------------------------------------------

    @property
    def cur_mode(self) -> str | None:
        """Mode of the routine in progress, one of `MODE`; None outside of any."""
        return self._mode_stack[-1] if self._mode_stack else None

    @property
    def cur_split(self) -> str | None:
        """Part of the data that the routine in progress runs on; None outside of any."""
        return self._split_stack[-1] if self._split_stack else None

    def track_mode(self, mode: str) -> None:
        """Enter a mode: the models train or evaluate; `reset_mode` leaves it."""
        self._restores.append(self._keep_mode())
        self._mode_stack.append(mode)
        try:
            self._apply_mode(mode)
        except BaseException:
            self._mode_stack.pop()
            self._restores.pop()()
            raise

    def reset_mode(self) -> None:
        """Leave the mode: inside another one, the models are put back exactly as they were."""
        self._mode_stack.pop()
        restore = self._restores.pop()
        if self._mode_stack:
            restore()

    def track_split(self, split: str) -> None:
        """Enter a split of the data; `reset_split` leaves it."""
        self._split_stack.append(split)

    def reset_split(self) -> None:
        """Leave the split."""
        self._split_stack.pop()

    @contextmanager
    def mode(self, mode: str) -> Iterator[None]:
        """Frame `track_mode` and `reset_mode`."""
        self.track_mode(mode)
        try:
            yield
        finally:
            self.reset_mode()

    @contextmanager
    def split(self, split: str) -> Iterator[None]:
        """Frame `track_split` and `reset_split`."""
        self.track_split(split)
        try:
            yield
        finally:
            self.reset_split()

    def check_split(self, split: str, skip: bool = False) -> bool:
        """Whether there is data of this split.

        Args:
            split: "train", "val", "test" or a name of the user's.
            skip: warn and return False where there is none, instead of raising.

        Raises:
            ValueError: there is none.
        """
        if self.get(f"{split}_data") is not None or self.get(f"{split}_loader") is not None:
            return True
        problem = f"there is no data of the split {split!r}: neither {split}_data nor {split}_loader"
        if not skip:
            raise ValueError(problem)
        warnings.warn(problem, stacklevel=3)
        return False

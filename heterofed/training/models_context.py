"""A context for models that take turns: each has its own variables of a routine, an epoch and a batch."""

from __future__ import annotations

from typing import Any

from heterofed.training.context import Context
from heterofed.training.triggers import LIFECYCLE

_OWN = (LIFECYCLE.ROUTINE, LIFECYCLE.EPOCH, LIFECYCLE.BATCH)


class _Turns:
    """The variables that a scope has for each model; those of the current one lie in the scope itself."""

    __slots__ = ("current", "parked", "shared")

    def __init__(self) -> None:
        self.current = 0
        self.parked: dict[int, dict[str, Any]] = {}
        self.shared: dict[str, Any] | None = None


class ModelsContext(Context):
    """A context in which `select` exchanges the variables of one model for those of another.

    What the loop itself has set when a scope's first hooks are called, as ctx.cur_batch_i, all models see; what hooks
    set after that is the current model's. Variables of the run, of a round, and those that are never cleared are
    everyone's.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        object.__setattr__(self, "_turns", [])

    _turns: list[_Turns]
    """One for each scope but the outermost."""

    def open(self, kind: str) -> None:
        """Begin a scope, as `Context.open`."""
        super().open(kind)
        self._turns.append(_Turns())

    def close(self) -> None:
        """End the innermost scope with the variables of all models."""
        self._turns.pop()
        super().close()

    def renew(self) -> None:
        """Begin the innermost scope anew, for all models."""
        self._turns[-1] = _Turns()
        super().renew()

    def share(self) -> None:
        """Let all models see what the open scopes hold that no model has had a turn in yet."""
        for scope, turns in self._open():
            if turns.shared is None and scope.variables:  # one that is empty is between two batches
                turns.shared = dict(scope.variables)

    def select(self, index: int) -> None:
        """Go over to the variables of a model in the routine in progress."""
        for scope, turns in self._open():
            if turns.shared is None:  # no model has had a turn in it yet
                turns.current = index
            elif turns.current != index:
                turns.parked[turns.current] = dict(scope.variables)
                kept = turns.parked.pop(index, None)
                scope.variables.clear()  # the same dict: the context looks names up in it
                scope.variables.update(turns.shared if kept is None else kept)
                turns.current = index

    def _open(self) -> list[tuple[Any, _Turns]]:
        visible = {id(scope) for scope in self._view.scopes}
        pairs = zip(self._scopes[1:], self._turns, strict=True)
        return [(scope, turns) for scope, turns in pairs if scope.kind in _OWN and id(scope) in visible]

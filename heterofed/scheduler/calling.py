"""The border between the framework and its users' code: what that raises gets a name and loses its data."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from heterofed.errors import HeterofedError, TemplateError

if TYPE_CHECKING:
    from heterofed.scheduler.party import Party


class UserCall:
    """A context for a call of the user's code: what it raises becomes a `TemplateError` that names it.

    The text of the user's exception may quote data, so only its type goes into ours; the exception itself stays with
    this party as `__cause__`. A class, since one made of a generator takes three times as long, some times a batch.

    Args:
        party: whose code it is.
        method: the name of a template method, or a few words for what is called.
    """

    __slots__ = ("_method", "_party")

    def __init__(self, party: Party, method: str) -> None:
        self._party = party
        self._method = method

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Name what was raised.

        Raises:
            TemplateError: in the place of what is neither ours nor meant to end the process.
        """
        if error is None or not isinstance(error, Exception) or isinstance(error, HeterofedError):
            return
        party, method = self._party, self._method
        called = f"{type(party).__name__}.{method}()" if method.isidentifier() else method
        link = party._party_link
        raise TemplateError(
            f"{called} raised {type(error).__name__}",
            party=party.feature_key,
            phase=link.phase().value if link is not None else None,
            advice=f"The traceback is in the output of {party.feature_key}.",
        ) from error

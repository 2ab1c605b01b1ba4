"""How each party of a run in one process ends, which the run itself does not tell."""

from __future__ import annotations

from typing import Any


def note_errors(party: Any, errors: dict[str, BaseException]) -> None:
    """Have what ends a party's part noted, under its feature key, when it ends with an error."""
    take_part = party.take_part

    def noted(*args: Any, **kwargs: Any) -> Any:
        try:
            return take_part(*args, **kwargs)
        except BaseException as error:
            errors[party.feature_key] = error
            raise

    party.take_part = noted

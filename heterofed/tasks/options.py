"""What a task's creator decides about tests, checkpoints and uncertainty, for the parties that run it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from heterofed.errors import ConfigError

UncertaintyName = Literal["swag"]
"""How the parties of a task prepare for saying how sure their network is.

"swag": every party collects the moments of its own weights after each round; see `heterofed.uncertainty`.
"""

UNCERTAINTIES: tuple[UncertaintyName, ...] = get_args(UncertaintyName)


def read_uncertainty(name: object) -> UncertaintyName | None:
    """Return the name of an uncertainty method, or None for None.

    Raises:
        ConfigError: there is no such method.
    """
    if name is None:
        return None
    for known in UNCERTAINTIES:
        if name == known:
            return known
    raise ConfigError("the uncertainty method of a task is wrong", expected=" or ".join((*UNCERTAINTIES, "None")))


@dataclass(frozen=True)
class TrainerOptions:
    """Options of one task; where they are given, they win over a host's own `log_rounds`.

    Raises:
        ConfigError: a value is neither True nor False.
    """

    skip_model_tests: bool = False
    """No round is tested, also not the last one."""

    model_test_after_each_round: bool = True
    """Whether each round is tested, or only the last one."""

    delete_local_models_after_aggregation: bool = True
    """Whether parties delete the checkpoints of earlier rounds, or keep every numbered one."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if not isinstance(getattr(self, each.name), bool):
                raise ConfigError(f"the option {each.name} is no bool", expected="True or False")

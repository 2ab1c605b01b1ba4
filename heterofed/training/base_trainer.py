"""The least that a trainer can be: FederatedScope's BaseTrainer."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any


class BaseTrainer(ABC):
    """What a federation needs of anything that trains locally; a class of your own needs no more than this.

    Args:
        model, data, device: kept as attributes, like all others.
    """

    model: Any
    data: Any
    device: Any

    def __init__(self, model: Any, data: Any, device: Any, **others: Any) -> None:
        for name, value in {"model": model, "data": data, "device": device, **others}.items():
            setattr(self, name, value)

    @abstractmethod
    def train(self) -> Any:
        """Train and return (number of samples, parameters, metrics)."""

    @abstractmethod
    def evaluate(self, target_data_split_name: str = "test") -> Any:
        """Return the metrics on a split."""

    @abstractmethod
    def update(self, model_parameters: Any, strict: bool = False) -> None:
        """Take parameters that came from elsewhere."""

    @abstractmethod
    def get_model_para(self) -> Any:
        """Return the parameters that may be sent."""

    def print_trainer_meta_info(self) -> str:
        """Return "ClassName((name, value), …)" of what the trainer was made of."""
        names = inspect.signature(type(self).__init__).parameters
        return f"{type(self).__name__}{tuple((name, getattr(self, name)) for name in names if hasattr(self, name))}"

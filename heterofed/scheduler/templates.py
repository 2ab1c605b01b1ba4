"""The methods that users write, with their defaults, and what a class that has them must look like."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import Self

from heterofed.errors import ConfigError, EmbeddingError
from heterofed.features.alignment import OrderedIds, default_split
from heterofed.scheduler.plainly import print_errors_plainly

if TYPE_CHECKING:
    from heterofed.scheduler.predicting.predictions import Predictions

_FOR_SUBCLASSES = frozenset({"_is_reach_max_rounds", "_abc_impl"})
"""Private names that a user's class may have: one of the source system, and one that Python makes."""


def _not_written(method: str) -> ConfigError:
    return ConfigError(f"{method} is not written", advice="Override it in your scheduler.")


class PartyTemplates(ABC):
    """What every party writes."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse a class that lacks a method, and say which of its names may be that one misspelt.

        Raises:
            ConfigError: a method that has no default is not written.
        """
        print_errors_plainly()
        missing = sorted(cls.__abstractmethods__)
        if missing:
            written = [name for name in vars(cls) if not name.startswith("_")]
            hints = [
                f"is {near[0]} meant to be {name}?"
                for name in missing
                if (near := difflib.get_close_matches(name, written, n=1, cutoff=0.8))
            ]
            raise ConfigError(
                f"{cls.__name__} lacks {', '.join(missing)}",
                expected="every method that has no default",
                advice=" ".join(["Write it in your class;", *hints]) if hints else "Write it in your class.",
            )
        return super().__new__(cls)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a user's class that would silently replace a private part of ours."""
        super().__init_subclass__(**kwargs)
        if cls.__module__.partition(".")[0] == "heterofed":
            return
        ours = {name for base in cls.__mro__ if base.__module__.startswith("heterofed.") for name in vars(base)}
        taken = sorted(
            name for name in vars(cls) if name in ours and name.startswith("_") and name not in _FOR_SUBCLASSES
        )
        taken = [name for name in taken if not (name.startswith("__") and name.endswith("__"))]
        if taken:
            raise ConfigError(
                f"{cls.__name__} defines {', '.join(taken)}, which heterofed uses itself",
                expected="other names",
                advice="Rename them in your class.",
            )

    models_after_alignment: bool = False
    """Whether the models are made when the shared ids are known and split, rather than before the parties meet.

    `make_feature_model` may then use `self.train_ids` and `self.task_parties`; what it cannot work with is found later.
    """

    @abstractmethod
    def load_local_ids(self) -> Any:
        """Return the ids of this party's samples: a list of unique, non-empty str."""

    def split_dataset(self, id_intersection: OrderedIds) -> tuple[Any, Any]:
        """Return (train ids, test ids). Must be the same function of the ids at every party.

        The default keeps a fifth for the test, chosen by hash. A list or tuple keeps its order; a set is sorted.
        """
        return default_split(id_intersection)

    @abstractmethod
    def make_feature_model(self) -> nn.Module:
        """Return the model that turns this party's rows into embeddings. Called once, after `__init__`."""

    @abstractmethod
    def make_feature_optimizer(self, feature_model: nn.Module) -> Optimizer:
        """Return the optimizer of the feature model. Called once; not at all when the model is frozen."""

    def describe_run(self) -> dict[str, Any]:
        """Return what `run.json` is to say of this party's models besides: str, numbers, bools, lists and dicts.

        Called once, when the run is completed; `read_manifest(folder).about` gives it back.
        """
        return {}

    def write_artifacts(self, folder: Path) -> Sequence[Path]:
        """Write more files that predictions need into this party's results folder, and return their paths.

        Called once, when the run is completed; `run.json` keeps the SHA-256 of each. `heterofed.files.write_whole`
        writes a file whole or not at all.
        """
        return ()

    def iterate_train_feature(self, feature_model: nn.Module, train_ids: list[str]) -> Any:
        """Yield this party's embeddings of the train ids, batch by batch (the host: (embedding, labels)).

        Write this and `iterate_test_feature` to choose the batches yourself, or `load_batch` instead of both.
        """
        raise _not_written("iterate_train_feature")

    def iterate_test_feature(self, feature_model: nn.Module, test_ids: list[str]) -> Any:
        """Yield this party's embeddings of the test ids, as `iterate_train_feature` does."""
        raise _not_written("iterate_test_feature")

    def load_batch(self, ids: list[str]) -> Any:
        """Return the feature model's inputs for exactly these ids, in this order (the host: (inputs, labels)).

        With this method the framework owns batching, order and shuffling. It may be called for the next batch while
        the last one still waits for its gradient, so return new memory every time.
        """
        raise _not_written("load_batch")


class HostTemplates(PartyTemplates):
    """What the host writes besides."""

    @property
    @abstractmethod
    def infer_model(self) -> nn.Module:
        """The model over the fused embeddings; the framework has it from `make_infer_model`."""

    @abstractmethod
    def make_infer_model(self) -> nn.Module:
        """Return the model that makes predictions of the fused embeddings. Called once, after `__init__`."""

    @abstractmethod
    def make_infer_optimizer(self, infer_model: nn.Module) -> Optimizer:
        """Return the optimizer of the infer model. Called once."""

    @abstractmethod
    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
        """Train on one batch: fuse the embeddings, infer, `backward()` once, `self.optimizer.step()`.

        The collaborators' gradients leave inside `backward()`, as they are: a loss that is scaled (a `GradScaler`) or
        gradients that are clipped afterwards reach them scaled and unclipped.

        Args:
            feature_projection: feature key -> embedding (rows, width, …), this party's own first.
            labels: as this party's own method gave them, one for each row.

        Returns:
            The loss, if progress is to show it; anything else is ignored.
        """

    def test(self, batched_feature_projections: list[dict[str, Tensor]], batched_labels: list[Any]) -> Any:
        """Test the models on the test ids and record metrics; called in evaluation mode, without gradients.

        A batch is exchanged when it is read, so a loop over `zip(batched_feature_projections, batched_labels)` needs
        the memory of one. Both can be read again, as other lists, while the batches fit `Settings.test_keep_bytes`.

        Args:
            batched_feature_projections: for each batch what `train_a_batch` gets.
            batched_labels: the labels of each batch.
        """
        raise _not_written("test")

    def predict_a_batch(self, feature_projection: dict[str, Tensor]) -> Any:
        """Return predictions for the rows of a batch.

        The default concatenates the embeddings in the order of the task's parties and applies the infer model.
        """
        return self.infer_model(torch.cat(list(feature_projection.values()), dim=1))

    def load_inputs(self, ids: list[str]) -> Any:
        """Return the feature model's inputs for exactly these ids, in this order; for predictions, without labels.

        The default takes them from `load_batch`, which has to find labels then.
        """
        loaded = self.load_batch(ids)
        if not isinstance(loaded, tuple) or len(loaded) != 2:
            raise EmbeddingError(f"load_batch returned {type(loaded).__name__}", expected="(inputs, labels)")
        return loaded[0]

    def conclude(self, predictions: Predictions) -> None:
        """Make use of what was trained, before the task is completed; the default does nothing.

        Called when the last round is closed, while all parties are there; once more if one of them was started again.

        Args:
            predictions: of all shared ids, those that were trained on and those that were not.
        """

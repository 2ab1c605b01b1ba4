"""What a host and a collaborator with a table do alike: the template methods of their features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Adam, Optimizer

from heterofed.config import Settings
from heterofed.errors import ConfigError
from heterofed.features.alignment import OrderedIds
from heterofed.scheduler.base import Scheduler
from heterofed.scheduler.manifest import results_folder
from heterofed.scheduler.seat import TaskResult
from heterofed.tables import TableEncoder, hash_split
from heterofed.tabular.data import PartyTable
from heterofed.tabular.models import (
    NAMELESS,
    MakeModel,
    check_sizes,
    feature_layers,
    maker_of,
    name_of,
    new_seed,
    seeded,
    width_of,
)
from heterofed.tabular.runs import FeatureAbout, Fitted, encoder_file, read_run
from heterofed.tasks.model import Task


def small_settings(settings: Settings | None, make_model: object) -> Settings:
    """Return settings with which the default models compute: by one thread, where nothing else is said.

    They are so small that several threads, of all parties of a machine, mostly wait for each other.
    """
    found = settings or Settings.from_env()
    return replace(found, threads=1) if make_model is None and not found.threads else found


class TableParty(Scheduler):
    """The features of a table as a party's part of a task; see `TableHost` and `TableCollaborator`."""

    models_after_alignment = True  # how many inputs a model has depends on the train rows

    data: PartyTable
    fitted: Fitted | None = None
    fractions: tuple[float, ...]
    salt: str
    hidden: tuple[int, ...]
    width: int
    learning_rate: float
    make_model: MakeModel | None
    model_name: str | None
    """What a run notes of `make_model`; see `name_of`."""

    def _take_model(
        self,
        *,
        hidden: Sequence[int],
        width: int,
        make_model: MakeModel | str | None,
        learning_rate: float,
        seed: int | None,
        fractions: Sequence[float],
        salt: str,
    ) -> None:
        """Check and keep what the feature model and the split are made by."""
        check_sizes(hidden=hidden, width=(width,))
        if not isinstance(learning_rate, int | float) or not 0 < learning_rate < float("inf"):
            raise ConfigError(f"learning_rate is {learning_rate!r}", expected="a number above 0")
        hash_split((), salt=salt, fractions=fractions)  # refuses fractions that are none
        self.hidden, self.width = tuple(hidden), width
        self.make_model, self.model_name = maker_of(make_model), name_of(make_model)
        self.learning_rate = float(learning_rate)
        self.fractions, self.salt = tuple(fractions), salt
        self._weights_seed = new_seed(seed)

    @property
    def columns(self) -> Any:
        """What was recognised of each column; None where a finished run says what they are."""
        return self.data.columns

    @property
    def encoder(self) -> TableEncoder | None:
        """What was fitted to the train rows; None before, and without features."""
        return self.data.encoder

    # --- template methods ---------------------------------------------------------------------------------------------

    def load_local_ids(self) -> list[str]:
        """Return the ids of all rows."""
        return self.data.table.ids

    def split_dataset(self, id_intersection: OrderedIds) -> tuple[list[str], list[str]]:
        """Split by a hash of each id. What is not trained on is one part: only the host knows which of it is for what.

        All parties need the same fractions of train ids, and the same salt.
        """
        split = hash_split(id_intersection, salt=self.salt, fractions=self.fractions)
        return split.train, sorted([*split.valid, *split.test])

    def make_feature_model(self) -> nn.Module:
        """Fit the columns to the train rows, and make a model of as many inputs as that gives."""
        if self.fitted is None:
            if self.make_model is None and not self.is_feature_trainable:
                self._warn_once(
                    "is_feature_trainable is False, and without make_model the feature model has random weights, which "
                    "stay as they are: give the trained model by make_model, or let this one learn"
                )
            self.data.fit(self.train_ids, self._cache)
            if self.model_name == NAMELESS:
                self._warn_once(
                    "make_model has no name by which a later process can import it, as lambdas, partials and functions "
                    "of a script: whoever reads this run again has to give make_model again"
                )
        return self.new_feature_model("feature")

    def make_feature_optimizer(self, feature_model: nn.Module) -> Optimizer:
        """Adam, as all parties have it."""
        return Adam(feature_model.parameters(), lr=self.learning_rate)

    def load_batch(self, ids: list[str]) -> Any:
        """Return the encoded rows."""
        return self.data.rows(ids, self._cache)

    def write_artifacts(self, folder: Path) -> list[Path]:
        """Write what was fitted to the train rows."""
        return [] if self.encoder is None else [self.encoder.save(folder / encoder_file(self.feature_key))]

    # --- small things -------------------------------------------------------------------------------------------------

    def completed_before(self, task_id: str, task: Task | None = None) -> TaskResult:
        """Return what this party wrote when the task was completed, as in `Scheduler`; the models are those of then."""
        self.out_dir = self.out_dir or results_folder(task_id, self.feature_key)
        self.fitted = read_run(self.out_dir).fitted
        self.data.encoder = self.fitted.encoder
        return super().completed_before(task_id, task)

    def new_feature_model(self, name: str) -> nn.Module:
        """Return a model of as many inputs as the columns give, with first weights that depend on its name."""
        make = self.make_model or partial(feature_layers, hidden=self.hidden, width=self.width)
        return seeded(partial(make, self.data.inputs), self._weights_seed, self.feature_key, name)

    @property
    def own_width(self) -> int:
        """How wide this party's embedding is; 0 without features."""
        return width_of(self.feature_model, self.data.inputs) if self.data.has_features else 0

    @property
    def _cache(self) -> Path | None:
        """Where encoded rows are kept if they are too many for the memory."""
        return None if self.out_dir is None else self.out_dir / "encoded"

    def _about_features(self) -> FeatureAbout:
        """Return what a later process needs to make the feature model again."""
        return FeatureAbout(
            id_column=self.data.table.id_column,
            inputs=self.data.inputs,
            hidden=self.hidden,
            width=self.width,
            model=self.model_name,
            learning_rate=self.learning_rate,
            fractions=self.fractions,
            salt=self.salt,
            duplicates=self.data.duplicates,
            missing_ids=self.data.missing_ids,
            decimal_ids=self.data.decimal_ids,
            train_rows=len(self.train_ids),
            other_rows=len(self.test_ids),
        )

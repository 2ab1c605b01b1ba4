"""A collaborator whose features are the columns of a table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from typing_extensions import Self

from heterofed.export import write_model_card
from heterofed.scheduler.collaborator import CollaboratorScheduler
from heterofed.tables import DecimalIds, Duplicates, FeatureKind, MissingIds, Unseen, refuse_label
from heterofed.tables.splitting import FRACTIONS, SALT
from heterofed.tabular.card import card_of
from heterofed.tabular.data import Data, PartyTable
from heterofed.tabular.models import HIDDEN, WIDTH, MakeModel
from heterofed.tabular.party import TableParty, small_settings
from heterofed.tabular.runs import Fitted, read_run


class TableCollaborator(TableParty, CollaboratorScheduler):
    """A collaborator with a table; the host is a `TableHost`.

    Args:
        feature_key: this party's name in the task, and the name of its embedding.
        data: a .csv, .csv.gz, .parquet or .feather file, or a data frame.
        id_column: the column of the ids; None: the only column.
        hidden: sizes of the layers between the inputs and the embedding.
        width: of the embedding, the same at every party; or the host says otherwise with `widths`.
        make_model: number of inputs -> feature model, in the place of the default one; or "package.module:name".
        learning_rate: Adam's.
        fractions: of train, valid and test ids, the same at every party.
        salt: of the split, the same at every party.
        seed: of the first weights; None draws it from the system, so that nobody else knows the weights.
        kinds: name -> kind of columns that are not to be recognised.
        ignore: columns to leave out.
        duplicates: what to do with an id that stands in several rows: "refuse", or keep the "first" or the "last".
        missing_ids: what to do with a row without an id: "refuse" or "drop".
        decimal_ids: what to do with an id that is the text "7.0": "refuse", "whole" or "text".
        unseen: what to make, in predictions, of a category that the train rows did not have: "refuse" or "other".
        label: refused: labels are the host's.
        fitted: what an earlier run has fitted; `from_run` gives it.
        scheduler_arguments: those of `CollaboratorScheduler`.

    Raises:
        ConfigError: an argument cannot work, or the table has no features.
        DataError: the table cannot be read or used.
    """

    def __init__(
        self,
        feature_key: str,
        data: Data,
        id_column: str | None = None,
        *,
        hidden: Sequence[int] = HIDDEN,
        width: int = WIDTH,
        make_model: MakeModel | str | None = None,
        learning_rate: float = 0.01,
        fractions: Sequence[float] = FRACTIONS,
        salt: str = SALT,
        seed: int | None = None,
        kinds: Mapping[str, FeatureKind] | None = None,
        ignore: Collection[str] = (),
        duplicates: Duplicates = "refuse",
        missing_ids: MissingIds = "refuse",
        decimal_ids: DecimalIds = "refuse",
        unseen: Unseen | None = None,
        label: str | Sequence[str] | None = None,
        fitted: Fitted | None = None,
        **scheduler_arguments: Any,
    ) -> None:
        refuse_label(label, "collaborator")
        self.fitted = fitted
        scheduler_arguments["settings"] = small_settings(scheduler_arguments.get("settings"), make_model)
        super().__init__(feature_key, **scheduler_arguments)
        self._take_model(
            hidden=hidden,
            width=width,
            make_model=make_model,
            learning_rate=learning_rate,
            seed=seed,
            fractions=fractions,
            salt=salt,
        )
        self.data = PartyTable(
            data,
            id_column,
            duplicates=duplicates,
            missing_ids=missing_ids,
            decimal_ids=decimal_ids,
            unseen=unseen,
            kinds=kinds,
            ignore=ignore,
            fitted=fitted,
        )
        self.data.refuse_no_features()

    @classmethod
    def from_run(
        cls,
        folder: str | Path,
        data: Data,
        id_column: str | None = None,
        *,
        make_model: MakeModel | str | None = None,
        unseen: Unseen | None = None,
        duplicates: Duplicates | None = None,
        missing_ids: MissingIds | None = None,
        decimal_ids: DecimalIds | None = None,
        **scheduler_arguments: Any,
    ) -> Self:
        """Return a collaborator that can answer predictions with what an earlier run has trained.

        A model of one's own is made again by the function that `run.json` names, whose module is imported: trust a
        run's folder as you would trust code.

        Args:
            folder: the run's results folder, this party's own.
            data: the rows to answer for; all of them are checked now.
            id_column: None: called as in training.
            make_model: None: as in training, by the name that the run has noted.
            unseen: None: as in training; the same for the next ones.
            duplicates: see above.
            missing_ids: see above.
            decimal_ids: see above.
            scheduler_arguments: those of `CollaboratorScheduler`.

        Raises:
            ConfigError: it is the folder of something else, or does not say what makes its model.
            DataError: a file of the run was changed, or the table does not have what the model takes.
        """
        run = read_run(folder, "collaborator")
        arguments = run.arguments(
            id_column=id_column,
            unseen=unseen,
            duplicates=duplicates,
            missing_ids=missing_ids,
            decimal_ids=decimal_ids,
        )
        make_model = run.maker(make_model)
        return cls(run.manifest.feature_key, data, make_model=make_model, **arguments, **scheduler_arguments)

    def describe_run(self) -> dict[str, Any]:
        """Say how the model was made."""
        return {"features": msgspec.to_builtins(self._about_features())}

    def write_artifacts(self, folder: Path) -> list[Path]:
        """Write what was fitted, and the model card beside it."""
        write_model_card(folder, card_of(self))  # people may add to it, so run.json does not hold its digest
        return super().write_artifacts(folder)

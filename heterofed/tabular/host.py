"""A host whose labels, and perhaps features, are the columns of a table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor, nn
from typing_extensions import Self

from heterofed.checks import check_count
from heterofed.errors import ConfigError, OutputError
from heterofed.export import write_model_card
from heterofed.metrics.progress import logger
from heterofed.report import can_report, remove_evaluation, write_evaluation
from heterofed.scheduler.predicting.predictions import Predictions
from heterofed.tables import AskedTask, DecimalIds, Duplicates, FeatureKind, MissingIds, Unlabelled, Unseen
from heterofed.tables.splitting import FRACTIONS, SALT
from heterofed.tabular.card import card_of
from heterofed.tabular.data import Data, HostLabels, PartyTable
from heterofed.tabular.evaluating import evaluate_new_rows, report_on_run
from heterofed.tabular.host_rounds import HostRounds
from heterofed.tabular.models import HIDDEN, TOP, WIDTH, MakeModel, check_sizes
from heterofed.tabular.party import small_settings
from heterofed.tabular.runs import LABELS, Fitted, HostAbout, read_run


class TableHost(HostRounds):
    """A host with a table; its collaborators are `TableCollaborator`s.

    Without columns of features, with ids and labels only, it trains on what the collaborators have.

    Args:
        feature_key: this party's name in the task, and the name of its embedding.
        data: a .csv, .csv.gz, .parquet or .feather file, or a data frame.
        id_column: the column of the ids; None: the only column.
        label: the label column; several are the labels of a multilabel task.
        task: "classification", "binary", "multiclass", "regression" or "multilabel"; None: as the labels look.
        rounds: passes over the train rows.
        batch_size: rows of a batch.
        learning_rate: Adam's, of both of this party's models.
        hidden: sizes of the layers between the inputs and the embedding.
        width: of the embedding, here and at every collaborator that `widths` does not name.
        top: sizes of the layers between all embeddings and the outputs.
        widths: feature key -> width of the embedding of a collaborator where it is another.
        make_model: number of inputs -> feature model, in the place of the default one; or "package.module:name".
        class_weights: whether every class counts the same in the loss, however many rows it has.
        fractions: of train, valid and test ids, the same at every party. Which of the others are for which, the host
            alone decides, so that both have the same mix of labels.
        salt: of the split, the same at every party.
        seed: of the first weights and of the order of the rows; None draws it from the system, so that nobody else
            knows the weights.
        patience: end when the loss of the valid rows has not become less for so many rounds, and keep the models of the
            last round, not those of the best; None: train all rounds.
        kinds: name -> kind of columns that are not to be recognised.
        ignore: columns to leave out.
        duplicates: what to do with an id that stands in several rows: "refuse", or keep the "first" or the "last".
        missing_ids: what to do with a row without an id: "refuse" or "drop".
        decimal_ids: what to do with an id that is the text "7.0": "refuse", "whole" or "text".
        unlabelled: what to do with a row without a label: "refuse" or "drop".
        unseen: what to make, in predictions, of a category that the train rows did not have: "refuse" or "other".
        evaluate: whether to score each round, and to write `evaluation.json` and `report.html` at the end. If that
            cannot be done, a warning says so.
        fitted: what an earlier run has fitted; `from_run` gives it.
        labelled: whether the labels of the rows are known; only of a run that is over they need not be.
        scheduler_arguments: those of `HostScheduler`.

    Raises:
        ConfigError: an argument cannot work.
        DataError: the table cannot be read or used.
    """

    mean_rows = 10_000

    def __init__(
        self,
        feature_key: str,
        data: Data,
        id_column: str | None = None,
        *,
        label: str | Sequence[str],
        task: AskedTask | None = None,
        rounds: int = 20,
        batch_size: int = 256,
        learning_rate: float = 0.01,
        hidden: Sequence[int] = HIDDEN,
        width: int = WIDTH,
        top: Sequence[int] = TOP,
        widths: Mapping[str, int] | None = None,
        make_model: MakeModel | str | None = None,
        class_weights: bool = False,
        fractions: Sequence[float] = FRACTIONS,
        salt: str = SALT,
        seed: int | None = None,
        patience: int | None = None,
        kinds: Mapping[str, FeatureKind] | None = None,
        ignore: Collection[str] = (),
        duplicates: Duplicates = "refuse",
        missing_ids: MissingIds = "refuse",
        decimal_ids: DecimalIds = "refuse",
        unlabelled: Unlabelled = "refuse",
        unseen: Unseen | None = None,
        evaluate: bool = True,
        fitted: Fitted | None = None,
        labelled: bool = True,
        **scheduler_arguments: Any,
    ) -> None:
        self.label = (label,) if isinstance(label, str) else tuple(label)
        self._take_model(
            hidden=hidden,
            width=width,
            make_model=make_model,
            learning_rate=learning_rate,
            seed=seed,
            fractions=fractions,
            salt=salt,
        )
        check_sizes(top=top, widths=tuple((widths or {}).values()))
        check_count("patience", patience, 1, or_none="never end early")
        if patience is not None and not self.fractions[1]:
            raise ConfigError(f"patience is {patience}, but no rows are for validation", expected="fractions with some")
        if patience is not None and scheduler_arguments.get("log_rounds") == 0:
            raise ConfigError(f"patience is {patience}, but log_rounds is 0", expected="tests, which patience goes by")
        if evaluate and not can_report():
            raise ConfigError(
                "evaluate is wanted, and scikit-learn or matplotlib is not installed",
                expected="both",
                advice="pip install 'heterofed[tables]', or say evaluate=False.",
            )
        self.data = PartyTable(
            data,
            id_column,
            duplicates=duplicates,
            missing_ids=missing_ids,
            decimal_ids=decimal_ids,
            unseen=unseen,
            labels=self.label,
            kinds=kinds,
            ignore=ignore,
            fitted=fitted,
        )
        self.fitted = fitted
        if labelled:
            known = fitted.labels if fitted else None
            self._labels = HostLabels(
                self.data.table, self.label, unlabelled=unlabelled, encoder=known, asked=None if known else task
            )
        self.top, self.widths = tuple(top), dict(widths or {})
        self.class_weights, self.unlabelled = bool(class_weights), unlabelled
        self.patience, self.evaluate = patience, bool(evaluate)
        self.evaluation: Any = None
        if not self.data.has_features:
            scheduler_arguments["is_feature_trainable"] = False
        scheduler_arguments["settings"] = small_settings(scheduler_arguments.get("settings"), make_model)
        scheduler_arguments.setdefault("log_rounds", 1 if self.fractions[1] else 0)
        scheduler_arguments.setdefault("shuffle", True)
        super().__init__(feature_key, max_rounds=rounds, batch_size=batch_size, seed=seed, **scheduler_arguments)

    @classmethod
    def from_run(
        cls,
        folder: str | Path,
        data: Data,
        id_column: str | None = None,
        *,
        labelled: bool = False,
        unlabelled: Unlabelled | None = None,
        make_model: MakeModel | str | None = None,
        unseen: Unseen | None = None,
        duplicates: Duplicates | None = None,
        missing_ids: MissingIds | None = None,
        decimal_ids: DecimalIds | None = None,
        **scheduler_arguments: Any,
    ) -> Self:
        """Return a host that can ask for predictions with what an earlier run has trained.

        A model of one's own is made again by the function that `run.json` names, whose module is imported: trust a
        run's folder as you would trust code.

        Args:
            folder: the run's results folder, this party's own.
            data: the rows to predict; all of them are checked now. A host without features needs a column of ids only.
            id_column: None: called as in training.
            labelled: whether the rows have labels, to be compared with the predictions.
            make_model: None: as in training, by the name that the run has noted.
            unlabelled: None: as in training; the same for the next ones.
            unseen: see above.
            duplicates: see above.
            missing_ids: see above.
            decimal_ids: see above.
            scheduler_arguments: those of `HostScheduler`.

        Raises:
            ConfigError: it is the folder of something else, or does not say what makes its model.
            DataError: a file of the run was changed, or the table does not have what the model takes.
        """
        run = read_run(folder, "host")
        host = run.host
        if host is None:
            raise ConfigError(f"{folder} is not the run of a host", expected="that of a TableHost")
        arguments = run.arguments(
            id_column=id_column,
            unlabelled=unlabelled or host.unlabelled,
            unseen=unseen,
            duplicates=duplicates,
            missing_ids=missing_ids,
            decimal_ids=decimal_ids,
        )
        return cls(
            run.manifest.feature_key,
            data,
            label=host.label,
            rounds=max(run.manifest.rounds, 1),
            batch_size=host.batch_size,
            top=host.top,
            make_model=run.maker(make_model),
            class_weights=host.class_weights,
            evaluate=False,
            labelled=labelled,
            **arguments,
            **scheduler_arguments,
        )

    @property
    def has_features(self) -> bool:
        """Whether this host has more than labels."""
        return self.data.has_features

    # --- template methods ---------------------------------------------------------------------------------------------

    def load_local_ids(self) -> list[str]:
        """Return the ids of all rows, or of those with a label where labels matter."""
        return list(self._labels.ids) if self._labels is not None else super().load_local_ids()

    def load_batch(self, ids: list[str]) -> tuple[Tensor, Tensor]:
        """Return the encoded rows and their labels."""
        return super().load_batch(ids), self.labels_of(ids)

    def load_inputs(self, ids: list[str]) -> Tensor:
        """Return the encoded rows alone: what is to be predicted has no label yet."""
        inputs: Tensor = super().load_batch(ids)
        return inputs

    def make_feature_model(self) -> nn.Module:
        """Fit columns and labels to the train rows, and make the model; one that does nothing where nothing is."""
        if self._labels is not None and self.fitted is None:
            self._labels.fit(self.train_ids)
        return super().make_feature_model() if self.has_features else nn.Identity()

    def conclude(self, predictions: Predictions) -> None:
        """Score the train, valid and test rows, and write the report; without one, the training counts all the same."""
        if self.evaluate and self.out_dir is not None:
            self.evaluation = report_on_run(self, predictions)
        if self.evaluation is None and self.out_dir is not None:
            try:
                remove_evaluation(self.out_dir)
            except OutputError as error:
                text = "the folder still has the report of an earlier run, which is not of this one's models"
                logger.warning("%s: %s: %s", self.feature_key, text, error)

    def describe_run(self) -> dict[str, Any]:
        """Say how the models were made, and on what."""
        about = HostAbout(
            label=self.label,
            task=self.labels.task,
            outputs=self.labels.outputs,
            top=self.top,
            widths=self.embedding_widths,
            batch_size=self.batch_size,
            class_weights=self.class_weights,
            unlabelled=self.unlabelled,
            valid_rows=len(self.held_out.valid),
            test_rows=len(self.held_out.test),
        )
        return {"features": msgspec.to_builtins(self._about_features()), "host": msgspec.to_builtins(about)}

    def write_artifacts(self, folder: Path) -> list[Path]:
        """Write what was fitted, and the model card beside it."""
        write_model_card(folder, card_of(self))  # people may add to it, so run.json does not hold its digest
        return [*super().write_artifacts(folder), self.labels.save(folder / LABELS)]

    # --- what it does besides -----------------------------------------------------------------------------------------

    def evaluate_predictions(self, predictions: Predictions, folder: Path) -> tuple[Path, ...]:
        """Compare predictions of rows whose labels are known with these, and write the report.

        Args:
            predictions: of a host that was made with `from_run(…, labelled=True)`.
            folder: where `evaluation.json`, `report.html` and pictures go.

        Raises:
            ConfigError: the labels of the rows are not known, or no row can be predicted.
            OutputError: the folder cannot be written to.
        """
        return write_evaluation(folder, evaluate_new_rows(self, predictions))

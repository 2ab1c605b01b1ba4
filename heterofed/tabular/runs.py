"""What of a run with tables outlives it, and reading it again.

run.json             what the folder is of, with `FeatureAbout` and at the host `HostAbout` in it
encoder_<key>.json   what was fitted to the columns of this party's train rows
labels.json          at the host: the classes, or a regression's unit
feature_model_<key>.pt, infer_model.pt
model_card.md        for people; evaluation.json, report.html and pictures/ at the host
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from torch import nn

from heterofed.errors import ConfigError, DataError
from heterofed.scheduler.manifest import RunManifest, read_manifest
from heterofed.scheduler.outputs import load_into, weights_file
from heterofed.tables import (
    DecimalIds,
    Duplicates,
    LabelEncoder,
    MissingIds,
    TableEncoder,
    Task,
    Unlabelled,
)
from heterofed.tabular.models import NAMELESS, MakeModel, feature_layers, infer_layers, maker_of
from heterofed.tasks.model import Role
from heterofed.words import in_brief

LABELS = "labels.json"


class FeatureAbout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a party's feature model was made, and what its table was read with."""

    id_column: str
    inputs: int
    """Numbers that a row becomes; 0: the party has no features."""
    hidden: tuple[int, ...]
    width: int
    """What the argument said; a model of one's own may give another."""
    model: str | None
    """"package.module:name" of the function that made the model, "" if it cannot be imported; None: the default."""
    learning_rate: float
    fractions: tuple[float, ...]
    salt: str
    duplicates: Duplicates
    missing_ids: MissingIds
    decimal_ids: DecimalIds
    train_rows: int
    other_rows: int


class HostAbout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What only the host's model has."""

    label: tuple[str, ...]
    task: Task
    outputs: int
    top: tuple[int, ...]
    widths: dict[str, int]
    """Party -> width of its embedding, host first."""
    batch_size: int
    class_weights: bool
    unlabelled: Unlabelled
    valid_rows: int
    test_rows: int


@dataclass(frozen=True)
class Fitted:
    """What a run has fitted to its train rows."""

    encoder: TableEncoder | None
    labels: LabelEncoder | None = None
    widths: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedRun:
    """A run's folder, each of whose files is as it was written."""

    folder: Path
    manifest: RunManifest
    about: FeatureAbout
    host: HostAbout | None
    fitted: Fitted

    def maker(self, given: MakeModel | str | None) -> MakeModel | str | None:
        """Return what makes the feature model: what is given, or else what the run has noted; None: the default.

        Raises:
            ConfigError: nothing is given, and the run could not note what it was.
        """
        if not given and self.about.model == NAMELESS and self.about.inputs:
            raise ConfigError(
                f"what made the feature model of {self.folder} has no name by which it can be imported",
                expected="make_model, the function that was given in training",
                advice="Give it to load_run or from_run. The commands need a function at the top level of a module, "
                "which training is given as --model package.module:function.",
            )
        return given or self.about.model or None

    def arguments(self, **given: Any) -> dict[str, Any]:
        """Return arguments that make a party as it was in the run.

        Args:
            given: arguments in the place of those of the run; None: as there.
        """
        about = self.about
        as_there = {
            "id_column": about.id_column,
            "learning_rate": about.learning_rate,
            "hidden": about.hidden,
            "width": about.width,
            "fractions": about.fractions,
            "salt": about.salt,
            "duplicates": about.duplicates,
            "missing_ids": about.missing_ids,
            "decimal_ids": about.decimal_ids,
            "fitted": self.fitted,
            "out_dir": self.folder,
        }
        return {**as_there, **{name: each for name, each in given.items() if each is not None}}


@dataclass(frozen=True)
class LoadedRun:
    """A finished run's models, in evaluation mode, with what they were fitted to."""

    folder: Path
    manifest: RunManifest
    feature_model: nn.Module | None
    """None at a host without features."""
    infer_model: nn.Module | None
    """None at a collaborator."""
    encoder: TableEncoder | None
    labels: LabelEncoder | None
    widths: Mapping[str, int]
    """At the host: party -> width of its embedding, host first: the order in which the infer model takes them."""


def encoder_file(feature_key: str) -> str:
    """Return the name of the file with what was fitted to a party's columns."""
    return f"encoder_{feature_key}.json"


def read_run(folder: str | Path, role: Role | None = None) -> SavedRun:
    """Read what a run says of itself, and check all files that predictions need.

    Args:
        folder: a party's results folder.
        role: what the party must have been; None: any.

    Raises:
        ConfigError: it is the run of another role, or none of a `TableHost` or `TableCollaborator`.
        DataError: there is no run, or a file of it was changed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, role=role)
    about = manifest.about
    try:
        features = msgspec.convert(about.get("features"), FeatureAbout)
        host = msgspec.convert(about.get("host"), HostAbout) if manifest.role == "host" else None
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{folder} is not the run of a table ({error})",
            expected="a folder that a TableHost or a TableCollaborator of this version has written",
            advice="Scheduler classes of one's own make predictions with that class: see the documentation.",
        ) from None
    manifest.verify(folder)
    encoder = TableEncoder.load(folder / encoder_file(manifest.feature_key)) if features.inputs else None
    if encoder is not None and encoder.width != features.inputs:
        raise DataError(
            f"{folder} holds an encoder of {encoder.width} inputs, and a model of {features.inputs}",
            expected="the files of one run",
            advice="Take the folder as the run has written it, from a copy if need be.",
        )
    labels = LabelEncoder.load(folder / LABELS) if host is not None else None
    return SavedRun(folder, manifest, features, host, Fitted(encoder, labels, host.widths if host else {}))


def load_run(folder: str | Path, *, make_model: MakeModel | str | None = None) -> LoadedRun:
    """Return the models of a finished run with tables.

    A model of one's own is made again by the function that made it. Its module is imported, which runs it, by the name
    that `run.json` says: trust a run's folder as you would trust code.

    Args:
        folder: a party's results folder.
        make_model: what makes the feature model; None: what the run has noted.

    Raises:
        ConfigError: it is no run with tables, or what made its model is not known or cannot be imported.
        DataError: a file was changed, or does not fit, or what makes the model fails.
    """
    run = read_run(folder)
    manifest, about, host = run.manifest, run.about, run.host
    feature_model = infer_model = None
    if about.inputs:
        own = maker_of(run.maker(make_model))
        make = partial(own or partial(feature_layers, hidden=about.hidden, width=about.width), about.inputs)
        feature_model = _with_weights(make, run.folder / weights_file("feature", manifest.feature_key))
    if host is not None:
        infer = partial(infer_layers, sum(host.widths.values()), host.top, host.outputs)
        infer_model = _with_weights(infer, run.folder / weights_file("infer", manifest.feature_key))
    fitted = run.fitted
    return LoadedRun(
        run.folder, manifest, feature_model, infer_model, fitted.encoder, fitted.labels, dict(fitted.widths)
    )


def _with_weights(make: Callable[[], Any], path: Path) -> nn.Module:
    advice = "Has the function that makes the model changed since?"
    try:
        model = make()
    except Exception as error:  # a user's own function
        raise DataError(
            f"what makes the model of {path} raised {type(error).__name__}: {in_brief(error)}",
            expected="the model that was trained",
            advice=advice,
        ) from error
    if not isinstance(model, nn.Module):
        raise DataError(
            f"{path} does not fit the model: what makes the model gave {type(model).__name__}",
            expected="the model that was trained",
            advice=advice,
        )
    load_into(model, path, what="the model", advice=advice)
    return model.eval()

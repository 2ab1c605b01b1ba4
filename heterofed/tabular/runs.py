"""What of a run with tables outlives it, and reading it again.

run.json             what the folder is of, with `FeatureAbout` and at the host `HostAbout` in it
encoder_<key>.json   what was fitted to the columns of this party's train rows
labels.json          at the host: the classes, or a regression's unit
feature_model_<key>.pt, infer_model.pt
model_card.md        for people; evaluation.json, report.html and pictures/ at the host
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from torch import nn

from heterofed.errors import ConfigError, DataError
from heterofed.scheduler.keeping import MODEL_FILES
from heterofed.scheduler.manifest import RoleName, RunManifest, read_manifest
from heterofed.tables import (
    DecimalIds,
    Duplicates,
    LabelEncoder,
    MissingIds,
    TableEncoder,
    Task,
    Unlabelled,
)
from heterofed.tabular.models import MakeModel, feature_layers, infer_layers, maker_of
from heterofed.training.stateful import read_state

LABELS = "labels.json"

_T = TypeVar("_T")


class FeatureAbout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a party's feature model was made, and what its table was read with."""

    id_column: str
    inputs: int
    """Numbers that a row becomes; 0: the party has no features."""
    hidden: tuple[int, ...]
    width: int
    """What the argument said; a model of one's own may give another."""
    model: str | None
    """"package.module:name" of the function that made the model; None: the default one."""
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


def read_run(folder: str | Path, role: RoleName | None = None) -> SavedRun:
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
        raise DataError(f"{folder} holds an encoder of {encoder.width} inputs", expected=str(features.inputs))
    labels = LabelEncoder.load(folder / LABELS) if host is not None else None
    return SavedRun(folder, manifest, features, host, Fitted(encoder, labels, host.widths if host else {}))


def load_run(folder: str | Path, *, make_model: MakeModel | str | None = None) -> LoadedRun:
    """Return the models of a finished run with tables.

    A model of one's own is made again by the function that made it, whose module is imported by the name that the run
    has noted: load runs of people that you trust.

    Args:
        folder: a party's results folder.
        make_model: what makes the feature model; None: what the run has noted.

    Raises:
        ConfigError: it is no run with tables, or a function that made a model cannot be imported.
        DataError: a file was changed, or does not fit.
    """
    run = read_run(folder)
    manifest, about, host = run.manifest, run.about, run.host
    feature_model = infer_model = None
    if about.inputs:
        make = maker_of(make_model or about.model) or partial(feature_layers, hidden=about.hidden, width=about.width)
        feature_model = _with_weights(make(about.inputs), run.folder, MODEL_FILES["feature"], manifest.feature_key)
    if host is not None:
        infer = infer_layers(sum(host.widths.values()), host.top, host.outputs)
        infer_model = _with_weights(infer, run.folder, MODEL_FILES["infer"], manifest.feature_key)
    fitted = run.fitted
    return LoadedRun(
        run.folder, manifest, feature_model, infer_model, fitted.encoder, fitted.labels, dict(fitted.widths)
    )


def chosen(given: _T | None, before: _T) -> _T:
    """Return what is given, or else what was before."""
    return before if given is None else given


def _with_weights(model: Any, folder: Path, file: str, feature_key: str) -> nn.Module:
    path = folder / f"{file.format(key=feature_key)}.pt"
    try:
        if not isinstance(model, nn.Module):
            raise RuntimeError(f"what makes the model gave {type(model).__name__}")
        model.load_state_dict(read_state(path))
    except RuntimeError as error:
        raise DataError(
            f"{path} does not fit the model: {' '.join(str(error).split())[:300]}",
            expected="the weights of the model that was trained",
            advice="Has the function that makes the model changed since?",
        ) from None
    return model.eval()

"""What a party keeps when its task is completed.

<metric set>.csv             one for each set of register_metrics
metrics.json                 what was measured batch by batch and round by round
report.zip                   all of these
feature_model_<key>.pt       state dict of this party's feature model
infer_model.pt               at the host: state dict of the infer model
model.zip                    the models of this party
swag_moments.pt              where they were collected: the moments of its weights
run.json                     what the folder is of, with the SHA-256 of the files that predictions need
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from heterofed.errors import DataError
from heterofed.files import make_folder, sweep, write_whole
from heterofed.metrics.tables import MetricsTable
from heterofed.scheduler.manifest import NAME, read_manifest
from heterofed.training.devices import portable
from heterofed.training.stateful import read_state
from heterofed.words import in_brief

SUFFIXES = (".csv", ".json", ".pt", ".zip")

MODEL_FILES = {"feature": "feature_model_{key}.pt", "infer": "infer_model.pt"}
"""Part of a run -> the name of the file with its weights; {key} is the feature key."""


def weights_file(part: str, feature_key: str) -> str:
    """Return the name of the file with the weights of a part of a run, "feature" or "infer"."""
    return MODEL_FILES[part].format(key=feature_key)


def write_outputs(
    folder: Path, models: Mapping[str, nn.Module], metrics: Mapping[str, MetricsTable]
) -> tuple[Path, ...]:
    """Write all outputs of a party and return their paths.

    Args:
        folder: where; made if it is not there. No other process may write to it now.
        models: file name -> model, whose weights it gets.
        metrics: set name -> table.

    Raises:
        OutputError: something cannot be written; no file is left half written.
    """
    make_folder(folder)
    sweep(folder)
    tables = []
    for name, table in metrics.items():
        path = folder / f"{name}.csv"
        table.to_csv(path)
        tables.append(path)
    weights = []
    for name, model in models.items():
        path = folder / name
        state = portable(model.state_dict())
        write_whole(path, lambda file, state=state: torch.save(state, file))  # type: ignore[misc]  # bound as default
        weights.append(path)
    measured = [path for path in [folder / "metrics.json"] if path.exists()]  # there unless the user's writers say no
    archives = [_zip(folder / "report.zip", [*tables, *measured]), _zip(folder / "model.zip", weights)]
    return (*tables, *measured, *weights, *archives)


def load_into(model: nn.Module, path: Path, *, what: str, advice: str, party: str | None = None) -> None:
    """Give a model the weights that a run has written.

    Args:
        model: made as the one that was trained.
        path: the file with the weights.
        what: what an error calls the model: "the feature model that ShopHost makes".
        advice: what to do where they do not fit.
        party: whose they are, for an error.

    Raises:
        DataError: the file cannot be read, or does not fit the model.
    """
    state = read_state(path)
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:
        raise DataError(
            f"{path} does not fit {what}: {in_brief(error)}",
            party=party,
            expected="the same architecture as when it was trained",
            advice=advice,
        ).privately(f"the weights of its run do not fit {what}") from error


def find_outputs(folder: Path) -> tuple[Path, ...]:
    """Return the paths of the outputs that a folder holds, sorted."""
    named = read_manifest(folder).files if (folder / NAME).exists() else {}
    found = {each for each in folder.iterdir() if each.suffix in SUFFIXES} | {folder / each for each in named}
    return tuple(sorted(each for each in found if each.is_file()))


def _zip(path: Path, members: Sequence[Path]) -> Path:
    def fill(file: object) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]  # a binary file
            for member in members:
                archive.write(member, member.name)

    return write_whole(path, fill)

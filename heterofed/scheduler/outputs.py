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

from heterofed.files import make_folder, sweep, write_whole
from heterofed.metrics.tables import MetricsTable
from heterofed.scheduler.manifest import NAME, read_manifest
from heterofed.training.devices import portable

SUFFIXES = (".csv", ".json", ".pt", ".zip")


def write_outputs(
    folder: Path, models: Mapping[str, nn.Module], metrics: Mapping[str, MetricsTable]
) -> tuple[Path, ...]:
    """Write all outputs of a party and return their paths.

    Args:
        folder: where; made if it is not there. No other process may write to it now.
        models: file name without ".pt" -> model.
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
        path = folder / f"{name}.pt"
        state = portable(model.state_dict())
        write_whole(path, lambda file, state=state: torch.save(state, file))  # type: ignore[misc]  # bound as default
        weights.append(path)
    measured = [path for path in [folder / "metrics.json"] if path.exists()]  # there unless the user's writers say no
    archives = [_zip(folder / "report.zip", [*tables, *measured]), _zip(folder / "model.zip", weights)]
    return (*tables, *measured, *weights, *archives)


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

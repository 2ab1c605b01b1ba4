"""What a run of the tiny task leaves in its folder, and whether that is what an undisturbed one leaves."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from heterofed.errors import DataError
from heterofed.training.stateful import read_state

PARTIES = ("host", "c1")
"""Whose folders lie in a run's folder, by these names."""

WHOLE_CHECKPOINT = re.compile(r"/checkpoints/[a-z][^/]*/[^/.]+\.pt$")
MEASURED = re.compile(r"^(iteration|round|lr.*|scores/.*|(round/|mean_)?loss)$")
"""What of a line of metrics.json does not depend on the clock."""


class Red(Exception):
    """Something is not as it must be."""


@dataclass
class Outcome:
    """What a completed run leaves."""

    parameters: dict[str, torch.Tensor]
    tables: dict[str, str]
    """Path below the run's folder -> text of each CSV."""
    measured: dict[str, list[dict[str, Any]]]
    """Path -> lines of each metrics.json, without what tells of times and bytes."""
    files: list[str]
    """Paths of all other files below the run's folder, but of the checkpoints only those that are not whole."""

    @classmethod
    def left_in(cls, folder: Path) -> Outcome:
        """Read the files of a run that has completed."""
        parameters: dict[str, torch.Tensor] = {}
        for path in [path for party in PARTIES for path in (folder / party).glob("*.pt")]:
            state = read_state(path)
            parameters |= {f"{path.relative_to(folder)} {each}": value for each, value in state.items()}
        everything = [path for party in PARTIES for path in (folder / party).rglob("*") if path.is_file()]
        tables = {str(path.relative_to(folder)): path.read_text() for path in everything if path.suffix == ".csv"}
        lines = {str(path.relative_to(folder)): _lines_of(path) for path in everything if path.name == "metrics.json"}
        names = sorted(str(path.relative_to(folder)) for path in everything if path.suffix != ".lock")
        files = [each for each in names if not WHOLE_CHECKPOINT.search(each)]
        return cls(parameters, tables, lines, files)

    def check(self, wanted: Outcome) -> None:
        """Compare with an undisturbed run."""
        if self.tables != wanted.tables:
            raise Red(f"the CSVs differ: {self.tables}; wanted {wanted.tables}")
        if self.measured != wanted.measured:
            raise Red(f"metrics.json differs: {self.measured}; wanted {wanted.measured}")
        if self.parameters.keys() != wanted.parameters.keys():
            raise Red("there are other parameters")
        for name, value in self.parameters.items():
            if not torch.equal(value, wanted.parameters[name]):
                raise Red(f"{name} differs")
        if self.files != wanted.files:
            raise Red(f"other files are there: {sorted(set(self.files) ^ set(wanted.files))}")


def _lines_of(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if MEASURED.search(key)} for line in lines]


def check_checkpoints(folder: Path) -> None:
    """See that whatever has a checkpoint's name is one, and that the last one is there."""
    for party in PARTIES:
        here = folder / party / "checkpoints"
        for path in here.glob("model_*/*.pt"):
            try:
                read_state(path)
            except DataError as error:
                raise Red(str(error)) from error
        tag = here / "last_checkpoint"
        if tag.exists() and not (here / tag.read_text()).is_dir():
            raise Red(f"{tag} names {tag.read_text()!r}, which is not there")

"""The moments of SWAG that a party's run has collected: kept when it is completed, read to draw weights from.

swag_moments.pt   "feature", and at the host "infer" -> state of `SwagMoments`
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from heterofed.files import refused, write_whole
from heterofed.scheduler.manifest import RunManifest
from heterofed.training.stateful import read_state
from heterofed.uncertainty import SwagMoments

NAME = "swag_moments.pt"


def write_moments(folder: Path, moments: Mapping[str, SwagMoments]) -> tuple[Path, ...]:
    """Write the moments, whole or not at all; where there are none, remove those of a run before.

    Returns:
        The path of the file, if there is one.

    Raises:
        OutputError: they cannot be written.
    """
    path = folder / NAME
    if not moments:
        with refused(path):
            path.unlink(missing_ok=True)
        return ()
    states = {name: each.state_dict() for name, each in moments.items()}
    return (write_whole(path, lambda file: torch.save(states, file)),)


def read_moments(folder: Path, manifest: RunManifest) -> dict[str, SwagMoments]:
    """Return the moments that a run has kept, by the name of the model; empty if it kept none.

    Raises:
        DataError: the file cannot be read.
    """
    if NAME not in manifest.files:
        return {}
    found = {}
    for name, state in read_state(folder / NAME).items():
        found[name] = SwagMoments()
        found[name].load_state_dict(state)
    return found

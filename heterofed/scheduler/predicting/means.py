"""The mean embedding of each party over train ids: what stands in for a party that is absent when predictions are made.

mean_embeddings.pt   feature key -> (width, …), at the host
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from heterofed.errors import ConfigError
from heterofed.files import refused, write_whole
from heterofed.frames.tensors import TORCH_DTYPES
from heterofed.scheduler.manifest import RunManifest
from heterofed.scheduler.predicting.predictions import Predictions
from heterofed.training.stateful import read_state

NAME = "mean_embeddings.pt"


def take_means(predictions: Predictions, ids: list[str]) -> dict[str, Tensor]:
    """Return feature key -> (1, width, …), the mean embedding of these ids; sums are those of float64."""
    sums: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for _, projection in predictions.projections(ids):
        for party, values in projection.items():
            kinds[party] = values.dtype
            added = values.double().sum(dim=0, keepdim=True).cpu()
            sums[party] = sums[party] + added if party in sums else added
    return {party: (each / len(ids)).to(kinds[party]) for party, each in sums.items()}


def write_means(folder: Path, means: Mapping[str, Tensor]) -> tuple[Path, ...]:
    """Write the means, whole or not at all; where there are none, remove those of a run before.

    Returns:
        The path of the file, if there is one.

    Raises:
        OutputError: they cannot be written.
    """
    path = folder / NAME
    if not means:
        with refused(path):
            path.unlink(missing_ok=True)
        return ()
    return (write_whole(path, lambda file: torch.save(dict(means), file)),)


def read_means(folder: Path, manifest: RunManifest) -> dict[str, Tensor]:
    """Return the means that a host's run has kept, {feature key: (1, width, …)}; empty if it kept none.

    Raises:
        DataError: the file cannot be read.
    """
    if NAME not in manifest.files:
        return {}
    return {party: each for party, each in read_state(folder / NAME).items() if isinstance(each, Tensor)}


def stand_ins(absent: str, manifest: RunManifest, means: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return what takes the place of the embeddings of the host's collaborators: {feature key: (1, width, …)}.

    Args:
        absent: "fail", "mean" or "zeros".
        manifest: of the host's run.
        means: those that it kept.

    Returns:
        None for "fail".

    Raises:
        ConfigError: the policy is none of the three, or the run did not keep what it needs.
    """
    if absent == "fail":
        return None
    others = manifest.parties[1:]
    if absent == "mean":
        if missing := [each for each in others if each not in means]:
            raise ConfigError(
                f"absent is 'mean', but this run kept no mean embedding of {', '.join(missing)}",
                expected="a run that was trained with mean_rows above 0",
                advice="Train with mean_rows, or take absent='zeros' or 'fail'.",
            )
        return {each: means[each] for each in others}
    if absent == "zeros":
        if missing := [each for each in others if each not in manifest.embeddings]:
            raise ConfigError(
                f"absent is 'zeros', but this run has not noted how wide the embedding of {', '.join(missing)} is",
                expected="a run in which every party has sent one",
                advice="Wait for all parties (absent='fail'), or train again.",
            )
        shapes = {each: manifest.embeddings[each] for each in others}
        return {each: torch.zeros(1, *shape, dtype=TORCH_DTYPES[dtype]) for each, (dtype, shape) in shapes.items()}
    raise ConfigError(f"absent is {absent!r}", expected="'fail', 'mean' or 'zeros'")

"""Which of the ids that are not trained on are for validation, and which for the test: the host's own affair."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from heterofed.files import write_whole
from heterofed.tables import Split, stratified_split

KEY_FILE = "split.key"
KEY_BYTES = 32


def split_held_out(ids: Sequence[str], labels: Tensor, fractions: Sequence[float], folder: Path | None) -> Split:
    """Return the ids in two parts with the same mix of labels; no train ids.

    The parties have agreed on what is trained on, and are told nothing of this. The key stays in the folder, so that a
    run that goes on after a crash comes to the same parts.

    Args:
        ids: not trained on.
        labels: one for each.
        fractions: of train, valid and test.
        folder: where the key is kept; None: nowhere.

    Raises:
        OutputError: the key cannot be written.
    """
    rest = fractions[1] + fractions[2]
    if not ids or not rest:
        return Split([], [], list(ids))
    if not fractions[1]:
        return Split([], [], sorted(ids))
    if not fractions[2]:
        return Split([], sorted(ids), [])
    valid = fractions[1] / rest
    values = labels.numpy()
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    split = stratified_split(ids, values, key=_key(folder), fractions=(valid, 0.0, 1.0 - valid))
    return Split([], split.train, split.test)


def _key(folder: Path | None) -> bytes:
    if folder is None:
        return secrets.token_bytes(KEY_BYTES)
    path = folder / KEY_FILE
    if path.is_file() and len(found := path.read_bytes()) == KEY_BYTES:
        return found
    key = secrets.token_bytes(KEY_BYTES)
    write_whole(path, lambda file: file.write(key), private=True)
    return key

"""predictions.csv: a row for every id asked, in the order asked, written as the answers come, whole or not at all.

    id, status, prediction, p_<class> … , absent

    status      predicted: by all parties · partial: some embeddings were stand-ins · unknown: there is no prediction
    prediction  the class; of a regression the value; of several labels the names of those that hold, with ";" between
    p_<class>   the probability of each class, or of each label; a regression has none
    absent      the parties whose embeddings were stand-ins, with ";" between

Numbers have as many digits as give back the same bits. Only one piece of the answer is in memory.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TextIO

import numpy as np
import numpy.typing as npt

from heterofed.cli.tables import refuse_replacing
from heterofed.errors import ConfigError, OutputError
from heterofed.files import write_whole

if TYPE_CHECKING:
    from heterofed.scheduler.predicting.predicted import RowStatus
    from heterofed.tables import LabelEncoder

JOINT = ";"
"""Between names in one cell."""


class Piece(Protocol):
    """What is written of a `PredictedBatch`."""

    @property
    def ids(self) -> Sequence[str]:
        """The ids of consecutive rows."""

    @property
    def status(self) -> Sequence[RowStatus]:
        """The status of each."""

    @property
    def values(self) -> Any:
        """(rows with a prediction, outputs) of probabilities or values; None: no row has one."""

    @property
    def stand_ins(self) -> Sequence[tuple[str, ...]]:
        """For each row the parties whose embeddings are stand-ins."""


def check_place(path: Path, *, force: bool = False) -> None:
    """Refuse a file that could not be written, or would replace another, while nothing is lost by it.

    Raises:
        ConfigError: it is there, and is not to be replaced.
        OutputError: its name is not that of a CSV.
    """
    if not path.name.lower().endswith((".csv", ".csv.gz")) or path.is_dir():
        raise OutputError(f"predictions cannot be written as {path}", expected="a .csv or .csv.gz file")
    refuse_replacing(path, force)


def write_predictions(
    path: Path, pieces: Iterable[Piece], labels: LabelEncoder, *, id_column: str = "id"
) -> Counter[str]:
    """Write predictions as they come.

    Args:
        path: a .csv or .csv.gz file in a folder that is there.
        pieces: in order; an error that it raises leaves no file behind.
        labels: what the host's label encoder was fitted to: the classes.
        id_column: what the column of the ids is called.

    Returns:
        How many rows have each status.

    Raises:
        ConfigError: the predictions do not have the shape that the labels ask for.
        OutputError: the file cannot be written; an earlier one is untouched.
    """
    counts: Counter[str] = Counter()

    def fill(file: BinaryIO) -> None:
        with _as_text(file, path) as text:
            lines = csv.writer(text, lineterminator="\n")
            lines.writerow([id_column, "status", "prediction", *(f"p_{each}" for each in _names(labels)), "absent"])
            for piece in pieces:
                counts.update(each.value for each in piece.status)
                lines.writerows(rows_of(piece, labels))

    write_whole(path, fill)
    return counts


def rows_of(piece: Piece, labels: LabelEncoder) -> Iterator[list[str]]:
    """Yield the cells of each row of a piece.

    Raises:
        ConfigError: as `write_predictions`.
    """
    from heterofed.scheduler.predicting.predicted import RowStatus

    places = [place for place, each in enumerate(piece.status) if each is not RowStatus.UNKNOWN]
    values = _checked(piece.values, len(places), labels)
    answers = iter(zip(_predicted(values, labels), _probabilities(values, labels), strict=True))
    nothing = [""] * (1 + len(_names(labels)))
    for name, status, stand_ins in zip(piece.ids, piece.status, piece.stand_ins, strict=True):
        if status is RowStatus.UNKNOWN:
            yield [name, status.value, *nothing, ""]
            continue
        predicted, probabilities = next(answers)
        yield [name, status.value, predicted, *probabilities, JOINT.join(stand_ins)]


def _names(labels: LabelEncoder) -> tuple[Any, ...]:
    return () if labels.task == "regression" else labels.classes


def _checked(values: Any, rows: int, labels: LabelEncoder) -> npt.NDArray[Any]:
    """Return predictions as (rows, outputs)."""
    if values is None:
        array = np.empty((0, labels.outputs), dtype=np.float32)
    else:
        array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
        array = array[:, None] if array.ndim == 1 else array
    if array.shape != (rows, labels.outputs):
        raise ConfigError(
            f"the predictions of {rows} rows are of shape {array.shape}",
            expected=f"({rows}, {labels.outputs}), as predict_a_batch() of a {labels.task} task gives",
        )
    return array


def _predicted(values: npt.NDArray[Any], labels: LabelEncoder) -> Iterator[str]:
    """Yield what a person would call the prediction of each row."""
    if labels.task == "regression":
        yield from values[:, 0].astype(str)  # in the label's own unit already
        return
    for each in labels.decode(values):
        if labels.task == "multilabel":
            yield JOINT.join(str(name) for name, holds in zip(labels.classes, each, strict=True) if holds)
        else:
            yield str(each)


def _probabilities(values: npt.NDArray[Any], labels: LabelEncoder) -> Iterator[list[str]]:
    """Yield the probability of each class, row by row."""
    if labels.task == "regression":
        yield from ([] for _ in values)
        return
    whole = np.concatenate([1 - values, values], axis=1) if labels.task == "binary" else values
    yield from whole.astype(str).tolist()


@contextmanager
def _as_text(file: BinaryIO, path: Path) -> Iterator[TextIO]:
    """Give a binary file as a text file, compressed where its name says so; the file itself stays open."""
    packed = path.name.lower().endswith(".gz")
    below: Any = gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) if packed else file
    text = io.TextIOWrapper(below, encoding="utf-8", newline="")
    try:
        yield text
    except BaseException:
        with suppress(OSError, ValueError):  # what is told is why it could not be filled
            text.detach()
        raise
    text.detach()  # writes what is left
    if packed:
        below.close()

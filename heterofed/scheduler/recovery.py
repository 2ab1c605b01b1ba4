"""What a party keeps so that it can go on after its process was killed, and what it finds when it is started again.

checkpoints/
    alignment.msgpack   the shared ids, and the run in whose session they were matched
    model_start/        the run before its first batch
    model_0000041/      and after its 42nd

A *point* is a number of batches; two parties that stand at one point of one run fit together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from heterofed.errors import DataError
from heterofed.files import make_folder, refused, write_whole
from heterofed.frames.messages import MOST_POINTS
from heterofed.metrics.progress import logger
from heterofed.scheduler.standing import START, Standing
from heterofed.training.checkpoint import Checkpointer

CHECKPOINTS = "checkpoints"
"""The folder of all this, in the results folder of a party."""

ALIGNMENT_FILE = "alignment.msgpack"
START_NAME = "model_start"


class Alignment(msgspec.Struct, frozen=True):
    """The shared ids of a run, as one party keeps them for itself."""

    run: bytes
    """The token of the session in which they were matched and compared, 16 bytes."""

    shared: list[str]
    """All shared ids, sorted."""


def keep_alignment(folder: Path, alignment: Alignment) -> None:
    """Write an alignment into a party's folder of checkpoints, for this user's eyes only.

    Raises:
        OutputError: it cannot be written.
    """
    path = make_folder(folder) / ALIGNMENT_FILE
    write_whole(path, lambda file: file.write(msgspec.msgpack.encode(alignment)), private=True)


def find_alignment(folder: Path, own_ids: Sequence[str]) -> Alignment | None:
    """Return the alignment that an earlier process of this party kept; None where there is none that can be used.

    Args:
        folder: the party's folder of checkpoints.
        own_ids: the ids that it holds now; if some of the shared ones are not among them, all are matched again.
    """
    path = folder / ALIGNMENT_FILE
    try:
        found = msgspec.msgpack.decode(path.read_bytes(), type=Alignment)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        logger.warning("%s cannot be used (%s): the ids are matched again", path, type(error).__name__)
        return None
    if not set(found.shared) <= set(own_ids):
        logger.warning("the ids of this party have changed since they were matched: they are matched again")
        return None
    return found


def drop_alignment(folder: Path) -> Alignment | None:
    """Forget the alignment of a run that is begun anew: nobody may go on with that one by mistake.

    Returns:
        What was there, for one that is not let in: it may have begun anew by mistake.

    Raises:
        OutputError: it cannot be removed.
    """
    path = folder / ALIGNMENT_FILE
    found = None
    with suppress(OSError, msgspec.MsgspecError):
        found = msgspec.msgpack.decode(path.read_bytes(), type=Alignment)
    with refused(path):
        path.unlink(missing_ok=True)
    return found


class Points:
    """The points of one run that a party's checkpoints hold.

    Args:
        checkpointer: of the party's trainer.
        run: the run, as `Alignment.run`; of other runs there may be checkpoints in the folder too.
    """

    def __init__(self, checkpointer: Checkpointer, run: bytes) -> None:
        self._names: dict[int, str] = {}
        names = checkpointer.names()
        if checkpointer.has(START_NAME):
            names = [START_NAME, *names]
        for name in names:
            try:
                place = checkpointer.peek(name, "trainer")
            except DataError as error:
                logger.warning("%s", error)
                continue
            if place.get("own", {}).get("run") == run.hex() and checkpointer.readable(name):
                self._names[int(place["iter"])] = name

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._names))

    def name(self, point: int) -> str | None:
        """Return the checkpoint of a point; None for a start that nothing was kept of."""
        return self._names.get(point)


def standing_with(points: Points | None, alignment: Alignment | None, *, recover: bool, fresh: bool) -> Standing:
    """Return where a party stands that found this.

    Args:
        points: what its checkpoints hold; None where it does not look at them.
        alignment: the ids that it kept; None for none.
        recover: whether it would go on.
        fresh: whether its models are as they were made, untrained.
    """
    if not recover or points is None or alignment is None:
        return Standing(recover, points=(START,) if fresh else ())
    found = tuple(points)[-MOST_POINTS:]
    # One that was killed before it had kept anything stands at the start, with the models that it has just made.
    return Standing(recover, alignment.run, found or ((START,) if fresh else ()))

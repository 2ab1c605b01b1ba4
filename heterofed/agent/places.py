"""Where an agent hears of tasks: the hub of the settings or this machine's store, and each task that was joined."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from heterofed.config import Settings
from heterofed.errors import HeterofedError, NotAllowed
from heterofed.metrics.progress import logger
from heterofed.tasks.directory import open_directory
from heterofed.tasks.interface import Tasks
from heterofed.tasks.joined import read_joined
from heterofed.tasks.model import Task

AGAIN_S = 5.0
"""After how long a stream that broke is opened again."""


@dataclass
class Place:
    """A place where tasks are."""

    tasks: Tasks
    only: str | None = None
    """The one task that was joined there; None: all that are to be seen."""

    said: str = ""
    """The last trouble with it that the user was told of."""

    def look(self) -> Iterator[Task]:
        """Yield the tasks as they are now; nothing where the place is not reached."""
        try:
            found = (self.tasks.get(self.only),) if self.only is not None else self.tasks.list()
        except HeterofedError as error:
            if str(error) != self.said:
                logger.warning("%s", error)
                self.said = str(error)
            return
        if self.said:
            logger.info("%s is reached again", self.tasks.where)
            self.said = ""
        yield from found


class Places:
    """All places, and a thread for each that wakes the agent when something happens there.

    Args:
        settings: of the agent.
        wake: set when there may be something to do.
        stop: ends the threads.
    """

    def __init__(self, settings: Settings, wake: threading.Event, stop: threading.Event) -> None:
        self._settings = settings
        self._wake = wake
        self._stop = stop
        self._places: dict[str | None, Place] = {}
        self._over: set[str] = set()
        self._said = ""

    def __iter__(self) -> Iterator[Place]:
        """Yield every place, those of newly joined tasks included."""
        if None not in self._places:
            self._add(None)
        try:
            joined = {task_id for task_id, each in read_joined(self._settings.home).items() if each.hub}
        except HeterofedError as error:
            joined = set()
            if str(error) != self._said:
                logger.warning("%s", error)
                self._said = str(error)
        for task_id in sorted(joined - self._places.keys() - self._over):
            self._add(task_id)
        return iter(list(self._places.values()))

    def drop(self, task_id: str) -> None:
        """Listen no more for a joined task that is over."""
        self._over.add(task_id)
        self._places.pop(task_id, None)

    def _add(self, task_id: str | None) -> None:
        place = Place(open_directory(self._settings, task_id).store, task_id)
        self._places[task_id] = place
        threading.Thread(target=self._follow, args=(place,), name="heterofed agent", daemon=True).start()

    def _follow(self, place: Place) -> None:
        """Wake the agent at every notification. What it says is never obeyed: the agent reads the record itself."""
        after = 0
        while not self._stop.is_set() and (place.only is None or place.only not in self._over):
            try:
                for each in place.tasks.follow(after=after, stop=self._stop):
                    after = max(after, each.number)
                    self._wake.set()
            except NotAllowed as error:
                logger.warning("%s", error)
                return
            except HeterofedError:
                pass  # looking at the record says what is wrong
            self._stop.wait(AGAIN_S)

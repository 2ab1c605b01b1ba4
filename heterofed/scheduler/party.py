"""A party as such: its settings, its place in a task, its link, its results folder, and calls of the user's code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from heterofed.checks import check_count
from heterofed.config import Settings
from heterofed.errors import ConfigError
from heterofed.features.alignment import OrderedIds
from heterofed.metrics.progress import logger
from heterofed.metrics.tables import MetricsTable, declared_metrics
from heterofed.scheduler.calling import UserCall
from heterofed.scheduler.checks import check_seconds
from heterofed.scheduler.link import Link
from heterofed.scheduler.recovery import Alignment, Points
from heterofed.scheduler.seat import Seat
from heterofed.scheduler.telling import Telling
from heterofed.scheduler.templates import PartyTemplates
from heterofed.tasks.model import check_feature_key
from heterofed.training.devices import Computing

if TYPE_CHECKING:
    from heterofed.scheduler.replicas.following import Follower
    from heterofed.scheduler.replicas.sharing import Leader

LEAST_KEPT = 2
"""A party may be a checkpoint ahead of another one: with two, all have one in common."""


class Party(PartyTemplates):
    """A party's settings and places; its arguments are those of `Scheduler`, as are the errors."""

    def __init__(
        self,
        feature_key: str,
        name: str | None = None,
        schedule_timeout: float = 30,
        data_channel_timeout: tuple[float, float] = (30, 60),
        is_feature_trainable: bool = True,
        *,
        rejoin_timeout: float | None = None,
        max_to_keep: int = LEAST_KEPT,
        device: str | torch.device | None = None,
        mixed_precision: str | None = None,
        compile_models: bool | str = False,
        out_dir: str | Path | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.feature_key = check_feature_key(feature_key)
        if name is not None and (not isinstance(name, str) or not name):
            raise ConfigError(f"name is {name!r}", expected="a non-empty str, or None for the task id")
        check_seconds("schedule_timeout", schedule_timeout)
        if not isinstance(data_channel_timeout, Sequence) or len(data_channel_timeout) != 2:
            raise ConfigError(f"data_channel_timeout is {data_channel_timeout!r}", expected="two numbers of seconds")
        for each in data_channel_timeout:
            check_seconds("data_channel_timeout", each)
        self.settings = settings or Settings.from_env()
        if rejoin_timeout is None:
            rejoin_timeout = self.settings.rejoin_timeout_s
        check_seconds("rejoin_timeout", rejoin_timeout)
        check_count("max_to_keep", max_to_keep, LEAST_KEPT)
        self._computing = Computing(device, mixed_precision, compile_models)
        self.rejoin_timeout = float(rejoin_timeout)
        self.max_to_keep = max_to_keep
        self.name = name
        self.schedule_timeout = float(schedule_timeout)
        self.data_channel_timeout = (float(data_channel_timeout[0]), float(data_channel_timeout[1]))
        self.is_feature_trainable = bool(is_feature_trainable)
        self.out_dir = None if out_dir is None else Path(out_dir)
        self._metric_sets = {name: MetricsTable(keys) for name, keys in declared_metrics(type(self)).items()}
        self._seat: Seat | None = None
        self._telling = Telling(lambda: self._seat.record if self._seat is not None else None, self._round_at_hand)
        for name, table in self._metric_sets.items():
            self._telling.listen_to(name, table)
        self._party_link: Link | None = None
        self._session_key = b""
        self._recovers = False
        self._met = False
        self._meetings: Counter[int] = Counter()
        self._matchings = 0
        self._alignment: Alignment | None = None
        self._given_up: Alignment | None = None
        self._points: Points | None = None
        self._local_ids: list[str] = []
        self._failed_in = ""
        self._making_trainer = False
        self._models_made = False
        self._warned: set[str] = set()
        self._replicas: Leader | Follower | None = None
        self._at_the_end = ExitStack()
        self._intersection: OrderedIds | None = None
        self._id_split: tuple[list[str], list[str]] = ([], [])

    # --- what users may call ------------------------------------------------------------------------------------------

    def push_log(self, message: str) -> None:
        """Show a line to this party's user and keep it with the task.

        Raises:
            ConfigError: the message is empty or no str.
        """
        if not isinstance(message, str) or not message:
            raise ConfigError("push_log got an empty message", expected="a non-empty str")
        logger.info("%s", message)
        if self._seat is not None:
            self._seat.record.log(message)

    @property
    def task_id(self) -> str:
        """Id of the task that this party is in.

        Raises:
            ConfigError: it is in none yet.
        """
        return self._at_seat.task_id

    # --- for the rest of the scheduler --------------------------------------------------------------------------------

    @property
    def task_parties(self) -> tuple[str, ...]:
        """Feature keys of all parties of the task, in its order.

        Raises:
            ConfigError: this party is in no task yet.
        """
        return self._at_seat.parties

    @property
    def _at_seat(self) -> Seat:
        if self._seat is None:
            raise ConfigError("this scheduler is in no task yet", advice="Call launch_task(task_id=…).")
        return self._seat

    def _round_at_hand(self) -> int:
        """Return the number of the round in progress; a party that trains nothing has none."""
        return 0

    @property
    def _linked(self) -> Link:
        if self._party_link is None:
            raise ConfigError("this party has no link to the others yet")
        return self._party_link

    @property
    def _run_name(self) -> str:
        """Name of the run that the shared ids belong to, the same at every party; empty before they are matched."""
        return self._alignment.run.hex() if self._alignment is not None else ""

    @property
    def _room_s(self) -> float:
        """How long to wait for room in a peer's queue, in seconds."""
        return self.data_channel_timeout[0]

    @property
    def _results_folder(self) -> Path:
        if self.out_dir is None:
            raise ConfigError("this scheduler is in no task yet", advice="Call launch_task(task_id=…).")
        return self.out_dir

    def _wrote(self, method: str) -> bool:
        """Whether the user's class overrides a template method."""
        return getattr(type(self), method) is not getattr(PartyTemplates, method)

    def _made_wrong(self, method: str, value: object, expected: str) -> ConfigError:
        return ConfigError(f"{type(self).__name__}.{method}() returned {type(value).__name__}", expected=expected)

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("%s: %s", self.feature_key, text)

    def _calling(self, method: str) -> UserCall:
        """Mark the body as a call of the user's code.

        Args:
            method: the name of a template method, or a few words for what is called.
        """
        return UserCall(self, method)

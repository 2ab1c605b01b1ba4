"""A party's check of its own data before a task is launched."""

from __future__ import annotations

from abc import ABC, abstractmethod

from heterofed.config import Settings
from heterofed.errors import ConfigError, HeterofedError, TemplateError
from heterofed.metrics.progress import logger, show_logs
from heterofed.tasks.directory import open_directory
from heterofed.tasks.model import Party, PartyStatus


class DataChecker(ABC):
    """Subclass it, write `verify_data`, call `execute_verification()`.

    Args:
        task_id: the task whose data are checked.
        feature_key: the party that checks; None: every party of the task that does not run yet, except those that
            another checker class has refused.
        settings: what `HETEROFED_*` variables say, unless given.

    Raises:
        ConfigError: the task id is no non-empty str.
    """

    def __init__(self, task_id: str, feature_key: str | None = None, *, settings: Settings | None = None) -> None:
        if not isinstance(task_id, str) or not task_id:
            raise ConfigError(f"task_id is {task_id!r}", expected="the id that `heterofed task create` printed")
        self.task_id = task_id
        self.feature_key = feature_key
        self.settings = settings or Settings.from_env()

    @abstractmethod
    def verify_data(self) -> bool | tuple[bool, str]:
        """Return whether this party's data can be used, or (whether, why not)."""

    def execute_verification(self) -> bool:
        """Run `verify_data`, note the outcome with the task, and return it.

        A party whose data were refused cannot launch until a later check accepts them.

        Raises:
            UnknownTask: there is no such task.
            ConfigError: `verify_data` returned something else than a bool or (bool, str).
            TemplateError: `verify_data` raised; the party counts as refused.
        """
        show_logs(self.settings.progress)
        directory = open_directory(self.settings, self.task_id)
        task = directory.find(self.task_id)
        me = self.feature_key or directory.joined_as
        parties = [task.party(me).feature_key] if me else list(task.feature_keys)
        failure: HeterofedError | None = None
        try:
            verified, reason = self._outcome()
        except HeterofedError as error:
            failure, verified, reason = error, False, str(error)
        why = None if verified else f"{type(self).__name__}: {reason or 'no reason given'}"
        for party in parties:
            if me or self._may_speak_for(task.party(party), verified):
                directory.store.verify(self.task_id, party, verified, why)
        if failure is not None:
            raise failure
        names = ", ".join(parties)
        logger.info("data of %s: %s", names, "verified" if verified else f"refused ({reason or 'no reason given'})")
        return verified

    def _may_speak_for(self, party: Party, verified: bool) -> bool:
        """Without a feature key: whether a party's data may be what this checker has looked at."""
        if party.status is PartyStatus.REJECTED and verified:
            return (party.reason or "").startswith(f"{type(self).__name__}: ")
        return party.status in (PartyStatus.INVITED, PartyStatus.VERIFIED, PartyStatus.REJECTED)

    def _outcome(self) -> tuple[bool, str]:
        try:
            outcome = self.verify_data()
        except Exception as error:
            raise TemplateError(
                f"{type(self).__name__}.verify_data() raised {type(error).__name__}",
                party=self.feature_key,
                phase="checking its data",
                advice="The traceback is in this party's output.",
            ) from error
        verified, reason = outcome if isinstance(outcome, tuple) and len(outcome) == 2 else (outcome, "")
        if not isinstance(verified, bool) or not isinstance(reason, str):
            raise ConfigError(
                f"{type(self).__name__}.verify_data() returned {type(outcome).__name__}",
                party=self.feature_key,
                expected="True, False, or (bool, reason)",
            )
        return verified, reason

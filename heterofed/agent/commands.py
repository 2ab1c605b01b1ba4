"""What `heterofed agent` does."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from heterofed.agent import children
from heterofed.agent.agent import LOOK_EVERY_S, Agent
from heterofed.agent.registered import Served, parse, with_checkers
from heterofed.config import Settings
from heterofed.errors import ConfigError
from heterofed.metrics.progress import logger, show_logs
from heterofed.tasks.directory import open_directory


def serve(
    serve: Sequence[str],
    check: Sequence[str] = (),
    *,
    out: Path | None = None,
    settings: Settings | None = None,
    look_every_s: float = LOOK_EVERY_S,
) -> None:
    """Run an agent until Ctrl-C or SIGTERM.

    Args:
        serve: the parties, each `[KEY=]package.module:Name` of a class of its scheduler.
        check: their data checkers, in the same form; without a key for all parties that have none of their own.
        out: folder for results, one below it for each task; None: as each scheduler says.
        settings: what `HETEROFED_*` variables say, unless given.
        look_every_s: how often all tasks are looked at where nothing is heard.

    Raises:
        ConfigError: nothing is to be served, what is named cannot be, or another agent serves it.
        NotAllowed: the hub does not take the token.
    """
    settings = settings or Settings.from_env()
    show_logs("plain" if settings.progress == "auto" else settings.progress)
    if not serve:
        raise ConfigError("there is nothing to serve", expected="--serve [KEY=]package.module:Name")
    named, checkers = [parse(each) for each in serve], [parse(each) for each in check]
    with tempfile.TemporaryDirectory() as folder:
        found = children.describe(named, Path(folder) / "answer")
    parties = [Served(is_["feature_key"], each.thing, is_["host"]) for each, is_ in zip(named, found, strict=True)]
    agent = Agent(with_checkers(parties, checkers), settings, None if out is None else out.absolute(), look_every_s)
    try:
        for party in parties:
            logger.info("serving %s, a %s: %s", party.feature_key, _role(party), party.thing)
        logger.info("listening at %s; Ctrl-C ends the agent, not the parties", open_directory(settings).store.where)
        with _ended_by_signals(agent):
            agent.run()
    finally:
        agent.close()


def _role(party: Served) -> str:
    return "host" if party.host else "collaborator"


@contextmanager
def _ended_by_signals(agent: Agent) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the agent's loop."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may
        return
    before = {each: signal.signal(each, lambda number, frame: agent.stop()) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

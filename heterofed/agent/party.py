"""One party as the child process of an agent: `python -m heterofed.agent.party describe|check|run …`.

It alone imports what the owner registered, so that this code can neither stop the agent nor stay in its memory.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heterofed.agent.registered import parse
from heterofed.errors import ConfigError, HeterofedError, HubUnreachable
from heterofed.named import find_callable

TRY_AGAIN = 75
"""Exit code where the hub was not reached (EX_TEMPFAIL)."""
WRONG = 78
"""Exit code where the registered class cannot work (EX_CONFIG)."""


def made(thing: str, feature_key: str | None, *positional: str) -> Any:
    """Call a registered class; with the feature key where it takes one.

    Raises:
        ConfigError: it is nothing to call, wants other arguments, or its constructor raises.
    """
    found = find_callable(thing, expected="a class, or a function that makes one")
    named = {"feature_key": feature_key} if feature_key is not None and _takes(found, "feature_key") else {}
    try:
        return found(*positional, **named)
    except HeterofedError:
        raise
    except Exception as error:
        advice = None if feature_key is not None else f"If it wants a feature_key, name it: KEY={thing}"
        raise ConfigError(
            f"{thing} cannot be made: {type(error).__name__}: {error}",
            expected=f"{thing.partition(':')[2]}(feature_key=…) or {thing.partition(':')[2]}()",
            advice=advice,
        ) from error


def _takes(function: Any, name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(each.name == name or each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)


def scheduler(thing: str, feature_key: str | None) -> Any:
    """Return a party's scheduler.

    Raises:
        ConfigError: what is registered makes none, or one of another party.
    """
    from heterofed.scheduler.collaborator import CollaboratorScheduler
    from heterofed.scheduler.host import HostScheduler

    party = made(thing, feature_key)
    if not isinstance(party, HostScheduler | CollaboratorScheduler):
        raise ConfigError(
            f"{thing} makes a {type(party).__name__}", expected="a subclass of HostScheduler or CollaboratorScheduler"
        )
    if feature_key is not None and party.feature_key != feature_key:
        raise ConfigError(
            f"{thing} is registered for {feature_key}, but is {party.feature_key}",
            expected="the same feature_key",
            advice="Let its constructor take feature_key, or register it for that party.",
        )
    return party


def describe(thing: str, feature_key: str | None) -> dict[str, Any]:
    """Return whose party a registered class is, and whether it is a host."""
    from heterofed.scheduler.host import HostScheduler

    party = scheduler(thing, feature_key)
    return {"feature_key": party.feature_key, "host": isinstance(party, HostScheduler)}


def check(thing: str, task_id: str, feature_key: str) -> bool:
    """Run a registered data checker; the outcome goes to the task's record.

    Raises:
        ConfigError: it is no DataChecker.
    """
    from heterofed.scheduler.checker import DataChecker

    checker = made(thing, feature_key, task_id)
    if not isinstance(checker, DataChecker):
        raise ConfigError(f"{thing} makes a {type(checker).__name__}", expected="a subclass of DataChecker")
    checker.feature_key = feature_key  # it speaks for this party alone
    return checker.execute_verification()


def run(thing: str, task_id: str, feature_key: str, out: Path | None, *, recover: bool) -> int:
    """Take part in a task; return the exit code."""
    try:
        party = scheduler(thing, feature_key)
    except ConfigError as error:
        _say(error)
        return WRONG
    if out is not None:
        party.out_dir = out / task_id / feature_key
    party.launch_task(task_id, recover=recover)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m heterofed.agent.party")
    parser.add_argument("what", choices=["describe", "check", "run"])
    parser.add_argument("things", nargs="+", help="[KEY=]package.module:Name; several to describe")
    parser.add_argument("--task", default="")
    parser.add_argument("--key")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--recover", action="store_true")
    parser.add_argument("--answer", type=Path, help="where `describe` writes what it found")
    given = parser.parse_args(arguments)
    try:
        if given.what == "describe":
            answer = [describe(each.thing, each.key) for each in map(parse, given.things)]
            if given.answer is not None:
                given.answer.write_text(json.dumps(answer), encoding="utf-8")
        elif given.what == "check":
            check(given.things[0], given.task, given.key)
        else:
            return run(given.things[0], given.task, given.key, given.out, recover=given.recover)
    except HubUnreachable as error:
        _say(error)
        return TRY_AGAIN
    except HeterofedError as error:
        _say(error)
        return 1
    return 0


def _say(error: HeterofedError) -> None:
    if error.__cause__ is not None and not isinstance(error.__cause__, HeterofedError):
        sys.excepthook(type(error), error, error.__traceback__)
    else:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")


if __name__ == "__main__":
    sys.exit(main())

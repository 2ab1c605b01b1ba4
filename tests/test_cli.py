"""The `heterofed` command, as people type it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from heterofed import Settings
from heterofed.tasks.directory import open_directory
from heterofed.tasks.model import PartyStatus, TaskStatus

HETEROFED = Path(sys.executable).with_name("heterofed")


def heterofed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HETEROFED), *arguments], capture_output=True, text=True, timeout=50)


def test_creating_a_task_prints_its_id_alone_on_the_last_line() -> None:
    done = heterofed("task", "create", "--name", "split-mnist", "--parties", "demo_host,demo_collaborator")

    assert done.returncode == 0
    task_id = done.stdout.splitlines()[-1]
    task = open_directory(Settings.from_env()).find(task_id)
    assert task.name == "split-mnist"
    assert task.feature_keys == ("demo_host", "demo_collaborator")
    assert done.stdout == f"{task_id}\n"


@pytest.mark.parametrize(
    ("parties", "text"),
    [("a,a", "a named more than once"), ("a", "a task of 1 parties"), ("a,b c", "a feature_key is 'b c'")],
)
def test_parties_that_cannot_be_are_refused_with_one_line(parties: str, text: str) -> None:
    done = heterofed("task", "create", "--parties", parties)

    assert done.returncode == 1
    assert done.stderr.startswith("ConfigError: ")
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_tasks_are_listed_and_shown_with_their_parties_and_log() -> None:
    store = open_directory(Settings.from_env()).store
    task = store.create("credit", ["bank", "shop"])
    store.set_party(task.id, "shop", status=PartyStatus.REJECTED, reason="no rows")
    store.log(task.id, "bank", "data looked at")

    listed, shown = heterofed("task", "list"), heterofed("task", "show", task.id)

    for told in (task.id, "credit", "CREATED", "bank, shop"):
        assert told in listed.stdout
    for told in (task.id, "credit", "CREATED", "bank", "shop", "REJECTED", "no rows", "bank: data looked at"):
        assert told in shown.stdout


def test_a_failed_task_says_why() -> None:
    store = open_directory(Settings.from_env()).store
    task = store.create("credit", ["bank", "shop"])
    store.move(task.id, TaskStatus.FAILED, "shop never came")

    assert "shop never came" in heterofed("task", "show", task.id).stdout


def test_an_unknown_task_is_one_line_and_exit_code_1() -> None:
    done = heterofed("task", "show", "nosuchtask")

    assert done.returncode == 1
    assert done.stderr.startswith("UnknownTask: there is no task 'nosuchtask'")
    assert done.stderr.count("\n") == 1


def test_the_command_is_a_module_too_and_says_its_version() -> None:
    done = subprocess.run([sys.executable, "-m", "heterofed", "--version"], capture_output=True, text=True, timeout=50)

    assert done.returncode == 0
    assert done.stdout == "heterofed 0.1.0, protocol 1\n"


def test_every_command_has_help_with_an_example() -> None:
    for command in (["task", "create"], ["task", "list"], ["task", "show"]):
        assert "Example: heterofed " + " ".join(command) in " ".join(heterofed(*command, "--help").stdout.split())
    options = heterofed("demo", "mnist", "--help").stdout
    for option in ("--rounds", "--out", "--batch-size", "--parties", "--no-dropout", "--seed", "--threads", "--plain"):
        assert option in options

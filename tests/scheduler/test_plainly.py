"""What is printed of an error names the entry of the page of errors, and the page has an entry for every error."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from heterofed import cli, errors
from heterofed.errors import ConfigError, DataError, HeterofedError, PeerTimeout, ProtocolError, TaskFailed
from heterofed.scheduler.plainly import PAGE, explained_at, plain_lines
from heterofed.training.data import NoBatches

ROOT = Path(__file__).resolve().parents[2]
KINDS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, HeterofedError)]
NEVER_RAISED = {HeterofedError, ProtocolError}
SECTIONS = {
    found[1].lower(): found[2]
    for found in re.finditer(
        r"^### (\w+)\n(.*?)(?=^##|\Z)", (ROOT / PAGE).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
}
"""Anchor -> what the page says there."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_line_below_an_error_leads_to_its_entry(kind: type[HeterofedError]) -> None:
    line = explained_at(kind("something happened"))

    page, _, anchor = line.removeprefix("See ").partition("#")
    assert (ROOT / page).is_file()
    assert anchor == kind.__name__.lower()
    assert anchor in SECTIONS


@pytest.mark.parametrize("kind", [each for each in KINDS if each not in NEVER_RAISED])
def test_an_entry_has_the_cause_a_message_and_the_cure(kind: type[HeterofedError]) -> None:
    cause, *_, cure = re.split(r"^```(?:text)?\n", SECTIONS[kind.__name__.lower()], flags=re.MULTILINE)
    message = re.search(rf"^{kind.__name__}: .+$", SECTIONS[kind.__name__.lower()], re.MULTILINE)

    assert len(cause.split()) > 3
    assert message is not None
    assert len(cure.split()) > 2


def test_an_error_of_a_class_of_the_users_is_explained_where_its_base_is() -> None:
    class NightShift(TaskFailed):
        pass

    assert explained_at(NightShift("closed")) == f"See {PAGE}#taskfailed"
    assert explained_at(NoBatches("none")) == f"See {PAGE}#configerror"


def test_the_message_comes_first_and_its_place_last() -> None:
    error = PeerTimeout("no check-in within 600 s", party="c1")

    assert plain_lines(error) == ["PeerTimeout: c1: no check-in within 600 s.", f"See {PAGE}#peertimeout"]


def test_what_peers_and_the_task_are_told_has_no_such_line() -> None:
    for error in (ConfigError("wrong"), DataError("wrong", party="c1")):
        assert PAGE not in str(error) + error.for_peers()


def test_a_command_prints_what_a_script_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HETEROFED_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["heterofed", "task", "show", "nosuchtask"])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 1
    message, place = capsys.readouterr().err.splitlines()
    assert message.startswith("UnknownTask: there is no task 'nosuchtask' in ")
    assert place == f"See {PAGE}#unknowntask"

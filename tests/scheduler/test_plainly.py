"""What is printed of an error names the entry of the page of errors, and the page has an entry for every error."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import pytest

from heterofed import Settings, cli, errors, run_locally
from heterofed.errors import ConfigError, DataError, HeterofedError, PeerTimeout, ProtocolError, TaskFailed
from heterofed.scheduler.launch import seat_in
from heterofed.scheduler.plainly import PAGE, explained_at, interrupts_plainly, plain_lines
from heterofed.tasks.directory import open_directory
from heterofed.training.data import NoBatches
from tests.tiny import Collaborator, Host

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


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def in_a_notebook(error: BaseException) -> list[str]:
    """Return what IPython prints of an error that it has been told how to print."""
    lines: list[str] = error._render_traceback_()  # type: ignore[attr-defined]  # the name is IPython's
    return lines


def test_ctrl_c_ends_a_notebooks_cell_with_one_line_and_is_the_same_error() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, interrupts_plainly():
        raise KeyboardInterrupt

    assert in_a_notebook(caught.value) == ["interrupted"]
    assert not hasattr(KeyboardInterrupt(), "_render_traceback_"), "those of the user's own code print as ever"


@pytest.mark.parametrize("stopped", ["host", "c1"])
def test_ctrl_c_in_a_run_of_one_process_ends_it_so(stopped: str) -> None:
    class Stopped(Host):
        def train_a_batch(self, *args: object) -> None:
            raise KeyboardInterrupt

    class StoppedCollaborator(Collaborator):
        def load_batch(self, *args: object) -> None:
            raise KeyboardInterrupt

    host = Stopped() if stopped == "host" else Host()
    with pytest.raises(KeyboardInterrupt) as caught:
        run_locally(host, StoppedCollaborator() if stopped == "c1" else Collaborator())

    assert in_a_notebook(caught.value) == ["interrupted"]


def test_a_party_of_a_task_says_what_to_do_after_it(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings.from_env()
    task = open_directory(settings).store.create("tiny", ["host", "c1"])

    with pytest.raises(KeyboardInterrupt) as caught, seat_in(task.id, "host", settings, host=True, go_on="begin"):
        raise KeyboardInterrupt

    assert in_a_notebook(caught.value) == ["interrupted"]
    assert caplog.messages[-1] == "host was interrupted; to go on, begin"


def test_an_error_that_only_looks_like_the_end_of_a_process_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings.from_env()
    task = open_directory(settings).store.create("tiny", ["host", "c1"])

    with (
        caplog.at_level(logging.INFO),
        pytest.raises(SystemExit),
        seat_in(task.id, "host", settings, host=True, go_on="begin"),
    ):
        raise SystemExit(3)

    assert not any("to go on" in each for each in caplog.messages)

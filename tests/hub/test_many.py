"""A hub with many tasks and parties: an answer needs as much of the database as one with few."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from heterofed.hub.service import Hub
from heterofed.tasks.course import Measurement
from tests.hub.running import RunningHub, running_hub

ROOT = Path(__file__).resolve().parents[2]
MOST_STATEMENTS = 8
"""Of one answer: the token, its last use, the task with its parties, its members, and what was asked for."""

QUICK = ("--tasks", "6", "--parties", "5", "--rounds", "2", "--repeats", "3", "--json")


class Statements:
    """Counts what the hub says to its database."""

    def __init__(self, hub: Hub) -> None:
        self.said: list[str] = []
        sa.event.listen(hub.store.database._engine, "before_cursor_execute", self._note)

    def _note(self, _: object, __: object, statement: str, *___: object) -> None:
        answering = threading.current_thread() is threading.main_thread() or "AnyIO" in threading.current_thread().name
        if answering and not statement.startswith("BEGIN"):  # and not who looks for work in the background
            self.said.append(statement)


def fill(hub: RunningHub, tasks: int) -> str:
    """Make tasks that the user `bank` is a party of; return the last one's id."""
    hub.user_token("bank")
    for _ in range(tasks):
        task = hub.hub.create_task(hub.owner, "t", ["h", "c", "d"])
        hub.hub.set_member(hub.owner, task.id, "c", "bank")
        rows = [Measurement("loss", row, row, {"loss": 0.5}) for row in range(5)]
        hub.hub.put_metrics(hub.owner, task.id, "h", rows)
    return task.id


@pytest.mark.parametrize("who", ["owner", "bank"])
def test_the_statements_of_an_answer_do_not_grow_with_the_tasks(tmp_path: Path, who: str) -> None:
    with running_hub(tmp_path, requests_per_minute=100_000) as hub:
        token = {"owner": hub.token, "bank": hub.user_token("bank")}[who]
        counts = []
        for more in (2, 30):
            task_id = fill(hub, more)
            paths = ["", f"/{task_id}", f"/{task_id}/events", f"/{task_id}/metrics", f"/{task_id}/log"]
            with hub.client(token) as client:
                client.get("/api/users/me").raise_for_status()  # notes the token's use
                statements = Statements(hub.hub)
                for path in paths:
                    before = len(statements.said)
                    client.get(f"/api/tasks{path}").raise_for_status()
                    counts.append((path.replace(task_id, "id"), len(statements.said) - before))

    few, many = counts[: len(paths)], counts[len(paths) :]
    assert few == many
    assert max(count for _, count in counts) <= MOST_STATEMENTS
    assert min(count for _, count in counts) > 0


def test_the_page_sees_with_a_bounded_number_of_statements_whether_a_task_has_changed(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub:
        task_id = fill(hub, 3)
        pulses = [hub.hub.pulse(hub.owner, task_id)]
        statements = Statements(hub.hub)
        assert hub.hub.pulse(hub.owner, task_id) == pulses[0]
        count = len(statements.said)
        changes: list[Callable[[], object]] = [
            lambda: hub.hub.log(hub.owner, task_id, "h", "hello"),
            lambda: hub.hub.set_party(hub.owner, task_id, "h", reason="because"),
            lambda: hub.hub.put_metrics(hub.owner, task_id, "h", [Measurement("loss", 9, 9, {"loss": 1.0})]),
            lambda: hub.hub.put_output(hub.owner, task_id, "h", "a.bin", b"x"),
            lambda: hub.hub.start(hub.owner, task_id),
            lambda: hub.hub.cancel(hub.owner, task_id, "enough"),
        ]
        for change in changes:
            change()
            pulses.append(hub.hub.pulse(hub.owner, task_id))

    assert len(set(pulses)) == len(changes) + 1
    assert count <= MOST_STATEMENTS


@pytest.mark.processes
def test_the_benchmark_tells_how_long_each_answer_took() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.hub", *QUICK],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=55,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert {each["asked"] for each in result["results"]} >= {"all tasks, owner", "a task, a party", "metrics"}
    assert all(0 < each["ms"] <= each["worst_ms"] for each in result["results"])
    assert all(0 < each["statements"] <= 12 for each in result["results"])

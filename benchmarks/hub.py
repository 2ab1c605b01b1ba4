"""How long a hub with many tasks and parties takes to answer, and how many statements of SQL an answer needs.

    python -m benchmarks.hub
    python -m benchmarks.hub --tasks 1000 --database postgresql+psycopg://user@host/name --json

A real server, in a thread of this process, keeps the tasks: each has four of the parties, rounds behind it, events and
metric rows. Every party has a token of its own and looks at one of its tasks once in 1.5 s, as a running one does.
Meanwhile one client asks for what the page and the command line ask for, one answer after the other.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file runs as a script from any folder

import httpx
import sqlalchemy as sa

from benchmarks.common import Json, machine, median, show_json, show_machine, show_table
from heterofed.hub.access import Actor
from heterofed.hub.app import create_app
from heterofed.hub.serve import bind, make_server
from heterofed.hub.service import Hub
from heterofed.hub.settings import HubSettings
from heterofed.tasks.course import Measurement, ReportKind

PARTIES_OF_A_TASK = 4
LOOKS_EVERY_S = 1.5
LIMIT_MS = 500.0
PLAIN = False
"""There is no TLS here, so that no client needs to load certificates."""


class Filled:
    """A hub with tasks in it.

    Args:
        hub: an empty one.
        tasks: how many.
        parties: how many users take part in them.
        rounds: how many each task has behind it.
    """

    def __init__(self, hub: Hub, tasks: int, parties: int, rounds: int) -> None:
        self.hub = hub
        self.token = hub.local_token("owner", "owner", None, "benchmark").token
        self.owner = hub.authenticate(self.token)
        names = [f"party{number}" for number in range(parties)]
        self.tokens = {name: hub.local_token(name, "party", None, "benchmark").token for name in names}
        actors = {name: hub.authenticate(token) for name, token in self.tokens.items()}
        self.task_of: dict[str, str] = {}
        turns = itertools.cycle(names)
        for _ in range(tasks):
            mine = list(dict.fromkeys(next(turns) for _ in range(min(PARTIES_OF_A_TASK, parties))))
            self._task({name: actors[name] for name in mine}, rounds)

    def _task(self, parties: dict[str, Actor], rounds: int) -> None:
        task = self.hub.create_task(self.owner, "a task of the benchmark", parties, rounds=rounds + 1)
        for place, (name, actor) in enumerate(parties.items()):
            self.task_of[name] = task.id
            self.hub.set_member(self.owner, task.id, name, name)
            self.hub.set_party(actor, task.id, name, role="collaborator" if place else "host")
        self.hub.start(self.owner, task.id)
        for name, actor in parties.items():
            rows = [
                Measurement("loss", row, row, {"loss": 1 / (row + 1), "samples": row * 64}) for row in range(rounds)
            ]
            self.hub.put_metrics(actor, task.id, name, rows)
            for number in range(1, rounds + 1):
                self.hub.report(actor, task.id, name, ReportKind.ROUND_FINISHED, number, {"loss": 1 / number})
        self.last = task.id


class Counted:
    """Counts statements of SQL of those who answer; others look for work in the background."""

    def __init__(self, hub: Hub) -> None:
        self.count = 0
        engine = hub.store.database._engine
        sa.event.listen(engine, "before_cursor_execute", self._count)

    def _count(self, *_: object) -> None:
        self.count += "AnyIO" in threading.current_thread().name


@contextmanager
def served(settings: HubSettings) -> Iterator[tuple[str, Hub]]:
    """Run a hub in a thread; yield its URL and itself."""
    with bind(settings) as taken:
        app = create_app(settings, page=False)
        server = make_server(settings, app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield settings.url(taken.getsockname()[1]), app.state.hub
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def busy_parties(url: str, filled: Filled) -> Iterator[None]:
    """Let every party look at its task again and again."""
    stop = threading.Event()

    def look(name: str, token: str, begin_s: float) -> None:
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, verify=PLAIN) as client:
            stop.wait(begin_s)
            while not stop.is_set():
                client.get(f"/api/tasks/{filled.task_of[name]}").raise_for_status()
                stop.wait(LOOKS_EVERY_S)

    there = [(name, token) for name, token in filled.tokens.items() if name in filled.task_of]
    threads = [
        threading.Thread(target=look, args=(*party, LOOKS_EVERY_S * place / len(there)))
        for place, party in enumerate(there)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def questions(filled: Filled) -> dict[str, tuple[str, str]]:
    """Return what is asked: name -> (path, token)."""
    party, token = next(iter(filled.tokens.items()))
    task = f"/api/tasks/{filled.last}"
    return {
        "all tasks, owner": ("/api/tasks", filled.token),
        "its tasks, a party": ("/api/tasks", token),
        "a task, owner": (task, filled.token),
        "a task, a party": (f"/api/tasks/{filled.task_of[party]}", token),
        "events": (f"{task}/events", filled.token),
        "metrics": (f"{task}/metrics", filled.token),
        "notifications": ("/api/notifications", token),
    }


def ask(client: httpx.Client, path: str, token: str) -> float:
    """Return how long an answer took, in milliseconds."""
    began = time.perf_counter()
    client.get(path, headers={"Authorization": f"Bearer {token}"}).raise_for_status()
    return (time.perf_counter() - began) * 1000


def measure(arguments: argparse.Namespace, database: str) -> list[Json]:
    """Fill a hub and ask it."""
    settings = HubSettings(port=0, database=database, requests_per_minute=10**6)
    with served(settings) as (url, hub):
        filled = Filled(hub, arguments.tasks, arguments.parties, arguments.rounds)
        asked = questions(filled)
        with httpx.Client(base_url=url, timeout=60, verify=PLAIN) as client:
            for path, token in asked.values():
                ask(client, path, token)  # notes the token's use, for a minute
            statements = {}
            for name, (path, token) in asked.items():
                counted = Counted(hub)
                ask(client, path, token)
                statements[name] = counted.count
            results = []
            with busy_parties(url, filled):
                for name, (path, token) in asked.items():
                    times = [ask(client, path, token) for _ in range(arguments.repeats)]
                    found = {"asked": name, "ms": median(times), "worst_ms": max(times)}
                    results.append({**found, "statements": statements[name]})
        return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--parties", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5, help="that each task has behind it")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--database", help="a SQLAlchemy URL of an empty database; by default a file of SQLite")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    described = machine()
    show_machine(described)
    with tempfile.TemporaryDirectory() as folder:
        results = measure(arguments, arguments.database or str(Path(folder) / "hub.db"))
    rows = [
        [each["asked"], f"{each['ms']:.1f}", f"{each['worst_ms']:.1f}", str(each["statements"])] for each in results
    ]
    title = f"{arguments.tasks} tasks, {arguments.parties} parties that look once in {LOOKS_EVERY_S} s"
    show_table(title, ["asked for", "median ms", "worst ms", "statements"], rows)
    within = all(each["worst_ms"] < LIMIT_MS for each in results)
    print(f"{'every' if within else 'not every'} answer within {LIMIT_MS:.0f} ms")
    result = {"machine": described, "tasks": arguments.tasks, "parties": arguments.parties, "results": results}
    show_json({**result, "within_limit": within}, arguments.json)


if __name__ == "__main__":
    main()

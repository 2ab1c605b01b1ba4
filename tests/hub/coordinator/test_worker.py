"""Real Celery workers, as processes of their own, with a real Redis between them and the hub."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from heterofed.hub.coordinator import rows
from heterofed.hub.coordinator.celery_dispatcher import CeleryDispatcher
from heterofed.hub.coordinator.locks import acquire, release
from heterofed.hub.coordinator.training import TrainingState
from heterofed.hub.coordinator.worker import (
    BROKER_VARIABLE,
    DATABASE_VARIABLE,
    PARENT_VARIABLE,
    app,
    configure,
    start_workers,
)
from heterofed.tasks import TaskStatus
from heterofed.tasks.database import Database
from tests.hub.coordinator.course import HOST, KINDS, SHOP, Course
from tests.hub.servers import RedisServer, free_port

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that nobody handles are handed out again soon."""
    monkeypatch.setattr(rows, "HANDED_OUT_AGAIN_AFTER_S", 1.0)


def until(true: Callable[[], bool], within_s: float = 40.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.03)


@contextmanager
def running_worker(
    database: Database, broker: str, module: str = "heterofed.hub.coordinator", *arguments: str, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {DATABASE_VARIABLE: database.where, BROKER_VARIABLE: broker} | variables
    environment.pop(PARENT_VARIABLE, None)
    command = [sys.executable, "-m", module, *(arguments or ("--concurrency", "1"))]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@contextmanager
def dispatching(database: Database, broker: str) -> Iterator[CeleryDispatcher]:
    dispatcher = CeleryDispatcher(database, broker, look_every_s=0.2, again_after_s=1.0)
    dispatcher.start()
    try:
        yield dispatcher
    finally:
        dispatcher.close()


def run_rounds(course: Course, dispatcher: CeleryDispatcher, *rounds: int) -> None:
    """Every party trains, and does not wait for the hub."""
    for round in rounds:
        for party in course.parties:
            dispatcher.dispatch(course.report(party, KINDS.ROUND_FINISHED, round))
        dispatcher.dispatch(course.report(HOST, KINDS.TEST_FINISHED, round))


def check_complete(course: Course) -> None:
    """Three rounds were handled, each once."""
    told = course.told()
    assert len(told) == len(set(told))
    assert [each for each in told if each[0] == "MODEL_TEST_ROUND"] == [("MODEL_TEST_ROUND", n) for n in (1, 2, 3)]
    assert told[-1] == ("TRAINING_FINISHED", 3)
    assert {row.state for row in course.events()} == {"DONE"}
    assert course.lock() == (None, None)


@pytest.mark.parametrize("kind", ["database", "server_database"], ids=["sqlite", "postgresql"])
def test_workers_handle_every_event_once_through_a_broker(
    kind: str, request: pytest.FixtureRequest, redis_server: RedisServer
) -> None:
    course = Course(request.getfixturevalue(kind))
    course.start()
    with (
        dispatching(course.database, redis_server.url) as dispatcher,
        running_worker(course.database, redis_server.url, "heterofed.hub.coordinator", "--concurrency", "2"),
    ):
        run_rounds(course, dispatcher, 1, 2, 3)
        until(lambda: course.training().state is TrainingState.COMPLETED)
        until(lambda: {row.state for row in course.events()} == {"DONE"})

    check_complete(course)


def test_a_broker_that_is_down_and_one_that_forgets_lose_nothing(course: Course, redis_server: RedisServer) -> None:
    course.start()
    redis_server.stop()
    with dispatching(course.database, redis_server.url) as dispatcher:
        began = time.monotonic()
        run_rounds(course, dispatcher, 1)
        assert time.monotonic() - began < 2.0  # reports do not wait for the broker
        time.sleep(0.3)
        assert {row.state for row in course.events()} == {"PENDING"}

        redis_server.start()
        with running_worker(course.database, redis_server.url):
            until(lambda: course.training().round == 1)
            run_rounds(course, dispatcher, 2)
            redis_server.stop()  # whatever it had is gone
            run_rounds(course, dispatcher, 3)
            redis_server.start()
            until(lambda: course.training().state is TrainingState.COMPLETED)
            until(lambda: {row.state for row in course.events()} == {"DONE"})

    check_complete(course)


def test_a_worker_killed_between_lock_and_commit_leaves_the_event_to_another(
    course: Course, redis_server: RedisServer, tmp_path: Path
) -> None:
    odd, sign = "tests.hub.coordinator.odd_worker", tmp_path / "sign"
    course.start()
    with dispatching(course.database, redis_server.url) as dispatcher:
        with running_worker(course.database, redis_server.url, odd, "sleeps", TEST_SIGN=str(sign)):
            run_rounds(course, dispatcher, 1)
            until(sign.exists)
            assert course.lock()[0] is not None
        assert course.training().round == 0
        assert course.lock()[0] is not None

        with running_worker(course.database, redis_server.url, odd, "works"):
            run_rounds(course, dispatcher, 2, 3)
            until(lambda: course.training().state is TrainingState.COMPLETED)
            until(lambda: {row.state for row in course.events()} == {"DONE"})

    check_complete(course)


def test_an_exception_in_a_worker_fails_the_task_with_its_cause(course: Course, redis_server: RedisServer) -> None:
    """Item 54."""
    course.start()
    with (
        dispatching(course.database, redis_server.url) as dispatcher,
        running_worker(course.database, redis_server.url, "tests.hub.coordinator.odd_worker", "raises"),
    ):
        run_rounds(course, dispatcher, 1)
        until(lambda: course.training().state is TrainingState.ERROR)
        until(lambda: course.lock() == (None, None))  # let go after that

    assert course.store.get(course.id).status is TaskStatus.FAILED
    assert "ValueError: a bug in the worker" in str(course.store.get(course.id).reason)
    assert course.told()[-1] == ("TASK_FAILED", 0)


def test_a_busy_lock_puts_the_event_back_and_it_is_handled_later(course: Course, redis_server: RedisServer) -> None:
    """Item 55. No sweeper runs here: it is the worker that comes back."""
    course.start()
    with course.database.transaction(write=True) as connection:
        token = acquire(connection, course.id)
    assert token is not None
    dispatcher = CeleryDispatcher(course.database, redis_server.url)
    with running_worker(course.database, redis_server.url):
        course.report(HOST, KINDS.ROUND_FINISHED, 1)
        for work in course.report(SHOP, KINDS.ROUND_FINISHED, 1):
            dispatcher._hand_out(work)
        with redis.Redis.from_url(redis_server.url) as client:
            until(lambda: client.llen("heterofed") == 0)
            time.sleep(1.0)
            assert course.training().round == 0
            with course.database.transaction(write=True) as connection:
                release(connection, course.id, token)
            until(lambda: course.training().round == 1)
    dispatcher.close()


def test_what_crosses_the_broker_is_json_that_names_an_event(course: Course, redis_server: RedisServer) -> None:
    course.start()
    course.report(HOST, KINDS.ROUND_FINISHED, 1)
    works = course.report(SHOP, KINDS.ROUND_FINISHED, 1)
    dispatcher = CeleryDispatcher(course.database, redis_server.url)
    for work in works:
        dispatcher._hand_out(work)
    with redis.Redis.from_url(redis_server.url) as client:
        (message,) = [json.loads(each) for each in client.lrange("heterofed", 0, -1)]
    dispatcher.close()

    assert message["content-type"] == "application/json"
    arguments, keywords, _ = json.loads(base64.b64decode(message["body"]))
    assert arguments == [course.id, "TrainingRoundFinished", {"round": 1, "subject": ""}]
    assert keywords == {}
    assert message["headers"]["task"] == "heterofed.process_trainer_task"


def test_workers_take_nothing_but_json_and_acknowledge_late() -> None:
    configure(app, "redis://127.0.0.1:1/0")

    assert app.conf.accept_content == ["json"]
    assert app.conf.task_serializer == "json"
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost


def test_workers_end_with_the_hub_that_started_them(course: Course, tmp_path: Path) -> None:
    broker = f"redis://127.0.0.1:{free_port()}/0"
    program = (
        "import sys, time; from heterofed.hub.coordinator.worker import start_workers\n"
        "print(start_workers(*sys.argv[1:], 1).process.pid, flush=True); time.sleep(60)"
    )
    hub = subprocess.Popen(
        [sys.executable, "-c", program, course.database.where, broker],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert hub.stdout is not None
    worker = int(hub.stdout.readline())
    hub.kill()
    hub.communicate()

    def gone() -> bool:
        try:
            return Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    until(gone)


def test_workers_that_end_are_started_again_until_the_hub_ends(course: Course) -> None:
    workers = start_workers(course.database.where, f"redis://127.0.0.1:{free_port()}/0", 1)
    first = workers.process
    try:
        first.kill()
        until(lambda: workers.process is not first)
        assert workers.process.poll() is None
    finally:
        workers.stop()

    assert workers.process.poll() is not None
    time.sleep(1.2)
    assert workers.process.poll() is not None


def test_a_worker_without_a_database_says_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "heterofed.hub.coordinator"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("HETEROFED_HUB")},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert done.returncode == 1
    assert "expected HETEROFED_HUB_DATABASE and HETEROFED_HUB_BROKER to be set." in done.stderr

"""Nobody leaves before all have written their outputs, and whoever has written them loses nothing any more."""

from __future__ import annotations

import threading
import time

import pytest

from heterofed import HeterofedError, PeerRestarted, Settings, TaskAborted
from heterofed.frames.messages import Dismissed
from heterofed.protocol.phases import Phase, Role
from heterofed.scheduler.leaving import await_dismissal, dismiss
from heterofed.scheduler.link import Link
from heterofed.scheduler.seat import Seat
from heterofed.tasks.model import TaskStatus
from heterofed.wire.memory import MemoryHub
from tests.scheduler.rejoining import PartyRecord, Record, Told


class Ending:
    """A host and two collaborators that have all said Completed."""

    def __init__(self) -> None:
        self.hub = MemoryHub(host="host")
        self.record = Record()
        self.said: list[str] = []
        self.settings = Settings(rejoin_timeout_s=1.0, notice_every_s=60.0)
        self.host = self._link("host", Role.HOST, "c1", "c2")
        self.c1 = self._link("c1", Role.COLLABORATOR, "host")
        self.c2 = self._link("c2", Role.COLLABORATOR, "host")
        for link in (self.c1, self.c2):  # they have met
            link._transport.send("host", [b"met"])
            assert self.host._transport.receive(1) is not None
            self.host._transport.send(link.party, [b"met"])
            assert link._transport.receive(1) is not None

    def _link(self, key: str, role: Role, *peers: str) -> Link:
        link = Link(self.hub.transport(key), role, peers, self.settings, say=lambda text: None)
        for session in link.sessions.values():
            session.phase = Phase.LEAVING
        return link

    def seat(self) -> Seat:
        return Seat(
            task_id="task",
            task_name="task",
            feature_key="c1",
            parties=("host", "c1", "c2"),
            connect=lambda: ("host", self.hub.transport("c1")),
            settings=self.settings,
            progress=Told("c1", self.said),
            record=PartyRecord(self.record, "c1"),
        )

    def wait(self, timeout_s: float = 5.0) -> float:
        """Let c1 await its dismissal; return how long that took."""
        began = time.monotonic()
        await_dismissal(self.c1, self.seat(), timeout_s)
        return time.monotonic() - began


@pytest.fixture
def ending() -> Ending:
    return Ending()


def test_all_leave_when_the_host_lets_them(ending: Ending) -> None:
    threading.Timer(0.3, lambda: dismiss(ending.host)).start()

    assert ending.wait() > 0.2
    ending.c2.expect(Dismissed, from_=["host"], waiting_for="end", timeout_s=2)
    assert {link.phase() for link in (ending.c1, ending.c2)} == {Phase.COMPLETED}
    assert ending.said == []


def test_one_that_is_gone_already_does_not_keep_the_host_from_letting_the_others_go(ending: Ending) -> None:
    ending.hub._inboxes["c1"].owner.close()  # type: ignore[union-attr]  # without a word
    dismiss(ending.host)

    ending.c2.expect(Dismissed, from_=["host"], waiting_for="end", timeout_s=2)


def test_the_tasks_record_is_believed_when_the_host_is_gone(ending: Ending) -> None:
    ending.hub._inboxes["host"].owner.close()  # type: ignore[union-attr]  # without a word
    ending.record.statuses.append(TaskStatus.COMPLETED)

    assert ending.wait() < 1.0
    assert ending.said == []


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "silent"])
def test_what_is_written_is_a_result_though_the_host_does_not_answer_and_the_user_is_told(
    ending: Ending, gone: bool
) -> None:
    if gone:
        ending.hub._inboxes["host"].owner.close()  # type: ignore[union-attr]  # without a word

    assert 0.5 < ending.wait(timeout_s=0 if gone else 0.7) < 3
    assert ending.said == ["host did not say that every party is done; the outputs of c1 are written"]


def test_a_party_that_needs_the_others_once_more_keeps_them(ending: Ending) -> None:
    def reopen() -> None:
        ending.host.reopen()
        ending.host._receive(1)  # it answers whether it is there

    thread = threading.Thread(target=reopen)
    thread.start()

    with pytest.raises(PeerRestarted, match=r"^host: was started anew"):
        ending.wait()
    thread.join()


def test_a_party_that_cannot_complete_the_task_fails_it_for_all(ending: Ending) -> None:
    threading.Timer(0.1, lambda: ending.host.abort(HeterofedError("its disk is full"))).start()

    with pytest.raises(TaskAborted, match="its disk is full"):
        ending.wait()


def test_what_was_looked_at_before_is_looked_at_still(ending: Ending) -> None:
    looks: list[int] = []

    def cancelled() -> None:
        looks.append(1)
        if len(looks) == 2:
            raise TaskAborted("task task was cancelled")

    ending.c1.look = cancelled

    with pytest.raises(TaskAborted, match="cancelled"):
        ending.wait()
    assert ending.c1.look is cancelled


def test_a_record_that_does_not_say_completed_ends_no_wait(ending: Ending) -> None:
    ending.record.statuses.append(TaskStatus.TESTING)

    assert ending.wait(timeout_s=0.7) > 0.6
    assert len(ending.said) == 1

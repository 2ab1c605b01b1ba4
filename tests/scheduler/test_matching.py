"""The intersection over links: who waits is told so, and who breaks its rules is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import psi
from heterofed import RemoteProtocolError, TaskFailed, run_locally
from heterofed.frames.messages import StillMatching
from heterofed.scheduler import matching
from heterofed.scheduler.link import Link
from tests.tiny import Collaborator, Host


class Crowd(Collaborator):
    """Has many more ids than the others, so that its part of the intersection takes longer."""

    def load_local_ids(self) -> list[str]:
        return [*super().load_local_ids(), *(f"stranger-{number}" for number in range(1500))]


def test_a_collaborator_that_is_done_is_told_to_wait_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    send = Link.send

    def watch(self: Link, to: str, message: Any, timeout_s: float = 0.0) -> None:
        if isinstance(message, StillMatching):
            told.append(to)
        send(self, to, message, timeout_s)

    monkeypatch.setattr(Link, "send", watch)
    monkeypatch.setattr(matching, "REASSURE_EVERY_S", 0.0)

    run_locally(Host(parties=3, max_rounds=1), Collaborator("c1", party=1), Crowd("c2", party=2))

    assert len(set(told)) == 1, "one was done before the other"


def test_a_collaborator_that_breaks_the_rules_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def garbage(self: psi.Responder) -> Iterator[bytes]:
        yield b"garbage"

    monkeypatch.setattr(psi.Responder, "start", garbage)

    with pytest.raises(RemoteProtocolError, match=r"^c1, while matching ids: broke the rules of the inter"):
        run_locally(Host(), Collaborator())


def test_a_host_that_breaks_the_rules_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def garbage(self: psi.Initiator, message: bytes) -> Iterator[bytes]:
        yield b"garbage"

    monkeypatch.setattr(psi.Initiator, "receive", garbage)

    with pytest.raises(RemoteProtocolError, match=r"^host, while matching ids: broke the rules of the intersection"):
        run_locally(Host(), Collaborator())


def test_a_fault_of_our_own_is_not_blamed_on_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(self: psi.Responder, message: bytes) -> Iterator[bytes]:
        raise psi.ComputeFault("a power did not verify")

    monkeypatch.setattr(psi.Responder, "receive", fault)

    with pytest.raises(TaskFailed, match=r"^c1, while matching ids: the intersection failed at this party \(ComputeF"):
        run_locally(Host(), Collaborator())

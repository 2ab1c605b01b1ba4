"""The table: what may be said in which phase, and that it always leads somewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

import heterofed
from heterofed.errors import LocalProtocolError, RemoteProtocolError
from heterofed.frames.messages import Abort, AnyMessage, Gradient, Message, Paused
from heterofed.protocol.phases import FINAL, TRANSITIONS, Phase, Role, allowed, diagram, next_phase
from heterofed.protocol.session import Session
from tests.frames.examples import ALL_TYPES, example

TRIPLES = list(product(Phase, Role, ALL_TYPES))
LEGAL = [
    (phase, role, kind)
    for phase, role, kind in TRIPLES
    if (role, kind) in TRANSITIONS[phase]
    or (phase not in FINAL and (kind is Abort or (kind is Paused and role is Role.HOST)))
]
ILLEGAL = [each for each in TRIPLES if each not in LEGAL]

# Read from DESIGN.md's account of a batch and the docstrings of the messages, not from the table: who says what.
DIRECTIONS = {
    "CheckIn": {"collaborator"},
    "Welcome": {"host"},
    "PairingKey": {"collaborator"},
    "PairingKeys": {"host"},
    "PsiPart": {"host", "collaborator"},
    "Split": {"host", "collaborator"},
    "BatchPlan": {"host"},
    "RoundReady": {"collaborator"},
    "Embedding": {"collaborator"},
    "Gradient": {"host"},
    "Proceed": {"host"},
    "BatchesEnd": {"collaborator"},
    "StartTest": {"host"},
    "Ask": {"host"},
    "StillMatching": {"host", "collaborator"},
    "CloseRound": {"host"},
    "RoundClosed": {"collaborator"},
    "CompleteTask": {"host"},
    "Completed": {"collaborator"},
    "Dismissed": {"host"},
}


ALWAYS: dict[type[Message], set[str]] = {Abort: {"host", "collaborator"}, Paused: {"host"}}
"""Those that are legal in every phase but the last two, and not in the table."""


def session_in(phase: Phase, role: Role, round_: int = 3, batch: int = 2) -> Session:
    """Return a session in the middle of things."""
    session = Session(role, "the-peer")
    session.phase, session.round, session.batch = phase, round_, batch
    return session


def at_cursor(kind: type[Message]) -> AnyMessage:
    """Return a message that fits round 3, batch 2; a plan is that of the next round."""
    return example(kind, round_=4 if kind.__name__ == "BatchPlan" else 3, batch=2)


def other(role: Role) -> Role:
    return Role.COLLABORATOR if role is Role.HOST else Role.HOST


def state(session: Session) -> tuple[object, ...]:
    return session.phase, session.round, session.batch, list(session.story), session.over


def test_there_are_legal_and_illegal_triples_for_every_role() -> None:
    assert len(LEGAL) + len(ILLEGAL) == len(Phase) * 2 * len(ALL_TYPES)
    assert {role for _, role, _ in LEGAL} == set(Role)
    assert len(ILLEGAL) > 400


def test_every_legal_message_moves_both_ends_alike() -> None:
    for phase, role, kind in LEGAL:
        speaker, listener = session_in(phase, role), session_in(phase, other(role))

        speaker.sending(at_cursor(kind))
        listener.receiving(at_cursor(kind))

        after = next_phase(phase, role, kind)
        assert (speaker.phase, speaker.round, speaker.batch) == (listener.phase, listener.round, listener.batch)
        assert speaker.phase is after, (phase, role, kind)
        assert len(speaker.story) == 1


def test_sending_what_the_phase_forbids_raises_and_moves_nothing() -> None:
    for phase, role, kind in ILLEGAL:
        session = session_in(phase, role)
        before = state(session)

        with pytest.raises(LocalProtocolError) as caught:
            session.sending(at_cursor(kind))

        assert state(session) == before
        assert f"while {phase.value}: tried to send {kind.__name__} to the-peer." in str(caught.value)


def test_receiving_what_the_phase_forbids_raises_and_moves_nothing() -> None:
    for phase, role, kind in ILLEGAL:
        session = session_in(phase, other(role))
        before = state(session)

        with pytest.raises(RemoteProtocolError) as caught:
            session.receiving(at_cursor(kind))

        assert state(session) == before
        expected = " or ".join(allowed(phase, role)) or "nothing before our answer"
        assert str(caught.value).startswith(
            f"the-peer, while {phase.value}: sent {kind.__name__}; expected {expected}. Check that all parties"
        )


def test_every_message_is_said_in_its_direction_only() -> None:
    said: dict[str, set[str]] = {}
    for row in TRANSITIONS.values():
        for role, kind in row:
            said.setdefault(kind.__name__, set()).add(role.value)

    assert said == DIRECTIONS


def test_the_docstring_of_every_message_begins_with_its_direction() -> None:
    words = {
        "Collaborator → host:": {"collaborator"},
        "Host → collaborator:": {"host"},
        "Either way:": {"host", "collaborator"},
    }
    for kind in ALL_TYPES:
        start = next(each for each in words if (kind.__doc__ or "").startswith(each))
        assert words[start] == DIRECTIONS.get(kind.__name__, ALWAYS.get(kind)), kind


def test_every_phase_has_a_row_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(Phase)
    reached, open_ = {Phase.GATHERING}, [Phase.GATHERING]
    while open_:
        for after in TRANSITIONS[open_.pop()].values():
            if after not in reached:
                reached.add(after)
                open_.append(after)

    assert reached == set(Phase) - {Phase.ABORTED}  # that one by Abort


def test_every_phase_has_a_way_to_completion_without_an_abort() -> None:
    completing = {Phase.COMPLETED}
    while True:
        more = {phase for phase, row in TRANSITIONS.items() if completing & set(row.values())} - completing
        if not more:
            break
        completing |= more

    assert completing == set(Phase) - {Phase.ABORTED}


def test_nothing_may_be_said_after_the_end() -> None:
    for phase in FINAL:
        assert not TRANSITIONS[phase]
        assert session_in(phase, Role.HOST).over
        assert all(next_phase(phase, role, kind) is None for role in Role for kind in ALL_TYPES)


def test_only_the_final_phases_are_over() -> None:
    assert {phase for phase in Phase if session_in(phase, Role.HOST).over} == {Phase.COMPLETED, Phase.ABORTED}


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in FINAL])
@pytest.mark.parametrize("role", Role)
def test_both_may_abort_from_everywhere_but_the_end(phase: Phase, role: Role) -> None:
    speaker, listener = session_in(phase, role), session_in(phase, other(role))

    speaker.sending(example(Abort))
    listener.receiving(example(Abort))

    assert speaker.phase is listener.phase is Phase.ABORTED
    assert speaker.over


def test_a_gradient_is_due_in_training_only() -> None:
    assert [phase for phase in Phase if "Gradient" in allowed(phase, Role.HOST)] == [Phase.AWAITING_GRADIENT]
    assert next_phase(Phase.AWAITING_PROCEED, Role.HOST, Gradient) is None


def test_the_words_of_every_phase_are_its_own() -> None:
    assert len({phase.value for phase in Phase}) == len(Phase)
    assert all(phase.value == phase.value.lower() and phase.value.isprintable() for phase in Phase)


def test_the_diagram_has_every_row_of_the_table_and_nothing_else() -> None:
    first, start, *rows, end = diagram().splitlines()

    assert first == "stateDiagram-v2"
    assert start.strip() == "[*] --> GATHERING"
    assert end.strip() == "COMPLETED --> [*]"
    assert sorted(row.strip() for row in rows) == sorted(
        f"{phase.name} --> {after.name}: {role.value} says {kind.__name__}"
        for phase, row in TRANSITIONS.items()
        for (role, kind), after in row.items()
    )


@pytest.mark.parametrize("modules", ["heterofed.protocol.phases heterofed.protocol.session", "psi"])
def test_the_protocol_and_psi_import_neither_torch_nor_zmq(modules: str) -> None:
    # heterofed/__init__ imports everything; a bare package in its place leaves only what the modules ask for.
    program = """
import importlib, pkgutil, sys, types
bare = types.ModuleType("heterofed")
bare.__path__ = [sys.argv[1]]
sys.modules["heterofed"] = bare
for name in sys.argv[2:]:
    module = importlib.import_module(name)
    for each in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        if not each.name.endswith("__main__"):
            importlib.import_module(each.name)
print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "zmq", "pandas", "sqlalchemy"}))
print(sorted(name for name in sys.modules if name.startswith(("heterofed.", "psi."))))
"""
    package = Path(heterofed.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", program, str(package), *modules.split()],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": str(package.parent)},
    )

    assert done.returncode == 0, done.stderr
    heavy, loaded = done.stdout.splitlines()
    assert heavy == "[]"
    assert ("psi.rsa" if modules == "psi" else "heterofed.protocol.session") in loaded
    assert "psi.rsa" not in loaded or "heterofed." not in loaded

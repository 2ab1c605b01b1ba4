"""A party that waits goes through the motions: not for long, not for nothing, and without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat

import pytest
import torch
from torch import nn

from heterofed import run_locally
from heterofed.scheduler import rehearsal
from heterofed.scheduler.line import Line
from heterofed.scheduler.rehearsal import COLD_AFTER_S, HostRehearsal, Rehearsal
from tests.tiny import Collaborator, Host, same_bits

KINDS = pytest.mark.parametrize("kind", [Rehearsal, HostRehearsal])

ALL = {Rehearsal: 3, HostRehearsal: 4}


def ticking(step_s: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step_s


def made(kind: type[Rehearsal], arrived: Iterator[bool], step_s: float = 2 * COLD_AFTER_S) -> Rehearsal:
    clock = ticking(step_s)
    return kind(lambda: next(arrived), lambda: next(clock))


@KINDS
def test_all_steps_are_gone_through_while_nothing_comes(kind: type[Rehearsal]) -> None:
    assert made(kind, repeat(False)).before_waiting() == ALL[kind]


@KINDS
def test_it_ends_when_a_message_is_there(kind: type[Rehearsal]) -> None:
    assert made(kind, repeat(True)).before_waiting() == 0
    assert made(kind, chain([False, False], repeat(True))).before_waiting() == 2


@KINDS
def test_nothing_is_rehearsed_right_after_the_last_time(kind: type[Rehearsal]) -> None:
    assert made(kind, repeat(False), COLD_AFTER_S / 2).before_waiting() == 0


def test_the_clock_begins_when_a_wait_has_ended() -> None:
    times = iter([0.0, 1.0, 5.0, 5.0 + COLD_AFTER_S / 2, 5.0 + 2 * COLD_AFTER_S])
    party = Rehearsal(lambda: False, lambda: next(times))

    with party:  # begins at 1, ends at 5
        pass

    assert party.before_waiting() == 0
    assert party.before_waiting() == ALL[Rehearsal]


@KINDS
@pytest.mark.parametrize("grad", [True, False])
def test_it_leaves_no_trace_in_torch(kind: type[Rehearsal], grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        before = torch.get_rng_state()
        party = made(kind, repeat(False))
        for _ in range(3):
            assert party.before_waiting() == ALL[kind]
        assert torch.is_grad_enabled() == grad
    assert torch.equal(torch.get_rng_state(), before)


@KINDS
def test_it_works_whatever_torch_makes_tensors_of_by_default(kind: type[Rehearsal]) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert made(kind, repeat(False)).before_waiting() == ALL[kind]
    finally:
        torch.set_default_dtype(torch.float32)


@KINDS
def test_nothing_is_rehearsed_where_torch_only_infers(kind: type[Rehearsal]) -> None:
    party = made(kind, repeat(False))
    with torch.inference_mode():
        assert party.before_waiting() == 0


def test_parties_rehearse_while_they_wait_and_train_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained() -> list[nn.Module]:
        host, other = Host(), Collaborator()
        run_locally(host, other)
        return [host.infer_model, host.feature_model, other.feature_model]

    in_silence = trained()
    gone: set[str] = set()
    before_waiting = Rehearsal.before_waiting

    def counting(party: Rehearsal) -> int:
        if before_waiting(party) == ALL[type(party)]:
            gone.add(type(party).__name__)
        return 0

    monkeypatch.setattr(rehearsal, "COLD_AFTER_S", 0.0)
    monkeypatch.setattr(Line, "arrived", lambda line: False)  # where all are in one process, nobody rehearses
    monkeypatch.setattr(Rehearsal, "before_waiting", counting)

    assert all(same_bits(a, b) for a, b in zip(trained(), in_silence, strict=True))
    assert gone == {"Rehearsal", "HostRehearsal"}

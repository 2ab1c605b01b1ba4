"""One model on several processes, as far as one process can show; `tests/scheduler/replicas` has the rest."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from heterofed import ConfigError
from heterofed.training.replicas import Joined, _flat_copy, _unreached, is_shared, share_of
from heterofed.training.team import FOREVER, Present, Team, as_limit

# --- shares -----------------------------------------------------------------------------------------------------------


@given(rows=st.integers(1, 300), size=st.integers(2, 9))
def test_shares_are_the_batch_in_its_order_and_none_is_too_small(rows: int, size: int) -> None:
    batch = list(range(rows))
    shares = [batch[share_of(rows, rank, size)] for rank in range(size)]

    if is_shared(rows, size):
        assert [each for share in shares for each in share] == batch
        assert min(map(len, shares)) >= 2
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    else:
        assert all(each == batch for each in shares)


def test_a_batch_is_shared_from_two_rows_a_process_on() -> None:
    assert [is_shared(rows, 3) for rows in (5, 6)] == [False, True]


# --- weights as bytes -------------------------------------------------------------------------------------------------


def test_tensors_of_all_dtypes_go_into_one_piece_of_memory_and_out_again() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 1), "b": nn.Linear(2, 2).double(), "c": nn.BatchNorm1d(3)})
    more = [torch.tensor(True), torch.tensor(3, dtype=torch.int8), torch.randn(3).bfloat16(), torch.empty(0)]
    tensors = [*model.parameters(), *model.buffers(), *more]

    flat, places = _flat_copy(tensors, torch.device("cpu"))
    for place, tensor in places:
        place.copy_(tensor.detach())
    copied = flat.clone()
    flat.zero_()
    flat.copy_(copied)

    assert len(flat) == sum(each.numel() * each.element_size() for each in tensors)
    assert {id(tensor) for _, tensor in places} == {id(each) for each in tensors if each.numel()}
    assert all(place.dtype == tensor.dtype and torch.equal(place, tensor) for place, tensor in places)


# --- graphs -----------------------------------------------------------------------------------------------------------


def test_parameters_that_take_no_part_are_found() -> None:
    used, unused = nn.Linear(3, 3), nn.Linear(3, 3)
    rows = torch.randn(2, 3)

    assert _unreached(used(rows), [*used.parameters(), *unused.parameters()]) == list(unused.parameters())
    assert _unreached(unused(used(rows)).relu(), [*used.parameters(), *unused.parameters()]) == []
    assert _unreached(used(rows).detach(), list(used.parameters())) == list(used.parameters())


def test_joined_shares_give_the_first_process_its_gradient_and_all_rows_to_the_others() -> None:
    own, others = torch.randn(2, 3, requires_grad=True), torch.randn(4, 3)
    left: list[Tensor] = []
    weights = torch.arange(18.0).view(6, 3)

    whole: Tensor = Joined.apply(own, others, left.append)
    (whole * weights).sum().backward()

    assert torch.equal(whole, torch.cat([own, others]))
    assert own.grad is not None
    assert torch.equal(own.grad, weights[:2])
    assert torch.equal(left[0], weights)


# --- the team ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
        {"WORLD_SIZE": "two", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
    ],
)
def test_a_process_without_others_is_a_party_by_itself(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert Team.join(1) is None


def test_processes_that_do_not_come_together_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError) as found:
        Team.join(1)

    assert str(found.value).startswith("the processes of this party do not come together: ")
    assert str(found.value).endswith("; expected 2 of them, as WORLD_SIZE says. Start them with torchrun.")


def test_no_limit_is_a_very_long_one() -> None:
    assert as_limit(0) == FOREVER
    assert as_limit(1.5) == timedelta(seconds=1.5)


def team(rank: int, size: int, present: dict[int, Present] | None = None) -> Team:
    """Return a team without processes."""
    made = object.__new__(Team)
    made.rank, made.size, made._present = rank, size, present or {}
    return made


GLOO = "[/src/gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:4009: Connection reset by peer. This is typical."
LATE = "[/src/gloo/unbound_buffer.cc:129] Timed out waiting 2000ms for recv operation to complete"


@pytest.mark.parametrize(
    ("size", "arguments", "what"),
    [
        (2, (GLOO,), "its process 1 of 2 is gone (Read error [127.0.0.1]:4009: Connection reset by peer)"),
        (3, (GLOO, 2), "its process 2 of 3 is gone (Read error [127.0.0.1]:4009: Connection reset by peer)"),
        (3, (GLOO,), "one of its 3 processes is gone (Read error [127.0.0.1]:4009: Connection reset by peer)"),
        (3, (LATE, 2, timedelta(seconds=2)), "its process 2 of 3 has not answered for 2 s"),
    ],
)
def test_the_text_of_a_process_that_is_lost(size: int, arguments: tuple[Any, ...], what: str) -> None:
    error = team(0, size).lost(RuntimeError(arguments[0]), *arguments[1:])

    assert error.what == what
    assert "pair.cc" not in str(error)
    assert "Connection" not in error.for_peers() and "Timed" not in error.for_peers()


def test_a_process_of_this_machine_that_has_ended_is_the_one_to_name() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = socket.gethostname()
    known = {1: Present(here, os.getpid()), 2: Present(here, ended.pid), 3: Present("elsewhere", ended.pid)}

    assert team(0, 4, known).gone() == [2]
    assert team(0, 4, known).lost(RuntimeError(GLOO), 1).what == "its process 2 of 4 is gone"


def test_another_process_points_to_the_first() -> None:
    error = team(1, 2).lost(RuntimeError(GLOO), 0)

    assert str(error) == (
        "process 0 of this party has ended, or has not waited for this one (Read error [127.0.0.1]:4009: Connection "
        "reset by peer). Its output says why."
    )

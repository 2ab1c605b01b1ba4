"""The federated run equals the unsplit network trained in one process: not about the same, the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from torch import nn

from heterofed import run_locally
from tests.tiny import Collaborator, Host, same_bits, unsplit


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More threads may sum in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("transport", ["memory", "zeromq"])
@pytest.mark.parametrize("collaborators", [1, 3])
def test_every_parameter_has_the_bits_of_the_unsplit_network(
    collaborators: int, transport: Literal["memory", "zeromq"]
) -> None:
    host = Host(parties=collaborators + 1)
    others = [Collaborator(f"c{party}", party=party) for party in range(1, collaborators + 1)]

    run_locally(host, *others, transport=transport)

    bottoms, top = unsplit(host, collaborators + 1)
    assert same_bits(host.infer_model, top)
    for scheduler, bottom in zip([host, *others], bottoms, strict=True):
        assert same_bits(scheduler.feature_model, bottom)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_exact_too(dtype: torch.dtype) -> None:
    class HostOfDtype(Host):
        pass

    class CollaboratorOfDtype(Collaborator):
        pass

    HostOfDtype.dtype = CollaboratorOfDtype.dtype = dtype
    host, other = HostOfDtype(), CollaboratorOfDtype()

    run_locally(host, other)

    bottoms, top = unsplit(host, 2)
    assert same_bits(host.infer_model, top)
    assert same_bits(host.feature_model, bottoms[0])
    assert same_bits(other.feature_model, bottoms[1])


def test_training_moves_every_party() -> None:
    host, other = Host(), Collaborator()
    before = [{name: each.clone() for name, each in model.state_dict().items()} for model in models(host, other)]

    run_locally(host, other)

    for old, model in zip(before, models(host, other), strict=True):
        assert not any(torch.equal(old[name], each) for name, each in model.state_dict().items())


def test_a_run_with_dropout_and_the_same_seed_gives_the_same_bits_twice() -> None:
    def with_dropout(seed: int) -> list[nn.Module]:
        host, other = DropoutHost(), DropoutCollaborator()
        run_locally(host, other, seed=seed)
        return models(host, other)

    first, second, third = with_dropout(1), with_dropout(1), with_dropout(2)

    assert all(same_bits(a, b) for a, b in zip(first, second, strict=True))
    assert not any(same_bits(a, b) for a, b in zip(first, third, strict=True))


def test_a_local_run_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)

    run_locally(DropoutHost(), DropoutCollaborator(), seed=1)

    assert torch.equal(torch.rand(2), expected)


def models(host: Host, other: Collaborator) -> list[nn.Module]:
    return [host.feature_model, host.infer_model, other.feature_model]


class DropoutHost(Host):
    def make_feature_model(self) -> nn.Module:
        return nn.Sequential(super().make_feature_model(), nn.Dropout())


class DropoutCollaborator(Collaborator):
    def make_feature_model(self) -> nn.Module:
        return nn.Sequential(super().make_feature_model(), nn.Dropout())

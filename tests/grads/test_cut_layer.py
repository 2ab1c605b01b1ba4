"""Gradients leave across the cut early, exactly once, and are those of the network in one piece."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heterofed.errors import ConfigError, TrainingDiverged
from heterofed.grads.cut_layer import CutLayer
from heterofed.grads.optimizer import OptimizerFacade

PARTIES = ("host", "c1", "c2")
ROWS, WIDTH, CLASSES = 8, 4, 3


class Log:
    """Keeps what a cut layer says, in order."""

    def __init__(self) -> None:
        self.gradients: dict[str, list[Tensor]] = {}
        self.warnings: list[str] = []
        self.order: list[str] = []

    def leave(self, key: str, gradient: Tensor) -> None:
        self.order.append(f"gradient for {key}")
        self.gradients.setdefault(key, []).append(gradient)

    def cut(self) -> CutLayer:
        return CutLayer(self.leave, self.warnings.append)


def seeded(make: Callable[[], nn.Module], seed: int, dtype: torch.dtype) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().to(dtype)


def bottom(party: int, dtype: torch.dtype) -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, WIDTH)), 10 + party, dtype)


def top(dtype: torch.dtype) -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(WIDTH * len(PARTIES), 7), nn.ReLU(), nn.Linear(7, CLASSES)), 9, dtype)


def rows(party: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(party), dtype=torch.float64).to(dtype)


def labels() -> Tensor:
    return torch.randint(CLASSES, (ROWS,), generator=torch.Generator().manual_seed(99))


def loss_of(head: nn.Module, projection: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(head(torch.cat(list(projection.values()), dim=1)), labels())


def leaf(*shape: int) -> Tensor:
    return torch.ones(shape)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_every_gradient_equals_that_of_the_network_in_one_piece_bit_for_bit(dtype: torch.dtype) -> None:
    bottoms, head = [bottom(party, dtype) for party in range(3)], top(dtype)
    whole = {key: each(rows(party, dtype)) for party, (key, each) in enumerate(zip(PARTIES, bottoms, strict=True))}
    for each in whole.values():
        each.retain_grad()
    loss_of(head, whole).backward()

    log = Log()
    cut = log.cut()
    our_bottoms, our_head = [bottom(party, dtype) for party in range(3)], top(dtype)
    sent = {key: our_bottoms[party](rows(party, dtype)) for party, key in enumerate(PARTIES)}
    opened = cut.open({key: sent[key].detach() for key in PARTIES[1:]}, {"c1", "c2"})
    loss_of(our_head, {"host": sent["host"], **opened}).backward()
    cut.close()
    for key in PARTIES[1:]:
        sent[key].backward(log.gradients[key][0])

    for key in PARTIES[1:]:
        expected = whole[key].grad
        assert expected is not None
        assert torch.equal(log.gradients[key][0], expected)
        assert log.gradients[key][0].dtype is dtype
    for ours, theirs in zip([*our_bottoms, our_head], [*bottoms, head], strict=True):
        for mine, same in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert mine.grad is not None
            assert same.grad is not None
            assert torch.equal(mine.grad, same.grad)
    assert not log.warnings


def test_gradients_leave_before_the_hosts_own_feature_model_is_differentiated() -> None:
    log = Log()
    own = bottom(0, torch.float32)
    for name, parameter in own.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: log.order.append(f"own {name}"))
    cut = log.cut()
    opened = cut.open({"c1": leaf(ROWS, WIDTH), "c2": leaf(ROWS, WIDTH)}, {"c1", "c2"})

    loss_of(top(torch.float32), {"host": own(rows(0, torch.float32)), **opened}).backward()

    assert sorted(log.order[:2]) == ["gradient for c1", "gradient for c2"]
    assert len(log.order) == 2 + 4
    assert all(each.startswith("own ") for each in log.order[2:])


def test_opened_embeddings_are_leaves_with_the_numbers_that_were_received() -> None:
    cut = Log().cut()
    received = {"c1": torch.randn(4, 2), "c2": torch.randn(4, 3)}

    opened = cut.open(received, {"c1", "c2"})

    assert list(opened) == ["c1", "c2"]
    for key, each in opened.items():
        assert each.is_leaf
        assert each.requires_grad
        assert torch.equal(each, received[key])
        assert not received[key].requires_grad


def test_an_embedding_that_is_used_twice_leaves_one_gradient_with_both_parts() -> None:
    log = Log()
    cut = log.cut()
    opened = cut.open({"c1": torch.full((2, 2), 3.0)}, {"c1"})

    (opened["c1"].sum() + (opened["c1"] ** 2).sum()).backward()
    cut.close()

    assert [each.tolist() for each in log.gradients["c1"]] == [[[7.0, 7.0], [7.0, 7.0]]]


def test_a_party_that_does_not_train_gets_a_constant_and_no_gradient() -> None:
    log = Log()
    cut = log.cut()

    opened = cut.open({"c1": leaf(2, 2), "frozen": leaf(2, 2)}, frozenset({"c1"}))
    (opened["c1"] * opened["frozen"]).sum().backward()
    cut.close()

    assert not opened["frozen"].requires_grad
    assert list(log.gradients) == ["c1"]
    assert not log.warnings


def test_an_embedding_with_a_graph_of_its_own_is_cut_off_from_it() -> None:
    cut = Log().cut()
    weights = torch.ones(2, 2, requires_grad=True)

    opened = cut.open({"c1": weights * 2, "frozen": weights * 2}, {"c1"})
    (opened["c1"] + opened["frozen"]).sum().backward()

    assert weights.grad is None


def test_an_unused_embedding_gets_a_zero_gradient_and_one_warning_over_two_batches() -> None:
    log = Log()
    cut = log.cut()

    for _ in range(2):
        opened = cut.open({"c1": leaf(3, 2), "c2": leaf(3, 2).double()}, {"c1", "c2"})
        opened["c1"].sum().backward()
        cut.close()

    assert len(log.gradients["c1"]) == len(log.gradients["c2"]) == 2
    assert all(torch.equal(each, torch.zeros(3, 2, dtype=torch.float64)) for each in log.gradients["c2"])
    assert log.warnings == [
        "train_a_batch did not use the embedding of c2 or did not call backward(): it gets a zero gradient, and its "
        "model does not learn from such batches"
    ]


def test_each_party_whose_embedding_is_unused_is_warned_of_once() -> None:
    log = Log()
    cut = log.cut()

    for _ in range(2):
        cut.open({"c1": leaf(3, 2), "c2": leaf(3, 2)}, {"c1", "c2"})
        cut.close()

    assert [each.split(" of ")[1][:2] for each in log.warnings] == ["c1", "c2"]


def test_closing_twice_sends_nothing_twice() -> None:
    log = Log()
    cut = log.cut()
    cut.open({"c1": leaf(3, 2)}, {"c1"})

    cut.close()
    cut.close()

    assert len(log.gradients["c1"]) == 1


def test_a_second_backward_in_one_batch_is_refused() -> None:
    log = Log()
    opened = log.cut().open({"c1": leaf(3, 2)}, {"c1"})
    loss = (opened["c1"] ** 2).sum()
    loss.backward(retain_graph=True)

    with pytest.raises(ConfigError) as caught:
        loss.backward()

    assert str(caught.value) == (
        "train_a_batch differentiated the embedding of c1 twice in one batch; expected one backward() for each batch. "
        "Add the losses up and call backward() once: the first gradient has left already."
    )
    assert len(log.gradients["c1"]) == 1


def test_a_backward_through_a_batch_that_is_closed_sends_nothing() -> None:
    log = Log()
    cut = log.cut()
    old = cut.open({"c1": leaf(3, 2)}, {"c1"})["c1"].sum()
    cut.close()
    cut.open({"c1": leaf(3, 2)}, {"c1"})

    old.backward()

    assert len(log.gradients["c1"]) == 1  # the zeros of close


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_gradient_that_is_not_finite_is_raised_out_of_backward_and_does_not_leave(number: float) -> None:
    log = Log()
    own = torch.ones(2, 2, requires_grad=True)
    opened = log.cut().open({"c1": leaf(2, 2)}, {"c1"})
    loss = (opened["c1"] * torch.tensor([[1.0, number], [1.0, 1.0]])).sum() + own.sum()

    with pytest.raises(TrainingDiverged) as caught:
        loss.backward()

    assert str(caught.value) == (
        "the gradient for c1 is NaN or infinite; expected finite numbers. "
        "Lower the learning rate, check the inputs for NaN, or clip the loss."
    )
    assert not log.gradients


def test_what_leaving_raises_comes_out_of_backward() -> None:
    def leave(key: str, gradient: Tensor) -> None:
        raise ConnectionError(f"the link to {key} is down")

    opened = CutLayer(leave, print).open({"c1": leaf(2, 2)}, {"c1"})

    with pytest.raises(ConnectionError, match="the link to c1 is down"):
        opened["c1"].sum().backward()


class Recorder(torch.optim.SGD):
    """An optimizer that writes down what it is asked to do."""

    def __init__(self, name: str, log: list[str], parameter: Tensor) -> None:
        super().__init__([parameter], lr=1.0)
        self.name = name
        self.log = log

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.log.append(f"{self.name} clears to {None if set_to_none else 0}")
        super().zero_grad(set_to_none)

    def step(self, closure: object = None) -> None:  # type: ignore[override]  # no closure is passed
        self.log.append(f"{self.name} steps")
        super().step()


def test_the_facade_clears_and_steps_every_optimizer_in_order() -> None:
    log: list[str] = []
    first, second = (torch.zeros(2, requires_grad=True) for _ in range(2))
    facade = OptimizerFacade([Recorder("infer", log, first), Recorder("feature", log, second)])

    facade.zero_grad()
    (first.sum() + 2 * second.sum()).backward()
    facade.step()

    assert log == ["infer clears to None", "feature clears to None", "infer steps", "feature steps"]
    assert first.tolist() == [-1.0, -1.0]
    assert second.tolist() == [-2.0, -2.0]

    facade.zero_grad()
    assert first.grad is None
    assert second.grad is None


def test_the_facade_can_keep_zeros_instead_of_nothing() -> None:
    log: list[str] = []
    parameter = torch.zeros(2, requires_grad=True)
    facade = OptimizerFacade([Recorder("infer", log, parameter)])
    parameter.sum().backward()

    facade.zero_grad(set_to_none=False)

    assert parameter.grad is not None
    assert parameter.grad.tolist() == [0.0, 0.0]
    assert log == ["infer clears to 0"]

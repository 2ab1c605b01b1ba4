"""What a host may declare for long links, each against the same thing done in one process: the same bits."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from heterofed import ConfigError, HeterofedError, run_locally
from heterofed.scheduler.link import Link
from heterofed.training.hooks import HookBase
from tests.own_batches import OwnCollaborator, OwnHost
from tests.scheduler.rejoining import Federation, Kill, run_with
from tests.tiny import BareHost, Collaborator, Host, bottom, labels, row_of, same_bits, table, top, unsplit


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More threads may sum in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class InOneProcess:
    """The unsplit network, trained as the declared way of exchange has it, on the batches that a host has had."""

    def __init__(self, parties: int, *, staleness: int = 0, together: int = 1, steps: int = 1) -> None:
        self.parts = [bottom(party) for party in range(parties)]
        self.head = top(parties)
        self.optimizers = [SGD(each.parameters(), lr=0.1, momentum=0.9) for each in self.parts]
        self.head_optimizer = SGD(self.head.parameters(), lr=0.1)
        self.staleness, self.together, self.steps = staleness, together, steps

    def run(self, rounds: list[list[list[str]]]) -> InOneProcess:
        for batches in rounds:
            flight: deque[tuple[list[nn.Module], list[Tensor]]] = deque()
            coming = deque(batches)
            for ids in batches:
                while coming and len(flight) + self.together <= self.staleness + 1:
                    for _ in range(min(self.together, len(coming))):
                        flight.append(self.ahead(coming.popleft()))
                self.batch(ids, *flight.popleft())
        return self

    def ahead(self, ids: list[str]) -> tuple[list[nn.Module], list[Tensor]]:
        """Make the collaborators' embeddings of a batch with their models as they are now."""
        models = [copy.deepcopy(each) for each in self.parts[1:]]
        return models, [model(rows(party, ids)) for party, model in enumerate(models, 1)]

    def batch(self, ids: list[str], models: list[nn.Module], embeddings: list[Tensor]) -> None:
        leaves = [each.detach().requires_grad_() for each in embeddings]
        self.host_step(ids, leaves)
        gradients = [each.grad for each in leaves]
        for _ in range(1, self.steps):
            self.host_step(ids, [each.detach() for each in leaves])
        for party, (model, embedding, gradient) in enumerate(zip(models, embeddings, gradients, strict=True), 1):
            model.zero_grad()
            embedding.backward(gradient)
            for mine, theirs in zip(self.parts[party].parameters(), model.parameters(), strict=True):
                mine.grad = theirs.grad
            self.optimizers[party].step()
            for _ in range(1, self.steps):
                self.optimizers[party].zero_grad()
                self.parts[party](rows(party, ids)).backward(gradient)
                self.optimizers[party].step()

    def host_step(self, ids: list[str], leaves: list[Tensor]) -> None:
        self.optimizers[0].zero_grad()
        self.head_optimizer.zero_grad()
        fused = torch.cat([self.parts[0](rows(0, ids)), *leaves], dim=1)
        F.cross_entropy(self.head(fused), labels()[[row_of(each) for each in ids]]).backward()
        self.head_optimizer.step()
        self.optimizers[0].step()


def rows(party: int, ids: list[str]) -> Tensor:
    return table(party)[[row_of(each) for each in ids]]


def rounds_of(host: BareHost) -> list[list[list[str]]]:
    """Return the training batches that a host has had, round by round."""
    trained = [ids for ids in host.orders if ids[0] in set(host.train_ids)]
    in_a_round = -(-len(host.train_ids) // host.batch_size)
    return [trained[at : at + in_a_round] for at in range(0, len(trained), in_a_round)]


def parties(collaborators: int = 1, **of_host: Any) -> tuple[Host, list[Collaborator]]:
    host = Host(parties=collaborators + 1, batch_size=8, **of_host)
    return host, [Collaborator(f"c{party}", party=party) for party in range(1, collaborators + 1)]


def assert_equals(expected: InOneProcess, host: Host, others: list[Collaborator]) -> None:
    assert same_bits(host.infer_model, expected.head)
    for scheduler, part in zip([host, *others], expected.parts, strict=True):
        assert same_bits(scheduler.feature_model, part)


@pytest.mark.parametrize("transport", ["memory", "zeromq"])
@pytest.mark.parametrize(("collaborators", "staleness"), [(1, 1), (1, 4), (2, 2), (1, 32)])
def test_gradients_are_applied_in_order_so_many_batches_late(
    collaborators: int, staleness: int, transport: Literal["memory", "zeromq"]
) -> None:
    host, others = parties(collaborators, max_staleness=staleness)

    run_locally(host, *others, transport=transport)

    assert_equals(InOneProcess(collaborators + 1, staleness=staleness).run(rounds_of(host)), host, others)
    bottoms, _ = unsplit(host, collaborators + 1)
    assert not same_bits(others[0].feature_model, bottoms[1]), "a late gradient is another gradient"


@pytest.mark.parametrize(("together", "staleness"), [(2, 1), (2, 4), (3, 2), (3, 7)])
def test_several_batches_travel_in_one_message(together: int, staleness: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, list[str]]] = []
    original = Link.send_together

    def watched(self: Link, to: str, messages: Any, timeout_s: float = 0.0) -> None:
        sent.append((self.party, [type(each).__name__ for each in messages]))
        original(self, to, messages, timeout_s)

    monkeypatch.setattr(Link, "send_together", watched)
    host, others = parties(2, max_staleness=staleness, batches_per_message=together, max_rounds=1, log_rounds=0)

    run_locally(host, *others, transport="zeromq")

    assert_equals(InOneProcess(3, staleness=staleness, together=together).run(rounds_of(host)), host, others)
    full, rest = divmod(6, together)
    for party, kind, times in (("c1", "Embedding", 1), ("host", "Gradient", 2)):
        groups = [len(names) for who, names in sent if who == party and set(names) == {kind}]
        assert sorted(groups) == sorted(times * ([together] * full + ([rest] if rest else [])))


@pytest.mark.parametrize("steps", [2, 3])
def test_every_party_makes_several_steps_with_one_exchange(steps: int) -> None:
    host, others = parties(2, local_steps=steps)

    run_locally(host, *others)

    assert_equals(InOneProcess(3, steps=steps).run(rounds_of(host)), host, others)
    assert len(host.losses) == 2 * 6 * steps


def test_steps_of_ones_own_and_batches_ahead_go_together() -> None:
    host, others = parties(1, local_steps=2, max_staleness=3, batches_per_message=2)

    run_locally(host, *others)

    assert_equals(InOneProcess(2, steps=2, staleness=3, together=2).run(rounds_of(host)), host, others)


def test_parties_that_choose_their_batches_run_ahead_too() -> None:
    planned, others = parties(1, max_staleness=2, shuffle=False)
    run_locally(planned, *others)
    host, other = OwnHost(size=8, max_staleness=2), OwnCollaborator(size=8)

    run_locally(host, other)

    assert same_bits(host.feature_model, planned.feature_model)
    assert same_bits(other.feature_model, others[0].feature_model)


def test_a_frozen_party_may_run_ahead_and_nothing_changes() -> None:
    def trained(**of_host: Any) -> Host:
        host = Host(batch_size=8, **of_host)
        run_locally(host, Collaborator(is_feature_trainable=False))
        return host

    assert same_bits(trained().infer_model, trained(max_staleness=3).infer_model)


# --- going on from checkpoints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "declared",
    [
        {"max_staleness": 2},
        {"max_staleness": 3, "batches_per_message": 2},
        {"local_steps": 2},
        {"embedding_precision": "topk:0.3", "gradient_precision": "topk:0.5"},
        {"max_staleness": 2, "embedding_precision": "int8", "gradient_precision": "bfloat16"},
    ],
    ids=str,
)
@pytest.mark.parametrize("victim", ["host", "c1"])
def test_a_party_that_is_killed_and_started_again_changes_no_bit(
    declared: dict[str, Any], victim: str, tmp_path: Path
) -> None:
    def made(folder: str) -> Federation:
        def make(key: str) -> Any:
            out = tmp_path / folder / key
            if key == "host":
                return Host(parties=3, batch_size=4, checkpoint_every=4, out_dir=out, **declared)
            return Collaborator(key, party=int(key[1]), out_dir=out)

        return Federation(make, ["host", "c1", "c2"])

    undisturbed, disturbed = made("undisturbed"), made("disturbed")
    undisturbed.run()
    said = "Gradient" if victim == "host" else "Embedding"

    if declared.get("batches_per_message", 1) > 1:  # such messages do not come one by one
        said = "CloseRound" if victim == "host" else "BatchesEnd"
    run_with(disturbed, Kill(victim, said, nth=1 if said.endswith(("Round", "End")) else 6))

    for key in ("host", "c1", "c2"):
        mine, theirs = disturbed.schedulers[key], undisturbed.schedulers[key]
        assert same_bits(mine.feature_model, theirs.feature_model), key
    assert same_bits(disturbed.schedulers["host"].infer_model, undisturbed.schedulers["host"].infer_model)


def test_a_run_that_is_cut_off_in_the_middle_of_a_round_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    declared: dict[str, Any] = {"max_staleness": 3, "batches_per_message": 2, "checkpoint_every": 4, "batch_size": 4}

    def made(folder: str) -> list[Any]:
        host = Host(out_dir=tmp_path / folder / "host", **declared)
        return [host, Collaborator(out_dir=tmp_path / folder / "c1")]

    at_once = made("at once")
    run_locally(*at_once)
    for batch in range(1, 2 * 12, 3):
        cut = made("cut")
        cut[batch % 2].trainer.register_hooks([CutOff(batch)])
        with pytest.raises(HeterofedError, match="raised RuntimeError"):
            run_locally(*cut, recover=True)
    resumed = made("cut")
    run_locally(*resumed, recover=True)

    for mine, theirs in zip(resumed, at_once, strict=True):
        assert same_bits(mine.feature_model, theirs.feature_model)


class CutOff(HookBase):
    """Breaks a run off when a batch of it begins."""

    def __init__(self, batch: int) -> None:
        self._batch = batch

    def before_step(self) -> None:
        """Break off if it is due."""
        if self.trainer.iter == self._batch:
            raise RuntimeError


# --- how exactly numbers cross ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16", "int8", "topk:0.5"])
def test_a_model_is_learned_with_every_precision_and_fewer_bytes_cross(precision: str) -> None:
    plain, others = parties(1, max_rounds=6)
    run_locally(plain, *others)
    host, fewer = parties(1, max_rounds=6, embedding_precision=precision, gradient_precision=precision)

    run_locally(host, *fewer)

    assert abs(host.losses[-1] - plain.losses[-1]) < 0.25
    assert same_bits(host.infer_model, plain.infer_model) == (precision == "float32")
    for party in (host, fewer[0]):
        meter = party._linked.meter
        assert meter.tensors_sent < meter.tensors_whole or precision in ("float32", "topk:0.5")


def test_embeddings_and_gradients_of_another_dtype_come_back_in_it() -> None:
    class HostOfDoubles(Host):
        dtype = torch.float64

    class CollaboratorOfDoubles(Collaborator):
        dtype = torch.float64

        def make_feature_model(self) -> nn.Module:
            model = super().make_feature_model()
            for each in model.parameters():
                each.register_hook(lambda gradient: seen.append(gradient.dtype))
            return model

    seen: list[torch.dtype] = []
    host = HostOfDoubles(embedding_precision="float32", gradient_precision="bfloat16")

    class Casting(HostOfDoubles):
        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            assert feature_projection["c1"].dtype is torch.float32
            return super().train_a_batch({k: v.double() for k, v in feature_projection.items()}, labels)

    host = Casting(embedding_precision="float32", gradient_precision="bfloat16", log_rounds=0)
    run_locally(host, CollaboratorOfDoubles())

    assert set(seen) == {torch.float64}


# --- what cannot be declared ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"max_staleness": -1}, "max_staleness is -1"),
        ({"max_staleness": 33}, "max_staleness is 33"),
        ({"local_steps": 0}, "local_steps is 0"),
        ({"batches_per_message": 2}, "batches_per_message is 2, but max_staleness is 0; expected max_staleness=1"),
        ({"max_staleness": 4, "checkpoint_every": 4}, "checkpoint_every is 4, but max_staleness is 4"),
        ({"embedding_precision": "int4"}, "embedding_precision is 'int4'"),
        ({"gradient_precision": "topk"}, "gradient_precision is 'topk'"),
    ],
)
def test_terms_that_cannot_work_are_refused_when_they_are_declared(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Host(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"local_steps": 2},
        {"max_staleness": 1, "batches_per_message": 2},
        {"embedding_precision": "topk:0.5"},
        {"gradient_precision": "topk:0.5"},
    ],
    ids=str,
)
def test_what_needs_a_plan_is_refused_where_a_party_chooses_its_batches(arguments: dict[str, Any]) -> None:
    argument = list(arguments)[-1]
    with pytest.raises(ConfigError, match=f"{argument} is declared, but this party chooses its own batches"):
        run_locally(OwnHost(**arguments), OwnCollaborator())
    with pytest.raises(ConfigError, match=f"host declares {argument}, but c1 chooses its own batches"):
        run_locally(Host(**arguments, shuffle=False), OwnCollaborator())

"""Devices, mixed precision and compiled models change where and how a party computes, not what parties agree on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import register_backend

from heterofed import ConfigError, Settings, run_locally
from tests.own_batches import OwnCollaborator, OwnHost
from tests.tiny import Collaborator, Host, bottom, same_bits, unsplit

CPU = torch.device("cpu")

pytestmark = [pytest.mark.usefixtures("quick_and_exact"), pytest.mark.timeout(120)]

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


# --- a device ---------------------------------------------------------------------------------------------------------


class Carried:
    """Rows that know to which device they were moved; labels, where they have a length."""

    def __init__(self, rows: Tensor, device: torch.device | None = None) -> None:
        self.rows = rows
        self.device = device

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> Carried:
        return Carried(self.rows, device)


class Unpacking(nn.Module):
    """Takes rows that were carried, and notes where they had been moved to."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: set[torch.device | None] = set()

    def forward(self, given: Carried) -> Tensor:
        self.seen.add(given.device)
        return cast(Tensor, self.inner(given.rows))


class CarryingHost(Host):
    """Notes where its labels had been moved to."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seen: set[torch.device | None] = set()

    def make_feature_model(self) -> nn.Module:
        return Unpacking(super().make_feature_model())

    def load_batch(self, ids: list[str]) -> Any:
        rows, labels = super().load_batch(ids)
        return Carried(rows), Carried(labels)

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Carried) -> Any:
        self.seen.add(labels.device)
        return super().train_a_batch(feature_projection, labels.rows)

    def test(self, batched_feature_projections: list[dict[str, Tensor]], batched_labels: list[Any]) -> None:
        self.seen |= {each.device for each in batched_labels}
        super().test(batched_feature_projections, [each.rows for each in batched_labels])


class CarryingCollaborator(Collaborator):
    def make_feature_model(self) -> nn.Module:
        return Unpacking(super().make_feature_model())

    def load_batch(self, ids: list[str]) -> Any:
        return Carried(super().load_batch(ids))


def test_what_load_batch_returns_is_moved_to_the_device() -> None:
    host, other = CarryingHost(device="cpu"), CarryingCollaborator(device=CPU)

    run_locally(host, other)

    assert cast(Unpacking, host.feature_model).seen == cast(Unpacking, other.feature_model).seen == {CPU}
    assert host.seen == {CPU}
    bottoms, top = unsplit(host, 2)
    assert same_bits(host.infer_model, top)
    assert same_bits(cast(Unpacking, other.feature_model).inner, bottoms[1])


def test_without_a_device_nothing_is_moved() -> None:
    host, other = CarryingHost(), CarryingCollaborator()

    run_locally(host, other)

    assert cast(Unpacking, host.feature_model).seen == cast(Unpacking, other.feature_model).seen == {None}
    assert host.seen == {None}


def test_labels_that_iterate_train_feature_yields_are_moved_too() -> None:
    class CarryingOwnHost(OwnHost):
        def iterate_train_feature(self, feature_model: nn.Module, train_ids: list[str]) -> Any:
            for embedding, labels in super().iterate_train_feature(feature_model, train_ids):
                yield embedding, Carried(labels)

        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Carried) -> Any:
            assert labels.device == CPU
            return super().train_a_batch(feature_projection, labels.rows)

    run_locally(CarryingOwnHost(device="cpu"), OwnCollaborator(device="cpu"))


@pytest.mark.parametrize("party", ["host", "c1"])
def test_a_device_that_is_not_there_is_named_before_any_model_is_made(party: str) -> None:
    class NoHost(Host):
        def make_infer_model(self) -> nn.Module:
            raise AssertionError

        def make_feature_model(self) -> nn.Module:
            raise AssertionError

    class NoCollaborator(Collaborator):
        def make_feature_model(self) -> nn.Module:
            raise AssertionError

    host: Host = NoHost(device="cuda:99") if party == "host" else Host()
    other: Collaborator = NoCollaborator(device="cuda:99") if party == "c1" else Collaborator()

    with pytest.raises(ConfigError, match="device is 'cuda:99', which torch cannot use here") as caught:
        run_locally(host, other)
    assert str(caught.value).startswith(f"{party}, while ")


def test_optimizers_have_the_parameters_that_were_moved() -> None:
    host = Host(device="cpu")

    for model, optimizer in (
        (host.feature_model, host.feature_optimizer),
        (host.infer_model, host.infer_optimizer),
    ):
        known = [each for group in optimizer.param_groups for each in group["params"]]
        assert all(mine is theirs for mine, theirs in zip(known, model.parameters(), strict=True))


@needs_gpu
def test_on_a_gpu_a_run_comes_to_the_same_model_and_its_files_load_anywhere(tmp_path: Path) -> None:
    runs = []
    for device in ("cpu", "cuda"):
        host, other = Host(device=device, out_dir=tmp_path / device / "h"), Collaborator(device=device)
        other.out_dir = tmp_path / device / "c"
        run_locally(host, other, seed=1)
        assert {each.device.type for each in host.infer_model.parameters()} == {device}
        files = {path.name: torch.load(path, weights_only=True) for path in (tmp_path / device).rglob("*_model*.pt")}
        assert all(each.device == CPU for state in files.values() for each in state.values())
        runs.append(files)
    for name, state in runs[0].items():
        for key, value in state.items():
            torch.testing.assert_close(runs[1][name][key], value, rtol=1e-4, atol=1e-5)
    again = Host(out_dir=tmp_path / "cuda" / "h", max_rounds=3), Collaborator(out_dir=tmp_path / "cuda" / "c")
    assert run_locally(*again, recover=True).host.rounds == 3  # on the CPU


# --- mixed precision --------------------------------------------------------------------------------------------------


def computes_in_bfloat16() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


class Watched(nn.Module):
    """A feature model that notes in which dtype it gives its output."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.gave: set[torch.dtype] = set()

    def forward(self, rows: Tensor) -> Tensor:
        out = self.inner(rows)
        self.gave.add(out.dtype)
        return cast(Tensor, out)


class Watching:
    """Notes where autocast was on."""

    party: int
    on: dict[str, bool]

    def make_feature_model(self) -> nn.Module:
        return Watched(bottom(self.party))

    def load_batch(self, ids: list[str]) -> Any:
        self.on["load_batch"] = computes_in_bfloat16()
        return super().load_batch(ids)  # type: ignore[misc]  # of the class it is mixed into


class WatchingHost(Watching, Host):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.on = {}
        self.crossed: set[torch.dtype] = set()

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
        self.on["train_a_batch"] = computes_in_bfloat16()
        self.crossed |= {each.dtype for each in feature_projection.values()}
        return super().train_a_batch(feature_projection, labels)

    def test(self, batched_feature_projections: list[dict[str, Tensor]], batched_labels: list[Any]) -> None:
        self.on["test"] = computes_in_bfloat16()
        self.crossed |= {each.dtype for projection in batched_feature_projections for each in projection.values()}
        super().test(batched_feature_projections, batched_labels)

    def is_task_finished(self) -> bool:
        self.on["is_task_finished"] = computes_in_bfloat16()
        return super().is_task_finished()


class WatchingCollaborator(Watching, Collaborator):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.on = {}

    def make_feature_optimizer(self, feature_model: nn.Module) -> Any:
        optimizer = super().make_feature_optimizer(feature_model)
        optimizer.register_step_pre_hook(self._note)
        return optimizer

    def _note(self, *_: Any) -> None:
        self.on["step"] = computes_in_bfloat16()


def test_in_mixed_precision_forward_passes_are_in_bfloat16_and_the_rest_is_not() -> None:
    host, other = WatchingHost(mixed_precision="bfloat16"), WatchingCollaborator(mixed_precision="bfloat16")

    run_locally(host, other)

    assert cast(Watched, host.feature_model).gave == cast(Watched, other.feature_model).gave == {torch.bfloat16}
    assert host.on == {"load_batch": False, "train_a_batch": True, "test": True, "is_task_finished": False}
    assert other.on == {"load_batch": False, "step": False}
    assert host.crossed == {torch.float32}
    assert not computes_in_bfloat16()


def test_a_run_in_mixed_precision_learns_as_one_without() -> None:
    plain, mixed = Host(max_rounds=4), Host(max_rounds=4, mixed_precision="bfloat16")

    run_locally(plain, Collaborator())
    run_locally(mixed, Collaborator(mixed_precision="bfloat16"))

    assert plain.losses != mixed.losses
    assert plain.losses == pytest.approx(mixed.losses, abs=0.02)
    for model in (mixed.feature_model, mixed.infer_model):
        assert {each.dtype for each in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("at_host", [True, False])
def test_one_party_may_compute_in_mixed_precision_and_the_other_not(at_host: bool) -> None:
    precision = ("bfloat16", None) if at_host else (None, "bfloat16")
    host, other = WatchingHost(mixed_precision=precision[0]), WatchingCollaborator(mixed_precision=precision[1])

    run_locally(host, other)

    assert host.crossed == {torch.float32}
    assert host.on["train_a_batch"] is at_host
    assert cast(Watched, other.feature_model).gave == {torch.float32 if at_host else torch.bfloat16}


def test_generators_run_in_mixed_precision_while_they_make_a_batch_and_not_between() -> None:
    seen: list[bool] = []

    class MixedOwnHost(OwnHost):
        def iterate_train_feature(self, feature_model: nn.Module, train_ids: list[str]) -> Any:
            for embedding, labels in super().iterate_train_feature(feature_model, train_ids):
                seen.append(computes_in_bfloat16() and embedding.dtype == torch.bfloat16)
                yield embedding, labels
                seen.append(computes_in_bfloat16())

    class MixedOwnCollaborator(OwnCollaborator):
        def make_feature_optimizer(self, feature_model: nn.Module) -> Any:
            optimizer = super().make_feature_optimizer(feature_model)
            optimizer.register_step_pre_hook(lambda *_: seen.append(not computes_in_bfloat16()))
            return optimizer

    host = MixedOwnHost(mixed_precision="bfloat16")
    run_locally(host, MixedOwnCollaborator(mixed_precision="bfloat16"))

    assert seen and all(seen)
    assert host.losses[-1] < host.losses[0]


def test_a_model_of_another_dtype_is_left_to_its_dtype() -> None:
    class DoubleHost(Host):
        dtype = torch.float64

    class DoubleCollaborator(Collaborator):
        dtype = torch.float64

    host, other = DoubleHost(mixed_precision="bfloat16"), DoubleCollaborator(mixed_precision="bfloat16")
    run_locally(host, other)

    bottoms, _ = unsplit(host, 2)
    assert all(each.dtype == torch.float64 for each in bottoms[1].parameters())
    assert same_bits(other.feature_model, bottoms[1])


# --- compiled models --------------------------------------------------------------------------------------------------

TORCH_WARNS_ITSELF = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor")
"""Its compiler looks at the gradients of what a model is given."""

_compiled: list[int] = []


@register_backend(name="counted_here")
def _counted(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
    _compiled.append(len(inputs))
    return graph.forward


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    _compiled.clear()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
@TORCH_WARNS_ITSELF
def test_compiled_models_are_used_and_come_to_the_same_bits() -> None:
    host, other = Host(compile_models="counted_here"), Collaborator(compile_models="counted_here")

    run_locally(host, other)

    bottoms, top = unsplit(host, 2)
    assert same_bits(host.infer_model, top)
    assert same_bits(host.feature_model, bottoms[0])
    assert same_bits(other.feature_model, bottoms[1])
    assert len(_compiled) >= 3  # each model once at least


@pytest.mark.usefixtures("fresh_compiler")
@TORCH_WARNS_ITSELF
def test_a_model_that_autograd_sees_in_one_piece_learns_the_same() -> None:
    plain, compiled = Host(), Host(compile_models="aot_eager")

    run_locally(plain, Collaborator())
    run_locally(compiled, Collaborator(compile_models="aot_eager"))

    assert compiled.losses == pytest.approx(plain.losses, rel=1e-5)


@pytest.mark.usefixtures("fresh_compiler")
@TORCH_WARNS_ITSELF
def test_the_graphs_of_compiled_models_keep_their_weights_where_batches_are_in_flight() -> None:
    plain, compiled = Host(max_staleness=3, batch_size=8), Host(max_staleness=3, batch_size=8)

    run_locally(plain, Collaborator())
    run_locally(compiled, Collaborator(compile_models="aot_eager"))

    assert compiled.losses == pytest.approx(plain.losses, rel=1e-5)


@pytest.mark.usefixtures("fresh_compiler")
@TORCH_WARNS_ITSELF
def test_compiled_models_may_run_in_mixed_precision_on_a_named_device() -> None:
    how: dict[str, Any] = {"compile_models": "aot_eager", "mixed_precision": "bfloat16", "device": "cpu"}
    plain, host = Host(), Host(**how)

    run_locally(plain, Collaborator())
    run_locally(host, Collaborator(**how))

    assert host.losses == pytest.approx(plain.losses, abs=0.02)


class WrappedHost(Host):
    """Compiles its models itself."""

    def make_feature_model(self) -> nn.Module:
        return cast(nn.Module, torch.compile(super().make_feature_model(), backend="eager"))

    def make_infer_model(self) -> nn.Module:
        return cast(nn.Module, torch.compile(super().make_infer_model(), backend="eager"))


class WrappedCollaborator(Collaborator):
    def make_feature_model(self) -> nn.Module:
        return cast(nn.Module, torch.compile(super().make_feature_model(), backend="eager"))


@pytest.mark.usefixtures("fresh_compiler")
@TORCH_WARNS_ITSELF
@pytest.mark.parametrize("wrapped", [True, False])
def test_files_of_compiled_models_are_those_of_plain_ones(wrapped: bool, tmp_path: Path) -> None:
    def parties(kind: str, rounds: int) -> tuple[Host, Collaborator]:
        more: dict[str, Any] = {"out_dir": tmp_path / "h", "max_rounds": rounds}
        if kind == "plain":
            return Host(**more), Collaborator(out_dir=tmp_path / "c")
        if wrapped:
            return WrappedHost(**more), WrappedCollaborator(out_dir=tmp_path / "c")
        return Host(compile_models="eager", **more), Collaborator(compile_models="eager", out_dir=tmp_path / "c")

    host, other = parties("compiled", 2)
    run_locally(host, other)

    bottoms, top = unsplit(host, 2)
    for path, model in [
        (tmp_path / "h" / "feature_model_host.pt", bottoms[0]),
        (tmp_path / "h" / "infer_model.pt", top),
        (tmp_path / "c" / "feature_model_c1.pt", bottoms[1]),
    ]:
        model.load_state_dict(torch.load(path, weights_only=True))  # names and all
    kept = torch.load(tmp_path / "h" / "checkpoints" / "model_final" / "model.pt", weights_only=True)
    assert {name: list(state) for name, state in kept.items()} == {
        "feature": list(bottoms[0].state_dict()),
        "infer": list(top.state_dict()),
    }
    assert run_locally(*parties("plain", 3), recover=True).host.rounds == 3


@pytest.mark.usefixtures("fresh_compiler")
@TORCH_WARNS_ITSELF
def test_the_file_of_a_model_of_which_a_part_is_compiled_is_that_of_a_plain_one(tmp_path: Path) -> None:
    class PartlyWrapped(Collaborator):
        def make_feature_model(self) -> nn.Module:
            first, *rest = cast(nn.Sequential, super().make_feature_model())
            return nn.Sequential(cast(nn.Module, torch.compile(first, backend="eager")), *rest)

    host = Host()
    run_locally(host, PartlyWrapped(out_dir=tmp_path))

    expected = unsplit(host, 2)[0][1].state_dict()
    state = torch.load(tmp_path / "feature_model_c1.pt", weights_only=True)
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], each) for name, each in expected.items())


@pytest.mark.usefixtures("fresh_compiler")
@TORCH_WARNS_ITSELF
def test_a_compiled_model_is_in_evaluation_mode_in_a_test(tmp_path: Path) -> None:
    class DropoutHost(WrappedHost):
        def make_feature_model(self) -> nn.Module:
            inner = nn.Sequential(bottom(0), nn.Dropout(0.5))
            return cast(nn.Module, torch.compile(inner, backend="eager"))

        def test(self, batched_feature_projections: list[dict[str, Tensor]], batched_labels: list[Any]) -> None:
            own = torch.cat([each["host"] for each in batched_feature_projections])
            assert (own == 0).sum() == 0  # nothing was dropped
            super().test(batched_feature_projections, batched_labels)

        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            assert (feature_projection["host"] == 0).sum() > 0
            return super().train_a_batch(feature_projection, labels)

    run_locally(DropoutHost(), WrappedCollaborator())


# --- threads ----------------------------------------------------------------------------------------------------------


def test_threads_are_no_matter_of_a_run_in_one_process() -> None:
    before = torch.get_num_threads()

    run_locally(Host(settings=replace(Settings.from_env(), threads=before + 1)), Collaborator())

    assert torch.get_num_threads() == before

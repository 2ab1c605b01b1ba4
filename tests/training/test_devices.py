"""What a party's models are given lies where they are, and nothing is touched where nothing was asked for."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import nullcontext
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from heterofed import ConfigError
from heterofed.frames.tensors import on_cpu
from heterofed.training.devices import Computing, moved, portable, unwrapped

CPU = torch.device("cpu")

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


class Movable:
    """Something that can be moved, and says where it is."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device

    def to(self, device: torch.device) -> Movable:
        return Movable(device)


def wrapped(model: nn.Module) -> nn.Module:
    """Return what torch.compile makes of a model."""
    return cast(nn.Module, torch.compile(model, backend="eager"))


class Pair(NamedTuple):
    """A named tuple as loaders make them."""

    left: Any
    right: Any


# --- what is asked for ------------------------------------------------------------------------------------------------


def test_by_default_everything_stays_as_it_is() -> None:
    computing, model, rows = Computing(), Untouchable(), [Movable()]

    computing.check()
    computing.prepare(model)

    assert computing.place(rows) is rows and rows[0].device is None
    assert isinstance(computing.autocast(CPU), nullcontext)
    assert not computing.mixed


class Untouchable(nn.Module):
    """Refuses to be moved or compiled."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it was moved")

    def compile(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it was compiled")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "", 3])
def test_what_is_no_device_is_refused_at_once(device: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^device is {device!r}; expected one of cpu.*, or None\."):
        Computing(device)


@pytest.mark.parametrize("device", ["cuda:99", torch.device("cuda:99")])
def test_a_device_that_is_not_there_is_named_when_it_is_looked_for(device: Any) -> None:
    computing = Computing(device)

    with pytest.raises(ConfigError) as caught:
        computing.check()

    text = str(caught.value)
    assert text.startswith("device is 'cuda:99', which torch cannot use here: ")
    assert "; expected one of cpu" in text
    assert text.endswith("Choose one of these, or leave device out.")


def test_a_device_that_holds_no_numbers_is_refused() -> None:
    with pytest.raises(ConfigError, match="device is 'meta', which torch cannot use here: "):
        Computing("meta").check()


def test_under_torchrun_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "98")

    with pytest.raises(ConfigError, match=r"device is 'cuda' \(cuda:98 of this process\), which torch cannot use here"):
        Computing("cuda").check()
    with pytest.raises(ConfigError, match="device is 'cuda:99', which"):
        Computing("cuda:99").check()
    Computing("cpu").check()


def test_float16_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError) as caught:
        Computing(mixed_precision="float16")

    assert str(caught.value) == (
        "mixed_precision is 'float16'; expected \"bfloat16\" or None. float16 needs its loss scaled, and the gradients "
        "would reach the other parties scaled; bfloat16 needs no scaling."
    )


@pytest.mark.parametrize("precision", ["fp8", "", True, torch.bfloat16])
def test_another_precision_is_refused(precision: Any) -> None:
    with pytest.raises(ConfigError, match=r'mixed_precision is .*; expected "bfloat16" or None'):
        Computing(mixed_precision=precision)


@pytest.mark.parametrize("how", ["", 1, None])
def test_what_does_not_say_how_to_compile_is_refused(how: Any) -> None:
    with pytest.raises(ConfigError, match=r"compile_models is .*; expected True, False or a backend's name"):
        Computing(compile_models=how)


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    computing = Computing(compile_models="fastest")

    with pytest.raises(
        ConfigError, match=r"compile_models is 'fastest'; expected True, or one of aot_eager, .*eager.*inductor"
    ):
        computing.check()


# --- models -----------------------------------------------------------------------------------------------------------


def test_a_model_is_moved_in_place_and_once() -> None:
    class Noting(nn.Linear):
        moves: list[object]

        def to(self, *args: Any, **kwargs: Any) -> Any:
            self.moves.append(args[0])
            return super().to(*args, **kwargs)

    model = Noting(2, 2)
    model.moves = []
    weight = model.weight

    Computing("cpu").prepare(model)

    assert model.moves == [CPU]
    assert model.weight is weight


def test_a_compiled_model_keeps_the_names_of_its_state_and_gives_the_same_numbers() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    rows, names = torch.randn(5, 3), list(model.state_dict())
    expected = model(rows)

    Computing(compile_models="eager").prepare(model)

    assert model._compiled_call_impl is not None
    assert list(model.state_dict()) == names
    assert torch.equal(model(rows), expected)


def test_true_takes_torchs_own_backend() -> None:
    assert Computing(compile_models=True).backend == "inductor"
    assert Computing(compile_models=False).backend is None


def test_a_model_that_its_user_has_compiled_is_left_alone() -> None:
    model = wrapped(nn.Linear(3, 4))

    Computing(compile_models="eager").prepare(model)

    assert model._compiled_call_impl is None


def test_the_model_within_what_torch_compile_gave_is_found() -> None:
    model = nn.Linear(3, 4)

    assert unwrapped(model) is model
    assert unwrapped(wrapped(model)) is model


def test_the_state_of_a_part_that_was_compiled_gets_its_names_back() -> None:
    plain = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4))
    model = nn.Sequential(wrapped(plain[0]), wrapped(plain[1]))
    assert "0._orig_mod.weight" in model.state_dict()

    state = portable(model.state_dict())

    assert list(state) == list(plain.state_dict())
    plain.load_state_dict(state)


def test_the_state_of_a_plain_model_stays_the_same_object_with_the_same_memory() -> None:
    model = nn.BatchNorm1d(3)
    state = model.state_dict()

    made = portable(state)

    assert made is state and isinstance(made, OrderedDict)
    assert list(made) == list(model.state_dict())
    assert made["weight"].data_ptr() == model.weight.data_ptr()
    assert made._metadata == model.state_dict()._metadata  # type: ignore[attr-defined]  # torch keeps versions there


def test_a_state_may_hold_more_than_tensors() -> None:
    assert portable({"_extra_state": 3}) == {"_extra_state": 3}


# --- what models are given --------------------------------------------------------------------------------------------


def test_everything_within_dicts_lists_and_tuples_is_moved() -> None:
    value: dict[str, Any] = {"a": Movable(), "b": [Movable(), (Movable(), 3)], "c": Pair(Movable(), "text")}

    found = moved(value, CPU)

    assert found["a"].device == found["b"][0].device == found["b"][1][0].device == CPU
    assert found["b"][1][1] == 3
    assert isinstance(found["c"], Pair) and found["c"].left.device == CPU and found["c"].right == "text"
    assert value["a"].device is None  # what was given is not changed


def test_a_tensor_that_is_there_already_is_itself() -> None:
    rows = torch.zeros(3)

    assert moved(rows, CPU) is rows


def test_arrays_of_numpy_and_other_things_are_left_alone() -> None:
    for value in (np.zeros(3), "text", b"bytes", 3, None, {1, 2}):
        assert moved(value, CPU) is value


def test_a_packed_sequence_stays_one() -> None:
    packed = pack_sequence([torch.ones(3), torch.ones(2)])

    found = moved([packed], CPU)[0]

    assert isinstance(found, PackedSequence)
    assert torch.equal(found.data, packed.data)


def test_mixed_precision_computes_in_bfloat16() -> None:
    computing, model = Computing(mixed_precision="bfloat16"), nn.Linear(3, 4)

    with computing.autocast(CPU):
        inside = model(torch.zeros(2, 3))

    assert inside.dtype == torch.bfloat16
    assert model(torch.zeros(2, 3)).dtype == torch.float32


def test_the_numbers_of_a_tensor_on_the_cpu_are_its_own_memory() -> None:
    rows = torch.zeros(3, 4, requires_grad=True)

    found = on_cpu(rows)

    assert found.data_ptr() == rows.data_ptr()
    assert not found.requires_grad


# --- only with a GPU --------------------------------------------------------------------------------------------------


@needs_gpu
def test_what_goes_to_a_gpu_arrives_whole_and_comes_back_in_pinned_memory() -> None:
    gpu = Computing("cuda")
    gpu.check()
    for rows in (torch.randn(300, 40), torch.randn(40, 300).T, torch.randn(1, 40).expand(300, 40)):
        there: Tensor = gpu.place([rows])[0]
        assert there.device == gpu.device and there.device.index is not None
        here = on_cpu(there * 2)
        assert here.is_pinned() and here.is_contiguous()
        assert torch.equal(here, rows * 2)


@needs_gpu
def test_the_state_of_a_model_on_a_gpu_comes_to_the_cpu() -> None:
    model = nn.Linear(3, 4)
    expected = {name: each.clone() for name, each in model.state_dict().items()}
    Computing("cuda").prepare(model)

    state = portable(model.state_dict())

    assert next(model.parameters()).is_cuda
    assert all(each.device == CPU and torch.equal(each, expected[name]) for name, each in state.items())

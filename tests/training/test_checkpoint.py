"""A checkpoint is whole or not there, and no failure costs the one before it."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from heterofed.errors import OutputError
from heterofed.training.checkpoint import Checkpointer


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


class Party:
    """Two small models that have trained a little."""

    def __init__(self, seed: int = 1) -> None:
        torch.manual_seed(seed)
        self.models = {"feature": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "infer": nn.Linear(4, 2)}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "feature": torch.optim.Adam(self.models["feature"].parameters(), lr=0.1),
            "infer": torch.optim.SGD(self.models["infer"].parameters(), lr=0.1, momentum=0.9),
        }

    def train(self) -> None:
        for each in self.optimizers.values():
            each.zero_grad()
        self.models["infer"](self.models["feature"](torch.randn(8, 3))).pow(2).sum().backward()
        for each in self.optimizers.values():
            each.step()

    def checkpointer(self, folder: Path, max_to_keep: int = 2) -> Checkpointer:
        return Checkpointer(folder, self.models, self.optimizers, max_to_keep)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out" / "checkpoints"


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def fail_on_call(monkeypatch: pytest.MonkeyPatch, number: int, error: Exception) -> None:
    """Let the `number`th torch.save write half of what it should and then raise."""
    calls = 0
    save: Callable[..., None] = torch.save

    def broken(state: object, file: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            (file.write if hasattr(file, "write") else Path(file).write_bytes)(b"half of it")
            raise error
        save(state, file)

    monkeypatch.setattr(torch, "save", broken)


def test_a_checkpoint_holds_everything_and_loads_with_weights_only(folder: Path) -> None:
    party = Party()
    party.train()

    written = party.checkpointer(folder).save(3)

    assert written == folder / "model_0000003"
    assert names(written) == ["model.pt", "optimizer.pt", "rng.pt"]
    models, optimizers = load(written / "model.pt"), load(written / "optimizer.pt")
    assert set(models) == set(optimizers) == {"feature", "infer"}
    for name, model in party.models.items():
        saved, state = models[name], model.state_dict()
        assert saved.keys() == state.keys()
        assert all(torch.equal(saved[key], state[key]) for key in state)


def test_a_party_that_loads_a_checkpoint_goes_on_to_the_same_bits(folder: Path) -> None:
    party = Party()
    party.train()
    written = party.checkpointer(folder).save(1)
    party.train()

    again = Party(seed=2)
    for name, state in load(written / "model.pt").items():
        again.models[name].load_state_dict(state)
    for name, state in load(written / "optimizer.pt").items():
        again.optimizers[name].load_state_dict(state)
    torch.set_rng_state(load(written / "rng.pt")["torch"])
    again.train()

    for name, model in party.models.items():
        for mine, theirs in zip(model.parameters(), again.models[name].parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_the_random_generators_can_be_put_back(folder: Path) -> None:
    torch.manual_seed(3)
    random.seed(3)
    random.gauss(0, 1)  # leaves half of a pair behind
    written = Party().checkpointer(folder).save(1)
    drawn = (torch.rand(3).tolist(), [random.gauss(0, 1) for _ in range(3)])

    state = load(written / "rng.pt")
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))

    assert (torch.rand(3).tolist(), [random.gauss(0, 1) for _ in range(3)]) == drawn


def test_saving_draws_no_random_number(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder)
    before = (torch.get_rng_state(), random.getstate())

    checkpointer.save(1)

    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_last_checkpoint_names_the_newest(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder)

    for round_ in (1, 2):
        checkpointer.save(round_)
        assert (folder / "last_checkpoint").read_text() == f"model_{round_:07d}"


def test_only_the_newest_checkpoints_are_kept(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder)

    for round_ in range(1, 12):
        checkpointer.save(round_)

    assert names(folder) == ["last_checkpoint", "model_0000010", "model_0000011"]


def test_as_many_checkpoints_are_kept_as_asked_for(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder, max_to_keep=1)

    for round_ in (9, 10):
        checkpointer.save(round_)

    assert names(folder) == ["last_checkpoint", "model_0000010"]


def test_a_new_run_in_an_old_folder_keeps_its_own_checkpoints(folder: Path) -> None:
    for round_ in (5, 6, 7):
        Party().checkpointer(folder).save(round_)
    checkpointer = Party(seed=2).checkpointer(folder)

    checkpointer.save(1)
    assert "model_0000001" in names(folder)
    checkpointer.save(2)

    assert names(folder) == ["last_checkpoint", "model_0000001", "model_0000002"]


def test_a_round_that_is_saved_again_replaces_its_checkpoint(folder: Path) -> None:
    party = Party()
    party.checkpointer(folder).save(1)
    party.train()

    written = party.checkpointer(folder).save(1)

    assert torch.equal(load(written / "model.pt")["infer"]["weight"], party.models["infer"].state_dict()["weight"])
    assert names(folder) == ["last_checkpoint", "model_0000001"]


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("round_", [1, 2], ids=["the same round", "the next round"])
def test_a_failure_in_the_middle_leaves_the_last_checkpoint_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: int, round_: int
) -> None:
    party = Party()
    written = party.checkpointer(folder).save(1)
    before = {each.name: each.read_bytes() for each in written.iterdir()}
    party.train()
    fail_on_call(monkeypatch, call, OSError(28, "No space left on device"))

    with pytest.raises(OutputError, match=r"cannot write .*No space left on device; .*was there before is untouched"):
        party.checkpointer(folder).save(round_)

    assert names(folder) == ["last_checkpoint", "model_0000001"]
    assert {each.name: each.read_bytes() for each in written.iterdir()} == before
    assert (folder / "last_checkpoint").read_text() == "model_0000001"


def test_an_error_that_is_not_about_the_disk_comes_out_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Party().checkpointer(folder).save(1)
    fail_on_call(monkeypatch, 2, RuntimeError("a state that cannot be saved"))

    with pytest.raises(RuntimeError, match="a state that cannot be saved"):
        Party().checkpointer(folder).save(2)

    assert names(folder) == ["last_checkpoint", "model_0000001"]


def test_a_disk_that_is_really_full_is_an_output_error(folder: Path) -> None:
    # torch.save answers a failed write with RuntimeError; a limit on the size of files makes the write fail for real.
    party = Party()
    party.models["infer"] = nn.Linear(200, 200)
    party.checkpointer(folder).save(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*File too large"):
            party.checkpointer(folder).save(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert names(folder) == ["last_checkpoint", "model_0000001"]
    load(folder / "model_0000001" / "model.pt")


def test_a_process_that_is_killed_while_it_saves_leaves_the_last_checkpoint(folder: Path) -> None:
    Party().checkpointer(folder).save(1)
    program = """
import os, sys, torch
from pathlib import Path
from heterofed.training.checkpoint import Checkpointer
calls = 0
def killed(state, file):
    global calls
    calls += 1
    if calls == 2:
        os._exit(9)
    file.write(b"whole")
torch.save = killed
Checkpointer(Path(sys.argv[1]), {"infer": torch.nn.Linear(2, 2)}, {}).save(2)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program, str(folder)], cwd=root, timeout=50, check=False)

    assert done.returncode == 9
    assert (folder / "last_checkpoint").read_text() == "model_0000001"
    assert [each for each in names(folder) if not each.startswith(".")] == ["last_checkpoint", "model_0000001"]
    load(folder / "model_0000001" / "model.pt")


def test_a_folder_below_a_file_is_an_output_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(OutputError, match=f"cannot write {tmp_path / 'file' / 'checkpoints'}: "):
        Party().checkpointer(tmp_path / "file" / "checkpoints").save(1)

    assert (tmp_path / "file").read_text() == "in the way"

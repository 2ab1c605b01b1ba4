"""A checkpoint is whole or not there, loads to the same bits, and no failure costs the one before it."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from heterofed.errors import ConfigError, DataError, OutputError
from heterofed.training.checkpoint import Checkpointer, Group, RandomGenerators, Stateful
from heterofed.training.checkpoint_folder import CheckpointFolder
from heterofed.training.stateful import read_state
from tests.chaos.smalldisk import CannotMount, small_disk

ROOT = Path(__file__).parents[2]


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


class Counter:
    """A trainer's own state."""

    def __init__(self) -> None:
        self.batches = 0

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches = state["batches"]


class Party:
    """Two models with batch norm and dropout, two kinds of optimizer, two schedules."""

    def __init__(self, seed: int = 1, hidden: int = 4) -> None:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002, RUF100 — the global generator is what is tested
        self.models = {
            "feature": nn.Sequential(nn.Linear(3, hidden), nn.BatchNorm1d(hidden), nn.Dropout(0.5)),
            "infer": nn.Linear(hidden, 2),
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "feature": torch.optim.Adam(self.models["feature"].parameters(), lr=0.1),
            "infer": torch.optim.SGD(self.models["infer"].parameters(), lr=0.1, momentum=0.9),
        }
        self.schedules = {
            "feature": CosineAnnealingLR(self.optimizers["feature"], 9),
            "infer": MultiStepLR(self.optimizers["infer"], [2, 4]),
        }
        self.trainer = Counter()
        self.parts: dict[str, Stateful] = {
            "model": Group(self.models),
            "optimizer": Group(self.optimizers),
            "lr_scheduler": Group(self.schedules),
            "rng": RandomGenerators(),
            "trainer": self.trainer,
        }

    def train(self, batches: int = 1) -> None:
        for _ in range(batches):
            rows = torch.randn(8, 3) * random.random() + float(np.random.rand())
            for each in self.optimizers.values():
                each.zero_grad()
            self.models["infer"](self.models["feature"](rows)).pow(2).sum().backward()
            for each in self.optimizers.values():
                each.step()
            for schedule in self.schedules.values():
                schedule.step()
            self.trainer.batches += 1

    def checkpointer(self, folder: Path, max_to_keep: int | None = 2, prefix: str = "model") -> Checkpointer:
        return Checkpointer(folder, self.parts, max_to_keep=max_to_keep, prefix=prefix)

    def bits(self) -> bytes:
        """Everything this party holds, as bytes."""

        def flat(value: object) -> bytes:
            if isinstance(value, torch.Tensor):
                return value.detach().contiguous().numpy().tobytes()
            if isinstance(value, dict):
                return b"".join(repr(key).encode() + flat(each) for key, each in value.items())
            if isinstance(value, list | tuple):
                return b"".join(flat(each) for each in value)
            return repr(value).encode()

        return flat({name: part.state_dict() for name, part in self.parts.items()})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out" / "checkpoints"


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def tagged(folder: Path) -> str:
    return (folder / "last_checkpoint").read_text()


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


# --- what a checkpoint is ---------------------------------------------------------------------------------------------


def test_a_checkpoint_holds_a_file_for_each_part_and_loads_with_weights_only(folder: Path) -> None:
    party = Party()
    party.train()

    written = party.checkpointer(folder).save_iteration(19)

    assert written == folder / "model_0000019"
    assert names(written) == ["lr_scheduler.pt", "model.pt", "optimizer.pt", "rng.pt", "trainer.pt"]
    models, optimizers = load(written / "model.pt"), load(written / "optimizer.pt")
    assert set(models) == set(optimizers) == {"feature", "infer"}
    for name, model in party.models.items():
        saved, state = models[name], model.state_dict()
        assert saved.keys() == state.keys()
        assert all(torch.equal(saved[key], state[key]) for key in state)


def test_a_checkpoint_tree_has_numbered_best_and_final_ones_and_the_name_of_the_last(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder)

    for iteration in (4, 9, 14, 19):
        checkpointer.save_iteration(iteration)
        assert tagged(folder) == f"model_{iteration:07d}" == checkpointer.last()
    checkpointer.save("model_best", tag=False)
    checkpointer.save("model_final")

    assert names(folder) == ["last_checkpoint", "model_0000014", "model_0000019", "model_best", "model_final"]
    assert checkpointer.names() == ["model_0000014", "model_0000019"]
    assert tagged(folder) == "model_final" == checkpointer.last()


@pytest.mark.parametrize("batches", [0, 3], ids=["at the start", "in the middle"])
def test_a_party_that_loads_a_checkpoint_goes_on_to_the_same_bits(folder: Path, batches: int) -> None:
    party = Party()
    party.train(batches)
    party.checkpointer(folder).save_iteration(batches)
    there = party.bits()
    party.train(4)

    again = Party(seed=2)
    again.train(2)
    again.checkpointer(folder).load(f"model_{batches:07d}")
    assert again.bits() == there
    again.train(4)

    assert again.bits() == party.bits()
    assert again.trainer.batches == batches + 4


def test_the_random_generators_can_be_put_back() -> None:
    generators = RandomGenerators()
    np.random.standard_normal()
    random.gauss(0, 1)  # both leave half of a pair behind
    state = generators.state_dict()

    def draw() -> list[object]:
        return [torch.rand(3).tolist(), [random.gauss(0, 1) for _ in range(3)], np.random.standard_normal(3).tolist()]

    drawn = draw()
    assert draw() != drawn
    generators.load_state_dict(state)

    assert draw() == drawn


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_generators_of_a_gpu_can_be_put_back(folder: Path) -> None:
    torch.rand(1, device="cuda")
    checkpointer = Checkpointer(folder, {"rng": RandomGenerators()})
    checkpointer.save_iteration(1)
    drawn = torch.rand(3, device="cuda").tolist()

    checkpointer.load("model_0000001")

    assert torch.rand(3, device="cuda").tolist() == drawn


@pytest.mark.parametrize("here", [0, 1, 2, 3])
def test_generators_of_devices_that_are_not_here_are_passed_over(monkeypatch: pytest.MonkeyPatch, here: int) -> None:
    put: list[tuple[int, int]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: here > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: here)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: put.append((int(state[0]), device)))
    states = [torch.full((16,), 7, dtype=torch.uint8), torch.full((16,), 8, dtype=torch.uint8)]

    RandomGenerators().load_state_dict({**RandomGenerators().state_dict(), "cuda": states})

    assert put == [(7, 0), (8, 1)][:here]


def test_neither_saving_nor_loading_draws_a_random_number(folder: Path) -> None:
    party = Party()
    checkpointer = party.checkpointer(folder)
    before = party.bits()

    checkpointer.save_iteration(1)
    assert party.bits() == before
    checkpointer.load("model_0000001", only=["model", "optimizer"])

    assert party.bits() == before


def test_random_generators_are_loaded_after_parts_that_draw_while_they_load(folder: Path) -> None:
    class Drawing(Counter):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            torch.rand(1)

    checkpointer = Checkpointer(folder, {"rng": RandomGenerators(), "trainer": Drawing()})
    checkpointer.save_iteration(1)
    drawn = torch.rand(3).tolist()

    checkpointer.load("model_0000001")

    assert torch.rand(3).tolist() == drawn


# --- which are kept, and which is the last ----------------------------------------------------------------------------


def test_only_the_newest_checkpoints_are_kept(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder)

    for iteration in range(1, 12):
        checkpointer.save_iteration(iteration)

    assert names(folder) == ["last_checkpoint", "model_0000010", "model_0000011"]


@pytest.mark.parametrize(("max_to_keep", "kept"), [(1, [10]), (3, [8, 9, 10]), (None, [7, 8, 9, 10])])
def test_as_many_checkpoints_are_kept_as_asked_for(folder: Path, max_to_keep: int | None, kept: list[int]) -> None:
    checkpointer = Party().checkpointer(folder, max_to_keep)

    for iteration in (7, 8, 9, 10):
        checkpointer.save_iteration(iteration)

    assert checkpointer.names() == [f"model_{each:07d}" for each in kept]


def test_checkpoints_are_ordered_by_number_even_where_the_digits_do_not_suffice(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder)

    for iteration in (9_999_998, 9_999_999, 10_000_000):
        checkpointer.save_iteration(iteration)

    assert checkpointer.names() == ["model_9999999", "model_10000000"]


def test_only_numbered_checkpoints_of_the_same_prefix_are_removed(folder: Path) -> None:
    others = ["model_best", "model_final", "model_12", "model_00000001", "mine_0000001", "notes"]
    checkpointer = Party().checkpointer(folder, max_to_keep=1)
    for name in others:
        checkpointer.save(name, tag=False)
    (folder / "metrics.json").write_text("{}")

    for iteration in (2, 3):
        checkpointer.save_iteration(iteration)

    assert names(folder) == sorted([*others, "metrics.json", "last_checkpoint", "model_0000003"])


def test_a_new_run_in_an_old_folder_keeps_its_own_checkpoints(folder: Path) -> None:
    for iteration in (5, 6, 7):
        Party().checkpointer(folder).save_iteration(iteration)
    checkpointer = Party(seed=2).checkpointer(folder)

    checkpointer.save_iteration(1)
    assert checkpointer.names() == ["model_0000007", "model_0000001"]
    checkpointer.save_iteration(2)

    assert names(folder) == ["last_checkpoint", "model_0000001", "model_0000002"]


def test_a_checkpoint_that_is_saved_again_is_replaced(folder: Path) -> None:
    party = Party()
    party.checkpointer(folder).save_iteration(1)
    party.train()

    written = party.checkpointer(folder).save_iteration(1)

    assert torch.equal(load(written / "model.pt")["infer"]["weight"], party.models["infer"].state_dict()["weight"])
    assert names(folder) == ["last_checkpoint", "model_0000001"]


@pytest.mark.parametrize("name", ["model_best", "acc_best"])
@pytest.mark.parametrize("prefix", ["model", "acc"])
def test_a_best_checkpoint_is_never_the_last_one(folder: Path, name: str, prefix: str) -> None:
    checkpointer = Party().checkpointer(folder, prefix=prefix)
    checkpointer.save(name)
    assert not checkpointer.has_checkpoint()
    checkpointer.save_iteration(3)

    checkpointer.save(name)
    with pytest.raises(ConfigError, match=f"no run can go on from {name}"):
        checkpointer.tag_last_checkpoint(name)

    assert checkpointer.last() == f"{prefix}_0000003"


def test_a_checkpoint_that_is_not_to_be_tagged_is_not(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder)
    checkpointer.save_iteration(3)

    checkpointer.save("aside", tag=False)
    assert checkpointer.last() == "model_0000003"
    checkpointer.tag_last_checkpoint("aside")

    assert checkpointer.last() == "aside"


def test_a_checkpoint_that_is_not_there_cannot_be_the_last_one(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder)
    checkpointer.save_iteration(3)

    with pytest.raises(ConfigError, match="no run can go on from model_0000004"):
        checkpointer.tag_last_checkpoint("model_0000004")

    assert checkpointer.last() == "model_0000003"


def test_a_folder_without_checkpoints_has_none(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder)

    assert (checkpointer.last(), checkpointer.has_checkpoint(), checkpointer.names()) == (None, False, [])
    assert not folder.exists()


def test_a_last_checkpoint_that_was_removed_is_replaced_by_the_newest_whole_one(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpointer = Party().checkpointer(folder, max_to_keep=None)
    for iteration in (9, 1, 2, 3, 4):  # 9 is from an earlier run
        checkpointer.save_iteration(iteration)
    (folder / "model_0000004").rename(folder.parent / "away")
    (folder / "model_0000003" / "rng.pt").unlink()

    assert checkpointer.last() == "model_0000002"
    assert checkpointer.has_checkpoint()
    assert "names 'model_0000004', which is not there: going on from model_0000002" in caplog.text


@pytest.mark.parametrize("text", ["model_0000003", "", "../../elsewhere", "\udcff"], ids=["gone", "", "path", "bytes"])
def test_a_last_checkpoint_that_nothing_can_replace_is_an_error(folder: Path, text: str) -> None:
    checkpointer = Party().checkpointer(folder)
    checkpointer.save("model_best")
    (folder / "last_checkpoint").write_bytes(text.encode(errors="surrogateescape"))

    for question in (checkpointer.last, checkpointer.has_checkpoint, checkpointer.resume_or_load):
        with pytest.raises(DataError, match=r"last_checkpoint names .*remove last_checkpoint to start afresh"):
            question()


def test_the_number_of_a_checkpoint_is_read_from_its_name(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder, prefix="run_1")

    assert checkpointer.iteration_of("run_1_0000019") == 19
    assert checkpointer.iteration_of("run_1_12345678") == 12_345_678
    for name in ("run_1_final", "run_1_best", "run_1_19", "run_1_012345678", "model_0000019", "run_1_000001x", ""):
        assert checkpointer.iteration_of(name) is None


# --- loading ----------------------------------------------------------------------------------------------------------


def test_resuming_restores_every_part_and_says_from_which_checkpoint(folder: Path) -> None:
    party = Party()
    party.train(3)
    party.checkpointer(folder).save_iteration(2)
    again = Party(seed=2)

    assert again.checkpointer(folder).resume_or_load() == "model_0000002"

    assert again.bits() == party.bits()


def test_resuming_where_there_is_no_checkpoint_starts_afresh(folder: Path) -> None:
    party = Party()
    before = party.bits()

    assert party.checkpointer(folder).resume_or_load() is None
    assert party.checkpointer(folder).resume_or_load(resume=False) is None

    assert party.bits() == before


def test_a_run_that_has_finished_does_not_resume(folder: Path) -> None:
    party = Party()
    checkpointer = party.checkpointer(folder)
    checkpointer.save_iteration(2)
    checkpointer.save("model_final")
    party.train()
    before = party.bits()

    with pytest.raises(ConfigError, match=r"this run has finished: .*model_final is its end\. To start afresh, train"):
        checkpointer.resume_or_load()

    assert party.bits() == before
    assert checkpointer.resume_or_load(resume=False) is None


@pytest.mark.parametrize("resume", [False, True], ids=["not resuming", "resuming, but nothing is there"])
def test_load_weight_takes_the_weights_and_nothing_else(tmp_path: Path, folder: Path, resume: bool) -> None:
    other = Party()
    other.train(3)
    best = other.checkpointer(tmp_path / "other").save("model_best")
    party = Party(seed=2)
    party.train()
    rest = {name: part.state_dict() for name, part in party.parts.items() if name not in ("model", "rng")}
    rest_before = repr(rest)

    assert party.checkpointer(folder).resume_or_load(str(best), resume=resume) is None

    for name, model in party.models.items():
        for key, value in model.state_dict().items():
            assert torch.equal(value, other.models[name].state_dict()[key])
    assert repr({name: party.parts[name].state_dict() for name in rest}) == rest_before


def test_a_run_that_resumes_does_not_load_other_weights(tmp_path: Path, folder: Path) -> None:
    best = Party(seed=3).checkpointer(tmp_path / "other").save("model_best")
    party = Party()
    party.checkpointer(folder).save_iteration(2)
    before = party.bits()

    assert party.checkpointer(folder).resume_or_load(best) == "model_0000002"

    assert party.bits() == before


def test_weights_that_do_not_fit_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    theirs = {"feature": nn.Linear(3, 4), "infer": nn.Linear(4, 5), "extra": nn.Linear(1, 1)}
    best = Checkpointer(tmp_path, {"model": Group(theirs)}).save("model_best")
    mine = {"feature": nn.Linear(3, 4), "infer": nn.Linear(4, 2, bias=False), "new": nn.Linear(1, 1)}
    kept = [mine["infer"].weight.clone(), mine["new"].weight.clone()]

    left_out = Checkpointer(tmp_path / "mine", {"model": Group(mine)}).load_weights(best)

    assert left_out == ["extra", "infer.bias", "infer.weight", "new"]
    assert torch.equal(mine["feature"].weight, theirs["feature"].weight)
    assert torch.equal(mine["feature"].bias, theirs["feature"].bias)
    assert torch.equal(mine["infer"].weight, kept[0])
    assert torch.equal(mine["new"].weight, kept[1])
    assert "model.pt: loaded 2, left out 4 (extra: not in this model; infer.bias: not in this model; " in caplog.text
    assert "infer.weight: (5, 4) in the file, (2, 4) here; new: not in the file)" in caplog.text


def test_weights_that_all_fit_draw_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    best = Checkpointer(tmp_path, {"model": nn.Linear(2, 2)}).save("model_best")

    assert Checkpointer(tmp_path / "mine", {"model": nn.Linear(2, 2)}).load_weights(best) == []

    assert caplog.records == []


def test_weights_of_an_altogether_other_model_are_an_error(tmp_path: Path) -> None:
    best = Checkpointer(tmp_path, {"model": nn.Linear(2, 2)}).save("model_best")
    mine = nn.Linear(3, 3)
    before = mine.weight.clone()

    with pytest.raises(DataError, match=r"nothing in .*model\.pt fits this model"):
        Checkpointer(tmp_path, {"model": mine}).load_weights(best)
    with pytest.raises(DataError, match=r"there is no checkpoint .*; expected the folder that holds its model.pt"):
        Checkpointer(tmp_path, {"model": mine}).load_weights(best / "model.pt")
    with pytest.raises(ConfigError, match="expected a part called model, not infer"):
        Checkpointer(tmp_path, {"infer": mine}).load_weights(best)

    assert torch.equal(mine.weight, before)


def test_a_model_that_has_not_seen_its_width_yet_takes_weights(tmp_path: Path) -> None:
    best = Checkpointer(tmp_path, {"model": nn.Linear(3, 2)}).save("model_best")
    mine = nn.LazyLinear(2)

    assert Checkpointer(tmp_path, {"model": mine}).load_weights(best) == []

    assert torch.equal(mine.weight, load(best / "model.pt")["weight"])


def test_some_parts_can_be_loaded_alone(folder: Path) -> None:
    party = Party()
    party.train(2)
    party.checkpointer(folder).save_iteration(2)
    again = Party(seed=2)
    (folder / "model_0000002" / "optimizer.pt").write_bytes(b"torn")

    again.checkpointer(folder).load("model_0000002", only={"model", "trainer"})

    assert again.trainer.batches == 2
    assert torch.equal(again.models["infer"].weight, party.models["infer"].weight)  # type: ignore[arg-type]  # a Linear
    assert not again.optimizers["infer"].state_dict()["state"]
    with pytest.raises(ConfigError, match="no part is called ema, loss; expected some of lr_scheduler, model"):
        again.checkpointer(folder).load("model_0000002", only={"model", "loss", "ema"})


def test_what_a_checkpoint_holds_beyond_the_parts_is_returned(folder: Path, tmp_path: Path) -> None:
    model, counter = nn.Linear(2, 2), Counter()
    counter.batches = 7
    written = Checkpointer(folder, {"model": model, "trainer": counter}).save_iteration(6)
    checkpointer = Checkpointer(folder, {"model": model})

    assert checkpointer.load("model_0000006") == {"trainer": {"batches": 7}, "iteration": 6}
    assert checkpointer.load("model_0000006", only=["model"]) == {"iteration": 6}
    assert Checkpointer(tmp_path, {"model": model}).load(written)["iteration"] == 6
    checkpointer.save("model_final")
    assert checkpointer.load("model_final") == {"iteration": None}


def test_a_checkpoint_that_is_not_there_is_an_error_that_names_those_that_are(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder)
    checkpointer.save_iteration(1)

    with pytest.raises(DataError, match=r"there is no checkpoint .*model_0000002; expected one of model_0000001\."):
        checkpointer.load("model_0000002")


def flip_a_bit(path: Path, of: str) -> None:
    """Change a bit of the weights (the largest tensor in the file) or of what describes them."""
    with zipfile.ZipFile(path) as archive:
        inside = max((each for each in archive.infolist() if of in each.filename), key=lambda each: each.file_size)
        content = archive.read(inside)
    data = bytearray(path.read_bytes())
    data[data.index(content) + len(content) // 2] ^= 1
    path.write_bytes(data)


class Foreign:
    pass


@pytest.mark.parametrize("part", ["model", "rng"], ids=["the first file", "a later file"])
@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: path.unlink(), r"there is no .*\.pt\. The checkpoint was written by a run with other parts"),
        (lambda path: path.write_bytes(b""), r"\.pt cannot be read: it is torn"),
        (lambda path: path.write_bytes(b"half of it"), r"\.pt cannot be read: it is torn"),
        (lambda path: path.write_bytes(path.read_bytes()[:-300]), r"\.pt cannot be read: it is torn"),
        (lambda path: flip_a_bit(path, "/data/"), r"\.pt cannot be read: its bytes have changed since it was written"),
        (
            lambda path: flip_a_bit(path, "data.pkl"),
            r"\.pt cannot be read: its bytes have changed since it was written",
        ),
        (lambda path: torch.save([1], path), r"\.pt cannot be read: it holds a list"),
        (lambda path: torch.save({"x": Foreign()}, path), r"\.pt cannot be read: it holds \S*Foreign"),
    ],
    ids=["gone", "empty", "half", "cut off", "a weight's bit flipped", "another bit flipped", "not a state", "code"],
)
def test_a_damaged_file_is_named_and_changes_nothing(
    folder: Path, part: str, damage: Callable[[Path], object], text: str
) -> None:
    party = Party()
    party.checkpointer(folder).save_iteration(1)
    damage(folder / "model_0000001" / f"{part}.pt")
    party.train()
    before = party.bits()

    with pytest.raises(DataError, match=text) as caught:
        party.checkpointer(folder).resume_or_load()

    assert str(folder / "model_0000001" / f"{part}.pt") in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert party.bits() == before


@pytest.mark.parametrize("part", ["model", "rng"])
def test_a_bit_that_flips_anywhere_is_noticed_or_changes_nothing(folder: Path, part: str) -> None:
    party = Party()
    party.train()
    party.checkpointer(folder).save_iteration(1)
    path = folder / "model_0000001" / f"{part}.pt"
    whole, state, noticed = path.read_bytes(), repr(read_state(path)), 0
    chance = random.Random(1)
    for bit in chance.sample(range(8 * len(whole)), 200):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert repr(read_state(path)) == state, bit
        except DataError:
            noticed += 1

    assert noticed > 50


def test_a_file_cut_off_anywhere_is_noticed(folder: Path) -> None:
    party = Party()
    party.checkpointer(folder).save_iteration(1)
    path = folder / "model_0000001" / "model.pt"
    whole = path.read_bytes()
    for length in (*range(0, len(whole), 97), len(whole) - 1):
        for content in (whole[:length], whole[:length] + bytes(len(whole) - length)):
            path.write_bytes(content)
            assert content == whole or not party.checkpointer(folder).readable("model_0000001"), length


@pytest.mark.parametrize("part", ["model", "trainer"], ids=["the first file", "the last file"])
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda path: path.unlink(), "there is no {}"),
        (lambda path: path.write_bytes(b""), "{} cannot be read: it is torn, or no file that torch has written"),
        (lambda path: path.write_bytes(bytes(path.stat().st_size)), "{} cannot be read: it is torn, or no file that"),
        (lambda path: flip_a_bit(path, "data.pkl"), "{} cannot be read: its bytes have changed since it was written"),
    ],
    ids=["gone", "empty", "zeroed", "a bit flipped"],
)
def test_a_damaged_checkpoint_is_not_readable_and_the_one_before_it_is(
    folder: Path, caplog: pytest.LogCaptureFixture, part: str, damage: Callable[[Path], object], why: str
) -> None:
    party = Party()
    for iteration in (1, 2):
        party.checkpointer(folder).save_iteration(iteration)
    damaged = folder / "model_0000002" / f"{part}.pt"
    damage(damaged)
    before = party.bits()

    checkpointer = party.checkpointer(folder)
    assert [each for each in checkpointer.names() if checkpointer.readable(each)] == ["model_0000001"]
    assert not checkpointer.readable("model_0000003")

    first, second = (each.getMessage() for each in caplog.records)
    assert first.startswith(f"the checkpoint model_0000002 cannot be used: {why.format(damaged)}")
    assert second.startswith("the checkpoint model_0000003 cannot be used: there is no ")
    assert party.bits() == before


def test_a_folder_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Party().checkpointer(folder).save_iteration(1)

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")  # permissions would not stop root

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=f"{folder} cannot be read: Permission denied"):
        Party().checkpointer(folder).resume_or_load()


def test_a_checkpoint_of_other_models_changes_nothing(folder: Path) -> None:
    Party(hidden=5).checkpointer(folder).save_iteration(1)
    party = Party()
    party.train()
    before = party.bits()

    with pytest.raises(DataError, match=r"model\.pt does not fit: .*size mismatch.*nothing was loaded"):
        party.checkpointer(folder).load("model_0000001")

    assert party.bits() == before


def test_a_checkpoint_of_another_set_of_models_changes_nothing(folder: Path) -> None:
    Checkpointer(folder, {"model": Group({"feature": nn.Linear(2, 2)})}).save_iteration(1)
    party = {"feature": nn.Linear(2, 2), "infer": nn.Linear(2, 2)}
    before = party["feature"].weight.clone()

    with pytest.raises(DataError, match=r"does not fit: it holds the states of feature, not of feature, infer;"):
        Checkpointer(folder, {"model": Group(party)}).load("model_0000001")

    assert torch.equal(party["feature"].weight, before)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_checkpoint_of_another_kind_of_optimizer_changes_nothing(folder: Path, grouped: bool) -> None:
    model = nn.Linear(2, 2)

    def checkpointer(optimizer: torch.optim.Optimizer) -> Checkpointer:
        return Checkpointer(folder, {"model": model, "optimizer": Group({"a": optimizer}) if grouped else optimizer})

    checkpointer(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)).save_iteration(1)
    adam = torch.optim.Adam(model.parameters(), lr=0.2)
    model(torch.ones(1, 2)).sum().backward()
    adam.step()
    before, weight = repr(adam.state_dict()), model.weight.clone()

    with pytest.raises(DataError, match=r"optimizer\.pt does not fit: it is another kind of optimizer's .*betas, eps"):
        checkpointer(adam).load("model_0000001")

    assert repr(adam.state_dict()) == before
    assert torch.equal(model.weight, weight)
    adam.step()


def test_a_part_that_refuses_its_state_leaves_all_as_they_were(folder: Path) -> None:
    class Refusing(Counter):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            torch.rand(1)
            raise LookupError

    party = Party()
    parts = {**party.parts, "last": Refusing()}
    Checkpointer(folder, parts).save_iteration(1)
    party.train(2)
    before = party.bits()

    with pytest.raises(DataError, match=r"last\.pt does not fit: LookupError; expected the state of this run's last"):
        Checkpointer(folder, parts).load("model_0000001")

    assert party.bits() == before


def test_a_reader_changes_nothing_in_the_folder(folder: Path) -> None:
    party = Party()
    checkpointer = party.checkpointer(folder)
    checkpointer.save_iteration(1)
    (folder / "model_0000001").rename(folder / ".model_0000001.0123abcd.old")
    (folder / ".model_0000002.0123abcd.part").mkdir()
    before = contents(folder)

    checkpointer.names()
    assert checkpointer.resume_or_load() == "model_0000001"

    assert contents(folder) == before
    assert names(folder) == [".model_0000001.0123abcd.old", ".model_0000002.0123abcd.part", "last_checkpoint"]


# --- what cannot be kept ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(np.float64(0.5), r"it holds numpy\.\S*scalar"), (frozenset({1}), "it holds frozenset")],
)
def test_a_state_that_could_not_be_loaded_is_refused_when_it_is_saved(folder: Path, value: object, text: str) -> None:
    party = Party()
    checkpointer = party.checkpointer(folder)
    checkpointer.save_iteration(1)
    before = contents(folder)
    vars(party.trainer)["batches"] = value

    with pytest.raises(ConfigError, match=f"the state of trainer cannot be read back from a checkpoint: {text}"):
        checkpointer.save_iteration(1)

    assert contents(folder) == before


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", ".hidden", "a b", "model\n", "last_checkpoint", "x" * 101, "-x"]
)
def test_a_name_that_cannot_be_a_file_name_is_refused(folder: Path, name: str) -> None:
    model = nn.Linear(1, 1)
    attempts: list[Callable[[], object]] = [
        lambda: Checkpointer(folder, {name: model}),
        lambda: Checkpointer(folder, {"model": model}, prefix=name),
        lambda: Checkpointer(folder, {"model": model}).save(name),
    ]

    for attempt in attempts:
        with pytest.raises(ConfigError, match="cannot be the name of"):
            attempt()

    assert not folder.exists()


@pytest.mark.parametrize("max_to_keep", [0, -1])
def test_keeping_no_checkpoint_is_refused(folder: Path, max_to_keep: int) -> None:
    with pytest.raises(ConfigError, match=f"max_to_keep is {max_to_keep}; expected 1 or more, or None"):
        Party().checkpointer(folder, max_to_keep)


def test_parts_that_are_none_are_refused(folder: Path) -> None:
    not_a_part: Any = 3

    with pytest.raises(ConfigError, match="a checkpoint without parts"):
        Checkpointer(folder, {})
    with pytest.raises(ConfigError, match="part model of a checkpoint is a int; expected something with state_"):
        Checkpointer(folder, {"model": not_a_part})
    with pytest.raises(ConfigError, match="can be called iteration"):
        Checkpointer(folder, {"iteration": Counter()})
    with pytest.raises(ConfigError, match="the checkpoint of iteration -1; expected 0 or more"):
        Party().checkpointer(folder).save_iteration(-1)


@pytest.mark.parametrize("is_a_folder", [True, False])
def test_what_is_no_checkpoint_is_not_replaced_by_one(folder: Path, is_a_folder: bool) -> None:
    rows = folder / "data" / "rows.csv" if is_a_folder else folder / "data"
    rows.parent.mkdir(parents=True)
    rows.write_text("id,x0")

    with pytest.raises(ConfigError, match=r"data is there and is no checkpoint"):
        Party().checkpointer(folder).save("data")

    assert rows.read_text() == "id,x0"


# --- when saving fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [1, 2, 5])
@pytest.mark.parametrize("iteration", [1, 2], ids=["the same iteration", "the next iteration"])
def test_a_failure_in_the_middle_leaves_the_last_checkpoint_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: int, iteration: int
) -> None:
    party = Party()
    party.checkpointer(folder).save_iteration(1)
    before = contents(folder)
    party.train()
    fail_on_call(monkeypatch, call, OSError(28, "No space left on device"))

    with pytest.raises(OutputError, match=r"cannot write .*No space left on device; .*was there before is untouched"):
        party.checkpointer(folder).save_iteration(iteration)

    assert names(folder) == ["last_checkpoint", "model_0000001"]
    assert contents(folder) == before


def test_an_error_that_is_not_about_the_disk_comes_out_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Party().checkpointer(folder).save_iteration(1)
    fail_on_call(monkeypatch, 2, RuntimeError("a state that cannot be saved"))

    with pytest.raises(RuntimeError, match="a state that cannot be saved"):
        Party().checkpointer(folder).save_iteration(2)

    assert names(folder) == ["last_checkpoint", "model_0000001"]


def test_a_disk_that_is_really_full_is_an_output_error(folder: Path) -> None:
    # torch.save answers a failed write with RuntimeError; a limit on the size of files makes the write fail for real.
    party = Party()
    party.models["infer"] = nn.Linear(200, 200)
    party.checkpointer(folder).save_iteration(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*File too large"):
            party.checkpointer(folder).save_iteration(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert names(folder) == ["last_checkpoint", "model_0000001"]
    party.checkpointer(folder).load("model_0000001")


def test_a_save_that_the_disk_has_no_room_for_costs_nothing_whatever_room_there_is(tmp_path: Path) -> None:
    party = Party()
    party.models["infer"] = nn.Linear(100, 20)
    refusals = set()
    try:
        with small_disk(tmp_path / "disk") as disk:
            folder = disk.folder / "checkpoints"
            party.checkpointer(folder).save_iteration(1)
            for free in range(20):
                before = contents(folder)
                disk.fill(free)
                try:
                    party.checkpointer(folder).save_iteration(free + 2)
                except OutputError as error:
                    assert "No space left on device; expected room on that disk. Free some space" in str(error)
                    refusals.add(str(error).split(":")[0])
                    assert before.items() <= contents(folder).items()
                assert not [each for each in names(folder) if each.startswith(".")]
                assert all(party.checkpointer(folder).readable(each) for each in party.checkpointer(folder).names())
                party.checkpointer(folder).load(tagged(folder))
                disk.mend()
    except CannotMount as error:
        pytest.skip(str(error))

    new = [f"model_{number:07d}/{part}.pt" for number in range(2, 22) for part in party.parts]
    assert len(refusals & {f"cannot write {folder / each}" for each in new}) >= 5
    assert not [each for each in refusals if ".part" in each]


def test_a_folder_below_a_file_is_an_output_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    checkpointer = Party().checkpointer(tmp_path / "file" / "checkpoints")

    with pytest.raises(OutputError, match=f"cannot write {tmp_path / 'file' / 'checkpoints'}: "):
        checkpointer.save_iteration(1)

    assert (tmp_path / "file").read_text() == "in the way"
    assert checkpointer.last() is None


def test_a_folder_that_became_read_only_keeps_what_it_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    party = Party()
    party.checkpointer(folder).save_iteration(1)
    before = contents(folder)
    party.train()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(30, "Read-only file system")  # permissions would not stop root

    for method in ("mkdir", "write_bytes", "replace", "unlink"):
        monkeypatch.setattr(Path, method, refuse)
    with pytest.raises(OutputError, match=f"cannot write {folder}: Read-only file system"):
        party.checkpointer(folder).save_iteration(1)

    assert contents(folder) == before
    assert party.checkpointer(folder).resume_or_load() == "model_0000001"


def test_what_a_killed_process_left_is_removed_by_the_next_save_and_other_files_are_not(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder)
    checkpointer.save_iteration(1)
    for left in (".model_0000002.0123abcd.part", ".model_best.0123abcd.old", ".model_0000001.0123abcd.old"):
        (folder / left).mkdir()
        torch.save({}, folder / left / "model.pt")
    for left in (".last_checkpoint.0123abcd.part", ".alignment.msgpack.0123abcd.part"):
        (folder / left).write_text("model_00")
    for mine in (".metrics.csv.0123abcd.part", ".notes", ".model_0000002.part"):
        (folder / mine).write_text("mine")

    checkpointer.save_iteration(2)

    assert names(folder) == [
        *[".metrics.csv.0123abcd.part", ".model_0000002.part", ".notes"],
        *["last_checkpoint", "model_0000001", "model_0000002", "model_best"],
    ]


def test_a_checkpoint_is_on_the_disk_before_last_checkpoint_names_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def recorded_sync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append("folder" if path == folder else "checkpoint" if path.is_dir() else "file")
        sync(descriptor)

    def recorded_replace(path: Path, target: Path) -> Path:
        if target.parent == folder:
            done.append(f"-> {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", recorded_sync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    Party().checkpointer(folder).save_iteration(1)

    files = ["file"] * 5
    assert done == [*files, "checkpoint", "-> model_0000001", "folder", "file", "-> last_checkpoint", "folder"]


KILLED = """
import os, shutil, sys
from pathlib import Path
import torch
from heterofed.training.checkpoint import Checkpointer, RandomGenerators

torch.set_num_threads(1)
os.fsync = lambda descriptor: None  # what a killed process has written is not lost
out = Path(sys.argv[1])
model = torch.nn.Linear(2, 2)
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}

def checkpointer(folder):
    return Checkpointer(folder, {"model": model, "rng": RandomGenerators()}, max_to_keep=1)

def save(folder, name, value):
    with torch.no_grad():
        model.weight.fill_(value)
    c = checkpointer(folder)
    c.save(name) if name == "model_best" else c.save_iteration(c.iteration_of(name))

def value_of(folder, name):
    with torch.no_grad():
        model.weight.fill_(0)
    checkpointer(folder).load(name)
    return model.weight.unique().item()

def killed_at(count, folder, name):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = 0
    def hook(event, args):
        nonlocal seen
        if event in EVENTS:
            if seen == count:
                os._exit(9)
            seen += 1
    sys.addaudithook(hook)
    save(folder, name, 2)
    os._exit(0)

def points(name):
    for count in range(1000):
        folder = out / f"{name}_{count}"
        shutil.copytree(out / "first", folder)
        killed = killed_at(count, folder, name)
        last = checkpointer(folder).last()
        assert killed in (0, 9) and last in ("model_0000001", name), (name, count, killed, last)
        for each in {last, "model_best", *checkpointer(folder).names()}:
            assert value_of(folder, each) in ((1, 2) if each == name else (1,)), (name, count, each)
        if not killed:
            assert value_of(folder, name) == 2, name
        save(folder, name, 3)
        assert value_of(folder, name) == 3, (name, count)
        left = sorted(each.name for each in folder.iterdir())
        newest = "model_0000001" if name == "model_best" else name
        assert left == ["last_checkpoint", newest, "model_best"], (name, count, left)
        if not killed:
            return count

for name in ("model_0000001", "model_best"):
    save(out / "first", name, 1)
print(*(points(name) for name in ("model_0000001", "model_0000002", "model_best")))
"""


@pytest.mark.processes
def test_a_process_that_is_killed_at_any_point_of_a_save_leaves_what_loads(tmp_path: Path) -> None:
    # Whenever a file or folder is opened, made, renamed or removed, one child process dies there: while it replaces
    # the last checkpoint, while it writes the next one, and while it replaces a best one.
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, timeout=50, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert min(int(each) for each in done.stdout.split()) > 15


# --- what is in a folder ----------------------------------------------------------------------------------------------


def test_a_checkpoint_can_be_removed_by_name_and_one_that_is_not_there_is_no_trouble(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder, max_to_keep=None)
    for iteration in (0, 1):
        checkpointer.save_iteration(iteration)
    assert [checkpointer.has(each) for each in ("model_0000000", "model_0000001", "model")] == [True, True, False]

    checkpointer.remove("model_0000000")
    checkpointer.remove("model_0000000")
    checkpointer.remove("last_checkpoint")

    assert names(folder) == ["last_checkpoint", "model_0000001"]
    assert not checkpointer.has("model_0000000")
    assert tagged(folder) == "model_0000001"


def test_one_part_of_a_checkpoint_can_be_looked_at_and_nothing_is_loaded(folder: Path) -> None:
    party = Party()
    party.train(3)
    party.checkpointer(folder).save_iteration(2)
    other = Party(seed=2)
    before = other.bits()

    assert other.checkpointer(folder).peek("model_0000002", "trainer") == {"batches": 3}
    assert other.bits() == before
    for name, part in (("model_0000009", "trainer"), ("model_0000002", "nothing")):
        with pytest.raises(DataError, match=f"{name}.{part}"):
            other.checkpointer(folder).peek(name, part)


def test_a_folder_can_be_looked_at_without_the_parts_of_its_checkpoints(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder, max_to_keep=None)
    for iteration in (3, 10):
        checkpointer.save_iteration(iteration)
    checkpointer.save("model_best")
    there = CheckpointFolder(folder, "model")

    assert there.names() == ["model_0000003", "model_0000010"]
    assert there.has("model_best")
    assert there.peek("model_0000003", "trainer") == {"batches": 0}
    assert [there.iteration_of(each) for each in ("model_0000010", "model_best", "other_0000010")] == [10, None, None]
    assert CheckpointFolder(folder, "other").names() == []
    assert CheckpointFolder(folder / "nowhere", "model").names() == []
    with pytest.raises(ConfigError, match="cannot be the name of the prefix of checkpoints"):
        CheckpointFolder(folder, "../model")


def test_a_checkpoint_that_a_killed_process_had_set_aside_is_there_under_its_name(folder: Path) -> None:
    checkpointer = Party().checkpointer(folder)
    checkpointer.save_iteration(4)
    (folder / "model_0000004").replace(folder / f".model_0000004.{'a1' * 4}.old")

    assert checkpointer.has("model_0000004")
    assert checkpointer.peek("model_0000004", "trainer") == {"batches": 0}
    checkpointer.remove("model_0000004")
    assert not checkpointer.has("model_0000004")

"""What a party keeps is of this run: nothing of an earlier one stays beside it."""

from __future__ import annotations

from pathlib import Path

import torch

from heterofed import run_locally
from heterofed.scheduler.manifest import read_manifest
from heterofed.scheduler.predicting.means import NAME, read_means, write_means
from tests.tiny import Collaborator, Host


def run_into(folder: Path, *, mean_rows: int) -> Host:
    host = Host(max_rounds=1, out_dir=folder / "host")
    host.mean_rows = mean_rows
    run_locally(host, Collaborator(out_dir=folder / "c1"), seed=1)
    return host


def test_means_of_a_run_before_do_not_stay_in_the_folder(tmp_path: Path) -> None:
    run_into(tmp_path, mean_rows=5)
    kept = read_means(tmp_path / "host", read_manifest(tmp_path / "host"))
    assert sorted(kept) == ["c1", "host"]

    run_into(tmp_path, mean_rows=0)

    assert NAME not in read_manifest(tmp_path / "host").files
    assert not (tmp_path / "host" / NAME).exists()


def test_there_may_be_no_means_and_none_before(tmp_path: Path) -> None:
    assert write_means(tmp_path, {}) == ()
    assert write_means(tmp_path, {"c1": torch.ones(1, 2)}) == (tmp_path / NAME,)

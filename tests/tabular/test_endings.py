"""How a training with tables ends: by patience, with a report or without one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from heterofed import ConfigError, HeterofedError, run_locally
from heterofed.errors import OutputError
from heterofed.report import can_report, read_summary
from heterofed.tabular import TableCollaborator, TableHost, load_run
from tests.tabular.parties import parties, people, train

needs_report = pytest.mark.skipif(not can_report(), reason="scikit-learn and matplotlib are not installed")

SPLIT = {"fractions": (0.5, 0.3, 0.2)}


def nothing_to_learn() -> tuple[pd.DataFrame, pd.DataFrame]:
    frames = people()
    frames[0]["ill"] = np.random.default_rng(1).integers(0, 2, len(frames[0]))
    return frames


# --- patience -----------------------------------------------------------------------------------------------------


def test_patience_counts_rounds_and_not_the_tests_of_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = nothing_to_learn()
    with caplog.at_level(logging.INFO, "heterofed"):
        host, _ = train(tmp_path, frames, label="ill", rounds=60, batch_size=32, patience=4, log_rounds=2, shared=SPLIT)

    rows = list(host.get_metrics("history").trace())
    losses = [float(row["valid_loss"] or 0) for row in rows]
    best = int(rows[losses.index(min(losses))]["round"] or 0)
    assert not host.evaluate and host.trainer.round == best + 4 < 60
    assert f"least loss in round {best}: patience ends the training" in caplog.text


def test_patience_that_could_never_end_a_training_is_refused_or_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match="log_rounds is 0"):
        TableHost("host", people()[0], "id", label="ill", patience=2, log_rounds=0, evaluate=False)

    few = {"fractions": (0.98, 0.001, 0.019)}  # the host's share of so few rows is none
    with caplog.at_level(logging.WARNING, "heterofed"):
        host, _ = train(tmp_path, people(), label="ill", rounds=3, patience=1, shared=few)
    assert not host.held_out.valid and host.trainer.round == 3
    assert "no valid rows were scored" in caplog.text


# --- a report that cannot be made ---------------------------------------------------------------------------------


def no_room(*_: Any) -> None:
    raise OutputError("cannot write report.html: No space left on device")


def no_sense(*_: Any) -> None:
    raise ValueError("of person-0007")


@needs_report
@pytest.mark.parametrize(("fails", "why"), [(no_room, "No space left on device"), (no_sense, "ValueError")])
def test_a_report_that_fails_is_a_warning_and_the_models_are_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fails: Callable[..., None],
    why: str,
) -> None:
    folder = tmp_path / "host"
    folder.mkdir()
    (folder / "evaluation.json").write_text("that of an earlier run")
    monkeypatch.setattr("heterofed.tabular.evaluating.write_evaluation", fails)

    with caplog.at_level(logging.WARNING, "heterofed"):
        host, _ = train(tmp_path, people(), label="ill", rounds=1, evaluate=True)

    assert host.evaluation is None and load_run(folder).infer_model is not None
    assert (folder / "model_card.md").is_file() and (tmp_path / "c1" / "run.json").is_file()
    assert not (folder / "evaluation.json").exists()
    assert why in caplog.text and "heterofed evaluate host --run" in caplog.text
    assert "person-0007" not in caplog.text


@needs_report
def test_a_report_of_an_earlier_run_that_cannot_be_removed_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "host"
    (folder / "report.html" / "full").mkdir(parents=True)  # it cannot be removed as a file
    (folder / "evaluation.json").write_text("that of an earlier run")

    with caplog.at_level(logging.WARNING, "heterofed"):
        train(tmp_path, people(), label="ill", rounds=1, evaluate=False)

    assert "host: the folder still has the report of an earlier run" in caplog.text and "report.html" in caplog.text
    assert load_run(folder).infer_model is not None


@needs_report
def test_a_report_says_where_the_hosts_own_model_was_trained_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = nothing_to_learn()
    host, _ = train(tmp_path / "all", frames, label="ill", rounds=1, patience=3, evaluate=True, shared=SPLIT)
    assert not read_summary(tmp_path / "all" / "host").remarks

    monkeypatch.setattr("heterofed.tabular.evaluating.ALONE_ROWS", len(host.train_ids) - 1)
    host, _ = train(tmp_path, frames, label="ill", rounds=60, batch_size=32, patience=1, evaluate=True, shared=SPLIT)

    found = read_summary(tmp_path / "host")
    used = -(-len(host.train_ids) // 2)
    page = (tmp_path / "host" / "report.html").read_text()
    of_rows, of_rounds = found.remarks
    assert found.facts["train rows of the host's own model"] == str(used)
    assert f"learned from {used} of the {len(host.train_ids)} rows for training" in of_rows
    assert host.trainer.round < 60 and f"trained for {host.trainer.round} round" in of_rounds
    assert "patience ended the training" in page and "with all of them it might do better" in page


@needs_report
def test_a_peer_that_fails_while_rows_are_scored_fails_the_task(tmp_path: Path) -> None:
    class Ends(TableCollaborator):
        def load_batch(self, ids: list[str]) -> Any:
            if not self.feature_model.training and self.current_round:
                raise RuntimeError("a power cut")
            return super().load_batch(ids)

    host, _ = parties(tmp_path, people(), label="ill", rounds=1, evaluate=True, log_rounds=0)
    host.mean_rows = 0  # else the means are what fails
    with pytest.raises(HeterofedError, match="RuntimeError"):
        run_locally(host, Ends("c1", people()[1], "id", seed=3, out_dir=tmp_path / "c1"), seed=1)

    assert not (tmp_path / "host" / "run.json").exists()


@needs_report
def test_a_new_run_in_the_folder_of_one_with_a_report_leaves_none_that_is_not_its_own(tmp_path: Path) -> None:
    train(tmp_path, people(), label="ill", rounds=1, evaluate=True)
    assert (tmp_path / "host" / "report.html").is_file()

    train(tmp_path, people(), label="ill", rounds=1, evaluate=False)

    assert not (tmp_path / "host" / "report.html").exists()
    assert not (tmp_path / "host" / "evaluation.json").exists()
    assert not list((tmp_path / "host" / "pictures").iterdir())

"""A model card tells people what a model was made of, and nothing of the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from torch import nn

from heterofed.errors import OutputError
from heterofed.export import ModelCard, write_model_card
from heterofed.tables import LabelEncoder, TableEncoder
from tests.tables.files import patients

ENCODER = TableEncoder.fit(patients(), {"age": "numeric", "city": "categorical"})
LABELS = LabelEncoder.fit(pd.DataFrame({"ill_now": ["maybe", "surely"]}), "ill_now")


def card(**changes: Any) -> ModelCard:
    given: dict[str, Any] = {
        "title": "Readmission",
        "task": "binary",
        "party": "bank",
        "role": "host",
        "parties": {"bank": 16, "shop": 8},
        "rows": {"train": 14_000, "valid": 2_000, "test": 4_000},
        "settings": {"rounds": 20, "learning rate": 0.01},
        "encoder": ENCODER,
        "labels": LABELS,
        "models": {"feature_model": nn.Sequential(nn.Linear(5, 8), nn.ReLU())},
        "metrics": {"valid": {"roc_auc": 0.98765, "f1": None}, "test": {"roc_auc": 0.9, "f1": float("nan"), "x": 2.0}},
        "compared": {"host alone": {"roc_auc": 0.8}, "without shop": {"roc_auc": 0.75}},
        "facts": {"id of the task": "a1b2"},
        "limits": ["Made of rows of 2024."],
    }
    return ModelCard(**{**given, **changes})


def test_a_card_tells_shapes_parties_settings_scores_and_limits() -> None:
    text = card().render()

    for line in (
        "# Readmission",
        "A model that a host and 1 collaborator trained together with heterofed, each on its own columns of the same "
        "rows. This card is the host's.",
        "| party | bank (host) |",
        "| label | ill_now |",
        "| classes | 2 |",
        "| id of the task | a1b2 |",
        "| bank | host | 16 |",
        "| shop | collaborator | 8 |",
        "| train | 14,000 |",
        "2 columns of this party make 6 numbers a row:",
        "| age | numeric | a standardised number | none in training |",
        "`feature_model`, 48 parameters:",
        "| learning rate | 0.01 |",
        "| rows | roc_auc | f1 | x |",
        "| valid | 0.9877 | – | – |",
        "| test | 0.9 | – | 2 |",
        "| without shop | 0.75 |",
        "- Made of rows of 2024.",
        "- This card holds no ids and no values of rows; it names the columns and counts the rows.",
    ):
        assert line in text.splitlines(), line
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        *("Overview", "Parties", "Data", "Models of this party", "Training", "Scores", "Compared"),
        *("Intended use", "Limits", "Privacy"),
    ]


def test_one_column_and_one_number_are_told_as_one() -> None:
    encoder = TableEncoder.fit(patients(), {"age": "numeric"})
    assert "1 column of this party makes 1 number a row:" in card(encoder=encoder).render().splitlines()


def test_a_card_holds_no_category_no_class_and_no_mean() -> None:
    text = card().render()

    assert not any(each in text for each in ("Ulm", "Kiel", "Bonn", "Jena", "maybe", "surely"))
    assert f"{patients()['age'].mean():.3f}"[:5] not in text


def test_what_is_not_there_is_left_out() -> None:
    text = card(
        role="collaborator", task="", encoder=ENCODER, labels=None, models={}, metrics={}, compared={}, facts={}
    ).render()

    assert "This card is a collaborator's." in text
    assert not any(each in text for each in ("## Scores", "## Compared", "## Models", "| task |", "| label |"))


def test_a_host_without_features_says_so() -> None:
    text = card(encoder=None, parties={"bank": 0, "shop": 8, "lab": None}).render()

    assert "The host has labels and no columns of its own." in text
    assert "| bank | host | no features |" in text
    assert "| lab | collaborator | – |" in text
    assert "a host and 2 collaborators" in text


def test_names_of_columns_cannot_become_markdown() -> None:
    frame = pd.DataFrame({"a|b\n# <b>*x*</b> [y](z) `_q_`": [1.0, 2.0]})
    text = card(encoder=TableEncoder.fit(frame, {str(frame.columns[0]): "numeric"}), title="A\n# B\x1b[2J").render()

    assert "| a\\|b \\# \\<b\\>\\*x\\*\\</b\\> \\[y\\](z) \\`\\_q\\_\\` | numeric |" in text
    assert text.startswith("# A \\# B \\[2J\n")
    assert "\x1b" not in text


def test_a_card_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model_card(tmp_path, card())
    first = path.read_text(encoding="utf-8")
    assert (path, first) == (tmp_path / "model_card.md", card().render())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_model_card(tmp_path, card(title="Another"))
    assert [(each.name, each.read_text(encoding="utf-8")) for each in tmp_path.iterdir()] == [(path.name, first)]

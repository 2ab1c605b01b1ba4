"""The model card: what a model was made of, how good it is and what it is not for, as Markdown for people.

It has counts, names of columns and scores. Values of rows are not in it, nor ids; what was fitted to the rows
(categories, means) is in `preprocessing.json`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from torch import nn

from heterofed.files import write_whole
from heterofed.tables import LabelEncoder, TableEncoder
from heterofed.tables.columns import Role
from heterofed.words import counted

CARD: Final = "model_card.md"
"""Name of the file."""

_USE = (
    "Predictions for rows of the same kind as those that it was trained on, by the same parties, as one thing among "
    "others that a person decides by."
)

_LIMITS = (
    "The scores are of rows that come from the same tables as the training's. Rows of another time, place or way of "
    "measuring may be predicted worse; score the model again with new labelled rows.",
    "A prediction needs the embedding of every party. Where a party is absent, what stands in for it makes the "
    "prediction worse, and its row says so.",
    "Nobody has examined whether the model treats groups of people alike.",
)

_PRIVACY = (
    "Each party's rows and feature model stayed with that party; the labels stayed with the host.",
    "All parties know which ids they share. The host has seen the embedding of every shared row, every round, and a "
    "collaborator the gradient of each of its embeddings.",
    "Embeddings can be inverted in part, the more easily the wider they are. Gradients can tell labels. No noise was "
    "added to either by heterofed.",
    "A model may remember rows that it was trained on. Give its files only to those who may know something about them.",
    "The encoders, and `preprocessing.json` of an export, hold the categories and the means and deviations of the "
    "columns of the train rows.",
    "This card holds no ids and no values of rows; it names the columns and counts the rows.",
)


@dataclass(frozen=True)
class ModelCard:
    """What a model card says. Whatever is empty is left out."""

    title: str
    task: str
    """"binary", "multiclass", "regression" or "multilabel"; "" at a collaborator, who need not know."""
    party: str
    """Feature key of the party whose card it is."""
    role: Role
    parties: Mapping[str, int | None]
    """Feature key -> width of the embedding, host first; 0: no features, None: not known at this party."""
    rows: Mapping[str, int]
    """Name of a set of rows -> how many: "train", "valid", "test"."""
    settings: Mapping[str, object]
    """Of the training: rounds, batch size, learning rate, …"""
    encoder: TableEncoder | None = None
    """Of this party's columns."""
    labels: LabelEncoder | None = None
    """Of the host's label column; only its task, columns and number of classes are told."""
    models: Mapping[str, nn.Module] = field(default_factory=dict)
    """Name -> model of this party."""
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Set of rows -> score -> value."""
    compared: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """"host alone", "without <party>" -> score -> value, on the test set."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """More lines for the overview: id of the task, versions, …"""
    intended_use: str = ""
    """A text; by default one that fits any model."""
    limits: Sequence[str] = ()
    """Said before those that every such model has."""

    def render(self) -> str:
        """Return the card as Markdown."""
        collaborators = counted(len(self.parties) - 1, "collaborator")
        whose = "the host's" if self.role == "host" else "a collaborator's"
        parts = [
            f"# {_text(self.title)}",
            f"A model that a host and {collaborators} trained together with heterofed, each on its own columns of the "
            f"same rows. This card is {whose}.",
            *self._overview(),
            *self._data(),
            *self._models(),
            *_section("Training", _table([("setting", "value"), *_pairs(self.settings)]) if self.settings else ""),
            *_section("Scores", _scores("rows", self.metrics)),
            *_section("Compared", _scores("on the test rows", self.compared)),
            *_section("Intended use", _text(self.intended_use or _USE)),
            *_section("Limits", _list([*map(_text, self.limits), *_LIMITS])),
            *_section("Privacy", _list(_PRIVACY)),
        ]
        return "\n\n".join(parts) + "\n"

    def _overview(self) -> list[str]:
        lines: list[tuple[str, str]] = [("party", f"{self.party} ({self.role})")]
        if self.task:
            lines.append(("task", self.task))
        if self.labels is not None:
            lines.append(("label", ", ".join(self.labels.columns)))
            if self.labels.classes:
                lines.append(("labels" if self.task == "multilabel" else "classes", str(len(self.labels.classes))))
        lines += _pairs(self.facts)
        parties = [("party", "role", "width of its embedding")]
        for number, (key, width) in enumerate(self.parties.items()):
            told = "–" if width is None else str(width) if width else "no features"
            parties.append((key, "collaborator" if number else "host", told))
        return [*_section("Overview", _table([("", ""), *lines])), *_section("Parties", _table(parties))]

    def _data(self) -> list[str]:
        parts = [_table([("set", "rows"), *((name, f"{count:,}") for name, count in self.rows.items())])]
        if self.encoder is not None:
            count = len(self.encoder.columns)
            make = "makes" if count == 1 else "make"
            numbers = counted(self.encoder.width, "number")
            parts.append(f"{counted(count, 'column')} of this party {make} {numbers} a row:")
            parts.append(_table(self.encoder.describe()))
        elif self.role == "host":
            parts.append("The host has labels and no columns of its own.")
        return _section("Data", "\n\n".join(parts))

    def _models(self) -> list[str]:
        parts = []
        for name, model in self.models.items():
            count = sum(each.numel() for each in model.parameters())
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", repr(model))), default=0))
            parts.append(f"`{name}`, {count:,} parameters:\n\n{fence}text\n{model!r}\n{fence}")
        return _section("Models of this party", "\n\n".join(parts))


def write_model_card(folder: Path, card: ModelCard) -> Path:
    """Write `model_card.md` into a folder, whole or not at all, and return where.

    Raises:
        OutputError: it cannot be written; an earlier card is untouched.
    """
    return write_whole(folder / CARD, lambda file: file.write(card.render().encode()))


def files_section(models: Sequence[Mapping[str, Any]], party: str) -> str:
    """Return the section of a card that tells what an export wrote, by what `export.json` says of each model."""
    rows = [("file", "takes", "gives")]
    for model in models:
        parts = ", ".join(f"{each['width']} of {each['of']}" for each in model["input"]["parts"] if each["width"])
        gives = ", ".join(str(each) for each in model["output"]["shape"])
        rows += [
            (each["file"], f"(rows, {model['input']['shape'][1]}): {parts}", f"({gives})") for each in model["files"]
        ]
    text = (
        f"The models of {_text(party)}. How a table becomes what they take is in `preprocessing.json`; inputs, formats "
        "and digests are in `export.json`."
    )
    return "\n\n".join(_section("Exported files", f"{text}\n\n{_table(rows)}")) + "\n"


def _section(heading: str, body: str) -> list[str]:
    return [f"## {heading}", body] if body else []


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {each}" for each in lines)


def _pairs(values: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(name, _number(value) if isinstance(value, float) else str(value)) for name, value in values.items()]


def _scores(first: str, values: Mapping[str, Mapping[str, float | None]]) -> str:
    """Return a table of one line for each set; a score that it does not have is a dash."""
    names = list(dict.fromkeys(name for scores in values.values() for name in scores))
    lines = [(each, *(_number(scores.get(name)) for name in names)) for each, scores in values.items()]
    return _table([(first, *names), *lines]) if names else ""


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.4g}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *lines = [[_text(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *lines))


def _text(text: str) -> str:
    """Return a text that Markdown shows as it is, in one line: names of columns may hold anything."""
    line = " ".join("".join(each if each.isprintable() else " " for each in str(text)).split())
    return re.sub(r"([\\`*\[\]<>|#&~]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z]))", r"\\\1", line)

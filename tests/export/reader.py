"""A reader of `preprocessing.json` that knows nothing of heterofed: pandas, numpy and the rules that it states."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


def clean(cell: Any, features: dict[str, Any]) -> Any:
    """Return a cell without the white space around it; None where it is missing."""
    if isinstance(cell, str):
        cell = cell.strip()
        return None if cell in features["missing_texts"] else cell
    return None if pd.isna(cell) else cell


def numeric(cell: Any, column: dict[str, Any], features: dict[str, Any]) -> list[float]:
    return [column["fill"] if cell is None else (float(cell) - column["mean"]) / column["scale"]]


def boolean(cell: Any, column: dict[str, Any], features: dict[str, Any]) -> list[float]:
    if cell is None:
        return [column["fill"]]
    if isinstance(cell, str) and cell.lower() in features["true_texts"] + features["false_texts"]:
        return [float(cell.lower() in features["true_texts"])]
    if float(cell) not in (0, 1):
        raise ValueError("neither yes nor no")
    return [float(cell)]


def categorical(cell: Any, column: dict[str, Any], features: dict[str, Any]) -> list[float]:
    values, others = column["values"], column["others"]
    found = [0.0] * (len(values) + bool(others))
    if cell is None:
        return found
    if isinstance(cell, str):
        whole = re.fullmatch(r"(-?(?:0|[1-9]\d*))\.0+", cell)
        text = whole[1] if whole else cell
    elif isinstance(cell, bool | np.bool_):
        text = str(bool(cell))
    else:
        text = str(int(cell)) if cell == int(cell) else repr(float(cell))
    if text in values:
        found[values.index(text)] = 1
    elif text not in others and features["unseen"] == "refuse":
        raise ValueError("a category that training did not have")
    elif others:
        found[-1] = 1
    return found


def date(cell: Any, column: dict[str, Any], features: dict[str, Any]) -> list[float]:
    if cell is None:
        return [column["fill"], 0, 0, 0, 0]
    moment = pd.Timestamp(cell)
    if moment.tzinfo is not None:
        moment = moment.tz_convert("UTC").tz_localize(None)
    days = (moment - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1)
    month, weekday = 2 * np.pi * (moment.month - 1) / 12, 2 * np.pi * moment.weekday() / 7
    circles = [np.sin(month), np.cos(month), np.sin(weekday), np.cos(weekday)]
    return [(days - column["mean"]) / column["scale"], *map(float, circles)]


KINDS = {"numeric": numeric, "boolean": boolean, "categorical": categorical, "date": date}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert (found["format"], found["version"]) == ("heterofed preprocessing", 1)
    return found


def array_of(table: pd.DataFrame, features: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Return what a feature model takes: (rows, width)."""
    result = np.zeros((len(table), features["width"]))
    for column in features["columns"]:
        for row, raw in enumerate(table[column["name"]]):
            cell = clean(raw, features)
            numbers = KINDS[column["kind"]](cell, column, features)
            if column["missing_column"]:
                numbers.append(float(cell is None))
            result[row, column["start"] : column["start"] + column["width"]] = numbers
    return result.astype(np.float32)


def answers_of(output: npt.NDArray[np.float64], labels: dict[str, Any]) -> list[Any]:
    """Return what the output (rows, outputs) of an infer model means."""
    classes = labels["classes"]
    if labels["activation"] == "none":
        return [float(each) for each in output[:, 0] * labels["scale"] + labels["mean"]]
    if labels["activation"] == "softmax":
        return [classes[each] for each in output.argmax(axis=1)]
    chosen = 1 / (1 + np.exp(-output)) > labels["threshold"]
    if labels["task"] == "multilabel":
        return [[int(each) for each in row] for row in chosen]
    return [classes[int(each)] for each in chosen[:, 0]]

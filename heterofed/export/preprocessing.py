"""How a table becomes the numbers that a model takes, and its output an answer, as JSON for programs without heterofed.

It holds the fitted numbers and the categories, and the rules in words, so that the file explains itself. A reader that
follows it is in tests/export/reader.py, in pandas and numpy alone.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from heterofed.tables import LabelEncoder, TableEncoder
from heterofed.tables.values import DATE_FORM, FALSE_TEXTS, MISSING_TEXTS, TRUE_TEXTS

VERSION: Final = 1
"""Of the form."""

_RULES: Final = {
    "array": "Each row of the table becomes one row of float32. The columns below stand in it side by side, in this "
    "order, each at its start and as wide as its width. Compute in float64 and round at the end.",
    "cells": "White space around a text is not part of it. A cell is missing if it is null, NaN or one of "
    "missing_texts. A cell that is not of the column's kind is an error.",
    "numeric": "(x - mean) / scale; a missing cell becomes fill.",
    "boolean": "1 for yes, 0 for no; a missing cell becomes fill. Yes is true, the number 1 (as a text too) or one of "
    "true_texts in any case of letters; no is false, the number 0 or one of false_texts.",
    "categorical": "Place p of values puts 1 into column p of the width, all others are 0. A category among others "
    "puts 1 into the column behind those of values. A missing cell is all 0. Categories are compared as texts: a "
    "number that is whole is written without a fraction (7 and 7.0 are '7'), and so is a text of such digits ('7.0' is "
    "'7', but '007' stays); true is 'True' and false 'False'.",
    "unseen": "A category that is neither in values nor in others: 'refuse' means an error. 'other' means that it "
    "counts as one of others, and is all 0 where there is no column for these.",
    "date": "Five columns: (days since 1970-01-01 UTC, with fractions - mean) / scale; sine and cosine of "
    "2 pi month / 12, January being 0; sine and cosine of 2 pi weekday / 7, Monday being 0. A missing cell becomes "
    "fill and four times 0. A time without a zone is UTC.",
    "missing_column": "Where true, the last column of the width is 1 if the cell is missing and 0 if not.",
}

_OUTPUTS: Final = {
    "binary": ("sigmoid", "The probability of the second class is 1 / (1 + exp(-output))."),
    "multiclass": ("softmax", "The probabilities of the classes are exp(output), divided by their sum over the row."),
    "multilabel": ("sigmoid", "The probability of each label is 1 / (1 + exp(-output))."),
    "regression": ("none", "The value is output * scale + mean."),
}


def preprocessing_of(encoder: TableEncoder | None, labels: LabelEncoder | None) -> dict[str, Any]:
    """Return what `preprocessing.json` holds: fitted numbers, categories and classes, and the rules in words.

    Args:
        encoder: of the party's table; None where it has no features.
        labels: of the host; None at a collaborator.
    """
    return {
        "format": "heterofed preprocessing",
        "version": VERSION,
        "features": None if encoder is None else _features(encoder),
        "labels": None if labels is None else _labels(labels),
    }


def _features(encoder: TableEncoder) -> dict[str, Any]:
    saved = msgspec.json.decode(encoder.to_json())["content"]
    columns: list[dict[str, Any]] = []
    start, names = 0, list(encoder.names)
    for each in saved["columns"]:
        column = _column(each)
        columns.append(
            {
                "name": each["name"],
                "kind": each["type"],
                "start": start,
                "width": column.pop("width"),
                "missing_column": each["has_missing"],
                **column,
            }
        )
        start += columns[-1]["width"]
    return {
        "rules": _RULES,
        "dtype": "float32",
        "width": encoder.width,
        "rows_fitted_to": saved["rows"],
        "missing_texts": sorted(MISSING_TEXTS),
        "date_form": DATE_FORM,
        "true_texts": list(TRUE_TEXTS),
        "false_texts": list(FALSE_TEXTS),
        "unseen": encoder.unseen,
        "columns": columns,
        "names": names,
    }


def _column(saved: dict[str, Any]) -> dict[str, Any]:
    """Return what is of this kind of column, and how wide it is."""
    more = int(saved["has_missing"])
    if saved["type"] == "categorical":
        values, others = saved["values"], saved["rare"]
        return {"width": len(values) + bool(others) + more, "values": values, "others": others}
    if saved["type"] == "boolean":
        return {"width": 1 + more, "fill": saved["share"]}
    width = 1 if saved["type"] == "numeric" else 5
    return {"width": width + more, "mean": saved["mean"], "scale": saved["scale"], "fill": saved["fill"]}


def _labels(labels: LabelEncoder) -> dict[str, Any]:
    saved = msgspec.json.decode(labels.to_json())["content"]
    activation, rule = _OUTPUTS[labels.task]
    found: dict[str, Any] = {
        "task": labels.task,
        "columns": list(labels.columns),
        "classes": list(labels.classes),
        "outputs": labels.outputs,
        "activation": activation,
        "rule": rule,
    }
    if labels.task == "regression":
        return {**found, "mean": saved["mean"], "scale": saved["scale"]}
    if labels.task == "multiclass":
        return {**found, "answer": "The class with the largest output."}
    what = "The second class" if labels.task == "binary" else "Each label"
    return {**found, "threshold": 0.5, "answer": f"{what} where its probability is above the threshold."}

"""Models and what a reader has to know of them, as files that are there whole or not at all."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from heterofed.errors import ConfigError, OutputError
from heterofed.export.card import CARD, files_section
from heterofed.export.formats import INPUT, OUTPUT, SUFFIXES, Exporter, Format, check_formats
from heterofed.export.preprocessing import preprocessing_of
from heterofed.export.written import answers_of, compare, inputs_for
from heterofed.files import folder_whole, refused, settle, write_synced
from heterofed.tables import LabelEncoder, TableEncoder

MANIFEST: Final = "export.json"
PREPROCESSING: Final = "preprocessing.json"
VERSION: Final = 1
"""Of the form of both."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class ModelToExport:
    """A model, and what the columns of its input are.

    Raises:
        ConfigError: the name cannot be a file's, or it takes no columns.
    """

    name: str
    """Of its files, without what stands behind the dot."""
    model: nn.Module
    """Takes one tensor (rows, columns) of float32; it is copied to the CPU and into eval mode, and stays as it is."""
    parts: Mapping[str, int]
    """What the columns are, in order, and how many of each: {"columns": 30} of a feature model; of an infer model the
    feature key of each party, host first, and the width of its embedding."""

    def __post_init__(self) -> None:
        _check_name(self.name)
        if any(width < 0 for width in self.parts.values()) or self.columns < 1:
            raise ConfigError(
                f"the model {self.name} takes {self.columns} columns",
                expected="one or more: the feature model of a host without features is not exported",
            )

    @property
    def columns(self) -> int:
        """How many its input has."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class _Written:
    """The files of one model in a folder, and what `export.json` says of it."""

    paths: tuple[Path, ...]
    about: dict[str, Any] = field(repr=False)


def export_model(model: nn.Module, inputs: int, folder: Path, name: str, formats: Sequence[Format]) -> tuple[Path, ...]:
    """Write one model into a folder, in each format: all files appear, each whole, after all were verified.

    Args:
        model: takes one tensor (rows, inputs) of float32; copied to the CPU and into eval mode.
        inputs: columns of its input.
        folder: made if it is not there; files of the same names are replaced.
        name: of the files, without their suffixes `.onnx`, `.torchscript` and `.pt2`.
        formats: which.

    Raises:
        ConfigError: an argument is wrong, a package is missing, or a format cannot express the model.
        DataError: a file gives other numbers than the model.
        OutputError: the folder cannot be written to.
    """
    check_formats(formats)
    asked, folder = ModelToExport(name, model, {"columns": inputs}), Path(folder)
    with refused(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as part:
            written = _write(asked, formats, Path(part))
            paths = [each.replace(folder / each.name) for each in written.paths]
        settle(folder)
    return tuple(paths)


def export_run(
    folder: str | Path,
    models: Sequence[ModelToExport],
    formats: Sequence[Format],
    *,
    party: str,
    encoder: TableEncoder | None = None,
    labels: LabelEncoder | None = None,
    card: str | None = None,
    replace: bool = False,
) -> tuple[Path, ...]:
    """Write the models of a party with all that a reader without heterofed needs; the whole folder or nothing.

    Args:
        folder: must not be there yet, or be empty.
        models: what to write.
        formats: each model is written in each of them.
        party: feature key of the party whose run it is.
        encoder: what makes numbers of its table; None at a host without features.
        labels: what the output of the infer model means; None at a collaborator.
        card: text of the run's model card; a section on the files is added to it.
        replace: whether an earlier export in this folder, with nothing else in it, is replaced.

    Returns:
        The files, `export.json` last.

    Raises:
        ConfigError: something else is in the folder, an argument is wrong, a package is missing, or a format cannot
            express a model.
        DataError: a file gives other numbers than its model.
        OutputError: it cannot be written. After any of them the folder is as it was.
    """
    check_formats(formats)
    if not models or len({each.name for each in models}) < len(models):
        raise ConfigError(f"{len(models)} models are to be exported", expected="one or more, each with its own name")
    folder = Path(folder)
    _check_folder(folder, replace)
    with folder_whole(folder) as part:
        written = [_write(each, formats, part) for each in models]
        others = {PREPROCESSING: _json(preprocessing_of(encoder, labels))}
        if card is not None:
            others[CARD] = card.rstrip("\n") + "\n\n" + files_section([each.about for each in written], party)
        for name, text in others.items():
            _put(part / name, text.encode(), folder / name)
        manifest = {
            "format": "heterofed export",
            "version": VERSION,
            "party": party,
            "made_with": _versions(formats),
            "models": [each.about for each in written],
            "other_files": [_file(part / name) for name in others],
        }
        _put(part / MANIFEST, _json(manifest).encode(), folder / MANIFEST)
        names = [path.name for each in written for path in each.paths]
    return tuple(folder / name for name in (*names, *others, MANIFEST))


def _write(asked: ModelToExport, formats: Sequence[Format], folder: Path) -> _Written:
    """Write the files of one model into a folder that is temporary, and verify them."""
    model = copy.deepcopy(asked.model).cpu().eval()
    batches = inputs_for(asked.columns)
    answers = answers_of(model, batches, asked.name)
    exporter = Exporter(model, torch.zeros(3, asked.columns), asked.name)
    paths, files = [], []
    for each in formats:
        path = folder / f"{asked.name}{SUFFIXES[each]}"
        _put(path, exporter.bytes_of(each), path)
        difference = compare(path, each, batches, answers)
        paths.append(path)
        files.append({**_file(path), "format": each, **_opset(path, each), "largest_difference": difference})
    shape = ["rows", *answers[0].shape[1:]]
    about = {
        "name": asked.name,
        "input": {"name": INPUT, "dtype": "float32", "shape": ["rows", asked.columns], "parts": _parts(asked.parts)},
        "output": {"name": OUTPUT, "dtype": str(answers[0].dtype).removeprefix("torch."), "shape": shape},
        "files": files,
    }
    return _Written(tuple(paths), about)


def _parts(parts: Mapping[str, int]) -> list[dict[str, Any]]:
    start, found = 0, []
    for name, width in parts.items():
        found.append({"of": name, "start": start, "width": width})
        start += width
    return found


def _opset(path: Path, kind: Format) -> dict[str, int]:
    if kind != "onnx":
        return {}
    import onnx

    model = onnx.load(path)
    return {
        "ir_version": model.ir_version,
        "opset": next(each.version for each in model.opset_import if not each.domain),
    }


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be the name of a model's files",
            expected="at most 100 letters, digits, '_', '-' and '.', beginning with a letter or digit",
        )


def _check_folder(folder: Path, replace: bool) -> None:
    try:
        there = {each.name for each in folder.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}", expected="a folder of its own") from error
    if there and not (replace and there <= _names_of(folder)):
        raise ConfigError(
            f"{folder} is not empty" + (" and has files that no export wrote" if replace else ""),
            expected="a folder that is not there yet, or is empty" + (", or holds an export alone" if replace else ""),
            advice="Name another folder.",
        )


def _names_of(folder: Path) -> set[str]:
    """Return what an earlier export wrote here; nothing where there was none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != "heterofed export":
            return set()
        files = [*manifest["other_files"], *(file for each in manifest["models"] for file in each["files"])]
        return {MANIFEST, *(str(each["file"]) for each in files)}
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _put(path: Path, content: bytes, named: Path) -> None:
    write_synced(path, lambda file: file.write(content), named=named)


def _file(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _versions(formats: Sequence[Format]) -> dict[str, str]:
    found = {}
    for name in ("heterofed", "torch", *(("onnx", "onnxscript") if "onnx" in formats else ())):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a checkout that was not installed
            found[name] = "unknown"
    return found

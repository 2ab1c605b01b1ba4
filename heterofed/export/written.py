"""Whether a file that was just written gives the model's numbers, by whoever will read it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from heterofed.errors import ConfigError, DataError
from heterofed.export.formats import INPUT, Format

TOLERANCE = 1e-6
"""By how much two outputs may differ, as a part of the largest one where that is above 1."""

_ROWS = (1, 2, 3, 17)


def inputs_for(columns: int) -> list[Tensor]:
    """Return batches (rows, columns) of several sizes; always the same ones, and no generator is moved."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, columns, generator=generator) for rows in _ROWS]


def answers_of(model: nn.Module, batches: list[Tensor], name: str) -> list[Tensor]:
    """Return what the model makes of the batches.

    Raises:
        ConfigError: it does not take them, or gives something else than a tensor of as many rows.
    """
    found = []
    for batch in batches:
        try:
            with torch.no_grad():
                answer = model(batch)
        except Exception as error:  # of a user's own model: anything
            raise ConfigError(
                f"the model {name} does not take {tuple(batch.shape)} numbers of float32: {type(error).__name__}",
                expected=f"one input of {batch.shape[1]} columns, on the CPU",
            ) from error
        if not isinstance(answer, Tensor) or answer.shape[:1] != batch.shape[:1]:
            what = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise ConfigError(f"the model {name} gives {what} for {len(batch)} rows", expected="a tensor of as many")
        if not torch.isfinite(answer).all():
            raise ConfigError(f"the model {name} gives numbers that are not finite", expected="a trained model")
        found.append(answer)
    return found


def compare(path: Path, kind: Format, batches: list[Tensor], answers: list[Tensor]) -> float:
    """Load a file and return by how much, at most, its answers differ from those of the model.

    Raises:
        DataError: that is more than `TOLERANCE`, or it cannot be loaded or gives another shape.
    """
    try:
        run = _READERS[kind](path)
        found = [run(each) for each in batches]
    except Exception as error:  # of four libraries
        raise DataError(f"{path.name} was written and cannot be used: {type(error).__name__}") from error
    largest = 0.0
    for given, right in zip(found, answers, strict=True):
        if given.shape != right.shape or given.dtype != right.dtype:
            raise DataError(
                f"{path.name} gives {given.dtype} of shape {tuple(given.shape)}",
                expected=f"{right.dtype} of shape {tuple(right.shape)}, as the model does",
                advice="Export to another format.",
            )
        difference = float((given - right).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(right.abs().max())):  # NaN is not
            raise DataError(
                f"{path.name} gives other numbers than the model: they differ by {difference:.3g}",
                expected=f"at most {TOLERANCE:g} of the largest",
                advice="Export to another format; is there something random in the model?",
            )
        largest = max(largest, difference)
    return largest


def _onnx(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run(None, {INPUT: batch.numpy()})[0])


def _torchscript(path: Path) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`?torch\.jit\.")  # deprecated, as formats.py says
        return _quiet(torch.jit.load(path, map_location="cpu"))  # our own file, written a moment ago


def _torch_export(path: Path) -> Callable[[Tensor], Tensor]:
    return _quiet(torch.export.load(path).module())


def _quiet(run: Any) -> Callable[[Tensor], Tensor]:
    def answer(batch: Tensor) -> Tensor:
        with torch.no_grad():
            result: Tensor = run(batch)
        return result

    return answer


_READERS: dict[Format, Callable[[Path], Callable[[Tensor], Tensor]]] = {
    "onnx": _onnx,
    "torchscript": _torchscript,
    "torch-export": _torch_export,
}

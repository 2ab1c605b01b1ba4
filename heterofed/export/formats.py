"""A model as the bytes of a file, in each format: one input (rows, n) and one output, any number of rows.

onnx          by torch's exporter that goes through torch.export; for ONNX Runtime and whatever else reads ONNX
torchscript   compiled by torch.jit, or traced where it cannot be compiled; for torch before 2.5 and for C++. torch says
              that its makers are deprecated; it still loads what they make.
torch-export  an ExportedProgram, what torch recommends

Exporters note in their files which line of which source file made a number, and so the paths of this machine; that is
taken out.
"""

from __future__ import annotations

import importlib.util
import io
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

from heterofed.errors import ConfigError

Format = Literal["onnx", "torchscript", "torch-export"]
"""What a model can be written as."""

FORMATS: Final[tuple[Format, ...]] = get_args(Format)

SUFFIXES: Final[dict[Format, str]] = {"onnx": ".onnx", "torchscript": ".torchscript", "torch-export": ".pt2"}
"""Of the files."""

INPUT, OUTPUT = "inputs", "outputs"
"""Names of the two tensors in an ONNX file."""

_NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime")}
_ONNX_BYTES = 2 << 30
"""An ONNX file is one message of Protocol Buffers, which can be no larger."""


def check_formats(formats: Sequence[str]) -> None:
    """Refuse a format that there is not, or for which a package is missing.

    Raises:
        ConfigError: there is one, or none is asked for.
    """
    wrong = [each for each in formats if each not in FORMATS]
    if wrong or not formats or len(set(formats)) < len(formats):
        raise ConfigError(
            f"the formats to export to are {', '.join(map(repr, formats)) or 'none'}",
            expected=f"one or more of {', '.join(FORMATS)}, each once",
        )
    for each in formats:
        missing = [name for name in _NEEDED.get(each, ()) if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"exporting to {each} needs {' and '.join(missing)}", advice="pip install 'heterofed[export]'"
            )


class Exporter:
    """Makes the files of one model.

    Args:
        model: on the CPU and in eval mode.
        example: an input (rows, n) of it; files hold its shape, and torch.export's the numbers too.
        name: what errors call the model.
    """

    def __init__(self, model: nn.Module, example: Tensor, name: str) -> None:
        self._model = model
        self._example = example
        self._name = name
        self._exported: Any = None

    def bytes_of(self, kind: Format) -> bytes:
        """Return the content of a file.

        Raises:
            ConfigError: the format cannot express the model.
        """
        makers: dict[Format, Callable[[], bytes]] = {
            "onnx": self._onnx,
            "torchscript": self._torchscript,
            "torch-export": self._torch_export,
        }
        try:
            return makers[kind]()
        except ConfigError:
            raise
        except Exception as error:  # what exporters raise has no common class
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(
                f"the model {self._name} cannot be exported to {kind}: {type(error).__name__}: {first[:300]}",
                expected="a model of one input (rows, columns) whose way does not depend on the numbers",
                advice="Change its forward, or export to another format.",
            ) from error

    def _program(self) -> Any:
        """Return the ExportedProgram that two of the formats are made of."""
        if self._exported is None:
            rows = torch.export.Dim("rows", min=1)
            self._exported = torch.export.export(self._model, (self._example,), dynamic_shapes=({0: rows},))
            for module in self._exported.graph_module.modules():
                for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
                    node.meta.pop("stack_trace", None)
        return self._exported

    def _torch_export(self) -> bytes:
        buffer = io.BytesIO()
        torch.export.save(self._program(), buffer)
        return buffer.getvalue()

    def _onnx(self) -> bytes:
        size = sum(each.nbytes for each in (*self._model.parameters(), *self._model.buffers()))
        if size >= _ONNX_BYTES:
            raise ConfigError(
                f"the model {self._name} has {size >> 20} MiB of parameters",
                expected="less than 2048 MiB for an ONNX file",
                advice="Export it to torch-export.",
            )
        program = torch.onnx.export(
            self._program(), (self._example,), input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False
        )
        if program is None:  # only without dynamo=True
            raise ConfigError("torch.onnx.export gave no program", expected="torch 2.6 or newer")
        proto = program.model_proto
        _forget_sources(proto)
        content: bytes = proto.SerializeToString()
        return content

    def _torchscript(self) -> bytes:
        with _without_deprecation():
            try:
                script = torch.jit.script(self._model)
            except Exception:  # of many classes: the compiler knows a part of Python only
                script = self._traced()
            buffer = io.BytesIO()
            torch.jit.save(script, buffer)
        return _without_debug_files(buffer.getvalue())

    def _traced(self) -> Any:
        """Return the one way that the example takes through the model, where there is no other."""
        doubt = torch.jit.TracerWarning  # type: ignore[attr-defined]  # torch does not list it
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            script = torch.jit.trace(self._model, self._example)
        if any(issubclass(each.category, doubt) for each in told):
            raise ConfigError(
                f"the model {self._name} cannot be compiled to torchscript, nor traced: it goes another way by the "
                "numbers that it gets",
                expected="a forward that torch.jit.script compiles, or that has one way",
            )
        return script


def _forget_sources(message: Any) -> None:
    """Take the notes of the exporter out of an ONNX message and all that are in it."""
    for of, value in message.ListFields():
        if of.name in ("metadata_props", "doc_string"):
            message.ClearField(of.name)
        elif of.message_type is not None:
            for each in (value,) if hasattr(value, "ListFields") else value:
                _forget_sources(each)


@contextmanager
def _without_deprecation() -> Iterator[None]:
    """Let torch not say that a user should switch to torch.export: whoever asks for TorchScript has a reason to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`?torch\.jit\.")
        yield


def _without_debug_files(script: bytes) -> bytes:
    """Return a TorchScript archive without the paths and source lines of this machine; loading does not need them."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(script)) as old, zipfile.ZipFile(result, "w") as new:
        for each in old.infolist():
            if not each.filename.endswith(".debug_pkl"):
                new.writestr(zipfile.ZipInfo(each.filename), old.read(each))  # stored as it is, without a time
    return result.getvalue()

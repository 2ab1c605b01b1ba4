"""Imports flow one way, and nothing that could run a peer's bytes is imported at all."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ANYTHING = None

ALLOWED: dict[str, set[str] | None] = {
    "psi": set(),
    "heterofed.errors": set(),
    "heterofed.config": {"heterofed.errors"},
    "heterofed.checks": {"heterofed.errors"},
    "heterofed.files": {"heterofed.errors"},
    "heterofed.finite": set(),
    "heterofed.words": set(),
    "heterofed.frames": {"heterofed.errors", "heterofed.config"},
    "heterofed.protocol": {"heterofed.errors", "heterofed.frames.messages"},
    "heterofed.cores": set(),
    "heterofed.wire": {"heterofed.errors", "heterofed.config", "heterofed.cores"},
    "heterofed.tasks": {"heterofed.errors", "heterofed.config", "heterofed.files", "heterofed.words"},
    "heterofed.features": {"heterofed.errors", "heterofed.finite", "heterofed.files", "heterofed.words"},
    "heterofed.grads": {"heterofed.errors", "heterofed.finite"},
    "heterofed.training": {
        "heterofed.errors",
        "heterofed.cores",
        "heterofed.checks",
        "heterofed.finite",
        "heterofed.files",
        "heterofed.metrics",
    },
    "heterofed.metrics": {"heterofed.errors", "heterofed.files", "heterofed.words"},
    "heterofed.uncertainty": {"heterofed.errors", "heterofed.checks", "heterofed.training"},
    "heterofed.sealed": {"heterofed.errors", "heterofed.files"},
    "heterofed.named": {"heterofed.errors"},
    "heterofed.tables": {"psi", "heterofed.errors", "heterofed.files", "heterofed.sealed", "heterofed.words"},
    "heterofed.report": {
        "heterofed.errors",
        "heterofed.files",
        "heterofed.metrics",
        "heterofed.tables",
        "heterofed.words",
    },
    "heterofed.export": {"heterofed.errors", "heterofed.files", "heterofed.tables", "heterofed.words"},
    "heterofed.scheduler": {
        "heterofed.cores",
        "psi",
        "heterofed.errors",
        "heterofed.checks",
        "heterofed.config",
        "heterofed.files",
        "heterofed.finite",
        "heterofed.frames",
        "heterofed.protocol",
        "heterofed.wire",
        "heterofed.tasks",
        "heterofed.features",
        "heterofed.grads",
        "heterofed.training",
        "heterofed.metrics",
        "heterofed.sealed",
        "heterofed.uncertainty",
        "heterofed.words",
    },
    "heterofed.tabular": {
        "heterofed.errors",
        "heterofed.checks",
        "heterofed.config",
        "heterofed.files",
        "heterofed.finite",
        "heterofed.named",
        "heterofed.sealed",
        "heterofed.features",
        "heterofed.tables",
        "heterofed.report",
        "heterofed.export",
        "heterofed.tasks",
        "heterofed.training",
        "heterofed.metrics",
        "heterofed.scheduler",
        "heterofed.words",
    },
    "heterofed.agent": {
        "heterofed.errors",
        "heterofed.named",
        "heterofed.config",
        "heterofed.files",
        "heterofed.metrics.progress",
        "heterofed.tasks",
        "heterofed.scheduler",
        "heterofed.words",
    },
    "heterofed.simulate": ANYTHING,
    "heterofed.hetero_nn": ANYTHING,
    "heterofed.hub": ANYTHING,
    "heterofed.cli": ANYTHING,
    "heterofed.__main__": ANYTHING,
    "heterofed": ANYTHING,  # the public names
}
"""A package -> what it may import of ours besides itself. DESIGN.md says why."""

FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "jsonpickle", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
LOADS_WHAT_IT_WROTE = {("heterofed.export.written", "torch.jit.load")}
"""A module -> a call that is forbidden elsewhere: an exported file is loaded at once to see that it says the same."""


def modules() -> dict[str, Path]:
    """Return name -> file of every module of ours."""
    found = {}
    for package in ("heterofed", "psi"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(name: str, path: Path, source: str | None = None) -> Iterator[str]:
    """Yield the full name of everything that a module imports, anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8") if source is None else source)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            # `from heterofed import wire` imports the module heterofed.wire, `from heterofed import Settings` does not
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES or base in ("", ".") else base


def layer(name: str) -> str:
    """Return the package of the table that a module belongs to."""
    parts = name.split(".")
    return parts[0] if parts[0] == "psi" or len(parts) == 1 else ".".join(parts[:2])


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def offences(name: str, path: Path, source: str | None = None) -> list[str]:
    """Return what a module imports of ours and may not."""
    own = layer(name)
    allowed = ALLOWED[own]
    if allowed is ANYTHING:
        return []
    ours = [each for each in imported(name, path, source) if each.split(".")[0] in ("heterofed", "psi")]
    return [each for each in ours if not any(is_within(each, package) for package in (own, *allowed))]


def test_every_module_belongs_to_a_layer_of_the_table() -> None:
    assert {layer(name) for name in MODULES} <= ALLOWED.keys(), "add the new package to ALLOWED and to DESIGN.md"
    assert len(MODULES) > 40


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_layer_may(name: str) -> None:
    assert offences(name, MODULES[name]) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("heterofed.wire.memory", "from heterofed.frames.codec import Codec"),
        ("heterofed.wire.memory", "from heterofed import frames"),
        ("heterofed.wire.memory", "from ..frames import codec"),
        ("heterofed.wire.memory", "def f():\n    import heterofed.frames.messages as m"),
        ("heterofed.protocol.session", "from heterofed.frames.tensors import pack"),
        ("heterofed.protocol.session", "from heterofed.frames import tensors"),
        ("heterofed.training.checkpoint", "from heterofed.scheduler import host"),
        ("heterofed.features.batches", "from heterofed import HostScheduler"),
        ("psi.rsa", "import heterofed"),
        ("heterofed.errors", "if TYPE_CHECKING:\n    from heterofed.config import Settings"),
    ],
)
def test_a_forbidden_import_in_any_form_is_seen(name: str, source: str) -> None:
    assert len(offences(name, MODULES[name], source)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("heterofed.protocol.session", "from heterofed.frames.messages import Abort"),
        ("heterofed.protocol.session", "from heterofed.protocol import phases"),
        ("heterofed.wire.memory", "from . import parts\nimport zmq"),
        ("psi.rsa", "from psi import elements"),
        ("heterofed.cli", "from heterofed import frames, HostScheduler"),
    ],
)
def test_an_allowed_import_in_any_form_passes(name: str, source: str) -> None:
    assert offences(name, MODULES[name], source) == []


def test_the_table_has_no_circle() -> None:
    below = {name: allowed for name, allowed in ALLOWED.items() if allowed is not ANYTHING}
    done: set[str] = set()
    while below.keys() - done:
        ready = {
            name
            for name, allowed in below.items()
            if name not in done and all(any(is_within(each, one) for one in done) for each in allowed)
        }
        assert ready, f"a circle among {sorted(below.keys() - done)}"
        done |= ready


def dangers(source: str) -> list[str]:
    """Return what a module does that could run or restore foreign bytes."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(alias.name for alias in node.names)]
            found += [each for each in names if each.split(".")[0] in FORBIDDEN_MODULES]
            if node.module == "torch" and any(alias.name == "load" for alias in node.names):
                found.append("from torch import load")
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            options = {each.arg: ast.unparse(each.value) for each in node.keywords}
            if called in FORBIDDEN_CALLS:
                found.append(called)
            elif called.endswith(("torch.load", "torch.jit.load", "torch.package.PackageImporter")):
                if called != "torch.load" or options.get("weights_only") != "True":
                    found.append(called)
            elif options.get("allow_pickle", "False") != "False" or called.endswith("read_pickle"):
                found.append(called)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_a_module_neither_unpickles_nor_evaluates_anything(name: str) -> None:
    found = dangers(MODULES[name].read_text(encoding="utf-8"))
    assert [each for each in found if (name, each) not in LOADS_WHAT_IT_WROTE] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, marshal",
        "from shelve import open",
        "from multiprocessing.reduction import pickle",
        "def f():\n    import pickle as p",
        "eval('1')",
        "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=trusted)",
        "from torch import load",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
    ],
)
def test_every_danger_is_seen(source: str) -> None:
    assert len(dangers(source)) >= 1


def test_reading_weights_only_is_no_danger() -> None:
    assert dangers("model.eval()\nself.exec_(1)\nre.compile('x')\ntorch.load(path, weights_only=True)") == []

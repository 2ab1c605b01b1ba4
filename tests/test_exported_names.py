"""The public names are listed, sorted and complete."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import heterofed
import heterofed.errors
import heterofed.hetero_nn
import heterofed.metrics
import heterofed.training
import psi
import psi.errors

PACKAGES = [heterofed, heterofed.hetero_nn, heterofed.metrics, heterofed.training, psi]


def imported_names(module: ModuleType) -> dict[str, object]:
    """Return name -> object of what a package's `__init__` takes from modules of ours, for type checkers or at once."""
    names: dict[str, object] = {}
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("heterofed", "psi"):
            source = importlib.import_module(node.module or "")
            names |= {alias.asname or alias.name: getattr(source, alias.name) for alias in node.names}
    return names


def as_ruff_sorts(name: str) -> tuple[int, str]:
    """Constants first, then classes, then functions (ruff's RUF022)."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("module", PACKAGES, ids=lambda module: module.__name__)
def test_all_is_sorted_and_holds_every_name_that_the_package_takes_from_its_modules(module: ModuleType) -> None:
    assert list(module.__all__) == sorted(imported_names(module), key=as_ruff_sorts)


@pytest.mark.parametrize("module", PACKAGES, ids=lambda module: module.__name__)
def test_every_public_name_is_the_object_that_type_checkers_see(module: ModuleType) -> None:
    for name, value in imported_names(module).items():
        assert getattr(module, name) is value, name


@pytest.mark.parametrize("module", PACKAGES, ids=lambda module: module.__name__)
def test_every_public_name_can_be_found_by_looking_around(module: ModuleType) -> None:
    assert set(module.__all__) <= set(dir(module))


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'heterofed' has no attribute 'pickle'"):
        heterofed.pickle  # noqa: B018 - the mistake under test


def test_importing_heterofed_loads_neither_torch_nor_zmq_before_a_name_is_used() -> None:
    program = "import sys, heterofed; heterofed.ConfigError; print({'torch', 'zmq', 'pandas'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )

    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("package", "errors"), [(heterofed, heterofed.errors), (psi, psi.errors)], ids=["heterofed", "psi"]
)
def test_every_public_error_is_a_public_name(package: ModuleType, errors: ModuleType) -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == errors.__name__
    }

    assert found
    assert found <= set(package.__all__)
    assert all(getattr(package, name) is getattr(errors, name) for name in found)


def test_every_public_class_and_function_says_what_it_is() -> None:
    for module in (heterofed, psi):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                assert inspect.getdoc(value), f"{module.__name__}.{name}"


def test_the_version_is_that_of_the_package() -> None:
    assert heterofed.__version__.count(".") == 2


def test_the_source_systems_names_are_the_same_classes() -> None:
    assert heterofed.hetero_nn.HeteroNNHostScheduler is heterofed.HostScheduler
    assert heterofed.hetero_nn.HeteroNNCollaboratorScheduler is heterofed.CollaboratorScheduler

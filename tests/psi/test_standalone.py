"""The library stands alone, and its page tells the truth."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import psi

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "psi.md"
FOREIGN = ("heterofed", "torch", "zmq", "pandas", "dask", "distributed", "typer", "rich", "sqlalchemy", "msgspec")


def python(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def test_psi_brings_in_neither_heterofed_nor_torch_nor_a_network() -> None:
    """Not even with a whole run of both protocols, of two parties and of three."""
    script = (
        "import psi, sys\n"
        "assert psi.intersect(['a', 'b'], ['b'], protocol='ecdh') == ['b']\n"
        "assert psi.intersect(['a', 'b'], ['b'], ['b', 'c'], workers=1) == ['b']\n"
        "assert psi.normalise_ids([7]) == ['7']\n"
        f"print([name for name in {FOREIGN!r} if name in sys.modules])"
    )
    assert python(script) == "[]"


def test_no_module_of_psi_names_a_foreign_one() -> None:
    for path in Path(psi.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & set(FOREIGN), path.name


def test_importing_psi_starts_nothing_and_warns_of_nothing() -> None:
    script = (
        "import sys, threading, warnings; warnings.simplefilter('error'); import psi\n"
        "print(threading.active_count(), 'multiprocessing.pool' in sys.modules)"
    )
    assert python(script) == "1 False"


def _blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_the_page_has_code() -> None:
    assert len(_blocks()) >= 2


@pytest.mark.parametrize("block", _blocks())
def test_the_code_on_the_page_runs(block: str) -> None:
    exec(compile(block, PAGE.name, "exec"), {"__name__": "page"})  # noqa: S102  # our own page is what is tested

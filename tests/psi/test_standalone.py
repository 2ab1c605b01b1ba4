"""The library stands alone, and its page tells the truth."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "psi.md"


def test_psi_brings_in_neither_heterofed_nor_torch_nor_a_network() -> None:
    script = "import psi, sys; print([n for n in ('heterofed', 'torch', 'zmq', 'numpy') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


def _blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_the_page_has_code() -> None:
    assert len(_blocks()) >= 2


@pytest.mark.parametrize("block", _blocks())
def test_the_code_on_the_page_runs(block: str) -> None:
    exec(compile(block, PAGE.name, "exec"), {"__name__": "page"})  # noqa: S102  # our own page is what is tested

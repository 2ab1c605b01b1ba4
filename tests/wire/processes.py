"""Starts Python processes that use the transport alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# The wire needs no torch, but the package's front page imports it: three seconds for each process.
_PRELUDE = f"""
import sys, types
heterofed = types.ModuleType("heterofed")
heterofed.__path__ = [{str(ROOT / "heterofed")!r}]
sys.modules["heterofed"] = heterofed
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a process; the caller ends it."""
    return subprocess.Popen(
        [sys.executable, "-c", _PRELUDE + code, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout_s: float = 20.0) -> str:
    """Close its input, wait for its end and return what it printed; it must have ended well."""
    output, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == 0
    return output

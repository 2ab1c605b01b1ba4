"""Where Python finds the code that a user names as `package.module:name`."""

from __future__ import annotations

import sys
from pathlib import Path


def find_own_modules() -> None:
    """Let Python find modules of the folder in which the command was typed, as `python script.py` does."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def find_modules_of(run: Path) -> None:
    """Do that if a run names a function of one's own, whose module is imported to make its model; else not.

    A folder may hold files that hide modules of others, so it is not looked in for nothing.

    Raises:
        HeterofedError: it is not the folder of a completed run.
    """
    from heterofed.scheduler.manifest import read_manifest

    features = read_manifest(run).about.get("features")
    if isinstance(features, dict) and features.get("model"):
        find_own_modules()

"""The `heterofed` command in this process, for tests."""

from __future__ import annotations

import os
from dataclasses import dataclass

from typer.testing import CliRunner

from heterofed.cli import app
from heterofed.errors import HeterofedError


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    out: str
    err: str
    error: HeterofedError | None
    code: int

    @property
    def lines(self) -> list[str]:
        """What it printed, without what is for people only."""
        return self.out.splitlines()


def heterofed(*words: str, **variables: str) -> Said:
    """Run a command; an error of ours is returned, any other raised."""
    done = CliRunner().invoke(app, list(words), env={**os.environ, "COLUMNS": "200", **variables})
    error = done.exception if isinstance(done.exception, HeterofedError) else None
    if done.exception is not None and error is None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Said(done.stdout, done.stderr, error, done.exit_code)


def well(*words: str, **variables: str) -> Said:
    """Run a command that has to succeed."""
    said = heterofed(*words, **variables)
    assert said.code == 0, said.error or said.err
    return said

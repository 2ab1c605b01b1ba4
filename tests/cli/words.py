"""The `heterofed` command in this process, and its grammar, for tests."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import typer.main
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


def check_command(words: list[str], where: str, *, whole: bool) -> None:
    """Fail where `heterofed` would not take these words; a command that is only named need not be whole."""
    command: Any = typer.main.get_command(app)
    while subcommands := getattr(command, "commands", None):
        if words and (words[0] == "--help" or any(words[0] in option.opts for option in command.params)):
            return
        if not words and (command.invoke_without_command or not whole):
            return
        assert words and words[0] in subcommands, f"{where}: there is no command {words[:1]} in {sorted(subcommands)}"
        command = subcommands[words[0]]
        words = words[1:]
    options = {option: each for each in command.params for option in each.opts if option.startswith("--")}
    arguments = [each for each in command.params if not each.opts[0].startswith("--")]
    given, plain = [], []
    rest = iter(words)
    for word in rest:
        if word == "--help":
            return
        if not word.startswith("-"):
            plain.append(word)
            continue
        assert word in options, f"{where}: there is no option {word}; there are {sorted(options)}"
        given.append(options[word])
        if not options[word].is_flag:
            assert next(rest, None) is not None, f"{where}: {word} has no value"
    assert len(plain) <= len(arguments), f"{where}: too many words"
    if whole:
        missing = [each.opts[0] for each in options.values() if each.required and each not in given]
        needed = sum(each.required for each in arguments)
        assert not missing and len(plain) >= needed, f"{where}: {missing or 'an argument'} is missing"

"""Every command with its arguments, as Markdown, from the tree that the command line itself runs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, get_args

import typer.main

from heterofed.cli import app


def all_commands() -> str:
    """Return a section for every command of `heterofed`, groups before their commands."""
    return "\n\n".join(_sections(typer.main.get_command(app), "heterofed", level=2))


def _sections(command: Any, name: str, level: int) -> Iterator[str]:
    subcommands = getattr(command, "commands", None)
    if level > 2 or subcommands is None or command.invoke_without_command:
        yield "\n\n".join(part for part in _parts(command, name, level) if part)
    for each in (subcommands or {}).values():
        if not each.hidden:
            yield from _sections(each, f"{name} {each.name}", min(level + 1, 4) if subcommands else level)


def _parts(command: Any, name: str, level: int) -> Iterator[str]:
    yield f"{'#' * (level - 1)} {name}"
    text = inspect.cleandoc(command.help or "")
    before, _, example = text.partition("Example: ")
    yield re.sub(r"(?<!\n)\n(?!\n)", " ", before.strip())
    if example:
        line, _, remark = " ".join(example.split()).partition(" (")
        yield f"```bash\n{line}\n```" + (f"\n\n({remark}" if remark else "")
    given = [each for each in command.params if "--help" not in each.opts and not getattr(each, "hidden", False)]
    if given:
        rows = [f"| {_name(each)} | {_default(each)} | {_what(each)} |" for each in given]
        yield "\n".join(["| argument | default | what |", "|---|---|---|", *rows])


def _name(each: Any) -> str:
    if not each.opts[0].startswith("-"):
        return f"`{each.metavar or each.name.upper()}`"
    return " ".join(f"`{opt}`" for opt in (*each.opts, *each.secondary_opts))


def _default(each: Any) -> str:
    if each.required:
        return "**required**"
    default = each.default.value if isinstance(each.default, Enum) else each.default
    if default is None or default == () or default == [] or callable(default):
        return ""
    if isinstance(default, bool):
        return "yes" if default else "no"
    return f"`{default}`" if str(default) else ""


def _what(each: Any) -> str:
    choices = _choices(each)
    text = " ".join((each.help or "").split())
    if choices:
        text += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    if each.multiple and "several" not in text and "each" not in text:
        text += " May be given several times."
    return text.replace("|", "\\|").replace("<", "&lt;").strip()


def _choices(each: Any) -> list[str]:
    annotation = getattr(getattr(each, "type_descriptor", None), "annotation", None)  # typer from 0.29 on
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Enum):
            return [str(member.value) for member in kind]
    return [str(choice) for choice in getattr(getattr(each, "type", None), "choices", ())]

"""Every page of help reads well in 80 columns, with an example that works, and shells complete what it lists."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main

import psi.cli
from heterofed.cli import app, main
from heterofed.cli.demos import demo_app
from tests.cli.words import check_command, heterofed

COLUMNS = 80


def tree(command: Any, *words: str) -> Iterator[tuple[str, Any]]:
    """Yield the words of every command, and what typer made of it."""
    yield " ".join(words), command
    for name, each in getattr(command, "commands", {}).items():
        yield from tree(each, *words, name)


TREE = dict(tree(typer.main.get_command(app)))
OF_ANOTHER_PARSER = "demo mnist"
PSI = ("", "intersect", "bench")


def page(words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what a user of a terminal of 80 columns reads."""
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setattr(sys, "argv", ["heterofed", *words.split(), "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return capsys.readouterr().out


def page_of_psi(words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    with pytest.raises(SystemExit) as ended:
        psi.cli.main([*words.split(), "--help"])
    assert not ended.value.code
    return capsys.readouterr().out


def example_of(text: str, command: str) -> list[str]:
    """Return the words of a page's example, which stands whole in one line, so that it can be copied."""
    (line,) = re.findall(rf"^ *Example: {command} (.*)$", text, re.MULTILINE)
    following = text.split(line)[1].split("\n")[1]
    assert not following.strip(), "the example goes on in the next line"
    return shlex.split(line)


def fits(text: str) -> bool:
    """Whether no line is too wide, and no line of a paragraph ends where more words of the next would have fitted."""
    lines = text.splitlines()
    ended_early = [
        each
        for each, after in pairwise(lines)
        if re.match(r"  \S", each) and re.match(r"  \S", after) and not re.search(r"  \S", each.strip())
        if len(each) + 1 + len(after.split()[0]) <= COLUMNS - 2
    ]
    return not ended_early and all(len(each) <= COLUMNS for each in lines)


@pytest.mark.parametrize("words", TREE)
def test_a_page_of_help_fits_and_has_an_example_that_works(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page(words, capsys, monkeypatch)

    about, _, rest = text.partition("\nOptions:\n")
    assert rest or words == OF_ANOTHER_PARSER
    assert fits(about) and all(len(each) <= COLUMNS for each in rest.splitlines())
    assert "..." not in rest, "a summary in the list of commands is cut: its first sentence is too long"
    example = example_of(text, "heterofed")
    assert " ".join(example).startswith(words)
    if OF_ANOTHER_PARSER not in " ".join(example):
        check_command(example, words, whole=True)


@pytest.mark.parametrize("words", PSI)
def test_a_page_of_psi_fits_and_has_an_example_that_works(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page_of_psi(words, capsys, monkeypatch)

    assert all(len(each) <= COLUMNS for each in text.splitlines())
    example = example_of(text, "python -m psi")
    assert " ".join(example).startswith(words)
    psi.cli._parser().parse_args(example)


def test_a_line_that_ends_early_or_is_too_wide_is_seen() -> None:
    assert fits("  " + "word " * 15 + "\n  word")
    assert not fits("  One line\n  and another.")
    assert not fits("  " + "wide" * 20)


def test_every_option_says_what_it_is_for_and_what_holds_without_it() -> None:
    shown = [each for command in TREE.values() for each in command.params if not getattr(each, "hidden", False)]
    assert len(shown) > 150
    for option in shown:
        assert option.help and option.help.endswith("."), option
        if option.required or getattr(option, "is_flag", False):
            continue
        if option.default in (None, ""):
            said = option.help.lower()
            assert any(each in said for each in ("default", "without it", "not needed", "several times")), said
        else:
            assert option.show_default, option


@pytest.mark.parametrize("words", PSI)
def test_an_option_of_psi_says_what_it_is_for_and_its_default(words: str) -> None:
    parser = psi.cli._parser()
    for action in parser._actions:
        if words and action.dest == "command":
            parser = dict(action.choices or {})[words]
    for each in parser._actions:
        assert each.help or each.dest == "command"
        if each.option_strings and each.nargs != 0:
            assert "default" in (each.help or "")


def test_the_demo_says_what_its_options_are_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page(OF_ANOTHER_PARSER, capsys, monkeypatch)

    listed = re.split(r"^  (?=-)", text.partition("\noptions:\n")[2], flags=re.MULTILINE)[1:]
    assert len(listed) > 12
    for each in listed:
        option = re.match(r"(?:-h, )?--[a-z-]+(?: [A-Z]+)?", each)
        assert option is not None and len(each[option.end() :].split()) > 1, each


def test_the_defaults_of_training_are_those_of_the_classes() -> None:
    from heterofed import TableCollaborator, TableHost
    from heterofed.cli.tables import fractions_of, numbers_of

    for role, made in (("host", TableHost), ("collaborator", TableCollaborator)):
        options = {each.name: each.default for each in TREE[f"train {role}"].params}
        options["fractions"] = fractions_of(options["fractions"])
        for sizes in {"hidden", "top"} & options.keys():
            options[sizes] = numbers_of(sizes, options[sizes])
        arguments = inspect.signature(made).parameters
        for name in ("rounds", "batch_size", "learning_rate", "hidden", "width", "top", "fractions", "salt"):
            if name in options:
                assert options[name] == arguments[name].default, name


# --- completion ---------------------------------------------------------------------------------------------------

TRIES = {
    "ta": ["task"],
    "task cr": ["create"],
    "task create --exp": ["--expires"],
    "train host --duplicates l": ["last"],
    "demo mnist --plain --ver": ["--verify-exact"],
}
"""What is typed after `heterofed` -> what a shell makes of its last word."""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what `--install-completion` puts where bash finds it."""
    folder = Path(sys.executable).parent
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    monkeypatch.setattr(sys, "argv", ["heterofed", "--install-completion", "bash"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    lines = ["source ~/.bashrc", "complete -p heterofed | grep -q -- '-F _heterofed_completion' || exit 9"]
    tries = {words: TRIES[words] for words in ("task cr", "task create --exp")}  # a process each
    for words in tries:
        lines += [
            f"COMP_WORDS=(heterofed {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()",
            '_heterofed_completion heterofed; echo "${COMPREPLY[*]}"',
        ]

    said = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=50)

    assert said.returncode == 0, said.stderr
    assert [each.split() for each in said.stdout.splitlines()] == list(tries.values())


@pytest.mark.parametrize("shell", ["zsh", "fish"])
@pytest.mark.parametrize("words", TRIES)
def test_other_shells_are_told_the_same(
    shell: str, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["heterofed"])
    monkeypatch.setenv("_HETEROFED_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"heterofed {words}")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    with pytest.raises(SystemExit):
        main()

    told = capsys.readouterr().out
    for each in TRIES[words]:
        assert re.search(rf'^{each}\b|"{each}"', told, re.MULTILINE), told


def told_in_fish(words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["heterofed"])
    monkeypatch.setenv("_HETEROFED_COMPLETE", "complete_fish")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"heterofed {words}")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    with pytest.raises(SystemExit):
        main()
    return [each.split("\t")[0] for each in capsys.readouterr().out.splitlines() if each]


@pytest.mark.parametrize("words", ["demo mnist --out ", "demo mnist --plain --rounds ", "demo mnist --out ru"])
def test_behind_an_option_of_the_demo_that_takes_a_value_a_shell_offers_files(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told_in_fish(words, capsys, monkeypatch) == []  # of nothing shells make files


@pytest.mark.parametrize("words", ["--verify", "--plain --verify", "--out runs --verify"])
def test_options_of_the_demo_are_offered_beside_a_demo_whose_name_begins_alike(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_app, "registered_commands", list(demo_app.registered_commands))
    demo_app.command("mnist-more")(lambda: None)

    assert told_in_fish(f"demo mnist {words}", capsys, monkeypatch) == ["--verify-exact"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_shown(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")

    said = heterofed("--show-completion", shell)

    assert said.code == 0 and "complet" in said.out

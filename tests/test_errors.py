"""The tree of errors is the one that the docstring draws, and every text is a whole sentence."""

from __future__ import annotations

import copy
import inspect
import re

import pytest

from heterofed import errors
from heterofed.errors import AlignmentError, HeterofedError, ProtocolError, RemoteProtocolError


def drawn_tree(text: str) -> dict[str, str | None]:
    """Return class -> its base as drawn with box characters; a level is four columns."""
    parents: dict[str, str | None] = {}
    stack: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = re.match(r"^ {4}(?P<lines>[│ ]*(?:[├└]── )?)(?P<name>[A-Z][A-Za-z]+)(?:\s{2,}\S.*)?$", line)
        if not found:
            continue
        depth = len(found["lines"])
        while stack and stack[-1][0] >= depth:
            stack.pop()
        parents[found["name"]] = stack[-1][1] if stack else None
        stack.append((depth, found["name"]))
    return parents


def classes() -> dict[str, type[HeterofedError]]:
    return {
        name: each
        for name, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, HeterofedError) and each.__module__ == errors.__name__
    }


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    real: dict[str, str | None] = {
        name: base.__name__ if issubclass(base := each.__bases__[0], HeterofedError) else None
        for name, each in classes().items()
    }

    assert drawn_tree(errors.__doc__ or "") == real
    assert len(real) == 23


def test_the_module_has_no_class_outside_the_tree() -> None:
    assert [name for name, _ in inspect.getmembers(errors, inspect.isclass)] == sorted(classes())


def test_every_error_has_one_base_and_says_what_it_is_for() -> None:
    for name, each in classes().items():
        assert len(each.__bases__) == 1, name
        assert (each.__doc__ or "").splitlines()[0].endswith("."), name


@pytest.mark.parametrize("kind", classes().values(), ids=lambda kind: kind.__name__)
def test_every_error_can_be_raised_and_caught_as_any_of_its_bases(kind: type[HeterofedError]) -> None:
    for base in kind.__mro__[: kind.__mro__.index(Exception) + 1]:
        with pytest.raises(base, match="it broke"):
            raise kind("it broke", party="c1", phase="training", expected="peace", advice="Rest.")


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "it broke."),
        ({"party": "c1"}, "c1: it broke."),
        ({"phase": "training"}, "while training: it broke."),
        ({"party": "c1", "phase": "training"}, "c1, while training: it broke."),
        ({"expected": "peace"}, "it broke; expected peace."),
        ({"advice": "Rest."}, "it broke. Rest."),
        (
            {"party": "c1", "phase": "training", "expected": "peace", "advice": "Rest."},
            "c1, while training: it broke; expected peace. Rest.",
        ),
    ],
    ids=lambda value: " and ".join(value) if isinstance(value, dict) else "",
)
def test_a_text_says_who_when_what_what_instead_and_what_to_do(parts: dict[str, str], text: str) -> None:
    assert str(HeterofedError("it broke", **parts)) == text


@pytest.mark.parametrize("what", ["it broke", "it broke.", "it broke..."])
def test_a_text_ends_in_one_full_stop(what: str) -> None:
    assert str(HeterofedError(what)) == "it broke."
    assert str(HeterofedError("x", expected=what)) == "x; expected it broke."


def test_the_parts_of_an_error_can_be_read() -> None:
    error = AlignmentError("it broke", party="c1", phase="training", expected="peace", advice="Rest.")

    assert (error.what, error.party, error.phase, error.expected, error.advice) == (
        *("it broke", "c1", "training", "peace", "Rest."),
    )


def test_locating_fills_in_what_is_not_known_and_returns_the_error_itself() -> None:
    error = AlignmentError("it broke")

    assert error.located(party="c1") is error
    assert str(error) == "c1: it broke."
    assert str(error.located(phase="training")) == "c1, while training: it broke."


def test_locating_changes_nothing_that_is_known() -> None:
    error = RemoteProtocolError("it broke", party="c1", phase="training")

    assert str(error.located(party="host", phase="testing")) == "c1, while training: it broke."


def test_an_error_can_be_copied() -> None:
    error = ProtocolError("it broke", party="c1", advice="Rest.")

    assert str(copy.copy(error)) == str(error)

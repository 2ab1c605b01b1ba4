"""What `package.module:name` means, and what is said where it means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from heterofed import ConfigError
from heterofed.named import find, find_callable


def test_a_name_may_have_points() -> None:
    assert find("pathlib:Path.home", expected="a function") == Path.home
    assert find_callable("pathlib:Path", expected="a class") is Path


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        ("pathlib", r"'pathlib' names nothing that can be imported; expected package.module:name, a function"),
        (":Path", "names nothing that can be imported"),
        ("pathlib:", "names nothing that can be imported"),
        ("no.such.module:f", "no.such.module:f cannot be imported: ModuleNotFoundError"),
        ("pathlib:Nothing", "pathlib:Nothing cannot be imported: AttributeError"),
        ("sys:maxsize", "sys:maxsize is a int; expected a function"),
    ],
)
def test_what_names_nothing_to_call_is_refused_by_name(thing: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        find_callable(thing, expected="a function")


def test_a_module_that_raises_is_told_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ConfigError, match="broken_module:f cannot be imported: ZeroDivisionError") as caught:
        find("broken_module:f", expected="a function")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)

"""`make docs`: the site builds without a warning, lists what the code has, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main

import heterofed
import heterofed.errors
from docs._site.picture import phases_as_svg
from heterofed.cli import app
from heterofed.errors import HeterofedError
from heterofed.frames.messages import AnyMessage
from heterofed.protocol.phases import TRANSITIONS, Phase

pytest.importorskip("mkdocs", reason="the site needs mkdocs: pip install -e '.[docs]'")

pytestmark = pytest.mark.timeout(150)  # the build takes 10 s of a processor, and its first test waits for it

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it once. A warning is an error, of a link that leads nowhere too; `--quiet` would hide it."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "https_proxy": "http://127.0.0.1:9", "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stdout + built.stderr
    return folder


class Loads(HTMLParser):
    """Collects what a browser loads by itself when it shows a page, and the ids that the page has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        if tag in {"script", "img", "iframe", "source", "video", "audio", "embed", "input"} and "src" in given:
            self.loaded.append(given["src"])
        if tag == "link" and given.get("rel") not in {"canonical", "next", "prev", "alternate"}:
            self.loaded.append(given.get("href", ""))
        self.loaded += re.findall(r"url\(['\"]?([^)'\"]+)", given.get("style", ""))
        self.loaded += [each.split()[0] for each in given.get("srcset", "").split(",") if each.strip()]


def elsewhere(address: str) -> bool:
    return bool(re.match(r"(?:[a-z]+:)?//", address))


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    assert len(pages(site)) > 40
    for page in pages(site):
        loads = Loads(text_of(page)).loaded
        assert loads, page
        assert 'class="mermaid"' not in text_of(page), "the theme would load what draws it from another host"
        for address in loads:
            assert not elsewhere(address), f"{page.relative_to(site)} loads {address}"
            if (
                not address.startswith(("data:", "#")) and page.name != "404.html"
            ):  # 404 has addresses of a server's root
                assert (page.parent / address.partition("?")[0]).exists(), f"{page.relative_to(site)}: no {address}"


def test_no_style_loads_anything_from_another_host(site: Path) -> None:
    styles = list(site.rglob("*.css"))

    assert styles
    for style in styles:
        found = re.findall(r"url\(['\"]?([^)'\"]+)|@import\s+['\"]([^'\"]+)", text_of(style))
        assert not [each for pair in found for each in pair if elsewhere(each)], style


def test_a_font_of_another_host_would_be_noticed() -> None:
    """What the two tests above look at."""
    assert [
        each for each in Loads('<link rel="stylesheet" href="https://fonts.example/a.css">').loaded if elsewhere(each)
    ]
    assert [each for each in Loads('<script src="//cdn.example/mermaid.js"></script>').loaded if elsewhere(each)]
    assert not [each for each in Loads('<a href="https://example.org">x</a>').loaded if elsewhere(each)]


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if not below:
        yield name, command
    for each in (below or {}).values():
        yield from commands(each, f"{name} {each.name}")


def test_every_command_and_each_of_its_options_is_on_the_page_of_commands(site: Path) -> None:
    text = text_of(site / "reference" / "command-line.html")

    found = list(commands(typer.main.get_command(app), "heterofed"))
    assert len(found) > 20
    for name, command in found:
        heading = re.search(rf'<h\d id="{name.replace(" ", "-")}">', text)
        assert heading, f"{name} is missing"
        section = re.split(r"<h[1-4] ", text[heading.end() :])[0]
        shown = [each for each in command.params if not getattr(each, "hidden", False)]
        for option in [option for each in shown for option in each.opts if option.startswith("--")]:
            assert option == "--help" or f"<code>{option}</code>" in section, f"{name} {option}"


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    described: set[str] = set()
    for page in (site / "reference" / "api").glob("*.html"):
        described |= Loads(text_of(page)).ids
    index = text_of(site / "reference" / "api" / "index.html")

    for name in heterofed.__all__:
        value = getattr(heterofed, name)
        if isinstance(value, type) and issubclass(value, HeterofedError):
            assert re.search(rf'<h3 id="{name.lower()}">', text_of(site / "reference" / "errors.html")), name
            continue
        assert f"<code>{name}</code>" in index, name
        near = {each.rpartition(".")[2] for each in described if each.startswith(("heterofed.", "psi."))}
        assert name in near or name == "logger", name


def test_the_methods_that_users_write_are_in_the_reference_with_what_they_return(site: Path) -> None:
    page = Loads(text_of(site / "reference" / "api" / "schedulers.html"))

    for method in ("load_local_ids", "load_batch", "make_infer_model", "train_a_batch", "test", "open_predictions"):
        assert f"heterofed.HostScheduler.{method}" in page.ids, method
    assert "heterofed.CollaboratorScheduler.serve_predictions" in page.ids
    assert "heterofed.HostScheduler.take_part" not in page.ids
    assert "&lt;set&gt;/" in text_of(site / "reference" / "api" / "schedulers.html"), "a tag would be swallowed"


def test_the_picture_of_the_phases_is_drawn_from_their_table(site: Path) -> None:
    text = text_of(site / "reference" / "protocol.html")
    picture = phases_as_svg()

    assert "stateDiagram" not in text
    assert "\n\n" not in picture, "an empty line would end it in the middle of the page"
    for phase, moves in TRANSITIONS.items():
        if phase is not Phase.ABORTED:
            assert f">{phase.name}</text>" in picture and f">{phase.name}</text>" in text
        for role, message in moves:
            assert re.search(rf"{role.value}: [^<]*\b{message.__name__}\b", picture), (phase, message)
    for message in get_args(AnyMessage):
        assert message.__name__ in text


def test_what_stands_outside_docs_is_on_the_site(site: Path) -> None:
    assert "honest-but-curious" in text_of(site / "security.html")
    assert "0.1.0" in text_of(site / "changelog.html")
    assert "python -m benchmarks.round" in text_of(site / "benchmarks" / "index.html")
    assert ">backward<" in text_of(site / "explanation" / "plain-loop.html")
    assert "sample ids" in text_of(site / "index.html"), "who learns what"

"""`heterofed hub` and `heterofed agent`: options become what the services are given."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from heterofed.agent import commands as agent_commands
from heterofed.errors import ConfigError
from heterofed.hub import commands as hub_commands
from tests.cli.words import heterofed, well

ANY = "0.0.0.0"  # noqa: S104 - nothing is bound


def test_the_options_of_a_hub_are_its_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path) -> None:
    served: list[Any] = []
    monkeypatch.setattr(hub_commands, "serve", served.append)

    well("hub")
    well(
        *(
            "hub",
            "--port",
            "9000",
            "--bind",
            ANY,
            "--database",
            "x.db",
            "--broker",
            "redis://r",
            "--workers",
            "4",
        ),
        *("--public-url", "https://hub.example", "--proxy", "10.0.0.1, 10.0.0.2"),
    )

    usual, changed = served
    assert (usual.bind_host, usual.port, usual.broker, usual.database) == (
        "127.0.0.1",
        8080,
        None,
        str(home / "hub.db"),
    )
    assert (changed.bind_host, changed.port, changed.database) == (ANY, 9000, "x.db")
    assert (changed.broker, changed.workers) == ("redis://r", 4)
    assert (changed.public_url, changed.trusted_proxies) == ("https://hub.example", ("10.0.0.1", "10.0.0.2"))


def test_a_setting_that_cannot_be_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_commands, "serve", lambda _: None)
    assert "port is 70000" in str(heterofed("hub", "--port", "70000").error)


def test_a_token_is_made_and_printed_alone(tmp_path: Path) -> None:
    database = str(tmp_path / "hub.db")
    said = well("hub", "token", "--database", database, "--role", "viewer", "--expires", "1d", "anna")
    (token,) = said.lines
    assert len(token) >= 40
    assert token not in said.err
    assert token not in (tmp_path / "hub.db").read_bytes().decode("latin-1")


def test_without_the_extra_a_hub_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith("heterofed.hub"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    error = heterofed("hub").error
    assert isinstance(error, ConfigError)
    assert str(error) == 'the hub needs the package fastapi, which is not installed. Run: pip install "heterofed[hub]"'


def test_an_agent_is_given_what_it_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(agent_commands, "serve", lambda *args, **kwargs: given.append((args, kwargs)))
    well("agent", "--serve", "bank=a:B", "--serve", "c:D", "--check", "e:F", "--out", "runs")
    well("agent", "--serve", "c:D")
    assert given == [
        ((["bank=a:B", "c:D"], ["e:F"]), {"out": Path("runs")}),
        ((["c:D"], []), {"out": None}),
    ]
    assert heterofed("agent").code == 2

"""The sheet's colours can be read: WCAG 2.1 AA, in light and in dark."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

SHEET = (files("heterofed.hub.page") / "static" / "hub.css").read_text(encoding="utf-8")
TEXT, GRAPHIC = 4.5, 3.0
"""Least contrast of text, and of lines and shapes that mean something."""


def colours(selector: str) -> dict[str, str]:
    found = re.search(re.escape(selector) + r" \{(.*?)\n\}", SHEET, re.DOTALL)
    assert found
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", found[1]))


LIGHT = colours(":root")
DARK = LIGHT | colours("body.body--dark")


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_measure_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


PAIRS = [
    *((text, ground, TEXT) for text in ("text", "muted", "accent") for ground in ("bg", "surface", "raised")),
    ("accent-ink", "accent", TEXT),
    ("accent", "accent-soft", TEXT),
    ("text", "plain-soft", TEXT),
    *((tone, f"{tone}-soft", TEXT) for tone in ("good", "warn", "bad", "info")),
    *(("text", f"{tone}-soft", TEXT) for tone in ("good", "warn", "info")),
    ("bad", "surface", TEXT),
    ("muted", "plain-soft", TEXT),
    ("line-strong", "surface", GRAPHIC),
    *((f"c{number}", "surface", GRAPHIC) for number in range(1, 10)),
    *((share, "surface", 2.5) for share in ("own", "wait", "wire")),
]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("ink", "ground", "least"), PAIRS)
def test_ink_stands_out_from_its_ground(theme: dict[str, str], ink: str, ground: str, least: float) -> None:
    assert contrast(theme[ink], theme[ground]) >= least


def test_the_dark_theme_names_every_colour_anew() -> None:
    assert colours("body.body--dark").keys() == LIGHT.keys()

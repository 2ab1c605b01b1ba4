"""Light, dark, or as the browser's system has it: one cookie that only this page reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Theme = Literal["auto", "light", "dark"]

COOKIE = "heterofed_theme"
NEXT: Mapping[Theme, Theme] = {"auto": "light", "light": "dark", "dark": "auto"}


def theme_of(cookies: Mapping[str, str]) -> Theme:
    """Return what somebody chose; as the system has it, otherwise."""
    for each in NEXT:
        if cookies.get(COOKIE) == each:
            return each
    return "auto"


def dark_of(theme: Theme) -> bool | None:
    """Return it as NiceGUI wants it."""
    return None if theme == "auto" else theme == "dark"

"""The packages that a report needs and that heterofed alone does not install."""

from __future__ import annotations

import importlib.util

from heterofed.errors import ConfigError

PACKAGES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "jinja2": "jinja2"}
"""Module -> what is installed."""


def can_report() -> bool:
    """Return whether the packages for scores, pictures and the page are installed."""
    return not _missing(*PACKAGES)


def need(*modules: str) -> None:
    """Refuse to go on without some of the packages.

    Raises:
        ConfigError: one is not installed; the text says how to get it.
    """
    missing = _missing(*modules)
    if missing:
        raise ConfigError(
            f"scores and reports need {' and '.join(PACKAGES[each] for each in missing)}",
            advice='Install what is missing: pip install "heterofed[tables]".',
        )


def _missing(*modules: str) -> list[str]:
    return [each for each in modules if importlib.util.find_spec(each) is None]

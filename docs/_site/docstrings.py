"""Docstrings as Markdown: `<set>` in plain text is a word there, and not a tag of HTML that a browser swallows."""

from __future__ import annotations

import re
from typing import Any

import griffe

_CODE_OR_TAG = re.compile(r"`[^`]*`|<(?=[a-z][^>\n]*>)")


class PlainText(griffe.Extension):
    """Escapes what looks like a tag, outside of code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of one object, before it is read."""
        if obj.docstring is not None:
            obj.docstring.value = _CODE_OR_TAG.sub(
                lambda found: "&lt;" if found[0] == "<" else found[0], obj.docstring.value
            )

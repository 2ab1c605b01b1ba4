"""Which addresses notifications may go to.

A user of the hub chooses where the hub connects to. That may be any http or https address, also one inside the network
of the hub: parties often are there. Whoever gives strangers a user on a hub should keep the hub's machine from places
that trust it for where it stands (docs/guides/hub.md). What such a place answers is never shown to anybody.
"""

from __future__ import annotations

import httpx

from heterofed.errors import ConfigError

LONGEST_ENDPOINT = 1000
"""In characters."""


def check_endpoint(url: object) -> str:
    """Return the address that notifications are to be sent to, if it can be one.

    Raises:
        ConfigError: it is no http or https URL, has no host, holds a user or password, or a fragment.
    """
    expected = "a URL such as https://party.example/heterofed, without user, password or #fragment"
    if not isinstance(url, str) or not 1 <= len(url) <= LONGEST_ENDPOINT or not url.isprintable() or " " in url:
        raise ConfigError("a message endpoint is no URL", expected=expected)
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise ConfigError("a message endpoint is no URL", expected=expected) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError("a message endpoint is neither http nor https", expected=expected)
    if parsed.userinfo or parsed.fragment:
        # A password would stand in the database and in logs; the signature says who we are.
        raise ConfigError("a message endpoint holds more than an address", expected=expected)
    return url

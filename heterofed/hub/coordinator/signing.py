"""How a receiver knows that a notification is the hub's: HMAC-SHA256 of time and body, under the endpoint's secret.

    X-Heterofed-Timestamp: 1767225600                     seconds since the epoch
    X-Heterofed-Signature: sha256=<64 hexadecimal digits>  of  timestamp + "." + the body's bytes

The time is signed too, so that what was overheard cannot be sent again a day later. A receiver needs only this module:
`verify(secret, request.headers, request.body)`.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping

TIMESTAMP_HEADER = "X-Heterofed-Timestamp"
SIGNATURE_HEADER = "X-Heterofed-Signature"
DELIVERY_HEADER = "X-Heterofed-Delivery"
"""The notification's number. It is the same when one is sent again, so a receiver can tell."""

TOLERANCE_S = 300.0


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a body sent at a time."""
    return "sha256=" + hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def signed_headers(secret: str | None, number: int, body: bytes, *, timestamp: int | None = None) -> dict[str, str]:
    """Return the headers of a notification; without a secret it is not signed."""
    timestamp = int(time.time()) if timestamp is None else timestamp
    headers = {
        "Content-Type": "application/json",
        DELIVERY_HEADER: str(number),
        TIMESTAMP_HEADER: str(timestamp),
    }
    if secret:
        headers[SIGNATURE_HEADER] = sign(secret, timestamp, body)
    return headers


def verify(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> bool:
    """Return whether a notification is the hub's, and was sent just now.

    Args:
        secret: the one that was given to the hub with the endpoint.
        headers: of the request; their case does not matter.
        body: its bytes, as they came.
        tolerance_s: how far the two clocks may differ, in seconds.
        now: seconds since the epoch; None: this machine's clock.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    timestamp = lower.get(TIMESTAMP_HEADER.lower(), "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    expected = sign(secret, int(timestamp), body).encode()
    given = lower.get(SIGNATURE_HEADER.lower(), "").encode(errors="replace")
    is_recent = abs((time.time() if now is None else now) - int(timestamp)) <= tolerance_s
    return hmac.compare_digest(expected, given) and is_recent

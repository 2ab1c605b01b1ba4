"""A receiver can tell the hub's notifications from others', and new ones from old ones."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from heterofed.hub.coordinator.signing import sign, signed_headers, verify

BODY = b'{"notification_type":"TRAINING_START","body":{"round":0},"training_uuid":"abc"}'
NOW = 1767225600
VECTOR = "sha256=911f16ec021a4edf7557aacbbe6aea75afaab249f3afc11d0bd96a096f334175"


def test_the_signature_is_the_one_of_the_documentation() -> None:
    """The vector was made with `printf '%s' '1767225600.{…}' | openssl dgst -sha256 -hmac s3cret`."""
    assert sign("s3cret", NOW, BODY) == VECTOR
    by_hand = hmac.new(b"s3cret", b"1767225600." + BODY, hashlib.sha256).hexdigest()
    assert f"sha256={by_hand}" == VECTOR


def test_the_headers_of_a_notification_are_accepted_by_a_receiver() -> None:
    headers = signed_headers("s3cret", 7, BODY, timestamp=NOW)

    assert headers == {
        "Content-Type": "application/json",
        "X-Heterofed-Delivery": "7",
        "X-Heterofed-Timestamp": "1767225600",
        "X-Heterofed-Signature": VECTOR,
    }
    assert verify("s3cret", headers, BODY, now=NOW + 300)
    assert verify("s3cret", {name.lower(): value for name, value in headers.items()}, BODY, now=NOW)


@pytest.mark.parametrize(
    ("secret", "body", "now", "changes"),
    [
        ("another", BODY, NOW, {}),
        ("s3cret", BODY + b" ", NOW, {}),
        ("s3cret", BODY, NOW + 301, {}),
        ("s3cret", BODY, NOW - 301, {}),
        ("s3cret", BODY, NOW, {"X-Heterofed-Timestamp": str(NOW + 1)}),
        ("s3cret", BODY, NOW, {"X-Heterofed-Timestamp": "soon"}),
        ("s3cret", BODY, NOW, {"X-Heterofed-Timestamp": "9" * 5000}),
        ("s3cret", BODY, NOW, {"X-Heterofed-Timestamp": ""}),
        ("s3cret", BODY, NOW, {"X-Heterofed-Signature": ""}),
        ("s3cret", BODY, NOW, {"X-Heterofed-Signature": "sha256=\u00e4"}),
    ],
)
def test_what_is_forged_changed_or_old_is_not_accepted(
    secret: str, body: bytes, now: float, changes: dict[str, str]
) -> None:
    headers = signed_headers("s3cret", 7, BODY, timestamp=NOW) | changes

    assert not verify(secret, headers, body, now=now)


def test_a_notification_without_headers_is_not_accepted() -> None:
    assert not verify("s3cret", {}, BODY)


def test_without_a_secret_nothing_is_signed() -> None:
    assert "X-Heterofed-Signature" not in signed_headers(None, 7, BODY)


def test_the_time_is_now() -> None:
    assert verify("s3cret", signed_headers("s3cret", 7, BODY), BODY)

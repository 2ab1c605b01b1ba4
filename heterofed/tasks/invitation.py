"""An invitation: one line that tells a party all it needs to come in to a task, on whatever machine it is.

    hf1.<JSON, base64url>.<check>

The check is there because people cut lines when they copy them. An invitation of a hub holds a token: whoever has the
line is that party, so it is sent as a password is. One without a hub holds no secret: names, an address, a public key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from heterofed.errors import ConfigError
from heterofed.tasks.checks import check_hub_url, check_rounds, check_task_id
from heterofed.tasks.forms import options_form, read_field, read_options, read_time, time_form
from heterofed.tasks.model import check_feature_key, check_feature_keys
from heterofed.tasks.options import TrainerOptions, UncertaintyName, read_uncertainty

START = "hf1."
_LONGEST = 16_384
_ENDPOINT = re.compile(r"tcp://(\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9_.-]+):([1-9][0-9]{0,4})")
_KEY = re.compile(r"[!-~]{40}")
_TOKEN = re.compile(r"[!-~]{1,500}")


@dataclass(frozen=True)
class Invitation:
    """What an invited party has to know.

    Raises:
        ConfigError: a part of it is wrong, or there is no way to the others: neither a hub with a token nor a host
            with its endpoint and public key.
    """

    task: str
    party: str
    """The feature key of whom it is for."""

    parties: tuple[str, ...]
    name: str = "task"
    hub: str | None = None
    token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    """Where the host listens, for example tcp://host.example:7000."""

    host: str | None = None
    """The host's feature key."""

    host_key: str | None = None
    """The host's public key, 40 characters of Z85."""

    expires: datetime | None = None
    """Until when it can be used."""

    rounds: int | None = None
    options: TrainerOptions | None = None
    uncertainty: UncertaintyName | None = None
    """The task's own; without a hub its record does not travel otherwise."""

    def __post_init__(self) -> None:
        check_task_id(self.task)
        if check_feature_key(self.party) not in check_feature_keys(self.parties):
            raise _wrong("it is for a party that the task does not have")
        if self.host is not None and (self.host not in self.parties or self.host == self.party):
            raise _wrong("its host is not another party of the task")
        if self.hub is not None:
            check_hub_url(self.hub)
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise _wrong("its token is none")
        if self.endpoint is not None:
            check_endpoint(self.endpoint)
        if self.host_key is not None and not _KEY.fullmatch(self.host_key):
            raise _wrong("its public key is none")
        if self.host_key is not None and self.host is None:
            raise _wrong("it does not say whose public key it brings")
        by_hub, directly = (self.hub, self.token), (self.endpoint, self.host, self.host_key)
        if None in by_hub and None in directly:
            raise _wrong("it names neither a hub with a token nor a host with its endpoint and public key")

    def __str__(self) -> str:
        """Return the line without `heterofed task join`."""
        form: dict[str, Any] = {"task": self.task, "party": self.party, "parties": list(self.parties)}
        for name in ("name", "hub", "token", "endpoint", "host", "host_key"):
            if getattr(self, name) is not None:
                form[name] = getattr(self, name)
        if self.expires is not None:
            form["expires"] = time_form(self.expires)
        if self.rounds is not None:
            form["rounds"] = self.rounds
        if self.options is not None:
            form["options"] = options_form(self.options)
        if self.uncertainty is not None:
            form["uncertainty"] = self.uncertainty
        packed = json.dumps(form, separators=(",", ":"), ensure_ascii=False).encode()
        return f"{START}{_text(packed)}.{_check(packed)}"

    @classmethod
    def parse(cls, text: str) -> Invitation:
        """Return the invitation of a line that somebody pasted, with or without the command before it.

        Raises:
            ConfigError: it is none, or a part of it is missing.
        """
        found = text.find(START) if isinstance(text, str) else -1
        packed, _, check = "".join(text[found + len(START) :].split()).partition(".") if found >= 0 else ("", "", "")
        if not packed or len(packed) > _LONGEST:
            raise _wrong("it is none", expected=f"the whole line, which begins with {START}")
        try:
            content = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            content = b""
        if not content or _check(content) != check:
            raise _wrong("a part of it is missing or changed", expected="the whole line, as it was printed")
        try:
            form = json.loads(content)
        except (ValueError, RecursionError):
            raise _wrong("it cannot be read") from None
        expires = read_field(form, "expires", str | None, None)
        optional = {
            name: read_field(form, name, str | None, None) for name in ("hub", "token", "endpoint", "host", "host_key")
        }
        return cls(
            task=read_field(form, "task", str),
            party=read_field(form, "party", str),
            parties=tuple(read_field(form, "parties", list)),
            name=read_field(form, "name", str, "task"),
            expires=None if expires is None else read_time(expires),
            rounds=check_rounds(read_field(form, "rounds", int | None, None)),
            options=read_options(read_field(form, "options", dict | None, None)),
            uncertainty=read_uncertainty(read_field(form, "uncertainty", str | None, None)),
            **optional,
        )


def check_endpoint(text: str) -> str:
    """Return where a host can be reached, if it is an address that others can use.

    Raises:
        ConfigError: it is none.
    """
    match = _ENDPOINT.fullmatch(text)
    if not match or int(match[2]) > 65535 or match[1] in ("0.0.0.0", "[::]"):  # noqa: S104 - refused here
        raise ConfigError(
            f"the endpoint {text[:100]!r} is none that others can reach",
            expected="an address of this machine and a port, for example host.example:7000",
        )
    return text


def _wrong(what: str, expected: str | None = None) -> ConfigError:
    return ConfigError(
        f"the invitation cannot be used: {what}",
        expected=expected,
        advice="Ask for a new one: `heterofed task invite` prints it, or the hub's page.",
    )


def _text(packed: bytes) -> str:
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode("ascii")


def _check(packed: bytes) -> str:
    return hashlib.sha256(packed).hexdigest()[:6]

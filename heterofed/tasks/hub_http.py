"""Calls to a hub over HTTP: each with a deadline, tried again where that can help, errors as our named classes.

What is tried again: a call that changes nothing when it is made twice, after any failure of the line and after the
answers 429, 502, 503 and 504; every other call only where the hub cannot have acted on it (no connection, 429, 503).
The token travels in a header only, is never sent to another address (redirects are not followed), and is in no text.
"""

from __future__ import annotations

import ssl
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from heterofed.errors import ConfigError, HeterofedError, HubUnreachable, NotAllowed
from heterofed.tasks.checks import check_hub_url
from heterofed.tasks.error_forms import read_error

SLOWEST_UPLOAD_BYTES_PER_S = 1 << 20
"""A call with a body has this much more time than one without."""
LARGEST_ANSWER = 1 << 28
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_BUSY = frozenset({429, 503})
_PASSING = frozenset({429, 502, 503, 504})
_NEVER_ARRIVED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
ADVICE = "See that HETEROFED_HUB is right and that `heterofed hub` runs there; it may be tried again."
ADVICE_TLS = "Give its certificate authority as HETEROFED_HUB_CA."


class HubHttp:
    """One hub, as its caller reaches it. Safe to use from several threads.

    Args:
        url: for example http://hub.example:8080.
        token: of a user or a party; empty: none.
        timeout_s: how long a call may take with all its tries.
        retries: how many more tries there are after the first.
        ca: a file with the certificate authority, where the system does not know it.
        transport: another way to the hub than the network, for tests.

    Raises:
        ConfigError: the URL is none, or the file holds no certificate.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        timeout_s: float = 10.0,
        retries: int = 3,
        ca: str = "",
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = check_hub_url(url)
        self.timeout_s = timeout_s
        self._retries = retries
        self._has_token = bool(token)
        headers = {"Accept-Encoding": "identity", "User-Agent": "heterofed"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx.Client(
            headers=headers,
            verify=_tls(self.url, ca),
            transport=transport,
            follow_redirects=False,
            # A hub hangs up after five idle seconds, and a call that meets that moment could not be tried again.
            limits=httpx.Limits(max_connections=16, keepalive_expiry=4),
        )
        self.close = weakref.finalize(self, self._http.close)
        """Closes the connections; so does the end of this object."""

    def call(
        self,
        method: str,
        path: str,
        *,
        form: Any = None,
        content: bytes | None = None,
        params: Mapping[str, str | int] | None = None,
        again: bool = True,
        missing_ok: frozenset[int] = frozenset(),
    ) -> httpx.Response:
        """Make a call and return its answer, read whole.

        Args:
            method: GET, POST, …
            path: below the hub's URL.
            form: what is sent as JSON.
            content: what is sent as it is.
            params: of the query.
            again: whether it changes nothing when it is made twice.
            missing_ok: statuses beyond 2xx that the caller understands.

        Raises:
            HubUnreachable: there was no right answer in time; it may be tried later.
            NotAllowed: the token is missing, wrong, or not enough.
            ConfigError: or another class that the hub names, for a call that cannot be.
        """
        deadline = time.monotonic() + self.timeout_s + len(content or b"") / SLOWEST_UPLOAD_BYTES_PER_S
        began = time.monotonic()
        pause, tries = _FIRST_PAUSE_S, 0
        while True:
            tries += 1
            wait: float | None = None
            try:
                response = self._once(method, path, form, content, params, deadline)
            except httpx.TransportError as error:
                trouble = _trouble(error)
                if isinstance(error, _NEVER_ARRIVED) or again:
                    wait = None if _is_tls(error) else pause
            else:
                status = response.status_code
                if response.is_success or status in missing_ok:
                    return response
                if status not in _PASSING:
                    raise self.refusal(response)
                trouble = f"it answers {status}" + _said(response)
                if status in _BUSY or again:
                    wait = max(pause, _retry_after(response))
            now = time.monotonic()
            if wait is None or tries > self._retries or now + wait >= deadline:
                raise HubUnreachable(
                    f"the hub {self.url} cannot be reached: {trouble}"
                    f" ({tries} {'try' if tries == 1 else 'tries'} in {now - began:.1f} s)",
                    advice=ADVICE_TLS if "certificate" in trouble else ADVICE,
                )
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _once(
        self,
        method: str,
        path: str,
        form: Any,
        content: bytes | None,
        params: Mapping[str, str | int] | None,
        deadline: float,
    ) -> httpx.Response:
        left = max(deadline - time.monotonic(), 0.05)
        request = self._http.build_request(
            method, self.url + path, json=form, content=content, params=params, timeout=httpx.Timeout(left)
        )
        response = self._http.send(request, stream=True)
        try:
            parts: list[bytes] = []
            size = 0
            # The timeout above is for each read; an answer that drips would never end.
            for part in response.iter_raw():
                parts.append(part)
                size += len(part)
                if size > LARGEST_ANSWER:
                    raise httpx.ReadError("the answer is too large")
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the answer takes too long")
        finally:
            response.close()
        return httpx.Response(response.status_code, headers=response.headers, content=b"".join(parts), request=request)

    def refusal(self, response: httpx.Response) -> HeterofedError:
        """Return the error of an answer that is none of what was asked for."""
        status = response.status_code
        told = read_error(_json(response))
        if status in (401, 403):
            if isinstance(told, NotAllowed) and self._has_token:
                return told
            why = "does not take this token" if self._has_token else "wants a token, and there is none"
            return NotAllowed(
                f"the hub {self.url} {why}",
                advice="Set HETEROFED_TOKEN to one that it made, or join again with a new invitation.",
            )
        if told is not None and 400 <= status < 500:
            return told
        if 300 <= status < 400:
            where = response.headers.get("location", "nowhere")[:200]
            return HubUnreachable(
                f"the hub {self.url} sends us to {where}", advice="Set HETEROFED_HUB to the address that it has now."
            )
        return HubUnreachable(
            f"the hub {self.url} answers {status}" + _said(response), expected="a heterofed hub", advice=ADVICE
        )

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str], silence_s: float) -> Iterator[httpx.Response]:
        """Open an answer that goes on; each of its reads waits for at most `silence_s`.

        Raises:
            httpx.TransportError: the line broke.
            HeterofedError: as `call`.
        """
        timeout = httpx.Timeout(self.timeout_s, read=silence_s)
        with self._http.stream("GET", self.url + path, headers=dict(headers), timeout=timeout) as response:
            if not response.is_success:
                response.read()
                raise self.refusal(response)
            yield response

    def answer(self, response: httpx.Response) -> Any:
        """Return the JSON of an answer.

        Raises:
            HubUnreachable: there is none.
        """
        form = _json(response)
        if form is None:
            raise self.strange()
        return form

    def strange(self) -> HubUnreachable:
        """The error for an answer that no hub of ours gives."""
        return HubUnreachable(
            f"what answers at {self.url} is no heterofed hub, or one of another version", advice=ADVICE
        )


def _tls(url: str, ca: str) -> ssl.SSLContext:
    if url.startswith("http://"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # unused; loads no certificates
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"HETEROFED_HUB_CA cannot be used: {getattr(error, 'strerror', None) or 'no certificate in it'}",
            expected="a file of certificates in PEM form",
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _said(response: httpx.Response) -> str:
    told = read_error(_json(response))
    return f" ({told.what.rstrip('.')})" if told is not None else ""


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0


def _is_tls(error: Exception) -> bool:
    return isinstance(error, httpx.ConnectError) and "certificate" in str(error).lower()


def _trouble(error: httpx.TransportError) -> str:
    if _is_tls(error):
        return "its certificate cannot be verified"
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error) or type(error).__name__

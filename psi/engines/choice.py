"""Which engines work here, and the fastest of them.

An engine counts as available once it loads and passes the known-answer tests of `psi.engines.selftest`; that is found
out once in a process for each size of key, and takes a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

from psi.engines import multibuffer, openssl, plain, selftest
from psi.engines.interface import CurveMultiply, RsaNumbers, RsaPower
from psi.errors import BadArgument

RSA_ENGINES: tuple[str, ...] = ("multibuffer", "openssl", "gmpy2")
"""Names of the engines for RSA, fastest first."""
CURVE_ENGINES: tuple[str, ...] = ("multibuffer", "cryptography")
"""Names of the engines for X25519, fastest first."""


class _Rsa(NamedTuple):
    """How to make the powers of one engine, and which keys it can take."""

    private: Callable[[RsaNumbers], RsaPower]
    public: Callable[[int, int], RsaPower]
    takes_private: Callable[[RsaNumbers], bool]
    takes_public: Callable[[int, int], bool]


_RSA: dict[str, _Rsa] = {
    "multibuffer": _Rsa(
        multibuffer.BatchedPrivate,
        multibuffer.BatchedPublic,
        multibuffer.takes_private,
        multibuffer.takes_public,
    ),
    "openssl": _Rsa(openssl.OpensslPrivate, openssl.OpensslPublic, lambda numbers: True, lambda n, e: True),
    "gmpy2": _Rsa(plain.PlainPrivate, plain.PlainPublic, lambda numbers: True, lambda n, e: True),
}
_CURVE: dict[str, Callable[[], CurveMultiply]] = {
    "multibuffer": multibuffer.BatchedCurve,
    "cryptography": plain.PlainCurve,
}


@cache
def available_rsa(bits: int) -> tuple[str, ...]:
    """Names of the engines for RSA that work here with a modulus of this many bits, fastest first."""
    numbers = selftest.key_of(bits)
    return tuple(name for name in RSA_ENGINES if _rsa_works(_RSA[name], numbers, bits))


@cache
def available_curve() -> tuple[str, ...]:
    """Names of the engines for X25519 that work here, fastest first."""
    return tuple(name for name in CURVE_ENGINES if selftest.passes(partial(_check_curve, name)))


def rsa_private(numbers: RsaNumbers, engine: str | None = None) -> RsaPower:
    """The private power x -> x^d modulo n.

    Args:
        numbers: the key; it is taken to be a proper one.
        engine: a name of `RSA_ENGINES`; None takes the fastest that works here with this key.

    Raises:
        BadArgument: there is no such engine here for this key; names those that there are.
    """
    fitting = [name for name in available_rsa(numbers.n.bit_length()) if _RSA[name].takes_private(numbers)]
    return _RSA[_chosen(engine, fitting, f"private powers of {numbers.n.bit_length()} bits")].private(numbers)


def rsa_public(n: int, e: int, engine: str | None = None) -> RsaPower:
    """The public power x -> x^e modulo n.

    Args:
        n: the modulus, odd.
        e: the public exponent; `multibuffer` knows 65537 only.
        engine: a name of `RSA_ENGINES`; None takes the fastest that works here with these numbers.

    Raises:
        BadArgument: there is no such engine here for these numbers; names those that there are.
    """
    fitting = [name for name in available_rsa(n.bit_length()) if _RSA[name].takes_public(n, e)]
    return _RSA[_chosen(engine, fitting, f"public powers of {n.bit_length()} bits with this exponent")].public(n, e)


def curve(engine: str | None = None) -> CurveMultiply:
    """X25519 of one scalar with many points.

    Args:
        engine: a name of `CURVE_ENGINES`; None takes the fastest that works here.

    Raises:
        BadArgument: there is no such engine here; names those that there are.
    """
    return _CURVE[_chosen(engine, available_curve(), "X25519")]()


def _chosen(engine: str | None, available: tuple[str, ...] | list[str], purpose: str) -> str:
    if engine is None and available:
        return available[0]
    if engine is not None and engine in available:
        return engine
    here = ", ".join(repr(name) for name in available) or "none"
    reason = f" ({multibuffer.why_not()})" if engine == "multibuffer" and multibuffer.why_not() else ""
    raise BadArgument(
        f"engine is {engine!r}, which cannot do {purpose} here{reason}; expected one of those that can: {here}. "
        "Leave it out to have the fastest."
    )


def _check_curve(name: str) -> None:
    selftest.check_curve(_CURVE[name]())


def _rsa_works(engine: _Rsa, numbers: RsaNumbers, bits: int) -> bool:
    # A size without a test key is tested with another, which is enough for an engine that takes any size; one that
    # does not says so by what it takes.
    def check() -> None:
        selftest.check_rsa(engine.private(numbers), engine.public(numbers.n, numbers.e), numbers)

    sizes_fit = numbers.n.bit_length() == bits or engine.takes_public(1 << (bits - 1) | 1, 65537)
    return sizes_fit and engine.takes_private(numbers) and selftest.passes(check)

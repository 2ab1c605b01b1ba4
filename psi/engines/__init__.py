"""The arithmetic of both protocols behind two small interfaces, with several engines for each.

An engine computes many private or public RSA powers, or many multiplications on Curve25519, from bytes to bytes. All
engines give the same results; they differ in speed and in what they need (see each module's header):

    multibuffer    `psi.engines.multibuffer`   Intel's library, eight numbers at a time; a processor with AVX-512 IFMA
    openssl        `psi.engines.openssl`       RSA by the OpenSSL that Python's `ssl` is linked to
    gmpy2          `psi.engines.plain`         RSA; always there
    cryptography   `psi.engines.plain`         X25519; always there

`rsa_private`, `rsa_public` and `curve` choose the fastest engine that passes a self-test on this machine.
"""

from __future__ import annotations

from psi.engines.choice import (
    CURVE_ENGINES,
    RSA_ENGINES,
    available_curve,
    available_rsa,
    curve,
    rsa_private,
    rsa_public,
)
from psi.engines.interface import CurveMultiply, RsaNumbers, RsaPower

__all__ = [
    "CURVE_ENGINES",
    "RSA_ENGINES",
    "CurveMultiply",
    "RsaNumbers",
    "RsaPower",
    "available_curve",
    "available_rsa",
    "curve",
    "rsa_private",
    "rsa_public",
]

"""RSA powers by OpenSSL, called through ctypes in the library that Python's own `ssl` module is linked to.

Needs OpenSSL 3.0 or newer behind `ssl`. Nothing to install: `_ssl` is loaded in any case, and asking its shared object
for a symbol also finds those of libcrypto. A Python that links OpenSSL into itself without giving out its symbols, or
that carries another library, has no such engine.

Only the EVP interface is used, which OpenSSL 3 does not deprecate: EVP_PKEY_decrypt with RSA_NO_PADDING is the bare
private power and EVP_PKEY_encrypt with it the bare public one.

Constant time. OpenSSL's security policy treats timing differences that a local or remote attacker can measure as
faults to be repaired, and its private operation blinds each power and uses a fixed-window exponentiation
with a scattered table (BN_FLG_CONSTTIME); neither is a documented promise of the interface. With e known, OpenSSL
checks each private power with the public exponent and, where it is wrong, computes it again without the Chinese
remainder theorem; hence `verifies`.

Secrets in memory. OpenSSL wipes its copy of the key when it is freed. The DER from which it came is wiped here; the
`int` and `bytes` objects of Python from which that was made cannot be.

Measured with OpenSSL 3.0.19 on a 2-core AMD EPYC (Zen 5), µs for each item with one thread and with two (the figure for
two is what both together need for each item); a context takes 5 µs more in each call:

    power            2048 bits      3072 bits      4096 bits
    private          243 / 144     1600 / 758     3510 / 1850
    public            16 / 8.2       31 / 16        63 / 35

BN_mod_exp_mont called directly is not measurably quicker for public powers.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from psi.engines.interface import RsaNumbers, count_of
from psi.errors import ComputeFault

_NO_PADDING = 3
"""RSA_NO_PADDING of openssl/rsa.h."""
_LEAST_VERSION = 0x30000000
"""OpenSSL 3.0.0 in the form of OpenSSL_version_num."""

_SIZE = ctypes.c_size_t
_POINTER = ctypes.c_void_p
_INT = ctypes.c_int
_SIZE_POINTER = ctypes.POINTER(ctypes.c_size_t)
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "OpenSSL_version_num": (ctypes.c_ulong, []),
    "d2i_AutoPrivateKey": (_POINTER, [_POINTER, ctypes.POINTER(ctypes.c_void_p), ctypes.c_long]),
    "d2i_PUBKEY": (_POINTER, [_POINTER, ctypes.POINTER(ctypes.c_void_p), ctypes.c_long]),
    "EVP_PKEY_free": (None, [_POINTER]),
    "EVP_PKEY_CTX_new": (_POINTER, [_POINTER, _POINTER]),
    "EVP_PKEY_CTX_free": (None, [_POINTER]),
    "EVP_PKEY_CTX_set_rsa_padding": (_INT, [_POINTER, _INT]),
    "EVP_PKEY_decrypt_init": (_INT, [_POINTER]),
    "EVP_PKEY_decrypt": (_INT, [_POINTER, _POINTER, _SIZE_POINTER, _POINTER, _SIZE]),
    "EVP_PKEY_encrypt_init": (_INT, [_POINTER]),
    "EVP_PKEY_encrypt": (_INT, [_POINTER, _POINTER, _SIZE_POINTER, _POINTER, _SIZE]),
    "ERR_clear_error": (None, []),
    "OPENSSL_cleanse": (None, [_POINTER, _SIZE]),
}


@cache
def _library() -> ctypes.CDLL:
    """The functions above, with their types.

    Raises:
        OSError: there is no `_ssl`, it does not lead to OpenSSL's functions, or they are of an older version.
    """
    try:
        import _ssl  # not public, but the only part of Python that is linked to OpenSSL and gives nothing else away

        library = ctypes.CDLL(_ssl.__file__)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (ImportError, AttributeError) as error:  # no such module, no file of its own, no such symbol
        raise OSError("Python's ssl module does not lead to OpenSSL's functions") from error
    if library.OpenSSL_version_num() < _LEAST_VERSION:
        raise OSError("Python's ssl module is linked to a library older than OpenSSL 3.0")
    return library


class _Power:
    """One key and one of the two directions. A new context for each call, so threads share nothing but the key."""

    name = "openssl"
    releases_lock = True

    def __init__(self, direction: str, read: str, der: bytes, width: int) -> None:
        library = _library()
        self._library, self._width = library, width
        self._start = getattr(library, f"EVP_PKEY_{direction}_init")
        self._power = getattr(library, f"EVP_PKEY_{direction}")
        buffer = ctypes.create_string_buffer(der, len(der))
        try:
            position = ctypes.c_void_p(ctypes.addressof(buffer))
            self._key = getattr(library, read)(None, ctypes.byref(position), len(der))
        finally:
            library.OPENSSL_cleanse(buffer, len(der))
        if not self._key:
            library.ERR_clear_error()
            raise _fault("reading the key")
        # Not at exit: a thread may still be at work then, and the memory goes back to the system anyway.
        self._free = weakref.finalize(self, library.EVP_PKEY_free, self._key)
        self._free.atexit = False

    def __call__(self, elements: bytes) -> bytes:
        """See `RsaPower`."""
        width, power = self._width, self._power
        count = count_of(elements, width)
        source = ctypes.c_char_p(elements)
        start = ctypes.cast(source, ctypes.c_void_p).value or 0
        result = ctypes.create_string_buffer(len(elements))
        target, length = ctypes.addressof(result), _SIZE(width)
        context = self._context()
        try:
            for offset in range(0, count * width, width):
                length.value = width
                if power(context, target + offset, length, start + offset, width) != 1 or length.value != width:
                    raise _fault("a power")
        except ComputeFault:
            self._library.ERR_clear_error()
            raise
        finally:
            self._library.EVP_PKEY_CTX_free(context)
        return result.raw

    def _context(self) -> Any:
        library = self._library
        context = library.EVP_PKEY_CTX_new(self._key, None)
        if context and self._start(context) == 1 and library.EVP_PKEY_CTX_set_rsa_padding(context, _NO_PADDING) == 1:
            return context
        library.EVP_PKEY_CTX_free(context)  # takes a null pointer too
        library.ERR_clear_error()
        raise _fault("setting up a context")


class OpensslPrivate(_Power):
    """x^d modulo n."""

    verifies = True

    def __init__(self, numbers: RsaNumbers) -> None:
        d = pow(numbers.e, -1, math.lcm(numbers.p - 1, numbers.q - 1))
        key = rsa.RSAPrivateNumbers(
            numbers.p,
            numbers.q,
            d,
            numbers.d_p,
            numbers.d_q,
            numbers.q_inverse,
            rsa.RSAPublicNumbers(numbers.e, numbers.n),
        ).private_key(unsafe_skip_rsa_key_validation=True)  # the caller made the key; a wrong one shows in its powers
        der = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        super().__init__("decrypt", "d2i_AutoPrivateKey", der, numbers.width)


class OpensslPublic(_Power):
    """x^e modulo n."""

    verifies = False

    def __init__(self, n: int, e: int) -> None:
        der = (
            rsa.RSAPublicNumbers(e, n)
            .public_key()
            .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        super().__init__("encrypt", "d2i_PUBKEY", der, (n.bit_length() + 7) // 8)


def _fault(step: str) -> ComputeFault:
    return ComputeFault(
        f"OpenSSL reports a failure at {step}; expected none. Choose another engine, or check this machine's memory "
        "and processor."
    )

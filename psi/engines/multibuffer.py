"""RSA powers and X25519 by Intel's library `crypto_mb`, eight numbers at a time in the lanes of a vector.

Needs Linux on x86-64, a processor with AVX-512 IFMA (Intel from Ice Lake, AMD from Zen 4), and the library
`libcrypto_mb.so`: from the packages `ipp-crypto` and `intel-cmplr-lib-rt` of PyPI, or any other that the system's
loader finds by that name. The library itself needs OpenSSL's `libcrypto.so.3`. Where something is missing the engine
is not available, and `why_not` says what.

Constant time. Intel runs a checker that compares traces of instructions and of memory accesses for different secrets,
and lists `mbx_rsa_private_crt_mb8` (1024 to 4096 bits) and `mbx_x25519_mb8` among the functions that pass, for release
branches (CONST_TIME_EXECUTION_TESTING.md of github.com/intel/cryptography-primitives). That is Intel's test; we have
not repeated it. A private power here is neither blinded nor checked by the library.

Status words. Four bits for each lane, 0 for success (crypto_mb/status.h); 4 is "low order" from X25519.

A fault of its X25519. The library (13.3) gives wrong products for points u close below p = 2^255 - 19, even for p - 1,
which has small order and must be refused, and for a few others of special form, such as 2^254 - 21. By its source, a
subtraction leaves a negative number where one operand is nearly 0 and the other, not fully reduced, just above p.
Points whose upper 15 bits are all ones therefore go to `psi.engines.plain` one by one: 1 in 32768 of random ones. A
million other random points agreed with OpenSSL; we estimate a chance of about 2^-56 for each. A peer who chooses points
that provoke the fault gets wrong products of its own points, and may see in them a few of the uppermost bits of the
scalar, so a scalar has to be new in each run.

Secrets in memory. The key, the scalar and the work buffer of private powers lie in memory that is wiped when it is
let go (not when the process ends first). The `int` and `bytes` objects that they came from, and what the library
leaves on the stack, are not wiped.

Measured on a 2-core AMD EPYC (Zen 5), µs for each item with one thread and with two (the figure for two is what both
together need for each item), in calls with hundreds of items or more:

    power            2048 bits      3072 bits      4096 bits
    private           76 / 40       712 / 257      656 / 390
    public           3.9 / 2.4      8.0 / 4.2       13 / 7.5
    X25519           3.8 / 2.0

At 3072 and 4096 bits the private power takes up to a third longer where the library's arrays on the stack do not
happen to lie on a multiple of 64 bytes, which a caller cannot choose: 500 or 720 µs, 650 or 750 µs.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import weakref
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psi.engines.interface import POINT_WIDTH, RsaNumbers, check_scalar, count_of, small_order
from psi.engines.plain import multiplier
from psi.errors import BadArgument, ComputeFault

LANES = 8
PUBLIC_EXPONENT = 65537
"""The only one that the library has a public power for."""
KEY_BITS = (2048, 3072, 4096)
"""Lengths of a modulus that the library has powers for; it has 1024 too, which no run may use."""

_LIBRARY = "libcrypto_mb.so"
_LIBRARY_PACKAGE = "ipp-crypto"
_RUNTIME = ("libintlc.so.5", "libirng.so", "libimf.so", "libsvml.so")
"""What Intel's compiler links its output to, each after those that it needs itself."""
_RUNTIME_PACKAGE = "intel-cmplr-lib-rt"

_POINTER, _INT, _STATUS = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "mbx_is_crypto_mb_applicable": (_INT, [ctypes.c_uint64]),
    "mbx_RSA_Method_BufSize": (_INT, [_POINTER]),
    "mbx_rsa_private_crt_mb8": (_STATUS, [_POINTER] * 7 + [_INT, _POINTER, _POINTER]),
    "mbx_rsa_public_mb8": (_STATUS, [_POINTER] * 3 + [_INT, _POINTER, _POINTER]),
    "mbx_x25519_mb8": (_STATUS, [_POINTER] * 3),
    **{f"mbx_RSA{bits // 1024}K_private_crt_Method": (_POINTER, []) for bits in KEY_BITS},
    **{f"mbx_RSA{bits // 1024}K_pub65537_Method": (_POINTER, []) for bits in KEY_BITS},
}


def why_not() -> str:
    """Why this engine cannot be used on this machine, in a few words; empty where it can."""
    found = _load()
    return found if isinstance(found, str) else ""


def takes_private(numbers: RsaNumbers) -> bool:
    """Whether the library has the private power for this key: a known length, and primes of half of it."""
    bits = numbers.n.bit_length()
    return bits in KEY_BITS and numbers.p.bit_length() == numbers.q.bit_length() == bits // 2


def takes_public(n: int, e: int) -> bool:
    """Whether the library has the public power for these numbers."""
    return n.bit_length() in KEY_BITS and n % 2 == 1 and e == PUBLIC_EXPONENT


class BatchedPrivate:
    """x^d modulo n by the Chinese remainder theorem."""

    name = "multibuffer"
    releases_lock = True
    verifies = False

    def __init__(self, numbers: RsaNumbers) -> None:
        library = _library()
        if not takes_private(numbers):
            raise BadArgument(f"the key does not fit; expected {KEY_BITS} bits in two primes of the same length.")
        self._bits, self._width = numbers.n.bit_length(), numbers.width
        secrets = (numbers.p, numbers.q, numbers.d_p, numbers.d_q, numbers.q_inverse)
        self._key = _Lanes([number.to_bytes(numbers.width // 2, "little") for number in secrets])
        self._method = getattr(library, f"mbx_RSA{self._bits // 1024}K_private_crt_Method")()
        self._work = library.mbx_RSA_Method_BufSize(self._method)
        self._power = library.mbx_rsa_private_crt_mb8

    def __call__(self, elements: bytes) -> bytes:
        """See `RsaPower`."""
        batches = _Batches(elements, self._width)
        power, key, bits, method = self._power, self._key.rows, self._bits, self._method
        work = ctypes.create_string_buffer(self._work)  # of our own, so that it can be wiped
        try:
            for source, target in batches:
                if power(source, target, *key, bits, method, work):
                    raise _fault("private power")
        finally:
            ctypes.memset(work, 0, self._work)
        return batches.result()


class BatchedPublic:
    """x^65537 modulo n."""

    name = "multibuffer"
    releases_lock = True
    verifies = False

    def __init__(self, n: int, e: int) -> None:
        library = _library()
        if not takes_public(n, e):
            raise BadArgument(f"the key does not fit; expected {KEY_BITS} bits and the exponent {PUBLIC_EXPONENT}.")
        self._bits, self._width = n.bit_length(), n.bit_length() // 8
        self._key = _Lanes([n.to_bytes(self._width, "little")])
        self._method = getattr(library, f"mbx_RSA{self._bits // 1024}K_pub65537_Method")()
        self._power = library.mbx_rsa_public_mb8

    def __call__(self, elements: bytes) -> bytes:
        """See `RsaPower`."""
        batches = _Batches(elements, self._width)
        power, key, bits, method = self._power, self._key.rows[0], self._bits, self._method
        for source, target in batches:
            if power(source, target, key, bits, method, None):
                raise _fault("public power")
        return batches.result()


class BatchedCurve:
    """X25519."""

    name = "multibuffer"
    releases_lock = True

    def __init__(self) -> None:
        self._multiply = _library().mbx_x25519_mb8

    def __call__(self, scalar: bytes, points: bytes) -> bytes:
        """See `CurveMultiply`."""
        check_scalar(scalar)
        batches, multiply = _Batches(points, POINT_WIDTH), self._multiply
        key = _Lanes([scalar])
        row, statuses = key.rows[0], 0
        for source, target in batches:
            statuses |= multiply(target, row, source)
        key.wipe()
        close = batches.close_to_p()
        if close:
            multiply_one = multiplier(scalar)
            for position in close:
                point = points[position * POINT_WIDTH : (position + 1) * POINT_WIDTH]
                batches.replace(position, multiply_one(point) or bytes(POINT_WIDTH))
        zero = batches.first_zero()
        if zero is not None:
            raise small_order(zero)
        if statuses:
            raise _fault("multiplication on the curve")
        return batches.result()


class _Lanes:
    """Numbers in memory of their own, each with the row of eight pointers that puts it into every lane."""

    def __init__(self, numbers: list[bytes]) -> None:
        joined = b"".join(numbers)
        self._memory = ctypes.create_string_buffer(joined, len(joined))
        start = ctypes.addressof(self._memory)
        offsets = np.arange(len(numbers), dtype=np.uint64) * len(numbers[0])
        self._pointers = np.repeat(offsets + start, LANES)
        self.rows = [self._pointers.ctypes.data + index * LANES * 8 for index in range(len(numbers))]
        # The finalizer keeps the memory, not this object. Not at exit: a thread may still be at work then.
        self.wipe = weakref.finalize(self, ctypes.memset, self._memory, 0, len(joined))
        self.wipe.atexit = False


class _Batches:
    """A call's numbers in rows of eight pointers, and memory for as many results.

    The lanes that the last row has too many read its first number again and write behind the results, so the library
    never meets anything but the caller's numbers.
    """

    def __init__(self, numbers: bytes, width: int) -> None:
        self._count = count_of(numbers, width)
        self._width = width
        self._rows = -(-self._count // LANES)
        lanes = np.arange(self._rows * LANES, dtype=np.uint64)
        self._numbers = np.frombuffer(numbers, np.uint8)  # the caller's own bytes: read in place
        self._results: NDArray[np.uint8] = np.zeros((len(lanes), width), np.uint8)
        sources = np.where(lanes < self._count, lanes, lanes // LANES * LANES)
        self._sources = sources * width + self._numbers.ctypes.data
        self._targets = lanes * width + self._results.ctypes.data

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """For each row where its eight source pointers and its eight target pointers lie."""
        step = LANES * 8
        source, target = self._sources.ctypes.data, self._targets.ctypes.data
        return zip(
            range(source, source + self._rows * step, step),
            range(target, target + self._rows * step, step),
            strict=True,
        )

    def close_to_p(self) -> list[int]:
        """The positions of the points of Curve25519 whose upper 15 bits, below the ignored one, are all ones."""
        top = self._numbers.reshape(-1, POINT_WIDTH)[:, -2:]
        return [int(position) for position in np.flatnonzero((top[:, 0] == 0xFF) & (top[:, 1] | 0x80 == 0xFF))]

    def replace(self, position: int, result: bytes) -> None:
        """Put another result in the place of one."""
        self._results[position] = np.frombuffer(result, np.uint8)

    def first_zero(self) -> int | None:
        """The position of the first result that is zero."""
        nonzero = self._results[: self._count].any(axis=1)
        return None if nonzero.all() else int(nonzero.argmin())

    def result(self) -> bytes:
        """The results in the order of the numbers."""
        return self._results[: self._count].tobytes()


def _fault(step: str) -> ComputeFault:
    return ComputeFault(
        f"the library crypto_mb reports a failure of a {step}; expected none. Choose another engine, or check this "
        "machine's memory and processor."
    )


def _library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        OSError: it cannot be used here.
    """
    found = _load()
    if isinstance(found, str):
        raise OSError(found)
    return found


@cache
def _load() -> ctypes.CDLL | str:
    """The library with the types of its functions, or why there is none."""
    if not hasattr(os, "RTLD_LOCAL"):
        return "it is built for Linux"
    if importlib.util.find_spec("_ssl"):
        import _ssl  # noqa: F401  a libcrypto.so.3 that Python brought along is then in memory, and is found
    for name in _RUNTIME:
        for path in _files(_RUNTIME_PACKAGE, name):
            with contextlib.suppress(OSError):
                ctypes.CDLL(path)  # stays loaded, so that the library finds it by its name
    reason = f"no {_LIBRARY} loads: install ipp-crypto and intel-cmplr-lib-rt, and OpenSSL's libcrypto.so.3"
    for candidate in [*_files(_LIBRARY_PACKAGE, _LIBRARY), _LIBRARY]:
        try:
            library = ctypes.CDLL(candidate)
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError):
            continue
        if library.mbx_is_crypto_mb_applicable(0):  # 0: ask the processor
            return library
        reason = "the processor has no AVX-512 IFMA"
    return reason


def _files(package: str, name: str) -> list[str]:
    """Where an installed package has files of this name, or of this name and a version."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [str(file.locate()) for file in files if file.name == name or file.name.startswith(name + ".")]

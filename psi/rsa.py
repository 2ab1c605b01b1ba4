"""The mathematics of the run with `protocol="rsa"`: blind signatures as an oblivious function.

The responder holds n = p·q, e public, d private. H is the hash to the group, T the hash to a tag (see `hashing`);
x is an id of the initiator, z one of the responder.

    initiator                                   responder
                                       <---     n, e, roots w_i = ρ_i^d  for ρ_0..ρ_7 hashed out of n
    w_i^e = ρ_i ?
    r uniform in the units mod n, new for each x
    y = H(x) · r^e                     --->     2 <= y <= n-2, gcd(y, n) = 1, never seen before ?
                                       <---     s = y^d
    s^e = y ?   u = s / r = H(x)^d     <---     T(H(z)^d) for each z, in random order
    x is shared  if  T(u) is among them

(r^e)^d = r, so u = H(x)^d. If r -> r^e permutes the units, r^e is uniform and y says nothing at all about x.
A responder who chose p with e | p-1 could break that and test guesses of x by their class modulo e-th powers.
Then only one unit in e (a prime) or fewer has a root, so eight roots of hashed numbers show that it did not, but
for a chance of e^-8 <= 2^-128 (Goldberg, Reyzin, Sagga and Baldimtsi, "Efficient noninteractive certification of
RSA moduli and beyond", 2019). That T(u) is unpredictable without d is the one-more-RSA assumption (Bellare,
Namprempre, Pointcheval and Semanko, 2003); the set protocol is that of De Cristofaro and Tsudik, "Practical
private set intersection protocols with linear complexity", 2010. Every r is drawn afresh: were one derived from
another (its square, say), quotients of the y would depend on the ids alone and could be tested against guesses.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import Any, ClassVar

import gmpy2
from cryptography.hazmat.primitives.asymmetric import rsa
from gmpy2 import mpz

from psi import engines
from psi.engines import RsaNumbers, RsaPower
from psi.errors import BadArgument, BadElement, BadMessage, ComputeFault, WeakKey
from psi.hashing import Context
from psi.modular import as_numbers, check_range, check_units, full_domain, inverses, pack, unpack, width_of

MIN_KEY_BITS = 2048
"""112-bit security, NIST SP 800-57 part 1, table 2."""
RECOMMENDED_KEY_BITS = 3072
"""128-bit security, the same table."""
MAX_KEY_BITS = 16384
"""What OpenSSL still accepts; a longer modulus only keeps the peer busy."""
EXPONENT = 65537
"""The exponent of the keys we make, and the least that we accept."""
MAX_EXPONENT_BITS = 32
"""A longer public exponent only makes the initiator compute more."""
KEY_PROOF_ROOTS = 8
"""Roots in a key offer: 65537^-8 is 2^-128."""
_TRIAL_LIMIT = 1 << 16
_OFFER = struct.Struct(">IH")


@dataclass(frozen=True)
class PublicKey:
    """The responder's modulus and public exponent; `check_public_key` says whether to use them."""

    n: mpz
    e: mpz

    @property
    def width(self) -> int:
        """Bytes of one element."""
        return width_of(self.n)

    def to_bytes(self) -> bytes:
        """e u32 | width u16 | n, `width` bytes."""
        return _OFFER.pack(int(self.e), self.width) + pack([self.n], self.width)


def numbers_from_primes(p: int, q: int, e: int = EXPONENT) -> RsaNumbers:
    """Put a key together from its primes. Does not judge their strength.

    Raises:
        ValueError: e has no inverse modulo p-1 or q-1, so there is no private exponent.
    """
    return RsaNumbers(int(p * q), int(e), int(p), int(q), pow(e, -1, p - 1), pow(e, -1, q - 1), pow(q, -1, p))


def generate(bits: int) -> RsaNumbers:
    """Make a new key with the system's randomness.

    Raises:
        BadArgument: `bits` is not a multiple of 8 from 2048 to 16384.
    """
    check_key_bits(bits)
    numbers = rsa.generate_private_key(public_exponent=EXPONENT, key_size=bits).private_numbers()
    return numbers_from_primes(numbers.p, numbers.q)


def check_key_bits(bits: int) -> None:
    """Refuse a size of key that an initiator would not accept.

    Raises:
        BadArgument: it is not a multiple of 8 from 2048 to 16384.
    """
    if not isinstance(bits, int) or not MIN_KEY_BITS <= bits <= MAX_KEY_BITS or bits % 8:
        raise BadArgument(
            f"key_bits is {bits!r}; expected a multiple of 8 from {MIN_KEY_BITS} to {MAX_KEY_BITS}. "
            f"{RECOMMENDED_KEY_BITS} is recommended."
        )


def check_public_key(key: PublicKey) -> None:
    """Refuse a key that is short or malformed in a way that can be seen without its factors.

    Raises:
        WeakKey: n is not an odd number of 2048 to 16384 bits, is prime, a perfect power or has a factor under 65536;
            or e is not an odd prime from 65537 to 2^32. (Prime, because the key proof counts on it.)
    """
    n, e = key.n, key.e
    if not MIN_KEY_BITS <= n.bit_length() <= MAX_KEY_BITS:
        raise _weak(f"its modulus has {n.bit_length()} bits", f"{MIN_KEY_BITS} to {MAX_KEY_BITS}")
    if n % 2 == 0:
        raise _weak("its modulus is even", "a product of two large primes")
    if e < EXPONENT or e.bit_length() > MAX_EXPONENT_BITS:
        raise _weak("its public exponent is out of range", f"{EXPONENT} to 2^{MAX_EXPONENT_BITS}")
    if e % 2 == 0 or not gmpy2.is_prime(e):
        raise _weak("its public exponent is not an odd prime", f"{EXPONENT} or another odd prime above it")
    if gmpy2.gcd(n, _small_primes()) != 1:
        raise _weak(f"its modulus has a factor under {_TRIAL_LIMIT}", "a product of two large primes")
    if gmpy2.is_power(n):
        raise _weak("its modulus is a perfect power", "a product of two different primes")
    if gmpy2.is_prime(n):
        raise _weak("its modulus is prime", "a product of two large primes")


class _Portable:
    """Goes to other processes without what an engine keeps: that is made again there."""

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]  # both users are dataclasses


@dataclass(frozen=True)
class RsaHolder(_Portable):
    """The responder's side: holds the key. Every power is checked before it is given out.

    What is constant-time and what is not: see the docstring of the engine. The reductions, the hash of an id and
    everything in Python around them are not constant-time, so somebody who can time single powers on the responder's
    own machine may still learn something. Python cannot wipe the numbers from memory; a run drops its references.

    Args:
        context: of this run; its public part is the key, then its 8 roots, each of the key's width.
        numbers: the key.
        engine: which arithmetic; None takes the fastest.
    """

    spot_checks: ClassVar[int] = 0

    context: Context
    numbers: RsaNumbers
    engine: str | None = None

    @classmethod
    def fresh(
        cls, task: str, session: bytes, *, bits: int, numbers: RsaNumbers | None = None, engine: str | None = None
    ) -> RsaHolder:
        """A holder of a new key (or, in known-answer tests, of the given one)."""
        numbers = numbers or generate(bits)
        key = PublicKey(mpz(numbers.n), mpz(numbers.e)).to_bytes()
        bare = cls(Context("rsa", task, session, key), numbers, engine)
        roots = bare.answer(b"".join(proof_elements(bare.context, numbers.n)))
        return cls(Context("rsa", task, session, key + roots), numbers, engine)

    @property
    def width(self) -> int:
        """Bytes of one element."""
        return self.numbers.width

    def check(self, elements: bytes, first: int) -> None:
        """See `Holder`: each is in 2..n-2 and shares no factor with n."""
        check_units(unpack(elements, mpz(self.numbers.n), first), mpz(self.numbers.n), first)

    def answer(self, elements: bytes) -> bytes:
        """See `Holder`.

        Raises:
            ComputeFault: a power does not verify. Sent to the peer it could give p away (Boneh, DeMillo and Lipton,
                "On the importance of checking cryptographic protocols for faults", 1997).
        """
        results = self._private(elements)
        if not self._private.verifies and self._public(results) != elements:
            raise ComputeFault(
                "a private power does not verify and was not sent; expected result^e = element. "
                "Check this machine's memory and processor, then start a new run."
            )
        return results

    def powers(self, ids: Sequence[str]) -> bytes:
        """See `Holder`."""
        elements = full_domain(ids, self.context.derive("element"), mpz(self.numbers.n))
        return self.answer(pack(elements, self.width))

    @cached_property
    def _private(self) -> RsaPower:
        return engines.rsa_private(self.numbers, self.engine)

    @cached_property
    def _public(self) -> RsaPower:
        return engines.rsa_public(self.numbers.n, self.numbers.e, self.engine)


@dataclass(frozen=True)
class RsaAsker(_Portable):
    """The initiator's side, under a checked key.

    Args:
        context: of this run.
        n: the responder's modulus.
        e: its public exponent.
        engine: which arithmetic; None takes the fastest.
    """

    spot_checks: ClassVar[Sequence[tuple[bytes, bytes]]] = ()  # every answer is verified

    context: Context
    n: int
    e: int
    engine: str | None = None

    @classmethod
    def fresh(cls, public: bytes, task: str, session: bytes, *, engine: str | None = None) -> RsaAsker:
        """Take the responder's key.

        Raises:
            BadMessage: its bytes are malformed.
            BadElement: a root is not in 2..n-2.
            WeakKey: it is short, malformed, or does not prove that blinding under it hides the ids.
        """
        key, roots = _read_key(public)
        check_public_key(key)
        unpack(roots, key.n)
        plain = Context("rsa", task, session, key.to_bytes())
        power = engines.rsa_public(int(key.n), int(key.e), engine)
        if power(roots) != b"".join(proof_elements(plain, int(key.n))):
            raise _weak("its proof does not hold", f"{KEY_PROOF_ROOTS} roots of numbers hashed from this key and run")
        return cls(Context("rsa", task, session, public), int(key.n), int(key.e), engine)

    @property
    def width(self) -> int:
        """Bytes of one element."""
        return (self.n.bit_length() + 7) // 8

    @property
    def entropy(self) -> int:
        """Random bytes for one id: 128 bits more than n has, so that r is within 2^-128 of uniform."""
        return self.width + 16

    def blind(self, ids: Sequence[str], randomness: bytes) -> tuple[bytes, bytes]:
        """See `Asker`: (H(x) · r^e, r) for each id.

        Not constant-time: r is the base of a plain power with the public exponent.
        """
        n, width, size = mpz(self.n), self.width, self.entropy
        factors = [mpz.from_bytes(randomness[at : at + size], "big") % n for at in range(0, len(randomness), size)]
        packed = pack(factors, width)
        hidden = as_numbers(self._power(packed), width)
        elements = full_domain(ids, self.context.derive("element"), n)
        blinded = [element * factor % n for element, factor in zip(elements, hidden, strict=True)]
        try:
            check_units(blinded, n, 0)
        except BadElement:
            raise _weak("an id or a random number shares a factor with its modulus", "large factors only") from None
        return pack(blinded, width), packed

    def check_answers(self, answers: bytes, first: int) -> None:
        """See `Asker`: each is in 2..n-2."""
        check_range(answers, mpz(self.n), first)

    def unblind(self, elements: bytes, secrets: bytes, answers: bytes, first: int) -> bytes:
        """See `Asker`: s^e must be y, then u = s / r."""
        n, width = mpz(self.n), self.width
        signed = self._power(answers)
        if signed != elements:
            wrong = next(
                at for at in range(0, len(elements), width) if signed[at : at + width] != elements[at : at + width]
            )
            raise BadElement(
                f"signature {first + wrong // width} of the responder does not verify; expected the power of the "
                "element in its place. End the run: the responder is faulty or its messages are changed on the way."
            )
        results = zip(as_numbers(answers, width), inverses(as_numbers(secrets, width), n), strict=True)
        return pack((answer * inverse % n for answer, inverse in results), width)

    @cached_property
    def _power(self) -> RsaPower:
        return engines.rsa_public(self.n, self.e, self.engine)


def proof_elements(context: Context, n: int) -> list[bytes]:
    """The elements whose roots a key offer shows, each of n's width, hashed from the key, the task and the session."""
    labels = [f"root {index}" for index in range(KEY_PROOF_ROOTS)]
    return [pack([each], width_of(mpz(n))) for each in full_domain(labels, context.derive("key proof"), mpz(n))]


def _read_key(public: bytes) -> tuple[PublicKey, bytes]:
    if len(public) < _OFFER.size:
        raise _malformed("is too short", "an exponent, a modulus and its proof")
    e, width = _OFFER.unpack_from(public)
    if not 1 <= width <= MAX_KEY_BITS // 8 or len(public) != _OFFER.size + (1 + KEY_PROOF_ROOTS) * width:
        raise _malformed("is not as long as it says", f"a modulus and {KEY_PROOF_ROOTS} roots")
    n = mpz.from_bytes(public[_OFFER.size : _OFFER.size + width], "big")
    if width_of(n) != width:
        raise _malformed("has a modulus that starts with a zero byte", "the shortest spelling")
    return PublicKey(n, mpz(e)), public[_OFFER.size + width :]


def _malformed(what: str, expected: str) -> BadMessage:
    return BadMessage(f"the responder's key {what}; expected {expected}. End the run: the peer is faulty.")


def _weak(fault: str, expected: str) -> WeakKey:
    return WeakKey(
        f"the responder's key cannot be used: {fault}; expected {expected}. "
        "Do not go on with this peer before it says how its key was made."
    )


@cache
def _small_primes() -> mpz:
    return gmpy2.primorial(_TRIAL_LIMIT)

"""The mathematics of the run: blind RSA signatures.

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

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import gmpy2
from cryptography.hazmat.primitives.asymmetric import rsa
from gmpy2 import mpz

from psi.entropy import Source, below
from psi.errors import BadArgument, ComputeFault, WeakKey
from psi.hashing import RunHash, width_of

MIN_KEY_BITS = 2048
"""112-bit security, NIST SP 800-57 part 1, table 2."""
MAX_KEY_BITS = 16384
"""What OpenSSL still accepts; a longer modulus only keeps the peer busy."""
EXPONENT = 65537
"""The exponent of the keys we make, and the least that we accept."""
MAX_EXPONENT_BITS = 32
"""A longer public exponent only makes the initiator compute more."""
KEY_PROOF_ROOTS = 8
"""Roots in a key offer: 65537^-8 is 2^-128."""
_TRIAL_LIMIT = 1 << 16


@dataclass(frozen=True)
class PublicKey:
    """The responder's modulus and public exponent, as numbers; `check_public_key` says whether to use them."""

    n: mpz
    e: mpz

    @property
    def width(self) -> int:
        """Bytes of one element."""
        return width_of(self.n)


@dataclass(frozen=True)
class PrivateKey:
    """The responder's key: the primes and what follows from them. Never sent, never shown by `repr`.

    What is constant-time and what is not: the two powers modulo p and q use GMP's `mpz_powm_sec`, whose time and
    memory accesses depend only on the sizes of its arguments (about 13 % slower than the plain power at 2048 bits). The
    reductions modulo p and q, the recombination, the check of the result and everything in Python around them are
    not constant-time, so somebody who can time single powers on the responder's own machine may still learn
    something. Python cannot wipe the numbers from memory; a run only drops its reference.
    """

    public: PublicKey
    p: mpz = field(repr=False)
    q: mpz = field(repr=False)
    d_p: mpz = field(repr=False)
    d_q: mpz = field(repr=False)
    q_inverse: mpz = field(repr=False)

    @classmethod
    def from_primes(cls, p: int, q: int, e: int = EXPONENT) -> PrivateKey:
        """Put a key together from its primes. Does not judge their strength.

        Raises:
            ValueError: e has no inverse modulo p-1 or q-1, so there is no private exponent.
        """
        p, q, e = mpz(p), mpz(q), mpz(e)
        try:
            inverses = gmpy2.invert(e, p - 1), gmpy2.invert(e, q - 1), gmpy2.invert(q, p)
        except ZeroDivisionError:
            raise ValueError("these primes and this exponent do not make a key") from None
        return cls(PublicKey(p * q, e), p, q, *inverses)

    @classmethod
    def generate(cls, bits: int = MIN_KEY_BITS) -> PrivateKey:
        """Make a new key with the system's randomness.

        Raises:
            BadArgument: `bits` is not a multiple of 8 from 2048 to 16384.
        """
        check_key_bits(bits)
        numbers = rsa.generate_private_key(public_exponent=EXPONENT, key_size=bits).private_numbers()
        return cls.from_primes(numbers.p, numbers.q)

    def power(self, element: mpz) -> mpz:
        """element^d mod n, by the Chinese remainder theorem, checked before it is given out.

        Raises:
            ComputeFault: the result does not verify. Sent to the peer it would give p away (Boneh, DeMillo and Lipton,
                "On the importance of checking cryptographic protocols for faults", 1997).
        """
        power_p = gmpy2.powmod_sec(element % self.p, self.d_p, self.p)
        power_q = gmpy2.powmod_sec(element % self.q, self.d_q, self.q)
        result = power_q + self.q * ((power_p - power_q) * self.q_inverse % self.p)
        if not verifies(self.public, element, result):
            raise ComputeFault(
                "a private power does not verify and was not sent; expected result^e = element. "
                "Check this machine's memory and processor, then start a new run."
            )
        return result


def check_key_bits(bits: int) -> None:
    """Refuse a size of key that an initiator would not accept.

    Raises:
        BadArgument: it is not a multiple of 8 from 2048 to 16384.
    """
    if not isinstance(bits, int) or not MIN_KEY_BITS <= bits <= MAX_KEY_BITS or bits % 8:
        raise BadArgument(
            f"key_bits is {bits!r}; expected a multiple of 8 from {MIN_KEY_BITS} to {MAX_KEY_BITS}. 2048 is usual."
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


def prove_key(key: PrivateKey, run_hash: RunHash) -> list[mpz]:
    """The roots that show that e permutes the units modulo n; see the header."""
    return [key.power(run_hash.proof_element(index)) for index in range(KEY_PROOF_ROOTS)]


def check_key_proof(key: PublicKey, run_hash: RunHash, roots: Sequence[mpz]) -> None:
    """Refuse a key whose roots do not show that blinding under it hides the ids.

    Raises:
        WeakKey: a root is missing or is not one.
    """
    shown = len(roots) == KEY_PROOF_ROOTS and all(
        verifies(key, run_hash.proof_element(index), root) for index, root in enumerate(roots)
    )
    if not shown:
        raise _weak("its proof does not hold", f"{KEY_PROOF_ROOTS} roots of numbers hashed from this key and run")


def verifies(key: PublicKey, element: mpz, power: mpz) -> bool:
    """Whether power^e = element (mod n), that is: power = element^d. All numbers here are public to both roles."""
    return bool(gmpy2.powmod(power, key.e, key.n) == element)


def blind(key: PublicKey, element: mpz, source: Source) -> tuple[mpz, mpz]:
    """Hide a group element behind a fresh uniform unit r.

    Not constant-time: r is the base of a plain power with the public exponent.

    Returns:
        (element · r^e mod n, r)

    Raises:
        WeakKey: the element itself shares a factor with n, which a good key makes impossible in practice.
    """
    while True:
        factor = below(key.n, source)
        blinded = element * gmpy2.powmod(factor, key.e, key.n) % key.n
        if gmpy2.gcd(blinded, key.n) == 1:  # then both are units; one gcd tells for the two
            return blinded, factor
        if gmpy2.gcd(element, key.n) != 1:
            raise _weak("an id hashes to a number that shares a factor with its modulus", "large factors only")


def unblind(key: PublicKey, signed: Sequence[mpz], factors: Sequence[mpz]) -> list[mpz]:
    """signed / r mod n for each pair, with one inversion for all (Montgomery's trick, 1987); each r is a unit."""
    partial = [mpz(1)]  # partial[i] = r_0 · … · r_(i-1)
    for factor in factors:
        partial.append(partial[-1] * factor % key.n)
    inverse = gmpy2.invert(partial[-1], key.n)  # 1 / (r_0 · … · r_i), from the last i down
    results = []
    for index in range(len(factors) - 1, -1, -1):
        results.append(signed[index] * inverse % key.n * partial[index] % key.n)
        inverse = inverse * factors[index] % key.n
    results.reverse()
    return results


def _weak(fault: str, expected: str) -> WeakKey:
    return WeakKey(
        f"the responder's key cannot be used: {fault}; expected {expected}. "
        "Do not go on with this peer before it says how its key was made."
    )


@cache
def _small_primes() -> mpz:
    return gmpy2.primorial(_TRIAL_LIMIT)

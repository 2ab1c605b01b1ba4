"""Each piece of the mathematics against its definition."""

from __future__ import annotations

import hashlib
from collections import Counter

import gmpy2
import pytest
from gmpy2 import mpz
from hypothesis import given, settings
from hypothesis import strategies as st

import psi
from psi import rsa
from psi.elements import pack, unpack
from psi.entropy import below, shuffled
from psi.hashing import RunHash, run_id
from psi.parallel import Workers
from tests.psi.helpers import SESSION, TASK, Seeded, key

N = key().public.n
elements = st.integers(2, int(N) - 2)


def _field(part: bytes) -> bytes:
    return len(part).to_bytes(8, "big") + part


def _spelled(label: bytes, *parts: bytes) -> bytes:
    return b"".join(map(_field, (b"heterofed psi rsa 1", label, TASK.encode(), SESSION, *parts)))


def test_the_hashes_are_as_documented() -> None:
    modulus = int(N).to_bytes(256, "big")
    run_hash = RunHash(TASK, SESSION, N)
    wide = hashlib.shake_256(_spelled(b"element", modulus, "zoë".encode())).digest(256 + 16)
    assert run_hash.element("zoë") == int.from_bytes(wide, "big") % int(N)
    wide = hashlib.shake_256(_spelled(b"key proof", modulus, b"\0\0\0\x03")).digest(256 + 16)
    assert run_hash.proof_element(3) == int.from_bytes(wide, "big") % int(N)
    power = (5).to_bytes(256, "big")
    assert run_hash.tag(mpz(5)) == hashlib.shake_256(_spelled(b"tag", modulus, power)).digest(16)
    assert run_id(TASK, SESSION, b"nonce") == hashlib.shake_256(_spelled(b"run", b"nonce")).digest(16)


def test_the_hash_of_an_id_depends_on_every_part_of_its_context() -> None:
    contexts = [("t", b"s", N), ("t", b"s2", N), ("t2", b"s", N), ("ts", b"", N), ("t", b"s", key("other").public.n)]
    assert len({RunHash(*context).element("a") for context in contexts}) == len(contexts)
    # The end of one field is not the start of the next.
    assert RunHash("ab", b"c", N).element("d") != RunHash("a", b"bc", N).element("d")


@settings(max_examples=25, deadline=None)
@given(value=elements)
def test_the_private_power_is_the_signature(value: int) -> None:
    d = gmpy2.invert(65537, gmpy2.lcm(key().p - 1, key().q - 1))
    assert key().power(mpz(value)) == gmpy2.powmod(value, d, N)


@settings(max_examples=25, deadline=None)
@given(values=st.lists(elements, min_size=0, max_size=6))
def test_unblinding_a_signature_gives_the_power_of_the_element(values: list[int]) -> None:
    pairs = [rsa.blind(key().public, mpz(value), Seeded(b"r%d" % i)) for i, value in enumerate(values)]
    signed = [key().power(blinded) for blinded, _ in pairs]
    assert rsa.unblind(key().public, signed, [r for _, r in pairs]) == [key().power(mpz(v)) for v in values]


def test_blinding_draws_again_where_the_factor_has_no_inverse() -> None:
    draws = iter([bytes(256), int(key().p).to_bytes(256, "big"), (7).to_bytes(256, "big")])
    blinded, factor = rsa.blind(key().public, mpz(5), lambda size: next(draws))
    assert factor == 7 and blinded == 5 * gmpy2.powmod(7, 65537, N) % N


def test_an_id_that_hashes_to_a_multiple_of_a_prime_shows_a_weak_key() -> None:
    with pytest.raises(psi.WeakKey, match="shares a factor"):
        rsa.blind(key().public, key().p, Seeded(b"x"))


def test_a_generated_key_is_one_that_an_initiator_takes() -> None:
    private = rsa.PrivateKey.generate(2048)
    rsa.check_public_key(private.public)
    assert private.public.n.bit_length() == 2048 and private.p != private.q
    run_hash = RunHash(TASK, SESSION, private.public.n)
    rsa.check_key_proof(private.public, run_hash, rsa.prove_key(private, run_hash))


def test_primes_and_exponent_that_make_no_key_are_refused() -> None:
    with pytest.raises(ValueError, match="do not make a key"):
        rsa.PrivateKey.from_primes(7, 11, 3)


@given(values=st.lists(elements, max_size=5))
def test_elements_come_back_from_their_bytes(values: list[int]) -> None:
    numbers = [mpz(value) for value in values]
    data = pack(numbers, N)
    assert len(data) == 256 * len(values)
    assert unpack(data, N) == numbers


def test_numbers_below_a_limit_are_uniform() -> None:
    source = Seeded(b"uniform")
    counts = Counter(int(below(5, source)) for _ in range(5000))
    assert sorted(counts) == [0, 1, 2, 3, 4]
    assert all(900 < count < 1100 for count in counts.values())
    assert below(1, source) == 0


def test_shuffling_gives_every_order_equally_often() -> None:
    source = Seeded(b"orders")
    counts = Counter("".join(shuffled("abc", source)) for _ in range(3000))
    assert len(counts) == 6
    assert all(420 < count < 580 for count in counts.values())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_workers_keep_the_order_of_the_items(count: int) -> None:
    workers = Workers(count)
    assert workers.map(lambda x: x * x, list(range(50))) == [x * x for x in range(50)]
    assert workers.map(lambda x: x, []) == []
    workers.close()
    workers.close()


def test_workers_release_pythons_lock_inside_powers() -> None:
    """Without this flag of gmpy2 a second thread would not make anything faster."""
    workers = Workers(2)
    assert all(workers.map(lambda _: gmpy2.get_context().allow_release_gil, range(4)))
    workers.close()


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    def fail(number: int) -> int:
        raise psi.ComputeFault(f"at {number}")

    workers = Workers(2)
    with pytest.raises(psi.ComputeFault):
        workers.map(fail, range(8))
    workers.close()

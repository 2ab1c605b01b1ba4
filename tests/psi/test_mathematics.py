"""Each piece of the mathematics against its definition."""

from __future__ import annotations

import copy
import hashlib
import pickle
import secrets
from math import gcd, lcm

import numpy as np
import pytest
from gmpy2 import mpz
from hypothesis import example, given, settings
from hypothesis import strategies as st

import psi
from psi import engines, rsa
from psi.curve25519 import BASE_POINT, points_of
from psi.ecdh import SPOT_CHECKS, EcdhAsker, EcdhHolder
from psi.hashing import Context
from psi.joint import store, store_items, unmask
from psi.modular import as_numbers, check_units, full_domain, inverses, pack, unpack, width_of
from psi.oprf import PROTOCOLS, Asker
from psi.pairing import shares
from psi.rsa import RsaAsker, RsaHolder, numbers_from_primes
from psi.tags import rows
from tests.psi.helpers import PAIR_KEYS, SESSION, TASK, WIDTH, Seeded, holder, key, prime

N = key().n
D = pow(65537, -1, lcm(key().p - 1, key().q - 1))
elements = st.integers(2, N - 2)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
some_ids = st.lists(texts, max_size=6, unique=True)


def asker(protocol: str, seed: bytes = b"asker") -> Asker:
    """The initiator's side of `holder(protocol)`."""
    public = holder(protocol).context.public
    if protocol == "rsa":
        return RsaAsker.fresh(public, TASK, SESSION, engine="gmpy2")
    return EcdhAsker.fresh(public, TASK, SESSION, source=Seeded(seed), engine="cryptography")


# Both protocols are one function that is evaluated in two ways


@settings(max_examples=20, deadline=None)
@given(ids=some_ids, seed=st.binary(max_size=4))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_the_initiator_unblinds_is_what_the_responder_computes(protocol: str, ids: list[str], seed: bytes) -> None:
    ours, theirs = asker(protocol), holder(protocol)
    blinded, kept = ours.blind(ids, Seeded(seed)(ours.entropy * len(ids)))
    assert len(blinded) == WIDTH[protocol] * len(ids) == ours.width * len(ids) == theirs.width * len(ids)
    theirs.check(blinded, 0)
    answers = theirs.answer(blinded)
    ours.check_answers(answers, 0)
    assert ours.unblind(blinded, kept, answers, 0) == theirs.powers(ids)
    assert ours.context == theirs.context


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_many_ids_at_once_are_the_same_as_each_alone(protocol: str) -> None:
    ids = ["a", "b", "\u00e9", "a\0"]
    ours, theirs = asker(protocol), holder(protocol)
    randomness = Seeded(b"r")(ours.entropy * 4)
    size = ours.entropy
    blinded, kept = ours.blind(ids, randomness)
    alone = [ours.blind([each], randomness[at * size : (at + 1) * size]) for at, each in enumerate(ids)]
    assert blinded == b"".join(each[0] for each in alone) and kept == b"".join(each[1] for each in alone)
    assert theirs.answer(blinded) == b"".join(theirs.answer(each[0]) for each in alone)
    assert theirs.powers(ids) == b"".join(theirs.powers([each]) for each in ids)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_function_depends_on_the_id_the_session_and_the_task(protocol: str) -> None:
    holders = [
        holder(protocol),
        holder(protocol, session=b"another session"),
        holder(protocol, task="task-8"),
    ]
    powers = {each.powers([sample_id]) for each in holders for sample_id in ("a", "b", "a\0")}
    assert len(powers) == 9


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_both_sides_go_to_other_processes_and_come_back_the_same(protocol: str) -> None:
    ours, theirs = asker(protocol), holder(protocol)
    blinded, _ = ours.blind(["a"], bytes(ours.entropy - 1) + b"\2" if ours.entropy else b"")
    answers = theirs.answer(blinded)
    again = pickle.loads(pickle.dumps(theirs))  # noqa: S301  # our own bytes
    assert set(vars(again)) <= {"context", "numbers", "scalar", "engine"}  # what an engine keeps is not sent
    for away in (again, copy.deepcopy(theirs)):
        assert away == theirs and away.answer(blinded) == answers
    back = pickle.loads(pickle.dumps(ours))  # noqa: S301  # our own bytes
    assert back == ours and back.context == ours.context


# RSA


def test_the_roots_in_an_offer_are_of_numbers_hashed_from_key_task_and_session() -> None:
    context = holder("rsa").context
    public = context.public
    spelled = (65537).to_bytes(4, "big") + (256).to_bytes(2, "big") + N.to_bytes(256, "big")
    assert public[: len(spelled)] == spelled and len(public) == len(spelled) + 8 * 256
    bare = Context("rsa", TASK, SESSION, spelled)
    for index, root in enumerate(as_numbers(public[len(spelled) :], 256)):
        wide = hashlib.shake_256(bare.derive("key proof") + b"root %d" % index).digest(256 + 16)
        assert pow(int(root), 65537, N) == int.from_bytes(wide, "big") % N


@settings(max_examples=20, deadline=None)
@given(sample_id=texts)
def test_the_function_of_rsa_is_the_private_power_of_a_full_domain_hash(sample_id: str) -> None:
    wide = hashlib.shake_256(holder("rsa").context.derive("element") + sample_id.encode()).digest(256 + 16)
    element = int.from_bytes(wide, "big") % N
    assert full_domain([sample_id], holder("rsa").context.derive("element"), mpz(N)) == [element]
    assert holder("rsa").powers([sample_id]) == pow(element, D, N).to_bytes(256, "big")


def test_a_modulus_of_any_length_gets_128_surplus_bits() -> None:
    for modulus in (mpz(2) ** 2048 - 1, mpz(2) ** 2040 + 1, mpz(2) ** 2041 + 5):
        size = (modulus.bit_length() + 128 + 7) // 8
        wide = hashlib.shake_256(bytes(32) + b"a").digest(size)
        assert full_domain(["a"], bytes(32), modulus) == [int.from_bytes(wide, "big") % modulus]


@settings(max_examples=15, deadline=None)
@given(value=elements)
@example(2)
@example(N - 2)
def test_an_answer_of_rsa_is_the_private_power(value: int) -> None:
    assert holder("rsa").answer(value.to_bytes(256, "big")) == pow(value, D, N).to_bytes(256, "big")


@settings(max_examples=15, deadline=None)
@given(seed=st.binary(max_size=4))
def test_an_element_of_rsa_is_hidden_by_a_fresh_power(seed: bytes) -> None:
    ours = asker("rsa")
    assert ours.entropy == 256 + 16  # 128 bits more than n has
    randomness = Seeded(seed)(2 * ours.entropy)
    blinded, kept = ours.blind(["a", "b"], randomness)
    for at, sample_id in enumerate(("a", "b")):
        factor = int.from_bytes(randomness[at * 272 : (at + 1) * 272], "big") % N
        (element,) = full_domain([sample_id], ours.context.derive("element"), mpz(N))
        assert int.from_bytes(kept[at * 256 : (at + 1) * 256], "big") == factor
        assert int.from_bytes(blinded[at * 256 : (at + 1) * 256], "big") == element * pow(factor, 65537, N) % N


@pytest.mark.parametrize("factor", [key().p, key().q * 3, 0])
def test_a_random_number_that_shares_a_factor_shows_a_weak_key(factor: int) -> None:
    """By chance it never happens; then `unblind` could not divide by it."""
    with pytest.raises(psi.WeakKey, match="shares a factor"):
        asker("rsa").blind(["a"], factor.to_bytes(272, "big"))


def test_a_key_of_numbers_fits_together() -> None:
    numbers = key()
    assert numbers.p * numbers.q == N and numbers.e == 65537 and N.bit_length() == 2048
    assert numbers.d_p * 65537 % (numbers.p - 1) == numbers.d_q * 65537 % (numbers.q - 1) == 1
    assert numbers.q * numbers.q_inverse % numbers.p == 1
    with pytest.raises(ValueError, match="invertible"):
        numbers_from_primes(7, 11, 3)


@pytest.mark.parametrize("bits", [2048, 2056, 3072])
def test_a_generated_key_is_one_that_an_initiator_takes(bits: int) -> None:
    theirs = RsaHolder.fresh(TASK, SESSION, bits=bits, engine="gmpy2")
    assert theirs.numbers.n.bit_length() == bits and theirs.numbers.p != theirs.numbers.q
    assert theirs.numbers.e == 65537 and theirs.width == (bits + 7) // 8
    ours = RsaAsker.fresh(theirs.context.public, TASK, SESSION, engine="gmpy2")
    blinded, kept = ours.blind(["a"], secrets.token_bytes(ours.entropy))
    assert ours.unblind(blinded, kept, theirs.answer(blinded), 0) == theirs.powers(["a"])


def test_a_key_may_have_another_exponent_and_another_length() -> None:
    numbers = numbers_from_primes(prime("odd length p", 1029), prime("odd length q", 1030), 65539)
    assert numbers.n.bit_length() == 2059 and numbers.width == 258
    theirs = RsaHolder.fresh(TASK, SESSION, bits=2048, numbers=numbers, engine="gmpy2")
    ours = RsaAsker.fresh(theirs.context.public, TASK, SESSION, engine="gmpy2")
    blinded, kept = ours.blind(["a", "b"], secrets.token_bytes(2 * ours.entropy))
    assert ours.unblind(blinded, kept, theirs.answer(blinded), 0) == theirs.powers(["a", "b"])


class _Faulty:
    """A private power that goes wrong in the half modulo q, as a bit flipped in memory would make it."""

    name = "faulty"
    releases_lock = False
    verifies = False

    def __call__(self, elements_: bytes) -> bytes:
        right = engines.rsa_private(key(), "gmpy2")(elements_)
        wrong = (int.from_bytes(right[-256:], "big") + key().p) % N
        return right[:-256] + wrong.to_bytes(256, "big")


def test_a_power_that_went_wrong_is_not_given_out() -> None:
    faulty = RsaHolder(holder("rsa").context, key(), "gmpy2")
    element = (5).to_bytes(256, "big")
    given = int.from_bytes(_Faulty()(element), "big")
    assert gcd(pow(given, 65537, N) - 5, N) == key().p  # what such a power would give away
    faulty.__dict__["_private"] = _Faulty()
    with pytest.raises(psi.ComputeFault, match="was not sent"):
        faulty.answer(element)
    with pytest.raises(psi.ComputeFault, match="was not sent"):
        faulty.powers(["a", "b"])


# Numbers modulo n


@given(values=st.lists(elements, max_size=5))
def test_elements_come_back_from_their_bytes(values: list[int]) -> None:
    data = pack(map(mpz, values), 256)
    assert data == b"".join(value.to_bytes(256, "big") for value in values)
    assert unpack(data, mpz(N)) == values == as_numbers(data, 256)


@pytest.mark.parametrize("value", [0, 1, N - 1, N, N + 2, 2**2048 - 1])
def test_numbers_that_keep_their_value_or_have_two_spellings_are_refused(value: int) -> None:
    data = b"".join(each.to_bytes(256, "big") for each in (2, N - 2, value, 3))
    with pytest.raises(psi.BadElement, match=r"element 12 of the peer is out of range"):
        unpack(data, mpz(N), 10)


@given(numbers=st.lists(st.integers(1, N - 1), max_size=6), at=st.integers(0, 5), factor=st.integers(1, 10**6))
def test_a_number_that_shares_a_factor_is_found_in_its_place(numbers: list[int], at: int, factor: int) -> None:
    check_units([mpz(each) for each in numbers], mpz(N), 0)
    for bad in (key().p * factor % N, key().q * factor % N, 0):
        with_one = [*numbers[:at], bad, *numbers[at:]]
        with pytest.raises(psi.BadElement, match=f"element {7 + min(at, len(numbers))} of the peer shares a factor"):
            check_units([mpz(each) for each in with_one], mpz(N), 7)


@given(numbers=st.lists(st.integers(1, 1018), max_size=8))
def test_one_inversion_inverts_them_all(numbers: list[int]) -> None:
    assert inverses([mpz(each) for each in numbers], mpz(1019)) == [pow(each, -1, 1019) for each in numbers]


def test_the_width_of_a_modulus() -> None:
    assert [width_of(mpz(each)) for each in (255, 256, 2**2048 - 1, 2**2048)] == [1, 2, 256, 257]


# Curve25519


def test_the_function_of_ecdh_multiplies_the_ids_point() -> None:
    theirs = holder("ecdh")
    assert isinstance(theirs, EcdhHolder)
    domain = b"HETEROFED-PSI-V2-CS-curve25519_XMD:SHA-512_ELL2_NU_"
    point = points_of(["a"], theirs.context.derive("element"), domain)
    multiply = engines.curve("cryptography")
    assert theirs.powers(["a"]) == multiply(theirs.scalar, point)
    assert theirs.context.public == multiply(theirs.scalar, BASE_POINT)
    ours = asker("ecdh")
    assert isinstance(ours, EcdhAsker)
    assert ours.blind(["a"], b"") == (multiply(ours.scalar, point), b"")


def test_spot_checks_are_multiples_of_the_base_point_and_of_the_key_by_the_same_secret() -> None:
    ours, theirs = asker("ecdh"), holder("ecdh")
    assert len(ours.spot_checks) == SPOT_CHECKS == theirs.spot_checks == 32
    assert len({element for element, _ in ours.spot_checks}) == 32
    for element, answer in ours.spot_checks:
        theirs.check(element, 0)
        assert theirs.answer(element) == answer
    other = asker("ecdh", b"another")
    assert not {element for element, _ in ours.spot_checks} & {element for element, _ in other.spot_checks}


# Joint runs


@settings(max_examples=20, deadline=None)
@given(ids=some_ids, others=some_ids)
def test_a_store_gives_the_share_of_an_id_that_it_has_and_nothing_of_another(ids: list[str], others: list[str]) -> None:
    theirs = holder("ecdh")

    def outputs(names: list[str]) -> bytes:
        return theirs.context.outputs(names, theirs.powers(names), theirs.width)

    items = store(rows(outputs(ids), 32), ids, PAIR_KEYS, theirs.context, Seeded(b"store"))
    assert len(items) == 16 * store_items(len(ids))
    asked = [*ids, *(each for each in others if each not in ids)]
    found = unmask(rows(outputs(asked), 32), theirs.context, items).values
    expected = shares(asked, PAIR_KEYS)
    assert np.array_equal(found[: len(ids)], expected[: len(ids)])
    assert not (found[len(ids) :] == expected[len(ids) :]).any()
    other_run = Context("ecdh", TASK, b"another session", theirs.context.public)
    assert not (unmask(rows(outputs(asked), 32), other_run, items).values == expected).any()


@pytest.mark.parametrize("head", [b"\0" * 7 + b"\x40" + bytes(8), b"\1" + bytes(15), bytes(15) + b"\1"])
def test_a_store_with_an_impossible_seed_is_refused(head: bytes) -> None:
    theirs = holder("ecdh")
    items = store(rows(b"", 32), [], PAIR_KEYS, theirs.context, Seeded(b"store"))
    assert items[:16] == bytes(16)
    with pytest.raises(psi.BadMessage, match="no seed that could be"):
        unmask(rows(bytes(32), 32), theirs.context, head + items[16:])


def test_the_sizes_of_keys_are_those_of_the_standards() -> None:
    assert (rsa.MIN_KEY_BITS, rsa.RECOMMENDED_KEY_BITS, rsa.EXPONENT, rsa.KEY_PROOF_ROOTS) == (2048, 3072, 65537, 8)

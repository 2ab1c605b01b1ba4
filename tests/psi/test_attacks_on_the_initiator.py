"""What a dishonest or broken responder may send; each is refused and ends the run without a result."""

from __future__ import annotations

from collections.abc import Callable

import gmpy2
import pytest
from gmpy2 import mpz

import psi
from psi import rsa
from psi.elements import pack, unpack
from psi.hashing import RunHash, run_id
from psi.messages import KeyOffer, Kind, Side, write_chunk, write_key_offer
from tests.psi.helpers import SESSION, TASK, Seeded, answers, asked, initiator, key, prime, responder, run_of

NONCE = bytes(16)
RUN = run_id(TASK, SESSION, NONCE)
HEAD = 18 + 16
"""Bytes before the first item of a chunk."""


def offer_of(public: rsa.PublicKey, roots: list[mpz] | None = None, *, count: int = 1) -> bytes:
    return write_key_offer(KeyOffer(public, roots or [mpz(5)] * rsa.KEY_PROOF_ROOTS, count, NONCE), RUN)


P, Q = key().p, key().q


@pytest.mark.parametrize(
    ("n", "e", "fault"),
    [
        (key("short", 1024).public.n, 65537, "1024 bits; expected 2048 to 16384"),
        (prime("a") * prime("b", 1016), 65537, "2040 bits"),
        (P * Q * 2, 65537, "even"),
        (P * Q, 3, "exponent is out of range"),
        (P * Q, 1, "exponent is out of range"),
        (P * Q, 65535, "exponent is out of range"),
        (P * Q, 65538, "not an odd prime"),
        (P * Q, 65539 * 3, "not an odd prime"),
        (P * Q * 3, 65537, "a factor under 65536"),
        (P * Q * 65521, 65537, "a factor under 65536"),
        (P * P, 65537, "perfect power"),
        (prime("single", 2048), 65537, "modulus is prime"),
    ],
    ids=[
        "1024 bits", "2040 bits", "even n", "e=3", "e=1", "e=65535", "even e", "composite e", "n=3pq", "n=65521pq",
        "n=p^2", "n prime",
    ],
)  # fmt: skip
def test_a_weak_key_is_refused(n: mpz, e: int, fault: str) -> None:
    left = initiator(["a"])
    with pytest.raises(psi.WeakKey, match=fault):
        left.receive(offer_of(rsa.PublicKey(n, mpz(e))))
    with pytest.raises(psi.UsedTwice):
        left.receive(offer_of(key().public))


def test_a_key_under_which_blinding_leaks_is_refused() -> None:
    """With e | p-1 each blinded element keeps its id's class modulo e-th powers, which tests a guess of the id."""
    e = mpz(65537)
    p = prime("leaking")
    p += (1 - p) % (2 * e)  # p = 1 modulo 2e
    while not gmpy2.is_prime(p):
        p += 2 * e
    leaking = rsa.PublicKey(p * Q, e)
    run_hash = RunHash(TASK, SESSION, leaking.n)
    element = run_hash.element("a")
    hidden, _ = rsa.blind(leaking, element, Seeded(b"seed"))
    assert gmpy2.powmod(hidden, (p - 1) // e, p) == gmpy2.powmod(element, (p - 1) // e, p)  # the leak

    rsa.check_public_key(leaking)  # nothing to see without the factors
    roots = [_best_root(run_hash.proof_element(i), p, Q, e) for i in range(rsa.KEY_PROOF_ROOTS)]
    with pytest.raises(psi.WeakKey, match="proof does not hold"):
        initiator(["a"]).receive(offer_of(leaking, roots))


def _best_root(element: mpz, p: mpz, q: mpz, e: mpz) -> mpz:
    """The right root modulo q; modulo p there is none for most elements, so any number."""
    root_q = gmpy2.powmod(element, gmpy2.invert(e, q - 1), q)
    return root_q + q * ((5 - root_q) * gmpy2.invert(q, p) % p)


def test_a_key_proof_of_another_run_is_refused() -> None:
    other = RunHash(TASK, b"another session", key().public.n)
    with pytest.raises(psi.WeakKey, match="proof does not hold"):
        initiator(["a"]).receive(offer_of(key().public, rsa.prove_key(key(), other)))


def test_a_key_proof_with_one_wrong_root_is_refused() -> None:
    roots = rsa.prove_key(key(), RunHash(TASK, SESSION, key().public.n))
    assert list(initiator(["a"]).receive(offer_of(key().public, roots)))
    with pytest.raises(psi.WeakKey, match="proof does not hold"):
        initiator(["a"]).receive(offer_of(key().public, [*roots[:-1], roots[0]]))


@pytest.mark.parametrize(("session", "task"), [(b"another session", TASK), (SESSION, "task-8")])
def test_a_responder_of_another_session_or_task_is_refused_at_once(session: bytes, task: str) -> None:
    left = initiator(["a"])
    with pytest.raises(psi.BadMessage, match="another task or session"):
        left.receive(next(responder(["a"], session=session, task=task).start()))


def test_a_key_offer_of_another_version_is_refused() -> None:
    offer = bytearray(offer_of(key().public))
    offer[18] = 2
    with pytest.raises(psi.BadMessage, match="another version"):
        initiator(["a"]).receive(bytes(offer))


def _signed(ids: list[str]) -> tuple[psi.Initiator, list[bytes], list[bytes]]:
    """An initiator that asked, the signature messages it should get, and the tag messages after them."""
    left, right, chunks = asked(ids, ["1", "2", "x", "y", "z"])
    replies = answers(right, chunks)
    return left, [m for m in replies if m[1] == Kind.SIGNED], [m for m in replies if m[1] == Kind.TAGS]


def _with_items(message: bytes, change: Callable[[list[mpz]], list[mpz]]) -> bytes:
    n = key().public.n
    return message[:HEAD] + pack(change(unpack(message[HEAD:], n)), n)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: [s[1], s[0], *s[2:]],
        lambda s: [s[0], s[0], *s[2:]],
        lambda s: [s[0], key().public.n - s[1], *s[2:]],
        lambda s: [s[0], mpz(2), *s[2:]],
        lambda s: [s[0], key("other").power(s[1]) % key().public.n, *s[2:]],
    ],
    ids=["swapped", "doubled", "negated", "made up", "another key"],
)
def test_a_wrong_signature_is_refused(change: Callable[[list[mpz]], list[mpz]]) -> None:
    left, signed, _ = _signed(["1", "2", "3"])
    with pytest.raises(psi.BadElement, match=r"signature [01] of the responder does not verify"):
        left.receive(_with_items(signed[0], change))
    with pytest.raises(psi.NotYet):
        _ = left.intersection


@pytest.mark.parametrize("value", [0, 1, key().public.n - 1, key().public.n], ids=["zero", "one", "minus one", "n"])
def test_a_signature_outside_the_group_is_refused(value: int) -> None:
    left, signed, _ = _signed(["1", "2"])
    width = key().public.width
    with pytest.raises(psi.BadElement, match="element 0 of the peer is out of range"):
        left.receive(signed[0][:HEAD] + value.to_bytes(width, "big") + signed[0][HEAD + width :])


def test_signatures_under_another_key_of_the_same_responder_are_refused() -> None:
    left, _, chunks = asked(["1"], ["1"])
    element = unpack(chunks[0][HEAD:], key().public.n)[0]
    other = key("other")
    forged = other.power(element % other.public.n)
    with pytest.raises(psi.BadElement):
        left.receive(_signed_chunk(run_of(chunks[0]), [forged % key().public.n], total=1))


def _signed_chunk(run: bytes, values: list[mpz], *, total: int) -> bytes:
    return write_chunk(Side.RESPONDER, Kind.SIGNED, run, 0, total, pack(values, key().public.n))


def test_reordered_signature_messages_are_refused() -> None:
    left, signed, _ = _signed([str(i) for i in range(8)])
    with pytest.raises(psi.BadMessage, match="from position 4 came; expected position 0"):
        left.receive(signed[1])


def test_reordered_signature_messages_with_changed_positions_are_refused() -> None:
    left, signed, _ = _signed([str(i) for i in range(8)])
    with pytest.raises(psi.BadElement, match="signature 0 "):
        left.receive(signed[0][:HEAD] + signed[1][HEAD:])


def test_a_replayed_signature_message_is_refused() -> None:
    left, signed, _ = _signed([str(i) for i in range(8)])
    left.receive(signed[0])
    with pytest.raises(psi.BadMessage, match="from position 0 came; expected position 4"):
        left.receive(signed[0])


def test_fewer_signatures_than_asked_are_refused() -> None:
    left, signed, tags = _signed([str(i) for i in range(8)])
    left.receive(signed[0])
    with pytest.raises(psi.BadMessage, match="expected only a signed message"):
        left.receive(tags[0])


def test_another_number_of_signatures_is_refused() -> None:
    left, _, chunks = asked(["1"], ["1"])
    with pytest.raises(psi.BadMessage, match="second declaration of 2"):
        left.receive(_signed_chunk(run_of(chunks[0]), [mpz(5), mpz(7)], total=2))


def test_signatures_of_elements_that_were_not_sent_are_refused() -> None:
    left, right = initiator(["1", "2"], chunk=1), responder(["1"])
    sending = left.receive(next(right.start()))
    first = next(sending)
    with pytest.raises(psi.BadMessage, match="not sent; expected at most 1"):
        left.receive(_signed_chunk(run_of(first), [mpz(5), mpz(7)], total=2))
    with pytest.raises(psi.UsedTwice):
        next(sending)


def test_tags_before_the_signatures_are_refused() -> None:
    left, _, tags = _signed(["1"])
    with pytest.raises(psi.BadMessage, match="expected only a signed message"):
        left.receive(tags[0])


def test_another_number_of_tags_than_offered_is_refused() -> None:
    left, signed, tags = _signed(["1"])
    answers(left, signed)
    with pytest.raises(psi.BadMessage, match="second declaration of 6 for the tags items; expected 5 as agreed"):
        left.receive(write_chunk(Side.RESPONDER, Kind.TAGS, run_of(tags[0]), 0, 6, tags[0][HEAD:]))


def test_a_repeated_tag_is_refused() -> None:
    left, signed, tags = _signed(["1"])
    answers(left, [*signed, tags[0]])
    again = write_chunk(Side.RESPONDER, Kind.TAGS, run_of(tags[0]), 4, 5, tags[0][HEAD : HEAD + 16])
    with pytest.raises(psi.BadMessage, match="came twice"):
        left.receive(again)
    assert not left.matched


def test_tags_after_the_last_are_refused() -> None:
    left, signed, tags = _signed(["1"])
    answers(left, [*signed, *tags])
    with pytest.raises(psi.BadMessage, match="waiting for the reveal; expected nothing more"):
        left.receive(tags[0])


def test_a_second_key_offer_is_refused() -> None:
    left, right = initiator(["1"]), responder(["1"])
    offer = next(right.start())
    answers(left, [offer])
    with pytest.raises(psi.BadMessage, match=r"a key offer message .*expected only a signed message"):
        left.receive(offer)


def test_a_message_of_another_run_is_refused() -> None:
    left, signed, _ = _signed(["1"])
    with pytest.raises(psi.BadMessage, match="another run"):
        left.receive(signed[0][:2] + bytes(16) + signed[0][18:])


def test_a_message_reflected_to_the_initiator_is_refused() -> None:
    left, _, chunks = asked(["1"], ["1"])
    with pytest.raises(psi.WrongRole, match="a message of the initiator came to the initiator"):
        left.receive(chunks[0])


def test_a_key_proof_with_too_few_roots_is_refused() -> None:
    run_hash = RunHash(TASK, SESSION, key().public.n)
    roots = rsa.prove_key(key(), run_hash)
    for some in ([], roots[:-1]):
        with pytest.raises(psi.WeakKey, match="proof does not hold"):
            rsa.check_key_proof(key().public, run_hash, some)


@pytest.mark.parametrize("count", [0, 10**10 + 1])
def test_an_offer_for_an_impossible_number_of_ids_is_refused(count: int) -> None:
    with pytest.raises(psi.BadMessage, match="impossible number of ids"):
        initiator(["1"]).receive(offer_of(key().public, count=count))


def test_an_offer_whose_lengths_do_not_fit_is_refused() -> None:
    offer = bytearray(offer_of(key().public))
    offer[18 + 29 : 18 + 31] = (255).to_bytes(2, "big")  # the width
    with pytest.raises(psi.BadMessage, match="not as long as its key says"):
        initiator(["1"]).receive(bytes(offer))


def test_a_modulus_with_leading_zeros_is_refused() -> None:
    """One number must not have two spellings: the hashes take the shortest."""
    offer = offer_of(key().public)
    padded = offer[: 18 + 31] + bytes(1) + offer[18 + 32 :]
    with pytest.raises(psi.BadMessage, match="starts with a zero byte"):
        initiator(["1"]).receive(padded)

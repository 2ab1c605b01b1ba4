"""What a dishonest or broken responder may send; each is refused and ends the run without a result.

Points of Curve25519, spot checks and exchanged answers of `ecdh`: see `test_attacks_with_ecdh`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import permutations

import gmpy2
import pytest
from gmpy2 import mpz

import psi
from psi import rsa
from psi.hashing import Context, run_id
from psi.joint import store_items
from psi.messages import MAX_IDS, Kind, Offer, Side, Terms, Writer, read_confirm
from psi.modular import full_domain, pack, unpack
from psi.oprf import ECDH, RSA
from psi.run import terms_of
from tests.psi.attacks import (
    AT_ONCE,
    PROTOCOLS,
    TERMS,
    both,
    declared,
    end,
    flipped,
    over,
    refused,
    swapped,
    with_items,
    writer_of,
)
from tests.psi.helpers import (
    CHUNK_HEAD,
    HEAD,
    SESSION,
    SPOTS,
    TASK,
    WIDTH,
    Seeded,
    TermsOf,
    answers,
    asked,
    carry,
    chunk_of,
    holder,
    initiator,
    items_of,
    key,
    matched,
    of_kind,
    prime,
    responder,
    run_of,
    started,
)

NONCE = bytes(16)
N, P, Q = key().n, key().p, key().q

each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
each_terms = pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)


def offer_of(
    public: bytes,
    *,
    count: int = 1,
    protocol: str = RSA,
    reveal: str = "both",
    joint: bool = False,
    task: str = TASK,
    session: bytes = SESSION,
) -> bytes:
    """An offer of any public part."""
    run = run_id(protocol, task, session, NONCE)
    return Writer(Side.RESPONDER, run).offer(Offer(terms_of(protocol, reveal, joint), NONCE, count, public))


def key_of(n: int, e: int, roots: list[mpz] | None = None) -> bytes:
    """The public part of an `rsa` offer."""
    bare = rsa.PublicKey(mpz(n), mpz(e))
    return bare.to_bytes() + pack(roots or [mpz(5)] * rsa.KEY_PROOF_ROOTS, bare.width)


GOOD = holder().context.public


@pytest.mark.parametrize(
    ("n", "e", "fault"),
    [
        (prime("a", 512) * prime("b", 512), 65537, "its modulus has 1024 bits; expected 2048 to 16384"),
        (prime("a") * prime("b", 1016), 65537, "its modulus has 2040 bits"),
        (255, 65537, "its modulus has 8 bits"),
        (P * Q * 2, 65537, "its modulus is even"),
        (1 << 16383, 65537, "its modulus is even"),
        (P * Q, 3, "its public exponent is out of range; expected 65537 to"),
        (P * Q, 1, "its public exponent is out of range"),
        (P * Q, 0, "its public exponent is out of range"),
        (P * Q, 65535, "its public exponent is out of range"),
        (P * Q, 65538, "its public exponent is not an odd prime"),
        (P * Q, 65539 * 3, "its public exponent is not an odd prime"),
        (P * Q * 3, 65537, "its modulus has a factor under 65536"),
        (P * Q * 65521, 65537, "its modulus has a factor under 65536"),
        (P * P, 65537, "its modulus is a perfect power"),
        (prime("third", 688) ** 3, 65537, "its modulus is a perfect power"),
        (prime("single", 2048), 65537, "its modulus is prime"),
    ],
    ids=[
        "1024 bits", "2040 bits", "8 bits", "even n", "even n of 16384 bits", "e=3", "e=1", "e=0", "e=65535", "even e",
        "composite e", "n=3pq", "n=65521pq", "n=p^2", "n=p^3", "n prime",
    ],
)  # fmt: skip
def test_a_weak_key_is_refused(n: int, e: int, fault: str) -> None:
    refused(initiator(["a"]), offer_of(key_of(n, e)), psi.WeakKey, f"the responder's key cannot be used: {fault}")


def test_a_key_that_is_too_long_for_an_offer_is_refused_as_well() -> None:
    """A modulus or an exponent of such a length has no place in an offer; the check of a key does not count on that."""
    with pytest.raises(psi.WeakKey, match="its modulus has 16385 bits; expected 2048 to 16384"):
        rsa.check_public_key(rsa.PublicKey(mpz(2) ** 16384 + 1, mpz(65537)))
    with pytest.raises(psi.WeakKey, match="public exponent is out of range"):
        rsa.check_public_key(rsa.PublicKey(mpz(N), gmpy2.next_prime(mpz(2) ** 32)))


def test_a_key_with_another_prime_exponent_is_taken() -> None:
    """Up to the greatest prime of 32 bits; at both parties."""
    numbers = rsa.numbers_from_primes(P, Q, 2**32 - 5)
    left, right = initiator(["a", "b"]), responder(["b", "c"], numbers=numbers)
    carry(left, right, right.start())
    assert left.intersection == ["b"]


def test_no_weak_key_is_made() -> None:
    for bits in (1024, 2040, 2052, 16392):
        with pytest.raises(psi.BadArgument, match=f"key_bits is {bits}; expected a multiple of 8 from 2048 to 16384"):
            rsa.generate(bits)
    rsa.check_key_bits(2048)
    rsa.check_key_bits(16384)


def test_a_key_under_which_blinding_leaks_is_refused() -> None:
    """With e | p-1 each blinded element keeps its id's class modulo e-th powers, which tests a guess of the id."""
    e = mpz(65537)
    p = mpz(prime("leaking"))
    p += (1 - p) % (2 * e)  # p = 1 modulo 2e
    while not gmpy2.is_prime(p):
        p += 2 * e
    n = p * Q
    bare = rsa.PublicKey(n, e)
    context = Context(RSA, TASK, SESSION, bare.to_bytes())
    asker = rsa.RsaAsker(context, int(n), int(e), "gmpy2")
    (hidden,) = unpack(asker.blind(["a"], Seeded(b"seed")(asker.entropy))[0], n)
    (element,) = full_domain(["a"], context.derive("element"), n)
    assert gmpy2.powmod(hidden, (p - 1) // e, p) == gmpy2.powmod(element, (p - 1) // e, p)  # the leak

    rsa.check_public_key(bare)  # nothing to see without the factors
    roots = [_best_root(mpz(int.from_bytes(each, "big")), p, mpz(Q), e) for each in rsa.proof_elements(context, int(n))]
    forged = offer_of(key_of(int(n), int(e), roots))
    refused(initiator(["a"]), forged, psi.WeakKey, "its proof does not hold; expected 8 roots")


def _best_root(element: mpz, p: mpz, q: mpz, e: mpz) -> mpz:
    """The right root modulo q; modulo p there is none for most elements, so any number."""
    root_q = gmpy2.powmod(element, gmpy2.invert(e, q - 1), q)
    return root_q + q * ((5 - root_q) * gmpy2.invert(q, p) % p)


@pytest.mark.parametrize("other", [{"session": b"another session"}, {"task": "task-8"}], ids=["session", "task"])
def test_a_key_proof_of_another_run_is_refused(other: dict[str, str]) -> None:
    """A proof can be lent or found by trying, if it is not bound to the run."""
    public = holder(**other).context.public
    refused(initiator(["a"]), offer_of(public), psi.WeakKey, "its proof does not hold")


@pytest.mark.parametrize("which", range(rsa.KEY_PROOF_ROOTS))
def test_a_key_proof_with_one_wrong_root_is_refused(which: int) -> None:
    head, width = len(GOOD) - 8 * 256, 256
    roots = [GOOD[head + at * width : head + (at + 1) * width] for at in range(8)]
    roots[which] = roots[which - 1]
    refused(initiator(["a"]), offer_of(GOOD[:head] + b"".join(roots)), psi.WeakKey, "its proof does not hold")


def test_the_key_that_these_tests_spoil_is_taken_as_it_is() -> None:
    assert list(initiator(["a"]).receive(offer_of(GOOD)))


@pytest.mark.parametrize("root", [0, 1, N - 1, N, 2**2048 - 1], ids=["zero", "one", "n-1", "n", "above n"])
def test_a_root_outside_the_group_is_refused(root: int) -> None:
    public = GOOD[:-256] + root.to_bytes(256, "big")
    refused(initiator(["a"]), offer_of(public), psi.BadElement, "element 7 of the peer is out of range")


def test_a_root_in_a_second_spelling_is_refused() -> None:
    """The root plus n is the same number; an engine would take it."""
    spelled = next(
        (at, int.from_bytes(GOOD[at : at + 256], "big") + N)
        for at in range(len(GOOD) - 8 * 256, len(GOOD), 256)
        if int.from_bytes(GOOD[at : at + 256], "big") + N < 2**2048
    )
    public = GOOD[: spelled[0]] + spelled[1].to_bytes(256, "big") + GOOD[spelled[0] + 256 :]
    refused(initiator(["a"]), offer_of(public), psi.BadElement, "of the peer is out of range")


@pytest.mark.parametrize(
    ("public", "fault"),
    [
        (b"", "the responder's key is too short"),
        (GOOD[:5], "the responder's key is too short"),
        (GOOD[:6], "the responder's key is not as long as it says; expected a modulus and 8 roots"),
        (GOOD[:-1], "the responder's key is not as long as it says"),
        (GOOD[:-256], "the responder's key is not as long as it says"),
        (GOOD + b"\0", "the responder's key is not as long as it says"),
        (GOOD[:4] + b"\0\0" + GOOD[6:], "the responder's key is not as long as it says"),
        (GOOD[:4] + b"\0\0", "the responder's key is not as long as it says"),
        (struct.pack(">IH", 65537, 2049) + bytes([255]) * (9 * 2049), "the responder's key is not as long as it says"),
        (GOOD[:6] + bytes(1) + GOOD[7:], "the responder's key has a modulus that starts with a zero byte"),
    ],
    ids=[
        "nothing", "cut in the head", "head alone", "one byte less", "seven roots", "one byte more", "width 0",
        "width 0 alone", "wider than can be", "leading zero",
    ],
)  # fmt: skip
def test_a_malformed_key_is_refused(public: bytes, fault: str) -> None:
    refused(initiator(["a"]), offer_of(public), psi.BadMessage, fault)


@each_protocol
@pytest.mark.parametrize("other", [{"session": b"another session"}, {"task": "task-8"}], ids=["session", "task"])
def test_a_responder_of_another_session_or_task_is_refused_at_once(protocol: str, other: dict[str, str]) -> None:
    stranger = responder(["a"], protocol=protocol, **other)  # type: ignore[arg-type]  # one of two keywords
    refused(initiator(["a"], protocol=protocol), next(stranger.start()), psi.BadMessage, "another task or session")


@each_protocol
def test_an_offer_with_another_nonce_is_refused(protocol: str) -> None:
    offer = next(responder(["a"], protocol=protocol).start())
    refused(initiator(["a"], protocol=protocol), flipped(offer, HEAD + 4), psi.BadMessage, "another task or session")


@each_protocol
def test_an_offer_under_another_run_id_is_refused(protocol: str) -> None:
    offer = next(responder(["a"], protocol=protocol).start())
    refused(initiator(["a"], protocol=protocol), flipped(offer, 3), psi.BadMessage, "another task or session")


@pytest.mark.parametrize(("mine", "theirs"), list(permutations(TERMS, 2)))
def test_a_responder_on_other_terms_is_refused_and_both_terms_are_named(mine: str, theirs: str) -> None:
    left = initiator(["a"], **TERMS[mine])
    right, _ = started(["a"], **TERMS[theirs])
    assert right._offer is not None
    offer = Writer(Side.RESPONDER, right._writer.run).offer(right._offer)
    refused(left, offer, psi.BadMessage, f"offers {right.terms}; expected {left.terms}. Give both parties the same arg")


def test_the_terms_in_that_text_are_words_that_a_user_chose() -> None:
    assert str(Terms(RSA, psi.Reveal.BOTH, False)) == "protocol='rsa', reveal='both', joint=False"
    assert str(terms_of(ECDH, "initiator", True)) == "protocol='ecdh', reveal='initiator', joint=True"


@pytest.mark.parametrize(
    ("position", "value"), [(1, 0), (1, 3), (2, 0), (2, 4), (3, 2), (3, 255)], ids=lambda value: str(value)
)
def test_an_offer_on_unknown_terms_is_refused(position: int, value: int) -> None:
    offer = bytearray(offer_of(GOOD))
    offer[HEAD + position] = value
    refused(initiator(["a"]), bytes(offer), psi.BadMessage, "an offer on unknown terms; expected a known protocol")


@pytest.mark.parametrize("version", [0, 1, 3, 255])
def test_an_offer_of_another_version_is_refused(version: int) -> None:
    offer = bytearray(offer_of(GOOD))
    offer[HEAD] = version
    refused(initiator(["a"]), bytes(offer), psi.BadMessage, "of another version; expected version 2. Both parties need")


def test_an_offer_without_its_fields_is_refused() -> None:
    offer = offer_of(GOOD)
    refused(initiator(["a"]), offer[:HEAD], psi.BadMessage, "of another version")
    refused(initiator(["a"]), offer[: HEAD + 27], psi.BadMessage, "too short for an offer; expected its fixed fields")


@pytest.mark.parametrize("count", [MAX_IDS + 1, 2**64 - 1])
def test_an_offer_for_an_impossible_number_of_ids_is_refused(count: int) -> None:
    refused(initiator(["a"]), offer_of(GOOD, count=count), psi.BadMessage, "an offer for an impossible number of ids")


@pytest.mark.parametrize("count", [2**30 + 1, MAX_IDS])
def test_an_offer_of_a_store_that_cannot_be_is_refused(count: int) -> None:
    """And blamed on the peer: our own arguments are fine."""
    offer = offer_of(GOOD, count=count, joint=True)
    refused(initiator(["a"], joint=True), offer, psi.BadMessage, f"a store of {count} ids, more than a store can hold")


@each_protocol
def test_a_second_offer_is_refused(protocol: str) -> None:
    left, right = initiator(["1"], protocol=protocol), responder(["1"], protocol=protocol)
    offer = next(right.start())
    answers(left, [offer])
    refused(left, offer, psi.BadMessage, "kind offer while this run is exchanging blinded ids; expected .* answers")


@each_terms
@pytest.mark.parametrize("kind", [Kind.ANSWERS, Kind.TAGS, Kind.CELLS, Kind.ACK, Kind.CONFIRM, Kind.RESUMED])
def test_anything_before_the_offer_is_refused(terms: TermsOf, kind: Kind) -> None:
    _, run = started(["a"], **terms)
    message = Writer(Side.RESPONDER, run).chunk(kind, 0, 1, bytes(16))
    text = f"kind {kind.name.lower()} while this run is waiting for the offer; expected a message of kind offer"
    refused(initiator(["a"], **terms), message, psi.BadMessage, text)


def _replies(
    ids: list[str], protocol: str = RSA, *, chunk: int = 4, reveal: str = "both"
) -> tuple[psi.Initiator, list[bytes], list[bytes]]:
    """An initiator that asked, the answers that it should get, and the tags after them."""
    left = initiator(ids, protocol=protocol, chunk=chunk, reveal=reveal)
    right = responder(["1", "2", "x", "y", "z"], protocol=protocol, chunk=chunk, reveal=reveal)
    replies = answers(right, answers(left, right.start()))
    return left, of_kind(replies, Kind.ANSWERS), of_kind(replies, Kind.TAGS)


def _power(number: mpz, which: str = "test") -> mpz:
    numbers = key(which)
    d = gmpy2.invert(numbers.e, (numbers.p - 1) * (numbers.q - 1))
    return gmpy2.powmod(number, d, numbers.n)


@pytest.mark.parametrize(
    ("change", "which"),
    [
        (lambda s: [s[1], s[0], *s[2:]], 0),
        (lambda s: [s[0], s[2], s[1]], 1),
        (lambda s: [s[0], s[0], *s[2:]], 1),
        (lambda s: [s[0], N - s[1], *s[2:]], 1),
        (lambda s: [s[0], mpz(2), *s[2:]], 1),
        (lambda s: [s[0], s[1], P * 99], 2),
        (lambda s: [s[0], s[1], Q * 77], 2),
        (lambda s: [_power(pow(each, 65537, N), "other") % N for each in s], 0),
    ],
    ids=["swapped", "last two swapped", "doubled", "negated", "made up", "multiple of p", "multiple of q", "other key"],
)
def test_a_wrong_signature_is_refused(change: Callable[[list[mpz]], list[mpz]], which: int) -> None:
    left, (signed,), _ = _replies(["1", "2", "3"])
    values = change(unpack(signed[CHUNK_HEAD:], mpz(N)))
    message = signed[:CHUNK_HEAD] + pack([mpz(each) for each in values], 256)
    text = f"signature {which} of the responder does not verify; expected the power of the element in its place"
    refused(left, message, psi.BadElement, text)


def test_a_wrong_signature_is_named_by_its_place_in_the_run() -> None:
    left, (first, second), _ = _replies([str(i) for i in range(8)])
    answers(left, [first])
    message = with_items(second, 256, swapped(2, 3))
    refused(left, message, psi.BadElement, "signature 6 of the responder does not verify")


@pytest.mark.parametrize("value", [0, 1, N - 1, N, N + 7, 2**2048 - 1], ids=["0", "1", "n-1", "n", "n+7", "2^2048-1"])
def test_a_signature_outside_the_group_is_refused(value: int) -> None:
    left, (signed,), _ = _replies(["1", "2"])
    message = with_items(signed, 256, lambda items: [items[0], value.to_bytes(256, "big")])
    refused(left, message, psi.BadElement, "element 1 of the peer is out of range; expected 2..n-2")


def test_a_signature_in_a_second_spelling_is_refused() -> None:
    """s + n has the right power. Taken as it is, it would make other bytes of the same result."""
    left, (signed,), _ = _replies(["1", "2", "3"])

    def above(items: list[bytes]) -> list[bytes]:
        values = [int.from_bytes(each, "big") for each in items]
        assert min(values) + N < 2**2048
        return [(value + N if value + N < 2**2048 else value).to_bytes(256, "big") for value in values]

    refused(left, with_items(signed, 256, above), psi.BadElement, "element [012] of the peer is out of range")


def test_all_answers_under_another_key_are_refused() -> None:
    """A second key of the same responder, after the offer of the first."""
    left, right = initiator(["1", "2"]), responder(["1"])
    larger = next(numbers for at in range(99) if (numbers := key(f"other {at}")).n > N)  # so that each element fits
    other = responder(["1"], numbers=larger)
    chunks = answers(left, right.start())
    next(other.start())
    other._writer = right._writer
    signed = next(other.receive(chunks[0]))
    refused(left, signed, psi.BadElement, "of the responder does not verify|is out of range")


@each_protocol
def test_reordered_answers_are_refused(protocol: str) -> None:
    left, signed, _ = _replies([str(i) for i in range(8)], protocol)
    refused(left, signed[1], psi.BadMessage, "the answers items from position 4 came; expected position 0")


def test_reordered_signatures_with_changed_positions_are_refused() -> None:
    left, signed, _ = _replies([str(i) for i in range(8)])
    refused(left, signed[0][:CHUNK_HEAD] + signed[1][CHUNK_HEAD:], psi.BadElement, "signature 0 .*does not verify")


@each_protocol
def test_replayed_answers_are_refused(protocol: str) -> None:
    left, signed, _ = _replies([str(i) for i in range(8)], protocol)
    answers(left, signed[:1])
    refused(left, signed[0], psi.BadMessage, "the answers items from position 0 came; expected position 4")


@each_protocol
def test_answers_of_another_run_are_refused(protocol: str) -> None:
    left, signed, _ = _replies(["1"], protocol)
    message = signed[0][:3] + bytes(16) + signed[0][HEAD:]
    refused(left, message, psi.BadMessage, "the peer's message belongs to another run; expected this run's id")


@each_protocol
@pytest.mark.parametrize("other", [{"session": b"another session"}, {"task": "task-8"}], ids=["session", "task"])
def test_answers_of_another_session_or_task_are_refused(protocol: str, other: dict[str, str]) -> None:
    elsewhere = responder(["1"], protocol=protocol, **other)  # type: ignore[arg-type]  # one of two keywords
    next(elsewhere.start())
    tags = next(elsewhere.advance())
    left, _, _ = asked(["1"], ["1"], protocol=protocol)
    refused(left, tags, psi.BadMessage, "the peer's message belongs to another run; expected this run's id")


@each_protocol
@pytest.mark.parametrize("change", [1, -1], ids=["more", "fewer"])
def test_another_number_of_answers_than_asked_is_refused(protocol: str, change: int) -> None:
    left, signed, _ = _replies(["1", "2", "3", "4", "5"], protocol)
    total = 5 + SPOTS[protocol]
    message = declared(signed[0], total=total + change)
    refused(left, message, psi.BadMessage, f"a second declaration of {total + change} for the answers items; expected")


@each_protocol
def test_one_answer_too_few_in_a_message_is_refused(protocol: str) -> None:
    left, signed, _ = _replies(["1", "2", "3", "4", "5"], protocol)
    message = with_items(signed[0], WIDTH[protocol], lambda items: items[:-1])
    refused(left, message, psi.BadMessage, "3 answers came; expected those to one whole chunk that was asked")


@each_protocol
def test_one_answer_too_many_in_a_message_is_refused(protocol: str) -> None:
    left, signed, _ = _replies(["1", "2", "3", "4", "5"], protocol)
    extra = items_of(signed[1], WIDTH[protocol])[0]
    message = with_items(signed[0], WIDTH[protocol], lambda items: [*items, extra])
    refused(left, message, psi.BadMessage, "5 answers came; expected those to one whole chunk that was asked")


@each_protocol
def test_more_answers_than_the_whole_run_has_are_refused(protocol: str) -> None:
    left, signed, _ = _replies(["1", "2"], protocol, chunk=AT_ONCE)
    total = 2 + SPOTS[protocol]
    message = with_items(signed[0], WIDTH[protocol], lambda items: [*items, items[0]])
    refused(left, message, psi.BadMessage, f"a message of {total + 1} of the answers items; expected 1 to {total}")


@each_protocol
def test_an_empty_message_of_answers_is_refused(protocol: str) -> None:
    left, signed, _ = _replies(["1", "2"], protocol)
    refused(left, signed[0][:CHUNK_HEAD], psi.BadMessage, "a message of 0 of the answers items")


@each_protocol
def test_half_an_answer_is_refused(protocol: str) -> None:
    left, signed, _ = _replies(["1", "2"], protocol)
    refused(left, signed[0][:-1], psi.BadMessage, "the answers items that is cut or too long")


@each_protocol
def test_answers_to_elements_that_were_not_sent_are_refused(protocol: str) -> None:
    left = initiator(["1", "2"], protocol=protocol, chunk=1)
    right = responder(["1"], protocol=protocol)
    sending = left.receive(next(right.start()))
    first = next(sending)
    total = 2 + SPOTS[protocol]
    items = [bytes([9]) * WIDTH[protocol], bytes([8]) * WIDTH[protocol]]
    own = writer_of(first, Side.RESPONDER)
    refused(left, own.chunk(Kind.ANSWERS, 0, total, b"".join(items)), psi.BadMessage, "2 answers came; expected those")
    assert not list(sending)  # and no further element leaves


@each_protocol
def test_an_answer_before_any_element_was_sent_is_refused(protocol: str) -> None:
    left, right = initiator(["1", "2"], protocol=protocol), responder(["1"], protocol=protocol)
    offer = next(right.start())
    sending = left.receive(offer)
    own = writer_of(offer, Side.RESPONDER)
    message = own.chunk(Kind.ANSWERS, 0, 2 + SPOTS[protocol], bytes([9]) * WIDTH[protocol])
    refused(left, message, psi.BadMessage, "1 answers came; expected those to one whole chunk")
    assert not list(sending)


@each_protocol
def test_answers_after_the_last_are_refused(protocol: str) -> None:
    left, signed, _ = _replies(["1", "2"], protocol)
    answers(left, signed)
    total = 2 + SPOTS[protocol]
    message = declared(with_items(signed[-1], WIDTH[protocol], lambda items: items[:1]), position=total)
    refused(left, message, psi.BadMessage, "a message of 1 of the answers items; expected 1 to 0")


@each_protocol
@pytest.mark.parametrize("change", [1, -1], ids=["more", "fewer"])
def test_another_number_of_tags_than_offered_is_refused(protocol: str, change: int) -> None:
    left, signed, tags = _replies(["1"], protocol)
    answers(left, signed)
    message = declared(tags[0], total=5 + change)
    refused(left, message, psi.BadMessage, f"second declaration of {5 + change} for the tags items; expected 5 as")


@each_protocol
def test_one_tag_more_than_offered_is_refused(protocol: str) -> None:
    left, signed, tags = _replies(["1"], protocol)
    answers(left, [*signed, tags[0]])
    message = with_items(tags[1], 16, lambda items: [*items, bytes(16)])
    refused(left, message, psi.BadMessage, "a message of 2 of the tags items; expected 1 to 1")


@each_protocol
def test_fewer_tags_than_offered_give_no_result(protocol: str) -> None:
    left, signed, tags = _replies(["1", "2"], protocol)
    answers(left, [*signed, *tags[:-1]])
    assert not left.matched
    with pytest.raises(psi.NotYet, match="nothing can be revealed: this run is exchanging blinded ids"):
        left.reveal()
    with pytest.raises(psi.NotYet, match="the result is not known"):
        _ = left.intersection
    message = writer_of(tags[0], Side.RESPONDER).confirm(0, bytes(32))
    refused(left, message, psi.BadMessage, "kind confirm while this run is exchanging blinded ids")


@each_protocol
def test_a_tag_repeated_in_one_message_is_refused(protocol: str) -> None:
    left, _, tags = _replies(["1"], protocol)
    message = with_items(tags[0], 16, lambda items: [items[0], items[1], items[1], items[3]])
    refused(left, message, psi.BadMessage, "a tag of the responder came twice; expected one for each id")


@each_protocol
def test_a_tag_repeated_in_a_later_message_is_refused(protocol: str) -> None:
    left, signed, tags = _replies(["1"], protocol)
    answers(left, [*signed, tags[0]])
    message = with_items(tags[1], 16, lambda items: items_of(tags[0], 16)[:1])
    refused(left, message, psi.BadMessage, "a tag of the responder came twice; expected one for each id")
    assert not left.matched


@each_protocol
def test_replayed_and_reordered_tags_are_refused(protocol: str) -> None:
    left, _, tags = _replies(["1"], protocol)
    answers(left, tags[:1])
    refused(left, tags[0], psi.BadMessage, "the tags items from position 0 came; expected position 4")
    left, _, tags = _replies(["1"], protocol)
    refused(left, tags[1], psi.BadMessage, "the tags items from position 4 came; expected position 0")


@each_protocol
def test_half_a_tag_is_refused(protocol: str) -> None:
    left, _, tags = _replies(["1"], protocol)
    refused(left, tags[0][:-1], psi.BadMessage, "the tags items that is cut or too long; expected items of 16 bytes")


@each_protocol
def test_tags_after_the_last_are_refused(protocol: str) -> None:
    left, signed, tags = _replies(["1"], protocol)
    answers(left, [*signed, *tags])
    refused(left, tags[0], psi.BadMessage, "kind tags while this run is ready to reveal")


@each_protocol
def test_a_tag_changed_on_the_way_shows_at_the_end(protocol: str) -> None:
    """The initiator sees an id less; the responder, in the digest, that the tags were not its own."""
    left, right = both(["a", "b"], ["a", "b", "c"], protocol=protocol)
    left._chunk = AT_ONCE
    *replies, tags = answers(right, answers(left, right.start()))
    answers(left, [*replies, with_items(tags, 16, lambda items: [bytes([each[0] ^ 1]) + each[1:] for each in items])])
    assert left.intersection == []
    reveal, confirm = left.reveal()
    answers(right, [reveal])
    refused(right, confirm, psi.ResultMismatch, "the parties' results differ: an id was lost, added or altered")


@each_terms
def test_tags_in_another_order_on_the_way_show_at_the_end(terms: TermsOf) -> None:
    """Nothing is lost by it, but what one said is not what the other heard."""
    left, right = both(["a", "b"], ["a", "b", "c"], **terms)
    left._chunk = right._chunk = AT_ONCE
    *replies, items = carry_until_items(left, right)
    answers(left, [*replies, with_items(items, 16, swapped(1, 2))])
    *reveal, confirm = end(left)
    answers(right, reveal)
    refused(right, confirm, psi.ResultMismatch, "the parties' results differ")


def carry_until_items(left: psi.Initiator, right: psi.Responder) -> list[bytes]:
    """What the responder says once it has been asked everything."""
    return answers(right, answers(left, right.start()))


@each_protocol
def test_a_check_changed_on_the_way_is_refused(protocol: str) -> None:
    """The four bytes behind the tag bind it to the id."""
    left, signed, tags = _replies(["1"], protocol, chunk=AT_ONCE)
    message = with_items(tags[0], 16, lambda items: [each[:-1] + bytes([each[-1] ^ 1]) for each in items])
    answers(left, signed)
    refused(left, message, psi.BadElement, "matches an id that its check does not fit; expected an answer to each")


@each_protocol
def test_made_up_tags_match_nothing(protocol: str) -> None:
    left, signed, tags = _replies(["1", "2"], protocol)
    forged = [with_items(each, 16, lambda items: [Seeded(item)(16) for item in items]) for each in tags]
    answers(left, [*signed, *forged])
    assert left.intersection == []


@each_terms
def test_tags_in_place_of_a_store_and_a_store_in_place_of_tags_are_refused(terms: TermsOf) -> None:
    left, _, chunks = asked(["1"], ["1"], **terms)
    wrong, right = (Kind.TAGS, "cells") if terms.get("joint") else (Kind.CELLS, "tags")
    message = writer_of(chunks[0], Side.RESPONDER).chunk(wrong, 0, 1, bytes(16))
    text = f"kind {wrong.name.lower()} while this run is exchanging blinded ids; expected .* kind {right}"
    refused(left, message, psi.BadMessage, text)


@pytest.mark.parametrize("name", [name for name in TERMS if name != "ecdh, cardinality"])
def test_an_ack_that_the_terms_do_not_have_is_refused(name: str) -> None:
    left, _, chunks = asked(["1"], ["1"], **TERMS[name])
    message = writer_of(chunks[0], Side.RESPONDER).ack(1)
    refused(left, message, psi.BadMessage, "kind ack while this run is exchanging blinded ids; expected .* answers")


def _cardinality(chunk: int = 4) -> tuple[psi.Initiator, psi.Responder, list[bytes]]:
    left = initiator(["1", "2"], chunk=chunk, **TERMS["ecdh, cardinality"])
    right = responder(["2", "3"], chunk=chunk, **TERMS["ecdh, cardinality"])
    return left, right, answers(left, right.start())


def test_an_ack_of_more_than_was_sent_is_refused() -> None:
    left, _, chunks = _cardinality()
    message = writer_of(chunks[0], Side.RESPONDER).ack(35)
    refused(left, message, psi.BadMessage, "acknowledges more than was sent; expected no more")


def test_an_ack_that_goes_back_makes_no_new_room() -> None:
    left = initiator([str(i) for i in range(100)], **TERMS["ecdh, cardinality"])
    right = responder(["1"], **TERMS["ecdh, cardinality"])
    chunks = answers(left, right.start())
    own = writer_of(chunks[0], Side.RESPONDER)
    assert len(chunks) == 16 and len(answers(left, [own.ack(8)])) == 2
    assert not answers(left, [own.ack(4), own.ack(8)])


def test_an_ack_of_another_length_is_refused() -> None:
    left, _, chunks = _cardinality()
    refused(left, writer_of(chunks[0], Side.RESPONDER).ack(4) + b"\0", psi.BadMessage, "an ack of 9 bytes; expected 8")


def test_answers_before_everything_was_asked_are_refused() -> None:
    """They wait for the last question because their order has to tell nothing."""
    left, right = both(["1"], ["1"], **TERMS["ecdh, cardinality"])
    sending = left.receive(next(right.start()))
    message = writer_of(next(sending), Side.RESPONDER).chunk(Kind.ANSWERS, 0, 33, (9).to_bytes(32, "little"))
    refused(left, message, psi.BadMessage, "answers came before everything was asked")
    assert not list(sending)


@each_terms
def test_each_message_reflected_to_the_initiator_is_refused(terms: TermsOf) -> None:
    left, right = both(["a", "b"], ["a"], **terms)
    messages = [*carry(left, right, right.start()), *end(left)]
    own = [message for message in messages if message[0] == Side.INITIATOR]
    assert {message[1] for message in own} >= {Kind.BLINDED, Kind.CONFIRM}
    for message in own:
        fresh, _, _ = asked(["a"], ["a"], **terms)
        refused(fresh, message, psi.WrongRole, "a message of the initiator came to the initiator")


# The last word.


@each_terms
def test_a_confirm_before_the_reveal_is_refused(terms: TermsOf) -> None:
    left, right = both(["a", "b"], ["a"], **terms)
    messages = carry(left, right, right.start())
    message = writer_of(messages[0], Side.RESPONDER).confirm(1, bytes(32))
    refused(left, message, psi.BadMessage, "kind confirm while this run is ready to reveal")


@each_terms
@pytest.mark.parametrize("position", [HEAD + 8, -1], ids=["first byte of the digest", "last"])
def test_a_responder_that_confirms_another_digest_is_refused(terms: TermsOf, position: int) -> None:
    left, right = both(["a", "b"], ["b", "c"], **terms)
    carry(left, right, right.start())
    (word,) = answers(right, end(left))
    refused(left, flipped(word, position), psi.ResultMismatch, "the parties' results differ")


@each_terms
def test_a_responder_that_confirms_another_count_is_refused(terms: TermsOf) -> None:
    left, right = both(["a", "b"], ["b", "c"], **terms)
    carry(left, right, right.start())
    (word,) = answers(right, end(left))
    count, digest = read_confirm(word[HEAD:])
    message = writer_of(word, Side.RESPONDER).confirm(count + 1, digest)
    refused(left, message, psi.ResultMismatch, "the parties' results differ")


@each_terms
def test_the_initiators_own_digest_sent_back_to_it_does_not_fit(terms: TermsOf) -> None:
    """A responder that heard the digest need not have compared anything to repeat it."""
    left, right = both(["a", "b"], ["b", "c"], **terms)
    carry(left, right, right.start())
    *_, confirm = end(left)
    count, digest = read_confirm(confirm[HEAD:])
    message = writer_of(confirm, Side.RESPONDER).confirm(count, digest)
    refused(left, message, psi.ResultMismatch, "the parties' results differ")


@each_protocol
def test_a_responder_that_did_not_evaluate_a_shared_id_cannot_confirm_it(protocol: str) -> None:
    """Its digest without the companions: over all that was said, but a guess of the result."""
    left, right = matched(["a", "b"], ["b", "c"], protocol=protocol)
    assert right._context is not None
    guess = right._digest(Side.RESPONDER, right._context, 1, b"")
    *_, confirm = left.reveal()
    message = writer_of(confirm, Side.RESPONDER).confirm(1, guess)
    refused(left, message, psi.ResultMismatch, "the parties' results differ")


@each_terms
def test_a_confirm_of_another_length_is_refused(terms: TermsOf) -> None:
    for size in (39, 41):
        left, right = both(["a", "b"], ["b", "c"], **terms)
        carry(left, right, right.start())
        (word,) = answers(right, end(left))
        message = (word + b"\0")[: HEAD + size]
        refused(left, message, psi.BadMessage, f"a confirm of {size} bytes; expected 40")


@each_terms
def test_a_message_after_the_end_is_refused_and_the_result_stays(terms: TermsOf) -> None:
    left, right = both(["a", "b"], ["b", "c"], **terms)
    messages = carry(left, right, right.start())
    word = answers(right, end(left))
    answers(left, word)
    assert left.finished
    for message in [each for each in (*messages, *word) if each[0] == Side.RESPONDER]:
        with pytest.raises(psi.BadMessage, match="a message came after the end of the run; expected nothing more"):
            left.receive(message)
    assert left.finished and left.cardinality == 1


@each_protocol
def test_a_result_that_was_not_confirmed_is_not_given(protocol: str) -> None:
    left, right = matched(["a", "b"], ["b", "c"], protocol=protocol)
    assert left.intersection == ["b"]  # so far
    left.close()
    over(left)
    right.close()
    over(right)


# A store in place of tags.


def _joint(protocol: str) -> tuple[psi.Initiator, psi.Responder, list[bytes], bytes]:
    """An initiator that asked, the responder, the answers, and the whole store in one message."""
    left, right = both(["a", "b", "x"], ["a", "b", "y"], protocol=protocol, joint=True)
    left._chunk = AT_ONCE
    right._chunk = 1000
    *replies, cells = answers(right, answers(left, right.start()))
    assert cells[1] == Kind.CELLS
    return left, right, replies, cells


@each_protocol
@pytest.mark.parametrize("head", [(64).to_bytes(8, "big"), b"\xff" * 8])
def test_a_store_with_a_wrong_seed_is_refused(protocol: str, head: bytes) -> None:
    left, _, replies, cells = _joint(protocol)
    answers(left, replies)
    message = with_items(cells, 16, lambda items: [head + bytes(8), *items[1:]])
    refused(left, message, psi.BadMessage, "the responder's store has no seed that could be; expected 0 to 63")


@each_protocol
def test_a_store_with_bytes_behind_its_seed_is_refused(protocol: str) -> None:
    left, _, replies, cells = _joint(protocol)
    answers(left, replies)
    for position in (CHUNK_HEAD + 8, CHUNK_HEAD + 15):
        left, _, replies, cells = _joint(protocol)
        answers(left, replies)
        refused(left, flipped(cells, position), psi.BadMessage, "the responder's store has no seed that could be")


@each_protocol
@pytest.mark.parametrize("change", [3, 1, -1, -3])
def test_a_store_of_another_size_is_refused(protocol: str, change: int) -> None:
    left, _, replies, cells = _joint(protocol)
    answers(left, replies)
    total = store_items(3)
    items = (items_of(cells, 16) + [bytes(16)] * 3)[: total + change]
    message = chunk_of(Side.RESPONDER, Kind.CELLS, run_of(cells), items)
    text = f"a second declaration of {total + change} for the cells items; expected {total} as agreed"
    refused(left, message, psi.BadMessage, text)


@each_protocol
def test_more_cells_than_declared_are_refused(protocol: str) -> None:
    left, _, replies, cells = _joint(protocol)
    answers(left, replies)
    total = store_items(3)
    message = cells + bytes(16)
    refused(left, message, psi.BadMessage, f"a message of {total + 1} of the cells items; expected 1 to {total}")


@each_protocol
def test_a_store_changed_on_the_way_shows_at_the_end(protocol: str) -> None:
    left, right, replies, cells = _joint(protocol)
    changed = with_items(cells, 16, lambda items: [items[0], *(bytes(16) for _ in items[1:])])
    answers(left, [*replies, changed])
    assert psi.join([left]) == []
    reveal, confirm = left.reveal()
    answers(right, [reveal])
    refused(right, confirm, psi.ResultMismatch, "the parties' results differ")


# The link is lost, and the responder says how far it is.


@each_terms
def test_a_resumed_that_was_not_asked_for_is_refused(terms: TermsOf) -> None:
    left, _, chunks = asked(["1"], ["1"], **terms)
    message = writer_of(chunks[0], Side.RESPONDER).pair(Kind.RESUMED, 0, 0)
    refused(left, message, psi.BadMessage, "the peer resumes what was not interrupted; expected no such message")


@each_terms
@pytest.mark.parametrize("received", [34, 2**64 - 1])
def test_a_resumed_with_more_elements_than_were_sent_is_refused(terms: TermsOf, received: int) -> None:
    left, _, chunks = asked(["1"], ["1"], **terms)
    left.resume()
    message = writer_of(chunks[0], Side.RESPONDER, 1).pair(Kind.RESUMED, received, 0)
    refused(left, message, psi.BadMessage, "the peer has elements that were not sent, or lost what it answered")


@each_protocol
def test_a_resumed_that_lost_what_it_answered_is_refused(protocol: str) -> None:
    left, right, chunks = asked([str(i) for i in range(12)], ["1"], protocol=protocol)
    answers(left, answers(right, chunks[:1]))
    left.resume()
    message = writer_of(chunks[0], Side.RESPONDER, 1).pair(Kind.RESUMED, 0, 0)
    refused(left, message, psi.BadMessage, "the peer has elements that were not sent, or lost what it answered")


@each_protocol
def test_a_resumed_in_the_middle_of_a_chunk_is_refused(protocol: str) -> None:
    left, _, chunks = asked([str(i) for i in range(12)], ["1"], protocol=protocol)
    left.resume()
    message = writer_of(chunks[0], Side.RESPONDER, 1).pair(Kind.RESUMED, 6, 0)
    refused(left, message, psi.BadMessage, "that it has 6 elements, which ends no chunk that is under way")


def test_a_resumed_that_takes_an_ack_back_is_refused() -> None:
    left, _, chunks = _cardinality()
    answers(left, [writer_of(chunks[0], Side.RESPONDER).ack(8)])
    left.resume()
    message = writer_of(chunks[0], Side.RESPONDER, 1).pair(Kind.RESUMED, 4, 0)
    refused(left, message, psi.BadMessage, "that it has 4 elements, which ends no chunk that is under way")


@each_protocol
def test_a_resumed_with_more_tags_than_were_revealed_is_refused(protocol: str) -> None:
    left, _ = matched(["a", "b"], ["b", "c"], protocol=protocol)
    reveal, _ = left.reveal()
    left.resume()
    message = writer_of(reveal, Side.RESPONDER, 1).pair(Kind.RESUMED, 2 + SPOTS[protocol], 2)
    refused(left, message, psi.BadMessage, "the peer has more tags than were revealed; expected no more")


def test_a_resumed_of_another_length_is_refused() -> None:
    left, _, chunks = asked(["1"], ["1"])
    left.resume()
    message = writer_of(chunks[0], Side.RESPONDER, 1).pair(Kind.RESUMED, 0, 0)
    refused(left, message + b"\0", psi.BadMessage, "a resumed of 17 bytes; expected 16")


@each_terms
def test_a_message_of_an_attempt_that_was_not_begun_is_refused(terms: TermsOf) -> None:
    left, _, chunks = asked(["1"], ["1"], **terms)
    message = writer_of(chunks[0], Side.RESPONDER, 1).chunk(Kind.ANSWERS, 0, 33, bytes(32))
    refused(left, message, psi.BadMessage, "of an attempt that was not begun; expected one of this attempt")


@each_protocol
def test_a_message_of_an_earlier_attempt_is_not_looked_at(protocol: str) -> None:
    """It may be an honest one that was on the way when the link broke; whatever it says, it changes nothing."""
    left, _, chunks = asked(["1", "2"], ["1"], protocol=protocol)
    left.resume()
    for kind in (Kind.ANSWERS, Kind.TAGS, Kind.CONFIRM):
        assert not list(left.receive(writer_of(chunks[0], Side.RESPONDER).chunk(kind, 7, 7, b"nonsense")))
    assert left._answers_in is not None and left._answers_in.done == 0 and not left.matched


def test_an_element_is_the_same_each_time_it_is_sent() -> None:
    """Blinded anew, two elements of one id would be a pair whose quotient depends on no id, and one more question."""
    left, _, chunks = asked(["1", "2", "3"], ["1"])
    left.resume()
    again = answers(left, [writer_of(chunks[0], Side.RESPONDER, 1).pair(Kind.RESUMED, 0, 0)])
    assert [message[HEAD:] for message in again] == [message[HEAD:] for message in chunks]


def test_a_store_of_nothing_is_a_seed_and_the_smallest_table() -> None:
    """What `_joint` relies on."""
    left, right = both(["a"], [], protocol=ECDH, joint=True)
    carry(left, right, right.start())
    assert psi.join([left]) == [] and left.peer_count == 0

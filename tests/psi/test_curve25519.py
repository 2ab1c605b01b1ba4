"""Where ids enter the curve: RFC 9380's vectors, its own words written down plainly, and membership by definition."""

from __future__ import annotations

import hashlib

import pytest
from gmpy2 import mpz
from hypothesis import example, given, settings
from hypothesis import strategies as st

import psi
from psi import engines
from psi.curve25519 import BASE_POINT, ORDER, check_points, hash_to_field, map_to_curve, points_of
from psi.ecdh import scalar_and_inverse, scalar_from
from tests.psi.helpers import Seeded, point

P = 2**255 - 19
J = 486662
DST = b"QUUX-V01-CS02-with-curve25519_XMD:SHA-512_ELL2_NU_"

# RFC 9380, appendix J.4.2: message, u, Q.x and P.x, which is (8 Q).x
VECTORS = [
    (
        "",
        "608d892b641f0328523802a6603427c26e55e6f27e71a91a478148d45b5093cd",
        "51125222da5e763d97f3c10fcc92ea6860b9ccbbd2eb1285728f566721c1e65b",
        "1bb913f0c9daefa0b3375378ffa534bda5526c97391952a7789eb976edfe4d08",
    ),
    (
        "abc",
        "46f5b22494bfeaa7f232cc8d054be68561af50230234d7d1d63d1d9abeca8da5",
        "7d56d1e08cb0ccb92baf069c18c49bb5a0dcd927eff8dcf75ca921ef7f3e6eeb",
        "7c22950b7d900fa866334262fcaea47a441a578df43b894b4625c9b450f9a026",
    ),
    (
        "abcdef0123456789",
        "235fe40c443766ce7e18111c33862d66c3b33267efa50d50f9e8e5d252a40aaa",
        "3fbe66b9c9883d79e8407150e7c2a1c8680bee496c62fabe4619a72b3cabe90f",
        "31ad08a8b0deeb2a4d8b0206ca25f567ab4e042746f792f4b7973f3ae2096c52",
    ),
]


def on_curve(u: int) -> bool:
    """Whether u³ + J·u² + u is a square, by Euler's criterion."""
    return pow(u * (u * u + J * u + 1), (P - 1) // 2, P) in (0, 1)


def ladder(scalar: int, u: int) -> int:
    """The u of scalar · (u, v), with no bit of the scalar changed: Montgomery's ladder as RFC 7748 has it."""
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in reversed(range(scalar.bit_length())):
        if scalar >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb = d * a, c * b
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        aa, bb = a * a % P, b * b % P
        x2, z2 = aa * bb % P, (aa - bb) * (aa + 121665 * (aa - bb)) % P
        if scalar >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return x2 * pow(z2, P - 2, P) % P


def mapped(r: int) -> int:
    """RFC 9380, section 6.7.1, for a Montgomery curve with K = 1 and Z = 2: step by step, without shortcuts."""
    divisor = (1 + 2 * r * r) % P
    x1 = -J * pow(divisor, P - 2, P) % P if divisor else -J % P
    return x1 if on_curve(x1) else (-x1 - J) % P


def expanded(message: bytes, dst: bytes, size: int) -> bytes:
    """expand_message_xmd of RFC 9380, section 5.3.1, with SHA-512."""
    dst_prime = dst + bytes([len(dst)])
    blocks = -(-size // 64)
    first = hashlib.sha512(bytes(128) + message + size.to_bytes(2, "big") + b"\0" + dst_prime).digest()
    block = hashlib.sha512(first + b"\1" + dst_prime).digest()
    uniform = block
    for number in range(2, blocks + 1):
        mixed = bytes(x ^ y for x, y in zip(first, block, strict=True))
        block = hashlib.sha512(mixed + bytes([number]) + dst_prime).digest()
        uniform += block
    return uniform[:size]


def numbers(points: bytes) -> list[int]:
    return [int.from_bytes(points[at : at + 32], "little") for at in range(0, len(points), 32)]


@pytest.mark.parametrize(("message", "field", "on_the_curve", "cleared"), VECTORS)
def test_the_vectors_of_rfc_9380(message: str, field: str, on_the_curve: str, cleared: str) -> None:
    assert hash_to_field([message], b"", DST) == [int(field, 16)]
    (u,) = numbers(points_of([message], b"", DST))
    assert u == int(on_the_curve, 16)
    assert ladder(8, u) == int(cleared, 16)


def test_many_ids_are_mapped_as_each_alone() -> None:
    messages = [message for message, _, _, _ in VECTORS]
    assert numbers(points_of(messages, b"", DST)) == [int(expected, 16) for _, _, expected, _ in VECTORS]
    assert points_of([], b"", DST) == b"" and hash_to_field([], b"", DST) == []


@given(
    ids=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), max_size=4),
    context=st.binary(max_size=40),
    dst=st.binary(min_size=1, max_size=255),
)
def test_a_field_element_is_the_expanded_message_of_context_and_id(ids: list[str], context: bytes, dst: bytes) -> None:
    expected = [int.from_bytes(expanded(context + each.encode(), dst, 48), "big") % P for each in ids]
    assert hash_to_field(ids, context, dst) == expected


@settings(max_examples=60, deadline=None)
@given(elements=st.lists(st.integers(0, P - 1), max_size=5))
@example([0])
@example([0, 1, P - 1, 2, P - 2])
@example([5, 5, P - 5])
def test_the_map_is_elligator_2_and_ends_on_the_curve(elements: list[int]) -> None:
    found = numbers(map_to_curve([mpz(each) for each in elements]))
    assert found == [mapped(each) for each in elements]
    assert all(on_curve(u) and u < P for u in found)


def test_no_id_lies_on_the_twist() -> None:
    """As a hash that is itself taken for u does for half of the ids: what no scalar could hide."""
    ids = [f"id-{i}" for i in range(400)]
    assert all(map(on_curve, numbers(points_of(ids, bytes(32), DST))))
    assert 140 < sum(on_curve(int(each)) for each in hash_to_field(ids, bytes(32), DST)) < 260
    check_points(points_of(ids, bytes(32), DST), 0)


def test_ids_context_and_domain_each_change_the_point() -> None:
    seen = {
        points_of([each], context, dst)
        for each in ("a", "b", "a\0", "")
        for context in (bytes(32), bytes(31) + b"\1")
        for dst in (DST, DST + b"2")
    }
    assert len(seen) == 16


def test_the_base_points_order_is_the_large_prime() -> None:
    assert ORDER == 2**252 + 27742317777372353535851937790883648493
    assert numbers(BASE_POINT) == [9] and on_curve(9)
    assert ladder(ORDER - 1, 9) == 9 and ladder(ORDER, 9) == 0  # z = 0 gives 0
    assert psi.curve25519.P == P


@settings(max_examples=15, deadline=None)
@given(seed=st.binary(max_size=8), u=st.integers(2, P - 2))  # 0, 1 and -1 have small order
def test_the_engine_multiplies_as_the_ladder_does(seed: bytes, u: int) -> None:
    scalar = scalar_from(Seeded(seed))
    product = ladder(int.from_bytes(scalar, "little"), u)
    assert engines.curve("cryptography")(scalar, point(u)) == point(product)


# Which points are refused


@settings(max_examples=60, deadline=None)
@given(u=st.integers(0, P - 1))
def test_exactly_the_points_of_the_curve_are_taken(u: int) -> None:
    if on_curve(u):
        check_points(point(u), 0)
        return
    with pytest.raises(psi.BadElement, match="element 0 of the peer is not on Curve25519"):
        check_points(point(u), 0)


def test_a_second_spelling_of_a_point_is_refused() -> None:
    high = 1 << 255
    for u in (P, P + 1, P + 9, 2**255 - 1, 9 | high, high, P | high, 2**256 - 1):
        with pytest.raises(psi.BadElement, match="element 0 of the peer is out of range"):
            check_points(point(u), 0)


def test_a_refused_point_is_named_by_its_position() -> None:
    good, twist = point(9), point(2)
    assert not on_curve(2)
    check_points(good * 5, 0)
    check_points(b"", 0)
    for place in range(4):
        points = [good] * 4
        points[place] = twist
        with pytest.raises(psi.BadElement, match=f"element {100 + place} of the peer"):
            check_points(b"".join(points), 100)


# Scalars


@given(seed=st.binary(max_size=8))
def test_a_scalar_is_a_multiple_of_8_with_bit_254(seed: bytes) -> None:
    scalar = int.from_bytes(scalar_from(Seeded(seed)), "little")
    assert scalar % 8 == 0 and scalar >> 254 == 1


def test_every_other_bit_of_a_scalar_is_random() -> None:
    source = Seeded(b"bits")
    drawn = [int.from_bytes(scalar_from(source), "little") for _ in range(200)]
    for bit in range(3, 254):
        assert 55 < sum(scalar >> bit & 1 for scalar in drawn) < 145


@settings(max_examples=40, deadline=None)
@given(seed=st.binary(max_size=8))
def test_a_scalar_and_its_inverse_undo_each_other(seed: bytes) -> None:
    scalar, inverse = scalar_and_inverse(Seeded(seed))
    a, b = (int.from_bytes(each, "little") for each in (scalar, inverse))
    assert a * b % ORDER == 1
    for each in (a, b):
        assert each % 8 == 0 and each >> 254 == 1  # X25519's clamping changes nothing
    multiply = engines.curve("cryptography")
    large = multiply(scalar_from(Seeded(b"k")), BASE_POINT)
    assert multiply(inverse, multiply(scalar, large)) == large


def test_scalars_without_an_inverse_of_that_form_are_drawn_again() -> None:
    drawn = []
    for number in range(60):
        source = Seeded(b"again %d" % number)
        scalar_and_inverse(source)
        drawn.append(source._calls)
    assert min(drawn) == 1 and 1.5 < sum(drawn) / len(drawn) < 2.8


def test_a_component_of_small_order_vanishes() -> None:
    """A scalar that is a multiple of 8 has nothing to say about itself to a point of order 8."""
    u = 325606250916557431795983626356110631294008115727848805560023387167927233504  # order 8
    assert ladder(2, u) == 1 and on_curve(
        u
    )  # of order 4, so that its double is (0, 0) and the next the neutral element
    check_points(point(u), 0)
    for small in (0, 1, u):
        with pytest.raises(psi.BadElement, match="small order"):
            engines.curve("cryptography")(scalar_from(Seeded(b"k")), point(small))

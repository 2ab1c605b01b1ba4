"""Shares cancel for an id that all responders hold, and for no other."""

from __future__ import annotations

import copy
import hashlib
import hmac
import pickle
from itertools import combinations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from psi.errors import BadArgument, BadElement
from psi.pairing import PairKey, shares

TASK, SESSION = "a task", b"a session"
PRIME = 2**255 - 19
ids_of_all = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=20, unique=True
)


def keys_of(parties: int) -> list[list[bytes]]:
    """The pair keys of each responder with all others."""
    halves = [PairKey() for _ in range(parties)]
    return [
        [own.shared(other.public, task=TASK, session=SESSION) for other in halves if other is not own] for own in halves
    ]


def xor(parts: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    total: NDArray[np.uint64] = np.bitwise_xor.reduce(np.stack(parts), axis=0)
    return total


@settings(max_examples=25, deadline=None)
@given(ids=ids_of_all, parties=st.integers(2, 6), data=st.data())
def test_shares_of_all_responders_cancel_and_those_of_fewer_never_do(
    ids: list[str], parties: int, data: st.DataObject
) -> None:
    each = [shares(ids, keys) for keys in keys_of(parties)]
    assert not xor(each).any()
    some = data.draw(st.lists(st.sampled_from(range(parties)), min_size=1, max_size=parties - 1, unique=True))
    assert xor([each[party] for party in some]).all()


def test_an_id_in_another_place_has_the_same_share_and_another_id_another() -> None:
    (keys, _) = keys_of(2)
    forwards, backwards = shares(["a", "b", "ab"], keys), shares(["ab", "b", "a"], keys)
    assert np.array_equal(forwards, backwards[::-1])
    assert len(np.unique(forwards[:, 0])) == len(np.unique(forwards[:, 1])) == 3


def test_a_share_looks_random_in_all_its_bits() -> None:
    made = shares([f"id {number}" for number in range(2000)], keys_of(3)[0])
    bits = np.unpackbits(made.view(np.uint8), axis=1)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 6 * 0.5 / np.sqrt(2000)


def test_a_share_is_the_keyed_hash_of_the_id_under_each_key() -> None:
    keys = [bytes([number]) * 32 for number in (1, 2)]
    first, second = (
        hashlib.blake2b("é".encode(), digest_size=16, key=key, person=b"psi zero share 1").digest() for key in keys
    )
    expected = bytes(a ^ b for a, b in zip(first, second, strict=True))
    assert shares(["é"], keys).astype("<u8").tobytes() == expected


def test_ids_beyond_one_batch_get_their_shares_in_place() -> None:
    ids = [str(number) for number in range(70_000)]
    keys = keys_of(2)[0]
    assert np.array_equal(shares(ids, keys)[-5000:], shares(ids[-5000:], keys))


def test_without_another_responder_or_without_ids_there_is_nothing_to_share() -> None:
    assert np.array_equal(shares(["a", "b"], []), np.zeros((2, 2), np.uint64))
    assert shares([], keys_of(2)[0]).shape == (0, 2)


def test_every_two_of_many_agree_on_a_key_of_their_own() -> None:
    halves = [PairKey() for _ in range(5)]
    agreed = []
    for one, other in combinations(halves, 2):
        key = one.shared(other.public, task=TASK, session=SESSION)
        assert key == other.shared(one.public, task=TASK, session=SESSION)
        assert len(key) == 32
        agreed.append(key)
    assert len(set(agreed)) == 10


def test_a_key_is_bound_to_its_task_and_session_and_where_one_ends() -> None:
    one, other = PairKey(), PairKey()
    contexts = [("a task", b"1"), ("a task", b"2"), ("a task1", b""), ("a tas", b"k1")]
    keys = {one.shared(other.public, task=task, session=session) for task, session in contexts}
    assert len(keys) == 4


def test_a_key_is_what_x25519_and_hkdf_give() -> None:
    one = PairKey()
    other = X25519PrivateKey.generate()
    public = other.public_key().public_bytes_raw()
    secret = other.exchange(X25519PublicKey.from_public_bytes(one.public))
    parts = [b"heterofed psi pairing 1", *sorted([one.public, public]), TASK.encode(), SESSION]
    info = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    extracted = hmac.digest(bytes(32), secret, "sha256")
    assert one.shared(public, task=TASK, session=SESSION) == hmac.digest(extracted, info + b"\x01", "sha256")


def test_two_pair_keys_are_never_the_same() -> None:
    publics = {PairKey().public for _ in range(20)}
    assert len(publics) == 20
    assert {len(public) for public in publics} == {32}


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_public_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(BadElement, match=f"pairing key has {length} bytes; expected 32"):
        PairKey().shared(bytes([9]) * length, task=TASK, session=SESSION)


@pytest.mark.parametrize(
    "point",
    [
        0,
        1,
        PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    ],
)
def test_a_public_key_of_small_order_is_refused(point: int) -> None:
    with pytest.raises(BadElement, match="pairing key has small order"):
        PairKey().shared(point.to_bytes(32, "little"), task=TASK, session=SESSION)


@pytest.mark.parametrize("number", [PRIME, PRIME + 1, PRIME + 9, 2**255 + 9, 2**256 - 1])
def test_a_second_spelling_of_a_point_is_refused(number: int) -> None:
    with pytest.raises(BadElement, match="pairing key is out of range"):
        PairKey().shared(number.to_bytes(32, "little"), task=TASK, session=SESSION)


def test_our_own_public_key_is_refused_in_any_spelling() -> None:
    key = PairKey()
    with pytest.raises(BadElement, match="pairing key is our own"):
        key.shared(key.public, task=TASK, session=SESSION)
    disguised = key.public[:31] + bytes([key.public[31] | 0x80])
    with pytest.raises(BadElement, match="out of range"):
        key.shared(disguised, task=TASK, session=SESSION)


def test_one_key_offered_under_two_names_is_refused_before_the_hashes_cancel() -> None:
    own, other, third = PairKey(), PairKey(), PairKey()
    keys = [own.shared(each.public, task=TASK, session=SESSION) for each in (other, third, other)]
    with pytest.raises(BadElement, match="two of the 3 pair keys are equal"):
        shares(["a"], keys)


@pytest.mark.parametrize("length", [0, 16, 33])
def test_a_pair_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(BadArgument, match="pair key is not 32 bytes"):
        shares(["a"], [bytes(32), b"k" * length])


def test_a_pair_key_shows_and_copies_nothing() -> None:
    key = PairKey()
    assert repr(key) == str(key) == "PairKey()"
    with pytest.raises(BadArgument, match="cannot be copied"):
        pickle.dumps(key)
    with pytest.raises(BadArgument, match="cannot be copied"):
        copy.deepcopy(key)

"""The hashes of a run against their description, written down a second time."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import psi
from psi.hashing import (
    CHECK_BYTES,
    COMPANION_BYTES,
    ITEM_BYTES,
    OUTPUT_BYTES,
    TAG_BYTES,
    Context,
    check_context,
    run_id,
)
from psi.result import result_digest, text_order

ids_of_all = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), max_size=6)


def spelled(*parts: bytes) -> bytes:
    """Each part behind its length."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def derived(purpose: bytes, protocol: bytes, task: bytes, session: bytes, public: bytes) -> bytes:
    data = spelled(b"heterofed psi 2", purpose, protocol, task, session, public)
    return hashlib.shake_256(data).digest(32)


def blake(size: int, *parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=size).digest()


def test_a_context_is_as_documented() -> None:
    context = Context("rsa", "täsk", b"session", b"public")
    assert context.derive("element") == derived(b"element", b"rsa", "täsk".encode(), b"session", b"public")


@given(ids=ids_of_all, width=st.integers(1, 40))
def test_outputs_and_bare_tags_are_as_documented(ids: list[str], width: int) -> None:
    context = Context("ecdh", "t", b"s", b"p")
    powers = [hashlib.shake_256(b"%d" % at).digest(width) for at in range(len(ids))]
    tag, bond, bare = (context.derive(purpose) for purpose in ("tag", "bond", "bare tag"))
    expected = [
        blake(TAG_BYTES, tag, power) + blake(CHECK_BYTES + COMPANION_BYTES, bond, power, sample_id.encode())
        for sample_id, power in zip(ids, powers, strict=True)
    ]
    assert context.outputs(ids, b"".join(powers), width) == b"".join(expected)
    assert context.bare_tags(b"".join(powers), width) == b"".join(blake(ITEM_BYTES, bare, power) for power in powers)


def test_an_output_is_96_bits_of_tag_32_of_check_and_128_of_companion() -> None:
    assert (TAG_BYTES, CHECK_BYTES, COMPANION_BYTES, ITEM_BYTES, OUTPUT_BYTES) == (12, 4, 16, 16, 32)
    context = Context("ecdh", "t", b"s", b"p")
    one, other = (context.outputs([sample_id], b"power", 5) for sample_id in ("a", "b"))
    assert one[:12] == other[:12]  # the tag is the power's alone, check and companion are the id's too
    assert one[12:16] != other[12:16] and one[16:] != other[16:]
    assert context.bare_tags(b"power", 5)[:12] != one[:12]


def test_powers_and_ids_of_unlike_numbers_are_a_fault_of_ours() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Context("ecdh", "t", b"s", b"p").outputs(["a"], bytes(10), 5)


def test_the_hashes_depend_on_every_part_of_their_context() -> None:
    contexts = [
        Context("rsa", "t", b"s", b"p"),
        Context("ecdh", "t", b"s", b"p"),
        Context("rsa", "t2", b"s", b"p"),
        Context("rsa", "t", b"s2", b"p"),
        Context("rsa", "t", b"s", b"p2"),
        # the end of one field is not the start of the next
        Context("rs", "at", b"s", b"p"),
        Context("rsa", "ts", b"", b"p"),
        Context("rsa", "t", b"sp", b""),
    ]
    purposes = ("element", "tag", "bond", "bare tag", "confirm", "cells", "run", "key proof")
    seen = {context.derive(purpose) for context in contexts for purpose in purposes}
    assert len(seen) == len(contexts) * len(purposes)
    assert all(len(each) == 32 for each in seen)
    assert len({context.outputs(["a"], b"x", 1) for context in contexts}) == len(contexts)
    assert len({context.bare_tags(b"x", 1) for context in contexts}) == len(contexts)


def test_a_run_id_is_bound_to_protocol_task_session_and_nonce() -> None:
    assert run_id("rsa", "t", b"s", b"n") == derived(b"run", b"rsa", b"t", b"s", b"n")[:16]
    others = [("ecdh", "t", b"s", b"n"), ("rsa", "u", b"s", b"n"), ("rsa", "t", b"z", b"n"), ("rsa", "t", b"s", b"m")]
    assert len({run_id(*each) for each in [("rsa", "t", b"s", b"n"), *others]}) == 5


@given(rows=st.lists(st.tuples(st.text("ab", max_size=3), st.binary(min_size=16, max_size=16)), max_size=4))
def test_a_result_is_hashed_with_the_lengths_of_its_ids(rows: list[tuple[str, bytes]]) -> None:
    parts = [part for name, companion in rows for part in (spelled(name.encode()), companion)]
    assert result_digest(rows) == hashlib.blake2b(b"".join(parts)).digest()
    assert result_digest((name, bytes(16) + companion) for name, companion in rows) == result_digest(rows)


@pytest.mark.parametrize("task", ["", 3, None, b"task", "\ud800"])
def test_a_task_that_names_nothing_is_refused(task: Any) -> None:
    with pytest.raises(psi.BadArgument, match="task"):
        check_context(task, b"s")


@pytest.mark.parametrize("session", [b"", "text", None, bytearray(b"s")])
def test_a_session_that_separates_nothing_is_refused(session: Any) -> None:
    with pytest.raises(psi.BadArgument, match="session"):
        check_context("t", session)


@given(
    ids=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), unique=True, max_size=9), data=st.data()
)
def test_a_result_is_in_the_order_of_its_texts(ids: list[str], data: st.DataObject) -> None:
    numbers = np.array(data.draw(st.permutations(range(len(ids)))), np.int64)
    found = [ids[number] for number in numbers[text_order(ids, numbers)]]
    assert found == sorted(ids)
    some = numbers[: len(ids) // 2]
    assert [ids[number] for number in some[text_order(ids, some)]] == sorted(ids[number] for number in some)

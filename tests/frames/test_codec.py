"""Messages survive the way through frames whole, without copies, and their bytes never change by accident."""

from __future__ import annotations

import gc
import weakref

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heterofed.errors import FrameError, LocalProtocolError
from heterofed.frames.codec import MAX_FRAMES, Codec, Frame
from heterofed.frames.forms import Blob, RawTensor
from heterofed.frames.messages import (
    Abort,
    AnyMessage,
    BatchPlan,
    CheckIn,
    Embedding,
    Gradient,
    Matching,
    Proceed,
    PsiPart,
    Split,
    Welcome,
)
from heterofed.frames.precision import Precision, pack_as
from heterofed.frames.tensors import pack
from tests.frames.examples import ALL_TYPES, DIGEST, example, numbers, one_of_each

counts = st.integers(0, 2**53)
round_numbers = st.integers(1, 2**53)
keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)
digests = st.binary(max_size=32)
losses = st.none() | st.floats(allow_nan=False)
precisions = st.sampled_from([None, "float16", "int8", "topk:0.3"]).map(lambda each: each and Precision.parse(each))
tensors = st.tuples(st.integers(1, 4), st.integers(1, 4), precisions).map(
    lambda made: pack_as(numbers(*made[:2]), made[2] or None)
)
messages: st.SearchStrategy[AnyMessage] = st.one_of(
    st.builds(
        Welcome,
        nonce=st.binary(min_size=16, max_size=16),
        session=st.binary(min_size=16, max_size=16),
        parties=st.lists(keys, max_size=9).map(tuple),
        max_rounds=counts,
        calculation_timeout_s=st.floats(0, 1e9),
        matched=st.booleans(),
        resume=counts,
    ),
    st.builds(
        CheckIn,
        protocol=st.integers(-(2**63), 2**63 - 1),
        task_id=keys,
        feature_key=keys,
        nonce=st.binary(min_size=16, max_size=16),
        trainable=st.booleans(),
        own_batches=st.booleans(),
        matching=st.just(Matching("ecdh", "both", True)),
        recover=st.booleans(),
        run=st.binary(max_size=16),
        points=st.lists(counts, max_size=64).map(tuple),
    ),
    st.builds(PsiPart, payload=st.binary(max_size=64).map(Blob)),
    st.builds(Split, train=counts, test=counts, train_digest=digests, test_digest=digests),
    st.builds(
        BatchPlan,
        round=round_numbers,
        own_batches=st.booleans(),
        batch_size=counts,
        batches=counts,
        shuffle=st.booleans(),
        seed=st.integers(0, 2**32 - 1),
        digest=digests,
        finetune=st.booleans(),
        learns=st.booleans(),
        first=counts,
        keep=st.none() | counts,
    ),
    tensors.flatmap(
        lambda raw: st.builds(
            Embedding,
            round=round_numbers,
            batch=counts,
            rows=st.just(raw.shape[0]),
            digest=digests,
            values=st.just(raw),
        )
    ),
    st.builds(Gradient, round=round_numbers, batch=counts, loss=losses, keep=st.booleans(), values=tensors),
    st.builds(Proceed, round=round_numbers, batch=counts, loss=losses, keep=st.booleans()),
    st.builds(Abort, party=keys, error=keys, reason=st.text(st.characters(exclude_categories=["Cs"]), max_size=2000)),
)


def copied(frames: list[Frame]) -> list[Frame]:
    """Return frames as they come out of a network: the same bytes elsewhere in memory."""
    return [bytes(each) for each in frames]


def test_the_examples_hold_every_message_type_once() -> None:
    assert [type(each) for each in one_of_each()] == list(ALL_TYPES)


@pytest.mark.parametrize("kind", ALL_TYPES, ids=lambda kind: kind.__name__)
def test_every_message_survives_a_round_trip(kind: type[AnyMessage]) -> None:
    message = example(kind)

    decoded = Codec().decode(copied(Codec().encode(message)))

    assert type(decoded) is kind
    assert decoded == message


@settings(max_examples=50, deadline=None)  # a busy machine is no failure
@given(messages)
def test_any_message_of_legal_fields_survives_a_round_trip(message: AnyMessage) -> None:
    assert Codec().decode(copied(Codec().encode(message))) == message


@pytest.mark.parametrize("kind", ALL_TYPES, ids=lambda kind: kind.__name__)
def test_every_message_fits_into_the_frames_and_the_header_that_are_accepted(kind: type[AnyMessage]) -> None:
    frames = Codec().encode(example(kind))

    assert len(frames) <= MAX_FRAMES
    assert len(frames[0]) < 128


def test_the_header_of_an_embedding_of_128_by_10_is_under_128_bytes() -> None:
    embedding = Embedding(round=1000, batch=100_000, rows=128, digest=DIGEST, values=pack(torch.zeros(128, 10)))

    header, blob = Codec().encode(embedding)

    assert len(header) < 128
    assert isinstance(blob, memoryview)
    assert blob.nbytes == 5120


KNOWN_EMBEDDING = (
    "96"  # an array of 6
    "a9456d62656464696e67"  # "Embedding"
    "0305"  # round 3, batch 5
    "02"  # 2 rows
    "c410"
    + DIGEST.hex()  # 16 bytes
    + "94"  # an array of 4
    "a3726177"  # "raw"
    "a7666c6f61743332"  # "float32"
    "920203"  # (2, 3)
    "00"  # blob 0
)


def test_the_bytes_of_an_embedding_are_those_of_protocol_version_5() -> None:
    message = Embedding(round=3, batch=5, rows=2, digest=DIGEST, values=pack(numbers()))

    header, blob = Codec().encode(message)

    assert bytes(header).hex() == KNOWN_EMBEDDING
    assert bytes(blob) == np.arange(6, dtype="<f4").tobytes()


def test_the_known_bytes_of_an_embedding_are_understood() -> None:
    decoded = Codec().decode([bytes.fromhex(KNOWN_EMBEDDING), np.arange(6, dtype="<f4").tobytes()])

    assert decoded == Embedding(round=3, batch=5, rows=2, digest=DIGEST, values=pack(numbers()))


def test_the_bytes_of_a_welcome_are_those_of_protocol_version_5() -> None:
    (header,) = Codec().encode(example(Welcome))

    assert bytes(header).hex() == (
        "99a757656c636f6d65"
        "c410000102030405060708090a0b0c0d0e0f"
        "c410101112131415161718191a1b1c1d1e1f"
        "92a4686f7374a2633103cb4072c00000000000"
        "c3cd03aa"
        "95040205a4696e7438a8746f706b3a302e31"
    )


def test_encoding_does_not_copy_the_tensor() -> None:
    values = numbers()

    _, blob = Codec().encode(Gradient(1, 0, None, False, pack(values)))

    assert np.shares_memory(np.asarray(blob), values.numpy())


def test_decoding_does_not_copy_the_blob() -> None:
    blob = bytearray(6 * 4)
    header, _ = Codec().encode(Gradient(1, 0, None, False, pack(numbers())))

    decoded = Codec().decode([header, blob])

    assert isinstance(decoded, Gradient)
    assert isinstance(decoded.values, RawTensor)
    assert decoded.values.data.data is blob


def test_a_codec_keeps_no_sent_tensor_alive() -> None:
    codec = Codec()
    memory = np.zeros(8, dtype=np.uint8)
    gone = weakref.ref(memory)
    codec.encode(PsiPart(Blob(memory.data)))

    del memory
    gc.collect()

    assert gone() is None


def test_a_codec_keeps_no_received_blob_alive() -> None:
    codec = Codec()
    memory = np.zeros(8, dtype=np.uint8)
    gone = weakref.ref(memory)
    codec.decode([*codec.encode(PsiPart(Blob(b"")))[:1], memory.data])

    del memory
    gc.collect()

    assert gone() is None


def test_one_codec_goes_on_after_an_error_in_either_direction() -> None:
    codec = Codec()
    with pytest.raises(FrameError):
        codec.decode([b"\xc1", b"left over"])
    with pytest.raises(LocalProtocolError):
        codec.encode(Gradient(2**70, 0, None, False, pack(numbers())))

    for message in one_of_each():
        assert codec.decode(copied(codec.encode(message))) == message


def test_a_message_above_the_limit_is_not_encoded() -> None:
    codec = Codec(max_bytes=1000)
    codec.encode(PsiPart(Blob(b"x" * 900)))

    with pytest.raises(FrameError, match=r"a message of 1010 bytes; expected at most 1000\. .*MAX_MESSAGE_BYTES"):
        codec.encode(PsiPart(Blob(b"x" * 1000)))


@pytest.mark.parametrize(
    "message",
    [
        Proceed(1, 2**70, None, False),
        Proceed(1, 0, object(), False),  # type: ignore[arg-type]  # the mistake under test
        Proceed(1, 0, torch.zeros(()), False),  # type: ignore[arg-type]  # the mistake under test
        Abort("c1", "OutputError", "a broken name: \udcff"),
    ],
    ids=["an integer beyond 64 bits", "an object", "a tensor", "text that UTF-8 cannot write"],
)
def test_what_no_message_can_carry_is_a_local_protocol_error(message: AnyMessage) -> None:
    with pytest.raises(LocalProtocolError, match=f"tried to send a {type(message).__name__} that cannot be encoded"):
        Codec().encode(message)


def test_the_error_about_an_unencodable_value_does_not_quote_it() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        Codec().encode(Abort("c1", "OutputError", "secret \udcff"))

    assert "secret" not in str(caught.value)
    assert "dcff" not in str(caught.value)


def test_messages_cannot_be_changed() -> None:
    for message in one_of_each():
        field = (*message.__struct_fields__, "anything")[0]
        with pytest.raises(AttributeError):
            setattr(message, field, None)


def test_a_blob_shows_its_length_and_not_its_bytes() -> None:
    assert repr(Blob(b"secret")) == "Blob(6 bytes)"
    assert "secret" not in repr(PsiPart(Blob(b"secret")))


def test_headers_are_plain_msgpack_arrays_that_begin_with_the_name() -> None:
    for message in one_of_each():
        header = msgspec.msgpack.decode(Codec().encode(message)[0])
        assert isinstance(header, list)
        assert header[0] == type(message).__name__

"""Whatever a peer sends in whatever phase, a session takes a legal message or raises RemoteProtocolError, and no more.

The corpus is that of the chaos run (`tests/chaos/fuzz.py`), a small seeded share of it.
"""

from __future__ import annotations

import random

import pytest

from heterofed.errors import FrameError, RemoteProtocolError
from heterofed.frames.codec import Codec
from heterofed.frames.messages import AnyMessage
from heterofed.protocol.phases import Phase
from heterofed.protocol.session import Session
from tests.chaos.corpus import covered
from tests.chaos.corpus.conversations import conversations, packed
from tests.chaos.corpus.mutations import Frames, Mutator
from tests.chaos.corpus.target import Broken, Target, clone, hash_of
from tests.frames.examples import ALL_TYPES, one_of_each

SEQUENCES = 5000


@pytest.fixture(scope="module")
def corpus() -> bytes:
    return packed(conversations(1, 8))


def test_the_corpus_reaches_every_phase_and_says_every_message(corpus: bytes) -> None:
    target = Target(corpus)

    assert {moments[0].host.phase for moments in target.moments} == set(Phase)
    assert {type(target.codec.decode(frames)) for frames in target.messages} == set(ALL_TYPES)


def test_the_conversations_of_the_corpus_are_legal_and_the_same_for_a_seed() -> None:
    assert conversations(3, 4) == conversations(3, 4) != conversations(4, 4)


@pytest.mark.parametrize("seed", range(3))
def test_mutated_sequences_are_taken_or_refused_in_every_phase_at_both_ends(corpus: bytes, seed: int) -> None:
    target = Target(corpus)
    makes = Mutator(target.messages, seed)

    for number in range(SEQUENCES):
        sequence, error = target.feed_next(makes)
        if error is not None:
            pytest.fail(f"seed {seed}, sequence {number}, bytes {hash_of(sequence)}: {error!r}")

    assert SEQUENCES / 20 < target.accepted < SEQUENCES  # neither all noise nor all valid


@pytest.mark.parametrize("seed", range(2))
def test_every_message_in_every_phase_moves_the_session_as_the_table_says_or_not_at_all(
    corpus: bytes, seed: int
) -> None:
    dice = random.Random(seed)
    target = Target(corpus)
    for moments in target.moments:
        for message in one_of_each(dice.choice([1, 2, 2**53]), dice.choice([0, 1, 2**53])):
            moment = dice.choice(moments)
            for end in (clone(moment.host), clone(moment.collaborator)):
                _receive(end, message)


def _receive(end: Session, message: AnyMessage) -> None:
    before = end.phase, end.round, end.batch
    try:
        end.receiving(message)
    except RemoteProtocolError as error:
        assert (end.phase, end.round, end.batch) == before
        assert error.party == end.peer and error.phase == end.phase.value
        assert str(error).isprintable()
    else:
        assert len(end.story) == 1


def test_a_sequence_can_be_made_again_from_its_seed(corpus: bytes) -> None:
    def made() -> list[str]:
        target = Target(corpus)
        makes = Mutator(target.messages, 7)
        return [hash_of(makes.sequence(makes.moment(target.moments).coming)) for _ in range(200)]

    assert made() == made()
    assert len(set(made())) > 180


def test_the_inputs_of_the_coverage_fuzzer_stand_for_sequences() -> None:
    sequence = [[b"header", b"blob"], [b""], [b"x" * 300]]

    assert covered.read(covered.written(513, sequence)) == (513, sequence)
    for data in (b"", b"\x01", b"\xff" * 9, bytes(100)):
        assert covered.read(data)


class _Forgetful(Codec):
    """A codec that lets out what msgspec raised."""

    def decode(self, frames: Frames) -> AnyMessage:  # type: ignore[override]  # a list is a sequence
        try:
            return super().decode(frames)
        except FrameError:
            raise ValueError("not ours") from None


class _Hasty(Session):
    """A session that moves before it looks."""

    def receiving(self, message: AnyMessage) -> None:
        self.round += 1
        super().receiving(message)


def test_the_target_notices_another_exception_and_a_session_that_moves_though_it_refuses(corpus: bytes) -> None:
    target = Target(corpus)
    moment = target.moments[0][0]
    with pytest.raises(Broken, match="moved"):
        end = clone(moment.host)
        end.__class__ = _Hasty
        target.feed(type(moment)(end, moment.collaborator, []), target.messages)

    target.codec = _Forgetful()
    with pytest.raises(ValueError, match="not ours"):
        target.feed(moment, [[b"\xc1"]])

"""The host asks for embeddings of rows: between rounds, or in a session that trains nothing."""

from __future__ import annotations

import pytest
import torch
from msgspec.structs import replace

from heterofed.errors import FrameError, LocalProtocolError, RemoteProtocolError
from heterofed.frames.codec import Codec
from heterofed.frames.forms import Blob
from heterofed.frames.messages import MOST_ASKED, AnyMessage, Ask, BatchesEnd, BatchPlan, Draw, Embedding, Proceed
from heterofed.frames.tensors import pack
from heterofed.protocol.phases import TEST_AHEAD, Phase, Role
from heterofed.protocol.session import Session
from tests.frames.examples import example

H, C = Role.HOST, Role.COLLABORATOR
ASK = Ask(round=7, batch_size=2, rows=Blob(bytes(4 * 12)))


def embedding(batch: int, round_: int = 7) -> Embedding:
    return Embedding(round_, batch, 2, b"", pack(torch.ones(2, 3)))


def say(session: Session, *said: tuple[Role, AnyMessage]) -> None:
    for role, message in said:
        session.sending(message) if role is session.role else session.receiving(message)


@pytest.mark.parametrize("role", [H, C], ids=["host", "collaborator"])
def test_the_last_embeddings_of_an_answer_want_no_word(role: Role) -> None:
    session = Session(role, "peer")
    session.phase = Phase.READY

    for _ in range(2):  # once more after the first
        say(session, (H, ASK), *((C, embedding(batch)) for batch in range(TEST_AHEAD + 1)))
        assert session.phase is Phase.AWAITING_MORE
        say(session, (H, Proceed(7, 0, None, False)), (C, embedding(TEST_AHEAD + 1)))
        say(session, (C, BatchesEnd(7, TEST_AHEAD + 2)))
        assert (session.phase, session.unanswered) == (Phase.READY, 0)


def test_a_collaborator_may_not_run_further_ahead_than_in_a_test() -> None:
    session = Session(H, "c1")
    session.phase = Phase.READY
    say(session, (H, ASK), *((C, embedding(batch)) for batch in range(TEST_AHEAD + 1)))

    with pytest.raises(RemoteProtocolError, match="before the answer to batch 0; expected BatchesEnd"):
        session.receiving(embedding(TEST_AHEAD + 1))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (embedding(1), "Embedding of batch 1 at batch 0"),
        (embedding(0, 8), "Embedding of round 8 in round 7"),
        (BatchesEnd(7, 1), "BatchesEnd after 1 batches at batch 0"),
    ],
    ids=["batch", "round", "end"],
)
def test_an_answer_that_does_not_fit_is_refused(message: AnyMessage, words: str) -> None:
    session = Session(H, "c1")
    session.phase = Phase.READY
    say(session, (H, ASK))

    with pytest.raises(RemoteProtocolError, match=words):
        session.receiving(message)


def test_rounds_go_on_after_a_request_and_it_is_of_the_round_that_was_trained() -> None:
    session = Session(H, "c1")
    session.phase, session.round = Phase.READY, 7
    say(session, (H, ASK), (C, embedding(0)), (C, BatchesEnd(7, 1)))
    plan = example(BatchPlan, round_=8, batch=0)

    session.sending(plan)

    assert (session.phase, session.round, session.batch) == (Phase.STARTING_ROUND, 8, 0)
    other = Session(H, "c1")
    other.phase, other.round = Phase.READY, 6
    with pytest.raises(LocalProtocolError, match="Ask of round 7 in round 6"):
        other.sending(ASK)


@pytest.mark.parametrize("size", [0, 3, 4 * MOST_ASKED + 4], ids=["none", "torn", "too-many"])
def test_a_request_for_no_torn_or_too_many_rows_is_no_message(size: int) -> None:
    header, _ = Codec().encode(ASK)

    with pytest.raises(FrameError):
        Codec().decode([header, bytes(size)])
    for batch_size in (0, MOST_ASKED + 1):
        with pytest.raises(FrameError):
            Codec().decode(Codec().encode(replace(ASK, batch_size=batch_size)))


def test_a_draw_that_nobody_can_make_is_refused_when_it_comes() -> None:
    for draw in (Draw("swag", 2**63, 0), Draw("swag", -1, 0), Draw("mc_dropout", 1, -1), Draw("magic", 1, 1)):  # type: ignore[arg-type]
        with pytest.raises(FrameError):
            Codec().decode(Codec().encode(replace(ASK, draw=draw)))

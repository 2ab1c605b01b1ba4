"""A session knows the round and the batch, and both ends of a link stay in step."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
import pytest

from heterofed.errors import LocalProtocolError, RemoteProtocolError
from heterofed.frames.messages import (
    Abort,
    AnyMessage,
    BatchesEnd,
    BatchPlan,
    CheckIn,
    CloseRound,
    Completed,
    CompleteTask,
    Dismissed,
    Embedding,
    Gradient,
    Proceed,
    PsiPart,
    RoundClosed,
    RoundReady,
    Split,
    StartTest,
    Terms,
    Welcome,
)
from heterofed.protocol.phases import TEST_AHEAD, Phase, Role
from heterofed.protocol.session import Session
from tests.frames.examples import example

H, C = Role.HOST, Role.COLLABORATOR

Said: TypeAlias = tuple[Role, AnyMessage]


class Pair:
    """Both ends of a link; what one says the other hears at once."""

    def __init__(self) -> None:
        self.ends = {H: Session(H, "c1"), C: Session(C, "host")}

    def say(self, role: Role, message: AnyMessage) -> Phase:
        """Let one end say something and return the phase that both are in then."""
        speaker, listener = self.ends[role], self.ends[C if role is H else H]
        speaker.sending(message)
        listener.receiving(message)
        assert (speaker.phase, speaker.round, speaker.batch) == (listener.phase, listener.round, listener.batch)
        assert list(speaker.story) == list(listener.story)
        return speaker.phase

    def run(self, script: list[Said]) -> Pair:
        for role, message in script:
            self.say(role, message)
        return self

    @property
    def host(self) -> Session:
        return self.ends[H]


LOCK_STEP: AnyMessage = msgspec.structs.replace(example(Welcome), terms=Terms())

BEGINNING: list[Said] = [
    (C, example(CheckIn)),
    (C, example(CheckIn)),  # it was started again
    (H, LOCK_STEP),
    (H, example(PsiPart)),
    (C, example(PsiPart)),
    (C, example(PsiPart)),
    (C, example(Split)),
    (H, example(Split)),
]


def batches(round_: int, count: int) -> list[Said]:
    """Training batches, each answered with a gradient."""
    said: list[Said] = []
    for batch in range(count):
        said += [(C, example(Embedding, round_, batch)), (H, example(Gradient, round_, batch))]
    return [*said, (C, BatchesEnd(round_, count))]


def answered_batches(round_: int, count: int) -> list[Said]:
    """Test batches, each answered with Proceed."""
    said: list[Said] = [(H, StartTest(round_))]
    for batch in range(count):
        said += [(C, example(Embedding, round_, batch)), (H, Proceed(round_, batch, None, False))]
    return [*said, (C, BatchesEnd(round_, count))]


def plan(round_: int, first: int = 0) -> BatchPlan:
    """Return the plan of a round."""
    return msgspec.structs.replace(example(BatchPlan, round_), first=first)  # type: ignore[return-value]  # of this type


def opening(round_: int) -> list[Said]:
    return [(H, plan(round_)), (C, RoundReady(round_))]


def closing(round_: int) -> list[Said]:
    return [(H, CloseRound(round_, False, None)), (C, RoundClosed(round_))]


END: list[Said] = [(H, CompleteTask(2)), (C, Completed(2)), (H, Dismissed())]


def in_training(round_: int = 1, batch: int = 0) -> Pair:
    """Return a pair in the training of a round, before a batch."""
    pair = Pair().run(BEGINNING)
    for number in range(1, round_):
        pair.run([*opening(number), *batches(number, 1), *closing(number)])
    return pair.run([*opening(round_), *batches(round_, batch)[: 2 * batch]])


def test_two_sessions_stay_in_step_through_a_whole_task() -> None:
    pair = Pair().run(BEGINNING)
    pair.run([*opening(1), *batches(1, 3), *answered_batches(1, 2), *closing(1)])
    pair.run([*opening(2), *batches(2, 3), *closing(2)])
    pair.run(END)

    assert pair.host.phase is Phase.COMPLETED
    assert pair.host.round == 2
    assert all(session.over for session in pair.ends.values())


def test_the_phases_of_a_course_are_those_of_the_design() -> None:
    pair = Pair()
    script = [*BEGINNING, *opening(1), *batches(1, 1), *answered_batches(1, 1), *closing(1), *END]

    phases = [pair.say(role, message).name for role, message in script]

    assert phases == [
        *("CHECKED_IN", "CHECKED_IN", "MATCHING", "MATCHING", "MATCHING", "MATCHING", "ALIGNING", "READY"),
        *("STARTING_ROUND", "TRAINING", "AWAITING_GRADIENT", "TRAINING", "TRAINED"),
        *("TESTING", "AWAITING_PROCEED", "TESTING", "TESTED", "CLOSING_ROUND", "READY"),
        *("COMPLETING", "LEAVING", "COMPLETED"),
    ]


def test_a_frozen_party_is_answered_with_proceed_in_training() -> None:
    pair = in_training()
    pair.run([(C, example(Embedding, 1, 0)), (H, Proceed(1, 0, 0.5, False)), (C, example(Embedding, 1, 1))])

    assert pair.host.phase is Phase.AWAITING_GRADIENT
    assert pair.host.batch == 1


def test_people_who_want_only_the_intersection_may_end_after_the_matching() -> None:
    pair = Pair().run([*BEGINNING[:6], (H, CompleteTask(0)), (C, Completed(0)), (H, Dismissed())])

    assert pair.host.phase is Phase.COMPLETED


def test_a_task_may_end_before_its_first_round() -> None:
    assert Pair().run([*BEGINNING, *END]).host.phase is Phase.COMPLETED


def test_batches_are_counted_from_0_in_each_round_and_in_each_test() -> None:
    pair = in_training(batch=2)
    assert pair.host.batch == 2

    pair.run([(C, BatchesEnd(1, 2)), (H, StartTest(1))])
    assert pair.host.batch == 0

    pair.run([*answered_batches(1, 1)[1:], *closing(1), (H, example(BatchPlan, 2))])
    assert (pair.host.round, pair.host.batch) == (2, 0)


def test_a_session_may_begin_with_the_round_after_a_checkpoint() -> None:
    pair = Pair().run([*BEGINNING, *opening(4), *batches(4, 1), *closing(4), *opening(5)])

    assert [end.round for end in pair.ends.values()] == [5, 5]


@pytest.mark.parametrize(
    ("script", "role", "message", "problem"),
    [
        ([*opening(4), *batches(4, 0), *closing(4)], H, example(BatchPlan, 6), "BatchPlan of round 6 in round 5"),
        ([*opening(1), *batches(1, 0), *closing(1)], H, example(BatchPlan, 1), "BatchPlan of round 1 in round 2"),
        (opening(1)[:1], C, RoundReady(2), "RoundReady of round 2 in round 1"),
        (opening(1), C, example(Embedding, 2, 0), "Embedding of round 2 in round 1"),
        (opening(1), C, example(Embedding, 1, 1), "Embedding of batch 1 at batch 0"),
        ([*opening(1), *batches(1, 1)[:2]], C, example(Embedding, 1, 0), "Embedding of batch 0 at batch 1"),
        ([*opening(1), *batches(1, 1)[:1]], H, example(Gradient, 2, 0), "Gradient of round 2 in round 1"),
        ([*opening(1), *batches(1, 1)[:1]], H, example(Gradient, 1, 1), "Gradient of batch 1 at batch 0"),
        ([*opening(1), *batches(1, 1)[:1]], H, Proceed(1, 1, None, False), "Proceed of batch 1 at batch 0"),
        ([*opening(1), *batches(1, 1)[:2]], C, BatchesEnd(1, 0), "BatchesEnd after 0 batches at batch 1"),
        ([*opening(1), *batches(1, 1)[:2]], C, BatchesEnd(1, 2), "BatchesEnd after 2 batches at batch 1"),
        ([*opening(1), *batches(1, 1)[:2]], C, BatchesEnd(2, 1), "BatchesEnd of round 2 in round 1"),
        ([*opening(1), *batches(1, 1)], H, StartTest(2), "StartTest of round 2 in round 1"),
        ([*opening(1), *batches(1, 1), *answered_batches(1, 2)[:3]], C, BatchesEnd(1, 2), "BatchesEnd after 2 batches"),
        ([*opening(1), *batches(1, 1)], H, CloseRound(2, False, None), "CloseRound of round 2 in round 1"),
        ([*opening(1), *batches(1, 1), *closing(1)[:1]], C, RoundClosed(2), "RoundClosed of round 2 in round 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_round_batch_or_count_is_refused_at_both_ends_and_moves_nothing(
    script: list[Said], role: Role, message: AnyMessage, problem: str
) -> None:
    pair = Pair().run([*BEGINNING, *script])
    speaker, listener = pair.ends[role], pair.ends[C if role is H else H]
    before = (speaker.phase, speaker.round, speaker.batch, list(speaker.story))

    with pytest.raises(LocalProtocolError, match=f"tried to send {problem}.* to {speaker.peer}"):
        speaker.sending(message)
    with pytest.raises(RemoteProtocolError, match=f"{listener.peer}, while {listener.phase.value}: sent {problem}"):
        listener.receiving(message)

    for session in (speaker, listener):
        assert (session.phase, session.round, session.batch, list(session.story)) == before


def test_a_refused_message_can_be_followed_by_the_right_one() -> None:
    pair = in_training()
    with pytest.raises(RemoteProtocolError):
        pair.host.receiving(example(Embedding, 1, 7))

    pair.say(C, example(Embedding, 1, 0))

    assert pair.host.phase is Phase.AWAITING_GRADIENT


def test_the_error_about_a_peer_names_party_phase_expectation_and_advice() -> None:
    session = in_training().host

    with pytest.raises(RemoteProtocolError) as caught:
        session.receiving(example(CheckIn))

    error = caught.value
    assert (error.party, error.phase, error.expected) == ("c1", "training", "Embedding or BatchesEnd")
    assert str(error) == (
        "c1, while training: sent CheckIn; expected Embedding or BatchesEnd. "
        "Check that all parties run the same version of heterofed and were started once each."
    )


def test_the_error_about_ourselves_names_message_peer_and_phase() -> None:
    session = in_training().host

    with pytest.raises(LocalProtocolError) as caught:
        session.sending(example(Welcome))

    assert str(caught.value) == "while training: tried to send Welcome to c1. This is a bug in heterofed."


def test_a_peer_that_speaks_out_of_turn_is_told_that_it_must_wait() -> None:
    pair = in_training()
    pair.say(C, example(Embedding, 1, 0))

    with pytest.raises(RemoteProtocolError, match="expected nothing before our answer"):
        pair.host.receiving(example(Embedding, 1, 1))


def ahead(max_staleness: int) -> Pair:
    """Return a pair in training where a collaborator may be so many batches ahead."""
    welcome = msgspec.structs.replace(example(Welcome), terms=Terms(max_staleness=max_staleness))
    script = [(H, welcome) if each == (H, LOCK_STEP) else each for each in BEGINNING]
    return Pair().run([*script, *opening(1)])


def test_a_collaborator_runs_ahead_as_far_as_the_host_has_declared() -> None:
    pair = ahead(2)
    for batch in range(3):
        assert pair.say(C, example(Embedding, 1, batch)) is Phase.AWAITING_GRADIENT

    with pytest.raises(RemoteProtocolError, match="sent Embedding before the answer to batch 0; expected nothing"):
        pair.host.receiving(example(Embedding, 1, 3))

    assert pair.say(H, example(Gradient, 1, 0)) is Phase.AWAITING_GRADIENT
    pair.say(C, example(Embedding, 1, 3))
    for batch in (1, 2, 3):
        assert pair.say(H, example(Gradient, 1, batch)) is (Phase.TRAINING if batch == 3 else Phase.AWAITING_GRADIENT)
    assert pair.say(C, BatchesEnd(1, 4)) is Phase.TRAINED


def test_messages_that_cross_leave_both_ends_in_step() -> None:
    pair = ahead(1)
    pair.say(C, example(Embedding, 1, 0))
    host, collaborator = pair.ends[H], pair.ends[C]

    collaborator.sending(example(Embedding, 1, 1))
    host.sending(example(Gradient, 1, 0))
    host.receiving(example(Embedding, 1, 1))
    collaborator.receiving(example(Gradient, 1, 0))

    assert (host.phase, host.batch, host.unanswered) == (collaborator.phase, collaborator.batch, 1)
    assert host.phase is Phase.AWAITING_GRADIENT


def test_an_answer_to_a_batch_that_is_not_the_first_due_is_refused() -> None:
    pair = ahead(2)
    for batch in range(2):
        pair.say(C, example(Embedding, 1, batch))

    with pytest.raises(LocalProtocolError, match="Gradient of batch 1 at batch 0"):
        pair.host.sending(example(Gradient, 1, 1))


def test_an_embedding_that_leaves_a_batch_out_is_refused() -> None:
    pair = ahead(2)
    pair.say(C, example(Embedding, 1, 0))

    with pytest.raises(RemoteProtocolError, match="Embedding of batch 2 at batch 1"):
        pair.host.receiving(example(Embedding, 1, 2))


def test_a_pass_does_not_end_while_answers_are_due() -> None:
    pair = ahead(2)
    pair.say(C, example(Embedding, 1, 0))

    with pytest.raises(RemoteProtocolError, match="sent BatchesEnd; expected Embedding"):
        pair.host.receiving(BatchesEnd(1, 1))


def test_a_test_runs_a_few_batches_ahead_in_every_session() -> None:
    pair = in_training(batch=1).run([(C, BatchesEnd(1, 1)), (H, StartTest(1))])
    for batch in range(1 + TEST_AHEAD):
        pair.say(C, example(Embedding, 1, batch))

    with pytest.raises(RemoteProtocolError, match="before the answer to batch 0"):
        pair.host.receiving(example(Embedding, 1, 1 + TEST_AHEAD))


def test_an_abort_ends_a_session_at_both_ends() -> None:
    pair = in_training()

    assert pair.say(C, example(Abort)) is Phase.ABORTED
    assert all(session.over for session in pair.ends.values())


def test_the_story_keeps_the_last_moves_in_order() -> None:
    pair = in_training(batch=9)

    story = list(pair.host.story)
    assert len(story) == 12
    assert story[-2:] == [
        "TRAINING --collaborator Embedding--> AWAITING_GRADIENT",
        "AWAITING_GRADIENT --host Gradient--> TRAINING",
    ]

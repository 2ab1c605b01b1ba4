"""Two parties on a link that a test cuts where it likes: what is under way is lost, or comes late.

Each party says one message at a time, as a driver would send it; a cut throws away what both still had to say. The
initiator then resumes. `Lossy.check` looks at everything that was said from the first message to the last.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import Any, ClassVar
from unittest.mock import patch

from psi import Initiator, Responder
from psi.ecdh import EcdhAsker, EcdhHolder
from psi.messages import Kind, Reveal, Side
from psi.oprf import ECDH, RSA
from psi.rsa import KEY_PROOF_ROOTS, RsaAsker, RsaHolder
from tests.psi.helpers import SPOTS, WIDTH, items_of, of_kind

ATTEMPT = 2
"""Where a message has its attempt."""


class Act(Enum):
    """One thing that can happen on the way."""

    INITIATOR_SAYS = 1
    RESPONDER_SAYS = 2
    INITIATOR_HEARS = 3
    RESPONDER_HEARS = 4
    RESPONDER_ADVANCES = 5
    INITIATOR_REVEALS = 6
    CUT = 7


MOVES = tuple(act for act in Act if act is not Act.CUT)
IDLE_WORK_FIRST = (Act.RESPONDER_ADVANCES, *MOVES)
IDLE_WORK_NEVER = tuple(act for act in MOVES if act is not Act.RESPONDER_ADVANCES)
QUESTIONS_FIRST = (
    Act.RESPONDER_SAYS,
    Act.INITIATOR_HEARS,
    *(Act.INITIATOR_SAYS,) * 4,
    *(Act.RESPONDER_HEARS,) * 4,
    Act.INITIATOR_REVEALS,
)
"""The responder takes several chunks in before it answers the first."""


class Lossy:
    """A run on such a link; the responder has been started.

    Args:
        left: the initiator, not used yet.
        right: the responder, not used yet.
        late: what a cut interrupts is not lost: it comes twice, as soon as its reader knows of the new attempt and
            again at the end.
        reveal: how the initiator ends its run; None: as soon as it is matched.
    """

    def __init__(
        self,
        left: Initiator,
        right: Responder,
        *,
        late: bool = False,
        reveal: Callable[[], Iterator[bytes] | None] | None = None,
    ) -> None:
        self.left, self.right = left, right
        self._late = late
        self._reveal = reveal or left.reveal
        self._up: deque[bytes] = deque()
        self._down: deque[bytes] = deque()
        self._left_gives: deque[Iterator[bytes]] = deque()
        self._right_gives: deque[Iterator[bytes]] = deque([right.start()])
        self._opening = True
        """The responder still has to say its first word on this link; its idle work comes after it."""
        self._revealed = False
        self._stale: list[bytes] = []
        self._dropped: list[bytes] = []
        self.said: list[bytes] = []
        """Every message that was given to the link."""
        self.attempts = 0
        self._progress = (left.progress, right.progress)

    @property
    def finished(self) -> bool:
        """Whether both have their result."""
        return self.left.finished and self.right.finished

    def act(self, act: Act) -> bool:
        """Let one thing happen, if it can; returns whether it did."""
        happened = self._acts[act](self)
        if happened:
            self._look_at_progress()
            self._deliver_late()
        return happened

    def run(self, moves: Sequence[Act] = MOVES, *, limit: int | None = None) -> int:
        """Let these things happen over and over until nothing more can, or `limit` of them have; returns how many."""
        count = 0
        while count != limit:
            before = count
            for move in moves:
                if count != limit and self.act(move):
                    count += 1
            if count == before:
                break
        return count

    def finish(self, moves: Sequence[Act] = MOVES) -> None:
        """Go on to the end, resuming wherever something was lost."""
        for _ in range(20):
            self.run(moves)
            if self.finished:
                break
            self.act(Act.CUT)
        assert self.finished, (self.left._phase, self.right._phase)
        self._deliver_late()
        for message in self._dropped:
            self._expect_nothing(message)

    def cut(self) -> bool:
        """Lose everything under way and go on with a new attempt, if the initiator still wants one."""
        self._stale += [*self._up, *self._down]
        self._up.clear()
        self._down.clear()
        self._left_gives.clear()
        self._right_gives.clear()
        if self.left.finished:
            return False
        self.attempts += 1
        self._says(self._up, self.left.resume())
        return True

    def _says(self, queue: deque[bytes], message: bytes) -> None:
        queue.append(message)
        self.said.append(message)

    def _next(self, gives: deque[Iterator[bytes]], queue: deque[bytes]) -> bool:
        while gives:
            message = next(gives[0], None)
            if message is not None:
                self._says(queue, message)
                return True
            gives.popleft()
        return False

    def _left_says(self) -> bool:
        return self._next(self._left_gives, self._up)

    def _right_says(self) -> bool:
        said = self._next(self._right_gives, self._down)
        self._opening = self._opening and not said
        return said

    def _left_hears(self) -> bool:
        if not self._down:
            return False
        self._left_gives.append(self.left.receive(self._down.popleft()))
        return True

    def _right_hears(self) -> bool:
        if not self._up:
            return False
        message = self._up.popleft()
        self._right_gives.append(self.right.receive(message))
        self._opening = self._opening or message[1] == Kind.RESUME
        return True

    def _right_advances(self) -> bool:
        if self._opening or not self.right.busy:
            return False
        for message in self.right.advance():
            self._says(self._down, message)
        return True

    def _left_reveals(self) -> bool:
        if self._revealed or not self.left.matched:
            return False
        gives = self._reveal()
        if gives is None:
            return False
        self._revealed = True
        self._left_gives.append(gives)
        return True

    _acts: ClassVar[dict[Act, Callable[[Lossy], bool]]] = {
        Act.INITIATOR_SAYS: _left_says,
        Act.RESPONDER_SAYS: _right_says,
        Act.INITIATOR_HEARS: _left_hears,
        Act.RESPONDER_HEARS: _right_hears,
        Act.RESPONDER_ADVANCES: _right_advances,
        Act.INITIATOR_REVEALS: _left_reveals,
        Act.CUT: cut,
    }

    def _deliver_late(self) -> None:
        if not self._late:
            return
        waiting, self._stale = self._stale, []
        for message in waiting:
            if message[ATTEMPT] < self._reader(message)._writer.attempt:
                self._expect_nothing(message)
                self._dropped.append(message)
            else:
                self._stale.append(message)

    def _reader(self, message: bytes) -> Initiator | Responder:
        return self.left if message[0] == Side.RESPONDER else self.right

    def _expect_nothing(self, message: bytes) -> None:
        reader = self._reader(message)
        before = reader.progress, reader._phase
        assert list(reader.receive(message)) == []
        assert (reader.progress, reader._phase) == before

    def _look_at_progress(self) -> None:
        for before, now in zip(self._progress, (self.left.progress, self.right.progress), strict=True):
            assert now.done >= before.done
            assert now.total >= before.total
            assert now.total == 0 or now.done <= now.total
        self._progress = (self.left.progress, self.right.progress)

    def check(self, ids: Sequence[str], peer_ids: Sequence[str], shared: Sequence[str] | None = None) -> None:
        """Both have the result of the sets, and nothing was answered, asked or told in two ways."""
        expected = sorted(set(ids) & set(peer_ids)) if shared is None else sorted(shared)
        left, right, terms = self.left, self.right, self.left.terms
        assert left.cardinality == len(expected)
        if terms.reveal is not Reveal.CARDINALITY:
            assert left.intersection == expected
        if terms.reveal is Reveal.BOTH:
            assert right.intersection == expected
        if terms.reveal is not Reveal.INITIATOR:
            assert right.cardinality == len(expected)
        assert right.peer_count == len(ids) and left.peer_count == len(peer_ids)
        for run in (left, right):
            assert run.progress.done == run.progress.total
        width, asked = WIDTH[terms.protocol], len(ids) + SPOTS[terms.protocol]
        for kind, bytes_each, count in (
            (Kind.BLINDED, width, asked),
            (Kind.ANSWERS, width, asked),
            (Kind.TAGS, 16, 0 if terms.joint else len(peer_ids)),
        ):
            placed = _placed(of_kind(self.said, kind), bytes_each)
            assert sorted(placed) == list(range(count))
            assert all(len(items) == 1 for items in placed.values())  # in each place the same, however often said
            assert len(set.union(set(), *placed.values())) == count  # and nothing in two places


def _placed(messages: Sequence[bytes], width: int) -> dict[int, set[bytes]]:
    """What was said for each position."""
    placed: dict[int, set[bytes]] = {}
    for message in messages:
        first = int.from_bytes(message[19:27], "big")
        for number, item in enumerate(items_of(message, width)):
            placed.setdefault(first + number, set()).add(item)
    return placed


class Work:
    """What was computed since the counting began, in ids or elements."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, what: str, count: int) -> None:
        """Count some more."""
        self._counts[what] += count

    def check(self, protocol: str, reveal: str, asked: int, told: int, *, runs: int = 1) -> None:
        """Everything was computed exactly once in each of so many like runs, by both parties."""
        spots, unblinded = SPOTS[protocol], asked
        if reveal == Reveal.CARDINALITY:
            unblinded += spots
        answered = asked + spots
        if protocol == RSA:
            answered += told + KEY_PROOF_ROOTS  # own ids take the same way
        each = {"answered": answered, "told": told, "blinded": asked, "unblinded": unblinded, "opened": 1}
        assert {what: self._counts[what] for what in each} == {what: runs * count for what, count in each.items()}


@contextmanager
def counted() -> Iterator[Work]:
    """Counts what is computed in the block."""
    work = Work()
    with ExitStack() as stack:

        def watch(owner: type[Any], name: str, what: str, count: Callable[..., int]) -> None:
            original = getattr(owner, name)

            def watched(self: Any, *arguments: Any) -> Any:
                work.add(what, count(self, *arguments))
                return original(self, *arguments)

            stack.enter_context(patch.object(owner, name, watched))

        for holder in (RsaHolder, EcdhHolder):
            watch(holder, "answer", "answered", lambda self, elements: len(elements) // self.width)
            watch(holder, "powers", "told", lambda self, ids: len(ids))
        for asker in (RsaAsker, EcdhAsker):
            watch(asker, "blind", "blinded", lambda self, ids, randomness: len(ids))
            watch(
                asker,
                "unblind",
                "unblinded",
                lambda self, elements, secrets, answers, first: len(answers) // self.width,
            )
        watch(Initiator, "_take_offer", "opened", lambda self, offer, run: 1)
        yield work


TERMS = [(RSA, "both"), (RSA, "initiator"), (ECDH, "both"), (ECDH, "initiator"), (ECDH, "cardinality")]

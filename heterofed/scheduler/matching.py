"""The private set intersection over links: `psi` makes and reads the bytes, this moves them.

The host runs one `psi.Initiator` against each collaborator's `psi.Responder`, intersects the results, and reveals to
each collaborator only the ids that all parties share.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing

import psi
from heterofed.errors import AlignmentError, HeterofedError, RemoteProtocolError, TaskFailed
from heterofed.frames.messages import Blob, PsiPart, StillMatching
from heterofed.metrics.progress import Progress
from heterofed.scheduler.link import Link

WINDOW = 16
"""Parts that the host may send a collaborator before the answers come. Within every queue's bound, so that two
parties that both send cannot block each other; enough to keep a collaborator's cores busy."""

REASSURE_EVERY_S = 10.0
"""How often the host tells a collaborator that is done to keep waiting for the others."""


def match_as_host(
    link: Link, ids: Sequence[str], *, task_id: str, session: bytes, timeout_s: float, progress: Progress
) -> list[str]:
    """Return the sorted ids that this host and every collaborator hold.

    Args:
        link: to the collaborators, all welcomed.
        ids: this party's unique ids.
        task_id: separates the hashes of different tasks.
        session: the session's token; separates those of different sessions.
        timeout_s: longest wait for any one part; 0 waits for ever.
        progress: shown how far it is.

    Raises:
        AlignmentError: no id is common to all parties.
        RemoteProtocolError: a collaborator's part is malformed or contradicts the protocol.
    """
    with ExitStack() as at_the_end:
        runs = {
            peer: at_the_end.enter_context(closing(psi.Initiator(ids, task=task_id, session=_pair(session, peer))))
            for peer in link.peers
        }
        return _lead(link, runs, own_ids=len(ids), timeout_s=timeout_s, progress=progress)


def _lead(
    link: Link, runs: Mapping[str, psi.Initiator], *, own_ids: int, timeout_s: float, progress: Progress
) -> list[str]:
    """Serve all runs to their end, reveal what is common to all, and return it."""
    reassure = _Reassurance(link, runs, timeout_s)
    look = link.look

    def look_and_reassure() -> None:
        look()
        reassure()

    link.look = look_and_reassure
    try:
        _serve(link, runs, reassure, timeout_s=timeout_s, progress=progress)
    finally:
        link.look = look
    common = set.intersection(*(set(run.intersection) for run in runs.values()))
    if not common:
        # For this party's eyes only: the error's text goes to the collaborators, who learn no pairwise sizes.
        for peer, run in runs.items():
            progress.say(f"{len(run.intersection)} of {own_ids} ids are common with {peer}")
        raise AlignmentError(
            f"no id is common to all {len(runs) + 1} parties",
            expected="at least one",
            advice="Check that every party writes its ids alike: same letters, same zeros, no spaces.",
        )
    for peer, run in runs.items():
        for part in run.reveal(common):
            link.send(peer, PsiPart(Blob(part)), timeout_s)
    return sorted(common)


def _serve(
    link: Link,
    runs: Mapping[str, psi.Initiator],
    reassure: Callable[[], None],
    *,
    timeout_s: float,
    progress: Progress,
) -> None:
    """Exchange parts with every collaborator, whichever is ready, until all tags are there."""
    outbox: dict[str, Iterator[bytes]] = {peer: iter(()) for peer in runs}
    unanswered = dict.fromkeys(runs, 0)
    while open_ := [peer for peer, run in runs.items() if not run.matched]:
        for peer in open_:
            while unanswered[peer] < WINDOW and (part := next(outbox[peer], None)) is not None:
                link.send(peer, PsiPart(Blob(part)), timeout_s)
                unanswered[peer] += 1
        peer, message = link.expect(PsiPart, from_=open_, waiting_for="part of the intersection", timeout_s=timeout_s)
        unanswered[peer] -= 1
        reassure()
        try:
            replies = runs[peer].receive(bytes(message.payload.data))
            first = next(replies, None)
        except psi.PsiError as error:
            raise _blame(error, peer) from None
        if first is not None:
            outbox[peer] = itertools.chain([first], replies)
            unanswered[peer] = 0
        states = [run.progress for run in runs.values()]
        progress.matched(sum(each.done for each in states), sum(each.total for each in states))


class _Reassurance:
    """Tells collaborators that are done, now and then, that the host still works with the others."""

    def __init__(self, link: Link, runs: Mapping[str, psi.Initiator], timeout_s: float) -> None:
        self._link = link
        self._runs = runs
        self._timeout_s = timeout_s
        self._last = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last < REASSURE_EVERY_S:
            return
        self._last = time.monotonic()
        for peer, run in self._runs.items():
            if run.matched:
                self._link.send(peer, StillMatching(), self._timeout_s)


def match_as_collaborator(
    link: Link,
    ids: Sequence[str],
    *,
    host: str,
    task_id: str,
    session: bytes,
    key_bits: int,
    timeout_s: float,
    progress: Progress,
) -> list[str]:
    """Return the sorted ids that all parties hold, as the host reveals them.

    Args:
        link: to the host, which has welcomed us.
        ids: this party's unique ids.
        host: its feature key.
        task_id: as at the host.
        session: as at the host.
        key_bits: size of the fresh RSA key.
        timeout_s: longest wait for any one part; 0 waits for ever.
        progress: shown how far it is.

    Raises:
        RemoteProtocolError: a part of the host is malformed or contradicts the protocol.
        TaskAborted: the host found no common id.
    """
    with closing(psi.Responder(ids, task=task_id, session=_pair(session, link.party), key_bits=key_bits)) as run:
        for part in run.start():
            link.send(host, PsiPart(Blob(part)), timeout_s)
        while not run.finished:
            _, message = link.expect(
                (PsiPart, StillMatching),
                from_=[host],
                waiting_for="part of the intersection",
                timeout_s=timeout_s,
            )
            if isinstance(message, StillMatching):
                continue
            try:
                for part in run.receive(bytes(message.payload.data)):
                    link.send(host, PsiPart(Blob(part)), timeout_s)
                    progress.matched(run.progress.done, run.progress.total)
            except psi.PsiError as error:
                raise _blame(error, host) from None
        return run.intersection


def _pair(session: bytes, collaborator: str) -> bytes:
    """Return a session name that no two pairs of parties share."""
    return session + collaborator.encode()


def _blame(error: psi.PsiError, peer: str) -> HeterofedError:
    if not isinstance(error, psi.BadMessage | psi.BadElement | psi.WeakKey | psi.WrongRole):
        return TaskFailed(
            f"the intersection failed at this party ({type(error).__name__}: {error})", advice="Start the task again."
        )
    return RemoteProtocolError(
        f"broke the rules of the intersection ({type(error).__name__}: {error})",
        party=peer,
        phase="matching ids",
        advice="Check that all parties run the same version of heterofed; if they do, do not trust this peer.",
    )

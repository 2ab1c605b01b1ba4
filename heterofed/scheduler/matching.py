"""The private set intersection over links: `psi` makes and reads the bytes, this moves them.

The host runs one `psi.Initiator` against each collaborator's `psi.Responder`. With several collaborators the runs are
joint: the host learns what all parties share and not what it shares with each (unless the parties agreed otherwise). At
the end each collaborator is told which of its ids all parties share, and both ends of each run compare digests of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import psi
from heterofed.errors import AlignmentError, HeterofedError, RemoteProtocolError, TaskFailed
from heterofed.frames.forms import Blob
from heterofed.frames.messages import Matching, PairingKey, PairingKeys, PsiPart, Reveal, StillMatching
from heterofed.metrics.progress import Progress
from heterofed.scheduler.link import Link
from heterofed.scheduler.seat import Seat

REASSURE_EVERY_S = 10.0
"""How often the host tells a collaborator that is done to wait for the others; more often where waits are short."""


@dataclass(frozen=True)
class MatchingJob:
    """What both roles have to know to match ids."""

    task_id: str
    """Separates the hashes of different tasks."""
    session: bytes
    """The session's token; separates those of different sessions."""
    matching: Matching
    """As all parties agreed."""
    timeout_s: float
    """Longest wait for any one part; 0 waits for ever."""
    workers: int = 0
    """Threads or processes; 0: as `psi` finds best."""
    engine: str | None = None
    """The arithmetic; None takes the fastest."""
    key_bits: int = 2048
    """Size of a collaborator's fresh RSA key."""
    max_ids: int = 100_000_000
    """How many ids a peer may declare."""
    may_be_empty: bool = False
    """Whether an empty intersection is a result; otherwise it is an error at every party."""


def job_of(
    seat: Seat, session: bytes, timeout_s: float, *, reveal: Reveal = "both", may_be_empty: bool = False
) -> MatchingJob:
    """The job of a party at this seat, in this session; see `MatchingJob`."""
    return MatchingJob(
        task_id=seat.task_id,
        session=session,
        matching=seat.matching(reveal),
        timeout_s=timeout_s,
        workers=seat.settings.psi_workers,
        engine=None if seat.settings.psi_engine == "fastest" else seat.settings.psi_engine,
        key_bits=seat.settings.psi_key_bits,
        max_ids=seat.settings.psi_max_ids,
        may_be_empty=may_be_empty,
    )


@dataclass(frozen=True)
class Matched:
    """What a party knows in the end."""

    ids: list[str] | None
    """The sorted ids that all parties hold; None where this party is not to know."""
    count: int | None
    """How many they are; None where this party is not to know."""


def match_as_host(link: Link, ids: Sequence[str], job: MatchingJob, progress: Progress) -> Matched:
    """Match this host's ids with every collaborator's.

    Args:
        link: to the collaborators, all welcomed.
        ids: this party's unique ids.
        job: what to do.
        progress: shown how far it is.

    Raises:
        AlignmentError: no id is common to all parties, or a collaborator holds another result.
        RemoteProtocolError: a collaborator's part is malformed or contradicts the protocol.
    """
    matching = job.matching
    progress.say(f"matching {len(ids)} ids by {matching}")
    if matching.joint:
        _relay_keys(link, job)
    with ExitStack() as at_the_end:
        runs = {
            peer: at_the_end.enter_context(
                closing(
                    psi.Initiator(
                        ids,
                        task=job.task_id,
                        session=_pair(job.session, peer),
                        protocol=matching.protocol,
                        reveal=matching.reveal,
                        joint=matching.joint,
                        workers=job.workers or None,
                        engine=job.engine,
                    )
                )
            )
            for peer in link.peers
        }
        with _reassuring(link, runs, job.timeout_s) as reassure:
            _serve(link, runs, job, progress, reassure)
            result = _result(runs, job, progress, own_ids=len(ids))
            for peer, run in runs.items():
                shared = result.ids if matching.reveal == "both" else None
                for part in run.reveal(shared):
                    link.send(peer, PsiPart(Blob(part)), job.timeout_s)
            _hear_last_words(link, runs, job)
        return result


def _relay_keys(link: Link, job: MatchingJob) -> None:
    """Pass the collaborators' public keys on to each other."""
    keys = link.collect(PairingKey, "key for the intersection", job.timeout_s)
    link.broadcast(PairingKeys(tuple(each.public for each in keys.values())), job.timeout_s)


def _serve(
    link: Link,
    runs: Mapping[str, psi.Initiator],
    job: MatchingJob,
    progress: Progress,
    reassure: Callable[[], None],
) -> None:
    """Exchange parts with every collaborator, whichever is ready, until all is known."""
    while open_ := [peer for peer, run in runs.items() if not run.matched]:
        _take_part(link, runs, open_, "part of the intersection", job)
        reassure()
        states = [run.progress for run in runs.values()]
        progress.matched(sum(each.done for each in states), sum(each.total for each in states))


def _result(runs: Mapping[str, psi.Initiator], job: MatchingJob, progress: Progress, *, own_ids: int) -> Matched:
    if job.matching.reveal == "cardinality":
        return Matched(None, next(iter(runs.values())).cardinality)
    if job.matching.joint:
        common = psi.join(list(runs.values()))
    else:
        common = sorted(set.intersection(*(set(run.intersection) for run in runs.values())))
    if not common and not job.may_be_empty:
        if not job.matching.joint:
            # For this party's eyes only: the error's text goes to the collaborators, who learn no pairwise sizes.
            for peer, run in runs.items():
                progress.say(f"{run.cardinality} of {own_ids} ids are common with {peer}")
        raise AlignmentError(
            f"no id is common to all {len(runs) + 1} parties",
            expected="at least one",
            advice="Check that every party writes its ids alike: same letters, same zeros, no spaces.",
        )
    return Matched(common, len(common))


def _hear_last_words(link: Link, runs: Mapping[str, psi.Initiator], job: MatchingJob) -> None:
    while open_ := [peer for peer, run in runs.items() if not run.finished]:
        _take_part(link, runs, open_, "digest of the intersection", job)


def _take_part(
    link: Link, runs: Mapping[str, psi.Initiator], open_: Sequence[str], waiting_for: str, job: MatchingJob
) -> None:
    """Hand one part of one collaborator to its run, and send what that says; or hear that one still works."""
    peer, message = link.expect((PsiPart, StillMatching), from_=open_, waiting_for=waiting_for, timeout_s=job.timeout_s)
    if isinstance(message, PsiPart):
        with _blaming(peer):
            for part in runs[peer].receive(bytes(message.payload.data)):
                link.send(peer, PsiPart(Blob(part)), job.timeout_s)
        _check_count(peer, runs[peer].peer_count, job)


@contextmanager
def _reassuring(link: Link, runs: Mapping[str, psi.Initiator], timeout_s: float) -> Iterator[Callable[[], None]]:
    """Tell collaborators that are done, now and then, that the host still works with the others.

    Every wait does, and gives a function to call between waits.
    """
    look, last = link.look, time.monotonic()
    pause_s = _pause_s(timeout_s)

    def reassure() -> None:
        nonlocal last
        if time.monotonic() - last < pause_s or all(run.matched for run in runs.values()):
            return
        last = time.monotonic()
        for peer, run in runs.items():
            if run.matched:
                link.send(peer, StillMatching(), timeout_s)

    def look_and_reassure() -> None:
        look()
        reassure()

    link.look = look_and_reassure
    try:
        yield reassure
    finally:
        link.look = look


def _pause_s(timeout_s: float) -> float:
    """How often to tell a peer that waits: often enough for its timeout, which is taken to be like ours."""
    return min(REASSURE_EVERY_S, timeout_s / 3 or REASSURE_EVERY_S)


def match_as_collaborator(
    link: Link,
    ids: Sequence[str],
    job: MatchingJob,
    progress: Progress,
    *,
    host: str,
    collaborators: Sequence[str],
    declared: Callable[[int], None] | None = None,
) -> Matched:
    """Match this collaborator's ids with the other parties'.

    Args:
        link: to the host, which has welcomed us.
        ids: this party's unique ids.
        job: what to do.
        progress: shown how far it is.
        host: its feature key.
        collaborators: feature keys of all collaborators, in the host's order.
        declared: called once with the number of the host's ids, before any of them is answered; may raise.

    Raises:
        AlignmentError: the host holds another result.
        RemoteProtocolError: a part of the host is malformed or contradicts the protocol.
        TaskAborted: the host found no common id.
    """
    matching = job.matching
    progress.say(f"matching {len(ids)} ids by {matching}")
    keys = _agree_on_keys(link, job, host, collaborators) if matching.joint else None
    run = psi.Responder(
        ids,
        task=job.task_id,
        session=_pair(job.session, link.party),
        protocol=matching.protocol,
        reveal=matching.reveal,
        joint=keys,
        key_bits=job.key_bits,
        workers=job.workers or None,
        engine=job.engine,
    )
    run.worked = _telling(link, host, run, job, progress)
    with closing(run):
        with _blaming(host):
            _send_all(link, host, run.start(), job)
        while not run.finished:
            message = _next_part(link, host, run, job)
            with _blaming(host):
                # While nothing has come, the work on our own ids goes on.
                parts = run.advance() if message is None else run.receive(message)
                _check_count(host, run.peer_count, job)
                if declared is not None and run.peer_count is not None:
                    declared(run.peer_count)
                    declared = None
                _send_all(link, host, parts, job)
        known = matching.reveal == "both"
        counted = matching.reveal != "initiator"
        return Matched(run.intersection if known else None, run.cardinality if counted else None)


def _next_part(link: Link, host: str, run: psi.Responder, job: MatchingJob) -> bytes | None:
    """The host's next part; None if there is none yet and this party has work."""
    kinds, what = (PsiPart, StillMatching), "part of the intersection"
    while True:
        if run.busy:
            message = link.poll(kinds, from_=host, waiting_for=what)
            if message is None:
                return None
        else:
            _, message = link.expect(kinds, from_=[host], waiting_for=what, timeout_s=job.timeout_s)
        if isinstance(message, PsiPart):
            return bytes(message.payload.data)


def _agree_on_keys(link: Link, job: MatchingJob, host: str, collaborators: Sequence[str]) -> list[bytes]:
    """A key with each other collaborator; they travel through the host."""
    own = psi.PairKey()
    link.send(host, PairingKey(own.public), job.timeout_s)
    _, message = link.expect(
        PairingKeys, from_=[host], waiting_for="keys for the intersection", timeout_s=job.timeout_s
    )
    publics = message.publics
    # A repeated key, our own above all, would leave our shares without a mask that the host does not know.
    complete = len(publics) == len(collaborators) == len(set(publics))
    if not complete or publics[collaborators.index(link.party)] != own.public:
        raise RemoteProtocolError(
            "passed on other keys than the collaborators gave",
            party=host,
            phase="matching ids",
            advice="Do not trust this host.",
        )
    others = [public for public in publics if public != own.public]
    with _blaming(host):
        return [own.shared(public, task=job.task_id, session=job.session) for public in others]


def _send_all(link: Link, host: str, parts: Iterator[bytes], job: MatchingJob) -> None:
    for part in parts:
        link.send(host, PsiPart(Blob(part)), job.timeout_s)


def _telling(link: Link, host: str, run: psi.Responder, job: MatchingJob, progress: Progress) -> Callable[[], None]:
    """What to do after each chunk of work: show it, and now and then tell the host, which may hear nothing else."""
    last = time.monotonic()

    def worked() -> None:
        nonlocal last
        progress.matched(run.progress.done, run.progress.total)
        if time.monotonic() - last >= _pause_s(job.timeout_s):
            last = time.monotonic()
            link.send(host, StillMatching(), job.timeout_s)

    return worked


def _check_count(peer: str, count: int | None, job: MatchingJob) -> None:
    if count is not None and count > job.max_ids:
        raise RemoteProtocolError(
            f"declares {count} ids",
            party=peer,
            phase="matching ids",
            expected=f"at most {job.max_ids}",
            advice="If it may have so many, raise HETEROFED_PSI_MAX_IDS.",
        )


def _pair(session: bytes, collaborator: str) -> bytes:
    """Return a session name that no two pairs of parties share."""
    return session + collaborator.encode()


@contextmanager
def _blaming(peer: str) -> Iterator[None]:
    try:
        yield
    except psi.PsiError as error:
        raise _blame(error, peer) from None


def _blame(error: psi.PsiError, peer: str) -> HeterofedError:
    if isinstance(error, psi.ResultMismatch):
        return AlignmentError(
            f"{peer} and this party hold different intersections ({error})",
            party=peer,
            phase="matching ids",
            advice="Start the task again; if it happens twice, do not trust this peer or the network.",
        )
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

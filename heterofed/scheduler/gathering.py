"""The first words: collaborators check in, the host waits for all of them and opens the session.

They are said again whenever a party was started again: each says from where it can go on, and the host answers from
where all of them do.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from heterofed.errors import ConfigError, PeerRefused, PeerRestarted, PeerTimeout, RemoteProtocolError
from heterofed.frames.messages import LOCK_STEP, PROTOCOL_VERSION, CheckIn, Purpose, Reveal, Terms, Welcome
from heterofed.metrics.progress import logger
from heterofed.protocol.phases import Role
from heterofed.scheduler.admitting import check_same_run, problem, unmatched
from heterofed.scheduler.line import printable
from heterofed.scheduler.link import Link
from heterofed.scheduler.seat import AlreadyCompleted, HostMoved, Seat
from heterofed.scheduler.standing import FRESH, Agreement, Standing, agree, unfit
from heterofed.scheduler.waits import Deadline

A_MOMENT_S = 1.0
KNOCK_PAUSE_S = 0.5
HOST_FIRST_S = 5.0
"""So much longer than the host, or half as long again, a collaborator waits: the host can say who is missing."""

KNOCK_AGAIN_FOR_S = 20.0
"""For how long a party that was killed comes again while the host still takes the dead process for alive."""


@dataclass(frozen=True)
class Gathered:
    """What a host knows when all parties are there."""

    session: bytes
    """The session's random token, 16 bytes."""

    check_ins: Mapping[str, CheckIn]
    """What each collaborator said of itself."""

    agreement: Agreement
    """Where all parties go on."""


def gather(
    link: Link,
    seat: Seat,
    *,
    max_rounds: int | None,
    calculation_timeout_s: float,
    standing: Standing = FRESH,
    timeout_s: float | None = None,
    again: bool = False,
    reveal: Reveal = "both",
    terms: Terms = LOCK_STEP,
    purpose: Purpose = "train",
    without_the_late: bool = False,
) -> Gathered:
    """Wait for every collaborator, then welcome them all; the host's side.

    A collaborator that leaves before the others are there is waited for again. One that cannot take part as it is is
    turned away, and may come again.

    Args:
        link: to the collaborators.
        seat: this party's place.
        max_rounds: told to the collaborators.
        calculation_timeout_s: told to the collaborators, in seconds.
        standing: from where this party can go on.
        timeout_s: how long to wait, in seconds; 0: for ever; by default as the settings say.
        again: whether the parties have met before: one whose link is up then gets the time of a step at least.
        reveal: who is to learn which ids are shared.
        terms: how batches are to be exchanged; told to the collaborators.
        purpose: what the session is for; who comes for something else is turned away.
        without_the_late: whether the session begins without those that have not come in time; `link.peers` are then
            those that have.

    Raises:
        PeerTimeout: not all came in time; the text names those missing.
        ConfigError: a collaborator would match ids in another way, the parties hold no checkpoint in common, or for
            predictions one has loaded another run.
        PeerRestarted: a collaborator was started again while the others were welcomed.
    """
    limit = seat.settings.gather_timeout_s if timeout_s is None else timeout_s
    deadline = Deadline(limit, seat.clock)
    computing = Deadline(calculation_timeout_s, seat.clock)
    here: dict[str, CheckIn] = {}
    how, which = (" and recover=True", "rejoin_timeout") if again else ("", "HETEROFED_GATHER_TIMEOUT_S")
    if not again:
        seat.progress.say(f"waiting for {', '.join(link.peers)}, each to be started with task id {seat.task_id}")
    while True:
        missing = [peer for peer in link.peers if peer not in here]
        if not missing:
            break
        try:
            peer, check_in = link.expect(
                CheckIn, from_=link.peers, waiting_for="check-in", timeout_s=deadline, missing=missing
            )
        except PeerTimeout:
            if again and not any(link.down_for(each) for each in missing) and computing.left_s() > 0:
                deadline = Deadline(A_MOMENT_S, seat.clock)  # they are there, in the middle of a step
                continue
            if without_the_late:
                link.leave_out(missing, "the session has begun without it, because it did not come in time")
                continue
            raise PeerTimeout(
                f"no check-in within {limit:.0f} s",
                party=", ".join(missing),
                phase="gathering the parties",
                expected=f"all of {', '.join(link.peers)}",
                advice=f"Start the missing ones with task id {seat.task_id}{how}, or wait longer "
                f"({which}, 0 for ever).",
            ) from None
        for each in link.restarted() & here.keys():
            del here[each]
            seat.progress.say(f"{each} was started again before all parties were there")
        why = problem(check_in, peer, seat.task_id, purpose)
        if purpose == "train":
            why = why or unfit(standing, standing_of(check_in))
        if again:
            why = why or unmatched(check_in, peer, seat.matching(reveal))
        if why:
            here.pop(peer, None)
            logger.warning("%s was turned away: %s", peer, printable(why))
            link.refuse(peer, why)
            continue
        otherwise = unmatched(check_in, peer, seat.matching(reveal))
        if otherwise:  # at the start it is as likely the host that was set up wrongly
            raise ConfigError(otherwise)
        if purpose == "predict":
            check_same_run(standing, check_in, peer)
        if peer not in here:
            seat.progress.say(f"{peer} is here ({len(here) + 1} of {len(link.peers)})")
        here[peer] = check_in
    if purpose == "predict":
        agreement = Agreement(max(standing.points), matched=False)
    else:
        agreement = agree({seat.feature_key: standing, **{peer: standing_of(each) for peer, each in here.items()}})
    session = secrets.token_bytes(16)
    for peer, check_in in here.items():
        link.send(
            peer,
            Welcome(
                nonce=check_in.nonce,
                session=session,
                parties=(seat.feature_key, *link.peers),
                max_rounds=max_rounds or 0,
                calculation_timeout_s=calculation_timeout_s,
                matched=agreement.matched,
                resume=agreement.point,
                terms=terms,
            ),
        )
    return Gathered(session, here, agreement)


def standing_of(check_in: CheckIn) -> Standing:
    """Return what a collaborator said of where it stands."""
    return Standing(check_in.recover, check_in.run, check_in.points)


def check_in(
    seat: Seat,
    *,
    trainable: bool,
    own_batches: bool,
    opened: Callable[[Link], None],
    link: Link | None = None,
    standing: Standing = FRESH,
    timeout_s: float | None = None,
    rejoin_timeout_s: float | None = None,
    reveal: Reveal = "both",
    threads: int = 0,
    purpose: Purpose = "train",
) -> tuple[Link, Welcome]:
    """Find the host, check in, wait for its welcome; a collaborator's side.

    A host that is started again in the meantime is followed, to another address too.

    Args:
        seat: this party's place.
        trainable: whether this party's feature model learns.
        own_batches: whether this party's code chooses its batches.
        opened: told of each link as it is made, so that a failure from now on reaches the host.
        link: to the host, where there is one already.
        standing: from where this party can go on.
        timeout_s: how long to wait for the welcome, in seconds; 0: for ever. By default as the settings say.
        rejoin_timeout_s: how long the host's link may be down later, in seconds; by default as the settings say.
        reveal: who is to learn which ids are shared.
        threads: how many threads this party computes with; 0: it does not compute.
        purpose: what this party is here for.

    Raises:
        PeerTimeout: the host was not found, or did not welcome us in time.
        PeerRefused: the host turned us away.
        AlreadyCompleted: we were killed when all parties had written their outputs, and the task is completed.
        RemoteProtocolError: its welcome is not for us.
    """
    patience_s = seat.settings.gather_timeout_s if timeout_s is None else timeout_s
    deadline = Deadline(patience_s + min(HOST_FIRST_S, patience_s / 2), seat.clock)
    knocking = Deadline(KNOCK_AGAIN_FOR_S)
    met = link is not None

    def look() -> None:
        seat.record.look()
        if standing.recover and seat.record.is_completed():
            raise AlreadyCompleted
        if seat.host_moved():
            raise HostMoved("was started again at another address", party=host)

    host = link.peers[0] if link is not None else ""
    while True:
        if link is None or seat.host_moved():
            if standing.recover and seat.record.is_completed():
                raise AlreadyCompleted
            meter = None
            if link is not None:
                seat.progress.say(f"{link.peers[0]} was started again; checking in there")
                meter = link.meter
                link.close(linger_s=0.0)
            host, transport = seat.connect()
            if not met:  # the time in which there was no host does not count: it waits from now on, too
                met, deadline = True, Deadline(deadline.timeout_s, seat.clock)
            link = Link(
                transport,
                Role.COLLABORATOR,
                [host],
                seat.settings,
                say=seat.progress.say,
                look=look,
                clock=seat.clock,
                rejoin_timeout_s=rejoin_timeout_s,
            )
            link.meter = meter or link.meter
            opened(link)
        link.begin_anew()
        host = link.peers[0]
        nonce = secrets.token_bytes(16)
        try:
            link.send(
                host,
                CheckIn(
                    protocol=PROTOCOL_VERSION,
                    task_id=seat.task_id,
                    feature_key=seat.feature_key,
                    nonce=nonce,
                    trainable=trainable,
                    own_batches=own_batches,
                    matching=seat.matching(reveal),
                    recover=standing.recover,
                    run=standing.run,
                    points=standing.points,
                    threads=threads,
                    purpose=purpose,
                ),
            )
            _, welcome = link.expect(
                Welcome,
                from_=[host],
                waiting_for="welcome, when all parties are there",
                timeout_s=deadline,
            )
        except PeerRestarted:
            continue
        except PeerRefused as refused:
            if refused.phase or not standing.recover or knocking.left_s() <= 0:  # a phase: the host itself said no
                raise
            link.close(linger_s=0.0)
            link = None
            time.sleep(KNOCK_PAUSE_S)
            continue
        if welcome.nonce != nonce:
            raise RemoteProtocolError("welcomed another check-in than ours", party=host)
        if not _are_the_tasks(welcome.parties, seat, host, all_of_them=purpose != "predict"):
            raise RemoteProtocolError(
                "opened a session of other parties than the task's",
                party=host,
                phase="gathering the parties",
                expected=", ".join(seat.parties),
            )
        if welcome.resume not in standing.points or (welcome.matched and not standing.run):
            raise RemoteProtocolError(
                "would go on from where this party cannot", party=host, phase="gathering the parties"
            )
        return link, welcome


def _are_the_tasks(parties: Sequence[str], seat: Seat, host: str, *, all_of_them: bool) -> bool:
    """Whether a welcome names parties of the task, each once, the host first and this one among them."""
    if tuple(parties[:1]) != (host,) or len(set(parties)) < len(parties) or seat.feature_key not in parties:
        return False
    return set(parties) == set(seat.parties) if all_of_them else set(parties) <= set(seat.parties)

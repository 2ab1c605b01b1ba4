"""The first words: collaborators check in, the host waits for all of them and opens the session."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

from heterofed.errors import ConfigError, PeerTimeout, RemoteProtocolError
from heterofed.frames.messages import PROTOCOL_VERSION, CheckIn, Matching, Reveal, Welcome
from heterofed.protocol.phases import Role
from heterofed.scheduler.link import Deadline, Link
from heterofed.scheduler.seat import HostMoved, Seat
from heterofed.wire.transport import Transport


def gather(
    link: Link,
    transport: Transport,
    seat: Seat,
    *,
    max_rounds: int | None,
    calculation_timeout_s: float,
    reveal: Reveal = "both",
) -> tuple[bytes, dict[str, CheckIn]]:
    """Wait for every collaborator, then welcome them all; the host's side.

    A collaborator that leaves before the others are there is waited for again.

    Args:
        link: to the collaborators.
        transport: the link's.
        seat: this party's place.
        max_rounds: told to the collaborators.
        calculation_timeout_s: told to the collaborators, in seconds.
        reveal: who is to learn which ids are shared.

    Returns:
        The session's random token (16 bytes) and each collaborator's check-in.

    Raises:
        PeerTimeout: not all came in time; the text names those missing.
        RemoteProtocolError: a collaborator speaks another version, or of another task or party.
        ConfigError: a collaborator would match ids in another way.
    """
    limit = seat.settings.gather_timeout_s
    deadline = Deadline(limit, seat.clock)
    here: dict[str, CheckIn] = {}
    seat.progress.say(f"waiting for {', '.join(link.peers)}, each to be started with task id {seat.task_id}")
    while True:
        for peer in [each for each in here if transport.down_for(each)]:
            del here[peer]
            seat.progress.say(f"{peer} left before all parties were there; waiting for it again")
        missing = [peer for peer in link.peers if peer not in here]
        if not missing:
            break
        try:
            peer, check_in = link.expect(CheckIn, from_=link.peers, waiting_for="check-in", timeout_s=deadline.left_s())
        except PeerTimeout:
            raise PeerTimeout(
                f"no check-in within {limit:.0f} s",
                party=", ".join(missing),
                phase="gathering the parties",
                expected=f"all of {', '.join(link.peers)}",
                advice=(
                    f"Start the missing ones with task id {seat.task_id}, or wait longer "
                    f"(HETEROFED_GATHER_TIMEOUT_S, 0 for ever)."
                ),
            ) from None
        _check(check_in, peer, seat.task_id)
        _check_matching(check_in, peer, seat.matching(reveal))
        if peer not in here:
            seat.progress.say(f"{peer} is here ({len(here) + 1} of {len(link.peers)})")
        here[peer] = check_in
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
            ),
        )
    return session, here


def _check(check_in: CheckIn, peer: str, task_id: str) -> None:
    for what, said, expected in (
        ("protocol version", check_in.protocol, PROTOCOL_VERSION),
        ("task id", check_in.task_id, task_id),
        ("feature key", check_in.feature_key, peer),
    ):
        if said != expected:
            raise RemoteProtocolError(
                f"checked in with {what} {said}",
                party=peer,
                phase="gathering the parties",
                expected=str(expected),
                advice="Run the same version of heterofed everywhere, with the same task id.",
            )


def _check_matching(check_in: CheckIn, peer: str, ours: Matching) -> None:
    if check_in.matching != ours:
        raise ConfigError(
            f"{peer} would match ids by {check_in.matching}",
            expected=f"what the host would do ({ours})",
            advice=(
                "Agree on HETEROFED_PSI_PROTOCOL and HETEROFED_PSI_PAIRWISE, and on who is to learn the shared ids, "
                "then start again."
            ),
        )


def check_doors(here: Mapping[str, CheckIn], host: str, *, own_batches: bool, shuffle: bool) -> None:
    """Refuse collaborators that could not follow the host's batches.

    Args:
        here: what each collaborator said of itself.
        host: the host's feature key.
        own_batches: whether the host's code chooses its batches.
        shuffle: whether the host's plan has another order in every round.

    Raises:
        ConfigError: the two ways do not fit together.
    """
    for peer, each in here.items():
        if own_batches and not each.own_batches:
            raise ConfigError(
                f"{peer} wrote load_batch and needs a batch plan, but {host} chooses its own batches",
                expected="load_batch at the host too, or iterate_* at both",
            )
        if not own_batches and shuffle and each.own_batches:
            raise ConfigError(
                f"{host} shuffles, but {peer} chooses its own batches",
                expected="load_batch at every party, or shuffle=False",
            )


def check_in(
    seat: Seat,
    *,
    trainable: bool,
    own_batches: bool,
    opened: Callable[[Link, Transport], None],
    reveal: Reveal = "both",
) -> tuple[Link, Welcome]:
    """Find the host, check in, wait for its welcome; a collaborator's side.

    A host that is started again elsewhere in the meantime is followed there.

    Args:
        seat: this party's place.
        trainable: whether this party's feature model learns.
        own_batches: whether this party's code chooses its batches.
        opened: told of each link as it is made, so that a failure from now on reaches the host.
        reveal: who is to learn which ids are shared.

    Raises:
        PeerTimeout: the host was not found, or did not welcome us in time.
        RemoteProtocolError: its welcome is not for us.
    """
    deadline = Deadline(seat.settings.gather_timeout_s, seat.clock)

    def look() -> None:
        seat.record.look()
        if seat.host_moved():
            raise HostMoved

    while True:
        host, transport = seat.connect()
        link = Link(
            transport, Role.COLLABORATOR, [host], seat.settings, say=seat.progress.say, look=look, clock=seat.clock
        )
        opened(link, transport)
        nonce = secrets.token_bytes(16)
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
            ),
        )
        try:
            _, welcome = link.expect(
                Welcome,
                from_=[host],
                waiting_for="welcome, when all parties are there",
                timeout_s=deadline.left_s(),
            )
        except HostMoved:
            transport.close(linger_s=0.0)
            seat.progress.say(f"{host} was started again; checking in there")
            continue
        if welcome.nonce != nonce:
            raise RemoteProtocolError("welcomed another check-in than ours", party=host)
        if welcome.parties[:1] != (host,) or sorted(welcome.parties) != sorted(seat.parties):
            raise RemoteProtocolError(
                "opened a session of other parties than the task's",
                party=host,
                phase="gathering the parties",
                expected=", ".join(seat.parties),
            )
        link.look = seat.record.look
        return link, welcome

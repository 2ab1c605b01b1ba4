"""The intersection alone, without training: a task whose parties match their ids and are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import get_args

from heterofed.config import Settings
from heterofed.errors import ConfigError, HeterofedError, PeerRestarted
from heterofed.features.alignment import checked_ids
from heterofed.frames.messages import Completed, CompleteTask, Reveal
from heterofed.protocol.phases import Role
from heterofed.scheduler.checks import check_matchings, check_seconds
from heterofed.scheduler.gathering import check_in, gather
from heterofed.scheduler.launch import seat_in
from heterofed.scheduler.leaving import await_dismissal, dismiss
from heterofed.scheduler.link import Link
from heterofed.scheduler.matching import Matched, job_of, match_as_collaborator, match_as_host
from heterofed.scheduler.seat import AlreadyCompleted, Seat, presence
from heterofed.scheduler.standing import Standing
from heterofed.tasks.model import MIN_PARTIES, PartyStatus, TaskStatus


class Intersection:
    """One party's part in matching ids. Single use.

    Args:
        task_id: as `heterofed task create` printed it.
        feature_key: this party.
        ids: its unique, non-empty str ids.
        reveal: who learns which ids are shared: "both" (every party), "initiator" (only the host) or "cardinality"
            (both parties how many, nobody which; two parties, `psi_protocol="ecdh"`); the same at every party.
        data_channel_timeout: (longest wait for room in a peer's queue, longest wait for a part), in seconds; 0: no
            limit.
        may_be_empty: whether no common id is a result; otherwise it is an error.
        keep: called with the result before the other parties hear that this one is done: a party that is killed in it
            can be started again.
        recover: whether this party was killed and is started again.
        settings: what `HETEROFED_*` variables say, unless given.

    Raises:
        AlignmentError: the ids cannot be matched.
        ConfigError: a timeout, or what is to be revealed, cannot work.
    """

    def __init__(
        self,
        task_id: str,
        feature_key: str,
        ids: Sequence[str],
        *,
        reveal: Reveal = "both",
        data_channel_timeout: tuple[float, float] = (30, 60),
        may_be_empty: bool = False,
        keep: Callable[[Matched], object] = lambda matched: None,
        recover: bool = False,
        settings: Settings | None = None,
    ) -> None:
        for each in data_channel_timeout:
            check_seconds("data_channel_timeout", each)
        self.task_id = task_id
        self.feature_key = feature_key
        self.settings = settings or Settings.from_env()
        if reveal not in get_args(Reveal):
            raise ConfigError(f"reveal is {reveal!r}", expected="one of " + ", ".join(get_args(Reveal)))
        if reveal == "cardinality" and self.settings.psi_protocol != "ecdh":
            raise ConfigError(
                f"only the number of shared ids is to be revealed, by {self.settings.psi_protocol}",
                expected="HETEROFED_PSI_PROTOCOL=ecdh, which can hide which they are",
            )
        self._ids = checked_ids(ids, "ids")
        self._reveal: Reveal = reveal
        self._timeout_s = float(data_channel_timeout[1])
        self._may_be_empty = may_be_empty
        self._keep_result = keep
        self._standing = Standing(recover)
        self._matchings = 0
        self._link: Link | None = None

    def as_host(self, collaborators: Sequence[str] | None = None) -> Matched:
        """Match ids as the host, the initiator.

        Args:
            collaborators: the feature keys of all others, to be compared with the task's; None takes the task's.

        Raises:
            AlignmentError: there is no common id, and there had to be one.
            HeterofedError: a party failed or did not come; the text says which.
        """
        with self._seated(host=True) as seat:
            if collaborators is not None and set(collaborators) != set(seat.others):
                raise ConfigError(
                    f"collaborator_ids are {', '.join(sorted(set(collaborators)))}",
                    expected=f"{', '.join(seat.others)}, as the task says",
                )
            _, transport = seat.connect()
            link = Link(transport, Role.HOST, seat.others, seat.settings, say=seat.progress.say, look=seat.record.look)
            self._opened(link)
            while True:
                try:
                    return self._match_as_host(seat, link)
                except PeerRestarted as restarted:
                    seat.progress.say(f"{restarted.party} was started again; the ids are matched anew")
                    link.reopen()

    def as_collaborator(self) -> Matched:
        """Match ids as a collaborator, a responder.

        Raises:
            HeterofedError: a party failed or did not come; the text says which.
        """
        with self._seated(host=False) as seat:
            while True:
                try:
                    return self._match_as_collaborator(seat)
                except AlreadyCompleted:
                    raise ConfigError(
                        f"task {seat.task_id} was completed before this party was started again",
                        party=self.feature_key,
                        expected="its result where it was written then",
                    ) from None
                except PeerRestarted as restarted:
                    seat.progress.say(f"{restarted.party} opens a new session; the ids are matched anew")

    def _match_as_host(self, seat: Seat, link: Link) -> Matched:
        seat.record.task_is(TaskStatus.GATHERING)
        gathered = gather(
            link, seat, max_rounds=None, calculation_timeout_s=self._timeout_s, reveal=self._reveal, purpose="match"
        )
        seat.record.task_is(TaskStatus.ALIGNING)
        self._matchings += 1
        check_matchings(self._matchings)
        job = job_of(seat, gathered.session, self._timeout_s, reveal=self._reveal, may_be_empty=self._may_be_empty)
        matched = match_as_host(link, self._ids, job, seat.progress)
        self._keep_result(matched)
        link.broadcast(CompleteTask(0), self._timeout_s)
        link.collect(Completed, "last word", self._timeout_s)
        seat.record.task_is(TaskStatus.ONGOING)
        seat.record.task_is(TaskStatus.COMPLETED)
        dismiss(link)
        return matched

    def _match_as_collaborator(self, seat: Seat) -> Matched:
        link, welcome = check_in(
            seat,
            trainable=False,
            own_batches=True,
            opened=self._opened,
            link=self._link,
            standing=self._standing,
            reveal=self._reveal,
            purpose="match",
        )
        host = link.peers[0]
        self._matchings += 1
        check_matchings(self._matchings)
        job = job_of(seat, welcome.session, self._timeout_s, reveal=self._reveal, may_be_empty=self._may_be_empty)
        matched = match_as_collaborator(
            link, self._ids, job, seat.progress, host=host, collaborators=welcome.parties[1:]
        )
        self._keep_result(matched)
        link.expect(CompleteTask, from_=[host], waiting_for="last word", timeout_s=self._timeout_s)
        link.send(host, Completed(0), self._timeout_s)
        await_dismissal(link, seat, self._timeout_s)
        return matched

    @contextmanager
    def _seated(self, *, host: bool) -> Iterator[Seat]:
        """Hold this party's place; on an error tell the others."""
        with seat_in(self.task_id, self.feature_key, self.settings, host=host) as seat:
            if self._reveal == "cardinality" and len(seat.parties) > MIN_PARTIES:
                raise ConfigError(
                    f"only the number of ids that {len(seat.parties)} parties share is to be revealed",
                    expected="two parties, or another choice of who learns what",
                )

            def give_up(error: HeterofedError) -> None:
                error.located(party=self.feature_key, phase="matching ids")
                if self._link is not None:
                    self._link.abort(error)
                seat.record.party_is(PartyStatus.FAILED, error.for_peers())
                if host:
                    seat.record.task_is(TaskStatus.FAILED, error.for_peers())

            try:
                with presence(seat, give_up):
                    yield seat
            finally:
                if self._link is not None:
                    self._link.close()

    def _opened(self, link: Link) -> None:
        self._link = link

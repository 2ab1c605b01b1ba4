"""The source system's two classes for the private set intersection alone, without training.

Each runs in its own process; the parties find each other by task id, as schedulers do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from heterofed.config import Settings
from heterofed.errors import ConfigError, HeterofedError
from heterofed.features.alignment import checked_ids
from heterofed.frames.messages import Completed, CompleteTask
from heterofed.protocol.phases import Role
from heterofed.scheduler.checks import check_seconds
from heterofed.scheduler.gathering import check_in, gather
from heterofed.scheduler.launch import seat_in
from heterofed.scheduler.link import Link
from heterofed.scheduler.matching import match_as_collaborator, match_as_host
from heterofed.scheduler.seat import Seat, presence
from heterofed.tasks.model import PartyStatus, TaskStatus
from heterofed.wire.transport import Transport


class _Party:
    """What both roles share.

    Args:
        task_id: as `heterofed task create` printed it.
        feature_key: this party.
        ids: its unique, non-empty str ids.
        data_channel_timeout: (longest wait for room in a peer's queue, longest wait for a part), in seconds; 0: no
            limit.
        settings: what `HETEROFED_*` variables say, unless given.

    Raises:
        AlignmentError: the ids cannot be matched.
        ConfigError: a timeout cannot work.
    """

    def __init__(
        self,
        task_id: str,
        feature_key: str,
        ids: Sequence[str],
        data_channel_timeout: tuple[float, float],
        settings: Settings | None,
    ) -> None:
        for each in data_channel_timeout:
            check_seconds("data_channel_timeout", each)
        self.task_id = task_id
        self.feature_key = feature_key
        self.settings = settings or Settings.from_env()
        self._ids = checked_ids(ids, "ids")
        self._timeout_s = float(data_channel_timeout[1])
        self._link: Link | None = None
        self._transport: Transport | None = None

    @contextmanager
    def _seated(self, *, host: bool) -> Iterator[Seat]:
        """Hold this party's place; on an error tell the others."""
        with seat_in(self.task_id, self.feature_key, self.settings, host=host) as seat:

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
                if self._transport is not None:
                    self._transport.close()

    def _opened(self, link: Link, transport: Transport) -> None:
        self._link, self._transport = link, transport


class RSAPSIInitiatorScheduler(_Party):
    """The party that starts: blinds its ids and learns which of them each collaborator has.

    Args:
        task_id: as `heterofed task create` printed it.
        initiator_id: this party's feature key.
        ids: its unique, non-empty str ids.
        collaborator_ids: the other parties' feature keys; all of the task's.
        contractor: ignored; scripts for the source system may pass one.
        data_channel_timeout: (longest wait for room in a peer's queue, longest wait for a part), in seconds; 0: no
            limit.
        settings: what `HETEROFED_*` variables say, unless given.
    """

    def __init__(
        self,
        task_id: str,
        initiator_id: str,
        ids: Sequence[str],
        collaborator_ids: Sequence[str],
        contractor: object = None,
        data_channel_timeout: tuple[float, float] = (30, 60),
        *,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(task_id, initiator_id, ids, data_channel_timeout, settings)
        self._collaborators = set(collaborator_ids)

    def make_intersection(self) -> set[str]:
        """Return the ids that all parties have; the collaborators learn these and no others.

        Raises:
            AlignmentError: there is none.
            HeterofedError: a party failed or did not come; the text says which.
        """
        with self._seated(host=True) as seat:
            if self._collaborators != set(seat.others):
                raise ConfigError(
                    f"collaborator_ids are {', '.join(sorted(self._collaborators))}",
                    expected=f"{', '.join(seat.others)}, as the task says",
                )
            _, transport = seat.connect()
            link = Link(transport, Role.HOST, seat.others, seat.settings, say=seat.progress.say, look=seat.record.look)
            self._opened(link, transport)
            seat.record.task_is(TaskStatus.GATHERING)
            session, _ = gather(link, transport, seat, max_rounds=None, calculation_timeout_s=self._timeout_s)
            seat.record.task_is(TaskStatus.ALIGNING)
            common = match_as_host(
                link,
                self._ids,
                task_id=self.task_id,
                session=session,
                timeout_s=self._timeout_s,
                progress=seat.progress,
            )
            link.broadcast(CompleteTask(0), self._timeout_s)
            for peer in link.peers:
                link.expect(Completed, from_=[peer], waiting_for="last word", timeout_s=self._timeout_s)
            seat.record.task_is(TaskStatus.ONGOING)
            seat.record.task_is(TaskStatus.COMPLETED)
            return set(common)


class RSAPSICollaboratorScheduler(_Party):
    """A party that holds a key: signs its own ids and the initiator's blinded ones.

    Args:
        task_id: as `heterofed task create` printed it.
        collaborator_id: this party's feature key.
        ids: its unique, non-empty str ids.
        contractor: ignored; scripts for the source system may pass one.
        data_channel_timeout: (longest wait for room in the queue, longest wait for a part), in seconds; 0: no limit.
        settings: what `HETEROFED_*` variables say, unless given.
    """

    def __init__(
        self,
        task_id: str,
        collaborator_id: str,
        ids: Sequence[str],
        contractor: object = None,
        data_channel_timeout: tuple[float, float] = (30, 60),
        *,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(task_id, collaborator_id, ids, data_channel_timeout, settings)

    def collaborate_intersection(self) -> set[str]:
        """Return the ids that all parties have, as the initiator reveals them.

        Raises:
            HeterofedError: a party failed or did not come; the text says which.
        """
        with self._seated(host=False) as seat:
            link, welcome = check_in(seat, trainable=False, own_batches=True, opened=self._opened)
            host = link.peers[0]
            common = match_as_collaborator(
                link,
                self._ids,
                host=host,
                task_id=self.task_id,
                session=welcome.session,
                key_bits=seat.settings.psi_key_bits,
                timeout_s=self._timeout_s,
                progress=seat.progress,
            )
            link.expect(CompleteTask, from_=[host], waiting_for="last word", timeout_s=self._timeout_s)
            link.send(host, Completed(0), self._timeout_s)
            return set(common)

"""A host's session for predictions: gathers who is there, matches ids, and lets its code ask until it is done."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from heterofed.errors import ConfigError, PeerGone, PeerRestarted, TaskAborted, WireError
from heterofed.features.alignment import checked_ids
from heterofed.frames.messages import Completed, CompleteTask, Split
from heterofed.protocol.phases import Role
from heterofed.scheduler.admitting import check_batching
from heterofed.scheduler.gathering import gather
from heterofed.scheduler.leaving import dismiss
from heterofed.scheduler.link import Link
from heterofed.scheduler.manifest import RunManifest
from heterofed.scheduler.matching import job_of, match_as_host
from heterofed.scheduler.moments import read_moments
from heterofed.scheduler.predicting.asking import Asker
from heterofed.scheduler.predicting.drawing import Drawing
from heterofed.scheduler.predicting.loading import load_weights
from heterofed.scheduler.predicting.means import read_means, stand_ins
from heterofed.scheduler.predicting.predicted import Absent
from heterofed.scheduler.predicting.predictions import Predictions
from heterofed.scheduler.predicting.seat import BACK_WITHIN_S, FAREWELL_S, standing_of_run
from heterofed.scheduler.seat import Seat, as_failure
from heterofed.scheduler.splitting import compare_splits, describe_split
from heterofed.training.evaluating import evaluating

if TYPE_CHECKING:
    from heterofed.scheduler.host import HostScheduler


@contextmanager
def predicting(
    party: HostScheduler,
    seat: Seat,
    manifest: RunManifest,
    ids: Sequence[str] | None,
    *,
    absent: Absent,
    wait_s: float | None = None,
) -> Iterator[Predictions]:
    """Hold a session for predictions for the body, as the host.

    Args:
        party: the host.
        seat: its place.
        manifest: of its run, whose files are checked.
        ids: what is going to be asked for; None: all that it has.
        absent: what is done without a party that does not come.
        wait_s: how long to wait for the collaborators, in seconds; by default as the settings say.

    Raises:
        HeterofedError: a party failed or did not come; the text says which.
    """
    party._seat = seat
    party._intersection = None
    folder = party._results_folder
    means = read_means(folder, manifest)
    instead = stand_ins(absent, manifest, means)
    load_weights(party)
    with party._calling("load_local_ids"):
        local = checked_ids(party.load_local_ids(), "load_local_ids")
    known = frozenset(local)
    asked = local if ids is None else list(ids)
    session = _Session(party, seat, manifest)
    with evaluating([party.feature_model, party.infer_model]):
        try:
            shared, asker = session.open(
                [each for each in dict.fromkeys(asked) if each in known], instead is not None, wait_s
            )
            predictions = Predictions(
                party,
                asked=asked,
                known=known.intersection(asked),
                shared=shared,
                asker=asker,
                parties=manifest.parties,
                absent=[each for each in manifest.parties[1:] if each not in session.link.peers],
                stand_ins=instead,
                policy=absent,
                means=means,
                drawing=Drawing(party, partial(read_moments, folder, manifest)),
            )
            try:
                yield predictions
            except BaseException:
                predictions.close()
                raise
            predictions.finish()
            session.end()
        except BaseException as error:
            session.give_up(error)
            raise
        finally:
            session.close()


class _Session:
    """The host's end of it.

    Args:
        party: the host.
        seat: its place.
        manifest: of its run.
    """

    def __init__(self, party: HostScheduler, seat: Seat, manifest: RunManifest) -> None:
        self._party = party
        self._seat = seat
        self._manifest = manifest
        _, transport = seat.connect()
        self.link = Link(
            transport,
            Role.HOST,
            manifest.parties[1:],
            seat.settings,
            say=seat.progress.say,
            look=seat.record.look,
            clock=seat.clock,
            rejoin_timeout_s=min(party.rejoin_timeout or BACK_WITHIN_S, BACK_WITHIN_S),
        )
        party._party_link = self.link

    def open(self, own: Sequence[str], may_be_absent: bool, wait_s: float | None) -> tuple[Sequence[str], Asker | None]:
        """Gather and match; return the ids that all who are there share, and how to ask them."""
        party, seat, link, room_s = self._party, self._seat, self.link, self._party._room_s
        if sorted(seat.parties) != sorted(self._manifest.parties):
            raise ConfigError(
                f"task {seat.task_id} is of {', '.join(seat.parties)}",
                expected=f"{', '.join(self._manifest.parties)}, as when this run was trained",
            )
        gathered = gather(
            link,
            seat,
            max_rounds=None,
            calculation_timeout_s=party.calculation_timeout,
            standing=standing_of_run(self._manifest),
            timeout_s=wait_s,
            purpose="predict",
            without_the_late=may_be_absent,
        )
        check_batching(gathered.check_ins, party.feature_key, own_batches=False, shuffle=True)
        if not link.peers:
            seat.progress.say("no other party is there; all embeddings but our own are stand-ins")
            return (), None
        party._session_key = gathered.session
        job = job_of(seat, gathered.session, party.data_channel_timeout[1], may_be_empty=True)
        # A host without any of the ids asks about one that nobody has: the others need not know that it has none.
        found = match_as_host(link, own or [secrets.token_hex(16)], job, seat.progress).ids or []
        ours = describe_split([], found, gathered.session)
        for peer, theirs in link.collect(Split, "digest of the shared ids", party.data_channel_timeout[1]).items():
            compare_splits(peer, theirs, party.feature_key, ours)
        link.broadcast(ours, room_s)
        seat.progress.say(f"{len(found)} of {len(own)} ids can be predicted with {', '.join(link.peers)}")
        asker = Asker(
            link,
            gathered.session,
            self._manifest.rounds,
            timeout_s=party.calculation_timeout,
            room_s=room_s,
            finite=party.settings.check_finite,
            forms=self._manifest.embeddings,
        )
        return found, asker

    def end(self) -> None:
        """Let the collaborators go. All predictions are made: one that cannot hear it loses nothing."""
        link = self.link
        try:
            link.broadcast(CompleteTask(self._manifest.rounds), FAREWELL_S)
            link.collect(Completed, "last word", FAREWELL_S)
            dismiss(link)
        except (WireError, TaskAborted) as error:
            self._seat.progress.say(f"the session ended without a last word: {error}")

    def give_up(self, error: BaseException) -> None:
        """Tell the collaborators why the session ends early."""
        failure = as_failure(error)
        if isinstance(failure, PeerGone | PeerRestarted):
            failure.advice = "Start that party again, and open predictions again."
        if not isinstance(failure, TaskAborted):
            failure.located(party=self._party.feature_key, phase=self.link.phase().value)
        self.link.abort(failure)
        self.link.stay_until_heard()

    def close(self) -> None:
        """Close the link."""
        self.link.close()
        self._party._party_link = None
        self._seat.progress.close()

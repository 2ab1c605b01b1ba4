"""A collaborator's sessions for predictions: one, or one after the other until it is told to stop."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from heterofed.errors import HeterofedError, NotAllowed, OutputError, PeerGone, PeerRefused, PeerRestarted, PeerTimeout
from heterofed.features.alignment import checked_ids
from heterofed.frames.messages import Ask, Completed, CompleteTask, Split, Welcome
from heterofed.metrics.progress import logger
from heterofed.scheduler.gathering import check_in
from heterofed.scheduler.leaving import await_dismissal
from heterofed.scheduler.link import Link
from heterofed.scheduler.manifest import RunManifest
from heterofed.scheduler.matching import job_of, match_as_collaborator
from heterofed.scheduler.moments import read_moments
from heterofed.scheduler.predicting.answering import answer
from heterofed.scheduler.predicting.audit_log import AuditLog, fingerprint
from heterofed.scheduler.predicting.drawing import Drawing
from heterofed.scheduler.predicting.loading import load_weights
from heterofed.scheduler.predicting.seat import BACK_WITHIN_S, FAREWELL_S, prediction_seat, standing_of_run
from heterofed.scheduler.predicting.serve_limits import Allowance, ServeLimits
from heterofed.scheduler.seat import TERMINATED, Seat, as_failure
from heterofed.scheduler.splitting import compare_splits, describe_split
from heterofed.training.evaluating import evaluating
from heterofed.words import counted

if TYPE_CHECKING:
    from heterofed.scheduler.collaborator import CollaboratorScheduler

PAUSE_S = 1.0
"""How long to wait after a session that was not opened before the host is looked for again."""

SELDOM_S = 3600.0
"""How often what is waited for is told."""

SHORT_FAREWELL_S = 0.2
"""How long a host that has not let us in yet may take to hear that we leave."""


class Stopped(Exception):
    """The server is to stop."""


_NOBODY_CAME = (Stopped, PeerRefused, PeerTimeout)
"""Where there was no session yet, these are no news."""


@dataclass(frozen=True)
class PredictionsAnswered:
    """What a collaborator has answered in one session."""

    ids: int
    """How many ids it shared with the others."""
    requests: int
    rows: int


@dataclass
class _Account:
    """Of the session at hand: what was let through, before it is answered."""

    declared: int | None = None
    """How many ids the host asks about; None: it has not said."""
    ids: int | None = None
    """How many of them are shared; None: the matching has not ended."""
    requests: int = 0
    rows: int = 0


class Server:
    """Answers a host's requests with what this party has trained.

    Args:
        party: this one.
        seat: its place.
        manifest: of its run, whose files are checked.
        limits: what hosts may ask.
        audit: keeps account.
    """

    def __init__(
        self, party: CollaboratorScheduler, seat: Seat, manifest: RunManifest, limits: ServeLimits, audit: AuditLog
    ) -> None:
        self._party = party
        # A server waits for most of its life, and nobody wants to read that again and again.
        self._seat = seat = replace(seat, settings=replace(seat.settings, notice_every_s=SELDOM_S))
        self._manifest = manifest
        self._allowance = Allowance(limits)
        self._audit = audit
        self._link: Link | None = None
        self._account = _Account()
        self._session: str | None = None
        self._refused = ""
        party._seat = seat
        load_weights(party)
        self._drawing = Drawing(party, partial(read_moments, party._results_folder, manifest))
        with party._calling("load_local_ids"):
            party._local_ids = checked_ids(party.load_local_ids(), "load_local_ids")

    @property
    def in_session(self) -> bool:
        """Whether the last session was opened, however it ended."""
        return self._session is not None

    def serve_one(self, wait_s: float) -> PredictionsAnswered:
        """Answer one session to its end.

        Args:
            wait_s: how long to wait for the other parties once the host is there, in seconds; 0: for ever.

        Raises:
            HeterofedError: it ended early; the host has been told why.
        """
        self._account = _Account()
        self._session = None
        try:
            with evaluating([self._party.feature_model]):
                self._serve(wait_s)
        except BaseException as error:
            failure = as_failure(error)
            if isinstance(error, Stopped):
                failure = NotAllowed("it was told to stop answering")
            if isinstance(failure, PeerGone | PeerRestarted):
                failure.advice = "If its process has ended, let its people open predictions again."
            failure.located(party=self._party.feature_key, phase="answering predictions")
            if self._link is not None and not isinstance(error, PeerRefused):
                self._link.abort(failure)
            if self._session is not None or (isinstance(error, Exception) and not isinstance(error, _NOBODY_CAME)):
                self._close_audit(f"{type(failure).__name__}: {failure.for_peers()}")
            if failure is error or not isinstance(error, Exception) or isinstance(error, Stopped):
                raise
            raise failure from error
        finally:
            if self._link is not None:
                self._link.close(FAREWELL_S / 5 if self._session is not None else SHORT_FAREWELL_S)
                self._link = self._party._party_link = None
        self._close_audit("completed")
        account = self._account
        return PredictionsAnswered(account.ids or 0, account.requests, account.rows)

    def _close_audit(self, outcome: str) -> None:
        event = "closed" if self._session is not None else "refused"
        if event == "refused" and outcome == self._refused:
            return  # it is tried again and again
        self._refused = outcome if event == "refused" else ""
        self._note(event, **asdict(self._account), outcome=outcome)

    def _note(self, event: str, **facts: str | int | None) -> None:
        key = fingerprint(self._seat.host_public_key())
        host = self._party._host if self._session is not None else None  # else it is that of a session before
        self._audit.note(event, session=self._session, host=host, host_key=key, **facts)

    def _serve(self, wait_s: float) -> None:
        party, seat = self._party, self._seat
        link, welcome = check_in(
            seat,
            trainable=False,
            own_batches=False,
            opened=self._opened,
            standing=standing_of_run(self._manifest),
            timeout_s=wait_s,
            rejoin_timeout_s=min(party.rejoin_timeout or BACK_WITHIN_S, BACK_WITHIN_S),
            purpose="predict",
        )
        party._host = host = link.peers[0]
        party._collaborators = welcome.parties[1:]
        party._session_key = welcome.session
        self._session = fingerprint(welcome.session)
        self._note("opened")
        shared = self._align(link, welcome)
        idle_s = self._allowance.limits.idle_s
        while True:
            _, word = link.expect((Ask, CompleteTask), from_=[host], waiting_for="next request", timeout_s=idle_s)
            if isinstance(word, CompleteTask):
                break
            rows = word.rows.nbytes // 4
            self._allowance.ask(rows, min(word.batch_size, rows))
            self._account.requests += 1
            self._account.rows += rows
            draw: dict[str, str | int] = {}
            if word.draw is not None:
                draw = {"method": word.draw.method, "draw": word.draw.number}
            self._note("asked", ids=len(shared), rows=rows, **draw)
            answer(party, word, shared, self._patience_s(welcome), self._drawing)
        link.send(host, Completed(self._manifest.rounds), FAREWELL_S)
        await_dismissal(link, seat, FAREWELL_S)

    def _align(self, link: Link, welcome: Welcome) -> list[str]:
        """Match ids with all who are there; return those that all share."""
        party, seat, host = self._party, self._seat, link.peers[0]
        self._allowance.begin_session()
        absent = [each for each in self._manifest.parties if each not in welcome.parties]
        if absent and self._allowance.limits.all_parties:
            raise NotAllowed(
                f"the session is without {', '.join(absent)}",
                expected="all parties of the task, as this one's limits say (all_parties)",
            )
        job = job_of(seat, welcome.session, party.data_channel_timeout[1], may_be_empty=True)
        matched = match_as_collaborator(
            link,
            party._local_ids,
            job,
            seat.progress,
            host=host,
            collaborators=welcome.parties[1:],
            declared=self._hear_number,
        )
        shared = matched.ids or []
        self._account.ids = len(shared)
        self._note("matched", declared=self._account.declared, ids=len(shared))
        ours = describe_split([], shared, welcome.session)
        link.send(host, ours, party._room_s)
        _, theirs = link.expect(
            Split, from_=[host], waiting_for="digest of the shared ids", timeout_s=self._patience_s(welcome)
        )
        compare_splits(host, theirs, party.feature_key, ours)
        seat.progress.say(f"{host} opens a session for predictions: {counted(len(shared), 'shared id')}")
        return shared

    def _hear_number(self, ids: int) -> None:
        """Refuse or note how many ids the host asks about; none of them is answered yet."""
        self._account.declared = ids
        self._allowance.match(ids)
        self._note("matching", declared=ids)

    def _patience_s(self, welcome: Welcome) -> float:
        limits = [each for each in (self._party._patience(welcome), self._allowance.limits.idle_s) if each]
        return min(limits, default=0.0)  # the host may say that it takes its time, but not for ever

    def _opened(self, link: Link) -> None:
        self._link = self._party._party_link = link


def answer_session(
    party: CollaboratorScheduler,
    manifest: RunManifest,
    limits: ServeLimits,
    *,
    wait_s: float,
    audit: Path | None = None,
    host_key: bytes | str | None = None,
) -> PredictionsAnswered:
    """Answer one session of the host of this run, over the network.

    Args:
        party: this one.
        manifest: of its run.
        limits: what the host may ask.
        wait_s: how long to wait for the host, and then for the others, in seconds; 0: for ever.
        audit: a file for the account of it.
        host_key: the only key that is the host; None: the one that it had in the run.

    Raises:
        HeterofedError: it failed; the text says whose trouble it is.
    """
    with (
        prediction_seat(party, manifest, wait_s=wait_s, host_key=host_key) as seat,
        closing(AuditLog(audit, manifest.task_id)) as log,
    ):
        return Server(party, seat, manifest, limits, log).serve_one(wait_s)


def serve(
    party: CollaboratorScheduler,
    manifest: RunManifest,
    limits: ServeLimits,
    *,
    audit: Path | None,
    stop: threading.Event,
    sessions: int | None,
    host_key: bytes | str | None,
) -> int:
    """Answer one session after the other until `stop` is set, SIGTERM or Ctrl-C comes, or there were enough.

    A session that fails does not end it. Arguments as `answer_session`, and:

    Args:
        stop: ends it, within a second where nothing is computed.
        sessions: how many; None: any number.

    Returns:
        How many sessions came to their end.

    Raises:
        ConfigError: this party cannot serve.
        OutputError: the account cannot be kept.
    """

    def look() -> None:
        if stop.is_set():
            raise Stopped

    served, last = 0, ""
    try:
        with (
            prediction_seat(party, manifest, wait_s=0.0, look=look, host_key=host_key) as seat,
            closing(AuditLog(audit, manifest.task_id)) as log,
        ):
            server = Server(party, seat, manifest, limits, log)
            seat.progress.say(f"{party.feature_key} answers predictions with its model of task {manifest.task_id}")
            while sessions is None or served < sessions:
                try:
                    done = server.serve_one(0.0)
                    served, last = served + 1, ""
                    seat.progress.say(f"answered {counted(done.requests, 'request')} for {counted(done.rows, 'row')}")
                except OutputError:
                    raise
                except HeterofedError as error:
                    if str(error) != last:
                        logger.warning("a session of %s ended early: %s", party.feature_key, error)
                    last = str(error)
                    quick = server.in_session and not isinstance(error, NotAllowed)  # who asks too much has to wait
                    stop.wait(SHORT_FAREWELL_S if quick else PAUSE_S)
                look()
    except Stopped:
        pass
    except (KeyboardInterrupt, SystemExit) as told:
        if isinstance(told, SystemExit) and told.code != TERMINATED:
            raise
    return served

"""A session for predictions in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from heterofed.errors import ConfigError, HeterofedError, PeerTimeout, TaskAborted, WireError
from heterofed.metrics.chorus import Chorus
from heterofed.metrics.progress import NoProgress
from heterofed.scheduler.base import Scheduler
from heterofed.scheduler.collaborator import CollaboratorScheduler
from heterofed.scheduler.host import HostScheduler
from heterofed.scheduler.plainly import interrupts_plainly
from heterofed.scheduler.predicting.audit_log import AuditLog
from heterofed.scheduler.predicting.loading import find_run
from heterofed.scheduler.predicting.opening import predicting
from heterofed.scheduler.predicting.predicted import Absent
from heterofed.scheduler.predicting.predictions import Predictions
from heterofed.scheduler.predicting.serve_limits import ServeLimits
from heterofed.scheduler.predicting.serving import Server
from heterofed.scheduler.seat import Seat, TaskRecord
from heterofed.simulate.training import JOIN_S, root_of
from heterofed.wire.memory import MemoryHub


@contextmanager
def predict_locally(
    host: HostScheduler,
    *collaborators: CollaboratorScheduler,
    ids: Sequence[str] | None = None,
    absent: Absent = "fail",
    wait: float = 5.0,
) -> Iterator[Predictions]:
    """Predict with what a completed run has trained, all parties in this process, inside a `with` block.

    Args:
        host: of the run in its `out_dir`.
        collaborators: those that are there, each with the `out_dir` of its own run; the others are absent.
        ids: as in `HostScheduler.open_predictions`.
        absent: as there. Stand-ins are for parties that are not given: one that is given and fails ends the session.
        wait: how long to wait for a party that is not given, in seconds.

    Raises:
        HeterofedError: what went wrong, from the party where it began.
    """
    manifest = find_run(host, "host", None)
    found = {each.feature_key: (each, find_run(each, "collaborator", manifest.task_id)) for each in collaborators}
    if strange := sorted(found.keys() - set(manifest.parties[1:])) or len(found) < len(collaborators):
        raise ConfigError(
            f"the collaborators are {', '.join(each.feature_key for each in collaborators)}",
            party=host.feature_key,
            expected=f"some of {', '.join(manifest.parties[1:])}, each once" + f" (not {strange})" * bool(strange),
        )
    if absent != "fail":
        wait = wait if found else 0.001
    hub = MemoryHub(host=host.feature_key)
    errors: dict[str, BaseException] = {}
    record, watching = _UntilOver(), _WhileAllAnswer(errors)
    chorus = Chorus()

    def seat_of(party: Scheduler) -> Seat:
        end = hub.transport(party.feature_key)
        return Seat(
            task_id=manifest.task_id,
            task_name=manifest.task_name,
            feature_key=party.feature_key,
            parties=manifest.parties,
            connect=lambda: (host.feature_key, end),
            settings=party.settings,
            progress=NoProgress(party.feature_key, chorus),
            record=watching if party is host else record,
        )

    def answer(key: str, server: Server, seat: Seat) -> None:
        try:
            server.serve_one(0.0)
        except BaseException as error:
            errors[key] = error
        finally:
            seat.connect()[1].close()

    servers: list[tuple[str, Server, Seat]] = []
    with ExitStack() as at_the_end:
        at_the_end.enter_context(interrupts_plainly())
        for key, (party, run) in found.items():  # what they load is no part of the wait for those that are not given
            seat = seat_of(party)
            log = AuditLog(None, run.task_id)
            try:
                servers.append((key, Server(party, seat, run, ServeLimits(idle_s=0), log), seat))
            except HeterofedError as error:
                error.located(party=key)
                raise
        seat = seat_of(host)
        for each in servers:
            thread = threading.Thread(target=answer, args=each, name=f"heterofed {each[0]}")
            thread.start()
            at_the_end.callback(thread.join, JOIN_S)
        try:
            with predicting(host, seat, manifest, ids, absent=absent, wait_s=wait) as predictions:
                if late := [key for key in predictions.absent if key in found]:
                    raise PeerTimeout(
                        f"did not check in within {wait:g} s",
                        party=", ".join(late),
                        advice="Give a longer wait.",
                    )
                yield predictions
        except (TaskAborted, WireError) as error:
            record.over = True
            at_the_end.close()
            raise root_of({**errors, host.feature_key: error}, manifest.parties) from None
        finally:
            record.over = True
            seat.connect()[1].close()


class _WhileAllAnswer(TaskRecord):
    """Ends the host's wait for a party that was given and has failed.

    Args:
        errors: feature key -> what has ended a collaborator.
    """

    def __init__(self, errors: Mapping[str, BaseException]) -> None:
        self._errors = errors

    def look(self) -> None:
        """Raise TaskAborted if a collaborator has ended by something that it was not told by the host."""
        failed = [key for key, error in self._errors.items() if not isinstance(error, TaskAborted)]
        if failed:
            raise TaskAborted("has failed", party=", ".join(failed))


class _UntilOver(TaskRecord):
    """Ends the waits of those that the host could not tell that it has ended."""

    over = False

    def look(self) -> None:
        """Raise TaskAborted if it has."""
        if self.over:
            raise TaskAborted("the host has ended")

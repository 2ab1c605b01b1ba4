"""The source system's two classes for the private set intersection alone, without training.

Each runs in its own process; the parties find each other by task id, as schedulers do. With several collaborators the
initiator learns what all parties share, not what it shares with each. How the ids are matched, by RSA or on a curve,
is `HETEROFED_PSI_PROTOCOL`'s business (see docs/guides/psi.md), whatever the names say.
"""

from __future__ import annotations

from collections.abc import Sequence

from heterofed.config import Settings
from heterofed.scheduler.intersecting import Intersection


class RSAPSIInitiatorScheduler:
    """The party that starts: blinds its ids and learns which of them all parties have.

    Args:
        task_id: as `heterofed task create` printed it.
        initiator_id: this party's feature key.
        ids: its unique, non-empty str ids.
        collaborator_ids: the other parties' feature keys; all of the task's.
        contractor: ignored; scripts for the source system may pass one.
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
        initiator_id: str,
        ids: Sequence[str],
        collaborator_ids: Sequence[str],
        contractor: object = None,
        data_channel_timeout: tuple[float, float] = (30, 60),
        *,
        settings: Settings | None = None,
    ) -> None:
        self._collaborators = list(collaborator_ids)
        self._part = Intersection(
            task_id, initiator_id, ids, data_channel_timeout=data_channel_timeout, settings=settings
        )

    def make_intersection(self) -> set[str]:
        """Return the ids that all parties have; the collaborators learn these and no others.

        Raises:
            AlignmentError: there is none.
            HeterofedError: a party failed or did not come; the text says which.
        """
        return set(self._part.as_host(self._collaborators).ids or ())


class RSAPSICollaboratorScheduler:
    """A party that holds a key: signs its own ids and the initiator's blinded ones.

    Args:
        task_id: as `heterofed task create` printed it.
        collaborator_id: this party's feature key.
        ids: its unique, non-empty str ids.
        contractor: ignored; scripts for the source system may pass one.
        data_channel_timeout: (longest wait for room in the queue, longest wait for a part), in seconds; 0: no limit.
        settings: what `HETEROFED_*` variables say, unless given.

    Raises:
        AlignmentError: the ids cannot be matched.
        ConfigError: a timeout cannot work.
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
        self._part = Intersection(
            task_id, collaborator_id, ids, data_channel_timeout=data_channel_timeout, settings=settings
        )

    def collaborate_intersection(self) -> set[str]:
        """Return the ids that all parties have, as the initiator reveals them.

        Raises:
            HeterofedError: a party failed or did not come; the text says which.
        """
        return set(self._part.as_collaborator().ids or ())

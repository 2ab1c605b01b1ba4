"""The last words: nobody leaves before every party has written its outputs, or another one could never be completed."""

from __future__ import annotations

from heterofed.errors import PeerGone, PeerTimeout
from heterofed.frames.messages import Dismissed
from heterofed.scheduler.link import Link
from heterofed.scheduler.seat import AlreadyCompleted, Seat

AT_MOST_S = 2.0
"""How long to wait for room in the queue of a collaborator that is to be dismissed."""


def dismiss(link: Link) -> None:
    """As the host, let every collaborator go. Their outputs are written: one that cannot hear it loses nothing."""
    for peer in link.peers:
        link.tell(peer, Dismissed(), AT_MOST_S)


def await_dismissal(link: Link, seat: Seat, timeout_s: float) -> None:
    """As a collaborator whose outputs are written, stay until the host has heard that from everybody.

    Args:
        link: to the host.
        seat: this party's place.
        timeout_s: how long to wait, in seconds; 0: for ever.

    Raises:
        PeerRestarted: a party was started again and needs the others once more.
        TaskAborted: a party could not complete the task.
    """
    look = link.look

    def look_for_the_end() -> None:
        look()
        if seat.record.is_completed():
            raise AlreadyCompleted

    link.look = look_for_the_end
    try:
        link.expect(Dismissed, from_=link.peers, waiting_for="word that every party is done", timeout_s=timeout_s)
    except AlreadyCompleted:
        return
    except (PeerGone, PeerTimeout):
        seat.progress.say(
            f"{link.peers[0]} did not say that every party is done; the outputs of {seat.feature_key} are written"
        )
    finally:
        link.look = look

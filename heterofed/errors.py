"""Every exception that heterofed raises on purpose.

    HeterofedError
    ├── ConfigError                a setting, a call or a class cannot work as written
    │   ├── UnknownTask            no task of this id where we looked
    │   └── BatchesPassed          a test reads batches again that were too much to keep
    ├── DataError                  a file with this party's data cannot be read
    ├── HubUnreachable             the hub does not answer, or not as a hub does
    ├── NotAllowed                 the hub's token is missing, wrong, expired, or may not do this
    └── TaskFailed                 the task cannot go on; every party ends
        ├── AlignmentError         ids, splits or batches differ between the parties
        ├── EmbeddingError         what a feature model gave cannot cross the cut
        ├── TemplateError          one of the user's own methods raised
        ├── TrainingDiverged       a loss or gradient is NaN or infinite
        ├── OutputError            a file or folder cannot be written
        ├── ProtocolError          (abstract) something was said that this phase does not allow
        │   ├── LocalProtocolError     we tried to: our bug
        │   └── RemoteProtocolError    the peer did
        │       └── FrameError             its bytes are not a message
        ├── WireError              bytes cannot travel
        │   ├── PeerTimeout            a deadline passed
        │   ├── PeerGone               the link to a party is down and stays down
        │   ├── PeerRestarted          a party's process was started anew
        │   └── PeerRefused            the other end does not let us in
        └── TaskAborted            another party gave up; carries its reason

`training.data.NoBatches` is a ConfigError too, and a RuntimeError for those who expect one.

Every text says who, in which phase, what happened, what was expected and what to do. None of them holds a sample
id, an embedding, a label or key material.
"""

from __future__ import annotations


class HeterofedError(Exception):
    """Base of all errors below.

    Args:
        what: what happened, as the part of a sentence after "<party>, while <phase>: ".
        party: feature key of the party that this is about.
        phase: what the session was doing, for example "training".
        expected: what would have been right.
        advice: what the reader can do now, as a sentence.
    """

    def __init__(
        self,
        what: str,
        *,
        party: str | None = None,
        phase: str | None = None,
        expected: str | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.party = party
        self.phase = phase
        self.expected = expected
        self.advice = advice
        self._for_peers: str | None = None

    def located(self, *, party: str | None = None, phase: str | None = None) -> HeterofedError:
        """Fill in the party and the phase where they are not known yet; returns self."""
        self.party = self.party or party
        self.phase = self.phase or phase
        return self

    def privately(self, what: str) -> HeterofedError:
        """Let the other parties hear only `what` of it, because the text names files of this party; returns self."""
        self._for_peers = what
        return self

    def for_peers(self) -> str:
        """Return the text that the other parties may see."""
        if self._for_peers is None:
            return str(self)
        public = HeterofedError(self._for_peers, party=self.party, phase=self.phase)
        return f"{public} The output of {self.party or 'that party'} says more."

    def __str__(self) -> str:
        where = ", ".join(part for part in (self.party, f"while {self.phase}" if self.phase else None) if part)
        text = f"{where}: {self.what}" if where else self.what
        if self.expected:
            text += f"; expected {self.expected}"
        text = text.rstrip(".") + "."
        return f"{text} {self.advice}" if self.advice else text


class ConfigError(HeterofedError):
    """A setting, a call or a class cannot work as it is written."""


class UnknownTask(ConfigError):
    """There is no task of this id in the place where we looked."""


class BatchesPassed(ConfigError):
    """A batch of a test was read that has passed and was not kept."""


class DataError(HeterofedError):
    """A file with this party's data is not there, cannot be read, or holds what cannot be used."""

    def __init__(self, what: str, **where: str | None) -> None:
        super().__init__(what, **where)
        self.privately("a file cannot be used")  # the path is this party's own affair


class HubUnreachable(HeterofedError):
    """The hub does not answer in time, or what answers there is none."""


class NotAllowed(HeterofedError):
    """A hub refuses a call: the token is missing, unknown, revoked or expired, or its owner may not do this.

    Or a collaborator that answers requests for predictions refuses one that goes beyond its limits.
    """


class TaskFailed(HeterofedError):
    """The task cannot go on. User code may raise it too, to end the task for every party."""


class AlignmentError(TaskFailed):
    """Ids, splits or batches differ between the parties; nothing was trained on the wrong rows."""


class EmbeddingError(TaskFailed):
    """The output of a feature model cannot cross the cut: wrong type, dtype or shape."""


class TemplateError(TaskFailed):
    """A method that the user wrote raised. The original exception is `__cause__`; its text stays at its party."""


class TrainingDiverged(TaskFailed):
    """A loss or a gradient is NaN or infinite."""


class OutputError(TaskFailed):
    """A file or folder cannot be written. What was there before is untouched."""

    def __init__(self, what: str, **where: str | None) -> None:
        super().__init__(what, **where)
        self.privately("a file or folder cannot be written")  # the path is this party's own affair


class ProtocolError(TaskFailed):
    """Something was said that the phase does not allow. Raised as one of the two subclasses."""

    story: tuple[str, ...] = ()
    """The session's last moves, oldest first; names of messages and phases, no data."""


class LocalProtocolError(ProtocolError):
    """We tried to say something that the phase forbids: a bug on this side."""


class RemoteProtocolError(ProtocolError):
    """A peer said something that the phase forbids, or that contradicts what it said before."""


class FrameError(RemoteProtocolError):
    """The bytes of a peer are not a message: wrong form, type, size or limit."""


class WireError(TaskFailed):
    """Bytes cannot travel between two parties."""


class PeerTimeout(WireError):
    """A deadline passed before the awaited message came."""


class PeerGone(WireError):
    """The link to a party is down and did not come back."""


class PeerRestarted(WireError):
    """A party's process was started anew, so the session with it is over. Parties that recover open another one."""


class PeerRefused(WireError):
    """The other end does not let this party in."""


class TaskAborted(TaskFailed):
    """Another party gave up; its reason is in the text."""

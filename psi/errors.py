"""Every exception that psi raises on purpose.

    PsiError
    ├── BadArgument     a setting of ours cannot work
    ├── BadIds          our own list of ids cannot be used
    ├── UsedTwice       a run was started, revealed or continued a second time
    ├── NotYet          a result was asked for before the run got there
    ├── WrongRole       a message from our own side came back
    ├── BadMessage      the peer's bytes are malformed, out of order or not as many as it declared
    ├── BadElement      a number of the peer is not an element of the group, comes twice, or is not the signature
    ├── WeakKey         the responder's key is not one that a run may use
    ├── ResultMismatch  the two parties' results differ
    ├── NotRevealed     this run does not tell this party which ids are shared
    └── ComputeFault    our own machine computed a wrong power, or its workers were lost

No text holds an id, an element, a tag or key material: only kinds, positions and counts. An empty intersection is a
result, not an error.
"""

from __future__ import annotations


class PsiError(Exception):
    """Base of all errors below."""


class BadArgument(PsiError):
    """A setting given to a run (task, session, chunk, workers, key size) cannot work; the text names it."""


class BadIds(PsiError):
    """Our own list of ids holds something that is not text, is empty or repeats another.

    The text gives counts only.
    """


class UsedTwice(PsiError):
    """A run was started, revealed or continued a second time.

    Re-using an Initiator or a Responder lets the peer link two runs. Make a new object with a new session.
    """


class NotYet(PsiError):
    """A result was asked for before the run got there. Hand over the peer's messages first."""


class WrongRole(PsiError):
    """A message of our own side came back to us.

    Either both parties took the same role, or somebody on the way reflects our messages.
    """


class BadMessage(PsiError):
    """The peer's bytes are not the message that may come now: malformed, out of order, or not as declared."""


class BadElement(PsiError):
    """A group element of the peer cannot be used.

    It is out of range or not in the group, repeats another, or is not the answer to the element in its place.
    """


class WeakKey(PsiError):
    """The responder's key is too short, malformed, or does not prove that blinding under it hides the ids."""


class ResultMismatch(PsiError):
    """What the two parties hold at the end of a run differs: an id was lost, added or altered on the way.

    Neither result may be used.
    """


class NotRevealed(PsiError):
    """The terms of this run do not let this party know which ids are shared. Ask for `reveal="both"` to change that."""


class ComputeFault(PsiError):
    """A power computed on this machine does not verify, or its workers gave none; nothing of it was sent.

    One wrong signature made with the Chinese remainder theorem can give the private key away, so the run ends here.
    Check this machine's memory and processor.
    """

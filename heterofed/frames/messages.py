"""Everything that parties say to each other. The first words of each docstring give the direction.

A message is a frozen struct; its bulk (tensors, PSI parts) is a `Blob`, which the codec sends as a frame of its own
beside the header. Which message may be said when is the table in `heterofed/protocol/phases.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from heterofed.frames.forms import Blob, Count, Number, WireTensor

PROTOCOL_VERSION = 6
"""Both ends of a link must speak the same version."""

Key: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Text: TypeAlias = Annotated[str, Meta(max_length=2000)]
Token: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
Public: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Digest: TypeAlias = Annotated[bytes, Meta(max_length=32)]
Run: TypeAlias = Annotated[bytes, Meta(max_length=16)]

MOST_PARTIES = 1000
"""More than any task has; a bound on what a header can make us make."""

MOST_ASKED = 65_536
"""Rows of one `Ask` at most: what both ends hold of a request has its bound in it."""

MOST_POINTS = 64  # that one party offers to go on from
MOST_LOCAL_STEPS = 1000  # with one exchange

PLACE_BYTES = 4
"""Size of a place among the shared ids, in bytes."""


class Message(Struct, frozen=True, tag=True, array_like=True, forbid_unknown_fields=True):
    """Base of all messages."""


Reveal: TypeAlias = Literal["both", "initiator", "cardinality"]
"""Who learns which ids are shared: every party, the host alone, or nobody (but how many they are)."""


class Matching(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How the ids are matched; every party has to have chosen the same."""

    protocol: Literal["rsa", "ecdh"]
    reveal: Reveal
    joint: bool
    """Whether the host learns only what all parties share; False: what it shares with each."""

    def __str__(self) -> str:
        who = {
            "both": "every party learns which are shared",
            "initiator": "only the host learns which are shared",
            "cardinality": "both learn how many are shared, nobody which",
        }
        return f"{self.protocol}: {who[self.reveal]}{', nobody what two parties share' if self.joint else ''}"


DrawMethod: TypeAlias = Literal["mc_dropout", "swag"]
Purpose: TypeAlias = Literal["train", "match", "predict"]
"""What a session is for: training, the intersection alone, or predictions with what a completed run has trained."""


class CheckIn(Message, frozen=True):
    """Collaborator → host: I am here for this task. Said again, with a new nonce, when a party was started again."""

    protocol: int
    task_id: Key
    feature_key: Key
    nonce: Token
    trainable: bool
    """False: my feature model is frozen, send me no gradients."""
    own_batches: bool
    """True: my code chooses the batches (`iterate_*`); False: I follow the host's plan (`load_batch`)."""
    matching: Matching
    recover: bool
    """True: I go on from a checkpoint if I have one."""
    run: Run
    """The run whose shared ids I still know, named by the session in which they were matched; empty: none."""
    points: Annotated[tuple[Count, ...], Meta(max_length=MOST_POINTS)]
    """After how many batches of that run I can go on; 0 is its start."""
    threads: Count = 0
    """How many threads I compute with; 0: I do not compute."""
    purpose: Purpose = "train"
    """What I am here for. To predict, `run` is the completed run whose model I have loaded, and `points` its rounds."""


MOST_AHEAD = 32
"""More batches than that are never in flight: what is not acknowledged and not read has its bounds below."""


class Terms(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How batches are exchanged in a session, as the host has declared it; with the defaults the training is exact."""

    max_staleness: Annotated[int, Meta(ge=0, le=MOST_AHEAD)] = 0
    """How many batches a collaborator may be ahead of the gradients that it has applied."""
    local_steps: Annotated[int, Meta(ge=1, le=MOST_LOCAL_STEPS)] = 1
    """Steps that every party makes with one exchange."""
    batches_per_message: Annotated[int, Meta(ge=1, le=MOST_AHEAD)] = 1
    """Embeddings that travel in one message, and then their gradients."""
    embedding_precision: Annotated[str, Meta(max_length=32)] = ""
    """How embeddings cross the wire; empty: as they are."""
    gradient_precision: Annotated[str, Meta(max_length=32)] = ""
    """The same for gradients."""

    def __post_init__(self) -> None:
        if self.batches_per_message > self.max_staleness + 1:
            raise ValueError(f"{self.batches_per_message} batches a message, {self.max_staleness} ahead")


LOCK_STEP = Terms()
"""One batch after the other, every number as it is: the training has the same bits as that of the unsplit network."""


class Welcome(Message, frozen=True):
    """Host → collaborator: everybody is here, this is the session. Echoes the nonce of the check-in."""

    nonce: Token
    session: Token
    """Random; keys the digests of this session."""
    parties: Annotated[tuple[Key, ...], Meta(max_length=MOST_PARTIES)]
    """Feature keys of all parties, host first."""
    max_rounds: Count
    """0: until the host says so."""
    calculation_timeout_s: Annotated[float, Meta(ge=0, le=1e9)]
    """How long any one step of a party may take, in seconds; 0: no limit."""
    matched: bool
    """True: every party still knows the shared ids of one run, so they are not matched again."""
    resume: Count
    """All parties go on after so many batches; 0: from the start."""
    terms: Terms = LOCK_STEP


class PsiPart(Message, frozen=True):
    """Either way: one message of the private set intersection, opaque here (see `psi/messages.py`)."""

    payload: Blob


class PairingKey(Message, frozen=True):
    """Collaborator → host: my public key of this session, for the other collaborators."""

    public: Public


class PairingKeys(Message, frozen=True):
    """Host → collaborator: the public keys of all collaborators, in the order of `Welcome.parties` without the host."""

    publics: Annotated[tuple[Public, ...], Meta(max_length=MOST_PARTIES)]


class StillMatching(Message, frozen=True):
    """Either way: keep waiting. The host still works with others, or the collaborator on its own ids."""


class Split(Message, frozen=True):
    """Either way: the sizes and keyed digests of my ordered train and test ids."""

    train: Count
    test: Count
    train_digest: Digest
    test_digest: Digest


class BatchPlan(Message, frozen=True):
    """Host → collaborator: round `round` starts now, over these batches."""

    round: Number
    own_batches: bool
    """True: the host's code chooses the batches; all that follows is then 0, False or empty."""
    batch_size: Count
    """Rows of every batch but the last."""
    batches: Count
    shuffle: bool
    seed: Annotated[int, Meta(ge=0, lt=2**32)]
    """Of the round's permutation, when `shuffle`."""
    digest: Digest
    """Keyed digest of the train ids in the order of this round."""
    finetune: bool
    """True: only some parties' models move in this round."""
    learns: bool
    """Whether the model of the party that this is sent to moves, if it is trainable at all."""
    first: Count
    """The first batch to exchange; more than 0 where the parties go on in the middle of a round."""
    keep: Count | None
    """Keep a checkpoint after this batch, one of the `max_staleness` + 1 that come first; None: after none of them."""


class RoundReady(Message, frozen=True):
    """Collaborator → host: I have the plan of this round and come to the same order."""

    round: Number


class Embedding(Message, frozen=True):
    """Collaborator → host: the output of my feature model for one batch, in training or in a test."""

    round: Number
    batch: Count
    """From 0 in each round and in each test."""
    rows: Number
    digest: Digest
    """Keyed digest of the ids of these rows; empty where the user's code chose them."""
    values: WireTensor
    """(rows, width, …), floating point."""

    def __post_init__(self) -> None:
        if self.rows != self.values.shape[0]:
            raise ValueError(f"{self.rows} rows declared, {self.values.shape[0]} sent")


class Gradient(Message, frozen=True):
    """Host → collaborator: the gradient of the loss by your embedding of this batch, of the embedding's shape."""

    round: Number
    batch: Count
    loss: float | None
    """The host's mean loss of this round so far, for your progress bar; None: not shared or not known yet."""
    keep: bool
    """True: keep a checkpoint after the batch that comes `max_staleness` + 1 after this one."""
    values: WireTensor


class Proceed(Message, frozen=True):
    """Host → collaborator: I have this batch and nothing to backpropagate; go on."""

    round: Number
    batch: Count
    loss: float | None
    """As in Gradient; None in a test."""
    keep: bool
    """As in Gradient; False in a test."""


class BatchesEnd(Message, frozen=True):
    """Collaborator → host: that was my last batch of this round's training or test."""

    round: Number
    batches: Count


class StartTest(Message, frozen=True):
    """Host → collaborator: send me the embeddings of the test ids."""

    round: Number


class Draw(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One of several predictions of the same rows; every party draws for itself, the same each time it is asked."""

    method: DrawMethod
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    number: Count


class Ask(Message, frozen=True):
    """Host → collaborator: send me your embeddings of these rows, in this order, as your model is now.

    They come in batches, as many ahead of my `Proceed` as in a test; the last ones need none.
    """

    round: Number
    """The last round that was trained; of the whole run in a session for predictions."""
    batch_size: Annotated[int, Meta(ge=1, le=MOST_ASKED)]
    """Rows of every batch but the last."""
    rows: Blob
    """Places in the order of the shared ids, uint32, little-endian, at most `MOST_ASKED`; they may repeat."""
    draw: Draw | None = None
    """None: with your model as it is."""

    def __post_init__(self) -> None:
        if not self.rows.nbytes or self.rows.nbytes % PLACE_BYTES or self.rows.nbytes > MOST_ASKED * PLACE_BYTES:
            raise ValueError(f"rows in {self.rows.nbytes} bytes")


class CloseRound(Message, frozen=True):
    """Host → collaborator: the round is over; keep a checkpoint."""

    round: Number
    best: bool
    """Whether the host's test was the best so far: keep this round as `model_best` too."""
    loss: float | None
    """The host's mean loss of this round; None: not shared or not known."""


class RoundClosed(Message, frozen=True):
    """Collaborator → host: my checkpoint of this round is on the disk."""

    round: Number


class CompleteTask(Message, frozen=True):
    """Host → collaborator: training is finished; write your model."""

    rounds: Count


class Completed(Message, frozen=True):
    """Collaborator → host: my model is written."""

    rounds: Count


class Dismissed(Message, frozen=True):
    """Host → collaborator: every party has what it needs, nobody will ask you again. The last message of a session."""


class Paused(Message, frozen=True):
    """Host → collaborator: one of the parties is away and we wait for it. Repeated until it is back; moves nothing."""

    party: Key


class Abort(Message, frozen=True):
    """Either way: the task cannot go on. The host passes it on to the other collaborators."""

    party: Key
    """Whose trouble it is."""
    error: Key
    """Name of the error class."""
    reason: Text
    """For people; holds no data."""


AnyMessage: TypeAlias = (
    CheckIn
    | Welcome
    | PairingKey
    | PairingKeys
    | PsiPart
    | StillMatching
    | Split
    | BatchPlan
    | RoundReady
    | Embedding
    | Gradient
    | Proceed
    | BatchesEnd
    | StartTest
    | Ask
    | CloseRound
    | RoundClosed
    | CompleteTask
    | Completed
    | Dismissed
    | Paused
    | Abort
)

"""One message of every type, for tests that walk all of them."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from heterofed.frames.forms import Blob
from heterofed.frames.messages import (
    Abort,
    AnyMessage,
    Ask,
    BatchesEnd,
    BatchPlan,
    CheckIn,
    CloseRound,
    Completed,
    CompleteTask,
    Dismissed,
    Draw,
    Embedding,
    Gradient,
    Matching,
    Message,
    PairingKey,
    PairingKeys,
    Paused,
    Proceed,
    PsiPart,
    RoundClosed,
    RoundReady,
    Split,
    StartTest,
    StillMatching,
    Terms,
    Welcome,
)
from heterofed.frames.precision import Precision, pack_as
from heterofed.frames.tensors import pack

NONCE = bytes(range(16))
SESSION = bytes(range(16, 32))
DIGEST = bytes(range(32, 48))

ALL_TYPES: tuple[type[Message], ...] = get_args(AnyMessage)


def numbers(rows: int = 2, width: int = 3) -> Tensor:
    """Return 0, 1, 2, … as (rows, width) float32."""
    return torch.arange(rows * width, dtype=torch.float32).view(rows, width)


def one_of_each(round_: int = 1, batch: int = 0) -> list[AnyMessage]:
    """Return one message of every type; those that name a round and a batch name these."""
    values = pack(numbers())
    return [
        CheckIn(
            protocol=1,
            task_id="t1",
            feature_key="c1",
            nonce=NONCE,
            trainable=True,
            own_batches=False,
            matching=Matching("rsa", "both", True),
            recover=True,
            run=SESSION,
            points=(0, 938, 1876),
            threads=2,
            purpose="predict",
        ),
        Welcome(
            nonce=NONCE,
            session=SESSION,
            parties=("host", "c1"),
            max_rounds=3,
            calculation_timeout_s=300.0,
            matched=True,
            resume=938,
            terms=Terms(4, 2, 5, "int8", "topk:0.1"),
        ),
        PairingKey(public=bytes(range(32))),
        PairingKeys(publics=(bytes(32), bytes(range(32)))),
        PsiPart(payload=Blob(b"opaque")),
        StillMatching(),
        Split(train=8, test=2, train_digest=DIGEST, test_digest=DIGEST),
        BatchPlan(
            round=round_,
            own_batches=False,
            batch_size=4,
            batches=2,
            shuffle=True,
            seed=2**32 - 1,
            digest=DIGEST,
            finetune=True,
            learns=False,
            first=batch,
            keep=batch,
        ),
        RoundReady(round=round_),
        Embedding(round=round_, batch=batch, rows=2, digest=DIGEST, values=values),
        Gradient(round=round_, batch=batch, loss=0.25, keep=True, values=values),
        Proceed(round=round_, batch=batch, loss=None, keep=False),
        BatchesEnd(round=round_, batches=batch),
        StartTest(round=round_),
        Ask(round=round_, batch_size=2, rows=Blob(bytes(12)), draw=Draw("swag", 2**63 - 1, batch)),
        CloseRound(round=round_, best=True, loss=0.5),
        RoundClosed(round=round_),
        CompleteTask(rounds=round_),
        Completed(rounds=round_),
        Dismissed(),
        Paused(party="c2"),
        Abort(party="c1", error="OutputError", reason="cannot write: no space left"),
    ]


def in_other_forms(round_: int = 1, batch: int = 0) -> list[AnyMessage]:
    """Return the messages with a tensor in every form that those of `one_of_each` do not have."""
    made = [pack_as(numbers(), Precision.parse(each)) for each in ("int8", "topk:0.5")]
    return [
        *(Embedding(round=round_, batch=batch, rows=2, digest=DIGEST, values=values) for values in made),
        *(Gradient(round=round_, batch=batch, loss=0.25, keep=True, values=values) for values in made),
    ]


def example(kind: type[Message], round_: int = 1, batch: int = 0) -> AnyMessage:
    """Return the example of a type."""
    return next(each for each in one_of_each(round_, batch) if type(each) is kind)

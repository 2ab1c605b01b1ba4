"""The host's gradient as a collaborator takes it: unpacked as was agreed, of the form of its embedding, finite."""

from __future__ import annotations

from torch import Tensor

from heterofed.errors import FrameError, RemoteProtocolError, TrainingDiverged
from heterofed.finite import is_finite
from heterofed.frames.forms import WireTensor
from heterofed.frames.messages import Terms
from heterofed.frames.precision import unpack_as
from heterofed.scheduler.batches.packing import precision_of
from heterofed.scheduler.line import Line


def gradient_of(embedding: Tensor, values: WireTensor, terms: Terms, link: Line, *, finite: bool) -> Tensor:
    """Return what came as the gradient of an embedding, on the CPU.

    Args:
        embedding: what it is to be the gradient of.
        values: as they came.
        terms: what was agreed on with the host.
        link: to the host.
        finite: whether NaN and infinite numbers are refused.

    Raises:
        FrameError: it crossed otherwise than was agreed.
        RemoteProtocolError: it has another shape or dtype than the embedding.
        TrainingDiverged: a number in it is NaN or infinite.
    """
    precision = precision_of(terms.gradient_precision)
    try:
        gradient = unpack_as(values, precision)
    except FrameError as error:
        raise error.located(party=link.peers[0], phase=link.phase().value) from None
    if precision or terms.embedding_precision:  # rounded: then it has the dtype in which it crossed
        gradient = gradient.to(embedding.dtype)
    if gradient.shape != embedding.shape or gradient.dtype != embedding.dtype:
        raise RemoteProtocolError(
            f"sent a gradient of {gradient.dtype} {tuple(gradient.shape)}",
            party=link.peers[0],
            expected=f"{embedding.dtype} {tuple(embedding.shape)}, as the embedding",
        )
    if finite and not is_finite(gradient):
        raise TrainingDiverged(
            "sent a gradient that is NaN or infinite",
            party=link.peers[0],
            expected="finite numbers",
            advice="The host has to lower its learning rate, or check its inputs and labels for NaN.",
        )
    return gradient

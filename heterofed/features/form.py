"""What may cross the cut: floating point, batch first, and of one form from a party's first batch on."""

from __future__ import annotations

import torch
from torch import Tensor

from heterofed.errors import EmbeddingError, TrainingDiverged
from heterofed.finite import is_finite

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Dtypes of which gradients exist and which may cross the cut."""


class EmbeddingForm:
    """Holds a party's embeddings to one dtype and one shape after the rows, that of its first batch.

    Args:
        party: feature key, for the text of errors.
        source: where the embeddings come from, for the text of errors.
        finite: whether NaN and infinite numbers are refused.
        widen: whether bfloat16, which a forward pass in mixed precision gives, becomes float32.
        may_be_hollow: whether (rows, 0) will do: a party without features that does not send it.
    """

    def __init__(
        self, party: str, source: str, *, finite: bool = True, widen: bool = False, may_be_hollow: bool = False
    ) -> None:
        self._may_be_hollow = may_be_hollow
        self._finite = finite
        self._widen = widen
        self._party = party
        self._source = source
        self._dtype: torch.dtype | None = None
        self._width: tuple[int, ...] = ()

    @property
    def seen(self) -> tuple[str, tuple[int, ...]] | None:
        """Name of the dtype and shape of one row; None before the first batch."""
        return None if self._dtype is None else (str(self._dtype).removeprefix("torch."), self._width)

    def check(self, value: object) -> Tensor:
        """Return the value if it may cross the cut; widened, if that is wanted.

        Raises:
            EmbeddingError: not a floating point tensor of (rows, width, …), or unlike the first one.
            TrainingDiverged: a number in it is NaN or infinite.
        """
        if not isinstance(value, Tensor):
            raise self._error(f"gave {type(value).__name__}", "a torch.Tensor")
        if self._widen and value.dtype == torch.bfloat16:
            value = value.float()
        if value.dtype not in FLOATS:
            raise self._error(f"gave a tensor of {value.dtype}", "one of " + ", ".join(str(each) for each in FLOATS))
        if value.dim() < 2 or not (len(value) if self._may_be_hollow else value.numel()):
            raise self._error(
                f"gave a tensor of shape {tuple(value.shape)}", "(rows, width, …), batch first, not empty"
            )
        if self._dtype is None:
            self._dtype, self._width = value.dtype, tuple(value.shape[1:])
        if (value.dtype, tuple(value.shape[1:])) != (self._dtype, self._width):
            raise self._error(
                f"gave {value.dtype} of shape {tuple(value.shape)}",
                f"{self._dtype} of shape (rows, {', '.join(map(str, self._width))}) as in its first batch",
            )
        if self._finite and not is_finite(value):
            raise TrainingDiverged(
                f"{self._source} gave NaN or infinite numbers",
                party=self._party,
                expected="finite numbers",
                advice="Check this party's inputs for NaN; if they are sound, lower the learning rate.",
            )
        return value

    def _error(self, problem: str, expected: str) -> EmbeddingError:
        return EmbeddingError(
            f"{self._source} {problem}",
            party=self._party,
            expected=expected,
            advice="Mend the feature model, or the method that yields its output.",
        )

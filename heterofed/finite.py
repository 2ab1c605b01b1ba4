"""Whether numbers are numbers: neither NaN nor infinite."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite.

    A sum is finite only if all that it adds are, and takes a tenth of the time of looking at each element. Where it
    is not, it may only have overflowed: then each element is looked at.
    """
    values = tensor.detach()
    if values.is_sparse:
        values = values.coalesce().values()
    return math.isfinite(values.sum().item()) or bool(torch.isfinite(values).all())


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no element of any tensor is NaN or infinite; looks at all tensors of a device at once."""
    values = [each.detach().coalesce().values() if each.is_sparse else each.detach() for each in tensors]
    sums: dict[torch.device, Tensor] = {}
    for each in values:
        sums[each.device] = sums[each.device] + each.sum() if each.device in sums else each.sum()
    return all(math.isfinite(total) for total in sums.values()) or all(map(is_finite, values))

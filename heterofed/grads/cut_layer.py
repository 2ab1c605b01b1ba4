"""Where the embeddings of the collaborators enter the host's graph and their gradients leave it.

Each embedding that came over the wire becomes a leaf of autograd. Autograd accumulates a leaf's gradient as soon as the
last operation that used it is differentiated, which is before it walks on into the host's own feature model; a hook
hands the gradient over at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from heterofed.errors import ConfigError, TrainingDiverged
from heterofed.finite import all_finite, is_finite


class CutLayer:
    """Opens the embeddings of one batch after another to autograd.

    Args:
        leave: called with (feature key, gradient) once for each trainable party and batch. The gradient has the
            shape, dtype and device of the embedding.
        warn: called with one line when a party's embedding was not used; once per party.
        check_finite: whether a gradient that is NaN or infinite is refused.
    """

    def __init__(
        self, leave: Callable[[str, Tensor], None], warn: Callable[[str], None], *, check_finite: bool = True
    ) -> None:
        self._check_finite = check_finite
        self._leave = leave
        self._warn = warn
        self._leaves: dict[str, Tensor] = {}
        self._left: set[str] = set()
        self._warned: set[str] = set()
        self.reached = 0
        """How many gradients autograd has given so far: of leaves, and of the embeddings that `watch` was given."""

    def open(self, received: Mapping[str, Tensor], trainable: set[str] | frozenset[str]) -> dict[str, Tensor]:
        """Return the embeddings as leaves, ready for `train_a_batch`.

        Args:
            received: feature key -> (rows, width, …), as it came over the wire.
            trainable: parties that want a gradient; the others' embeddings are constants.
        """
        self._leaves = {}
        self._left = set()
        opened: dict[str, Tensor] = {}
        for key, embedding in received.items():
            if key not in trainable:
                opened[key] = embedding.detach()
                continue
            leaf = embedding.detach().requires_grad_(True)
            leaf.register_post_accumulate_grad_hook(self._handed_over(key))
            self._leaves[key] = leaf
            opened[key] = leaf
        return opened

    def watch(self, own: Tensor) -> None:
        """Count in `reached` when autograd comes to the host's own embedding; once it has, nothing more is asked."""
        if own.requires_grad and not self.reached:
            own.register_hook(self._count)

    def _count(self, gradient: Tensor) -> None:
        self.reached += 1

    def close(self) -> None:
        """End the batch: a party whose embedding took no part in the loss gets a zero gradient, and one warning."""
        for key, leaf in self._leaves.items():
            if key in self._left:
                continue
            if key not in self._warned:
                self._warned.add(key)
                self._warn(
                    f"train_a_batch did not use the embedding of {key} or did not call backward(): "
                    f"it gets a zero gradient, and its model does not learn from such batches"
                )
            self._left.add(key)
            self._leave(key, torch.zeros_like(leaf))
        self._leaves = {}

    def check_reached(self, batches: int) -> None:
        """Refuse a training in which autograd never came to any embedding.

        Raises:
            ConfigError: it did not, in `batches` batches.
        """
        if not self.reached:
            raise ConfigError(
                f"train_a_batch gave no embedding a gradient in all {batches} batches",
                expected="backward() of a loss that is made of feature_projection",
                advice="Call loss.backward() in train_a_batch; without it no party learns.",
            )

    def _handed_over(self, key: str) -> Callable[[Tensor], None]:
        def hook(leaf: Tensor) -> None:
            gradient = leaf.grad
            if gradient is None or leaf is not self._leaves.get(key):
                return
            self.reached += 1
            if key in self._left:
                raise ConfigError(
                    f"train_a_batch differentiated the embedding of {key} twice in one batch",
                    expected="one backward() for each batch",
                    advice="Add the losses up and call backward() once: the first gradient has left already.",
                )
            if self._check_finite and not is_finite(gradient):
                raise TrainingDiverged(
                    f"the gradient for {key} is NaN or infinite",
                    expected="finite numbers",
                    advice="Lower the learning rate, check the inputs for NaN, or clip the loss.",
                )
            self._left.add(key)
            self._leave(key, gradient)

        return hook


def check_finite_gradients(model: nn.Module) -> None:
    """Refuse gradients that would ruin a model.

    Raises:
        TrainingDiverged: a gradient of its parameters is NaN or infinite.
    """
    if not all_finite(each.grad for each in model.parameters() if each.grad is not None):
        raise TrainingDiverged(
            "a gradient of the infer model is NaN or infinite",
            expected="finite numbers",
            advice="Lower the learning rate, or check the inputs and labels for NaN.",
        )


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's parameters are; the CPU for a model without any."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device

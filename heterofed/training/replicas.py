"""One model on the processes of a party: each runs a share of every batch, the first one has the whole result.

    first process                                 the others, each
    -------------                                 ----------------
    weights ------------------------------------> weights
    its share of the rows -> model                their share -> model
    embedding <- all shares in their order <----- embedding of the share
      |
      | backward: the gradient of the embedding
      +-----------------------------------------> rows of it
    its share -> model                            their share -> model
    gradients of the weights = sum of all <------ gradients of the weights, summed bucket by bucket
    optimizer's step

torch's DistributedDataParallel does the backward pass: it sums gradients while others are still being computed. The sum
goes to the first process only, which is the only one with an optimizer, and hands its weights round for the next batch.
So whatever its hooks and its code do to gradients, weights, learning rates, is what happens; nothing can drift apart,
and no bytes travel more than when every process gets the sum and steps by itself.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from heterofed.errors import TaskFailed
from heterofed.training.team import Team

LEAST_ROWS = 2
"""Rows of a share at least: batch normalisation cannot train on one."""

_OWN_BUFFERS: dict[str, Any] = (  # they are handed round with the weights
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    else {"broadcast_buffers": False}
)


def is_shared(rows: int, size: int) -> bool:
    """Whether so many rows are enough to be shared; a smaller batch is computed whole, everywhere alike."""
    return rows >= LEAST_ROWS * size


def share_of(rows: int, rank: int, size: int) -> slice:
    """Return the rows of a batch that a process computes."""
    if not is_shared(rows, size):
        return slice(0, rows)
    return slice(rows * rank // size, rows * (rank + 1) // size)


class Replica:
    """A process's copy of the model.

    Args:
        model: the process's own, of which all are made alike.
        team: the processes.
    """

    def __init__(self, model: nn.Module, team: Team) -> None:
        self.model = model
        self._team = team
        self._parameters = list(model.parameters())
        self._modules = list(model.modules())
        first = next(iter(self._parameters), None)
        self.device = torch.device("cpu") if first is None else first.device
        self._flat, self._places = _flat_copy([*self._parameters, *model.buffers()], self.device)
        self._parallel: DistributedDataParallel | None = None
        self._parallel_for = b""
        self._expects: int | None = None
        self._to_come = False
        self._failure: TaskFailed | None = None
        self._not_reached: list[Tensor] = []

    # --- being alike --------------------------------------------------------------------------------------------------

    def layout(self) -> str:
        """Return a digest of what the model is made of; equal at all processes."""
        named = [*self.model.named_parameters(), *self.model.named_buffers()]
        text = repr([(name, each.dtype, tuple(each.shape), each.device.type) for name, each in named])
        return hashlib.sha256(f"{len(self._modules)} {text}".encode()).hexdigest()

    def modes(self) -> bytes:
        """Return which modules train, and which parameters learn."""
        return bytes([each.training for each in self._modules] + [each.requires_grad for each in self._parameters])

    def take_modes(self, modes: bytes) -> None:
        """Set what `modes` returned at the first process."""
        trains, learn = modes[: len(self._modules)], modes[len(self._modules) :]
        for module, flag in zip(self._modules, trains, strict=True):
            module.training = bool(flag)
        for parameter, flag in zip(self._parameters, learn, strict=True):
            if parameter.requires_grad != bool(flag):
                parameter.requires_grad_(bool(flag))

    @property
    def learns(self) -> bool:
        """Whether the model has a parameter that learns."""
        return any(each.requires_grad for each in self._parameters)

    def share_weights(self) -> None:
        """Make all weights and buffers those of the first process; all processes do so at the same time."""
        if self._flat.numel() == 0:
            return
        first = self._team.rank == 0
        if first:
            for place, tensor in self._places:
                place.copy_(tensor.detach())
        self._team.hand_round(self._flat)
        if not first:
            for place, tensor in self._places:
                tensor.data.copy_(place)  # graphs that wait for their gradient keep copies of what they need

    # --- forward and backward -----------------------------------------------------------------------------------------

    def forward(self, inputs: Any, turn: int | None) -> tuple[Any, list[int]]:
        """Run the model on a share.

        Args:
            inputs: what it is given.
            turn: number of this forward pass, if a backward pass may follow; None otherwise.

        Returns:
            What the model returned, and the numbers of the parameters that took no part in it. They are tied to it
            nevertheless, as DistributedDataParallel waits for the gradients of all.
        """
        if turn is None:
            return self.model(inputs), []
        self.check()
        output = self._ready()(inputs)
        self._expects = turn
        if not isinstance(output, Tensor):
            return output, []
        apart = _unreached(output, [each for each in self._parameters if each.requires_grad])
        for parameter in apart:
            output = output + (parameter.sum() * 0).to(output.dtype)
        numbers = {id(each): number for number, each in enumerate(self._parameters)}
        return output, sorted(numbers[id(each)] for each in apart)

    def stand_in(self) -> None:
        """Take part in what the processes do together in a forward pass that may be followed by a backward pass."""
        self._ready().reducer._rebuild_buckets()

    def begin_backward(self, turn: int, unreached: Sequence[int] = ()) -> None:
        """Be ready for the backward pass of a forward pass; all processes are at the same time.

        Args:
            turn: number of the forward pass.
            unreached: parameters that took no part anywhere.
        """
        if self._parallel is None:
            raise RuntimeError("backward before forward")
        if self._expects != turn:  # others were between, so what the forward pass has prepared is gone
            self._parallel.reducer._rebuild_buckets()
            self._parallel.reducer.prepare_for_backward([])
        self._expects = None
        self._to_come = True
        if self._team.rank:
            for each in self._parameters:
                each.grad = None
        else:
            self._not_reached = [self._parameters[each] for each in unreached if self._parameters[each].grad is None]

    def settle(self) -> None:
        """Make the first process's gradients those that one process would have, before the optimizer's step.

        Raises:
            TaskFailed: they are not complete.
        """
        self.check()
        if self._to_come:
            raise TaskFailed(
                "the optimizer of the feature model steps before the gradients of all processes are there",
                expected="its step after backward()",
            )
        for each in self._not_reached:
            each.grad = None
        self._not_reached = []

    def check(self) -> None:
        """Raise what has gone wrong while gradients were added up."""
        if self._failure is not None:
            raise self._failure

    def _ready(self) -> DistributedDataParallel:
        """Return the parallel model, made anew when other parameters learn than before."""
        learn = self.modes()[len(self._modules) :]
        if self._parallel is None or self._parallel_for != learn:
            self._parallel = None  # before another one puts its hooks where this one's are
            group = self._team.group_on(self.device)
            self._parallel = DistributedDataParallel(self.model, process_group=group, **_OWN_BUFFERS)
            # A lambda, because torch compares a function's annotations with its own types.
            self._parallel.register_comm_hook(self, lambda replica, bucket: _sum_at_the_first(replica, bucket))
            self._parallel_for = learn
        return self._parallel

    def _summed(self, bucket: Tensor, last: bool, done: torch.futures.Future[Any]) -> Tensor:
        """Take note that a bucket has arrived; what went wrong is raised where it has a name."""
        try:
            done.value()
        except RuntimeError as error:
            self._failure = self._failure or self._team.lost(error, limit=self._team.limit)
        if last:
            self._to_come = False
        return bucket


def _sum_at_the_first(replica: Replica, bucket: Any) -> torch.futures.Future[Tensor]:
    """Add a bucket of gradients up at the first process; at the others it is not used."""
    tensor, last = bucket.buffer(), bucket.is_last()
    work = dist.reduce(tensor, 0, group=replica._team.group_on(tensor.device), async_op=True)
    if work is None:
        raise RuntimeError("this process does not belong to the group that adds up")
    done = work.get_future()
    summed: torch.futures.Future[Tensor] = done.then(lambda ended: replica._summed(tensor, last, ended))
    return summed


class Joined(torch.autograd.Function):
    """Joins the shares of an embedding; backward gives every process the gradient of its own."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, others: Tensor | None, leave: Callable[[Tensor], None]) -> Tensor:
        """Return all rows.

        Args:
            ctx: autograd's.
            own: (rows of the first process, width, …).
            others: (all further rows, width, …); None: there are none.
            leave: called with the gradient of all rows, when it is there.
        """
        ctx.rows, ctx.leave = own.shape[0], leave
        return own.clone() if others is None else torch.cat([own, others])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return the gradient of the first process's rows."""
        (gradient,) = gradients
        ctx.leave(gradient)
        return gradient[: ctx.rows], None, None


def _flat_copy(tensors: Sequence[Tensor], device: torch.device) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Return bytes with room for all tensors, and (its part of them, tensor) for each; wide numbers first."""
    ordered = sorted((each for each in tensors if each.numel()), key=lambda each: -each.element_size())
    flat = torch.empty(sum(each.numel() * each.element_size() for each in ordered), dtype=torch.uint8, device=device)
    places, start = [], 0
    for each in ordered:
        stop = start + each.numel() * each.element_size()
        places.append((flat[start:stop].view(each.dtype).view(each.shape), each))
        start = stop
    return flat, places


def _unreached(output: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the parameters that the graph of a tensor does not lead to."""
    missing = {id(each): each for each in parameters}
    seen: set[Any] = set()
    to_see = [output.grad_fn]
    while to_see and missing:
        node: Any = to_see.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        missing.pop(id(getattr(node, "variable", None)), None)
        to_see.extend(each for each, _ in node.next_functions)
    return list(missing.values())

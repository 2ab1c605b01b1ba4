"""Batches of a party that has several processes, as its first one makes them: from the shares that each computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from heterofed import errors
from heterofed.errors import ConfigError, EmbeddingError, HeterofedError, TaskFailed
from heterofed.features.batches import RoundOrder
from heterofed.scheduler.replicas.sharing_words import (
    Backward,
    End,
    Failed,
    Forward,
    Here,
    Made,
    Pass,
    Ready,
    SharedIds,
)
from heterofed.training.replicas import Joined, Replica, is_shared, share_of
from heterofed.training.team import Team, as_limit

if TYPE_CHECKING:
    from heterofed.scheduler.base import Scheduler


class Calls(NamedTuple):
    """What `PlannedBatches` calls in the place of the user's code."""

    load: Callable[[list[str]], Any]
    model: Callable[[Any], Any]
    place: Callable[[Any], Any]


@dataclass
class Share:
    """The first process's part of a batch, loaded."""

    batch: int
    rows: int
    """Of the whole batch."""
    inputs: Any
    turn: int = 0
    """Its last forward pass; 0: none yet."""
    turn_back: int = 0
    """The last one whose gradient has come."""


class Leader:
    """The first process: it alone takes part in the task, and has the others compute with it.

    Args:
        party: this party.
        team: its processes.
    """

    def __init__(self, party: Scheduler, team: Team) -> None:
        self._party = party
        self._team = team
        self._replica: Replica | None = None
        self._modes = b""
        self._told: list[object] = []
        self._turn = 0
        self._weights_moved = True

    def meet(self, party: str, limit: timedelta) -> None:
        """Wait until all others are there and can take part.

        Args:
            party: which party of which task this is, as all of them are to say.
            limit: how long to wait.

        Raises:
            HeterofedError: what keeps one of them from it.
        """
        self._team.limit = limit
        self._team.all_present(limit)
        for rank, here in enumerate(self._reports(Here), start=1):
            if here.party != party:
                raise ConfigError(
                    f"process {rank} of {self._team.size} is {here.party}, and process 0 is {party}",
                    party=self._party.feature_key,
                    expected="one party in all processes that torchrun starts together",
                    advice="Start each party by itself, or without RANK and WORLD_SIZE in its environment.",
                )

    def part(self, end: End) -> None:
        """Let the others end, after a task that is completed."""
        self._team.say(end)
        if end.weights:
            self._at_hand.share_weights()
        self._team.leave()

    @property
    def has_begun(self) -> bool:
        """Whether the others have computed anything."""
        return self._replica is not None

    # --- a pass -------------------------------------------------------------------------------------------------------

    def pass_over(self, order: RoundOrder, *, train: bool, with_labels: bool, first: int) -> Calls:
        """Begin a pass at all processes; return what gives its batches."""
        replica, party, team = self._at_hand, self._party, self._team
        limit_s = _step_limit_s(party)
        team.limit = as_limit(limit_s)
        self._modes, self._weights_moved = replica.modes(), True
        team.say(
            Pass(
                ids=list(order.ids),
                batch_size=order.batch_size,
                first=first,
                train=train,
                with_labels=with_labels,
                round=party.trainer.current_round,
                iteration=party.trainer.iter,
                terms=party._terms,
                limit_s=limit_s,
                device=replica.device.type,
                layout=replica.layout(),
                modes=self._modes,
                shared=self._news_of_ids(),
            )
        )
        team.group_on(replica.device)
        self._reports(Ready)
        shares = _FirstShares(party, team.size, first, with_labels=with_labels)
        return Calls(shares.load, self.embed, shares.place)

    def _news_of_ids(self) -> SharedIds | None:
        party = self._party
        lists: list[object] = [party.id_intersection, *party._id_split]
        if len(lists) == len(self._told) and all(a is b for a, b in zip(lists, self._told, strict=True)):
            return None
        self._told = lists
        return SharedIds(list(party.id_intersection), *map(list, party._id_split))

    @property
    def _at_hand(self) -> Replica:
        if self._replica is None:
            self._replica = Replica(self._party.feature_model, self._team)
            if self._party.is_trainable:
                self._party.feature_optimizer.register_step_pre_hook(self._before_step)
        return self._replica

    def _before_step(self, *_: Any) -> None:
        self._at_hand.settle()

    # --- a batch ------------------------------------------------------------------------------------------------------

    def embed(self, share: Share) -> Any:
        """Return the embeddings of a whole batch, (rows, width, …), with their graph where the model learns."""
        replica, again = self._at_hand, share.turn > 0
        replica.check()
        self._turn += 1
        share.turn = self._turn
        modes, before = replica.modes(), self._modes
        learning, moved = torch.is_grad_enabled() and replica.learns, self._weights_moved
        changed = modes if modes != before else b""
        self._team.say(Forward(share.turn, share.batch, again, learning, moved, changed))
        self._modes, self._weights_moved = modes, learning
        if moved:
            replica.share_weights()
        output, unreached = replica.forward(share.inputs, share.turn if learning else None)
        if not isinstance(output, Tensor) or not output.dim():
            return output  # whoever called says that it cannot cross the cut
        if self._party._computing.mixed and output.dtype == torch.bfloat16:
            output = output.float()  # as it crosses the cut
        reports: list[Made] = self._reports(Made)
        self._check_forms(output, reports)
        others = self._others(output, share.rows)
        if not output.requires_grad:
            return output if others is None else torch.cat([output, others])
        nowhere = [each for each in unreached if all(each in made.unreached for made in reports)]
        whole: Tensor = Joined.apply(output, others, partial(self._back, share, share.turn, nowhere))
        return whole

    def _check_forms(self, own: Tensor, reports: Sequence[Made]) -> None:
        for rank, made in enumerate(reports, start=1):
            if (made.dtype, made.width) != (str(own.dtype), list(own.shape[1:])):
                raise EmbeddingError(
                    f"the feature model gave {made.dtype} of shape (rows, {made.width}) at process {rank}",
                    party=self._party.feature_key,
                    expected=f"{own.dtype} of shape (rows, {list(own.shape[1:])}), as at process 0",
                )

    def _others(self, own: Tensor, rows: int) -> Tensor | None:
        """Return the embeddings of the others' rows, on the device of our own; None: there are none."""
        team = self._team
        if not is_shared(rows, team.size):
            return None
        start = share_of(rows, 0, team.size).stop
        others = torch.empty((rows - start, *own.shape[1:]), dtype=own.dtype)
        for rank in team.others:
            theirs = share_of(rows, rank, team.size)
            team.take(others[theirs.start - start : theirs.stop - start], rank)
        return others.to(own.device)

    def _back(self, share: Share, turn: int, nowhere: Sequence[int], gradient: Tensor) -> None:
        """Give every process the gradient of its rows."""
        if share.turn_back >= turn:
            raise ConfigError(
                "the embedding of one batch was differentiated twice",
                party=self._party.feature_key,
                expected="one backward() for each batch, where a party has several processes",
                advice="Add the losses up and call backward() once.",
            )
        share.turn_back = turn
        team = self._team
        team.say(Backward(turn))
        if is_shared(share.rows, team.size):
            for rank in team.others:
                rows = gradient[share_of(share.rows, rank, team.size)]
                team.give(rows.to("cpu", copy=True).contiguous(), rank)
        self._at_hand.begin_backward(turn, nowhere)

    def _reports(self, kind: type[Any]) -> list[Any]:
        """Return one report of each of the others.

        Raises:
            HeterofedError: what one of them has failed with.
        """
        found: list[Any] = []
        for rank in self._team.others:
            report = self._team.report_of(rank, kind | Failed)
            if isinstance(report, Failed):
                self._raise(report, rank)
            found.append(report)
        return found

    def _raise(self, failed: Failed, rank: int) -> NoReturn:
        kind = getattr(errors, failed.kind, TaskFailed)
        error: HeterofedError = kind(
            f"{failed.what} (in its process {rank} of {self._team.size})",
            party=self._party.feature_key,
            expected=failed.expected,
            advice=failed.advice,
        )
        raise error if failed.public is None else error.privately(failed.public)


class _FirstShares:
    """Loads the first process's share of each batch; at a host the labels of the whole batch besides."""

    def __init__(self, party: Scheduler, size: int, first: int, *, with_labels: bool) -> None:
        self._party = party
        self._size = size
        self._next = first
        self._with_labels = with_labels
        self._rows = 0
        self._loaded: list[Any] = []

    def load(self, ids: list[str]) -> Any:
        """Return what `load_batch` gives, its inputs being those of our rows."""
        own = ids[share_of(len(ids), 0, self._size)]
        loaded = self._party.load_batch(own)
        inputs = loaded
        if self._with_labels and isinstance(loaded, tuple) and len(loaded) == 2:
            inputs = loaded[0]
            if len(own) < len(ids):
                whole = self._party.load_batch(ids)
                loaded = (inputs, whole[1]) if isinstance(whole, tuple) and len(whole) == 2 else whole
        self._rows, self._loaded = len(ids), [inputs]
        return loaded

    def place(self, value: Any) -> Any:
        """Put inputs or labels where the models are; the inputs know from then on which batch they are of."""
        placed = self._party._computing.place(value)
        if not self._loaded or value is not self._loaded[0]:
            return placed
        self._loaded.clear()  # the labels may be the same object
        batch = self._next
        self._next += 1
        return Share(batch, self._rows, placed)


def _step_limit_s(party: Any) -> float:
    """Return how long a step of this party may take, as the host has set it, in seconds; 0: no limit."""
    declared: float | None = getattr(party, "calculation_timeout", None)
    if declared is None:  # a collaborator, which waits three steps for the host
        declared = max(0.0, party._patience_s - party.schedule_timeout) / 3
    return declared

"""A process of a party besides its first one: it computes shares of batches as it is told, and says nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from heterofed.errors import ConfigError
from heterofed.features.alignment import OrderedIds
from heterofed.features.batches import RoundOrder
from heterofed.features.embedder import LocalBatch, PendingBatch
from heterofed.grads.stash import stashed_weights
from heterofed.scheduler.replicas.sharing import Calls
from heterofed.scheduler.replicas.sharing_words import Backward, End, Failed, Forward, Here, Made, Pass, Ready
from heterofed.scheduler.seat import as_failure
from heterofed.training.replicas import Replica, is_shared, share_of
from heterofed.training.team import Team, as_limit

if TYPE_CHECKING:
    from heterofed.scheduler.base import Scheduler


@dataclass(frozen=True)
class Shares(RoundOrder):
    """One process's part of each batch."""

    rank: int = 0
    size: int = 1

    def __iter__(self) -> Iterator[list[str]]:
        for ids in super().__iter__():
            yield ids[share_of(len(ids), self.rank, self.size)]

    def rows_of(self, batch: int) -> int:
        """Return the rows of a whole batch."""
        return min(self.batch_size, len(self.ids) - batch * self.batch_size)


class Follower:
    """A process besides the first.

    Args:
        party: the same party as there; its link, seat and results are not used.
        team: its processes.
    """

    def __init__(self, party: Scheduler, team: Team) -> None:
        self._party = party
        self._team = team
        self.failure: BaseException | None = None
        """What has gone wrong here; the first process was told."""
        self._replica: Replica | None = None
        self._pass: Pass | None = None
        self._order = Shares([], 1, b"-")
        self._batches: Iterator[PendingBatch] = iter(())
        self._pending: PendingBatch | None = None
        self._failed_loading: Exception | None = None
        self._turn: int | None = None
        self._unreached: list[int] = []
        self._graphs: OrderedDict[int, tuple[Tensor, int]] = OrderedDict()
        self._made: OrderedDict[int, LocalBatch] = OrderedDict()

    def start(self, party: str) -> None:
        """Check what can be checked here, and let the first process know.

        Args:
            party: which party of which task this is.
        """
        with self._failing():
            with self._party._calling("validate_context"):
                self._party.validate_context()
            _ = self._party.trainer  # which user code may ask for the round
            self._team.report(Here(party))

    def obey(self) -> End:
        """Do what the first process says, until it says that there is no more.

        Raises:
            TaskFailed: it is gone.
            Exception: a backward pass here has failed; the first process waits for its gradients.
        """
        while True:
            word: Pass | Forward | Backward | End = self._team.hear(Pass | Forward | Backward | End)
            if isinstance(word, End):
                if word.weights and self._replica is not None:
                    self._replica.share_weights()
                return word
            if isinstance(word, Backward):
                self._go_back(word)
            elif self.failure is None:
                if isinstance(word, Pass):
                    self._begin(word)
                else:
                    self._embed(word)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Report what goes wrong in the body in the place of the word that would have come from it."""
        try:
            yield
        except Exception as error:
            found = as_failure(error)
            if found is not error:
                found.__cause__ = error
            self.failure = found
            kind = type(found).__name__
            self._team.report(Failed(kind, found.what, found.expected, found.advice, found._for_peers))

    # --- a pass -------------------------------------------------------------------------------------------------------

    def _begin(self, word: Pass) -> None:
        team, party = self._team, self._party
        team.limit = as_limit(word.limit_s)
        team.group_on(torch.device(word.device))
        self._graphs.clear()
        self._made.clear()
        self._pass = word
        self._order = Shares(word.ids, word.batch_size, b"-", rank=team.rank, size=team.size)
        with self._failing():
            if word.shared is not None:
                party._intersection = OrderedIds(word.shared.all)
                party._id_split = (word.shared.train, word.shared.test)
            party._terms = word.terms
            party.trainer.storage.round, party.trainer.storage.iter = word.round, word.iteration
            self._be_alike(word)
            source = party._pass_over(self._order, train=word.train, with_labels=word.with_labels, first=word.first)
            self._batches = iter(source.pending())
            team.report(Ready())
        if self.failure is None:
            self._load(word.first)

    def _be_alike(self, word: Pass) -> None:
        if self._replica is None:
            self._replica = Replica(self._party.feature_model, self._team)
        if self._replica.layout() != word.layout:
            raise ConfigError(
                "make_feature_model() made another model than in process 0",
                expected="the same layers, shapes, dtypes and kind of device in all processes of a party",
            )
        self._replica.take_modes(word.modes)

    def pass_over(self, order: RoundOrder, *, train: bool, with_labels: bool, first: int) -> Calls:
        """Return what gives the batches of a pass: the user's own code, with the model that computes a share."""
        return Calls(self._party.load_batch, self._run_model, self._party._computing.place)

    def _run_model(self, inputs: Any) -> Any:
        output, self._unreached = self._at_hand.forward(inputs, self._turn)
        return output

    @property
    def _at_hand(self) -> Replica:
        if self._replica is None:
            raise RuntimeError("no pass has begun")
        return self._replica

    def _load(self, batch: int) -> None:
        """Load the share of a batch, if the pass has it; what goes wrong is told when its embedding is due."""
        self._pending = self._failed_loading = None
        if batch < len(self._order):
            try:
                self._pending = next(self._batches)
            except Exception as error:
                self._failed_loading = error

    # --- a batch ------------------------------------------------------------------------------------------------------

    def _embed(self, word: Forward) -> None:
        replica = self._at_hand
        if word.weights:
            replica.share_weights()
        self._turn = word.turn if word.learning else None
        with self._failing():
            if word.modes:
                replica.take_modes(word.modes)
            with torch.set_grad_enabled(word.learning), self._stashed(word):
                embedding = self._embedding_of(word)
            self._team.report(Made(word.turn, str(embedding.dtype), list(embedding.shape[1:]), self._unreached))
            rows = self._order.rows_of(word.batch)
            if is_shared(rows, self._team.size):
                self._team.give(embedding.detach().cpu().contiguous(), 0)
            if word.learning:
                self._graphs[word.turn] = (embedding, rows)
                self._forget(self._graphs)
        if self.failure is None and not word.again:
            self._load(word.batch + 1)

    def _embedding_of(self, word: Forward) -> Tensor:
        if word.again:
            again = self._made[word.batch].again
            if again is None:
                raise RuntimeError("a batch of the user's own was asked for again")
            return again()
        if self._failed_loading is not None and word.learning:
            self._at_hand.stand_in()
        if self._failed_loading is not None:
            raise self._failed_loading
        if self._pending is None:
            raise RuntimeError("a batch was asked for that is not loaded")
        local, self._pending = self._pending(), None
        if self._party._terms.local_steps > 1:
            self._made[word.batch] = local
            self._forget(self._made)
        return local.embedding

    def _stashed(self, word: Forward) -> AbstractContextManager[None]:
        """Where batches are ahead of the weights, let a graph keep those that it was made with, as a collaborator's."""
        ahead = self._party._terms.max_staleness and self._pass is not None and not self._pass.with_labels
        return stashed_weights(self._party.feature_model) if ahead and word.learning else nullcontext()

    def _forget(self, kept: OrderedDict[int, Any]) -> None:
        """Let go of what is older than any batch in flight."""
        while len(kept) > self._party._terms.max_staleness + 2:
            kept.popitem(last=False)

    def _go_back(self, word: Backward) -> None:
        embedding, rows = self._graphs.pop(word.turn)
        gradient = torch.zeros(embedding.shape, dtype=embedding.dtype)
        if is_shared(rows, self._team.size):
            self._team.take(gradient, 0)
        replica = self._at_hand
        replica.begin_backward(word.turn)
        with self._party._calling("the backward pass of the feature model"):
            torch.autograd.backward(embedding, gradient.to(embedding.device))
        replica.check()

"""What the loop with its hooks costs: rounds of split-MNIST through the trainer, beside the same rounds in a bare loop.

    python benchmarks/hooks_cost.py --rounds 12 --train 60000 --batch-size 128

Host and collaborator are processes with encrypted TCP between them. Odd rounds run as they always do, with every
default hook; even rounds run the same exchange, checks and training in a plain `for` loop without trainer, context,
hooks, measurements or progress. Both kinds alternate in one run, so a slow minute of the machine hits both.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file runs as a script from any folder

import torch

from demos.mnist_split.collaborator import DemoCollaborator
from demos.mnist_split.data import load_digits
from demos.mnist_split.host import DemoHost
from heterofed import Settings
from heterofed.frames.messages import BatchesEnd, Embedding, Gradient, Proceed
from heterofed.frames.tensors import pack
from heterofed.grads.cut_layer import device_of
from heterofed.scheduler.batches.collaborator_trainer import CollaboratorTrainer
from heterofed.scheduler.batches.gradient import gradient_of
from heterofed.scheduler.batches.host_trainer import HostTrainer
from heterofed.tasks.directory import open_directory

KEYS = ("host", "collaborator")

SECONDS: list[float] = []
"""Of each round's training at the host."""

BUSY: list[float] = []
"""Processor time of the host in them."""


def is_bare(round_: int) -> bool:
    """Whether a round runs in the bare loop."""
    return round_ % 2 == 0


class TimedHostTrainer(HostTrainer):
    """Times its rounds; the even ones in the bare loop."""

    def run_routine(self, mode: str, split: str, hooks_set: Mapping[str, Any] | None = None) -> None:
        """Train one pass and keep how long it took."""
        began, busy = time.perf_counter(), time.process_time()
        if is_bare(self.current_round):
            self._bare()
        else:
            super().run_routine(mode, split, hooks_set)
        SECONDS.append(time.perf_counter() - began)
        BUSY.append(time.process_time() - busy)

    def _bare(self) -> None:
        party, exchange, cut = self.party, self.exchange, self.cut
        device = device_of(party.infer_model)
        for model in self.models.values():
            model.train()
        source = party._pass_over(self.train_order, train=True, with_labels=True)
        exchange.begin_batch(0)
        for local in source:
            received = {peer: each.to(device) for peer, each in exchange.receive(local).items()}
            cut.watch(local.embedding)
            projection = {party.feature_key: local.embedding, **cut.open(received, exchange.learning)}
            loss = party.train_a_batch(projection, local.labels)
            cut.close()
            self.round_loss.add(loss, local.embedding.shape[0])
            exchange.begin_batch(exchange.batch + 1)
        exchange.receive_ends("training", exchange.batch)


class TimedCollaboratorTrainer(CollaboratorTrainer):
    """Follows it."""

    def run_routine(self, mode: str, split: str, hooks_set: Mapping[str, Any] | None = None) -> None:
        """Train one pass."""
        if is_bare(self.current_round):
            self._bare()
        else:
            super().run_routine(mode, split, hooks_set)

    def _bare(self) -> None:
        party = self.party
        link, host, round_ = party._linked, party._host, self.current_round
        party.feature_model.train()
        source = party._pass_over(self.train_order, train=True, with_labels=False)
        batch = 0
        for local in source:
            rows = local.embedding.shape[0]
            link.send(host, Embedding(round_, batch, rows, local.digest, pack(local.embedding)), party._room_s)
            source.prefetch()
            _, answer = link.expect((Gradient, Proceed), from_=[host], waiting_for="gradient", timeout_s=60)
            if isinstance(answer, Gradient):
                gradient = gradient_of(local.embedding, answer.values, self.terms, link, finite=True)
                party.feature_optimizer.zero_grad()
                torch.autograd.backward(local.embedding, gradient)
                party.feature_optimizer.step()
            batch += 1
        link.send(host, BatchesEnd(round_, batch), party._room_s)


class TimedHost(DemoHost):
    """Does not test: only training is timed."""

    @cached_property
    def trainer(self) -> HostTrainer:
        """The timed trainer."""
        return TimedHostTrainer(self)


class TimedCollaborator(DemoCollaborator):
    """Follows the timed host."""

    @cached_property
    def trainer(self) -> CollaboratorTrainer:
        """The trainer that follows."""
        return TimedCollaboratorTrainer(self)


def _collaborate(given: argparse.Namespace, task_id: str, out: str) -> None:
    torch.set_num_threads(given.threads)
    digits = load_digits(given.data_dir, train=given.train, test=100)
    TimedCollaborator(digits, feature_key=KEYS[1], out_dir=Path(out) / KEYS[1]).launch_task(task_id)


def main() -> None:
    """Run both kinds of rounds and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="of both kinds together; the first two are not counted")
    parser.add_argument("--train", type=int, default=60_000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1, help="torch threads of each party")
    parser.add_argument("--data-dir", help="folder above MNIST/raw; default: HETEROFED_DATA, else a download")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    digits = load_digits(given.data_dir, train=given.train, test=100)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(HETEROFED_HOME=folder, HETEROFED_PROGRESS="plain", HETEROFED_PSI_PROTOCOL="ecdh")
        task = open_directory(Settings.from_env()).store.create("hooks", KEYS)
        process = multiprocessing.get_context("spawn").Process(target=_collaborate, args=(given, task.id, folder))
        process.start()
        host = TimedHost(
            digits,
            feature_key=KEYS[0],
            max_rounds=given.rounds,
            batch_size=given.batch_size,
            out_dir=Path(folder) / KEYS[0],
        )
        host.launch_task(task.id)
        process.join(60)
    report(SECONDS[2:], BUSY[2:], given)


def report(seconds: list[float], busy: list[float], given: argparse.Namespace) -> None:
    """Print both kinds and their ratio, as pairs of neighbours; the last line is JSON."""
    hooked, bare = seconds[0::2], seconds[1::2]
    pairs = [h / b for h, b in zip(hooked, bare, strict=False)]
    ratio = statistics.median(pairs)
    cpu = statistics.median(h / b for h, b in zip(busy[0::2], busy[1::2], strict=False))
    print(f"with hooks: {min(hooked):.3f} s best, {statistics.median(hooked):.3f} s median of {len(hooked)}")
    print(f"bare loop:  {min(bare):.3f} s best, {statistics.median(bare):.3f} s median of {len(bare)}")
    print(f"ratio: {ratio:.4f} median of neighbours, {min(hooked) / min(bare):.4f} of the best, host's cpu {cpu:.4f}")
    print(
        json.dumps(
            {
                "ratio": ratio,
                "ratio_of_best": min(hooked) / min(bare),
                "cpu_ratio": cpu,
                "with_hooks_s": hooked,
                "bare_s": bare,
                "batch_size": given.batch_size,
                "rows": given.train,
            }
        )
    )


if __name__ == "__main__":
    main()

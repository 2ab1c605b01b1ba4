"""One run of the fault soup, and the process that it is done in: one after another, until one hangs."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from heterofed import Settings, run_locally
from heterofed.errors import HeterofedError
from heterofed.scheduler import line
from heterofed.wire import reliable
from heterofed.wire.faulty import FaultyTransport
from heterofed.wire.memory import MemoryHub
from heterofed.wire.transport import Transport
from tests.chaos.noting import note_errors
from tests.chaos.parties import outcome_of
from tests.chaos.stage import ready
from tests.chaos.task import COLLABORATORS, PARTIES, PlanCollaborator, PlanHost
from tests.tiny import top

FAULTS = ("drop", "delay", "duplicate", "reorder", "corrupt", "cut")
RATES = (0.01, 0.2)
DELAYS_S = (0.001, 0.01)
CUTS_S = (0.002, 0.015)

TASK_SEED = 11
ROUNDS, BATCH_SIZE, KEEP_EVERY = 2, 16, 4

FIRST_PROBE_S, MOST_PROBE_S, GONE_AFTER_S = 0.005, 0.6, 0.1
"""Instead of half a second, a minute and a second: nothing is far away here, and no cut is long."""

STEP_S = 5.0
"""No step takes so long, and no answer. The clocks of parties in one process go at a half or a third of the speed."""

THERE_WITHIN_S = 30.0
"""How long to wait for a party that has not come, or is away."""

HANGS_S = 120.0
"""A run that takes longer hangs. A collaborator waits for four steps, and run_locally half a minute for it then."""

DIES_WITHIN_S = 10.0
"""After that, if it does not end by itself."""

_forks = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Recipe:
    """A run: how many parties, and what goes wrong on their links."""

    seed: int
    parties: int
    faults: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Arguments of each party's FaultyTransport; none: the run is undisturbed."""

    @classmethod
    def of(cls, seed: int) -> Recipe:
        """Return the run of this seed."""
        dice = random.Random(seed)
        parties = dice.choice((2, 2, 3))
        faults = {
            party: {each: dice.uniform(*RATES) for each in FAULTS}
            | {"max_delay_s": dice.uniform(*DELAYS_S), "mend_after_s": dice.uniform(*CUTS_S)}
            for party in PARTIES[:parties]
        }
        return cls(seed, parties, faults)

    def ends_of(self, keys: Sequence[str]) -> dict[str, Transport]:
        """Return the parties' ends of links in memory, each behind its faults."""
        hub = MemoryHub(host=keys[0])
        ends: dict[str, Transport] = {key: hub.transport(key) for key in keys}
        for number, (key, faults) in enumerate(self.faults.items()):
            ends[key] = FaultyTransport(ends[key], seed=len(PARTIES) * self.seed + number, **faults)  # type: ignore[arg-type]  # numbers
        return ends


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    outcomes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of every party that completed: see `outcome_of`."""

    errors: Mapping[str, str] = field(default_factory=dict)
    """Of every party that raised an error."""

    trouble: str = ""
    """What must not be: an error without a name, a party that has not ended, a process that hangs."""

    faults: Mapping[str, int] = field(default_factory=dict)
    """How often each has happened."""

    seconds: float = 0.0


# --- a run ------------------------------------------------------------------------------------------------------------


class SoupHost(PlanHost):
    """Has one or two collaborators."""

    def make_infer_model(self) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.1), top(self.parties))


def cook(recipe: Recipe, folder: Path) -> Ended:
    """Run the task in this process, with every party's results in folder/<feature key>."""
    began = time.monotonic()
    settings = Settings(
        home=folder / "home", progress="off", psi_protocol="ecdh", gather_timeout_s=THERE_WITHIN_S, notice_every_s=60
    )
    common: dict[str, Any] = {"schedule_timeout": STEP_S, "data_channel_timeout": (STEP_S, STEP_S)}
    common |= {"rejoin_timeout": THERE_WITHIN_S, "settings": settings}
    plan: dict[str, Any] = {"max_rounds": ROUNDS, "batch_size": BATCH_SIZE, "checkpoint_every": KEEP_EVERY}
    plan["calculation_timeout"] = STEP_S
    host = SoupHost("host", parties=recipe.parties, out_dir=folder / "host", **plan, **common)
    others = [
        PlanCollaborator(key, party=number, out_dir=folder / key, **common)
        for number, key in enumerate(COLLABORATORS[: recipe.parties - 1], start=1)
    ]
    schedulers = {each.feature_key: each for each in (host, *others)}
    errors: dict[str, BaseException] = {}
    for each in schedulers.values():
        note_errors(each, errors)
    links: dict[str, Transport] = {}

    def ends_of(keys: Sequence[str]) -> dict[str, Transport]:
        links.update(recipe.ends_of(keys))
        return links

    trouble = ""
    try:
        with short_pauses():
            run_locally(host, *others, seed=TASK_SEED, transport=ends_of)
    except BaseException as error:
        if not errors:
            trouble = f"the run failed, but no party: {type(error).__name__}: {error}"
    if late := [each.name for each in threading.enumerate() if each.name.startswith("heterofed ")]:
        trouble = f"not ended: {', '.join(late)}"
    for party, why in errors.items():
        if not isinstance(why, HeterofedError):
            trouble = f"{party} ended with {type(why).__name__}: {why}"
    faults: Counter[str] = Counter()
    for link in links.values():
        faults.update(getattr(link, "faults", {}))
    outcomes = {} if trouble else {key: outcome_of(each) for key, each in schedulers.items() if key not in errors}
    said = {party: f"{type(why).__name__}: {why}" for party, why in errors.items()}
    return Ended(outcomes, said, trouble, faults, time.monotonic() - began)


@contextmanager
def short_pauses() -> Iterator[None]:
    """Let links be asked for what is overdue sooner than over a network."""
    with (
        patch.object(line, "FIRST_PROBE_S", FIRST_PROBE_S),
        patch.object(line, "ReliableTransport", partial(reliable.ReliableTransport, most_probe_s=MOST_PROBE_S)),
        patch.object(reliable, "GONE_AFTER_S", GONE_AFTER_S),
    ):
        yield


# --- its process ------------------------------------------------------------------------------------------------------


class Cook:
    """A process that does one run after another.

    Args:
        log: for what the parties of its last run have said.
        hangs_s: a run that takes longer hangs.
    """

    def __init__(self, log: Path, hangs_s: float = HANGS_S) -> None:
        ready()
        self.hangs_s = hangs_s
        self._log = log
        self._start()

    def cook(self, recipe: Recipe, folder: Path) -> Ended:
        """Do a run; if it hangs or is not over for a party, the process ends, and the next run gets another one."""
        began = time.monotonic()
        try:
            self._calls.send((recipe, folder, self.hangs_s))
            if self._calls.poll(self.hangs_s + DIES_WITHIN_S):
                ended: Ended = self._calls.recv()
                if ended.trouble:
                    self._start_again()  # what is left of this run would disturb the next one
                return ended
            why = "hangs, and so does the timer that should say where"
        except (EOFError, OSError):
            self._process.join(5)
            why = f"its process ended with {self._process.exitcode}: {self._last_words()}"
        self._start_again()
        return Ended(trouble=why, seconds=time.monotonic() - began)

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join(10)
        self._calls.close()

    def _start_again(self) -> None:
        self.end()
        self._start()

    def _start(self) -> None:
        self._calls, theirs = _forks.Pipe()
        self._process = _forks.Process(target=_be_cook, args=(theirs, str(self._log)), daemon=True)
        self._process.start()
        theirs.close()

    def _last_words(self) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        at = text.find("Timeout (")  # as faulthandler begins
        return text[at:] if at >= 0 else text[-2000:]


def _be_cook(calls: Connection, log: str) -> None:
    descriptor = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            recipe, folder, hangs_s = calls.recv()
            os.ftruncate(descriptor, 0)
            faulthandler.dump_traceback_later(hangs_s, exit=True, file=descriptor)
            ended = cook(recipe, folder)
            faulthandler.cancel_dump_traceback_later()
            calls.send(ended)

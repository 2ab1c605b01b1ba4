"""The kill matrix: in every phase of a task something happens to a party, and the task ends as if nothing had.

Green: every party ends well, with the bits and tables of an undisturbed run, and has not done again what was done: a
party that lived trains every batch once, one that was killed goes on from its checkpoint and matches no ids again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.report import Cell, Plan
from tests.chaos.stage import Stage, Trouble
from tests.chaos.task import BATCHES, COLLABORATORS, KEEP_EVERY, PARTIES, ROUNDS

PHASES = ("check-in", "psi", "batch", "test", "checkpoint", "closing", "dismissal")
FAULTS = ("SIGKILL", "SIGSTOP", "reset", "partition")
VICTIMS = {
    "host": ("host",),
    "collaborator": COLLABORATORS[:1],
    "second collaborator": COLLABORATORS[1:],
    "all": PARTIES,
}
SETUPS = (
    *("early stopper", "best of rounds", "last is best", "turns", "c1 frozen", "by time", "open end"),
    *("batches ahead", "batches together", "several steps", "rounded", "largest only"),
)
"""Variants in which something besides the batches has to be as it was, or batches cross in another way."""

ON_THE_WAY = ("batches ahead", "batches together")
"""Those in which several messages are on their way when a link breaks."""

KILLED_IN_SETUPS = (
    ("batch", "host"),
    ("test", "collaborator"),
    ("round end", "host"),
    ("last round end", "second collaborator"),
    ("last round end", "all"),
)
FROZEN_S, CUT_S = 15.0, 60.0
HEARD_S = 0.3
"""For a message to be heard."""

DEADLINE_S, LONG_DEADLINE_S = 90.0, 150.0

ALL_BATCHES = ROUNDS * BATCHES
RESUMES_AT = {
    "batch": (12, 9),
    "test": (15, 9),
    "checkpoint": (9, 9),
    "round end": (15, 9),
    "last round end": (24, 18),
    "closing": (24, 18),
    "dismissal": (24, 18),
}
"""After how many batches at least a party goes on that was killed in a phase, where it keeps a checkpoint every
`KEEP_EVERY`, and where it surely does after rounds only; in other phases from the start."""

ROUNDS_ONLY = ("own", "by time")
"""Variants that surely keep checkpoints after rounds only."""


@dataclass(frozen=True)
class Trial:
    """What happens to whom, and when."""

    phase: str
    party: str
    """Of VICTIMS. The stop point of "all" is the host's."""

    fault: str
    """Of FAULTS; "new address": SIGKILL, and the host is back elsewhere."""

    variant: str = "plan"
    then: str = ""
    """Killed again, where its second process is in this phase."""

    @property
    def name(self) -> str:
        """What people call it."""
        variant = "" if self.variant == "plan" else f", {called(self.variant)}"
        then = f", again in {self.then}" if self.then else ""
        return f"{self.phase}, {self.party}, {self.fault}{then}{variant}"

    @property
    def long(self) -> bool:
        """Whether it takes a minute or more."""
        return self.fault == "partition"

    @property
    def kills(self) -> tuple[str, ...]:
        """The parties whose process ends."""
        return VICTIMS[self.party] if self.fault in ("SIGKILL", "new address") else ()


def called(variant: str) -> str:
    """Return what people call a variant."""
    return f"{variant} batches" if variant in ("plan", "own", "noisy") else variant


def trials() -> list[Trial]:
    """Return all of them."""
    matrix = [
        Trial(phase, party, fault)
        for phase in PHASES
        for party in ("host", "collaborator", "second collaborator")
        for fault in (*FAULTS, *(["new address"] if party == "host" else []))
    ]
    everyone = [Trial(phase, "all", "SIGKILL") for phase in PHASES]
    own = [
        Trial("batch", "host", "SIGKILL", variant="own"),
        Trial("batch", "collaborator", "SIGKILL", variant="own"),
        Trial("checkpoint", "collaborator", "SIGKILL", variant="own"),
        Trial("test", "all", "SIGKILL", variant="own"),
        Trial("batch", "host", "reset", variant="own"),
        Trial("batch", "collaborator", "SIGSTOP", variant="own"),
    ]
    noisy = [
        Trial("batch", "collaborator", "SIGKILL", variant="noisy"),
        Trial("batch", "host", "SIGKILL", variant="noisy"),
    ]
    twice = [
        Trial("batch", "host", "SIGKILL", then="check-in"),
        Trial("batch", "collaborator", "SIGKILL", then="check-in"),
        Trial("batch", "host", "SIGKILL", then="test"),
        Trial("batch", "collaborator", "SIGKILL", then="checkpoint"),
        Trial("psi", "collaborator", "SIGKILL", then="psi"),
    ]
    setups = [Trial(phase, party, "SIGKILL", variant) for variant in SETUPS for phase, party in KILLED_IN_SETUPS]
    setups += [Trial("batch", party, "reset", variant) for variant in ON_THE_WAY for party in ("host", "collaborator")]
    return [*matrix, *everyone, *own, *noisy, *twice, *setups]


def undisturbed(folder: Path, variant: str) -> dict[str, dict[str, Any]]:
    """Return the outcomes of all parties of a run to which nothing happens.

    Raises:
        Trouble: it did not end well.
    """
    with Stage(folder, variant=variant) as stage:
        for each in PARTIES:
            stage.start(each)
        return stage.finish()


def run_trial(trial: Trial, folder: Path, expected: Mapping[str, Mapping[str, Any]]) -> Cell:
    """Do it, and compare how it ends with how an undisturbed run does."""
    began = time.monotonic()
    try:
        note = ""
        with Stage(folder, variant=trial.variant, deadline_s=LONG_DEADLINE_S if trial.long else DEADLINE_S) as stage:
            _play(trial, stage)
            trouble = compare(trial, stage.finish(), expected)
    except Trouble as error:
        trouble = str(error)
    if trouble:
        note = f"{trouble}\nwhat is left: {folder}"
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return Cell("kill", trial.name, not trouble, time.monotonic() - began, note)


def _play(trial: Trial, stage: Stage) -> None:
    victim = VICTIMS[trial.party][0]
    # What happens to a collaborator that checks in happens while the host still waits for another one.
    other = tuple(each for each in COLLABORATORS if each != victim)
    late = other if trial.phase == "check-in" and victim in COLLABORATORS else ()
    flags = {
        each: stage.start(each, stop=trial.phase if each == victim else None) for each in PARTIES if each not in late
    }
    flag = flags[victim]
    stage.wait_for(flag, victim)
    if late:
        time.sleep(HEARD_S)
    for each in late:
        stage.start(each)
    if trial.kills:
        _kill(trial, stage)
    elif trial.fault == "SIGSTOP":
        flag.go()
        stage.freeze(victim, FROZEN_S)
    elif trial.fault == "reset":
        for proxy in stage.proxies(victim):
            proxy.reset()
        flag.go()
    elif trial.fault == "partition":
        for proxy in stage.proxies(victim):
            proxy.cut(CUT_S)
        flag.go()


def _kill(trial: Trial, stage: Stage) -> None:
    stage.kill(*trial.kills)
    if trial.fault == "new address":
        stage.move(some_are_done=trial.phase == "dismissal")
    if trial.then:
        for each in trial.kills:
            flag = stage.start(each, recover=True, stop=trial.then)
            stage.wait_for(flag, each)
        stage.kill(*trial.kills)
    for each in trial.kills:
        stage.start(each, recover=True)


def compare(trial: Trial, found: Mapping[str, Mapping[str, Any]], expected: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what is not as it must be; nothing if all is."""
    lines = [f"{party} {each}" for party in PARTIES for each in differences(found[party], expected[party])]
    resumes_at = RESUMES_AT.get(trial.phase, (0, 0))[trial.variant in ROUNDS_ONLY]
    for party in PARTIES:
        trained, parts = found[party]["trained"], found[party]["psi_parts"]
        if not trial.kills:
            if trained != ALL_BATCHES:
                lines.append(f"{party} trained {trained} batches, not {ALL_BATCHES}")
        elif party in trial.kills:
            if trained > ALL_BATCHES - resumes_at:
                lines.append(f"{party} trained {trained} batches again, not {ALL_BATCHES - resumes_at} or fewer")
            if resumes_at and parts:
                lines.append(f"{party} matched ids again")
        elif resumes_at and trained > ALL_BATCHES + _most_again(trial):
            lines.append(f"{party}, which lived, trained {trained} batches of {ALL_BATCHES}")
    return "\n".join(lines)


def _most_again(trial: Trial) -> int:
    """Return how many batches a party that lived may have trained again: back to a checkpoint, for each kill."""
    between_two = BATCHES if trial.variant in ROUNDS_ONLY else KEEP_EVERY
    return (between_two + 1) * (2 if trial.then else 1)


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return in what a party's outcome is not that of an undisturbed run."""
    lines = []
    for what in ("parameters", "written"):
        if found[what] != expected[what]:
            lines.append(f"has other {what}")
    best, wanted = found.get("best", {}), expected.get("best", {})
    if best != wanted:
        parts = sorted(each for each in {*best, *wanted} if best.get(each) != wanted.get(each))
        lines.append(f"has another model_best: {', '.join(parts)}")
    for name in sorted({*found["tables"], *expected["tables"]}):
        got, want = found["tables"].get(name, ""), expected["tables"].get(name, "")
        if got != want:
            rows = f"{len(got.splitlines())} lines for {len(want.splitlines())}"
            lines.append(f"has another {name}: {rows}, {_first_difference(got.splitlines(), want.splitlines())}")
    if found["metrics.json"] != expected["metrics.json"]:
        where = _first_difference(found["metrics.json"], expected["metrics.json"])
        lines.append(f"has another metrics.json: {where}")
    return lines


def _first_difference(got: Sequence[Any], want: Sequence[Any]) -> str:
    for number, (left, right) in enumerate(zip(got, want, strict=False), start=1):
        if left != right:
            return f"line {number} is {left} where it should be {right}"
    return "the one ends before the other"


def cells(plan: Plan) -> Iterator[Cell]:
    """Yield a cell for the undisturbed run of each variant, then one for each trial."""
    folder = plan.folder / "kill"
    chosen = [each for each in trials() if each.name == plan.cell] if plan.cell else _share_of(plan)
    variants = [
        variant
        for variant in dict.fromkeys(each.variant for each in trials())
        if any(each.variant == variant for each in chosen) or plan.cell == f"undisturbed, {called(variant)}"
    ]
    expected: dict[str, dict[str, dict[str, Any]]] = {}
    with ThreadPoolExecutor(plan.jobs) as pool:
        yield from pool.map(lambda variant: _undisturbed_twice(folder, variant, expected), variants)
        # What takes longest first, so that nothing is waited for alone in the end.
        chosen = sorted((each for each in chosen if each.variant in expected), key=lambda each: not each.long)
        running = [
            pool.submit(run_trial, each, folder / f"{number:03d}", expected[each.variant])
            for number, each in enumerate(chosen)
        ]
        for each in as_completed(running):
            yield each.result()


def _share_of(plan: Plan) -> list[Trial]:
    return plan.spread(trials(), lambda each: (each.fault, bool(each.then), each.variant))


def _undisturbed_twice(folder: Path, variant: str, expected: dict[str, dict[str, dict[str, Any]]]) -> Cell:
    began = time.monotonic()
    name = f"undisturbed, {called(variant)}"
    try:
        first = undisturbed(folder / f"undisturbed-{variant}-1", variant)
        second = undisturbed(folder / f"undisturbed-{variant}-2", variant)
    except Trouble as error:
        return Cell("kill", name, False, time.monotonic() - began, str(error))
    note = "\n".join(f"{party} {each}" for party in PARTIES for each in differences(second[party], first[party]))
    if any(each["trained"] != ALL_BATCHES for each in first.values()):
        note += "\nnot every party trained every batch once"
    if not all(each["psi_parts"] for each in first.values()):
        note += "\nnot every party was seen to match ids"
    expected[variant] = first
    return Cell("kill", name, not note, time.monotonic() - began, note)

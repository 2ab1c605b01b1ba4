"""A task in words: what its state means, whom it waits for, and what somebody can do now."""

from __future__ import annotations

from datetime import datetime

from heterofed.tasks.model import Party, PartyStatus, Task, TaskStatus

TASK_TONES = {
    TaskStatus.CREATED: "",
    TaskStatus.VERIFYING: "info",
    TaskStatus.VERIFIED: "info",
    TaskStatus.GATHERING: "info",
    TaskStatus.ALIGNING: "info",
    TaskStatus.ONGOING: "info",
    TaskStatus.TESTING: "info",
    TaskStatus.COMPLETED: "good",
    TaskStatus.FAILED: "bad",
    TaskStatus.CANCELLED: "warn",
}
PARTY_TONES = {
    PartyStatus.INVITED: "",
    PartyStatus.VERIFIED: "info",
    PartyStatus.REJECTED: "bad",
    PartyStatus.ONLINE: "info",
    PartyStatus.FINISHED: "good",
    PartyStatus.FAILED: "bad",
}
BEFORE = (TaskStatus.CREATED, TaskStatus.VERIFYING, TaskStatus.VERIFIED)
RUNNING = (TaskStatus.GATHERING, TaskStatus.ALIGNING, TaskStatus.ONGOING, TaskStatus.TESTING)
OVER = (TaskStatus.COMPLETED, TaskStatus.CANCELLED)


def chip(status: TaskStatus | PartyStatus) -> dict[str, str]:
    """Return a state as a chip: its word and its tone."""
    tone = TASK_TONES[status] if isinstance(status, TaskStatus) else PARTY_TONES[status]
    return {"text": status.value.capitalize(), "tone": tone}


def missing(task: Task) -> tuple[str, ...]:
    """Return the parties that the task waits for, in its order."""
    if task.status in BEFORE:
        return tuple(each.feature_key for each in task.parties if each.status is not PartyStatus.VERIFIED)
    if task.status is TaskStatus.GATHERING:
        return tuple(each.feature_key for each in task.parties if each.status is not PartyStatus.ONLINE)
    return ()


def listed(names: tuple[str, ...]) -> str:
    """Return names as people list them."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def rounds_done(task: Task) -> str:
    """Return how many rounds are finished, of how many."""
    if task.rounds is not None:
        return f"Round {min(task.round, task.rounds)} of {task.rounds}"
    return f"Round {task.round}" if task.round else ""


def part_done(task: Task) -> float | None:
    """Return which part of the rounds is finished, 0 to 1; None where nobody said how many there are."""
    return min(1.0, task.round / task.rounds) if task.rounds else None


def duration(seconds: float) -> str:
    """Return how long something takes, roughly."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def size(number: int) -> str:
    """Return a number of bytes as people read it."""
    if number < 1000:
        return f"{number} B"
    for unit in ("kB", "MB", "GB"):
        shown = number / 1000 ** ("kB", "MB", "GB").index(unit) / 1000
        if shown < 1000 or unit == "GB":
            return f"{shown:.1f} {unit}"
    raise AssertionError("unreachable")


def situation(task: Task, *, time_left_s: float | None = None, launched: bool = False) -> str:
    """Return where the task is and what can be done now, in a sentence or two.

    Args:
        task: as it is now.
        time_left_s: an estimate for the rounds to come.
        launched: whether somebody pressed launch since it last ended.
    """
    rejected = [each for each in task.parties if each.status is PartyStatus.REJECTED]
    if task.status not in RUNNING and task.status not in OVER and (why := task.why_over()):
        return f"This task {why}; nobody new comes in. Create a new one."
    if rejected and task.status in BEFORE:
        return " ".join(_refusal(each) for each in rejected)
    waiting = missing(task)
    if task.status in BEFORE:
        if launched:
            return "Launched: every agent that listens is told to start its party. Waiting for the host to come up."
        if not waiting:
            return "Every party's data is checked. Launch the task when all are ready."
        return f"Waiting for {listed(waiting)} to check the data. The check is optional: it can be launched without."
    if task.status is TaskStatus.GATHERING:
        return (
            f"Waiting for {listed(waiting)} to come in: start the party there, or its agent."
            if waiting
            else "Everybody is in."
        )
    if task.status is TaskStatus.ALIGNING:
        return "The parties find the samples that all of them hold."
    if task.status in (TaskStatus.ONGOING, TaskStatus.TESTING):
        return _course(task, time_left_s)
    if task.status is TaskStatus.COMPLETED:
        return "All rounds are done. The tables and files are below."
    if task.status is TaskStatus.FAILED:
        return f"{_sentence(task.reason, 'A party gave up.')} Once the cause is mended it can be launched again."
    return _sentence(task.reason, "Somebody stopped it.") + " A cancelled task stays so; create a new one."


def _refusal(party: Party) -> str:
    why = _sentence(party.reason, "it gave no reason.")
    return f"The data check at {party.feature_key} said no: {why} Mend the data there and run the check again."


def _course(task: Task, time_left_s: float | None) -> str:
    now = task.round + (task.status is TaskStatus.ONGOING)
    what = "Training" if task.status is TaskStatus.ONGOING else "Testing the model of"
    if task.rounds is None:
        return f"{what} round {max(1, now)}."
    left = f", about {duration(time_left_s)} left" if time_left_s is not None else ""
    return f"{what} round {min(max(1, now), task.rounds)} of {task.rounds}{left}."


def _sentence(text: str | None, otherwise: str) -> str:
    """Return a reason as a sentence."""
    text = (text or "").strip() or otherwise
    return text if text.endswith((".", "!", "?")) else text + "."


def party_now(task: Task, party: Party) -> str:
    """Return what a party is doing, waits for, or what went wrong there."""
    if party.reason and party.status in (PartyStatus.REJECTED, PartyStatus.FAILED):
        return party.reason
    others = tuple(each for each in missing(task) if each != party.feature_key)
    if party.feature_key in missing(task):
        return "its data is not checked yet" if task.status in BEFORE else "is awaited"
    if task.status is TaskStatus.GATHERING and others:
        return f"waits for {listed(others)}"
    if task.status in RUNNING and party.status is PartyStatus.ONLINE:
        return {TaskStatus.ALIGNING: "matches ids", TaskStatus.TESTING: "tests"}.get(task.status, "trains")
    return party.reason or ""


def iso(at: datetime | None) -> str | None:
    """Return a time for the browser, which shows it in its own zone."""
    return at.isoformat() if at is not None else None

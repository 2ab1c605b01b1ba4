"""What is done to the parties of a task, one mishap after the other; each leaves all of them running, to the end."""

from __future__ import annotations

import random
import shutil
import signal
import struct
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.chaos.stage import Stage, Trouble
from tests.chaos.stops import Flag
from tests.chaos.task import COLLABORATORS, PARTIES

Deed = Callable[[Stage], str | None]
"""Returns a figure worth reading, or nothing.

Raises:
    Trouble: something is not as it must be.
"""

ENDS_WITHIN_S = 5.0
"""How soon every party has to end when one gives up."""

PATIENCE_S = 8
"""For how long the parties wait for each other where somebody stays away for good."""

HEARD_S = 1.0


def start_all(stage: Stage, stops: Mapping[str, str] | None = None, *, recover: bool = False) -> dict[str, Flag]:
    """Start all parties, some with stop points; return their flags."""
    return {each: stage.start(each, stop=(stops or {}).get(each), recover=recover) for each in PARTIES}


def kill_at(stage: Stage, party: str, point: str) -> None:
    """Start all parties and kill one of them at a stop point."""
    flags = start_all(stage, {party: point})
    stage.wait_for(flags[party], party)
    stage.kill(party)


# --- two are killed ---------------------------------------------------------------------------------------------------


def killed_twice_over(first: str, then: str, point: str, later: str) -> Deed:
    """One is killed and comes back; another one is killed later."""

    def play(stage: Stage) -> None:
        flags = start_all(stage, {first: point, then: later})
        for each in (first, then):
            stage.wait_for(flags[each], each)
            stage.kill(each)
            stage.start(each, recover=True)

    return play


def killed_while_gathering(first: str, second: str, point: str) -> Deed:
    """One is killed; while all gather because of that, another one is."""
    return killed_twice_over(first, second, point, "check-in again")


# --- checkpoints ------------------------------------------------------------------------------------------------------


def ahead(those: Sequence[str], killed: Sequence[str]) -> Deed:
    """Some have written a checkpoint, the others have not; then some of them are killed."""

    def play(stage: Stage) -> None:
        flags = start_all(stage, {each: f"{'after' if each in those else 'before'} keeping 12" for each in PARTIES})
        for party, flag in flags.items():
            stage.wait_for(flag, party)
        stage.kill(*killed)
        for party, flag in flags.items():
            if party not in killed:
                flag.go()
        for each in killed:
            stage.start(each, recover=True)

    return play


def never_the_first(party: str) -> Deed:
    """A party is killed twice when all others have written their first checkpoint, and it has not."""

    def play(stage: Stage) -> None:
        flag = start_all(stage, {party: "before keeping 3"})[party]
        for _ in range(2):
            stage.wait_for(flag, party)
            time.sleep(HEARD_S)  # for the others to write theirs
            stage.kill(party)
            flag = stage.start(party, recover=True, stop="before keeping 3")
        flag.go()

    return play


def damaged(party: str, how: str, killed: str) -> Deed:
    """A party is killed, and the newest checkpoint of one, the same or another, cannot be used."""

    def play(stage: Stage) -> None:
        kill_at(stage, killed, "batch")
        newest = stage.folder / party / "checkpoints" / "model_0000011"
        _damage(newest, newest / "optimizer.pt", how)
        stage.start(killed, recover=True)
        if how != "gone":
            stage.hear(party, "cannot be used")

    return play


def _damage(newest: Path, file: Path, how: str) -> None:
    data = file.read_bytes()
    if how == "torn":
        file.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        at = _in_largest_member(file)
        file.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "without a file":
        file.unlink()
    else:
        shutil.rmtree(newest)


def _in_largest_member(file: Path) -> int:
    """Return where a byte of a zip file is that is neither of its headers nor of what fills it up."""
    with zipfile.ZipFile(file) as archive:
        largest = max(archive.infolist(), key=lambda each: each.file_size)
    with file.open("rb") as opened:
        opened.seek(largest.header_offset + 26)
        name_size, extra_size = struct.unpack("<HH", opened.read(4))
    return int(largest.header_offset + 30 + name_size + extra_size + largest.file_size // 2)


# --- chance -----------------------------------------------------------------------------------------------------------


def by_chance(seed: int) -> Deed:
    """Parties are killed and links reset, at any time."""

    def play(stage: Stage) -> None:
        dice = random.Random(seed)
        start_all(stage)
        for _ in range(dice.randint(3, 8)):
            time.sleep(dice.choice([0.1, 0.5, 1.5]) * dice.random())
            if dice.random() < 0.25:
                for proxy in stage.proxies(dice.choice(COLLABORATORS)):
                    proxy.reset()
                continue
            victims = [each for each in dice.sample(PARTIES, dice.choice([1, 1, 1, 2, 2, 3])) if stage.runs(each)]
            stage.kill(*victims)
            for each in victims:
                time.sleep(dice.choice([0.0, 0.0, 0.5]) * dice.random())
                stage.start(each, recover=True)

    return play


# --- people -----------------------------------------------------------------------------------------------------------


def without_recover(party: str) -> Deed:
    """A collaborator is started again without recover=True: it is turned away, and joins when it is started right."""

    def play(stage: Stage) -> None:
        kill_at(stage, party, "batch")
        stage.start(party)
        _is_turned_away(stage, party, "recover=True")
        stage.start(party, recover=True)

    return play


def folder_wiped(party: str) -> Deed:
    """A collaborator's results folder is gone: it is turned away, and joins when the folder is restored."""

    def play(stage: Stage) -> None:
        kill_at(stage, party, "batch")
        here, away = stage.folder / party, stage.folder / f"{party}-away"
        here.rename(away)
        stage.start(party, recover=True)
        _is_turned_away(stage, party, "Restore its results folder")
        shutil.rmtree(here)
        away.rename(here)
        stage.start(party, recover=True)

    return play


def _is_turned_away(stage: Stage, party: str, advice: str) -> None:
    code = stage.end_of(party, 30)
    if code != 1 or any(each not in stage.words(party) for each in ("turned this party away", advice)):
        raise Trouble(f"{party} was not turned away with a word of {advice!r}\n{stage.last_words(party)}")
    time.sleep(HEARD_S)
    gone = [each for each in PARTIES if each != party and not stage.runs(each)]
    if gone:
        raise Trouble(f"{', '.join(gone)} did not go on waiting for {party}\n{stage.last_words(*gone)}")


def host_without(what: str) -> Deed:
    """The host is started again without recover=True, or without its folder: all end and know why, and lose nothing."""

    def play(stage: Stage) -> None:
        kill_at(stage, "host", "batch")
        here, away = stage.folder / "host", stage.folder / "host-away"
        if what == "its folder":
            here.rename(away)
        stage.start("host", recover=what != "recover")
        for each in PARTIES:
            code = stage.end_of(each, 30)
            if code != 1 or "no checkpoint in common: host can go on from the start" not in stage.words(each):
                raise Trouble(f"{each} ended with {code} without a word of why\n{stage.last_words(each)}")
        if what == "its folder":
            shutil.rmtree(here)
            away.rename(here)
        start_all(stage, recover=True)

    return play


def told_to_end_while_waiting(party: str, awaited: str) -> Deed:
    """A party gets SIGTERM while all wait for another one that was killed."""

    def play(stage: Stage) -> None:
        kill_at(stage, awaited, "batch")
        stage.hear(party, f"{awaited} is away" if party != "host" else f"the link of {awaited} is down")
        stage.interrupt(party, signal.SIGTERM)
        all_end(stage, party, [each for each in PARTIES if each != awaited])
        start_all(stage, recover=True)

    return play


def told_to_end(party: str, how: signal.Signals, point: str) -> Deed:
    """A party gets SIGTERM or Ctrl-C: all end with its name, and go on when all are started again."""

    def play(stage: Stage) -> None:
        flags = start_all(stage, {party: point})
        stage.wait_for(flags[party], party)
        stage.interrupt(party, how)
        flags[party].go()
        all_end(stage, party, PARTIES)
        start_all(stage, recover=True)

    return play


def all_end(stage: Stage, party: str, those: Sequence[str], *, why: str = "", began: float | None = None) -> None:
    """Wait until all of these have ended because of a party, and said so.

    Args:
        stage: where.
        party: who gave up.
        those: who has to end, that one among them.
        why: a word of its reason that all have to say.
        began: when it gave up; by default now.

    Raises:
        Trouble: one has not within `ENDS_WITHIN_S`, or not so.
    """
    until = (time.monotonic() if began is None else began) + ENDS_WITHIN_S
    for each in those:
        code = stage.end_of(each, until - time.monotonic())
        told = why in stage.words(each) and (each == party or f"TaskAborted: {party}" in stage.words(each))
        if code == 0 or not told:
            raise Trouble(f"{each} ended with {code} without a word of {party}\n{stage.last_words(*PARTIES)}")


def stays_away(party: str, point: str) -> Deed:
    """A party is killed and not started again: the others give up with its name; all go on when all are there."""

    def play(stage: Stage) -> None:
        kill_at(stage, party, point)
        _give_up_on(stage, party)
        start_all(stage, recover=True)

    return play


def not_all_come_back(party: str, point: str) -> Deed:
    """All are killed and all but one started again: they give up with its name; all go on when all are there."""

    def play(stage: Stage) -> None:
        flags = start_all(stage, {"host": point})
        stage.wait_for(flags["host"], "host")
        stage.kill(*PARTIES)
        for each in PARTIES:
            if each != party:
                stage.start(each, recover=True)
        _give_up_on(stage, party)
        start_all(stage, recover=True)

    return play


def _give_up_on(stage: Stage, party: str) -> None:
    until = time.monotonic() + 2 * PATIENCE_S + 15
    for each in PARTIES:
        if each == party:
            continue
        code = stage.end_of(each, until - time.monotonic())
        if code != 1 or party not in _last_line(stage.words(each)):
            raise Trouble(f"{each} ended with {code} without a word of {party}\n{stage.last_words(each)}")


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]

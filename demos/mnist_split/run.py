"""The whole split-MNIST task on one machine: creates the task, runs every party as a process of its own, compares.

`make demo` and `heterofed demo mnist` come here.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that this file runs as a script from any folder

from demos.mnist_split.command_line import parse
from demos.mnist_split.data import SMALL_SET, Digits, load_digits, sample_ids
from demos.mnist_split.options import rows_of, split_by_name
from demos.mnist_split.unsplit import train_one_half, train_unsplit
from heterofed import HeterofedError, Settings
from heterofed.features.batches import round_seed, shuffled
from heterofed.metrics.progress import clock
from heterofed.scheduler.plainly import plain_lines
from heterofed.tasks.directory import open_directory
from heterofed.training.threads import threads_each

STOP_S = 10.0
"""How long a party may take to end by itself once another has failed or the user has pressed Ctrl-C."""

MOST_STARTS = 4
"""How often a party is started, the first time and after it was killed."""

PLAIN_EVERY_S = 2.0
"""How often --plain shows a party's progress."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    given = parse(arguments)
    console = Console(highlight=False, soft_wrap=True)
    try:
        return _run(given, console)
    except HeterofedError as error:
        console.print("\n".join(plain_lines(error)), markup=False)
        return 1
    except KeyboardInterrupt:
        console.print(
            "interrupted; every party has stopped. The same command with --recover goes on where all of them were"
        )
        return 130


def _run(given: argparse.Namespace, console: Console) -> int:
    if given.threads is None:
        given.threads = _default_threads(given)
    torch.set_num_threads(given.threads)
    digits = load_digits(given.data_dir, train=given.train, test=given.test)
    console.print(f"{digits.source}: {len(digits.train_labels)} to train on, {len(digits.test_labels)} to test on")
    if given.batch_size is None:
        given.batch_size = 4 if digits.data_dir == SMALL_SET else 16  # few pictures: more steps of them
    keys = _feature_keys(given.parties)
    task = open_directory(Settings.from_env()).store.create("split-mnist", keys)
    console.print(f"task {task.id}: {', '.join(keys)}, a process each, over encrypted TCP")
    began = time.monotonic()
    parties = {key: _start(given, digits, task.id, part, key) for part, key in enumerate(keys)}

    def start_again(key: str) -> None:
        parties[key] = _start(given, digits, task.id, keys.index(key), key, recover=True)

    try:
        codes = _watch(parties, start_again, console, plain=given.plain or not console.is_terminal)
    finally:
        _stop(list(parties.values()))
    if any(codes.values()):
        failed = ", ".join(f"{key} ({code})" for key, code in codes.items() if code)
        console.print(f"the task failed; exit codes: {failed}. The messages above say why.")
        return 1
    console.print(f"federated run: {given.rounds} rounds in {clock(time.monotonic() - began)}")
    return _compare(given, digits, keys, console)


def _default_threads(given: argparse.Namespace) -> int:
    return Settings.from_env().threads or (1 if given.verify_exact else threads_each(given.parties))


def _feature_keys(parties: int) -> list[str]:
    if parties == 2:
        return ["demo_host", "demo_collaborator"]
    return ["demo_host", *(f"demo_collaborator_{part}" for part in range(1, parties))]


# --- the parties' processes -----------------------------------------------------------------------------------------


class _Party:
    """A running party: its process, and the lines it writes."""

    def __init__(self, key: str, process: subprocess.Popen[str], lines: queue.Queue[tuple[str, str | None]]) -> None:
        self.key = key
        self.process = process
        self.starts = 1
        """How often it was started."""
        self._lines = lines
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        if self.process.stdout is not None:
            for line in self.process.stdout:
                self._lines.put((self.key, line.rstrip("\n")))
        self._lines.put((self.key, None))


_LINES: queue.Queue[tuple[str, str | None]] = queue.Queue()


def _start(
    given: argparse.Namespace, digits: Digits, task_id: str, part: int, key: str, *, recover: bool = False
) -> _Party:
    script = HERE / ("collaborator.py" if part else "host.py")
    command = [sys.executable, str(script), "--task-id", task_id, "--feature-key", key, "--out", str(given.out / key)]
    command += ["--parties", str(given.parties), "--seed", str(given.seed), "--threads", str(given.threads)]
    command += ["--train", str(given.train), "--test", str(given.test), "--data-dir", digits.data_dir]
    if part:
        command += ["--part", str(part)]
    else:
        command += ["--rounds", str(given.rounds), "--batch-size", str(given.batch_size)]
    if not given.dropout:
        command.append("--no-dropout")
    if given.recover or recover:
        command.append("--recover")
    own = {"HETEROFED_PLUGINS": given.plugin, "HETEROFED_HOOKS": given.hook}
    process = subprocess.Popen(  # noqa: S603 - our own scripts, run by the interpreter that runs this one
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            **{name: ",".join(values) for name, values in own.items() if values},
            "HETEROFED_PROGRESS": "json",
            "PYTHONUNBUFFERED": "1",
        },
    )
    return _Party(key, process, _LINES)


def _watch(
    parties: Mapping[str, _Party], start_again: Callable[[str], None], console: Console, *, plain: bool
) -> dict[str, int]:
    """Show what the parties say until all have ended; return their exit codes.

    A party that was killed, not one that failed, is started again: the others wait for it.
    """
    shown = _Plain(console) if plain else _Table(console, list(parties))
    speaking = set(parties)
    deadline: float | None = None
    with shown:
        while speaking:
            try:
                key, line = _LINES.get(timeout=0.2)
            except queue.Empty:
                line, key = "", ""
            if line is None:
                _code(parties[key])  # it says no more: it has ended, or is about to
            if line is None and _was_killed(parties[key]):
                starts = parties[key].starts + 1
                start_again(key)
                parties[key].starts = starts
                shown.take(key, "was killed; started again with --recover")
            elif line is None:
                speaking.discard(key)
            elif line:
                shown.take(key, line)
            failed = any(each.process.poll() not in (None, 0) and not _was_killed(each) for each in parties.values())
            if failed and deadline is None:
                deadline = time.monotonic() + STOP_S
            if deadline is not None and time.monotonic() > deadline:
                break
    return {key: _code(party) for key, party in parties.items()}


def _was_killed(party: _Party) -> bool:
    """Whether a signal has ended a party, and it may be started again."""
    code = party.process.poll()
    return code is not None and code < 0 and party.starts < MOST_STARTS


def _code(party: _Party) -> int:
    try:
        return party.process.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        party.process.kill()
        return party.process.wait()


def _stop(parties: Sequence[_Party]) -> None:
    """End whatever still runs: ask, then insist."""
    running = [party.process for party in parties if party.process.poll() is None]
    for process in running:
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + STOP_S
    for process in running:
        try:
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# --- what is shown --------------------------------------------------------------------------------------------------


class _Plain:
    """Lines with the party's name before them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next: dict[str, float] = {}
        self._last: dict[str, tuple[object, ...]] = {}

    def __enter__(self) -> _Plain:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None

    def take(self, key: str, line: str) -> None:
        """Show a line, unless it is progress and the last one was just now."""
        event = _parsed(line)
        kind = event.get("kind")
        if kind not in ("progress", "matching"):
            self._say(key, str(event["text"]))
            return
        text = _progress_line(event)
        place = (event.get("phase"), event.get("round"), event.get("batch"), event.get("done"))
        # The end of a round is worth a line at any time; what lies between, now and then.
        at_end = kind == "progress" and event["phase"] == "training" and event["rows"] == event["rows_total"]
        if place == self._last.get(key) or (not at_end and time.monotonic() < self._next.get(key, 0.0)):
            return
        self._last[key] = place
        self._next[key] = time.monotonic() + PLAIN_EVERY_S
        self._say(key, text)

    def _say(self, key: str, text: str) -> None:
        self._console.print(f"[{key}] {text}", markup=False)


class _Table:
    """A live row for each party, and what they say above it."""

    def __init__(self, console: Console, keys: Sequence[str]) -> None:
        self._console = console
        self._rows: dict[str, dict[str, Any]] = {key: {"phase": "starting"} for key in keys}
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self._draw)

    def __enter__(self) -> _Table:
        self._live.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._live.__exit__(*exc_info)

    def take(self, key: str, line: str) -> None:
        """Move the party's row, or show the line above the table."""
        event = _parsed(line)
        if event.get("kind") == "progress":
            self._rows[key] = event
        elif event.get("kind") == "matching":
            self._rows[key] = {
                "phase": "matching ids",
                "rows": event["done"],
                "rows_total": event["total"],
                "left_s": event["left_s"],
            }
        else:
            self._console.print(f"[{key}] {event['text']}", markup=False)

    def _draw(self) -> Table:
        table = Table(expand=False)
        for name in ("party", "phase", "round", "batch", "done", "loss", "rows/s", "time left"):
            table.add_column(name, justify="left" if name in ("party", "phase") else "right", no_wrap=True)
        for key, now in self._rows.items():
            total = now.get("rows_total") or 0
            loss, left = now.get("loss"), now.get("left_s")
            table.add_row(
                key,
                str(now["phase"]),
                f"{now['round']}/{now['rounds']}" if now.get("round") else "",
                str(now["batch"]) if now.get("round") else "",
                f"{100 * now['rows'] / total:.0f} %" if total else "",
                "" if loss is None else f"{loss:.4f}",
                f"{now['rows_per_s']:.0f}" if now.get("rows_per_s") else "",
                "" if left is None else clock(left),
            )
        return table


def _parsed(line: str) -> dict[str, Any]:
    """Return a party's line as an event; what is no JSON object (a traceback, say) becomes text."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) and "kind" in event else {"kind": "text", "text": line}


def _progress_line(event: dict[str, Any]) -> str:
    if event["kind"] == "matching":
        left = "" if event["left_s"] is None else f", {clock(event['left_s'])} left"
        return f"matching ids: {event['done']} of {event['total']} elements{left}"
    if event["phase"] != "training":
        return str(event["phase"])
    loss = "" if event["loss"] is None else f", loss {event['loss']:.4f}"
    left = "" if event["left_s"] is None else f", {clock(event['left_s'])} left"
    return (
        f"round {event['round']}/{event['rounds']}, batch {event['batch']}, "
        f"{event['rows']}/{event['rows_total']} rows{loss}, {event['rows_per_s']:.0f} rows/s{left}"
    )


# --- the comparison -------------------------------------------------------------------------------------------------


def _compare(given: argparse.Namespace, digits: Digits, keys: Sequence[str], console: Console) -> int:
    """Train the host's half alone, and the unsplit network if asked, and show them beside the joint result."""
    train_ids, _ = split_by_name(sorted(sample_ids(digits)))

    def order(number: int) -> list[int]:
        return rows_of(shuffled(train_ids, round_seed(given.seed, number)), digits)

    shape = {"rounds": given.rounds, "batch_size": given.batch_size, "seed": given.seed, "parties": given.parties}
    joint = _last_accuracy(given.out / keys[0] / "test_results.csv")
    console.print("training the host's stripe alone, for comparison")
    alone = train_one_half(digits, **shape, dropout=given.dropout, shuffle_order=order).accuracies[-1]
    console.print(f"\n  test accuracy, all parties together  {100 * joint:6.2f} %")
    console.print(f"  test accuracy, the host's part alone {100 * alone:6.2f} %")
    exact = True
    if given.verify_exact:
        unsplit = train_unsplit(digits, **shape, dropout=given.dropout, shuffle_order=order)
        console.print(f"  test accuracy, the unsplit network   {100 * unsplit.accuracies[-1]:6.2f} %")
        exact, count = _same_bits(given.out, keys, unsplit)
        said = "bit-identical to" if exact else "NOT bit-identical to"
        console.print(f"  exact: {count} weights of {len(keys)} parties are {said} the unsplit network's")
    console.print("\noutputs:")
    for key in keys:
        console.print(
            f"  {given.out / key}/  " + ", ".join(sorted(path.name for path in (given.out / key).glob("[!.]*.*")))
        )
    console.print(f"\nwhat was measured, as a table and a picture: heterofed plot {given.out}")
    return 0 if exact else 1


def _last_accuracy(path: Path) -> float:
    import pandas as pd

    return float(pd.read_csv(path)["accuracy"].iloc[-1])


def _same_bits(out: Path, keys: Sequence[str], unsplit: Any) -> tuple[bool, int]:
    """Compare every weight that the parties wrote with the unsplit network's; return whether equal, and how many."""
    pairs = [
        (out / key / f"feature_model_{key}.pt", model) for key, model in zip(keys, unsplit.feature_models, strict=True)
    ]
    pairs.append((out / keys[0] / "infer_model.pt", unsplit.infer_model))
    equal, count = True, 0
    for path, model in pairs:
        written = torch.load(path, weights_only=True)
        for name, value in model.state_dict().items():
            equal = equal and torch.equal(written[name], value)
            count += value.numel()
    return equal, count


if __name__ == "__main__":
    sys.exit(main())

"""`heterofed serve collaborator`: stay up and answer hosts' requests for predictions."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from heterofed.cli.own_code import find_own_modules
from heterofed.cli.tables import OwnDecimalIds, OwnDuplicates, OwnMissingIds, OwnUnseen, given_only
from heterofed.errors import ConfigError

serve_app = typer.Typer(
    help="""Stay up and answer requests for predictions.

    Example: heterofed serve collaborator --run runs/c --data shop.parquet
    """,
    no_args_is_help=True,
)

LOOK_S = 0.2
"""How often the main thread, which alone gets signals, looks whether all others have ended."""


@serve_app.command("collaborator")
def serve_collaborator(
    run: Annotated[
        list[Path],
        typer.Option(
            "--run", metavar="FOLDER", help="This party's part of a run; several times to serve several runs."
        ),
    ],
    data: Annotated[
        list[Path], typer.Option("--data", metavar="FILE", help="The table for each run, in the same order.")
    ],
    id_column: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="COLUMN", help="The id column of each table; by default named as in training."),
    ] = None,
    sessions_per_minute: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="More sessions than that are refused; by default none is.")
    ] = None,
    rows_per_minute: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="More rows than that are refused; by default none is.")
    ] = None,
    rows_per_session: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="A session that asks for more rows is ended; by default none is."),
    ] = None,
    all_parties: Annotated[
        bool, typer.Option("--all-parties", help="Refuse sessions without one of the task's other collaborators.")
    ] = False,
    audit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where each session is noted: who, when, how many rows, no ids. RUN/audit.jsonl by default.",
        ),
    ] = None,
    host_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The host's new public key; by default the one of training.")
    ] = None,
    sessions: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="End after so many sessions of each run; by default stay up.")
    ] = None,
    duplicates: OwnDuplicates = None,
    missing_ids: OwnMissingIds = None,
    decimal_ids: OwnDecimalIds = None,
    unseen: OwnUnseen = None,
) -> None:
    """Answer one session after the other, until Ctrl-C or SIGTERM.

    Only the host of the run is answered, by the key that it had in training. A session that fails, or is refused, does
    not end the service.

    Example: heterofed serve collaborator --run runs/c --data shop.parquet
    """
    if len(run) != len(data) or len(id_column or run) not in (1, len(run)):
        raise ConfigError(
            f"{len(run)} runs, {len(data)} tables and {len(id_column or ())} id columns are given",
            expected="--data for every --run, in the same order",
        )
    find_own_modules()
    from heterofed.scheduler.predicting.serve_limits import ServeLimits
    from heterofed.tabular import TableCollaborator

    limits = ServeLimits(
        sessions_per_minute=sessions_per_minute,
        rows_per_minute=rows_per_minute,
        rows_per_session=rows_per_session,
        all_parties=all_parties,
    )
    columns: list[str | None] = [*id_column] if id_column else [None]
    policies = given_only(duplicates=duplicates, missing_ids=missing_ids, decimal_ids=decimal_ids, unseen=unseen)
    parties = [
        TableCollaborator.from_run(each, table, columns[place % len(columns)], **policies)
        for place, (each, table) in enumerate(zip(run, data, strict=True))
    ]
    stop = threading.Event()

    def serving(party: Any, folder: Path) -> Callable[[], int]:
        return lambda: party.serve_predictions(
            limits=limits,
            audit=audit or folder / "audit.jsonl",
            stop=stop,
            **given_only(sessions=sessions, host_key=None if host_key is None else host_key.encode()),
        )

    with stopped_by_signals(stop):
        served = all_of([serving(party, folder) for party, folder in zip(parties, run, strict=True)], stop)
    typer.echo(f"{sum(served)} sessions served", err=True)


def all_of(calls: Sequence[Callable[[], int]], stop: threading.Event) -> list[int]:
    """Make calls at the same time, each in a thread of its own, and return what they return.

    The first that raises ends the others, by `stop`; its error is raised when they have ended.
    """
    results: dict[int, int] = {}
    errors: list[BaseException] = []

    def work(place: int, call: Callable[[], int]) -> None:
        try:
            results[place] = call()
        except BaseException as error:
            errors.append(error)
            stop.set()

    threads = [threading.Thread(target=work, args=each, name=f"serve-{each[0]}") for each in enumerate(calls)]
    for each in threads:
        each.start()
    for each in threads:
        while each.is_alive():
            each.join(LOOK_S)
    if errors:
        raise errors[0]
    return [results[place] for place in range(len(calls))]


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM set `stop`, so that what is in progress ends well; where that can be arranged."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may
        return

    def end(number: int, frame: object) -> None:
        stop.set()

    before = {each: signal.signal(each, end) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

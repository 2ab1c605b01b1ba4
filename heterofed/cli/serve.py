"""`heterofed serve collaborator`: stay up and answer hosts' requests for predictions."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from heterofed.cli.own_code import find_modules_of
from heterofed.cli.tables import OwnDecimalIds, OwnDuplicates, OwnMissingIds, OwnUnseen, given_only
from heterofed.errors import ConfigError
from heterofed.words import counted

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
    ids_per_session: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="A session that asks about more ids is refused unanswered; by default none is."
        ),
    ] = None,
    rows_per_minute: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="More rows than that are refused; by default none is.")
    ] = None,
    rows_per_session: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="A session that asks for more rows is ended; by default none is."),
    ] = None,
    batch_rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="A request for batches of more rows is refused, which bounds memory; hosts ask in the training's "
            "batch size. By default 65536.",
        ),
    ] = None,
    all_parties: Annotated[
        bool, typer.Option("--all-parties", help="Refuse sessions without one of the task's other collaborators.")
    ] = False,
    audit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where each session is noted: who, when, how many ids and rows; never the ids. RUN/audit.jsonl by "
            "default.",
        ),
    ] = None,
    host_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="The host's new public key, one for all runs or one for each; by default that of training.",
        ),
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
    from heterofed.wire.keys import check_public_key

    if len(run) != len(data) or any(len(each or run) not in (1, len(run)) for each in (id_column, host_key)):
        given = (counted(len(run), "run"), counted(len(data), "table"), counted(len(id_column or ()), "id column"))
        raise ConfigError(
            f"{', '.join(given)} and {counted(len(host_key or ()), 'host key')} are given",
            expected="--data for every --run, in the same order; --id and --host-key once, or for every --run",
        )
    keys = [check_public_key(each) for each in host_key] if host_key else [None]
    for each in run:
        find_modules_of(each)
    from heterofed.scheduler.predicting.audit_log import NAME
    from heterofed.scheduler.predicting.serve_limits import ServeLimits
    from heterofed.tabular import TableCollaborator

    limits = ServeLimits(
        **given_only(
            sessions_per_minute=sessions_per_minute,
            ids_per_session=ids_per_session,
            rows_per_minute=rows_per_minute,
            rows_per_session=rows_per_session,
            batch_rows=batch_rows,
        ),
        all_parties=all_parties,
    )
    columns: list[str | None] = [*id_column] if id_column else [None]
    policies = given_only(duplicates=duplicates, missing_ids=missing_ids, decimal_ids=decimal_ids, unseen=unseen)
    parties = [
        TableCollaborator.from_run(each, table, columns[place % len(columns)], **policies)
        for place, (each, table) in enumerate(zip(run, data, strict=True))
    ]
    stop = threading.Event()

    def serving(place: int, party: TableCollaborator) -> Callable[[], int]:
        return lambda: party.serve_predictions(
            limits=limits,
            audit=audit or run[place] / NAME,
            stop=stop,
            sessions=sessions,
            host_key=keys[place % len(keys)],
        )

    with stopped_by_signals(stop):
        served = all_of([serving(*each) for each in enumerate(parties)], stop)
    typer.echo(f"served {counted(sum(served), 'session')}", err=True)


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

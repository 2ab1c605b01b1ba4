"""`heterofed train host|collaborator`: train on tables, without code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heterofed.cli.common import TaskId
from heterofed.cli.own_code import find_own_modules
from heterofed.cli.tables import (
    AskedKind,
    Data,
    DecimalIds,
    Duplicates,
    FeatureKey,
    Force,
    IdColumn,
    Ignore,
    Kinds,
    Labels,
    MissingIds,
    NoLabel,
    OnDecimalIds,
    OnDuplicates,
    OnMissingIds,
    OnUnlabelled,
    OnUnseen,
    Unlabelled,
    Unseen,
    columns_shown,
    fractions_of,
    given_only,
    kinds_of,
    numbers_of,
    party_of,
    print_table,
    refuse_replacing,
    widths_of,
)
from heterofed.errors import ConfigError
from heterofed.tasks.model import Task, TaskStatus
from heterofed.words import counted

if TYPE_CHECKING:
    from heterofed.scheduler.seat import TaskResult

train_app = typer.Typer(
    help="""Train on the tables of several parties, without code.

    Every party runs one of these, with its own table.

    Example: heterofed train host --data guest.csv --id id --label y ID
    """,
    no_args_is_help=True,
)

_Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Where the run goes; runs/<task id>/<feature key> by default. Must not hold another."
    ),
]
_LearningRate = Annotated[float, typer.Option(metavar="RATE", help="How far Adam goes in one step.")]
_Hidden = Annotated[
    str,
    typer.Option(metavar="N,N", help='Widths of the layers before the embedding, for example 32,16; "" for none.'),
]
_Width = Annotated[
    int, typer.Option(min=1, metavar="N", help="Width of this party's embedding; the host has to know it.")
]
_Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODULE:FUNCTION",
        help="A function of your own that takes the number of inputs and returns the feature model; by default one of "
        "--hidden and --width.",
    ),
]
_Frozen = Annotated[
    bool, typer.Option("--frozen", help="Leave the feature model of --model as it is made: it is trained already.")
]
_Fractions = Annotated[
    str,
    typer.Option(metavar="N,N,N", help="Shares of the shared ids that train, validate and test; the same everywhere."),
]
_Salt = Annotated[
    str, typer.Option(metavar="TEXT", help="Another one splits the ids otherwise; the same at every party.")
]
_Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Of the first weights and of the order of the rows; by default a random one, nobody's guess."
    ),
]
_Device = Annotated[
    str | None, typer.Option(metavar="DEVICE", help="Where models compute, for example cuda; by default the CPU.")
]
_Recover = Annotated[
    bool, typer.Option("--recover", help="This party was killed: go on from the newest checkpoint that all hold.")
]


@train_app.command("host")
def train_host(
    task_id: TaskId,
    data: Data,
    label: Labels,
    id_column: IdColumn = None,
    task: AskedKind = None,
    feature_key: FeatureKey = None,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="How often to go over the train ids.")] = 20,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Rows of a batch.")] = 256,
    learning_rate: _LearningRate = 0.01,
    hidden: _Hidden = "32",
    width: _Width = 16,
    widths: Annotated[
        str | None,
        typer.Option(
            metavar="PARTY=N,…",
            help="Widths of the collaborators' embeddings, for example shop=32,lab=8; without it they are all --width.",
        ),
    ] = None,
    top: Annotated[
        str, typer.Option(metavar="N,N", help='Widths of the layers after the cut, for example 16,8; "" for none.')
    ] = "16",
    model: _Model = None,
    frozen: _Frozen = False,
    class_weights: Annotated[
        bool, typer.Option("--class-weights", help="Let rare classes count as much as common ones.")
    ] = False,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Stop after so many rounds without a smaller loss of the valid ids, and keep the models of the last "
            "round; by default train all rounds.",
        ),
    ] = None,
    fractions: _Fractions = "0.7,0.1,0.2",
    salt: _Salt = "heterofed",
    seed: _Seed = None,
    kind: Kinds = None,
    ignore: Ignore = None,
    duplicates: OnDuplicates = Duplicates.refuse,
    missing_ids: OnMissingIds = MissingIds.refuse,
    decimal_ids: OnDecimalIds = DecimalIds.refuse,
    unlabelled: OnUnlabelled = Unlabelled.refuse,
    unseen: OnUnseen = Unseen.refuse,
    device: _Device = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Whether to score the test ids and write report.html.")
    ] = True,
    out: _Out = None,
    force: Force = False,
    recover: _Recover = False,
) -> None:
    """Train as the host, the party with the labels.

    A table with nothing but ids and labels is fine. What its columns were taken for is shown first; `heterofed check`
    shows it without training.

    Example: heterofed train host --data guest.csv --id id --label y ID
    """
    _refuse_random(frozen, model)
    _free(out, force=force, recover=recover)
    joined, feature_key = party_of(task_id, feature_key, host=True)
    if recover and _is_done(joined, feature_key, out):
        return
    if model is not None:
        find_own_modules()
    arguments = given_only(
        hidden=numbers_of("--hidden", hidden),
        width=width,
        widths=widths_of(widths),
        top=numbers_of("--top", top),
        make_model=model,
        is_feature_trainable=False if frozen else None,
        salt=salt,
        seed=seed,
        device=device,
        out_dir=out,
    )
    from heterofed.tabular import TableHost

    host = TableHost(
        feature_key,
        data,
        id_column,
        label=label[0] if len(label) == 1 else label,
        task=None if task is None else task.value,
        rounds=rounds,
        batch_size=batch_size,
        learning_rate=learning_rate,
        class_weights=class_weights,
        patience=patience,
        fractions=fractions_of(fractions),
        kinds=kinds_of(kind),
        ignore=ignore or (),
        duplicates=duplicates.value,
        missing_ids=missing_ids.value,
        decimal_ids=decimal_ids.value,
        unlabelled=unlabelled.value,
        unseen=unseen.value,
        evaluate=report,
        **arguments,
    )
    columns_shown(host.columns)
    result = host.launch_task(task_id, recover)
    _told(result, scored=host.evaluation is not None)


@train_app.command("collaborator")
def train_collaborator(
    task_id: TaskId,
    data: Data,
    id_column: IdColumn = None,
    feature_key: FeatureKey = None,
    learning_rate: _LearningRate = 0.01,
    hidden: _Hidden = "32",
    width: _Width = 16,
    model: _Model = None,
    frozen: _Frozen = False,
    fractions: _Fractions = "0.7,0.1,0.2",
    salt: _Salt = "heterofed",
    seed: _Seed = None,
    kind: Kinds = None,
    ignore: Ignore = None,
    duplicates: OnDuplicates = Duplicates.refuse,
    missing_ids: OnMissingIds = MissingIds.refuse,
    decimal_ids: OnDecimalIds = DecimalIds.refuse,
    unseen: OnUnseen = Unseen.refuse,
    device: _Device = None,
    out: _Out = None,
    force: Force = False,
    recover: _Recover = False,
    label: NoLabel = None,
) -> None:
    """Train as a collaborator, a party without labels.

    What the columns of its table were taken for is shown first; `heterofed check` shows it without training.

    Example: heterofed train collaborator --data shop.csv --id id ID
    """
    from heterofed.tables import refuse_label

    refuse_label(label, "collaborator")
    _refuse_random(frozen, model)
    _free(out, force=force, recover=recover)
    joined, feature_key = party_of(task_id, feature_key, host=False)
    if recover and _is_done(joined, feature_key, out):
        return
    if model is not None:
        find_own_modules()
    arguments = given_only(
        hidden=numbers_of("--hidden", hidden),
        width=width,
        make_model=model,
        is_feature_trainable=False if frozen else None,
        salt=salt,
        seed=seed,
        device=device,
        out_dir=out,
    )
    from heterofed.tabular import TableCollaborator

    collaborator = TableCollaborator(
        feature_key,
        data,
        id_column,
        learning_rate=learning_rate,
        fractions=fractions_of(fractions),
        kinds=kinds_of(kind),
        ignore=ignore or (),
        duplicates=duplicates.value,
        missing_ids=missing_ids.value,
        decimal_ids=decimal_ids.value,
        unseen=unseen.value,
        **arguments,
    )
    columns_shown(collaborator.columns)
    _told(collaborator.launch_task(task_id, recover))


def _refuse_random(frozen: bool, model: str | None) -> None:
    """Refuse to freeze a model whose weights are random.

    Raises:
        ConfigError: the default model is to be frozen.
    """
    if frozen and model is None:
        raise ConfigError(
            "--frozen is given without --model: the default model would keep its random first weights",
            expected="--model with a function that returns a trained model, or no --frozen",
        )


def _free(out: Path | None, *, force: bool, recover: bool) -> None:
    """Refuse a folder with another run in it before anything is read."""
    if out is not None and not recover:
        advice = "Name another folder, or say --recover to go on with that run, or --force to write over it."
        refuse_replacing(out, force, advice)


def _is_done(task: Task, feature_key: str, out: Path | None) -> bool:
    """Whether the task was completed before this process was started again; then say where the run is.

    Raises:
        ConfigError: the folder is the run of something else.
        DataError: it does not hold the end of a run, or a file of it was changed.
    """
    if task.status is not TaskStatus.COMPLETED:
        return False
    from heterofed.scheduler.manifest import read_manifest, results_folder

    folder = out or results_folder(task.id, feature_key)
    read_manifest(folder, feature_key=feature_key, task_id=task.id).verify(folder)
    typer.echo(f"task {task.id} was completed before; the run is in {folder}", err=True)
    typer.echo(str(folder))
    return True


def _told(result: TaskResult, *, scored: bool = False) -> None:
    """Say what came of it: scores at the host, and where the files are."""
    if scored:
        from heterofed.report import read_summary

        print_table(read_summary(result.out_dir).table())
    typer.echo(f"{counted(result.rounds, 'round')}; the run is in {result.out_dir}", err=True)
    typer.echo(str(result.out_dir))

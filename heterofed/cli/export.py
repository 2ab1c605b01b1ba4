"""`heterofed export`: a party's models in forms that other programs read."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from heterofed.cli.outputs import nothing_to_recover
from heterofed.cli.own_code import find_modules_of
from heterofed.cli.tables import Force, refuse_replacing


class Form(str, Enum):
    """What a model is written as."""

    onnx = "onnx"
    torchscript = "torchscript"
    torch_export = "torch-export"


def export(
    run: Annotated[Path, typer.Option("--run", metavar="FOLDER", help="This party's part of a run.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder for the models and what describes them.")],
    to: Annotated[
        list[Form] | None,
        typer.Option(
            "--to",
            metavar="onnx|torchscript|torch-export",
            help="What to write; may be given several times. By default onnx.",
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Write this party's models for other programs.

    With them go the preprocessing, as JSON, and a model card. Every file is read again and has to give the same
    numbers before the folder appears.

    Example: heterofed export --run runs/h --to onnx --out exported
    """
    refuse_replacing(out, force)
    find_modules_of(run)
    from heterofed.export import ModelToExport, export_run
    from heterofed.tabular import load_run

    loaded = load_run(run)
    models = []
    if loaded.encoder is not None and loaded.feature_model is not None:
        models.append(ModelToExport("feature_model", loaded.feature_model, {"columns": loaded.encoder.width}))
    if loaded.infer_model is not None:
        models.append(ModelToExport("infer_model", loaded.infer_model, loaded.widths))
    card = run / "model_card.md"
    with nothing_to_recover():
        files = export_run(
            out,
            models,
            [each.value for each in to or [Form.onnx]],
            party=loaded.manifest.feature_key,
            encoder=loaded.encoder,
            labels=loaded.labels,
            card=card.read_text(encoding="utf-8") if card.is_file() else None,
            replace=force,
        )
    for each in files:
        typer.echo(str(each))

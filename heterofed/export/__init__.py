"""Trained models as files that need no heterofed: ONNX, TorchScript, torch.export, and what a reader has to know.

    export_run(
        Path("exported"),
        [ModelToExport("feature_model", feature_model, {"columns": encoder.width}),
         ModelToExport("infer_model", infer_model, {"bank": 16, "shop": 16})],
        ["onnx", "torch-export"],
        party="bank", encoder=encoder, labels=labels, card=card.render(),
    )

Beside the models lie `export.json` (which file is what, and the order of inputs), `preprocessing.json` (how a table
becomes the numbers that a model takes) and `model_card.md`. What was written is loaded again and compared.
"""

from heterofed.export.card import ModelCard, write_model_card
from heterofed.export.folder import ModelToExport, export_model, export_run
from heterofed.export.formats import FORMATS, Format
from heterofed.export.preprocessing import preprocessing_of

__all__ = [
    "FORMATS",
    "Format",
    "ModelCard",
    "ModelToExport",
    "export_model",
    "export_run",
    "preprocessing_of",
    "write_model_card",
]

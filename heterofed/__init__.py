"""heterofed: several parties with different columns about the same people train one neural network together.

The names below are loaded at their first use, so that what needs no torch (`heterofed task …`) starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heterofed.config import Settings
    from heterofed.errors import (
        AlignmentError,
        BatchesPassed,
        ConfigError,
        DataError,
        EmbeddingError,
        FrameError,
        HeterofedError,
        HubUnreachable,
        LocalProtocolError,
        NotAllowed,
        OutputError,
        PeerGone,
        PeerRefused,
        PeerRestarted,
        PeerTimeout,
        ProtocolError,
        RemoteProtocolError,
        TaskAborted,
        TaskFailed,
        TemplateError,
        TrainingDiverged,
        UnknownTask,
        WireError,
    )
    from heterofed.metrics.calculator import register_metric
    from heterofed.metrics.progress import logger
    from heterofed.metrics.storage import EventStorage, get_event_storage
    from heterofed.metrics.tables import MetricsTable, register_metrics
    from heterofed.scheduler.checker import DataChecker
    from heterofed.scheduler.collaborator import CollaboratorScheduler
    from heterofed.scheduler.host import HostScheduler
    from heterofed.scheduler.predicting.predicted import PredictedBatch, RowStatus, SpreadBatch
    from heterofed.scheduler.predicting.predictions import Predictions
    from heterofed.scheduler.seat import TaskResult
    from heterofed.simulate import LocalRun, predict_locally, run_locally
    from heterofed.tabular import TableCollaborator, TableHost
    from heterofed.training.context import CtxVar
    from heterofed.training.hooks.base import HookBase
    from heterofed.training.local import LocalTrainer
    from heterofed.training.multi_model import MultiModelTrainer
    from heterofed.training.registries import register_hook, register_trainer
    from heterofed.training.trainer import Trainer
    from heterofed.training.triggers import LIFECYCLE, MODE, TRIGGER

__version__ = "0.1.0"

__all__ = [
    "LIFECYCLE",
    "MODE",
    "TRIGGER",
    "AlignmentError",
    "BatchesPassed",
    "CollaboratorScheduler",
    "ConfigError",
    "CtxVar",
    "DataChecker",
    "DataError",
    "EmbeddingError",
    "EventStorage",
    "FrameError",
    "HeterofedError",
    "HookBase",
    "HostScheduler",
    "HubUnreachable",
    "LocalProtocolError",
    "LocalRun",
    "LocalTrainer",
    "MetricsTable",
    "MultiModelTrainer",
    "NotAllowed",
    "OutputError",
    "PeerGone",
    "PeerRefused",
    "PeerRestarted",
    "PeerTimeout",
    "PredictedBatch",
    "Predictions",
    "ProtocolError",
    "RemoteProtocolError",
    "RowStatus",
    "Settings",
    "SpreadBatch",
    "TableCollaborator",
    "TableHost",
    "TaskAborted",
    "TaskFailed",
    "TaskResult",
    "TemplateError",
    "Trainer",
    "TrainingDiverged",
    "UnknownTask",
    "WireError",
    "get_event_storage",
    "logger",
    "predict_locally",
    "register_hook",
    "register_metric",
    "register_metrics",
    "register_trainer",
    "run_locally",
]

_ELSEWHERE = {
    "CollaboratorScheduler": "heterofed.scheduler.collaborator",
    "CtxVar": "heterofed.training.context",
    "DataChecker": "heterofed.scheduler.checker",
    "EventStorage": "heterofed.metrics.storage",
    "HookBase": "heterofed.training.hooks.base",
    "HostScheduler": "heterofed.scheduler.host",
    "LIFECYCLE": "heterofed.training.triggers",
    "LocalRun": "heterofed.simulate",
    "LocalTrainer": "heterofed.training.local",
    "MODE": "heterofed.training.triggers",
    "MetricsTable": "heterofed.metrics.tables",
    "MultiModelTrainer": "heterofed.training.multi_model",
    "Settings": "heterofed.config",
    "TRIGGER": "heterofed.training.triggers",
    "TaskResult": "heterofed.scheduler.seat",
    "Trainer": "heterofed.training.trainer",
    "get_event_storage": "heterofed.metrics.storage",
    "logger": "heterofed.metrics.progress",
    "PredictedBatch": "heterofed.scheduler.predicting.predicted",
    "Predictions": "heterofed.scheduler.predicting.predictions",
    "RowStatus": "heterofed.scheduler.predicting.predicted",
    "SpreadBatch": "heterofed.scheduler.predicting.predicted",
    "TableCollaborator": "heterofed.tabular",
    "TableHost": "heterofed.tabular",
    "predict_locally": "heterofed.simulate",
    "register_hook": "heterofed.training.registries",
    "register_metric": "heterofed.metrics.calculator",
    "register_metrics": "heterofed.metrics.tables",
    "register_trainer": "heterofed.training.registries",
    "run_locally": "heterofed.simulate",
}
"""name -> its module; every other name of `__all__` is an error."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_ELSEWHERE.get(name, "heterofed.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

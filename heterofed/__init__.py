"""heterofed: several parties with different columns about the same people train one neural network together.

The names below are loaded at their first use, so that what needs no torch (`heterofed task …`) starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heterofed.config import Settings
    from heterofed.errors import (
        AlignmentError,
        ConfigError,
        DataError,
        EmbeddingError,
        FrameError,
        HeterofedError,
        LocalProtocolError,
        OutputError,
        PeerGone,
        PeerRefused,
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
    from heterofed.metrics.progress import logger
    from heterofed.metrics.tables import MetricsTable, register_metrics
    from heterofed.scheduler.checker import DataChecker
    from heterofed.scheduler.collaborator import CollaboratorScheduler
    from heterofed.scheduler.host import HostScheduler
    from heterofed.scheduler.seat import TaskResult
    from heterofed.simulate import LocalRun, run_locally

__version__ = "0.1.0"

__all__ = [
    "AlignmentError",
    "CollaboratorScheduler",
    "ConfigError",
    "DataChecker",
    "DataError",
    "EmbeddingError",
    "FrameError",
    "HeterofedError",
    "HostScheduler",
    "LocalProtocolError",
    "LocalRun",
    "MetricsTable",
    "OutputError",
    "PeerGone",
    "PeerRefused",
    "PeerTimeout",
    "ProtocolError",
    "RemoteProtocolError",
    "Settings",
    "TaskAborted",
    "TaskFailed",
    "TaskResult",
    "TemplateError",
    "TrainingDiverged",
    "UnknownTask",
    "WireError",
    "logger",
    "register_metrics",
    "run_locally",
]

_ELSEWHERE = {
    "CollaboratorScheduler": "heterofed.scheduler.collaborator",
    "DataChecker": "heterofed.scheduler.checker",
    "HostScheduler": "heterofed.scheduler.host",
    "LocalRun": "heterofed.simulate",
    "MetricsTable": "heterofed.metrics.tables",
    "Settings": "heterofed.config",
    "TaskResult": "heterofed.scheduler.seat",
    "logger": "heterofed.metrics.progress",
    "register_metrics": "heterofed.metrics.tables",
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

"""(4) The two parties as template methods, under the source system's import path too.

Names are loaded when they are used: what only matches ids need not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heterofed.errors import ConfigError, TaskFailed
    from heterofed.metrics.tables import register_metrics
    from heterofed.scheduler.base import Scheduler
    from heterofed.scheduler.checker import DataChecker
    from heterofed.scheduler.collaborator import CollaboratorScheduler
    from heterofed.scheduler.host import HostScheduler
    from heterofed.scheduler.seat import TaskResult

__all__ = [
    "CollaboratorScheduler",
    "ConfigError",
    "DataChecker",
    "HostScheduler",
    "Scheduler",
    "TaskFailed",
    "TaskResult",
    "register_metrics",
]

_MODULES = {
    "CollaboratorScheduler": "heterofed.scheduler.collaborator",
    "ConfigError": "heterofed.errors",
    "DataChecker": "heterofed.scheduler.checker",
    "HostScheduler": "heterofed.scheduler.host",
    "Scheduler": "heterofed.scheduler.base",
    "TaskFailed": "heterofed.errors",
    "TaskResult": "heterofed.scheduler.seat",
    "register_metrics": "heterofed.metrics.tables",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

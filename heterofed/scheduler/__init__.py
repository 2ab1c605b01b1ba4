"""(4) The two parties as template methods, under the source system's import path too."""

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

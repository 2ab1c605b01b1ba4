"""What a task id means: its life and parties (`model`), where they are kept (`store`), who is where (`directory`)."""

from heterofed.tasks.course import (
    Event,
    LogEntry,
    Measured,
    Measurement,
    Notification,
    NotificationType,
    Output,
    ReportKind,
)
from heterofed.tasks.directory import Directory, HostAddress, open_directory
from heterofed.tasks.guests import GuestList
from heterofed.tasks.interface import KEEP, Tasks
from heterofed.tasks.model import (
    Party,
    PartyStatus,
    Role,
    Task,
    TaskStatus,
    check_feature_key,
    check_feature_keys,
    check_move,
)
from heterofed.tasks.options import TrainerOptions
from heterofed.tasks.store import TaskStore

__all__ = [
    "KEEP",
    "Directory",
    "Event",
    "GuestList",
    "HostAddress",
    "LogEntry",
    "Measured",
    "Measurement",
    "Notification",
    "NotificationType",
    "Output",
    "Party",
    "PartyStatus",
    "ReportKind",
    "Role",
    "Task",
    "TaskStatus",
    "TaskStore",
    "Tasks",
    "TrainerOptions",
    "check_feature_key",
    "check_feature_keys",
    "check_move",
    "open_directory",
]

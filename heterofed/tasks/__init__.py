"""What a task id means: its life and parties (`model`), where they are kept (`store`), who is where (`directory`)."""

from heterofed.tasks.directory import Directory, HostAddress, open_directory
from heterofed.tasks.guests import GuestList
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
from heterofed.tasks.store import LogEntry, TaskStore

__all__ = [
    "Directory",
    "GuestList",
    "HostAddress",
    "LogEntry",
    "Party",
    "PartyStatus",
    "Role",
    "Task",
    "TaskStatus",
    "TaskStore",
    "check_feature_key",
    "check_feature_keys",
    "check_move",
    "open_directory",
]

"""`TrainerOptions`, which belong to the task and are obeyed by its running host too."""

from __future__ import annotations

from heterofed.tasks.options import TrainerOptions

__all__ = ["TrainerOptions"]

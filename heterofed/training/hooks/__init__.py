"""Hooks as objects: `HookBase` and what is built in."""

from heterofed.training.hooks.base import CallbackHook, HookBase
from heterofed.training.hooks.checkpoints import BestCheckpointer, PeriodicCheckpointer
from heterofed.training.hooks.defaults import default_hooks
from heterofed.training.hooks.evaluation import EarlyStopper, EvalHook
from heterofed.training.hooks.guards import GradientClipper, NaNGuard
from heterofed.training.hooks.schedules import LRScheduler
from heterofed.training.hooks.timing import IterationTimer, ProgressBar
from heterofed.training.hooks.writing import PeriodicWriter

__all__ = [
    "BestCheckpointer",
    "CallbackHook",
    "EarlyStopper",
    "EvalHook",
    "GradientClipper",
    "HookBase",
    "IterationTimer",
    "LRScheduler",
    "NaNGuard",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "ProgressBar",
    "default_hooks",
]

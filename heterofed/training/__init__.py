"""The local loop of a party, or of a model on local data alone: trainers, hooks, context. Imports no scheduler."""

from heterofed.training.base_trainer import BaseTrainer
from heterofed.training.checkpoint import Checkpointer
from heterofed.training.context import Context, CtxVar
from heterofed.training.hooks import (
    BestCheckpointer,
    CallbackHook,
    EarlyStopper,
    EvalHook,
    GradientClipper,
    HookBase,
    IterationTimer,
    LRScheduler,
    NaNGuard,
    PeriodicCheckpointer,
    PeriodicWriter,
    ProgressBar,
    default_hooks,
)
from heterofed.training.local import LocalTrainer
from heterofed.training.local_config import LocalConfig, RoutineConfig
from heterofed.training.multi_model import MultiModelTrainer
from heterofed.training.registries import register_hook, register_trainer
from heterofed.training.trainer import Trainer
from heterofed.training.triggers import LIFECYCLE, MODE, TRIGGER

__all__ = [
    "LIFECYCLE",
    "MODE",
    "TRIGGER",
    "BaseTrainer",
    "BestCheckpointer",
    "CallbackHook",
    "Checkpointer",
    "Context",
    "CtxVar",
    "EarlyStopper",
    "EvalHook",
    "GradientClipper",
    "HookBase",
    "IterationTimer",
    "LRScheduler",
    "LocalConfig",
    "LocalTrainer",
    "MultiModelTrainer",
    "NaNGuard",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "ProgressBar",
    "RoutineConfig",
    "Trainer",
    "default_hooks",
    "register_hook",
    "register_trainer",
]

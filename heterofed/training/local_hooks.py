"""What a `LocalTrainer` does at each point: plain functions of ctx, with FederatedScope's names, in its order.

They are entries of the trainer's hook sets like any other: put your own before or after them, or in their place.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from heterofed.errors import ConfigError
from heterofed.metrics.progress import logger
from heterofed.training.context import Context, CtxVar
from heterofed.training.local_data import Pass
from heterofed.training.triggers import LIFECYCLE, MODE, TRIGGER

UNKNOWN_FLOPS = -1
"""ctx.flops_per_sample of a model whose operations could not be counted."""


def _hook_on_data_parallel_init(ctx: Context) -> None:
    """Let the model of this routine spread its batches over several GPUs, if the configuration names some."""
    ids = list(ctx.cfg.data_para_device_ids)
    if not ids or isinstance(ctx.model, nn.DataParallel):
        return
    if not torch.cuda.is_available():
        raise ConfigError(f"data_para_device_ids names GPUs {ids}, but torch finds none", expected="an empty tuple")
    ctx.model = CtxVar(nn.DataParallel(ctx.model, device_ids=ids), LIFECYCLE.ROUTINE)


def _hook_on_fit_start_init(ctx: Context) -> None:
    """Place the model, choose the routine's optimizer, and begin its statistics."""
    if not ctx.nested:  # within another routine it stays where that one has put it
        ctx.model.to(ctx.device)
        if isinstance(ctx.criterion, nn.Module):
            ctx.criterion.to(ctx.device)
    if ctx.cur_mode in MODE.LEARNING:
        optimizer, scheduler = ctx.trainer.optimizer_of_routine()
        ctx.optimizer = CtxVar(optimizer, LIFECYCLE.ROUTINE)
        ctx.scheduler = CtxVar(scheduler, LIFECYCLE.ROUTINE)
    ctx.loss_batch_total = CtxVar(0.0, LIFECYCLE.ROUTINE)
    ctx.loss_regular_total = CtxVar(0.0, LIFECYCLE.ROUTINE)
    ctx.num_samples = CtxVar(0, LIFECYCLE.ROUTINE)
    ctx.ys_true = CtxVar([], LIFECYCLE.ROUTINE)
    ctx.ys_prob = CtxVar([], LIFECYCLE.ROUTINE)


def _hook_on_fit_start_calculate_model_size(ctx: Context) -> None:
    """Count the model's parameters, once: ctx.total_model_size."""
    if "total_model_size" not in ctx:
        ctx.total_model_size = sum(each.numel() for each in ctx.model.parameters())


def _hook_on_epoch_start(ctx: Context) -> None:
    """Begin a pass over the split."""
    name = f"{ctx.cur_split}_loader"
    if not isinstance(ctx.get(name), Pass):
        learning = ctx.cur_mode in MODE.LEARNING
        rows = ctx.trainer.passes.open(
            ctx,
            batch_size=ctx.cfg.batch_size,
            shuffle=ctx.cfg.shuffle and learning,
            drop_last=ctx.cfg.drop_last,
        )
        ctx[name] = CtxVar(rows, LIFECYCLE.ROUTINE)  # hides the loader that it reads, for this routine
    ctx.trainer.passes.begin(ctx, ctx[name])


def _hook_on_batch_start_init(ctx: Context) -> None:
    """Fetch a batch."""
    ctx.data_batch = CtxVar(next(ctx[f"{ctx.cur_split}_loader"]), LIFECYCLE.BATCH)


def _hook_on_batch_forward(ctx: Context) -> None:
    """Predict, and compute the loss."""
    try:
        x, label = ctx.data_batch
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"a batch of {ctx.cur_split} is no pair",
            expected="(inputs, labels)",
            advice='For other batches put a hook of your own in the place of "_hook_on_batch_forward".',
        ) from error
    x, label = _to(x, ctx.device), _to(label, ctx.device)
    pred = ctx.model(x)
    if label.dim() == 0:
        label = label.unsqueeze(0)
    ctx.y_true = CtxVar(label, LIFECYCLE.BATCH)
    ctx.y_prob = CtxVar(pred, LIFECYCLE.BATCH)
    ctx.loss_batch = CtxVar(ctx.criterion(pred, label), LIFECYCLE.BATCH)
    ctx.batch_size = CtxVar(len(label), LIFECYCLE.BATCH)


def _hook_on_batch_forward_regularizer(ctx: Context) -> None:
    """Add the regularizer's part: ctx.loss_task is what is minimised."""
    if ctx.regularizer is None:
        ctx.loss_regular = CtxVar(0.0, LIFECYCLE.BATCH)
        ctx.loss_task = CtxVar(ctx.loss_batch, LIFECYCLE.BATCH)
    else:
        ctx.loss_regular = CtxVar(ctx.regularizer_mu * ctx.regularizer(ctx), LIFECYCLE.BATCH)
        ctx.loss_task = CtxVar(ctx.loss_batch + ctx.loss_regular, LIFECYCLE.BATCH)


def _hook_on_batch_forward_flop_count(ctx: Context) -> None:
    """Count the operations of the forward pass: those of one batch once, then samples times that."""
    if not ctx.cfg.count_flops:
        return
    if "flops_per_sample" not in ctx:
        counted = _flops_of(ctx.model, _to(ctx.data_batch[0], ctx.device))
        ctx.flops_per_sample = UNKNOWN_FLOPS if counted is None else counted / ctx.batch_size
    if ctx.flops_per_sample != UNKNOWN_FLOPS:
        ctx.total_flops = ctx.get("total_flops", 0.0) + ctx.flops_per_sample * ctx.batch_size


def _hook_on_batch_backward(ctx: Context) -> None:
    """Compute gradients; with the last batch of those that make a step, take the step.

    Several batches that make one step weigh the same, also where fewer than grad_accum_count are left at the end.
    """
    accumulated = ctx.cfg.grad_accum_count
    place = ctx.cur_epoch_i * ctx.num_train_batch + ctx.cur_batch_i
    first = place - place % accumulated
    window = min(accumulated, ctx.num_total_train_batch - first)
    if place == first:
        ctx.optimizer.zero_grad()
    loss = ctx.get("loss_task", ctx.loss_batch)
    (loss if window == 1 else loss / window).backward()
    if place < first + window - 1:
        return
    ctx.trainer.before_optimizer_step()
    if ctx.grad_clip > 0:
        torch.nn.utils.clip_grad_norm_(ctx.model.parameters(), ctx.grad_clip)
    ctx.optimizer.step()
    if ctx.scheduler is not None and ctx.cfg.routine(ctx.cur_mode).schedule_every == "batch":
        ctx.scheduler.step()


def _hook_on_batch_end(ctx: Context) -> None:
    """Add the batch to the routine's statistics; both losses are sums over rows."""
    rows, loss = ctx.batch_size, _number(ctx.loss_batch)
    ctx.num_samples += rows
    ctx.loss_batch_total += loss * rows
    ctx.loss_regular_total += _number(ctx.get("loss_regular", 0.0)) * rows
    ctx.ys_true.append(ctx.y_true.detach().cpu().numpy())
    ctx.ys_prob.append(ctx.y_prob.detach().cpu().numpy())
    if ctx.cur_mode in MODE.LEARNING and not ctx.nested:
        ctx.trainer.storage.put_scalar(ctx.trainer.scalar_name("loss"), loss)


def _hook_on_fit_end(ctx: Context) -> None:
    """Compute the metrics; they stay in ctx.eval_metrics until the next routine's replace them."""
    if ctx.cur_mode in MODE.LEARNING:
        all_behind = ctx.behind > 0 and not ctx.num_samples  # every batch was done before the run was resumed
        if ctx.scheduler is not None and ctx.cfg.routine(ctx.cur_mode).schedule_every == "round":
            with warnings.catch_warnings():
                if all_behind:  # torch cannot know that the optimizer has stepped
                    warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step")
                ctx.scheduler.step()
        if all_behind:
            ctx.eval_metrics = {}
            return
    ctx.eval_metrics = ctx.metric_calculator.eval(ctx)


LEARNING_HOOKS: Mapping[str, tuple[Callable[[Context], None], ...]] = {
    TRIGGER.ON_FIT_START: (
        _hook_on_data_parallel_init,
        _hook_on_fit_start_init,
        _hook_on_fit_start_calculate_model_size,
    ),
    TRIGGER.ON_EPOCH_START: (_hook_on_epoch_start,),
    TRIGGER.ON_BATCH_START: (_hook_on_batch_start_init,),
    TRIGGER.ON_BATCH_FORWARD: (
        _hook_on_batch_forward,
        _hook_on_batch_forward_regularizer,
        _hook_on_batch_forward_flop_count,
    ),
    TRIGGER.ON_BATCH_BACKWARD: (_hook_on_batch_backward,),
    TRIGGER.ON_BATCH_END: (_hook_on_batch_end,),
    TRIGGER.ON_FIT_END: (_hook_on_fit_end,),
}
"""The defaults of training and of fine-tuning."""

EVALUATION_HOOKS: Mapping[str, tuple[Callable[[Context], None], ...]] = {
    TRIGGER.ON_FIT_START: (_hook_on_data_parallel_init, _hook_on_fit_start_init),
    TRIGGER.ON_EPOCH_START: (_hook_on_epoch_start,),
    TRIGGER.ON_BATCH_START: (_hook_on_batch_start_init,),
    TRIGGER.ON_BATCH_FORWARD: (_hook_on_batch_forward,),
    TRIGGER.ON_BATCH_END: (_hook_on_batch_end,),
    TRIGGER.ON_FIT_END: (_hook_on_fit_end,),
}
"""The defaults of evaluation."""


def _number(value: Any) -> float:
    return float(value.detach() if isinstance(value, Tensor) else value)


def _to(value: Any, device: Any) -> Any:
    """Return tensors on a device, also those inside of lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _to(each, device) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_to(each, device) for each in value]
    return value


def _flops_of(model: nn.Module, x: Any) -> float | None:
    """Return the operations of one forward pass of a copy, None where they cannot be counted."""
    cuda = {each.device.index for each in model.parameters() if each.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=sorted(cuda)), torch.no_grad():  # dropout draws; statistics of norms move
            with FlopCounterMode(display=False) as counter:
                copy.deepcopy(model)(x)
            return float(counter.get_total_flops())
    except Exception as error:
        logger.warning("the operations of a %s cannot be counted: %s", type(model).__name__, type(error).__name__)
        return None

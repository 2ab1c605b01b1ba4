"""The rounds of a host's training: which rows they are scored on, and when they end."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from heterofed.metrics.tables import register_metrics
from heterofed.report import main_score, scores_of
from heterofed.tables import Split
from heterofed.tabular.host_models import HostModels
from heterofed.tabular.losses import predictions_of
from heterofed.tabular.splitting import split_held_out


class HostRounds(HostModels):
    """What of `TableHost` concerns its rounds; see there."""

    patience: int | None
    evaluate: bool

    @cached_property
    def held_out(self) -> Split:
        """The ids that are not trained on: valid and test, with the same mix of labels. Only the host knows which."""
        return split_held_out(self.test_ids, self.labels_of(self.test_ids), self.fractions, self.out_dir)

    @cached_property
    def _valid(self) -> frozenset[str]:
        return frozenset(self.held_out.valid)

    @register_metrics(name="history", keys=["round", "train_loss", "valid_loss", "valid_score"])
    def test(self, batched_feature_projections: list[dict[str, Tensor]], batched_labels: list[Tensor]) -> None:
        """Score the valid rows; those that the report is made of at the end are passed over."""
        is_valid = torch.tensor([each in self._valid for each in self.test_ids])
        outputs, truth, start = [], [], 0
        for projection, labels in zip(batched_feature_projections, batched_labels, strict=True):
            rows = is_valid[start : start + len(labels)].to(labels.device)
            outputs.append(self.outputs(projection)[rows])
            truth.append(labels[rows])
            start += len(labels)
        if not self._valid:
            return
        out, y_true = torch.cat(outputs), torch.cat(truth)
        score = None
        if self.evaluate:
            task = self.labels.task
            y_score = predictions_of(self.labels, out).cpu()
            y_true_there = predictions_of(self.labels, y_true).cpu() if task == "regression" else y_true.cpu()
            found = scores_of(task, y_true_there.numpy(), y_score.numpy())
            scores = {name: each for name, each in found.items() if math.isfinite(each)}
            score = scores.get(main_score(task)[0])
            self.storage.put_scalars({f"valid/{name}": each for name, each in scores.items()}, smoothing_hint=False)
        self.get_metrics("history").append_metrics_item(
            {
                "round": self.current_round,
                "train_loss": self.trainer.round_loss.value,
                "valid_loss": self.loss(out, y_true),
                "valid_score": score,
            }
        )

    def is_task_finished(self) -> bool:
        """Whether all rounds are trained, or the valid rows had their least loss `patience` rounds ago or earlier."""
        if super().is_task_finished() or self.patience is None:
            return super().is_task_finished()
        rows = self.get_metrics("history").trace()
        losses = {int(row["round"] or 0): float(row["valid_loss"] or 0.0) for row in rows}
        if not losses:
            self._warn_once(f"patience is {self.patience}, but no valid rows were scored, so all rounds are trained")
            return False
        least = min(losses, key=losses.__getitem__)
        if self.current_round - least < self.patience:
            return False
        self._at_seat.progress.say(f"the valid rows had their least loss in round {least}: patience ends the training")
        return True

"""What a party keeps when its task is completed: its outputs, and the manifest of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from heterofed.metrics.progress import logger
from heterofed.scheduler.learner import Learner
from heterofed.scheduler.manifest import RunManifest, digests, results_folder, write_manifest
from heterofed.scheduler.moments import write_moments
from heterofed.scheduler.outputs import find_outputs, weights_file, write_outputs
from heterofed.scheduler.seat import TaskResult
from heterofed.tasks.model import Task
from heterofed.uncertainty import SwagHook, SwagMoments


class Keeping(Learner):
    """What of a scheduler concerns the end of a run; see `Scheduler`."""

    _for_the_record: tuple[Path, ...] = ()
    """Outputs that the task's record may be given, as far as the settings let them out; artifacts stay here."""

    def _obey_completed(self, task: Task) -> None:
        """Be as the task said: the checkpoint that is read was written so."""
        self._collect(task.uncertainty)

    def completed_before(self, task_id: str, task: Task | None = None) -> TaskResult:
        """Return what this party wrote when the task was completed; for a process that was killed right after that.

        Args:
            task_id: of the task.
            task: what its record says, where this party has not obeyed that yet.

        Raises:
            DataError: its results folder does not hold the end of a run.
        """
        folder = self.out_dir or results_folder(task_id, self.feature_key)
        self.out_dir = folder
        if task is not None:
            self._obey_completed(task)
        self.trainer.checkpointer.load("model_final")
        logger.info("task %s was completed before; the outputs of %s are in %s", task_id, self.feature_key, folder)
        return TaskResult(
            task_id, self.feature_key, self.trainer.round, folder, find_outputs(folder), dict(self._metric_sets)
        )

    def _write_outputs(self) -> TaskResult:
        models = {weights_file(part, self.feature_key): each for part, each in self._kept_models().items()}
        folder = self._results_folder
        files = self._for_the_record = write_outputs(folder, models, self._metric_sets)
        with self._calling("write_artifacts"):
            artifacts = (*self._own_artifacts(folder), *(Path(each) for each in self.write_artifacts(folder)))
        with self._calling("describe_run"):
            about = self.describe_run()
        manifest = write_manifest(folder, self._manifest(about, [*(folder / name for name in models), *artifacts]))
        files = (*files, *artifacts, manifest)
        return TaskResult(self.task_id, self.feature_key, self.trainer.round, folder, files, dict(self._metric_sets))

    def _own_artifacts(self, folder: Path) -> tuple[Path, ...]:
        """Write what predictions need besides, and return the paths."""
        return write_moments(folder, self._swag_moments())

    def _swag_moments(self) -> dict[str, SwagMoments]:
        """Return the moments that this party has collected, by the name of the model."""
        hooks = [each for each in self.trainer.hooks.values() if isinstance(each, SwagHook)][:1]
        return {name: each for hook in hooks for name, each in hook.moments.items() if each.collected}

    def _manifest(self, about: dict[str, Any], files: Iterable[Path]) -> RunManifest:
        seat, parties = self._at_seat, self.task_parties
        return RunManifest(
            task_id=seat.task_id,
            task_name=seat.task_name,
            feature_key=self.feature_key,
            role="host" if self.feature_key == parties[0] else "collaborator",
            parties=parties,
            run=_public_name(self._run_name),
            rounds=self.trainer.round,
            host_key=(seat.host_public_key() or b"").decode("ascii"),
            embeddings=self._embeddings_seen(),
            about=about,
            files=dict(digests(self._results_folder, files)),
        )

    def _embeddings_seen(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return feature key -> dtype and shape of one row of an embedding; a host knows those of all parties."""
        return {}


def _public_name(run: str) -> str:
    """Return what tells a run from others and says nothing of its session's token, which keyed digests of ids."""
    return hashlib.blake2b(bytes.fromhex(run), person=b"heterofed-run", digest_size=16).hexdigest()

"""A party's completed run, loaded again: its folder is checked, and its models have the weights of its last round."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from heterofed.errors import ConfigError, DataError
from heterofed.scheduler.checks import check_constructed
from heterofed.scheduler.keeping import MODEL_FILES
from heterofed.scheduler.manifest import RoleName, RunManifest, read_manifest
from heterofed.training.stateful import read_state

if TYPE_CHECKING:
    from heterofed.scheduler.base import Scheduler


def find_run(party: Scheduler, role: RoleName, task_id: str | None) -> RunManifest:
    """Return the manifest of the completed run in a party's folder, each of whose files is as it was written.

    Args:
        party: whose `out_dir` it is; `runs/<task id>/<feature key>` where that is None.
        role: what the party is.
        task_id: the task it must be of; None: any.

    Raises:
        ConfigError: it is of another party, role or task, or the party cannot predict.
        DataError: there is none, or a file was changed.
    """
    check_constructed(party)
    if party.out_dir is None:
        if task_id is None:
            raise ConfigError(
                "neither out_dir nor a task id is given", party=party.feature_key, expected="the folder of a run"
            )
        party.out_dir = Path("runs") / task_id / party.feature_key
    manifest = read_manifest(party.out_dir, role=role, feature_key=party.feature_key)
    if task_id is not None and task_id != manifest.task_id:
        raise ConfigError(
            f"{party.out_dir} is the run of task {manifest.task_id}",
            party=party.feature_key,
            expected=f"that of task {task_id}",
            advice="Name the folder of that task's run, or leave the task id out.",
        )
    if party.own_batches:
        raise ConfigError(
            f"{type(party).__name__} chooses its own batches and cannot predict",
            party=party.feature_key,
            expected="load_batch in the place of iterate_*: it says which rows belong to which ids",
        )
    weights = [name for name in MODEL_FILES if name == "feature" or role == "host"]
    needed = [f"{MODEL_FILES[name].format(key=party.feature_key)}.pt" for name in weights]
    manifest.verify(party.out_dir, {*manifest.files, *needed})
    return manifest


def load_weights(party: Scheduler) -> None:
    """Give a party's models, made if they were not, the weights that its run has written.

    Raises:
        DataError: a file does not fit the model.
    """
    folder = party._results_folder
    for name, model in party._kept_models().items():
        path = folder / f"{MODEL_FILES[name].format(key=party.feature_key)}.pt"
        state = read_state(path)
        try:
            model.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError, KeyError) as error:
            raise DataError(
                f"{path} does not fit the {name} model that {type(party).__name__} makes",
                party=party.feature_key,
                expected="the same architecture as when it was trained",
                advice="Make the scheduler with the arguments of the training.",
            ) from error

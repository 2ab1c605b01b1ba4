"""A party's completed run, loaded again: its folder is checked, and its models have the weights of its last round."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heterofed.errors import ConfigError
from heterofed.scheduler.checks import check_constructed
from heterofed.scheduler.manifest import RunManifest, read_manifest, results_folder
from heterofed.scheduler.outputs import MODEL_FILES, load_into, weights_file
from heterofed.tasks.model import Role

if TYPE_CHECKING:
    from heterofed.scheduler.base import Scheduler


def find_run(party: Scheduler, role: Role, task_id: str | None) -> RunManifest:
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
        party.out_dir = results_folder(task_id, party.feature_key)
    manifest = read_manifest(party.out_dir, role=role, feature_key=party.feature_key, task_id=task_id)
    if party.own_batches:
        raise ConfigError(
            f"{type(party).__name__} chooses its own batches and cannot predict",
            party=party.feature_key,
            expected="load_batch in the place of iterate_*: it says which rows belong to which ids",
        )
    needed = [weights_file(part, party.feature_key) for part in MODEL_FILES if part == "feature" or role == "host"]
    manifest.verify(party.out_dir, {*manifest.files, *needed})
    return manifest


def load_weights(party: Scheduler) -> None:
    """Give a party's models, made if they were not, the weights that its run has written.

    Raises:
        DataError: a file does not fit the model.
    """
    folder = party._results_folder
    for part, model in party._kept_models().items():
        load_into(
            model,
            folder / weights_file(part, party.feature_key),
            what=f"the {part} model that {type(party).__name__} makes",
            advice="Make the scheduler with the arguments of the training.",
            party=party.feature_key,
        )

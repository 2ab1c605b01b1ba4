"""`run.json`: what a party's results folder is of, so that predictions are made with what was trained together.

It is written last, when all the other files of a completed run are there, with the SHA-256 of each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from heterofed.errors import ConfigError, DataError
from heterofed.sealed import load, save, sealed, unsealed
from heterofed.tasks.model import Role, check_feature_key

NAME = "run.json"
CHUNK = 1 << 20
RUNS = Path("runs")
"""Where results go, below the working folder, where nobody names another folder."""


class RunManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="run"):
    """One party's part of a completed run."""

    task_id: str
    task_name: str
    feature_key: str
    """Whose folder it is."""
    role: Role
    parties: tuple[str, ...]
    """Feature keys of all parties, host first."""
    run: str
    """Hex digits that are the same at every party of this run, and in no other."""
    rounds: int
    host_key: str
    """The host's public key in the run; empty where there was no network."""
    embeddings: dict[str, tuple[str, tuple[int, ...]]]
    """At the host: feature key -> dtype and shape of the embedding of one row, where they were seen."""
    about: dict[str, Any]
    """What the scheduler's class said of itself in `describe_run`."""
    files: dict[str, str]
    """Name of a file in the folder -> its SHA-256, in hex."""
    version: int = 1

    def verify(self, folder: Path, names: Iterable[str] | None = None) -> None:
        """Check that files of the run are as they were written.

        Args:
            folder: where they are.
            names: which; None: all.

        Raises:
            DataError: one is not there, cannot be read, or was changed; the text names it.
        """
        for name in self.files if names is None else names:
            path = folder / name
            if name not in self.files:
                raise DataError(f"{folder / NAME} names no {name}", expected="it among the files of the run")
            try:
                if path.exists() and not path.is_file():
                    raise DataError(f"{path} is no file", expected="the file as the run wrote it")
                found = digest_of_file(path)
            except OSError as error:
                raise DataError(
                    f"cannot read {path}: {error.strerror or type(error).__name__}",
                    expected="the file as the run wrote it",
                    advice="Take the folder from a backup, or train again.",
                ) from None
            if found != self.files[name]:
                raise DataError(
                    f"{path} was changed since the run was completed: its SHA-256 is not the one in {NAME}",
                    expected="the file as the run wrote it",
                    advice="Take the folder from a backup, or train again.",
                )


def results_folder(task_id: str, feature_key: str) -> Path:
    """Return where the results of a party go, if nobody names another folder."""
    return RUNS / task_id / feature_key


def write_manifest(folder: Path, manifest: RunManifest) -> Path:
    """Write a run's manifest, whole or not at all.

    Raises:
        ConfigError: `describe_run` gave what JSON cannot hold.
        OutputError: it cannot be written.
    """
    try:
        text = sealed(manifest)
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise ConfigError(
            f"describe_run() of {manifest.feature_key} gave what JSON cannot hold ({error})",
            expected="a dict of str, numbers, bools, None, lists and dicts",
        ) from None
    return save(folder / NAME, text)


def read_manifest(
    folder: Path, *, role: Role | None = None, feature_key: str | None = None, task_id: str | None = None
) -> RunManifest:
    """Read the manifest of a completed run.

    Args:
        folder: a party's results folder.
        role: what the party must have been; None: any.
        feature_key: whose it must be; None: anybody's.
        task_id: of which task; None: any.

    Raises:
        DataError: there is none, or it was changed.
        ConfigError: it is of another role, party or task.
    """
    path = folder / NAME
    if not path.is_file():
        why = "there is no such folder" if not folder.is_dir() else f"it holds no {NAME}"
        raise DataError(
            f"{folder} is not the folder of a completed run: {why}",
            expected="what `out_dir`, or --out, was when the model was trained",
            advice="Name that folder; one that was written before there was a run.json has to be trained again.",
        )
    manifest = unsealed(load(path), RunManifest, str(path))
    _check_names(manifest, path)
    if role is not None and manifest.role != role:
        raise ConfigError(
            f"{folder} is the run of a {manifest.role}, {manifest.feature_key}",
            expected=f"that of a {role}",
            advice="Name this party's own folder.",
        )
    if feature_key is not None and manifest.feature_key != feature_key:
        raise ConfigError(
            f"{folder} is the run of {manifest.feature_key}",
            party=feature_key,
            expected=f"that of {feature_key}",
            advice="Name this party's own folder.",
        )
    if task_id is not None and manifest.task_id != task_id:
        raise ConfigError(
            f"{folder} is the run of task {manifest.task_id}",
            party=feature_key,
            expected=f"that of task {task_id}",
            advice="Name the folder of that task's run.",
        )
    return manifest


def _check_names(manifest: RunManifest, path: Path) -> None:
    """Refuse names that lead out of the folder.

    Raises:
        DataError: there is one.
    """
    names = [PurePosixPath(each) for each in manifest.files]
    if any(each.is_absolute() or ".." in each.parts or not each.parts for each in names):
        raise DataError(
            f"{path} names files outside its folder",
            expected="files of the run",
            advice="Somebody has changed it: take the folder from a backup, or train again.",
        )
    check_feature_key(manifest.feature_key)


def digests(folder: Path, files: Iterable[Path]) -> Mapping[str, str]:
    """Return name below the folder -> SHA-256 of each file.

    Raises:
        ConfigError: a file is not in the folder.
        DataError: one cannot be read.
    """
    found = {}
    for path in files:
        try:
            name = path.resolve().relative_to(folder.resolve()).as_posix()
        except ValueError:
            raise ConfigError(f"write_artifacts() wrote {path}", expected=f"files in {folder}") from None
        try:
            found[name] = digest_of_file(path)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or type(error).__name__}") from None
    return found


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex.

    Raises:
        OSError: it cannot be read.
    """
    state = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            state.update(piece)
    return state.hexdigest()

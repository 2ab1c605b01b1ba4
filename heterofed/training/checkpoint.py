"""Checkpoints: a folder each, written whole or not at all, for local training and for a party that recovers.

checkpoints/
    model_0000019/          one file for each part that the run keeps, for example
        model.pt            the weights
        optimizer.pt        the optimizers' states
        lr_scheduler.pt     where the learning-rate schedules stand
        rng.pt              where the random generators stand
        trainer.pt          counters and what the hooks remember
    model_best/             the same files; a run never goes on from here by itself
    model_final/            the end of the run
    last_checkpoint         "model_0000019": where a run goes on

The files are torch.save's, and are read with `torch.load(weights_only=True)`: no file can bring code along.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from heterofed.errors import ConfigError, DataError
from heterofed.files import folder_whole, make_folder, refused, write_whole
from heterofed.training.checkpoint_folder import TAG, CheckpointFolder, check_name
from heterofed.training.generators import RandomGenerators
from heterofed.training.stateful import Group, Stateful, fit_weights, listed, put_states, read_state, write_state

__all__ = ["Checkpointer", "Group", "RandomGenerators", "Stateful"]

logger = logging.getLogger(__name__)


class Checkpointer(CheckpointFolder):
    """Writes a run's checkpoints into a folder and goes on from them.

    One process at a time writes to the folder. Others may read it, and other files may lie in it.

    Args:
        folder: where the checkpoints lie; made when the first one is written.
        parts: name -> what is kept as <name>.pt, for example model, optimizer, lr_scheduler, rng, trainer. They are
            loaded in this order, but random generators last, so that nothing is drawn from them on the way.
        max_to_keep: how many numbered checkpoints to keep; None for all.
        prefix: the numbered ones are called <prefix>_0000019.

    Raises:
        ConfigError: a name cannot be a file's name, or max_to_keep is below 1.
    """

    def __init__(
        self, folder: Path, parts: Mapping[str, Stateful], *, max_to_keep: int | None = None, prefix: str = "model"
    ) -> None:
        if max_to_keep is not None and max_to_keep < 1:
            raise ConfigError(f"max_to_keep is {max_to_keep}", expected="1 or more, or None to keep all checkpoints")
        if not parts:
            raise ConfigError("a checkpoint without parts", expected='at least one, for example {"model": model}')
        super().__init__(folder, prefix)
        for name, part in parts.items():
            check_name(name, "a part of a checkpoint")
            if name == "iteration":
                raise ConfigError(
                    "no part of a checkpoint can be called iteration: that is what `load` calls its number"
                )
            if not isinstance(part, Stateful):
                raise ConfigError(
                    f"the part {name} of a checkpoint is a {type(part).__name__}",
                    expected="something with state_dict() and load_state_dict(state)",
                )
        self._parts = dict(parts)
        self._max_to_keep = max_to_keep

    # --- writing ------------------------------------------------------------------------------------------------------

    def save(self, name: str, *, tag: bool = True) -> Path:
        """Write a checkpoint; one of this name is replaced once the new one is complete.

        It is read once before it takes its name, so what is there can be loaded. What a killed process left behind in
        this folder is removed first.

        Args:
            name: of the checkpoint, for example "model_final".
            tag: let a run go on from it. A name that ends in "_best" is never tagged: the run has gone further.

        Returns:
            Its folder.

        Raises:
            ConfigError: the name cannot be a folder's name, or is that of something else; or a part's state
                holds what no checkpoint can hold.
            OutputError: it cannot be written; what was there before is untouched.
        """
        check_name(name, "a checkpoint")
        target = self.folder / name
        states = {part: each.state_dict() for part, each in self._parts.items()}
        self._tidy()
        if target.exists() and not _may_be_replaced(target):
            raise ConfigError(
                f"{target} is there and is no checkpoint", advice="Give the checkpoint another name, or move that away."
            )
        make_folder(self.folder)
        with folder_whole(target) as folder:
            for part, state in states.items():
                write_state(state, folder / f"{part}.pt", part, named=target / f"{part}.pt")
        if tag and not name.endswith("_best"):
            self.tag_last_checkpoint(name)
        return target

    def save_iteration(self, iteration: int) -> Path:
        """Write the checkpoint of an iteration (a batch or a round), then remove the oldest beyond max_to_keep.

        Those of later iterations are left from an earlier run in this folder, and count as older than all others.

        Raises:
            ConfigError, OutputError: as `save`.
        """
        if iteration < 0:
            raise ConfigError(f"the checkpoint of iteration {iteration}", expected="0 or more")
        target = self.save(self._numbered(iteration))
        if self._max_to_keep is not None:
            for name in self._oldest_first(self._stored(), iteration)[: -self._max_to_keep]:
                self._remove(self.folder / name)
        return target

    def tag_last_checkpoint(self, name: str) -> None:
        """Let a run go on from this checkpoint.

        Raises:
            ConfigError: there is none of this name, or it is a best one.
            OutputError: it cannot be written down; the one before holds.
        """
        if name not in self._stored() or name.endswith("_best"):
            raise ConfigError(
                f"no run can go on from {name} in {self.folder}", expected="a checkpoint there that is not a best one"
            )
        write_whole(self.folder / TAG, lambda file: file.write(name.encode()))

    def _remove(self, checkpoint: Path) -> None:
        # Under another name first: a process that is killed on the way leaves no half of a checkpoint behind.
        away = checkpoint.with_name(f".{checkpoint.name}.{secrets.token_hex(4)}.part")
        with refused(checkpoint):
            checkpoint.replace(away)
            shutil.rmtree(away)

    def remove(self, name: str) -> None:
        """Remove a checkpoint; nothing happens where there is none of this name.

        Raises:
            OutputError: it cannot be removed.
        """
        stored = self._stored()
        if name in stored:
            self._remove(stored[name])

    def has_checkpoint(self) -> bool:
        """Return whether there is a checkpoint to go on from.

        Raises:
            DataError: as `last`.
        """
        return self.last() is not None

    def last(self) -> str | None:
        """Return the name of the checkpoint to go on from, None if no run has written one here.

        It is what the file last_checkpoint says. If that is not there (somebody removed it, say) it is the newest
        numbered checkpoint that has all parts, and a warning says so.

        Raises:
            DataError: last_checkpoint cannot be read, or names what is not there and nothing can take its place.
        """
        tag = self._tag()
        stored = self._stored()
        if tag is None or tag in stored:
            return tag
        whole = [
            each
            for each in self._oldest_first(stored, self.iteration_of(tag))
            if all((stored[each] / f"{part}.pt").is_file() for part in self._parts)
        ]
        if not whole:
            raise DataError(
                f"{self.folder / TAG} names {tag[:100]!r}, which is not there, and no other checkpoint is",
                advice=f"Put that folder back, or remove {TAG} to start afresh.",
            )
        logger.warning("%s names %r, which is not there: going on from %s", self.folder / TAG, tag[:100], whole[-1])
        return whole[-1]

    # --- reading ------------------------------------------------------------------------------------------------------

    def load(self, name: str | Path, only: Collection[str] | None = None) -> dict[str, Any]:
        """Put every part back to where it was when a checkpoint was written; all of them, or none.

        All files are read before the first part changes, and if one part's state does not fit, those before it get
        back what they had.

        Args:
            name: a checkpoint of this folder, or the path of any.
            only: the parts to load; None for all.

        Returns:
            What else the checkpoint holds: "iteration", its number or None, and without `only` the states of parts
            that this run does not have.

        Raises:
            ConfigError: `only` names a part that this run does not have.
            DataError: there is no such checkpoint, a part of it is missing or cannot be read, or does not fit.
        """
        if unknown := sorted(set(only or ()) - self._parts.keys()):
            raise ConfigError(f"no part is called {', '.join(unknown)}", expected=f"some of {listed(self._parts)}")
        folder = name if isinstance(name, Path) else self._stored().get(name, self.folder / name)
        if not folder.is_dir():
            raise DataError(f"there is no checkpoint {folder}", expected=f"one of {listed(self.names())}")
        wanted = [each for each in self._parts if only is None or each in only]
        states = {each: read_state(folder / f"{each}.pt") for each in wanted}
        others = sorted({path.stem for path in folder.glob("*.pt")} - self._parts.keys()) if only is None else []
        rest = {each: read_state(folder / f"{each}.pt") for each in others}
        put_states(self._parts, states, folder)
        return {**rest, "iteration": self.iteration_of(Path(name).name)}

    def load_weights(self, path: Path) -> list[str]:
        """Start the part called model from another run's checkpoint, as far as the two fit.

        Args:
            path: the checkpoint's folder.

        Returns:
            What was not loaded, sorted: names that only the file has, or only this model, or whose shapes differ. A
            warning gives the reasons. Empty if file and model fit.

        Raises:
            ConfigError: this run keeps no part called model.
            DataError: the file cannot be read, or nothing in it fits; the model is unchanged.
        """
        if "model" not in self._parts:
            raise ConfigError("no weights can be loaded", expected=f"a part called model, not {listed(self._parts)}")
        if not path.is_dir():
            raise DataError(f"there is no checkpoint {path}", expected="the folder that holds its model.pt")
        saved = read_state(path / "model.pt")
        taken, reasons = fit_weights(saved, self._parts["model"].state_dict())
        if not taken:
            raise DataError(f"nothing in {path / 'model.pt'} fits this model", expected="some of its names and shapes")
        put_states(self._parts, {"model": saved}, path)
        if reasons:
            why = "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items())[:20])
            logger.warning("%s: loaded %d, left out %d (%s)", path / "model.pt", taken, len(reasons), why)
        return sorted(reasons)

    def resume_or_load(self, path: str | Path = "", *, resume: bool = True) -> str | None:
        """Go on from the last checkpoint; if there is none, or `resume` is False, start afresh.

        Args:
            path: the checkpoint whose weights a fresh start begins with; "" for none.
            resume: whether to go on from the last checkpoint.

        Returns:
            The name of the checkpoint that the run goes on from; None after a fresh start.

        Raises:
            ConfigError: the run has finished.
            DataError: as `load`, `load_weights` and `last`.
        """
        name = self.last() if resume else None
        if name is None:
            if path != "":
                self.load_weights(Path(path))
            return None
        if name.endswith("_final"):
            raise ConfigError(
                f"this run has finished: {self.folder / name} is its end",
                advice="To start afresh, train in another folder, or without recover=True (resume=True).",
            )
        self.load(name)
        return name

    def readable(self, name: str) -> bool:
        """Return whether a checkpoint has all parts of this run, each as it was written; reads every byte of them.

        A warning names the file that is not and says why.
        """
        folder = self._stored().get(name, self.folder / name)
        try:
            for part in self._parts:
                read_state(folder / f"{part}.pt")
        except DataError as error:
            logger.warning("the checkpoint %s cannot be used: %s", name[:100], error.what)
            return False
        return True


def _may_be_replaced(target: Path) -> bool:
    return target.is_dir() and (any(target.glob("*.pt")) or not any(target.iterdir()))

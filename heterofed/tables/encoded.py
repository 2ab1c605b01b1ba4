"""All rows of a table, encoded once: in memory, or in a file of their own where that is too much."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from numpy.lib import format as npy
from torch import Tensor

from heterofed.errors import ConfigError, DataError
from heterofed.files import make_folder, write_whole
from heterofed.tables.ordered import MEMORY_BYTES, OrderedTable


class RowEncoder(Protocol):
    """What turns rows into an array: a `TableEncoder` or a `LabelEncoder`."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row of the array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""

    @property
    def sha256(self) -> str:
        """Tells it from every other one."""

    def transform(self, frame: pd.DataFrame) -> npt.NDArray[Any]:
        """Return the array for these rows."""


class EncodedTable:
    """Tensors of a table's rows by their ids.

    Args:
        table: whose rows, all of them.
        encoder: what makes numbers of them.
        folder: where the encoded rows are kept if they take more than `memory_bytes`; what an earlier process wrote
            there for the same file and encoder is used again. It holds what the table holds.
        memory_bytes: as much is kept in memory.

    Raises:
        ConfigError: they are too many for the memory, and there is no folder.
        DataError: a row cannot be encoded, or the file cannot be read.
        OutputError: the folder cannot be written to.
    """

    def __init__(
        self,
        table: OrderedTable,
        encoder: RowEncoder,
        *,
        folder: Path | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.table = table
        self.encoder = encoder
        self.shape = (len(table), *encoder.shape)
        self._rows = self._in_memory() if self.nbytes <= memory_bytes else self._on_disk(folder)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Size of all encoded rows."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.encoder.dtype.itemsize

    @property
    def is_in_memory(self) -> bool:
        """Whether they are; otherwise they are in a file."""
        return not isinstance(self._rows, np.memmap)

    def rows(self, ids: Sequence[str]) -> Tensor:
        """Return the rows of exactly these ids, in this order, as a tensor (rows, …) in memory of its own.

        Raises:
            DataError: there is no row for some of the ids.
        """
        return torch.from_numpy(np.array(self._rows[self.table.places(ids)]))

    def _in_memory(self) -> npt.NDArray[Any]:
        result = np.empty(self.shape, dtype=self.encoder.dtype)
        start = 0
        for chunk in self.table.chunks(columns=self.encoder.columns):
            result[start : start + len(chunk)] = self.encoder.transform(chunk)
            start += len(chunk)
        return result

    def _on_disk(self, folder: Path | None) -> npt.NDArray[Any]:
        if folder is None:
            raise ConfigError(
                f"the {len(self.table)} rows of {self.table.name} take {self.nbytes >> 20} MiB when they are encoded",
                expected="a folder to keep them in, or room for them in memory",
            ).privately("its table is too large for the memory that it may take")
        path = make_folder(folder) / f"encoded-{self._name()}.npy"
        if not path.exists():
            write_whole(path, self._write, private=True)
        self.table.source.refuse_change()
        try:
            found: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            found = np.empty(0)
        if found.shape != self.shape or found.dtype != self.encoder.dtype:
            raise DataError(
                f"{path} is not what was written there",
                expected=f"an array of shape {self.shape}",
                advice="Delete it; it is made again from the table.",
            )
        return found

    def _write(self, file: BinaryIO) -> None:
        header = {"descr": npy.dtype_to_descr(self.encoder.dtype), "fortran_order": False, "shape": self.shape}
        npy.write_array_header_1_0(file, header)
        for chunk in self.table.chunks(columns=self.encoder.columns):
            file.write(np.ascontiguousarray(self.encoder.transform(chunk)).tobytes())

    def _name(self) -> str:
        """A name that another file, other ids of it or another encoder would not have."""
        state = hashlib.sha256()
        for part in (self.encoder.sha256, self.table.source.stamp, self.table.policy, *self.table.found.ids):
            state.update(hashlib.sha256(part.encode()).digest())
        return state.hexdigest()[:32]

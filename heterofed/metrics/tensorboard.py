"""The view of an EventStorage that TensorBoard reads."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from heterofed.errors import ConfigError
from heterofed.files import refused
from heterofed.metrics.storage import EventStorage, active_event_storage, get_event_storage
from heterofed.metrics.writers import EventWriter, News


class TensorboardWriter(EventWriter):
    """Scalars, images and histograms as TensorBoard's event files. Needs `pip install "heterofed[tensorboard]"`.

    Args:
        folder: where the event files go; it is made at the first write.
        window_size: smoothed scalars are the median of this many values.
        start_iter: the first iteration of a resumed run; TensorBoard forgets what was shown from there on.

    Raises:
        ConfigError: TensorBoard is not installed, or the window is below 1.
        OutputError: (when written) the folder cannot be written to.
    """

    def __init__(self, folder: str | Path, window_size: int = 20, start_iter: int = 0) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError(
                "TensorBoard is not installed",
                advice='Run `pip install "heterofed[tensorboard]"`, or leave TensorboardWriter out.',
            )
        self._folder = Path(folder)
        self._start_iter = start_iter
        self._news = News(window_size)
        self._writer: Any = None

    def write(self, storage: EventStorage | None = None) -> None:
        """Hand over what is new, and take the images and histograms out of the storage."""
        storage = get_event_storage() if storage is None else storage
        with refused(self._folder):
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter  # takes torch's seconds to load

                self._writer = SummaryWriter(str(self._folder), purge_step=self._start_iter or None)
            for name, value, iteration in self._news.look(storage, after=self._start_iter - 1):
                self._writer.add_scalar(name, value, iteration)
            for name, image, iteration in storage.images:
                self._writer.add_image(name, image, iteration, dataformats="CHW" if image.ndim == 3 else "HW")
            for name, counts, edges, total, squares, iteration in storage.histograms:
                self._writer.add_histogram_raw(
                    name,
                    min=edges[0],
                    max=edges[-1],
                    num=int(counts.sum()),
                    sum=total,
                    sum_squares=squares,
                    bucket_limits=edges[1:].tolist(),
                    bucket_counts=counts.tolist(),
                    global_step=iteration,
                )
            self._writer.flush()
        storage.clear_images()
        storage.clear_histograms()

    def close(self, storage: EventStorage | None = None) -> None:
        """Hand over what is left and close the event files."""
        storage = active_event_storage() if storage is None else storage
        if storage is not None and (storage.histories() or storage.images or storage.histograms):
            self.write(storage)
        if self._writer is not None:
            with refused(self._folder):
                self._writer.close()
            self._writer = None

"""Handwritten digits for the demos, found or fetched, and cut into vertical stripes: one stripe for each party."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from heterofed.errors import ConfigError

SIZE = 28
"""Height and width of a picture, in pixels."""

MEAN, STD = 0.1307, 0.3081
"""Of MNIST's grey levels, each 0 to 1; every picture is normalised with these."""

SMALL_SET = "sklearn"
"""Given as the data folder: take scikit-learn's small digits and do not look for MNIST."""

_RAW = Path("MNIST", "raw")  # torchvision's layout under its root
_FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz"
_PROBE_TIMEOUT_S = 5.0
_DOWNLOAD_TIMEOUT_S = 120.0  # 11 MB
_DOWNLOAD = """
import socket, sys
socket.setdefaulttimeout(8)  # of one read; torchvision sets none
from torchvision.datasets import MNIST
MNIST(sys.argv[1], download=True)
"""


@dataclass(frozen=True, eq=False)
class Digits:
    """Pictures of handwritten digits, normalised, with their labels."""

    train_images: Tensor
    """(N, 1, 28, 28), float32."""

    train_labels: Tensor
    """(N,), int64, 0 to 9."""

    test_images: Tensor
    """(M, 1, 28, 28), float32."""

    test_labels: Tensor
    """(M,), int64, 0 to 9."""

    source: str
    """Where they come from, as a line for people."""

    data_dir: str
    """What `load_digits` has to be given to load the same again, without looking further."""


def load_digits(data_dir: str | None = None, *, train: int | None = None, test: int | None = None) -> Digits:
    """Load MNIST if it can be had, else scikit-learn's 1797 digits; the result's `source` says which, and why.

    Looks in `data_dir`, then in the folder that HETEROFED_DATA names, then where an earlier download is
    (HETEROFED_HOME/data or ~/.cache/heterofed), then downloads MNIST to there; without a network that gives up within
    about 5 s.

    Args:
        data_dir: a folder that holds MNIST/raw, or "sklearn" for the small digits at once. HETEROFED_DATA may say
            "sklearn" too.
        train: take only the first so many training pictures.
        test: take only the first so many test pictures.

    Raises:
        ConfigError: `data_dir` holds no MNIST; its files are damaged; a count is below 1; or scikit-learn is missing.
    """
    for name, count in (("train", train), ("test", test)):
        if count is not None and count < 1:
            raise ConfigError(f"{name} is {count}", expected="1 or more pictures, or None for all")
    if data_dir is not None and data_dir != SMALL_SET and not _holds_mnist(Path(data_dir)):
        raise ConfigError(
            f"the data folder {data_dir} holds no MNIST",
            expected=f"{_RAW / _FILES[0]} and its three companions in it",
            advice="Name the folder above MNIST/raw, or name none: then MNIST is downloaded.",
        )
    folder, why_not = (None, "as asked") if data_dir == SMALL_SET else _find_mnist(data_dir)
    if folder is None:
        return _load_small(why_not, train, test)
    images, labels = _read(folder, train=True, count=train)
    test_images, test_labels = _read(folder, train=False, count=test)
    source = f"MNIST from {folder}" + (f" ({why_not})" if why_not else "")
    return Digits(images, labels, test_images, test_labels, source, str(folder))


def sample_ids(digits: Digits) -> list[str]:
    """Name every picture, the training ones first: train-00000, train-00001, …, test-00000, …"""
    return [f"train-{i:05}" for i in range(len(digits.train_labels))] + [
        f"test-{i:05}" for i in range(len(digits.test_labels))
    ]


def column_bounds(part: int, parts: int) -> tuple[int, int]:
    """Return the first column of a party's stripe and the one after its last; widths differ by one column at most.

    Args:
        part: 0 is the host, at the left edge.
        parts: number of parties.

    Raises:
        ConfigError: there is no such stripe.
    """
    if not 1 <= parts <= SIZE or not 0 <= part < parts:
        raise ConfigError(f"stripe {part} of {parts}", expected=f"1 to {SIZE} stripes, counted from 0")
    return part * SIZE // parts, (part + 1) * SIZE // parts


def column_slice(images: Tensor, part: int, parts: int) -> Tensor:
    """Cut a party's stripe out of pictures, (N, 1, 28, 28) -> (N, 1, 28, width); with two parts, the halves."""
    first, end = column_bounds(part, parts)
    return images[..., first:end]


def left_half(images: Tensor) -> Tensor:
    """Return what the host of two parties sees: (N, 1, 28, 28) -> (N, 1, 28, 14)."""
    return column_slice(images, 0, 2)


def right_half(images: Tensor) -> Tensor:
    """Return what the collaborator of two parties sees: (N, 1, 28, 28) -> (N, 1, 28, 14)."""
    return column_slice(images, 1, 2)


# -- MNIST: find it, fetch it, read it -------------------------------------------------------------------------


def _holds_mnist(root: Path) -> bool:
    return all((root / _RAW / name).is_file() for name in _FILES)


def _find_mnist(data_dir: str | None) -> tuple[Path | None, str]:
    """Return the folder above MNIST/raw, or None; and what went wrong on the way, or an empty string."""
    if data_dir is not None:
        return Path(data_dir), ""
    notes = []
    if named := os.environ.get("HETEROFED_DATA"):
        if named == SMALL_SET:
            return None, "as HETEROFED_DATA asks"
        if _holds_mnist(Path(named)):
            return Path(named), ""
        notes.append(f"HETEROFED_DATA={named} holds no MNIST")
    home = os.environ.get("HETEROFED_HOME")
    cache = Path(home) / "data" if home else Path.home() / ".cache" / "heterofed"
    if not _holds_mnist(cache) and (fault := _download(cache)):
        return None, "; ".join([*notes, fault])
    return cache, "; ".join(notes)


def _download(cache: Path) -> str:
    """Put MNIST into a folder, each file whole or not at all; return what went wrong, or an empty string."""
    if not _mirror_answers():
        return "MNIST's server does not answer"
    print("downloading MNIST, 11 MB", file=sys.stderr)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            # In a process of its own: it can be stopped at any moment, and its time limits are not ours.
            subprocess.run(  # noqa: S603  # this interpreter, on the constant above and a folder of ours
                [sys.executable, "-c", _DOWNLOAD, temporary],
                check=True,
                capture_output=True,
                timeout=_DOWNLOAD_TIMEOUT_S,
            )
            (cache / _RAW).mkdir(parents=True, exist_ok=True)
            for name in _FILES:  # whole files; another party that does the same at this moment does no harm
                (Path(temporary) / _RAW / name).replace(cache / _RAW / name)
    except (OSError, subprocess.SubprocessError) as error:
        return f"the download of MNIST failed ({type(error).__name__})"
    return ""


def _mirror_answers() -> bool:
    """Ask the server for one file's head. In a thread, since looking up a name knows no time limit."""
    answered = threading.Event()

    def ask() -> None:
        try:
            request = urllib.request.Request(_MIRROR, method="HEAD")
            with urllib.request.urlopen(request, timeout=_PROBE_TIMEOUT_S):  # noqa: S310  # a constant https address
                answered.set()
        except (OSError, ValueError, http.client.HTTPException):
            return  # no network, a server that speaks something else, or a proxy setting that cannot be read

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_TIMEOUT_S)
    return answered.is_set()


def _read(root: Path, *, train: bool, count: int | None) -> tuple[Tensor, Tensor]:
    """Read training or test pictures and their labels, the first `count` of them."""
    mnist = _torchvision().MNIST
    try:
        pictures = mnist(str(root), train=train, download=False)
    except Exception as error:  # torchvision's reader asserts and indexes: what it raises depends on the damage
        raise ConfigError(
            f"{root / _RAW} cannot be read ({type(error).__name__})",
            expected="the four idx files of MNIST, whole",
            advice="Remove this folder and download MNIST again.",
        ) from error
    images, labels = pictures.data, pictures.targets
    if len(images) != len(labels) or images.shape[1:] != (SIZE, SIZE):
        raise ConfigError(
            f"{root / _RAW} holds {len(images)} pictures of {tuple(images.shape[1:])} and {len(labels)} labels",
            expected=f"as many labels as pictures, each ({SIZE}, {SIZE})",
            advice="Remove this folder and download MNIST again.",
        )
    return _normalised(images[:count].float().div_(255)), labels[:count].long()


def _torchvision() -> Any:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ConfigError(
            "torchvision, which reads MNIST, is not installed",
            advice="Install the extra: pip install 'heterofed[demos]'.",
        ) from error
    return datasets


# -- the small digits ------------------------------------------------------------------------------------------


def _load_small(why: str, train: int | None, test: int | None) -> Digits:
    """scikit-learn's digits, 8 x 8 pixels, enlarged; the last fifth is for testing."""
    try:
        from sklearn.datasets import load_digits as load_sklearn_digits
    except ImportError as error:
        raise ConfigError(
            f"there is no MNIST ({why}), and scikit-learn is not installed",
            advice="Install the extra: pip install 'heterofed[demos]'.",
        ) from error
    digits = load_sklearn_digits()
    small = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    images = functional.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    images, labels = _normalised(images[:, 0]), torch.tensor(digits.target, dtype=torch.int64)
    split = len(labels) * 4 // 5
    source = f"scikit-learn's {len(labels)} digits, enlarged from 8x8 to {SIZE}x{SIZE} ({why})"
    return Digits(
        images[:split][:train],
        labels[:split][:train],
        images[split:][:test],
        labels[split:][:test],
        source,
        SMALL_SET,
    )


def _normalised(images: Tensor) -> Tensor:
    """Grey levels (N, 28, 28) from 0 to 1 -> (N, 1, 28, 28), as torchvision's Normalize does it, to the bit."""
    return images[:, None].sub_(MEAN).div_(STD)

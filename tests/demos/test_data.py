from __future__ import annotations

import http.server
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from demos.mnist_split import data
from demos.mnist_split.data import column_bounds, column_slice, left_half, load_digits, right_half, sample_ids
from heterofed.errors import ConfigError
from tests.demos.tiny_mnist import idx_bytes, write_tiny_mnist

WRITES_TINY_MNIST = """
import sys
from pathlib import Path
from tests.demos.tiny_mnist import write_tiny_mnist
write_tiny_mnist(Path(sys.argv[1]))
"""


@pytest.fixture(autouse=True)
def nothing_to_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data folder, an empty cache, and a server that is not there."""
    monkeypatch.delenv("HETEROFED_DATA", raising=False)
    monkeypatch.setenv("HETEROFED_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(data, "_MIRROR", f"http://127.0.0.1:{free.getsockname()[1]}/labels")


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that answers, and a Python that finds the tests' helpers."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(data, "_MIRROR", f"http://127.0.0.1:{server.server_port}/labels")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    yield
    server.shutdown()
    thread.join(timeout=10)
    server.server_close()


# -- where the digits come from --------------------------------------------------------------------------------


def test_a_named_folder_is_read_and_cut(tmp_path: Path) -> None:
    write_tiny_mnist(tmp_path)
    whole = load_digits(str(tmp_path))
    assert (whole.train_images.shape, whole.train_images.dtype) == ((30, 1, 28, 28), torch.float32)
    assert (whole.test_images.shape, whole.test_labels.shape) == ((10, 1, 28, 28), (10,))
    assert whole.train_labels.dtype == torch.int64
    assert whole.train_labels[:12].tolist() == [*range(10), 0, 1]
    assert whole.source == f"MNIST from {tmp_path}"
    cut = load_digits(str(tmp_path), train=7, test=99)
    assert torch.equal(cut.train_images, whole.train_images[:7])
    assert (len(cut.train_labels), len(cut.test_labels)) == (7, 10)


def test_pictures_are_normalised_as_torchvision_does_it_to_the_bit(tmp_path: Path) -> None:
    write_tiny_mnist(tmp_path, train=256)
    levels = torch.arange(256).repeat_interleave(28 * 28).reshape(256, 28, 28)
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").write_bytes(idx_bytes(levels))
    expected = (levels.float() / 255 - torch.as_tensor(0.1307)) / torch.as_tensor(0.3081)
    assert torch.equal(load_digits(str(tmp_path)).train_images[:, 0], expected)


def test_a_named_folder_without_mnist_is_an_error_and_no_other_source_is_used(tmp_path: Path) -> None:
    write_tiny_mnist(tmp_path / "home" / "data")
    with pytest.raises(ConfigError, match=r"holds no MNIST; expected MNIST/raw/train-images-idx3-ubyte .* Name the"):
        load_digits(str(tmp_path))


def test_one_missing_file_of_four_is_no_mnist(tmp_path: Path) -> None:
    write_tiny_mnist(tmp_path)
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ConfigError, match="holds no MNIST"):
        load_digits(str(tmp_path))


def test_the_result_says_how_to_load_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = load_digits(train=5, test=5)
    assert small.data_dir == "sklearn"
    write_tiny_mnist(tmp_path)
    monkeypatch.setenv("HETEROFED_DATA", str(tmp_path))
    found = load_digits(train=5)
    assert found.data_dir == str(tmp_path)
    for digits in (small, found):
        assert torch.equal(load_digits(digits.data_dir, train=5).train_images, digits.train_images)


def test_the_folder_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_mnist(tmp_path)
    monkeypatch.setenv("HETEROFED_DATA", str(tmp_path))
    assert load_digits().source == f"MNIST from {tmp_path}"


def test_a_folder_of_the_environment_without_mnist_is_passed_over_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HETEROFED_DATA", str(tmp_path))
    small = load_digits()
    assert small.source.startswith("scikit-learn's 1797 digits")
    assert f"HETEROFED_DATA={tmp_path} holds no MNIST; MNIST's server does not answer" in small.source
    write_tiny_mnist(tmp_path / "home" / "data")
    found = load_digits()
    assert found.source == f"MNIST from {tmp_path / 'home' / 'data'} (HETEROFED_DATA={tmp_path} holds no MNIST)"


def test_the_small_digits_can_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_mnist(tmp_path / "home" / "data")
    assert load_digits("sklearn").source.endswith("(as asked)")
    monkeypatch.setenv("HETEROFED_DATA", "sklearn")
    assert load_digits().source.endswith("(as HETEROFED_DATA asks)")


def test_the_small_digits_look_like_mnist_and_never_change() -> None:
    small, again = load_digits("sklearn"), load_digits("sklearn", train=100, test=10)
    assert small.train_images.shape == (1437, 1, 28, 28)
    assert small.test_images.shape == (360, 1, 28, 28)
    assert (small.train_images.dtype, small.train_labels.dtype) == (torch.float32, torch.int64)
    assert small.train_images.min().item() == pytest.approx((0 - 0.1307) / 0.3081)
    assert small.train_images.max().item() == pytest.approx((1 - 0.1307) / 0.3081)
    assert sorted(set(small.test_labels.tolist())) == list(range(10))
    assert torch.equal(again.train_images, small.train_images[:100])
    assert torch.equal(again.test_labels, small.test_labels[:10])


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'heterofed\[demos\]'"):
        load_digits("sklearn")


@pytest.mark.parametrize("counts", [{"train": 0}, {"test": -1}])
def test_a_count_below_one_is_refused(counts: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        load_digits("sklearn", **counts)


# -- the download ----------------------------------------------------------------------------------------------


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        monkeypatch.setattr(data, "_MIRROR", f"http://127.0.0.1:{deaf.getsockname()[1]}/labels")
        monkeypatch.setattr(data, "_PROBE_TIMEOUT_S", 0.2)
        begin = time.monotonic()
        assert "does not answer" in load_digits().source
        assert time.monotonic() - begin < 5


def test_a_name_server_that_never_answers_is_given_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def never(*_: object) -> None:
        over.wait(timeout=8)
        raise OSError("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", never)  # it takes no time limit
    monkeypatch.setattr(data, "_PROBE_TIMEOUT_S", 0.2)
    begin = time.monotonic()
    assert "does not answer" in load_digits().source
    assert time.monotonic() - begin < 5
    over.set()


@pytest.mark.usefixtures("mirror")
def test_a_download_is_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_DOWNLOAD", WRITES_TINY_MNIST)
    first = load_digits()
    assert first.source == f"MNIST from {tmp_path / 'home' / 'data'}"
    monkeypatch.setattr(data, "_DOWNLOAD", "raise SystemExit(1)")
    assert torch.equal(load_digits().train_images, first.train_images)
    assert [path.name for path in (tmp_path / "home" / "data").iterdir()] == ["MNIST"]


@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("raise SystemExit(1)", "CalledProcessError"),
        ("import time; time.sleep(60)", "TimeoutExpired"),
        ("pass", "FileNotFoundError"),
    ],
)
def test_a_download_that_fails_or_hangs_leaves_nothing_behind(
    script: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_DOWNLOAD", script)
    monkeypatch.setattr(data, "_DOWNLOAD_TIMEOUT_S", 1.0)
    assert f"the download of MNIST failed ({fault})" in load_digits().source
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]


# -- damaged files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:3],
        lambda content: b"",
        lambda content: b"\0\0\x09" + content[3:],
        lambda content: content[:4] + b"\xff\xff\xff\xff" * 3 + content[16:],
    ],
)
def test_a_damaged_file_is_named(damage: object, tmp_path: Path) -> None:
    write_tiny_mnist(tmp_path)
    file = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    if callable(damage):
        file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ConfigError, match=r"MNIST/raw cannot be read .*download MNIST again"):
        load_digits(str(tmp_path))


def test_pictures_and_labels_of_different_number_are_refused(tmp_path: Path) -> None:
    write_tiny_mnist(tmp_path)
    (tmp_path / "MNIST/raw/train-labels-idx1-ubyte").write_bytes(idx_bytes(torch.zeros(29)))
    with pytest.raises(ConfigError, match=r"holds 30 pictures of .* and 29 labels"):
        load_digits(str(tmp_path), train=5)


# -- ids and stripes -------------------------------------------------------------------------------------------


def test_every_picture_has_its_own_id(tmp_path: Path) -> None:
    write_tiny_mnist(tmp_path, train=12, test=2)
    ids = sample_ids(load_digits(str(tmp_path)))
    assert ids[:2] == ["train-00000", "train-00001"]
    assert ids[11:] == ["train-00011", "test-00000", "test-00001"]
    assert len(set(ids)) == 14


def test_two_stripes_are_the_halves() -> None:
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(left_half(images), images[..., :14])
    assert torch.equal(right_half(images), images[..., 14:])


@pytest.mark.parametrize("parts", range(1, 10))
def test_stripes_of_nearly_equal_width_make_up_the_picture(parts: int) -> None:
    images = torch.rand(2, 1, 28, 28)
    stripes = [column_slice(images, part, parts) for part in range(parts)]
    assert torch.equal(torch.cat(stripes, dim=3), images)
    widths = [stripe.shape[3] for stripe in stripes]
    assert max(widths) - min(widths) <= 1
    assert widths == [end - first for first, end in (column_bounds(part, parts) for part in range(parts))]


@pytest.mark.parametrize(("part", "parts"), [(2, 2), (-1, 2), (0, 0), (0, 29)])
def test_a_stripe_that_is_not_there_is_refused(part: int, parts: int) -> None:
    with pytest.raises(ConfigError, match=f"stripe {part} of {parts}"):
        column_bounds(part, parts)

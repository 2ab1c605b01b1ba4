"""A party's key: made once, the same for everybody who asks, for its owner's eyes only."""

from __future__ import annotations

import os
import stat
import traceback
from pathlib import Path

import pytest
from zmq.utils import z85

from heterofed.errors import ConfigError, OutputError
from heterofed.wire.keys import KeyPair, check_public_key, create, load, load_or_create
from tests.wire import processes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "keys"


def test_a_key_is_made_once_and_then_found_again(folder: Path) -> None:
    made = load_or_create(folder, "bank")
    assert load_or_create(folder, "bank") == made
    assert load_or_create(folder, "shop") != made
    assert len(made.public) == len(made.secret) == 40


def test_only_the_owner_can_read_the_file_and_enter_the_folder(folder: Path) -> None:
    load_or_create(folder, "bank")
    assert stat.S_IMODE((folder / "bank.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == ["bank.key"]


def test_the_file_is_private_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        load_or_create(folder, "bank")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "bank.key").stat().st_mode) == 0o600


@pytest.mark.processes
def test_processes_that_start_at_once_get_the_same_key(folder: Path) -> None:
    code = (
        "from pathlib import Path\nfrom heterofed.wire.keys import load_or_create\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        "for n in range(30): print(load_or_create(Path(sys.argv[1]), f'bank{n}').public.decode())\n"
    )
    running = [processes.start(code, str(folder)) for _ in range(3)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = {processes.finish(process) for process in running}
    assert len(outputs) == 1
    assert len(outputs.pop().split()) == 30
    assert len(list(folder.iterdir())) == 30


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_read_is_refused_with_the_remedy(folder: Path, mode: int) -> None:
    load_or_create(folder, "bank")
    path = folder / "bank.key"
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"others may read.*chmod 600 {path}"):
        load_or_create(folder, "bank")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_to_is_refused_with_the_remedy(folder: Path, mode: int) -> None:
    folder.mkdir(parents=True)
    folder.chmod(mode)
    with pytest.raises(ConfigError, match=f"others may write.*chmod 700 {folder}"):
        load_or_create(folder, "bank")
    assert list(folder.iterdir()) == []


def test_a_file_that_holds_no_key_is_refused_and_stays_as_it_is(folder: Path) -> None:
    key = load_or_create(folder, "bank")
    path = folder / "bank.key"
    whole = path.read_bytes()
    other = KeyPair.generate().public
    for content in (
        b"",
        whole[:-1],
        whole + b"more\n",
        whole.replace(key.public, other),
        whole.replace(key.secret, b" " * 40),
        bytes(10_000),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"does not hold a key.*backup") as caught:
            load_or_create(folder, "bank")
        assert key.secret.decode() not in str(caught.value)
        assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["", "../bank", "a/b", "a\\b", "a b", "bänk", "bank\n", "\0", "x" * 101])
def test_a_name_that_is_no_feature_key_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a key"):
        load_or_create(folder, name)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["bank", "bank-2_b.c", "..", "0"])
def test_every_feature_key_stays_inside_the_folder(folder: Path, name: str) -> None:
    load_or_create(folder, name)
    assert [path.name for path in folder.iterdir()] == [f"{name}.key"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"bank.*cannot be read or written.*HETEROFED_HOME"):
        load_or_create(tmp_path / "file" / "keys", "bank")


def test_a_failed_write_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OutputError, match="No space left on device"):
        load_or_create(folder, "bank")
    assert list(folder.iterdir()) == []


def test_a_key_pair_never_shows_its_secret() -> None:
    key = KeyPair.generate()
    assert key.secret.decode() not in f"{key!r} {key} {[key]}"
    assert key.public.decode() in repr(key)


def test_halves_that_do_not_belong_together_are_refused() -> None:
    one, two = KeyPair.generate(), KeyPair.generate()
    for public, secret in ((one.public, two.secret), (one.public, b"x"), (one.public[:-1], one.secret), (b"", b"")):
        with pytest.raises(ConfigError, match="do not belong together") as caught:
            KeyPair(public, secret)
        assert two.secret.decode() not in str(caught.value)


def test_a_new_key_is_found_and_never_overwritten(folder: Path) -> None:
    key = create(folder, "bank")
    assert load(folder, "bank") == load_or_create(folder, "bank") == key
    with pytest.raises(ConfigError, match=rf"there is a key {folder}/bank.key already; expected a name without a key"):
        create(folder, "bank")
    assert load(folder, "bank") == key
    assert [path.name for path in folder.iterdir()] == ["bank.key"]


def test_a_key_that_is_not_there_is_said_so_and_not_made(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no key .*bank\.key; .* `heterofed keys new bank`"):
        load(folder, "bank")
    assert not folder.exists()


def test_looking_at_a_key_refuses_one_that_others_may_read_or_replace(folder: Path) -> None:
    create(folder, "bank")
    (folder / "bank.key").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load(folder, "bank")
    (folder / "bank.key").chmod(0o600)
    folder.chmod(0o770)
    for look in (load, create):
        with pytest.raises(ConfigError, match="chmod 700"):
            look(folder, "bank")


def test_a_broken_key_file_shows_nothing_of_itself_even_to_a_traceback_with_local_variables(folder: Path) -> None:
    key = create(folder, "bank")
    path = folder / "bank.key"
    secret = key.secret.decode()
    for content in (path.read_bytes() + b"x", path.read_bytes().replace(key.public, KeyPair.generate().public)):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load(folder, "bank")
        frames = caught.value.__traceback__
        assert frames is not None
        told = traceback.TracebackException(ConfigError, caught.value, frames.tb_next, capture_locals=True)
        assert secret not in "".join(told.format())


def test_a_public_key_is_what_keys_show_prints() -> None:
    key = KeyPair.generate().public
    assert check_public_key(f" {key.decode()}\n") == key


LOW_ORDER = [bytes(32), b"\x01" + bytes(31), bytes.fromhex("ecff" + "ff" * 29 + "7f")]  # RFC 7748, section 7


@pytest.mark.parametrize(
    "text",
    ["", "short", "x" * 39, "x" * 41, "~" * 40, "ä" * 40, "#" * 40, *(z85.encode(each).decode() for each in LOW_ORDER)],
)
def test_what_is_no_public_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"a text of {len(text)} characters is no public key; .*single quotes"
    ) as caught:
        check_public_key(text)
    assert not text or text not in str(caught.value)

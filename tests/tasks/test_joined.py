from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from heterofed.config import Settings
from heterofed.errors import ConfigError
from heterofed.tasks import Directory, GuestList, HostAddress, TaskStore, open_directory
from heterofed.tasks.client import HubClient
from heterofed.tasks.directory import host_in
from heterofed.tasks.joined import Joined, pin, read_joined, remember

KEY, FALSE_KEY, SHOP_KEY = b"k" * 40, b"f" * 40, b"s" * 40
NEW = "new"


def test_what_was_joined_is_there_again_in_a_file_for_this_user_alone(home: Path) -> None:
    joined = Joined("shop", "http://hub:1", "secret", {"bank": KEY})
    remember(home, "abc", joined)
    remember(home, "def", Joined("shop"))

    assert read_joined(home) == {"abc": joined, "def": Joined("shop")}
    assert stat.S_IMODE((home / "joined.json").stat().st_mode) == 0o600
    assert "secret" not in repr(joined)
    assert {path.name for path in home.iterdir()} <= {"joined.json", ".joined.json.lock"}


def test_pinned_keys_stay_when_a_task_is_joined_again(home: Path) -> None:
    pin(home, "abc", "bank", KEY)
    remember(home, "abc", Joined("shop", "http://hub:1", NEW))
    assert read_joined(home)["abc"] == Joined("shop", "http://hub:1", NEW, {"bank": KEY})
    pin(home, "abc", "shop", SHOP_KEY)
    assert read_joined(home)["abc"].token == NEW
    assert read_joined(home)["abc"].keys == {"bank": KEY, "shop": SHOP_KEY}


def test_many_that_join_at_once_are_all_remembered(home: Path) -> None:
    threads = [threading.Thread(target=pin, args=(home, f"task{n}", "bank", KEY)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(read_joined(home)) == 12


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"tasks": {"abc": []}}', '{"tasks": {"abc": {"token": 7}}}'])
def test_a_file_that_is_none_of_ours_is_refused_and_stays(home: Path, content: str) -> None:
    home.mkdir()
    path = home / "joined.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"joined\.json cannot be understood"):
        remember(home, "abc", Joined("shop"))
    assert path.read_text() == content


def test_a_file_that_others_may_read_is_refused(home: Path) -> None:
    pin(home, "abc", "bank", KEY)
    (home / "joined.json").chmod(0o644)
    with pytest.raises(ConfigError, match=r"others may read .*joined\.json; expected mode 0600\. Run: chmod 600"):
        open_directory(Settings(home=home))


# -- where a task is --------------------------------------------------------------------------------------------------


def test_a_joined_task_is_at_its_hub_with_its_token_and_others_where_the_settings_say(home: Path) -> None:
    remember(home, "abc", Joined("shop", "http://one:1", "t"))
    remember(home, "here", Joined("shop"))
    plain = Settings(home=home)
    with_hub = Settings(home=home, hub="http://two:2", token=NEW)

    assert isinstance(open_directory(plain).store, TaskStore)
    assert isinstance(open_directory(plain, "other").store, TaskStore)
    for settings in (plain, with_hub):
        joined = open_directory(settings, "abc")
        assert isinstance(joined.store, HubClient)
        assert (joined.store.where, joined.joined_as) == ("http://one:1", "shop")
    assert open_directory(with_hub, "other").store.where == "http://two:2"
    assert open_directory(with_hub).store.where == "http://two:2"
    assert isinstance(open_directory(with_hub, "here").store, TaskStore)


def test_a_key_that_is_pinned_wins_over_what_the_record_lists(tmp_path: Path) -> None:
    store = TaskStore(tmp_path / "hub.db")
    task_id = store.create("t", ["bank", "shop"]).id
    store.set_party(task_id, "bank", role="host", endpoint="tcp://127.0.0.1:1", public_key=FALSE_KEY)
    store.set_party(task_id, "shop", role="collaborator", public_key=SHOP_KEY)
    honest = Directory(store, tmp_path, {})
    pinned = Directory(store, tmp_path, {task_id: {"bank": KEY}})

    assert host_in(honest.find(task_id)) == HostAddress("bank", "tcp://127.0.0.1:1", FALSE_KEY)
    assert host_in(pinned.find(task_id)) == HostAddress("bank", "tcp://127.0.0.1:1", KEY)
    guests = GuestList(pinned, task_id)
    assert [guests.party_of(key) for key in (FALSE_KEY, KEY, SHOP_KEY)] == [None, "bank", "shop"]
    assert pinned.find(task_id).party("bank").key_trusted


def test_a_record_cannot_give_a_pinned_key_to_another_party(tmp_path: Path) -> None:
    store = TaskStore(tmp_path / "hub.db")
    task_id = store.create("t", ["bank", "shop", "mill"]).id
    store.set_party(task_id, "mill", public_key=SHOP_KEY)
    directory = Directory(store, tmp_path, {task_id: {"shop": SHOP_KEY}})

    assert GuestList(directory, task_id).party_of(SHOP_KEY) == "shop"
    assert directory.find(task_id).party("mill").public_key is None

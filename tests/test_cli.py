"""The `heterofed` command, as people type it."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from heterofed import Settings
from heterofed.cli import main
from heterofed.frames.messages import PROTOCOL_VERSION
from heterofed.tasks.directory import open_directory
from heterofed.tasks.joined import Joined, remember
from heterofed.tasks.model import PartyStatus, TaskStatus
from heterofed.wire.keys import KeyPair, create, load
from tests.forked import Forked

HETEROFED = Path(sys.executable).with_name("heterofed")


def heterofed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HETEROFED), *arguments], capture_output=True, text=True, timeout=50)


def test_creating_a_task_prints_its_id_alone_on_the_last_line() -> None:
    done = heterofed("task", "create", "--name", "split-mnist", "--parties", "demo_host,demo_collaborator")

    assert done.returncode == 0
    task_id = done.stdout.splitlines()[-1]
    task = open_directory(Settings.from_env()).find(task_id)
    assert task.name == "split-mnist"
    assert task.feature_keys == ("demo_host", "demo_collaborator")
    assert done.stdout == f"{task_id}\n"


@pytest.mark.parametrize(
    ("parties", "text"),
    [("a,a", "a named more than once"), ("a", "a task of 1 parties"), ("a,b c", "a feature_key is 'b c'")],
)
def test_parties_that_cannot_be_are_refused_with_one_message(parties: str, text: str) -> None:
    done = heterofed("task", "create", "--parties", parties)

    assert done.returncode == 1
    assert done.stderr.startswith("ConfigError: ")
    assert text in done.stderr
    assert done.stderr.splitlines()[1:] == ["See docs/reference/errors.md#configerror"]


def test_tasks_are_listed_and_shown_with_their_parties_and_log() -> None:
    store = open_directory(Settings.from_env()).store
    task = store.create("credit", ["bank", "shop"])
    store.set_party(task.id, "shop", status=PartyStatus.REJECTED, reason="no rows")
    store.log(task.id, "bank", "data looked at")

    listed, shown = heterofed("task", "list"), heterofed("task", "show", task.id)

    for told in (task.id, "credit", "CREATED", "bank, shop"):
        assert told in listed.stdout
    for told in (task.id, "credit", "CREATED", "bank", "shop", "REJECTED", "no rows", "bank: data looked at"):
        assert told in shown.stdout


@pytest.mark.parametrize("columns", [80, 40])
def test_an_id_and_the_names_of_parties_are_listed_whole_in_a_narrow_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parties = ["general_hospital_north", "pharmacy_of_the_station", "insurance_of_the_miners"]
    store = open_directory(Settings.from_env()).store
    task = store.create("readmission within a month, second attempt", parties, lives_for=timedelta(days=7))
    monkeypatch.setenv("COLUMNS", str(columns))

    listed, shown = (run(capsys, monkeypatch, "task", *words)[1] for words in (["list"], ["show", task.id]))

    assert task.id in listed
    assert "…" not in listed and "…" not in shown
    cells = "".join(line.rpartition("│")[0].rpartition("│")[2].strip() for line in listed.splitlines())
    assert columns < 80 or all(each in cells for each in parties)


def test_a_failed_task_says_why() -> None:
    store = open_directory(Settings.from_env()).store
    task = store.create("credit", ["bank", "shop"])
    store.move(task.id, TaskStatus.FAILED, "shop never came")

    assert "shop never came" in heterofed("task", "show", task.id).stdout


def test_an_unknown_task_is_one_message_and_exit_code_1() -> None:
    done = heterofed("task", "show", "nosuchtask")

    assert done.returncode == 1
    assert done.stderr.startswith("UnknownTask: there is no task 'nosuchtask'")
    assert done.stderr.splitlines()[1:] == ["See docs/reference/errors.md#unknowntask"]


def test_the_command_is_a_module_too_and_says_its_version() -> None:
    done = subprocess.run([sys.executable, "-m", "heterofed", "--version"], capture_output=True, text=True, timeout=50)

    assert done.returncode == 0
    assert done.stdout == f"heterofed 0.1.0, protocol {PROTOCOL_VERSION}\n"


# --- tasks that end, and keys -----------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; its exit code and what it printed."""
    monkeypatch.setattr(sys, "argv", ["heterofed", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    said = capsys.readouterr()
    return int(caught.value.code or 0), said.out, said.err


def test_a_task_that_expires_shows_when(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run(capsys, monkeypatch, "task", "create", "--parties", "bank,shop", "--expires", "7d")
    assert code == 0
    task_id = out.strip()
    task = open_directory(Settings.from_env()).find(task_id)
    assert task.expires_at is not None
    assert task.expires_at - task.created_at == timedelta(days=7)
    when = f"{task.expires_at.astimezone():%Y-%m-%d}"
    assert f"expires {when}" in run(capsys, monkeypatch, "task", "show", task_id)[1]
    listed = run(capsys, monkeypatch, "task", "list")[1]
    assert "expires" in listed
    assert when in listed


def test_a_duration_that_is_none_is_refused_and_creates_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run(capsys, monkeypatch, "task", "create", "--parties", "bank,shop", "--expires", "1 week")
    assert (code, out) == (1, "")
    assert err.startswith("ConfigError: '1 week' is no duration; expected minutes, hours or days up to 3650d")
    assert open_directory(Settings.from_env()).store.list() == ()


def test_a_task_is_cancelled_with_a_reason_also_after_it_failed_and_not_after_it_was_completed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_directory(Settings.from_env()).store
    task_id = store.create("credit", ["bank", "shop"]).id
    store.move(task_id, TaskStatus.FAILED, "shop never came")
    reason = "wrong [table]"

    code, _, err = run(capsys, monkeypatch, "task", "cancel", "--reason", reason, task_id)

    assert (code, err) == (0, f"task {task_id} is cancelled\n")
    assert (store.get(task_id).status, store.get(task_id).reason) == (TaskStatus.CANCELLED, reason)
    assert reason in run(capsys, monkeypatch, "task", "show", task_id)[1]
    done = store.create("done", ["bank", "shop"]).id
    for status in (TaskStatus.GATHERING, TaskStatus.ONGOING, TaskStatus.COMPLETED):
        store.move(done, status)
    code, _, err = run(capsys, monkeypatch, "task", "cancel", done)
    assert code == 1
    assert err.startswith("ConfigError: a task that is COMPLETED cannot become CANCELLED")


def test_a_key_is_made_once_shown_and_trusted_and_its_secret_stays_in_the_file(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, made, _ = run(capsys, monkeypatch, "keys", "new", "bank")
    key = load(home / "keys", "bank")
    assert (code, made) == (0, f"{key.public.decode()}\n")
    again = run(capsys, monkeypatch, "keys", "new", "bank")
    shown = run(capsys, monkeypatch, "keys", "show", "bank")
    task_id = task_of("bank", "shop")
    trusted = run(capsys, monkeypatch, "keys", "trust", task_id, "bank", key.public.decode())

    assert again[:2] == (1, "")
    assert again[2].startswith(f"ConfigError: there is a key {home}/keys/bank.key already")
    assert shown == (0, made, "")
    assert trusted == (0, "", f"only the key {made[:8]}… is bank of task {task_id} now\n")
    party = open_directory(Settings.from_env()).find(task_id).party("bank")
    assert (party.public_key, party.key_trusted) == (key.public, True)
    assert f"{made[:8]}… trusted" in run(capsys, monkeypatch, "task", "show", task_id)[1]
    assert key.secret.decode() not in f"{made}{again}{shown}{trusted}"


def test_a_key_that_others_may_read_is_not_shown(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    create(home / "keys", "bank")
    (home / "keys" / "bank.key").chmod(0o644)
    code, out, err = run(capsys, monkeypatch, "keys", "show", "bank")
    assert (code, out) == (1, "")
    assert err == (
        f"ConfigError: others may read the key file {home}/keys/bank.key; expected mode 0600. "
        f"Run: chmod 600 {home}/keys/bank.key\nSee docs/reference/errors.md#configerror\n"
    )


@pytest.mark.parametrize("start", ["-", "--", "--help", "-h=", "--="])
def test_a_key_that_looks_like_an_option_is_a_key(
    start: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = start + "0" + KeyPair.generate().public.decode()[len(start) + 1 :]  # "--help=" would be another case
    task_id = task_of("bank", "shop")
    code, _, err = run(capsys, monkeypatch, "keys", "trust", task_id, "bank", key)
    owner = open_directory(Settings.from_env()).find(task_id).owner_of(key.encode())
    assert owner == "bank" or "is no public key" in err
    assert code in (0, 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["new", "../bank"], "a feature_key is '../bank'"),
        (["show", "bank"], "there is no key"),
        (["trust", "ID", "bank", "short"], "a text of 5 characters is no public key"),
        (["trust", "ID", "club", "KEY"], "has no party 'club'; expected one of bank, shop"),
        (["trust", "nothere", "bank", "KEY"], "there is no task 'nothere'"),
    ],
)
def test_keys_that_cannot_be_are_refused_with_one_message(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_for = {"ID": task_of("bank", "shop"), "KEY": KeyPair.generate().public.decode()}
    code, out, err = run(capsys, monkeypatch, "keys", *(stand_for.get(each, each) for each in arguments))
    assert (code, out) == (1, "")
    assert text in err
    assert err.count("\n") == 2


# --- heterofed psi ----------------------------------------------------------------------------------------------------

PATIENT = "patient-4711"


def task_of(*parties: str) -> str:
    return open_directory(Settings.from_env()).store.create("psi", parties).id


def all_at_once(*commands: Sequence[object], **environment: str) -> list[subprocess.CompletedProcess[str]]:
    """Run `heterofed psi …` for every party at the same time."""
    surroundings = {**os.environ, "HETEROFED_PROGRESS": "plain", **environment}
    started = [Forked(HETEROFED, ["psi", *map(str, command)], surroundings, apart=True) for command in commands]
    try:
        outputs = [process.communicate(timeout=60) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    done = [
        subprocess.CompletedProcess([], process.wait(), *output)
        for process, output in zip(started, outputs, strict=True)
    ]
    for each in done:
        assert PATIENT not in each.stdout + each.stderr
        assert "Traceback" not in each.stderr
    return done


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_two_parties_write_what_they_share_in_the_forms_that_they_like(tmp_path: Path) -> None:
    task_id = task_of("bank", "shop")
    (tmp_path / "bank.csv.gz").write_bytes(
        gzip.compress(f'age,id\n3,007\n4,"Smith, Jo"\n5,{PATIENT}\n6,Zo\u00eb\n7,8\n'.encode(), mtime=0)
    )
    (tmp_path / "shop.txt").write_bytes(f"\ufeffZoe\u0308\r\n{PATIENT} \r\nSmith, Jo\r\n007\r\n08\r\n".encode())

    host, other = all_at_once(
        ["host", "--ids", tmp_path / "bank.csv.gz", "--column", "id", "--out", tmp_path / "new" / "bank.csv", task_id],
        ["collaborator", "--ids", tmp_path / "shop.txt", "--out", tmp_path / "shared.txt", task_id],
    )

    assert (host.returncode, other.returncode) == (0, 0), host.stderr + other.stderr
    assert host.stderr == f"4 of 5 ids are shared; they are in {tmp_path / 'new' / 'bank.csv'}\n"
    assert other.stderr == f"4 of 5 ids are shared; they are in {tmp_path / 'shared.txt'}\n"
    shared = ["007", "Smith, Jo", "Zo\u00eb", PATIENT]
    text = (tmp_path / "new" / "bank.csv").read_text("utf-8")
    assert text == 'id\n007\n"Smith, Jo"\nZo\u00eb\n' + f"{PATIENT}\n"
    assert (tmp_path / "shared.txt").read_text("utf-8") == "".join(f"{each}\n" for each in shared)
    assert open_directory(Settings.from_env()).find(task_id).status is TaskStatus.COMPLETED


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_three_parties_where_only_the_host_is_told(tmp_path: Path) -> None:
    task_id = task_of("a", "b", "c")
    only_host = [task_id, "--reveal", "initiator", "--out"]
    for name, ids in (("a", [PATIENT, "7", "8", "9"]), ("b", ["7", "8", PATIENT]), ("c", ["9", "8", PATIENT])):
        (tmp_path / f"{name}.txt").write_text("\n".join(ids))

    done = all_at_once(
        *(
            [role, "--ids", tmp_path / f"{key}.txt", "--feature-key", key, *only_host, tmp_path / f"{key}-shared.txt"]
            for role, key in (("host", "a"), ("collaborator", "b"), ("collaborator", "c"))
        ),
        HETEROFED_PSI_PROTOCOL="ecdh",
    )

    assert [each.returncode for each in done] == [0, 0, 0], [each.stderr for each in done]
    assert done[0].stderr == f"2 of 4 ids are shared; they are in {tmp_path / 'a-shared.txt'}\n"
    assert done[1].stderr == done[2].stderr == "3 ids were matched; only the host learns which are shared\n"
    assert (tmp_path / "a-shared.txt").read_text() == f"8\n{PATIENT}\n"
    assert sorted(each.name for each in tmp_path.glob("*-shared.txt")) == ["a-shared.txt"]


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_two_parties_are_told_how_many_ids_they_share_and_nobody_which(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    task_id = task_of("a", "b")
    pd.DataFrame({"id": [7, 8, 9], "age": [1, 2, 3]}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text(f"id\n8\n9\n{PATIENT}\n10\n")
    out = tmp_path / "shared.csv"

    done = all_at_once(
        ["host", "--ids", tmp_path / "a.parquet", "--column", "id", "--reveal", "cardinality", "--out", out, task_id],
        ["collaborator", "--ids", tmp_path / "b.csv", "--reveal", "cardinality", task_id],
        HETEROFED_PSI_PROTOCOL="ecdh",
    )

    assert [(each.returncode, each.stderr) for each in done] == [
        (0, "2 of 3 ids are shared\n"),
        (0, "2 of 4 ids are shared\n"),
    ]
    assert not out.exists()


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_nothing_in_common_is_a_result_with_a_header_and_no_line(tmp_path: Path) -> None:
    task_id = task_of("a", "b")
    (tmp_path / "a.csv").write_text(f"patient,age\n{PATIENT},3\n")
    (tmp_path / "b.csv").write_text("id\n7\n8\n")

    host, other = all_at_once(
        ["host", "--ids", tmp_path / "a.csv", "--column", "patient", "--out", tmp_path / "host.csv", task_id],
        ["collaborator", "--ids", tmp_path / "b.csv", "--out", tmp_path / "other.csv", task_id],
    )

    assert (host.returncode, host.stderr) == (0, f"0 of 1 ids are shared; they are in {tmp_path / 'host.csv'}\n")
    assert (other.returncode, other.stderr) == (0, f"0 of 2 ids are shared; they are in {tmp_path / 'other.csv'}\n")
    assert (tmp_path / "host.csv").read_text() == "patient\n"
    assert (tmp_path / "other.csv").read_text() == "id\n"


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_parties_that_want_different_things_end_with_one_message_that_says_both(tmp_path: Path) -> None:
    task_id = task_of("a", "b")
    (tmp_path / "ids.txt").write_text(f"{PATIENT}\n")
    out = tmp_path / "shared.txt"

    done = all_at_once(
        ["host", "--ids", tmp_path / "ids.txt", "--out", out, task_id],
        ["collaborator", "--ids", tmp_path / "ids.txt", "--reveal", "initiator", "--out", out, task_id],
    )

    assert [each.returncode for each in done] == [1, 1]
    for each, name in zip(done, ("ConfigError: a, while", "TaskAborted: a, while"), strict=True):
        assert each.stderr.startswith(name)
        assert "b would match ids by rsa: only the host learns which are shared; expected what the" in each.stderr
        assert "every party learns which are shared). Agree on HETEROFED_PSI_PROTOCOL" in each.stderr
        assert each.stderr.splitlines()[1:] == [f"See docs/reference/errors.md#{name.split(':')[0].lower()}"]
    assert not out.exists()


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """Run `heterofed psi …` in this process; what it says before it ends with exit code 1."""
    monkeypatch.setattr(sys, "argv", ["heterofed", "psi", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    said = capsys.readouterr()
    assert PATIENT not in said.out + said.err
    assert said.err.count("\n") == 2
    return said.err


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        (
            "ids.csv",
            f"id\n{PATIENT}\n8\n{PATIENT}\n8\n",
            "AlignmentError: ids returned 4 ids of which 2 repeat an earlier",
        ),
        ("ids.csv", f'id\n{PATIENT}\n""\n', "DataError: the ids of {path} cannot be used: of 2 ids 1 are empty, or no"),
        ("ids.csv", "id\n", "AlignmentError: ids returned no ids; expected at least one."),
        ("ids.txt", "", "AlignmentError: ids returned no ids; expected at least one."),
        (
            "ids.csv",
            f"id,age\n{PATIENT},3\n",
            "DataError: {path} has 2 columns (id, age); expected one, or the name of",
        ),
        ("ids.csv", f"id\n{PATIENT}, Jo\n", "DataError: cannot read {path}: ParserWarning; expected a table"),
        ("ids.xlsx", "PK", "DataError: {path} has the name of no file that can be read here; expected a table"),
    ],
    ids=["repeated", "empty ones", "none in a table", "none in a text", "two columns", "comma", "Excel"],
)
def test_ids_that_cannot_be_used_are_refused_by_their_number_before_anybody_is_waited_for(
    name: str,
    content: str,
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / name
    path.write_text(content)

    for role in ("host", "collaborator"):
        said = refused(capsys, monkeypatch, role, "--ids", path, task_of("a", "b"))
        assert said.startswith(text.format(path=path))


@pytest.mark.parametrize(
    ("parties", "arguments", "text"),
    [
        (
            ("a", "b"),
            ["host", "--reveal", "cardinality"],
            "ConfigError: only the number of shared ids is to be revealed, by",
        ),
        (
            ("a", "b", "c"),
            ["collaborator"],
            "ConfigError: the task has 3 parties; expected --feature-key, one of a, b, c.",
        ),
        (("a", "b"), ["host", "--column", "id"], "DataError: "),
        (("a", "b"), ["host", "--feature-key", "x"], "ConfigError: "),
        (
            ("a", "b"),
            ["host", "--out", "shared.parquet"],
            "OutputError: the shared ids cannot be written as shared.parque",
        ),
    ],
    ids=["number by rsa", "which party", "column of a text", "no such party", "form of the output"],
)
def test_what_cannot_work_is_refused_before_anybody_is_waited_for(
    parties: tuple[str, ...],
    arguments: list[str],
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "ids.txt").write_text(f"{PATIENT}\n")

    said = refused(capsys, monkeypatch, *arguments, "--ids", tmp_path / "ids.txt", task_of(*parties))

    assert said.startswith(text)


def test_a_party_that_joined_by_an_invitation_need_not_say_which_of_three_it_is(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HETEROFED_GATHER_TIMEOUT_S", "0.3")
    (tmp_path / "ids.txt").write_text(f"{PATIENT}\n")
    task_id = task_of("a", "b", "c")
    remember(home, task_id, Joined("c"))

    said = refused(capsys, monkeypatch, "collaborator", "--ids", tmp_path / "ids.txt", task_id)

    assert said.startswith("PeerTimeout: c, while gathering the parties: no host was started")


def test_a_number_alone_is_not_for_three_parties(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HETEROFED_PSI_PROTOCOL", "ecdh")
    (tmp_path / "ids.txt").write_text(f"{PATIENT}\n")
    task_id = task_of("a", "b", "c")

    for role, key in (("host", "a"), ("collaborator", "b")):
        arguments = [role, "--feature-key", key, "--reveal", "cardinality", "--ids", tmp_path / "ids.txt", task_id]
        said = refused(capsys, monkeypatch, *arguments)
        assert said.startswith(
            "ConfigError: only the number of ids that 3 parties share is to be revealed; expected two"
        )


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_a_party_that_is_started_again_when_all_was_done_is_told_where_its_result_is(tmp_path: Path) -> None:
    task_id = task_of("bank", "shop")
    for key in ("bank", "shop"):
        (tmp_path / f"{key}.txt").write_text(f"{PATIENT}\n007\n")

    def command(role: str, key: str, *more: str, out: bool = True) -> list[object]:
        files = ["--ids", tmp_path / f"{key}.txt", *(["--out", tmp_path / f"{key}-shared.txt"] if out else [])]
        return [role, *files, *more, task_id]

    first = all_at_once(command("host", "bank"), command("collaborator", "shop"), HETEROFED_PSI_PROTOCOL="ecdh")
    assert [each.returncode for each in first] == [0, 0], first
    before = {key: (tmp_path / f"{key}-shared.txt").read_bytes() for key in ("bank", "shop")}

    again = all_at_once(
        command("host", "bank", "--recover"),
        command("collaborator", "shop", "--recover"),
        command("collaborator", "shop", "--recover", out=False),
        command("collaborator", "shop"),
        HETEROFED_PSI_PROTOCOL="ecdh",
    )

    assert [each.returncode for each in again] == [0, 0, 0, 1], again
    told = f"task {task_id} was completed before; the shared ids are in {tmp_path}/"
    assert [each.stderr for each in again[:3]] == [
        f"{told}bank-shared.txt\n",
        f"{told}shop-shared.txt\n",
        f"task {task_id} was completed before\n",
    ]
    assert f"task {task_id} is COMPLETED" in again[3].stderr
    assert {key: (tmp_path / f"{key}-shared.txt").read_bytes() for key in before} == before
    (tmp_path / "shop-shared.txt").unlink()  # nothing is there to be told of
    (lost,) = all_at_once(command("collaborator", "shop", "--recover"), HETEROFED_PSI_PROTOCOL="ecdh")
    assert lost.returncode == 1


@pytest.mark.processes
@pytest.mark.timeout(120)
@pytest.mark.parametrize("victim", ["bank", "shop"])
def test_a_party_that_is_killed_while_ids_are_matched_is_started_again_with_recover(
    tmp_path: Path, victim: str
) -> None:
    task_id, roles = task_of("bank", "shop"), {"bank": "host", "shop": "collaborator"}
    for first, key in enumerate(roles):
        (tmp_path / f"{key}.txt").write_text("".join(f"{number}\n" for number in range(10 * first, 4000)))

    def started(key: str, *more: str) -> subprocess.Popen[str]:
        files = ["--ids", str(tmp_path / f"{key}.txt"), "--out", str(tmp_path / f"{key}-shared.txt")]
        return subprocess.Popen(
            [str(HETEROFED), "psi", roles[key], *files, *more, task_id],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "HETEROFED_PROGRESS": "plain",
                "HETEROFED_PSI_PROTOCOL": "rsa",
                "HETEROFED_REJOIN_TIMEOUT_S": "60",
            },
        )

    processes = {key: started(key) for key in roles}
    try:
        told = processes[victim].stdout
        assert told is not None
        assert any("matching " in line and ("4000" in line or "3990" in line) for line in told)
        processes[victim].kill()
        assert processes[victim].wait() == -9
        for stream in (processes[victim].stdout, processes[victim].stderr):
            if stream is not None:
                stream.close()
        processes[victim] = started(victim, "--recover")
        for key, process in processes.items():
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            assert (tmp_path / f"{key}-shared.txt").read_text().count("\n") == 3990
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    assert open_directory(Settings.from_env()).find(task_id).status is TaskStatus.COMPLETED

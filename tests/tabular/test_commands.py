"""`heterofed train | evaluate | predict | serve | export`: the whole story as people type it, and what they mistype."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from msgspec.structs import replace

from heterofed.cli import main
from heterofed.cli.export import Form, export
from heterofed.cli.own_code import find_modules_of
from heterofed.cli.predict import (
    evaluate_host,
    predict_collaborator,
    predict_host,
)
from heterofed.cli.serve import all_of, serve_collaborator, stopped_by_signals
from heterofed.cli.tables import Absent
from heterofed.cli.train import train_collaborator, train_host
from heterofed.config import Settings
from heterofed.errors import ConfigError, DataError, HeterofedError, OutputError, PeerTimeout, TemplateError
from heterofed.report import read_summary
from heterofed.scheduler.manifest import read_manifest, write_manifest
from heterofed.tasks.directory import open_directory
from heterofed.tasks.model import TaskStatus
from heterofed.wire.keys import KeyPair, load
from tests.cli.words import heterofed

COLUMNS = ("a", "b", "c", "d")
ACCOUNT = ("opened", "matching", "matched")
"""What is noted of a session before its first request."""


OWN_MODEL = """
from torch import nn

def make(inputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 16), nn.Tanh())
"""


@pytest.fixture(autouse=True, scope="module")
def path_as_before() -> Iterator[None]:
    """The commands put the folder where they were typed on Python's path."""
    before = list(sys.path)
    yield
    sys.path[:] = before


def people(rows: int, seed: int = 0, first: int = 0) -> pd.DataFrame:
    """Rows whose label is a function of columns of both parties."""
    random = np.random.default_rng(seed)
    frame: pd.DataFrame = pd.DataFrame(random.normal(size=(rows, 4)), columns=list(COLUMNS))
    frame.insert(0, "id", [f"p{each}" for each in first + random.permutation(rows)])
    frame["city"] = random.choice(["Ulm", "Kiel", "Bonn"], rows)
    frame["y"] = np.where(frame[list(COLUMNS)].sum(axis=1) + (frame["city"] == "Ulm") > 0, "yes", "no")
    return frame


def bank(frame: pd.DataFrame, path: Path) -> Path:
    frame[["id", "y", "a", "b"]].to_csv(path, index=False)
    return path


def shop(frame: pd.DataFrame, path: Path) -> Path:
    frame[["id", "c", "d", "city"]].sample(frac=1, random_state=1).to_csv(path, index=False)
    return path


def new_task(*parties: str) -> str:
    return open_directory(Settings.from_env()).store.create("credit", parties or ("bank", "shop")).id


def together(*calls: Callable[[], object]) -> list[object]:
    """Make calls at the same time, the last one in this thread; what each returned or raised."""
    results: dict[int, object] = {}

    def work(place: int, call: Callable[[], object]) -> None:
        try:
            results[place] = call()
        except HeterofedError as error:
            results[place] = error

    threads = [threading.Thread(target=work, args=each) for each in enumerate(calls[:-1])]
    for each in threads:
        each.start()
    work(len(calls) - 1, calls[-1])
    for each in threads:
        each.join(30)
    return [results.get(place, "still running") for place in range(len(calls))]


def well(*calls: Callable[[], object]) -> None:
    for each in reversed(together(*calls)):  # the host's first
        if isinstance(each, BaseException):
            raise each
        assert each is None


@contextmanager
def nothing_written(*folders: Path) -> Iterator[None]:
    def there() -> list[tuple[str, bytes]]:
        files = [each for folder in folders for each in folder.rglob("*") if each.is_file()]
        return sorted((str(each), each.read_bytes()) for each in files if "home" not in each.parts)

    before = there()
    yield
    assert there() == before


# --- a run that other tests predict with --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a trained task, the tables, the ids of new people, and the home that knows the task."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HETEROFED_HOME", str(folder / "home"))
        patch.setenv("HETEROFED_PROGRESS", "off")
        patch.setenv("HETEROFED_GATHER_TIMEOUT_S", "20")
        patch.chdir(folder)
        old, new = people(240), people(60, seed=1, first=1000)
        bank(old, folder / "bank.csv"), shop(old, folder / "shop.csv")
        bank(new, folder / "new_bank.csv"), shop(new[new["id"] != "p1007"], folder / "new_shop.csv")
        (folder / "layers_of_the_shop.py").write_text(OWN_MODEL)
        task = new_task()
        well(
            lambda: train_collaborator(
                task, Path("shop.csv"), "id", seed=1, model="layers_of_the_shop:make", out=Path("runs/c")
            ),
            lambda: train_host(
                task, Path("bank.csv"), ["y"], "id", rounds=6, seed=2, batch_size=64, out=Path("runs/h")
            ),
        )
        yield folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where one command may change what it likes."""
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    monkeypatch.setenv("HETEROFED_HOME", str(folder / "home"))
    monkeypatch.chdir(folder)
    return folder


def predictions(path: Path = Path("predictions.csv")) -> pd.DataFrame:
    frame: pd.DataFrame = pd.read_csv(path, dtype=str, keep_default_na=False)
    return frame


def account_in(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / "audit.jsonl").read_text().splitlines()]


# --- training -----------------------------------------------------------------------------------------------------


def test_both_parties_have_a_run_with_models_and_the_host_a_report(trained: Path) -> None:
    host, collaborator = trained / "runs/h", trained / "runs/c"

    for name in ("run.json", "feature_model_bank.pt", "infer_model.pt", "labels.json", "model_card.md"):
        assert (host / name).is_file(), name
    assert (collaborator / "feature_model_shop.pt").is_file()
    assert not (collaborator / "labels.json").exists()
    assert (host / "report.html").is_file()
    found = json.loads((host / "evaluation.json").read_text())
    assert found["sets"]["test"]["scores"]["roc_auc"] > 0.9


def without_label(path: Path) -> list[str]:
    return ["--data", str(path), "--id", "id", "--label", "y"]


WRONG: dict[str, tuple[str, dict[str, Any], list[str], str]] = {
    "missing id column": ("host", {}, ["--id", "nr", "--label", "y"], "has no id column 'nr'"),
    "no such label": ("host", {}, ["--id", "id", "--label", "z"], "'z'"),
    "mixed id forms": ("host", {"id": ["7", "8.0"]}, ["--id", "id", "--label", "y"], "1 of 4 ids that are whole"),
    "repeated id": ("host", {"id": ["7", "7"]}, ["--id", "id", "--label", "y"], "repeats an id in 1 of 4 rows"),
    "label at a collaborator": ("collaborator", {}, ["--id", "id", "--label", "y"], "named at a collaborator"),
    "all missing": ("collaborator", {"c": ["", "", "", ""]}, ["--id", "id"], "column 'c' of table.csv has no value"),
    "wrong date": (
        "collaborator",
        {"c": ["2024-01-31", "31.1.2024", "2024-02-01", "2024-02-02"]},
        ["--id", "id"],
        "1 of 4 values that are no dates",
    ),
    "no features": ("collaborator", {"c": ["x", "x", "x", "x"]}, ["--id", "id"], "no column of table.csv is a feature"),
    "no label in a row": ("host", {"y": ["1", ""]}, ["--id", "id", "--label", "y"], "1 of 4 rows of table.csv have no"),
    "wrong fractions": ("host", {}, ["--id", "id", "--label", "y", "--fractions", "0.5,0.6,0"], "fractions"),
    "wrong hidden": ("collaborator", {}, ["--id", "id", "--hidden", "8;8"], "--hidden is '8;8'"),
    "no such model": ("collaborator", {}, ["--id", "id", "--model", "nowhere:make"], "nowhere:make cannot be imported"),
    "frozen and random": ("collaborator", {}, ["--id", "id", "--frozen"], "--frozen is given without --model"),
    "frozen and random at the host": (
        "host",
        {},
        ["--id", "id", "--label", "y", "--frozen"],
        "--frozen is given without --model",
    ),
    "unknown party": ("collaborator", {}, ["--id", "id", "--feature-key", "mill"], "mill"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_to_training_is_one_message_and_nothing_is_written(
    tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    role, changed, words, text = WRONG[what]
    table = {"id": ["1", "2", "3", "4"], "y": ["1", "0", "1", "0"], "c": ["5", "6.5", "7", "9"]}
    for name, cells in changed.items():
        table[name][: len(cells)] = cells
    if role == "collaborator":
        del table["y"]
    pd.DataFrame(table).to_csv("table.csv", index=False)
    task = new_task()

    with nothing_written(tmp_path):
        said = heterofed("train", role, "--data", "table.csv", "--out", "runs/x", *words, task)

    assert said.code == 1
    assert isinstance(said.error, ConfigError | DataError) and text in str(said.error)
    assert "\n" not in str(said.error)
    assert not (tmp_path / "runs").exists()
    assert "Traceback" not in said.err + capfd.readouterr().err


def test_a_folder_with_another_run_is_not_written_over(trained: Path, run: Path) -> None:
    with nothing_written(run):
        said = heterofed("train", "host", "--data", "bank.csv", "--id", "id", "--label", "y", "--out", "runs/h", "x")

    assert isinstance(said.error, ConfigError) and "runs/h is there already" in str(said.error)
    assert "--recover" in str(said.error)


@pytest.mark.parametrize(("role", "folder"), [("host", "runs/h"), ("collaborator", "runs/c")])
def test_a_party_that_is_started_again_after_the_end_says_where_the_run_is(run: Path, role: str, folder: str) -> None:
    task = open_directory(Settings.from_env()).store.list()[0].id
    words = ["--label", "y"] if role == "host" else []

    with nothing_written(run):
        said = heterofed("train", role, "--data", "gone.csv", *words, "--recover", "--out", folder, task)
        elsewhere = heterofed("train", role, "--data", "gone.csv", *words, "--recover", "--out", "nowhere", task)

    assert said.code == 0 and said.lines == [folder]
    assert isinstance(elsewhere.error, DataError) and "run.json" in str(elsewhere.error)


# --- predicting ---------------------------------------------------------------------------------------------------


def test_predictions_come_in_the_order_asked_and_say_which_ids_are_unknown(run: Path) -> None:
    asked = ["p1030", "p1007", "p1001", "nobody", "p1030", "p1055"]
    Path("ids.txt").write_text("\n".join(asked))

    well(
        lambda: predict_collaborator(Path("runs/c"), Path("new_shop.csv")),
        lambda: predict_host(
            Path("runs/h"), Path("predictions.csv"), ids=Path("ids.txt"), data=Path("new_bank.csv"), batch_size=2
        ),
    )

    found = predictions()
    assert list(found.columns) == ["id", "status", "prediction", "p_no", "p_yes", "absent"]
    assert found["id"].tolist() == asked
    assert found["status"].tolist() == ["predicted", "unknown", "predicted", "unknown", "predicted", "predicted"]
    assert found.iloc[0].tolist() == found.iloc[4].tolist()
    assert set(found.loc[[1, 3], ["prediction", "p_no", "p_yes", "absent"]].to_numpy().ravel()) == {""}
    for _, row in found[found["status"] == "predicted"].iterrows():
        assert abs(float(row["p_no"]) + float(row["p_yes"]) - 1) < 1e-6
        assert row["prediction"] == ("yes" if float(row["p_yes"]) > 0.5 else "no")


def test_a_served_collaborator_answers_one_request_after_the_other(run: Path) -> None:
    Path("one.csv").write_text("id,a,b\np1030,0.5,0.25\n")

    def ask() -> None:
        predict_host(Path("runs/h"), Path("all.csv"), data=Path("new_bank.csv"))
        predict_host(Path("runs/h"), Path("one_answer.csv"), ids=Path("one.csv"))
        evaluate_host(Path("runs/h"), Path("new_bank.csv"))

    well(lambda: serve_collaborator([Path("runs/c")], [Path("new_shop.csv")], sessions=3), ask)

    whole = predictions(Path("all.csv"))
    assert whole["status"].value_counts().to_dict() == {"predicted": 59, "unknown": 1}
    labels = pd.read_csv("new_bank.csv").set_index("id")["y"]
    known = whole[whole["status"] == "predicted"].set_index("id")["prediction"]
    assert (known == labels[known.index]).mean() > 0.8
    assert predictions(Path("one_answer.csv"))["status"].tolist() == ["predicted"]
    found = json.loads(Path("runs/h/evaluation-1/evaluation.json").read_text())
    assert [each["rows"] for each in found["sets"].values()] == [59]
    audit = account_in("runs/c")
    assert [each["event"] for each in audit if each["event"] != "asked"] == [*ACCOUNT, "closed"] * 3
    assert [each["declared"] for each in audit if each["event"] == "closed"] == [60, 1, 60]
    assert not any("p10" in json.dumps(each) for each in audit)


def test_a_collaborator_that_answers_once_keeps_the_same_account(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("one.csv").write_text("id,a,b\np1030,0.5,0.25\n")

    well(
        lambda: predict_collaborator(Path("runs/c"), Path("new_shop.csv")),
        lambda: predict_host(Path("runs/h"), Path("one_answer.csv"), ids=Path("one.csv")),
    )

    assert [each["event"] for each in account_in("runs/c")] == [*ACCOUNT, "asked", "closed"]
    told = capsys.readouterr().err.splitlines()
    assert "answered 1 request for 1 row of 1 shared id" in told
    assert "one_answer.csv has 1 row (1 predicted)" in told


def test_only_where_a_run_names_code_of_ones_own_is_the_folder_looked_in_for_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", str(run))])

    find_modules_of(Path("runs/h"))
    assert str(run) not in sys.path
    find_modules_of(Path("runs/c"))
    assert sys.path[0] == str(run)


@pytest.mark.parametrize("absent", [Absent.mean, Absent.zeros])
def test_an_absent_party_is_stood_in_for_and_the_answer_says_so(
    run: Path, absent: Absent, capsys: pytest.CaptureFixture[str]
) -> None:
    predict_host(Path("runs/h"), Path("predictions.csv"), data=Path("new_bank.csv"), absent=absent, wait=0.3)

    found = predictions()
    assert set(found["status"]) == {"partial"} and set(found["absent"]) == {"shop"} and len(found) == 60
    assert "absent: shop" in capsys.readouterr().err


def test_an_absent_party_is_an_error_by_default_and_nothing_is_written(run: Path) -> None:
    with nothing_written(run), pytest.raises(PeerTimeout, match="shop"):
        predict_host(Path("runs/h"), Path("predictions.csv"), data=Path("new_bank.csv"), wait=0.3)


@pytest.mark.parametrize(
    ("absent", "stand_in"), [(Absent.mean, "the mean embedding of training"), (Absent.zeros, "zeros")]
)
def test_an_evaluation_without_a_party_says_what_stood_in_for_it(
    run: Path, absent: Absent, stand_in: str, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_host(Path("runs/h"), Path("new_bank.csv"), absent=absent, wait=0.3)

    found = read_summary(run / "runs/h/evaluation-1")
    page = (run / "runs/h/evaluation-1/report.html").read_text()
    assert found.with_stand_ins == found.sets["new rows"].rows == 60
    assert found.facts["rows with stand-ins"] == "60" and found.facts["stand-ins"] == stand_in
    assert found.facts["absent parties"] == "shop"
    assert f"60 of 60 rows were predicted with stand-ins ({stand_in})" in page
    assert "60 rows, 60 with stand-ins" in page and "all parties" not in page
    assert "60 rows of these with stand-ins" in capsys.readouterr().err


def test_an_evaluation_that_cannot_be_written_leaves_no_folder(run: Path) -> None:
    (run / "file").touch()

    with nothing_written(run):
        said = heterofed(
            *("evaluate", "host", "--run", "runs/h", "--data", "new_bank.csv", "--out", "file/evaluation"),
            *("--absent", "mean", "--wait", "0.2"),
        )

    assert isinstance(said.error, OutputError) and "cannot write file/evaluation" in str(said.error)
    assert "recover" not in str(said.error) and "give the command again" in str(said.error)


# --- what is wrong with a request ---------------------------------------------------------------------------------


def replaced(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


def flipped(path: str) -> None:
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 1
    Path(path).write_bytes(data)


HOST = ("predict", "host", "--run", "runs/h", "--out", "predictions.csv")
SHOP = ("predict", "collaborator", "--run", "runs/c", "--data", "new_shop.csv")

BAD: dict[str, tuple[Callable[[], object], tuple[str, ...], str]] = {
    "nothing asked": (lambda: None, HOST, "neither --ids nor --data is given"),
    "a file is there": (
        lambda: Path("predictions.csv").touch(),
        (*HOST, "--data", "new_bank.csv"),
        "predictions.csv is there already",
    ),
    "no csv": (
        lambda: None,
        ("predict", "host", "--run", "runs/h", "--out", "p.parquet", "--data", "new_bank.csv"),
        "predictions cannot be written as p.parquet",
    ),
    "ids without columns": (lambda: Path("ids.txt").write_text("p1"), (*HOST, "--ids", "ids.txt"), "has ids only"),
    "a column is not there": (
        lambda: replaced("new_bank.csv", "id,y,a,b", "id,y,a,z"),
        (*HOST, "--data", "new_bank.csv"),
        "lacks 1 of",
    ),
    "missing id column": (lambda: None, (*HOST, "--data", "new_bank.csv", "--id", "nr"), "has no id column 'nr'"),
    "text in a number": (
        lambda: spoilt("new_shop.csv"),
        SHOP,
        "column 'c'",
    ),
    "unseen category": (lambda: replaced("new_shop.csv", "Kiel", "Rom"), SHOP, "column 'city'"),
    "a collaborator's run at the host": (
        lambda: None,
        ("predict", "host", "--run", "runs/c", "--out", "p.csv", "--data", "new_bank.csv"),
        "collaborator",
    ),
    "no run": (
        lambda: None,
        ("predict", "host", "--run", "runs", "--out", "p.csv", "--data", "new_bank.csv"),
        "run.json",
    ),
    "another task": (lambda: None, (*SHOP, "othertask"), "othertask"),
    "another task at the host": (lambda: None, (*HOST, "--data", "new_bank.csv", "othertask"), "othertask"),
    "a changed model": (
        lambda: flipped("runs/c/feature_model_shop.pt"),
        SHOP,
        "runs/c/feature_model_shop.pt was changed",
    ),
    "a changed infer model": (
        lambda: flipped("runs/h/infer_model.pt"),
        (*HOST, "--data", "new_bank.csv"),
        "runs/h/infer_model.pt was changed",
    ),
    "a changed manifest": (lambda: flipped("runs/c/run.json"), SHOP, "is damaged"),
    "a changed encoder": (lambda: flipped("runs/c/encoder_shop.json"), SHOP, "encoder_shop.json"),
    "no labels to evaluate by": (
        lambda: replaced("new_bank.csv", "id,y,", "id,why,"),
        ("evaluate", "host", "--run", "runs/h", "--data", "new_bank.csv"),
        "has no label column 'y'",
    ),
    "more runs than tables": (
        lambda: None,
        ("serve", "collaborator", "--run", "runs/c", "--run", "runs/c", "--data", "new_shop.csv"),
        "2 runs, 1 table, 0 id columns and 0 host keys are given",
    ),
    "a key that is none": (
        lambda: None,
        ("serve", "collaborator", "--run", "runs/c", "--data", "new_shop.csv", "--host-key", "short"),
        "a text of 5 characters is no public key",
    ),
    "a key that is none, once": (lambda: None, (*SHOP, "--host-key", "short"), "is no public key"),
}


def spoilt(path: str) -> None:
    frame = pd.read_csv(path, dtype=str)
    frame.loc[0, "c"] = "many"
    frame.to_csv(path, index=False)


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_request_is_one_message_and_nothing_is_written(run: Path, what: str) -> None:
    prepare, words, text = BAD[what]
    prepare()

    with nothing_written(run):
        said = heterofed(*words)

    assert said.code == 1 and said.error is not None
    assert text in str(said.error)
    assert "\n" not in str(said.error)


# --- serving, as a process --------------------------------------------------------------------------------------------


def another_task_of(folder: Path, copy: Path) -> str:
    """Let a copy of a party's run be that of another task, which is completed; return its id."""
    shutil.copytree(folder, copy)
    made = read_manifest(copy)
    store = open_directory(Settings.from_env()).store
    task = store.create("again", made.parties).id
    for status in (TaskStatus.GATHERING, TaskStatus.ALIGNING, TaskStatus.ONGOING, TaskStatus.COMPLETED):
        store.move(task, status)
    store.set_party(task, made.parties[0], role="host")
    write_manifest(copy, replace(made, task_id=task))
    return task


def test_a_process_serves_two_runs_within_limits_and_each_to_the_holder_of_its_key(run: Path) -> None:
    task = another_task_of(Path("runs/c"), Path("runs/c2"))
    shutil.copytree("runs/h", "runs/h2")
    write_manifest(Path("runs/h2"), replace(read_manifest(Path("runs/h2")), task_id=task))
    right, wrong = load(run / "home" / "keys", "bank").public.decode(), KeyPair.generate().public.decode()
    Path("ids.txt").write_text("p1030\np1001\n")
    words = ["serve", "collaborator", "--rows-per-session", "30"]
    for folder, key in (("runs/c", right), ("runs/c2", wrong)):
        words += ["--run", folder, "--data", "new_shop.csv", "--host-key", key]
    log = run / "serving.txt"
    command = [sys.executable, "-m", "heterofed", *words]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as server:
        try:
            too_many = heterofed(*HOST, "--data", "new_bank.csv")
            fewer = heterofed(*HOST, "--data", "new_bank.csv", "--ids", "ids.txt")
            host = ("predict", "host", "--run", "runs/h2", "--out", "p2.csv", "--data", "new_bank.csv", "--wait", "3")
            refused = heterofed(*host)
        finally:
            server.send_signal(signal.SIGTERM)

    assert "NotAllowed" in str(too_many.error) and "asks for more than 30 rows in a session" in str(too_many.error)
    assert (fewer.code, fewer.err.splitlines()[-1]) == (0, "predictions.csv has 2 rows (2 predicted)")
    assert isinstance(refused.error, PeerTimeout) and "shop" in str(refused.error)
    said = log.read_text()
    assert server.returncode == 0 and said.splitlines()[-1] == "served 1 session"
    assert f"the host bank of task {task} comes with another key than the one given" in said
    assert "Traceback" not in said
    events = [account_in(each) for each in ("runs/c", "runs/c2")]
    assert [each["event"] for each in events[0]] == [*ACCOUNT, "closed", *ACCOUNT, "asked", "closed"]
    assert [each["outcome"].partition(":")[0] for each in events[0] if "outcome" in each] == ["NotAllowed", "completed"]
    assert [(each["event"], each["outcome"].partition(":")[0]) for each in events[1]] == [("refused", "NotAllowed")]


# --- serving several runs -----------------------------------------------------------------------------------------


def test_several_servers_run_side_by_side_and_an_error_of_one_ends_all() -> None:
    stop, both = threading.Event(), threading.Barrier(2, timeout=10)

    def good() -> int:
        both.wait()
        assert stop.wait(10)
        return 3

    def bad() -> int:
        both.wait()
        raise DataError("a file was changed")

    with pytest.raises(DataError, match="a file was changed"):
        all_of([good, bad], stop)
    assert all_of([good, lambda: (both.wait() and 2) or 2], stop) == [3, 2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_stops_the_servers_and_is_as_before_afterwards(number: signal.Signals) -> None:
    stop, before = threading.Event(), signal.getsignal(number)

    def server() -> int:
        os.kill(os.getpid(), number)
        return int(stop.wait(10))

    with stopped_by_signals(stop):
        assert all_of([server], stop) == [1]
    assert signal.getsignal(number) is before


# --- export -------------------------------------------------------------------------------------------------------


def test_a_run_is_exported_with_its_preprocessing_and_card(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(Path("runs/h"), Path("exported"), [Form.torchscript])

    names = {each.name for each in Path("exported").iterdir()}
    assert names >= {"feature_model.torchscript", "infer_model.torchscript", "preprocessing.json", "model_card.md"}
    assert capsys.readouterr().out.splitlines()[-1].endswith("export.json")
    again = heterofed("export", "--run", "runs/h", "--out", "exported")
    assert isinstance(again.error, ConfigError) and "is there already" in str(again.error)


# --- the commands themselves --------------------------------------------------------------------------------------


def test_help_does_not_load_what_only_training_needs() -> None:
    heavy = "{'torch', 'pandas', 'sklearn', 'matplotlib', 'onnx', 'pyarrow'}"
    code = f"import sys, heterofed.cli; print(sorted({heavy} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)

    assert done.stdout == "[]\n", done.stderr


def test_what_a_users_own_code_raised_is_shown_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        try:
            raise KeyError("their own")
        except KeyError as error:
            raise TemplateError("make_feature_model() raised KeyError", party="shop") from error

    monkeypatch.setattr("heterofed.cli.app", fail)
    with pytest.raises(SystemExit) as ended:
        main()

    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert "KeyError: 'their own'" in said
    assert said.splitlines()[-2] == "TemplateError: shop: make_feature_model() raised KeyError."

"""The notebooks run from a clean kernel without a warning, and what they show renders."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from ipykernel.kernelspec import write_kernel_spec
from nbclient import NotebookClient

from demos.mnist_split.data import SMALL_SET
from heterofed import Settings, TemplateError
from heterofed.metrics.progress import BarProgress
from heterofed.scheduler import plainly
from heterofed.tasks import TaskStatus, open_directory

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "demos" / "notebooks").glob("*.ipynb"))
PAIR = ("mnist_host", "mnist_collaborator")

MNIST = os.environ.get("HETEROFED_DATA") or SMALL_SET
"""Looked at before `home` of tests/conftest.py takes it away; without it, nothing is downloaded."""

FAILS = "raises-exception"
"""The tag of a cell that is to show an error; nbclient and Jupyter know it."""


V4: Any = nbformat.v4
"""Its functions have no annotations."""


def notebook_of(folder: Path, name: str) -> Any:
    return V4.reads((folder / f"{name}.ipynb").read_text(encoding="utf-8"))


def cells_of(notebook: Any, kind: str) -> list[Any]:
    return [each for each in notebook.cells if each.cell_type == kind]


def tags_of(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


def outputs_of(notebook: Any, kind: str) -> Iterator[Any]:
    for cell in cells_of(notebook, "code"):
        yield from (each for each in cell.outputs if each.output_type == kind)


def shown(notebook: Any) -> str:
    """Everything that a notebook shows as text."""
    streams = "".join(each.text for each in outputs_of(notebook, "stream"))
    results = (*outputs_of(notebook, "execute_result"), *outputs_of(notebook, "display_data"))
    return streams + "\n".join(each.data.get("text/plain", "") for each in results)


def pictures_in(cell: Any) -> int:
    return sum("image/png" in each.get("data", {}) for each in cell.outputs)


# --- as they are kept -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_without_outputs_and_begins_with_what_one_will_see(name: str) -> None:
    notebook = notebook_of(ROOT / "demos" / "notebooks", name)

    nbformat.validate(notebook)
    assert not any(cell.outputs or cell.execution_count for cell in cells_of(notebook, "code"))
    assert "widgets" not in notebook.metadata
    heading, _, paragraph = notebook.cells[0].source.partition("\n\n")
    assert re.fullmatch(r"# .+", heading)
    assert "will see" in paragraph and "\n" not in paragraph
    for target in re.findall(r"\]\(([^)#]+)\)", "\n".join(cell.source for cell in cells_of(notebook, "markdown"))):
        assert (ROOT / "demos" / "notebooks" / target).is_file(), f"{name} links to {target}"


# --- as they run ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The notebooks, copied so that nothing is written beside them, and a Jupyter that knows this interpreter only."""
    kernel = write_kernel_spec(tmp_path / "jupyter" / "kernels" / "heterofed")
    assert Path(kernel).is_dir()
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    variables = {
        "JUPYTER_PATH": str(tmp_path / "jupyter"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYTHONWARNINGS": "default",  # visible: a warning is an output, and no notebook may have one
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a debugger that nobody has asked for says otherwise that it is slow
        "OMP_NUM_THREADS": "1",
        "HETEROFED_PROGRESS": "auto",
        "HETEROFED_DATA": MNIST,
        "HETEROFED_GATHER_TIMEOUT_S": "45",
        "HETEROFED_REJOIN_TIMEOUT_S": "10",
    }
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    shutil.copytree(ROOT / "demos", tmp_path / "demos", ignore=shutil.ignore_patterns("runs", "__pycache__"))
    return tmp_path / "demos" / "notebooks"


def executed(folder: Path, *names: str, **parameters: object) -> list[Any]:
    """Run notebooks at the same time, each in a kernel of its own, and return them with their outputs."""
    notebooks = [notebook_of(folder, name) for name in names]
    for notebook in notebooks:
        for number, cell in enumerate(notebook.cells):
            if "parameters" in tags_of(cell):
                assert all(re.search(rf"^.*\b{name}\b.*=", cell.source, re.MULTILINE) for name in parameters)
                given = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
                notebook.cells.insert(number + 1, V4.new_code_cell(given))
                break

    async def run() -> None:
        await asyncio.gather(
            *(
                NotebookClient(
                    each,
                    timeout=100,
                    kernel_name="heterofed",
                    coalesce_streams=True,
                    shutdown_kernel="immediate",  # what it would still do takes 3 s
                    resources={"metadata": {"path": str(folder)}},
                ).async_execute()
                for each in notebooks
            )
        )

    asyncio.run(run())
    for name, notebook in zip(names, notebooks, strict=True):
        check_outputs(name, notebook)
    return notebooks


def check_outputs(name: str, notebook: Any) -> None:
    """Nothing on stderr, errors where they are meant and as one message, whole bars, and pictures that are pictures."""
    warned = [each.text for each in outputs_of(notebook, "stream") if each.name == "stderr"]
    assert not warned, f"{name}: {warned}"
    for cell in cells_of(notebook, "code"):
        errors = [each for each in cell.outputs if each.output_type == "error"]
        assert len(errors) == (FAILS in tags_of(cell)), f"{name}: {cell.source}"
        for error in errors:
            check_plain(error)
        wanted = len(re.findall(r"plt\.show\(\)|^Image\(|^figure_of\(", cell.source, re.MULTILINE))
        assert pictures_in(cell) == wanted, f"{name}: {cell.source}"
        for each in cell.outputs:
            text = each.get("data", {}).get("text/plain", "")
            assert not (text.startswith("  ") and "text/html" not in each.data), f"{name}: a table only as text: {text}"
    bars = bars_of(notebook)
    assert bars, f"{name}: no progress bar"
    unfinished = [each for each in bars if each["bar_style"] != "success" or each["value"] != each["max"]]
    assert len(unfinished) <= len(list(outputs_of(notebook, "error"))), f"{name}: {unfinished}"


def bars_of(notebook: Any) -> list[dict[str, Any]]:
    """Return the state of the progress widgets as they stand at the end."""
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {"state": {}})
    return [each["state"] for each in widgets["state"].values() if each["model_name"] == "FloatProgressModel"]


def check_plain(error: Any) -> None:
    """One message and where it is explained at the end, and above it at most the traceback of the cell's own code."""
    *before, message, place = "\n".join(error.traceback).splitlines()
    assert place == f"See docs/reference/errors.md#{error.ename.lower()}"
    assert message == f"{error.ename}: {error.evalue}"
    assert str(ROOT / "heterofed") not in "\n".join(before)


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_two_notebooks_train_split_mnist_with_each_other(folder: Path) -> None:
    task = open_directory(Settings.from_env()).store.create("split-mnist", ["left", "right"])

    host, collaborator = executed(folder, *PAIR, TASK_ID=task.id, TRAIN=600, TEST=200)

    assert open_directory(Settings.from_env()).find(task.id).status is TaskStatus.COMPLETED
    runs = folder / "runs" / task.id
    accuracies = [float(line.split(",")[1]) for line in (runs / "left" / "results.csv").read_text().splitlines()[1:]]
    assert len(accuracies) == 3 and accuracies[-1] > 0.4
    assert "results.csv" in shown(host) and "infer_model.pt" in shown(host)
    assert "feature_model_right.pt" in shown(collaborator) and "infer_model.pt" not in shown(collaborator)
    assert "listens at tcp://" in shown(host)  # a process each, and a network between them
    assert len(bars_of(host)) >= 3 and len(bars_of(collaborator)) >= 3


@pytest.mark.timeout(120)
def test_all_parties_train_in_one_notebook(folder: Path) -> None:
    (notebook,) = executed(folder, "all_in_one_process")

    assert "the same bits: True" in shown(notebook)
    wrong, own = outputs_of(notebook, "error")
    assert wrong.traceback == [f"ConfigError: {wrong.evalue}", "See docs/reference/errors.md#configerror"]
    assert own.ename == "TemplateError" and "each.upper()" in "\n".join(own.traceback)


@pytest.mark.timeout(120)
def test_two_tables_are_trained_on_and_new_patients_predicted(folder: Path) -> None:
    (notebook,) = executed(folder, "breast_cancer")

    text = shown(notebook)
    share = re.search(r"([\d.]+)% of 65 new patients", text)
    assert share is not None and float(share[1]) > 85
    assert "unknown" in text and "partial    69" in text
    assert (folder / "runs" / "breast-cancer" / "clinic" / "report.html").is_file()


@pytest.mark.timeout(120)
def test_hooks_are_seen_added_and_end_a_training(folder: Path) -> None:
    (notebook,) = executed(folder, "hooks")

    text = shown(notebook)
    ended = re.search(r"(\d+) of 20 rounds", text)
    assert ended is not None and int(ended[1]) < 20
    assert "IterationTimer.before_train" in text
    (error,) = outputs_of(notebook, "error")
    assert "Broken.before_round" in error.evalue and "ZeroDivisionError" in "\n".join(error.traceback)


@pytest.mark.timeout(120)
def test_metrics_are_read_four_ways(folder: Path) -> None:
    (notebook,) = executed(folder, "metrics_and_plots")

    text = shown(notebook)
    assert "round/wait_s/right" in text and "for right" in text
    assert sum(map(pictures_in, cells_of(notebook, "code"))) == 4


def test_every_notebook_is_run() -> None:
    tested = set(PAIR) | set(re.findall(r'executed\(folder, "(\w+)"\)', Path(__file__).read_text()))

    assert tested == set(NAMES)


# --- what notebooks need of heterofed ---------------------------------------------------------------------------------


def test_a_notebook_without_ipywidgets_has_bars_of_text_and_no_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [each for each in sys.modules if each.split(".")[0] == "tqdm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    shell = type("ZMQInteractiveShell", (), {"config": {"IPKernelApp": {}}})()
    ipython: Any = type("IPython", (), {"get_ipython": staticmethod(lambda: shell)})
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", ipython)  # by which tqdm knows a notebook
    view = BarProgress("hospital")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")  # tqdm would swallow one that is an error
        view.begin_round(1, 2, 8)
        view.advance(8, 0.5)
        view.end_round()

    assert not warned
    assert re.search(r"hospital round 1/2: 100%.* 8/8 ", capsys.readouterr().err)


def test_a_bar_counts_the_time_from_the_beginning_of_its_round(capsys: pytest.CaptureFixture[str]) -> None:
    view = BarProgress("hospital")
    view.begin_round(1, 1, 600)
    view._round_began -= 60  # a minute ago; a bar is drawn first when there is something to see
    view.advance(600, None)
    view.end_round()

    assert "01:00" in capsys.readouterr().err


@pytest.mark.parametrize(("phase", "shown"), [("comparing the splits", "10/10"), ("gathering the parties", "4/10")])
def test_the_bar_of_a_matching_is_whole_when_the_matching_is(
    phase: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    view = BarProgress("hospital")
    view.phase("matching ids")
    view.show_matching(4, 10, 1.0, None)  # the last look before its end
    view.phase(phase)

    assert shown in capsys.readouterr().err.split("\r")[-1]


def test_the_frames_that_led_to_the_users_code_are_left_out() -> None:
    def of_the_user() -> None:
        raise KeyError("no such row")

    def caught(path: str) -> TemplateError:
        names: dict[str, Any] = {"call": of_the_user}
        exec(compile("def run():\n    call()", path, "exec"), names)  # noqa: S102 - a frame of a file of ours
        try:
            names["run"]()
        except KeyError as error:
            failed = TemplateError("load_batch() raised KeyError", party="left")
            failed.__cause__ = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        return failed

    ours = str(Path(plainly.__file__).parent / "learner.py")

    lines = plainly.plain_lines(caught(ours))
    assert "of_the_user" in "\n".join(lines) and ours not in "\n".join(lines)
    assert lines[-2] == "TemplateError: left: load_batch() raised KeyError."
    assert "/elsewhere.py" in "\n".join(plainly.plain_lines(caught("/elsewhere.py")))


def test_a_traceback_of_our_code_alone_is_kept() -> None:
    names: dict[str, Any] = {}
    exec(compile("def run():\n    None.x", str(Path(plainly.__file__)), "exec"), names)  # noqa: S102 - as above
    failed = TemplateError("x")
    try:
        names["run"]()
    except AttributeError as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        failed.__cause__ = error
    assert any(line.startswith("  File ") for line in plainly.plain_lines(failed))

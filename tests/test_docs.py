"""The pages that users read are true: their code runs, their commands exist, their tables are those of the code."""

from __future__ import annotations

import errno
import importlib
import inspect
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import pytest

import heterofed.errors
import psi.cli
from heterofed import (
    AlignmentError,
    CollaboratorScheduler,
    HeterofedError,
    HostScheduler,
    OutputError,
    Settings,
    TaskFailed,
    run_locally,
)
from heterofed.files import refused
from heterofed.frames.codec import MAX_PLAIN_BYTES, Codec
from heterofed.frames.messages import AnyMessage, BatchesEnd, CloseRound
from heterofed.protocol.phases import Role, diagram
from heterofed.protocol.session import Session
from heterofed.scheduler.predicting.serve_limits import Allowance, ServeLimits
from heterofed.scheduler.standing import Standing, unfit
from heterofed.tasks import open_directory
from heterofed.training.hooks.base import POINTS
from heterofed.training.triggers import ALL_TRIGGERS
from heterofed.wire.headers import HEADER_BYTES, Kind
from heterofed.wire.parts import frame_sizes
from tests.cli.words import check_command
from tests.own_batches import OwnCollaborator, OwnHost
from tests.tiny import Collaborator, Host

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TUTORIAL = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs" / "tutorial").glob("*.md"))]
"""Five pages, and one script."""
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]

_BLOCK = re.compile(r"^```(\w*) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    mark: str
    text: str


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[Block]:
    text = text_of(page)
    found = [
        Block(page, text.count("\n", 0, each.start()) + 1, each[1], each[2], each[3]) for each in _BLOCK.finditer(text)
    ]
    return [each for each in found if each.language in languages]


def rows_of_table(page: str, first: str) -> list[list[str]]:
    """Return the cells of every table row of a page whose first cell matches `first`."""
    found = []
    for line in text_of(page).splitlines():
        cells = [each.strip() for each in line.strip().strip("|").split("|")]
        if line.startswith("|") and re.fullmatch(first, cells[0]):
            found.append(cells)
    return found


# --- Python -------------------------------------------------------------------------------------------------------


@pytest.fixture
def modules_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks that say `# name.py` in their first line can be imported by later ones."""
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def run_pages(pages: list[str], folder: Path) -> None:
    """Run the Python of pages one after the other, as one script."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in [block for page in pages for block in blocks(page, "python")]:
        if block.mark == "no-run":
            continue
        assert block.mark == "", f"{block.page}:{block.line} has the unknown mark {block.mark!r}"
        if module := re.match(r"# (\w+\.py)\n", block.text):
            (folder / module[1]).write_text(block.text)
        code = compile("\n" * block.line + block.text, str(ROOT / block.page), "exec")
        exec(code, namespace)  # noqa: S102 - our own pages


@pytest.mark.parametrize("page", [name for name in NAMES if blocks(name, "python") and name not in TUTORIAL])
def test_the_python_of_a_page_runs(page: str, tmp_path: Path, modules_of_a_page: None) -> None:
    run_pages([page], tmp_path)


def test_the_five_steps_of_the_tutorial_run_as_one_script(tmp_path: Path, modules_of_a_page: None) -> None:
    assert len(TUTORIAL) == 5
    run_pages(TUTORIAL, tmp_path)


def unrun(call: str) -> str:
    """Return the one block that is not run by itself and has this call."""
    found = [block.text for name in NAMES for block in blocks(name, "python") if block.mark == "no-run"]
    wanted = [text for text in found if call in text]
    assert len(wanted) == 1, f"{len(wanted)} blocks have {call}"
    return wanted[0]


def test_only_what_needs_other_processes_is_not_run() -> None:
    found = [block for name in NAMES for block in blocks(name, "python") if block.mark == "no-run"]

    assert len(found) == 3
    assert unrun('launch_task(task_id="ID")') and unrun(".open_predictions(") and unrun(".answer_predictions()")


@pytest.mark.processes
def test_the_two_processes_of_the_tutorial_train_and_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules_of_a_page: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is this process: every other one has to import torch first."""
    for block in [block for page in TUTORIAL for block in blocks(page, "python")]:
        if module := re.match(r"# (\w+\.py)\n", block.text):
            (tmp_path / module[1]).write_text(block.text)
    task = open_directory(Settings.from_env()).store.create("readmission", ["hospital", "pharmacy"])
    answering = unrun(".answer_predictions()").replace("ID", task.id)
    (tmp_path / "other.py").write_text(
        "import runpy\nfrom pathlib import Path\n"
        "runpy.run_path('pharmacy.py', run_name='__main__')\n"
        "from pharmacy import pharmacy\n" + answering
    )
    other = subprocess.Popen(
        [sys.executable, "other.py", task.id],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    monkeypatch.setattr(sys, "argv", ["hospital.py", task.id])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # launch_task puts its own there
    try:
        namespace = runpy.run_path(str(tmp_path / "hospital.py"), run_name="__main__")
        code = unrun(".open_predictions(").replace("ID", task.id)
        exec(code, {"hospital": namespace["hospital"], "Path": Path})  # noqa: S102 - our own pages
        output, _ = other.communicate(timeout=30)
    finally:
        other.kill()

    assert other.returncode == 0, output
    assert (tmp_path / "runs" / task.id / "hospital" / "scores.csv").is_file()
    assert (tmp_path / "runs" / task.id / "pharmacy" / "feature_model_pharmacy.pt").is_file()
    assert "['patient-0150', 'patient-0060'] tensor(" in capsys.readouterr().out
    assert output.splitlines()[-1] == "2"


@pytest.mark.parametrize("party", ["hospital", "pharmacy"])
def test_a_script_of_the_tutorial_without_an_id_says_how_it_is_called(
    party: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules_of_a_page: None
) -> None:
    for block in [block for page in TUTORIAL for block in blocks(page, "python")]:
        if module := re.match(r"# (\w+\.py)\n", block.text):
            (tmp_path / module[1]).write_text(block.text)
    monkeypatch.setattr(sys, "argv", [f"{party}.py"])

    with pytest.raises(SystemExit, match=f"usage: python {party}.py ID"):
        runpy.run_path(str(tmp_path / f"{party}.py"), run_name="__main__")


# --- commands -----------------------------------------------------------------------------------------------------


def commands(first_word: str) -> Iterator[tuple[str, list[str], bool]]:
    """Yield where it stands, the words, and whether it is whole, for every command in shell blocks and in prose."""
    for name in NAMES:
        for block in blocks(name, "bash", "console", "shell", "sh"):
            for number, line in enumerate(block.text.splitlines(), start=block.line + 1):
                for part in re.split(r"&&|;", line.split("#")[0]):
                    command = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", part.strip())
                    if command.startswith(first_word + " "):
                        yield f"{name}:{number}", shlex.split(command)[1:], True
        prose = _BLOCK.sub(lambda found: "\n" * found[0].count("\n"), text_of(name))
        for found in re.finditer(rf"`{re.escape(first_word)} ([^`\n]+)`", prose):
            yield f"{name}:{prose.count(chr(10), 0, found.start()) + 1}", shlex.split(found[1]), False


def test_every_heterofed_command_is_one() -> None:
    found = list(commands("heterofed"))

    for where, words, whole in found:
        if words[:2] == ["demo", "mnist"]:
            check_demo(words[2:], where)
        else:
            check_command(words, where, whole=whole)
    shown = {tuple(words[:2]) for _, words, _ in found}
    assert {("task", "create"), ("task", "list"), ("task", "show"), ("demo", "mnist")} <= shown


def check_demo(words: list[str], where: str) -> None:
    command_line = importlib.import_module("demos.mnist_split.command_line")
    try:
        command_line.parse(words)
    except SystemExit as end:
        assert end.code == 0, f"{where}: the demo does not take {words}"


def check_psi(words: list[str], where: str) -> None:
    try:
        psi.cli._parser().parse_args(words or ["--help"])
    except SystemExit as end:
        assert end.code == 0, f"{where}: python -m psi does not take {words}"


def test_every_script_that_is_called_is_there_with_its_options() -> None:
    known = set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', text_of("demos/mnist_split/options.py")))
    written = {found for name in NAMES for found in re.findall(r"^# (\w+\.py)$", text_of(name), re.MULTILINE)}
    seen = set()

    for where, words, whole in commands("python"):
        if words[:2] == ["-m", "psi"]:
            check_psi(words[2:] if whole else [*words[2:3], "--help"], where)
            continue
        script = words[0]
        assert (ROOT / script).is_file() or script in written, f"{where}: there is no {script}"
        if script.startswith("demos/mnist_split/"):
            unknown = {word for word in words if word.startswith("--")} - known
            assert not unknown, f"{where}: {script} has no {unknown}"
        seen.add(script)
    assert {"demos/mnist_split/host.py", "demos/mnist_split/collaborator.py", "hospital.py", "two_tables.py"} <= seen


def test_every_make_target_is_one() -> None:
    targets = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    found = list(commands("make"))

    assert {words[0] for _, words, _ in found} >= {"demo", "test", "check"}
    for where, words, _ in found:
        assert words[0] in targets, f"{where}: the Makefile has no {words[0]}"


# --- tables and pictures that follow the code ---------------------------------------------------------------------


def test_the_diagram_of_the_phases_is_that_of_the_table() -> None:
    found = re.search(
        r"<!-- phases: begin -->\n```mermaid\n(.*?)\n```\n<!-- phases: end -->",
        text_of("docs/reference/protocol.md"),
        re.S,
    )

    assert found is not None
    assert found[1] == diagram(), "put the output of heterofed.protocol.phases.diagram() there"


def test_every_message_is_in_the_table_with_its_direction() -> None:
    shown = {cells[0].strip("`"): cells[1] for cells in rows_of_table("docs/reference/protocol.md", r"`[A-Z]\w+`")}

    assert shown == {kind.__name__: (kind.__doc__ or "").split(":")[0].lower() for kind in get_args(AnyMessage)}


def test_every_kind_of_the_numbered_layer_is_in_its_table_and_the_sizes_are_those_of_the_code() -> None:
    text = text_of("docs/reference/protocol.md")

    assert [cells[0] for cells in rows_of_table("docs/reference/protocol.md", "[A-Z]+")] == [kind.name for kind in Kind]
    assert f"a header of {HEADER_BYTES} bytes" in text
    assert f"without one, {MAX_PLAIN_BYTES >> 20} MiB" in text


def test_every_error_has_its_section_and_no_example_is_of_another() -> None:
    classes = [
        name
        for name, value in vars(heterofed.errors).items()
        if isinstance(value, type) and issubclass(value, HeterofedError)
    ]
    text = text_of("docs/reference/errors.md")

    assert re.findall(r"^### (\w+)$", text, re.MULTILINE) == classes
    for name, section in re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL):
        for example in re.findall(r"^```text\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
            assert all(line.startswith(f"{name}: ") for line in example.splitlines()), example


def test_every_setting_is_in_the_table_with_its_default() -> None:
    shown = {
        cells[1].strip("`"): cells for cells in rows_of_table("docs/reference/configuration.md", r"`HETEROFED_\w+`")
    }

    assert list(shown) == [each.name for each in fields(Settings)]
    for name, cells in shown.items():
        assert cells[0] == f"`HETEROFED_{name.upper()}`"
        default = getattr(Settings(), name)
        written = cells[2].strip("`")
        if isinstance(default, Path):
            assert Path(written).expanduser() == default
        elif isinstance(default, bool):
            assert {"yes": True, "no": False}[written] is default
        elif isinstance(default, str | tuple) and not default:
            assert written == "none"
        else:
            assert type(default)(written) == default


def test_every_argument_of_a_scheduler_is_in_a_table_with_its_default() -> None:
    shown = {cells[0].strip("`"): cells[1] for cells in rows_of_table("docs/reference/configuration.md", r"`[a-z_]+`")}
    expected = {
        name: each.default
        for role in (CollaboratorScheduler, HostScheduler)
        for name, each in inspect.signature(role).parameters.items()
    }

    assert set(shown) == set(expected)
    for name, default in expected.items():
        if default not in (None, inspect.Parameter.empty):
            assert shown[name] == str(default), name


def test_the_page_on_recovery_has_the_defaults_of_its_settings() -> None:
    shown = {cells[0].strip("`"): cells[2] for cells in rows_of_table("docs/guides/recovery.md", r"`[a-z_]+`")}
    arguments = inspect.signature(HostScheduler).parameters

    assert shown == {
        "rejoin_timeout": f"{Settings().rejoin_timeout_s:g}",
        **{name: str(arguments[name].default) for name in ("checkpoint_every", "checkpoint_every_s", "max_to_keep")},
    }


def test_every_trigger_is_in_the_table_with_its_method() -> None:
    shown = [cells[:2] for cells in rows_of_table("docs/guides/hooks-and-metrics.md", r"`(on|before|after)_\w+`")]
    methods = {trigger: point for point, trigger in POINTS.items()}

    assert sorted(trigger.strip("`") for trigger, _ in shown) == sorted(ALL_TRIGGERS)
    for trigger, method in shown:
        assert method.strip("`").partition("(")[0] == methods.get(trigger.strip("`"), "")


@pytest.mark.parametrize("role", [HostScheduler, CollaboratorScheduler])
def test_every_method_that_users_write_is_explained(role: type[Any]) -> None:
    text = text_of("docs/guides/write-a-scheduler.md")
    optional = {"split_dataset", "load_batch", "iterate_train_feature", "iterate_test_feature", "validate_context"}
    optional |= {"build_hooks", "build_writers", "make_schedule", "describe_run", "write_artifacts"}
    if role is HostScheduler:
        optional |= {"test", "predict_a_batch", "is_task_finished", "trainable_parties", "load_inputs", "conclude"}

    for name in role.__abstractmethods__ - {"_run"} | optional:
        arguments = [each for each in inspect.signature(getattr(role, name)).parameters if each != "self"]
        assert f"`{name}({', '.join(arguments)})`" in text, name


# --- the examples of errors.md ------------------------------------------------------------------------------------


class Shop(Collaborator):
    def load_batch(self, ids: list[str]) -> Any:
        raise KeyError("x")


class Locked(Collaborator):
    def load_batch(self, ids: list[str]) -> Any:
        raise TaskFailed("our table is locked for the night", advice="Try again after 6:00.")


class Strangers(Collaborator):
    def load_local_ids(self) -> list[str]:
        return ["somebody"]


class HalfAndHalf(Collaborator):
    def split_dataset(self, id_intersection: Any) -> Any:
        return id_intersection[:30], id_intersection[30:]


class Whole(OwnCollaborator):
    def iterate_train_feature(self, *args: Any) -> Any:
        for each in super().iterate_train_feature(*args):
            yield each.long()


class NanHost(Host):
    def train_a_batch(self, feature_projection: dict[str, Any], labels: Any) -> Any:
        feature_projection["c1"].sum().mul(float("nan")).backward()


PROVOKED: dict[str, Callable[[], object]] = {
    "no common id": lambda: run_locally(Host(), Strangers()),
    "splits": lambda: run_locally(Host(), HalfAndHalf()),
    "batch sizes": lambda: run_locally(OwnHost(size=16), OwnCollaborator(size=48)),
    "rounds": lambda: run_locally(Host(max_rounds=None), Collaborator()),
    "own text": lambda: run_locally(Host(), Locked()),
    "own exception": lambda: run_locally(Host(), Shop()),
    "integers": lambda: run_locally(OwnHost(), Whole()),
    "not a number": lambda: run_locally(NanHost(), Collaborator()),
    "no message": lambda: Codec().decode([b"hello"]),
    "wrong message": lambda: Session(Role.HOST, "c1").receiving(BatchesEnd(1, 1)),
    "our wrong message": lambda: Session(Role.HOST, "c1").sending(CloseRound(1, False, None)),
    "too large": lambda: frame_sizes([bytes(5)], 4),
    "too many rows": lambda: Allowance(ServeLimits(rows_per_session=30)).ask(31, 31),
}


@pytest.mark.parametrize("case", PROVOKED)
def test_the_examples_of_errors_are_what_users_see(case: str) -> None:
    with pytest.raises(HeterofedError) as caught:
        PROVOKED[case]()

    error = caught.value
    shown = f"{type(error).__name__}: {error.located(party='c1', phase='gathering the parties')}"
    if case == "no common id":
        assert isinstance(error, AlignmentError)
    if case == "our wrong message":
        shown = shown.replace(": c1,", ": host,", 1)
    if case == "too many rows":
        shown = shown.replace("gathering the parties", "answering predictions")
    if case == "too large":
        shown = shown.replace("c1, while gathering the parties: ", "").replace("5 b", "2147483648 b")
        shown = shown.replace("most 4.", "most 1073741824.")
    assert shown in text_of("docs/reference/errors.md").splitlines()


@pytest.mark.parametrize(
    ("number", "path", "place"),
    [
        (errno.EACCES, "/data/out", ("host", "gathering the parties")),
        (errno.ENOSPC, "/data/out/checkpoints/model_0000041/model.pt", ("c1", "closing a round")),
    ],
)
def test_the_examples_of_disks_that_refuse_are_what_users_see(number: int, path: str, place: tuple[str, str]) -> None:
    with pytest.raises(OutputError) as caught, refused(Path(path)):
        raise OSError(number, os.strerror(number))

    party, phase = place
    assert (
        f"OutputError: {caught.value.located(party=party, phase=phase)}"
        in text_of("docs/reference/errors.md").splitlines()
    )


@pytest.mark.parametrize("page", ["docs/reference/errors.md", "docs/guides/recovery.md"])
def test_the_example_of_a_party_that_is_turned_away_is_what_its_user_sees(page: str) -> None:
    why = unfit(Standing(recover=True, run=bytes.fromhex("7f489f") + bytes(13), points=(8, 9)), Standing())

    shown = f"PeerRefused: host, while waiting for all parties: turned this party away: {why}."
    assert shown in text_of(page).splitlines()


# --- links --------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Return what GitHub makes of a page's headings."""
    prose = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", NAMES)
def test_no_link_between_pages_is_broken(page: str) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", text_of(page)):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(path), f"{page} links to {target}#{anchor}: no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, new = set(), {ROOT / "README.md"}
    while new:
        page = new.pop()
        reached.add(page)
        links = re.findall(r"\]\((?!https?:)([^)#\s]+\.md)[^)]*\)", page.read_text(encoding="utf-8"))
        new |= {(page.parent / each).resolve() for each in links} - reached

    assert reached >= set(PAGES)


def test_every_test_that_the_page_of_attacks_names_is_there() -> None:
    known = set()
    for path in (ROOT / "tests" / "psi").glob("test_*.py"):
        known |= set(re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`(test_\w+)`", text_of("docs/explanation/psi-attacks.md")))

    assert len(named) > 100
    assert not named - known

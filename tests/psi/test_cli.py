"""`python -m psi`: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from psi import cli
from psi.bench import Bench

FAST = ["--protocol", "ecdh", "--engine", "cryptography", "--workers", "1"]


def _files(folder: Path, *contents: str | bytes) -> list[str]:
    paths = []
    for number, content in enumerate(contents):
        path = folder / f"{number}.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        paths.append(str(path))
    return paths


@pytest.mark.parametrize("protocol", ["rsa", "ecdh"])
def test_the_shared_ids_of_two_files_are_printed(
    protocol: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = _files(tmp_path, "beta\nalpha\ngamma\n", "gamma\nalpha\ndelta")

    status = cli.main(["intersect", *files, "--protocol", protocol, "--workers", "1"])

    assert (status, capsys.readouterr().out) == (0, "alpha\ngamma\n")


def test_of_three_files_those_that_all_have_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = _files(tmp_path, "a\nb\nc\n", "b\nc\nd\n", "c\nd\nb\ne\n")

    assert cli.main(["intersect", *files, *FAST]) == 0
    assert capsys.readouterr().out == "b\nc\n"


def test_nothing_shared_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["intersect", *_files(tmp_path, "a\n", ""), *FAST]) == 0
    assert capsys.readouterr().out == ""


def test_line_ends_and_marks_of_other_systems_do_not_part_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "a\u2028b"  # one id: only a line feed ends a line
    files = _files(tmp_path, b"\xef\xbb\xbfx\r\ny\r\n" + odd.encode() + b"\r\n", f"y\nx\n{odd}\n")

    assert cli.main(["intersect", *files, *FAST]) == 0
    assert capsys.readouterr().out == f"{odd}\nx\ny\n"


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (["a\n"], "one file was given"),
        (["a\na\n", "a\n"], "1 repeat another"),
        (["a\n\nb\n", "a\n"], "1 are empty"),
        ([b"\xff\n", "a\n"], "is not UTF-8"),
    ],
)
def test_ids_that_cannot_be_used_end_with_an_error(
    contents: list[str | bytes], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = cli.main(["intersect", *_files(tmp_path, *contents), *FAST])

    out, err = capsys.readouterr()
    assert (status, out) == (1, "")
    assert err.startswith("psi intersect: ") and said in err and err.count("\n") == 1


def test_a_file_that_is_not_there_ends_with_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(["intersect", str(tmp_path / "none.txt"), *_files(tmp_path, "a\n"), *FAST])

    assert status == 1
    assert "none.txt" in capsys.readouterr().err


@pytest.mark.processes
def test_bench_prints_one_json_object_on_its_last_line() -> None:
    command = [sys.executable, "-m", "psi", "bench", "--json", "--protocol", "rsa", "--engine", "gmpy2", "--bits"]
    command += ["2048", "--n", "12", "--m", "10", "--overlap", "0.5", "--workers", "1", "--chunk", "4"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=50)

    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout.splitlines()[-1])
    promised = (
        "seconds elements_per_second floor_seconds ratio bytes_up bytes_down peak_rss_mb intersection_size correct"
    )
    assert set(promised.split()) <= set(result)
    assert (result["intersection_size"], result["correct"], result["bits"], result["chunk"]) == (5, True, 2048, 4)


def _result(correct: bool) -> dict[str, Any]:
    numbers = "seconds elements_per_second floor_seconds ratio bytes_per_id cpu_ratio peak_rss_mb_initiator "
    numbers += "peak_rss_mb_responder cpu_seconds_initiator cpu_seconds_responder"
    return {
        **dict.fromkeys(numbers.split(), 1.25),
        **dict.fromkeys(["n", "m", "bits", "bytes_up", "bytes_down", "intersection_size", "cores", "cores_used"], 7),
        **dict.fromkeys(["protocol", "engine", "machine", "python"], "rsa"),
        "floor_range": [1.0, 1.5],
        "floors": {"gmpy2": 1.25},
        "runs": [{"ratio": 1.25}, {"ratio": 1.5}],
        "correct": correct,
    }


def test_bench_takes_all_that_it_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[object] = []

    def fake(settings: Bench, times: int, *, all_floors: bool) -> dict[str, Any]:
        seen.extend([settings, times, all_floors])
        return _result(True)

    monkeypatch.setattr("psi.bench.repeat", fake)

    arguments = ["--n", "30", "--m", "20", "--overlap", "0.25", "--reveal", "cardinality", "--chunk", "9"]
    assert cli.main(["bench", *FAST, *arguments, "--repeat", "4", "--all-floors"]) == 0
    assert seen == [Bench("ecdh", 2048, 30, 20, 0.25, 1, "cryptography", "cardinality", 9), 4, True]
    assert "correct" in capsys.readouterr().out

    assert cli.main(["bench", "--n", "30", "--engine", "gmpy2"]) == 0
    assert seen[3:] == [Bench("rsa", 2048, 30, 30, 0.5, None, "gmpy2", "both", None), 1, False]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_wrong_intersection_is_said_and_shows_in_the_status(
    form: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("psi.bench.repeat", lambda *_, **__: _result(False))

    assert cli.main(["bench", *FAST, *form]) == 3
    out = capsys.readouterr().out
    assert '"correct": false' in out if form else "WRONG" in out


def test_an_engine_that_is_not_here_ends_with_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--engine", "abacus"]) == 1
    assert "engine is 'abacus'" in capsys.readouterr().err


def test_ctrl_c_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("psi.bench.repeat", stop)

    assert cli.main(["bench", *FAST]) == 130


@pytest.mark.processes
def test_a_reader_that_goes_away_brings_no_traceback(tmp_path: Path) -> None:
    files = _files(tmp_path, "a\n", "a\n")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "psi", "intersect", *files, *FAST]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=50)
    finally:
        os.close(writing)

    assert (done.returncode, done.stderr) == (1, "")

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heterofed.errors import OutputError
from heterofed.metrics import MetricsTable, declared_metrics, register_metrics


class Scheduler:
    def get_metrics(self, name: str) -> None:
        return None


# -- rows ------------------------------------------------------------------------------------------------------


def test_rows_come_back_in_order_as_dicts() -> None:
    table = MetricsTable(["loss", "note"])
    table.append_metrics_item({"note": "first", "loss": 0.5})
    table.append_metrics_list([{"loss": 1, "note": None}, {"loss": True, "note": "third"}])
    assert len(table) == 3
    assert list(table.trace()) == [
        {"loss": 0.5, "note": "first"},
        {"loss": 1, "note": None},
        {"loss": True, "note": "third"},
    ]


def test_a_row_given_out_cannot_change_the_table() -> None:
    table = MetricsTable(["loss"])
    table.append_metrics_item({"loss": 1})
    next(table.trace())["loss"] = 2
    assert next(table.trace()) == {"loss": 1}


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (torch.tensor(0.5), 0.5),
        (torch.tensor([[3]]), 3),
        (torch.tensor(1.5, requires_grad=True), 1.5),
        (torch.tensor(True), True),
        (np.float32(0.25), 0.25),
        (np.float64(0.1), 0.1),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array([2.5]), 2.5),
        (np.array(4), 4),
    ],
)
def test_a_one_element_tensor_becomes_a_python_number(value: object, stored: object) -> None:
    table = MetricsTable(["x"])
    table.append_metrics_item({"x": value})
    (row,) = table.trace()
    assert row["x"] == stored
    assert type(row["x"]) is type(stored)


@pytest.mark.parametrize(
    "value", [torch.zeros(2), torch.zeros(0), np.zeros(3), [1.0], {"a": 1}, 1j, b"x", object(), np.array([None, 1])]
)
def test_what_is_no_single_number_is_refused(value: object) -> None:
    table = MetricsTable(["x"])
    with pytest.raises(TypeError, match="'x' got"):
        table.append_metrics_item({"x": value})
    assert len(table) == 0


def test_a_row_names_what_it_lacks_and_what_is_unexpected() -> None:
    table = MetricsTable(["loss", "accuracy"])
    with pytest.raises(TypeError, match=r"missing \['accuracy'\], unexpected \['acuracy'\]"):
        table.append_metrics_item({"loss": 1, "acuracy": 2})
    with pytest.raises(TypeError, match="missing"):
        table.append_metrics_item({})
    with pytest.raises(TypeError, match="unexpected"):
        table.append_metrics_item({"loss": 1, "accuracy": 2, "more": 3})
    with pytest.raises(TypeError, match="a mapping, not list"):
        table.append_metrics_item([1, 2])  # type: ignore[arg-type]  # the fault under test
    assert len(table) == 0


def test_a_list_with_one_wrong_row_appends_nothing() -> None:
    table = MetricsTable(["x"])
    with pytest.raises(TypeError):
        table.append_metrics_list([{"x": 1}, {"y": 2}])
    with pytest.raises(TypeError):
        table.append_metrics_list({"x": 1})  # type: ignore[dict-item]  # the fault under test
    assert len(table) == 0


# -- headers ---------------------------------------------------------------------------------------------------


def test_headers_may_come_from_a_one_shot_iterable() -> None:
    table = MetricsTable(name for name in ("a", "b"))
    table.append_metrics_item({"a": 1, "b": 2})
    table.append_metrics_item({"a": 3, "b": 4})
    assert table.headers == ("a", "b")
    assert len(table) == 2


@pytest.mark.parametrize("headers", ["loss", b"loss", 3, None, ["a", 1]])
def test_headers_of_a_wrong_type_are_refused(headers: Any) -> None:
    with pytest.raises(TypeError):
        MetricsTable(headers)


@pytest.mark.parametrize("headers", [[], ["a", ""], ["a", "b", "a"]])
def test_empty_or_repeated_headers_are_refused(headers: list[str]) -> None:
    with pytest.raises(ValueError, match="headers"):
        MetricsTable(headers)


# -- CSV -------------------------------------------------------------------------------------------------------


def test_csv_holds_exact_values_and_survives_awkward_text(tmp_path: Path) -> None:
    table = MetricsTable(["x", "text"])
    table.append_metrics_item({"x": 0.1 + 0.2, "text": 'a, "b"\nsecond line, 精度'})
    table.append_metrics_item({"x": None, "text": ""})
    file = tmp_path / "m.csv"
    table.to_csv(file)
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows == [["x", "text"], [repr(0.1 + 0.2), 'a, "b"\nsecond line, 精度'], ["", ""]]
    assert b"\r" not in file.read_bytes()


def test_csv_of_an_empty_table_is_its_header(tmp_path: Path) -> None:
    MetricsTable(["a", "b"]).to_csv(tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_text(encoding="utf-8") == "a,b\n"


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m.csv"
    file.write_text("old", encoding="utf-8")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("heterofed.files.os.fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*m\.csv: No space left on device; .* untouched"):
        MetricsTable(["a"]).to_csv(file)
    assert file.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*m\.csv: No such file or directory"):
        MetricsTable(["a"]).to_csv(tmp_path / "none" / "m.csv")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        MetricsTable(["a"]).to_csv(tmp_path / "file" / "m.csv")


# -- the decorator ---------------------------------------------------------------------------------------------


def test_stacked_declarations_are_all_kept_on_any_method() -> None:
    class Host(Scheduler):
        @register_metrics(name="timer", keys=["run_time"])
        @register_metrics(name="results", keys=iter(["loss", "accuracy"]))
        def test(self, twice: int) -> int:
            """Doc."""
            return 2 * twice

        @register_metrics("batches", ["rows"])
        def iterate(self) -> Iterator[int]:
            yield 1

    assert declared_metrics(Host) == {"timer": ("run_time",), "results": ("loss", "accuracy"), "batches": ("rows",)}
    assert Host().test(4) == 8
    assert list(Host().iterate()) == [1]
    assert Host.test.__name__ == "test"
    assert Host.test.__doc__ == "Doc."


def test_a_call_on_something_that_is_no_scheduler_is_a_runtime_error() -> None:
    @register_metrics("timer", ["run_time"])
    def test(self: object) -> None:
        raise AssertionError("never reached")

    with pytest.raises(RuntimeError, match="no get_metrics"):
        test(object())
    with pytest.raises(RuntimeError, match="'timer'"):
        test()  # type: ignore[call-arg]  # the fault under test


@pytest.mark.parametrize(
    "name", ["", None, 3, "a/b", "..", ".hidden", "a\\b", "a\nb", "a:b", "end.", " a", "end ", "x" * 101]
)
def test_a_name_that_cannot_be_a_file_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="metric set"):
        register_metrics(name, ["a"])


@pytest.mark.parametrize("keys", [[], "loss", b"loss", None, 7, [""], ["a", 1], ["a", "a"]])
def test_wrong_keys_are_refused_at_the_decoration(keys: Any) -> None:
    with pytest.raises(ValueError, match="metric set 'results'"):
        register_metrics("results", keys)


def test_one_name_with_two_sets_of_keys_in_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="twice with different keys"):

        @register_metrics("m", ["a"])
        @register_metrics("m", ["b"])
        def stacked(self: object) -> None: ...

    class Host(Scheduler):
        @register_metrics("m", ["a"])
        def one(self) -> None: ...

        @register_metrics("m", ["b"])
        def other(self) -> None: ...

    with pytest.raises(ValueError, match="Host declares the metric set 'm' twice"):
        declared_metrics(Host)


def test_the_same_set_may_be_declared_on_two_methods() -> None:
    class Host(Scheduler):
        @register_metrics("m", ["a"])
        def one(self) -> None: ...

        @register_metrics("m", ["a"])
        def other(self) -> None: ...

    assert declared_metrics(Host) == {"m": ("a",)}


def test_an_override_without_the_decorator_keeps_the_declaration_of_its_base() -> None:
    class Base(Scheduler):
        @register_metrics("m", ["a"])
        def test(self) -> None: ...

    class Plain(Base):
        def test(self) -> None: ...

    class Again(Base):
        @register_metrics("m", ["b"])
        def test(self) -> None: ...

    assert declared_metrics(Plain) == {"m": ("a",)}
    assert declared_metrics(Again) == {"m": ("b",)}
    assert declared_metrics(Base) == {"m": ("a",)}


def test_a_decorated_classmethod_is_collected() -> None:
    class Host:
        @classmethod
        @register_metrics("m", ["a"])
        def test(cls) -> str:
            return "ran"

        @classmethod
        def get_metrics(cls, name: str) -> None:
            return None

    assert declared_metrics(Host) == {"m": ("a",)}
    assert Host.test() == "ran"

"""What `heterofed plot` reads, tells and draws."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D

from heterofed.errors import ConfigError, DataError, OutputError
from heterofed.metrics import plots
from heterofed.metrics.drawing import COLOURS
from heterofed.metrics.plots import figure_of, plot_run
from heterofed.metrics.runs import human_bytes, read_run, summary

Line = dict[str, Any]
"""Of metrics.json."""


def write(folder: Path, lines: Sequence[Line], end: str = "\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(json.dumps(line, sort_keys=True) for line in lines)
    (folder / "metrics.json").write_text(text + end if lines else "", encoding="utf-8")
    return folder


def lines_of(
    peers: Sequence[str], rounds: int, *, batches: int = 10, every: int = 5, host: bool = False, first: int = 1
) -> Iterator[Line]:
    """Yield what a party writes: a line every few iterations, and what a round measured on its last one."""
    for number in range(first, first + rounds):
        for batch in range(every - 1, batches, every):
            iteration = (number - 1) * batches + batch
            line: Line = {"iteration": iteration, "round": number, "lr": 0.1, "time": 0.01}
            if host:
                line["loss"] = 2.0 / (1 + iteration)
            if batch == batches - 1:
                line |= {"round/seconds": 4.0, "round/compute_s": 2.0, "round/wire_s": 0.5}
                line |= {f"round/wait_s/{peer}": 1.5 / len(peers) for peer in peers}
                line |= {"round/bytes_sent": 5_120_000 * len(peers), "round/bytes_received": 5_200_000 * len(peers)}
                line["round/rows_per_s"] = 2500.0
                if host:
                    line |= {"round/loss": 1.0 / number, "test_results/accuracy": 1 - 0.5 / number}
                    line |= {"test_results/loss": 0.5, "test_results/rows": 1000}
            yield line


def a_run(folder: Path, parties: int = 2, rounds: int = 2) -> Path:
    """Write a run of one host and collaborators; returns its folder."""
    others = [f"shop_{number}" for number in range(1, parties)]
    write(folder / "the_bank", list(lines_of(others, rounds, host=True)))
    for name in others:
        write(folder / name, list(lines_of(["the_bank"], rounds)))
    return folder


def panels(figure: Figure) -> dict[str, Axes]:
    return {str(axes.get_label()): axes for axes in figure.axes}


def points(line: Line2D) -> list[tuple[float, float]]:
    xs, ys = (np.asarray(each, np.float64).round(6).tolist() for each in line.get_data())
    return list(zip(xs, ys, strict=True))


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    return [text.get_text() for text in found.get_texts()] if found else []


LOSS, SCORES, RATE, BYTES = "Loss", "Scores", "Learning rate", "Bytes of each round"
TIMES = "Where the time of each round went, in seconds"


# -- what is read ----------------------------------------------------------------------------------------------


def test_each_scalar_becomes_a_column_of_the_lines_that_have_it(tmp_path: Path) -> None:
    lines: list[Line] = [
        {"iteration": 4, "round": 1, "loss": 2.5},
        {"iteration": 9, "round": 1, "loss": 1, "round/seconds": 3.5},
        {"iteration": 14, "round": 2, "loss": None, "won": True},
    ]

    run = read_run(write(tmp_path / "bank", lines))

    (party,) = run.parties
    assert party.name == run.name == "bank"
    assert set(party.columns) == {"loss", "round/seconds", "won"}
    assert party.columns["loss"].iterations.tolist() == [4, 9, 14]
    assert party.columns["loss"].rounds.tolist() == [1, 1, 2]
    np.testing.assert_array_equal(party.columns["loss"].values, [2.5, 1.0, math.nan])
    assert party.columns["round/seconds"].iterations.tolist() == [9]
    assert party.columns["won"].values.tolist() == [1.0]
    assert party.by_round("round/seconds") == {1: 3.5}
    assert party.by_round("nothing of this name") == {}
    assert party.rounds == [1, 2]


def test_a_folder_of_parties_is_read_with_the_party_that_has_scores_first(tmp_path: Path) -> None:
    a_run(tmp_path / "demo", parties=3)
    (tmp_path / "demo" / "checkpoints").mkdir()
    (tmp_path / "demo" / "notes.txt").write_text("no party")

    run = read_run(tmp_path / "demo")

    assert run.name == "demo"
    assert [party.name for party in run.parties] == ["the_bank", "shop_1", "shop_2"]
    assert [party.peers for party in run.parties] == [["shop_1", "shop_2"], ["the_bank"], ["the_bank"]]


def test_the_folder_in_which_one_stands_has_its_real_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(tmp_path / "bank", [{"iteration": 0, "round": 1, "loss": 1.0}]))

    run = read_run(Path())

    assert run.name == run.parties[0].name == "bank"


def test_a_last_line_that_is_cut_off_anywhere_is_left_out(tmp_path: Path) -> None:
    whole = json.dumps({"iteration": 5, "loss": 0.25, "round": 1})
    folder = write(tmp_path / "bank", [{"iteration": 4, "round": 1, "loss": 0.5}])
    before = (folder / "metrics.json").read_text()

    for length in range(len(whole)):
        (folder / "metrics.json").write_text(before + whole[:length])
        assert read_run(folder).parties[0].values("loss").tolist() == [0.5]

    (folder / "metrics.json").write_text(before + whole)
    assert read_run(folder).parties[0].values("loss").tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"iteration": 5, "lo', "this is no JSON"),
        (b"", "this is no JSON"),
        (b'{"iteration": 5, "loss": "\xff"}', "this is no JSON"),
        (b"[" * 100_000, "this is no JSON"),
        (b"[5, 0.25]", "this is no JSON object"),
        (b'{"round": 1, "loss": 0.25}', "'iteration' is missing or no number from 0 on"),
        (b'{"iteration": -1, "round": 1}', "'iteration' is missing or no number from 0 on"),
        (b'{"iteration": true, "round": 1}', "'iteration' is missing or no number from 0 on"),
        (b'{"iteration": 5.5, "round": 1}', "'iteration' is missing or no number from 0 on"),
        (b'{"iteration": 9007199254740992, "round": 1}', "'iteration' is missing or no number from 0 on"),
        (b'{"iteration": 5, "round": "one"}', "'round' is missing or no number from 0 on"),
        (b'{"iteration": 5, "round": 1, "loss": "0.25"}', "'loss' is no number"),
        (b'{"iteration": 5, "round": 1, "a\\u001b[2J": 1}', r"'a\x1b[2J' is no number"),
    ],
    ids=range(13),
)
def test_a_bad_line_is_refused_with_the_file_and_its_number(tmp_path: Path, line: bytes, said: str) -> None:
    good = b'{"iteration": 4, "round": 1, "loss": 0.5}\n'
    folder = write(tmp_path / "bank", [])
    (folder / "metrics.json").write_bytes(good + line + b"\n" + good)

    with pytest.raises(DataError) as caught:
        read_run(folder)

    assert str(caught.value) == (
        f'{folder / "metrics.json"}, line 2: {said}; expected a line like {{"iteration": 19, "round": 1, "loss": '
        "0.31}. If something else wrote to this file, remove that line."
    )


def test_a_folder_without_metrics_is_refused_with_what_to_name_instead(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()

    with pytest.raises(DataError) as caught:
        read_run(tmp_path)

    assert str(caught.value) == (
        f"no metrics.json in {tmp_path} or its folders; expected the output folder of a party, or the folder that "
        "holds those of all parties. Parties write theirs as they train: look at the path, or wait for the first "
        "batches."
    )


@pytest.mark.parametrize("text", ["", '{"iteration": 4, "rou'], ids=["empty", "cut off"])
def test_metrics_without_a_line_yet_are_refused(tmp_path: Path, text: str) -> None:
    folder = write(tmp_path / "bank", [])
    (folder / "metrics.json").write_text(text)

    with pytest.raises(DataError, match=r"metrics\.json: no line yet; .* or wait for the first batches\.$"):
        read_run(folder)


@pytest.mark.parametrize(("name", "said"), [("no_run", "No such file or directory"), ("file", "Not a directory")])
def test_a_run_that_is_no_folder_is_refused_by_name(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(DataError) as caught:
        read_run(tmp_path / name)

    assert f"cannot read {tmp_path / name}: {said}; expected the folder of a run" in str(caught.value)


def test_a_run_that_began_again_from_an_earlier_iteration_counts_from_there(tmp_path: Path) -> None:
    lines = [{"iteration": at, "round": 1, "loss": loss} for at, loss in [(4, 4.0), (9, 3.0), (14, 2.0), (9, 1.5)]]

    (party,) = read_run(write(tmp_path / "bank", lines)).parties

    assert party.columns["loss"].iterations.tolist() == [4, 9, 9]
    assert party.values("loss").tolist() == [4.0, 3.0, 1.5]


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", "1" + "0" * 400])
def test_what_is_no_finite_number_is_unknown(tmp_path: Path, number: str) -> None:
    folder = write(tmp_path / "bank", [])
    (folder / "metrics.json").write_text(f'{{"iteration": 4, "round": 1, "loss": {number}}}\n')

    assert math.isnan(read_run(folder).parties[0].values("loss")[0])


def test_only_metrics_that_look_like_scores_and_lie_between_0_and_1_are_scores(tmp_path: Path) -> None:
    line: Line = {"iteration": 0, "round": 1, "a/accuracy": 1.0, "b/acc": 0.0, "c/val_acc": 0.5, "a/auc": 0.5}
    line |= {"e/f1_macro": 0.5, "f/hits@10": 0.5, "accuracy": 0.5, "g/AUC": 0.5, "h/Recall": 0.5, "nan/auc": None}
    line |= {"percent/accuracy": 91.2, "low/acc": -0.1, "a/loss": 0.5, "b/access": 0.5, "round/auc": 0.5, "lr": 0.5}

    (party,) = read_run(write(tmp_path / "bank", [line])).parties

    found = [
        "a/accuracy",
        "accuracy",
        "b/acc",
        "c/val_acc",
        "a/auc",
        "e/f1_macro",
        "f/hits@10",
        "g/AUC",
        "h/Recall",
    ]
    assert party.scores == found


# -- where an iteration is -------------------------------------------------------------------------------------


def positions(folder: Path, lines: Sequence[Line]) -> list[float]:
    (party,) = read_run(write(folder / "bank", lines)).parties
    return [round(at, 6) for at in party.positions(party.columns["loss"]).tolist()]


def at(iteration: int, number: int | None = None, **more: float) -> Line:
    return {"iteration": iteration, "loss": 1.0, **({} if number is None else {"round": number}), **more}


def test_an_iteration_is_as_far_into_its_round_as_the_round_is_done(tmp_path: Path) -> None:
    end = {"round/seconds": 1.0}
    lines = [at(3, 1), at(9, 1, **end), at(11, 2), at(14, 2, **end)]

    assert positions(tmp_path, lines) == [0.4, 1.0, 1.4, 2.0]


def test_a_round_in_progress_is_thought_as_long_as_the_one_before(tmp_path: Path) -> None:
    assert positions(tmp_path, [at(9, 1), at(14, 2)]) == [1.0, 1.5]
    assert positions(tmp_path, [at(9, 1), at(14, 2, **{"round/seconds": 1.0})]) == [1.0, 2.0]
    assert positions(tmp_path, [at(9, 1), at(29, 2)]) == [1.0, 2.0]


def test_a_run_that_begins_in_a_later_round_stays_there(tmp_path: Path) -> None:
    assert positions(tmp_path, [at(40, 5), at(49, 5), at(59, 6)]) == [4.1, 5.0, 6.0]


def test_what_is_before_the_first_round_is_at_0(tmp_path: Path) -> None:
    lines = [at(0, 0), at(1, 0), at(5, 1), at(9, 1)]

    assert positions(tmp_path, lines) == [0.0, 0.0, 0.5, 1.0]
    assert read_run(tmp_path / "bank").parties[0].rounds == [1]


@pytest.mark.parametrize("number", [None, 0])
def test_without_rounds_the_iterations_are_the_place(tmp_path: Path, number: int | None) -> None:
    assert positions(tmp_path, [at(19, number), at(39, number)]) == [19.0, 39.0]


# -- the table -------------------------------------------------------------------------------------------------


def test_the_table_tells_each_party_and_round(tmp_path: Path) -> None:
    told = summary(read_run(a_run(tmp_path / "demo")))

    assert told == "\n".join(
        [
            "  round    loss  test_results/accuracy  seconds  compute    wire     sent  received  waiting",
            "the_bank",
            "      1  1.0000                 0.5000   4.00 s   2.00 s  0.50 s  5.12 MB    5.2 MB  1.50 s for shop_1",
            "      2  0.5000                 0.7500   4.00 s   2.00 s  0.50 s  5.12 MB    5.2 MB  1.50 s for shop_1",
            "    all                                  8.00 s   4.00 s  1.00 s  10.2 MB   10.4 MB  3.00 s for shop_1",
            "shop_1",
            "      1       -                      -   4.00 s   2.00 s  0.50 s  5.12 MB    5.2 MB  1.50 s for the_bank",
            "      2       -                      -   4.00 s   2.00 s  0.50 s  5.12 MB    5.2 MB  1.50 s for the_bank",
            "    all                                  8.00 s   4.00 s  1.00 s  10.2 MB   10.4 MB  3.00 s for the_bank",
        ]
    )


def test_of_several_peers_the_table_names_the_one_waited_for_the_longest(tmp_path: Path) -> None:
    line = {
        "iteration": 9,
        "round": 1,
        "round/wait_s/shop": 0.25,
        "round/wait_s/clinic": 1.5,
        "round/wait_s/club": 0.25,
    }

    told = summary(read_run(write(tmp_path / "bank", [line])))

    assert told.splitlines()[-1].endswith("  2.00 s, of it 1.50 s for clinic")


def test_the_table_has_a_dash_for_what_a_round_has_not_measured(tmp_path: Path) -> None:
    lines = [at(9, 1, **{"round/wait_s/shop": 1.0, "round/bytes_sent": 10.0}), at(14, 2)]
    write(tmp_path / "run" / "bank", lines)
    write(tmp_path / "run" / "shop", [])

    *_, second, total, silent = summary(read_run(tmp_path / "run")).splitlines()

    assert second.split() == ["2", "1.0000", "-", "-", "-", "-", "-", "-"]
    assert total.split() == ["all", "-", "-", "-", "10", "B", "-", "1.00", "s", "for", "shop"]
    assert silent == "shop: no line yet"


def test_the_loss_of_a_round_without_its_mean_is_its_last(tmp_path: Path) -> None:
    lines = [at(4, 1), {"iteration": 9, "round": 1, "loss": 0.125, "round/loss": None}]

    assert summary(read_run(write(tmp_path / "bank", lines))).split()[-8:-6] == ["1", "0.1250"]


def test_the_table_leaves_out_the_middle_of_a_long_run(tmp_path: Path) -> None:
    def told(rounds: int) -> list[str]:
        folder = write(tmp_path / "bank", list(lines_of(["shop"], rounds)))
        return [line.split()[0] for line in summary(read_run(folder)).splitlines()[2:]]

    assert told(30) == [*map(str, range(1, 31)), "all"]
    assert told(200) == ["1", "2", "3", "4", "5", "...", *map(str, range(191, 201)), "all"]


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (999.6, "1 kB"),
        (5_120_000, "5.12 MB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (3.2e12, "3.2 TB"),
        (1.5e15, "1500 TB"),
    ],
)
def test_bytes_are_told_in_units_for_people(count: float, told: str) -> None:
    assert human_bytes(count) == told


# -- the picture -----------------------------------------------------------------------------------------------


def test_a_run_has_five_panels_and_a_strip_of_time_for_each_party(tmp_path: Path) -> None:
    drawn = panels(figure_of(read_run(a_run(tmp_path / "demo", parties=3))))

    assert list(drawn) == [
        LOSS,
        SCORES,
        RATE,
        *(f"{TIMES}: {name}" for name in ("the_bank", "shop_1", "shop_2")),
        BYTES,
    ]


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ({"loss": 1.0}, [LOSS]),
        ({"round/loss": 1.0}, [LOSS]),
        ({"val/f1": 0.5}, [SCORES]),
        ({"lr": 0.1}, [RATE]),
        ({"lr/infer": 0.1}, [RATE]),
        ({"round/wire_s": 1.0}, [f"{TIMES}: bank"]),
        ({"round/bytes_received": 1.0}, [BYTES]),
        ({"loss": None, "lr": 0.1, "round/seconds": 0.0, "round/bytes_sent": None}, [RATE]),
        ({"lr": None, "loss": 0.1, "val/acc": 2.0, "round/bytes_sent": 0}, [LOSS]),
    ],
    ids=str,
)
def test_a_panel_without_data_is_left_out(tmp_path: Path, line: Line, left: list[str]) -> None:
    run = read_run(write(tmp_path / "bank", [{"iteration": 4, "round": 1, **line}]))

    assert list(panels(figure_of(run))) == left


def test_the_loss_of_each_party_that_has_one_runs_along_the_rounds(tmp_path: Path) -> None:
    axes = panels(figure_of(read_run(a_run(tmp_path / "demo"))))[LOSS]

    (line,) = [line for line in axes.lines if line.get_label() == "the_bank"]
    assert points(line) == [(0.5, 0.4), (1.0, 0.2), (1.5, 0.133333), (2.0, 0.1)]
    assert legend(axes) == ["the_bank"]
    assert axes.get_xlabel() == "round"


def test_a_party_with_only_the_mean_of_each_round_is_drawn_with_it(tmp_path: Path) -> None:
    write(tmp_path / "run" / "bank", [at(9, 1), at(19, 2)])
    write(
        tmp_path / "run" / "shop", [{"iteration": each * 10 - 1, "round": each, "round/loss": 3.0} for each in (1, 2)]
    )

    axes = panels(figure_of(read_run(tmp_path / "run")))[LOSS]

    assert legend(axes) == ["bank", "shop"]
    assert axes.lines[0].get_zorder() > axes.lines[-1].get_zorder()  # the first party's line covers those it told of it
    (line,) = [line for line in axes.lines if line.get_label() == "shop"]
    assert points(line) == [(1.0, 3.0), (2.0, 3.0)]


def test_a_long_loss_is_smoothed_around_each_iteration_and_its_gaps_stay(tmp_path: Path) -> None:
    lines = [{"iteration": i, "round": 1, "loss": None if i == 400 else 5.0 + (-1) ** i} for i in range(600)]

    axes = panels(figure_of(read_run(write(tmp_path / "bank", lines))))[LOSS]

    raw, smooth = (np.asarray(line.get_ydata()) for line in axes.lines)
    assert np.nanmax(raw) == 6.0 and np.nanmin(raw) == 4.0
    assert len(smooth) == 600
    assert np.isnan(smooth[400]) and np.isnan(smooth).sum() == 1
    np.testing.assert_allclose(smooth[np.isfinite(smooth)], 5.0, atol=0.21)


def test_of_a_very_long_loss_not_every_point_is_drawn_but_the_last_is(tmp_path: Path) -> None:
    lines = [{"iteration": i, "round": 1, "loss": float(i)} for i in range(9003)]

    axes = panels(figure_of(read_run(write(tmp_path / "bank", lines))))[LOSS]

    for line in axes.lines:
        assert 2000 <= len(np.asarray(line.get_xdata())) < 4000
        assert points(line)[-1][0] == 1.0
    assert points(axes.lines[0])[-1][1] == 9002.0


@pytest.mark.parametrize(("last", "scale"), [(0.001, "log"), (0.1, "linear"), (-1.0, "linear")])
def test_a_loss_over_more_than_two_decades_has_a_logarithmic_axis(tmp_path: Path, last: float, scale: str) -> None:
    lines = [{"iteration": 0, "round": 1, "loss": 2.0}, {"iteration": 1, "round": 1, "loss": last}]

    assert panels(figure_of(read_run(write(tmp_path / "bank", lines))))[LOSS].get_yscale() == scale


def test_scores_have_a_marker_at_the_end_of_each_round(tmp_path: Path) -> None:
    axes = panels(figure_of(read_run(a_run(tmp_path / "demo", rounds=4))))[SCORES]

    (line,) = axes.lines
    assert points(line) == [(1.0, 0.5), (2.0, 0.75), (3.0, 0.833333), (4.0, 0.875)]
    assert line.get_marker() == "o"
    assert legend(axes) == ["test_results/accuracy"]


def test_several_scores_of_one_party_have_a_colour_each(tmp_path: Path) -> None:
    run = read_run(
        write(tmp_path / "bank", [{"iteration": 9, "round": 1, "val/auc": 0.5, "val/f1": 0.2, "val/acc": 0.4}])
    )

    axes = panels(figure_of(run))[SCORES]

    assert legend(axes) == ["val/acc", "val/auc", "val/f1"]
    assert len({to_hex(line.get_color()) for line in axes.lines}) == 3


def test_scores_of_several_parties_bear_their_names(tmp_path: Path) -> None:
    for name in ("bank", "shop"):
        write(tmp_path / "run" / name, [{"iteration": 9, "round": 1, "val/auc": 0.5, "val/f1": 0.25}])

    axes = panels(figure_of(read_run(tmp_path / "run")))[SCORES]

    assert legend(axes) == ["bank\nval/auc", "bank\nval/f1", "shop\nval/auc", "shop\nval/f1"]
    assert len({to_hex(line.get_color()) for line in axes.lines}) == 2
    assert len({(line.get_marker(), line.get_linestyle()) for line in axes.lines}) == 4


def test_scores_never_need_more_than_from_0_to_1(tmp_path: Path) -> None:
    lines = [{"iteration": each * 10 - 1, "round": each, "val/acc": each - 1.0} for each in (1, 2)]

    assert panels(figure_of(read_run(write(tmp_path / "bank", lines))))[SCORES].get_ylim() == (-0.02, 1.02)


def test_learning_rates_are_drawn_from_zero_and_named_where_there_are_several(tmp_path: Path) -> None:
    lines = [{"iteration": i, "round": 1, "lr": 2e-5, "infer/lr": 1e-5} for i in range(3)]

    axes = panels(figure_of(read_run(write(tmp_path / "bank", lines))))[RATE]

    assert sorted(legend(axes)) == ["bank", "infer/lr"]
    assert {float(np.asarray(line.get_ydata())[-1]) for line in axes.lines} == {2e-5, 1e-5}
    assert axes.get_ylim()[0] == 0.0


def bars(axes: Axes) -> dict[str, list[tuple[float, float, float]]]:
    """Return label -> (middle, bottom, height) of each bar."""
    return {
        str(each.get_label()): [(bar.get_x() + bar.get_width() / 2, bar.get_y(), bar.get_height()) for bar in each]
        for each in axes.containers
    }


def test_the_time_of_a_round_is_one_bar_of_what_it_went_to(tmp_path: Path) -> None:
    line: Line = {"iteration": 9, "round": 1, "round/seconds": 5.0, "round/compute_s": 2.0, "round/wire_s": 0.5}
    line |= {"round/wait_s/clinic": 1.0, "round/wait_s/shop": 0.75}

    axes = panels(figure_of(read_run(write(tmp_path / "bank", [line]))))[f"{TIMES}: bank"]

    assert bars(axes) == {
        "own compute": [(1.0, 0.0, 2.0)],
        "wire": [(1.0, 2.0, 0.5)],
        "the rest": [(1.0, 2.5, 0.75)],
        "waiting for\nclinic": [(1.0, 3.25, 1.0)],
        "waiting for\nshop": [(1.0, 4.25, 0.75)],
    }
    assert axes.get_title(loc="left") == "bank"


def test_the_strips_of_all_parties_have_one_scale_and_one_legend(tmp_path: Path) -> None:
    for name, seconds, peers in (("bank", 4.0, ["club", "shop"]), ("club", 1.0, ["bank"]), ("shop", 0.5, ["bank"])):
        waits = {f"round/wait_s/{peer}": 0.5 for peer in peers}
        write(tmp_path / "run" / name, [{"iteration": 9, "round": 2, "round/compute_s": seconds, **waits}])

    strips = panels(figure_of(read_run(tmp_path / "run"))).values()

    assert [axes.get_ylim() for axes in strips] == [(0.0, 5.25)] * 3
    assert [axes.get_xlim() for axes in strips] == [(1.4, 2.6)] * 3
    assert [axes.yaxis.get_tick_params()["labelleft"] for axes in strips] == [True, False, False]
    waits_of_all = ["waiting for\nclub", "waiting for\nshop", "waiting for\nbank"]
    assert [legend(axes) for axes in strips] == [[], [], ["own compute", *waits_of_all]]


def test_who_is_waited_for_has_the_same_colour_as_in_the_other_panels(tmp_path: Path) -> None:
    drawn = panels(figure_of(read_run(a_run(tmp_path / "demo", parties=3))))

    waited, moved = (
        {str(each.get_label()).removeprefix("waiting for\n"): each[0] for each in axes.containers}
        for axes in (drawn[f"{TIMES}: the_bank"], drawn[BYTES])
    )
    assert to_hex(waited["shop_2"].get_facecolor()).upper() == COLOURS[2]
    assert to_hex(moved["shop_2"].get_facecolor()).upper() == COLOURS[2]
    assert to_hex(drawn[LOSS].lines[0].get_color()).upper() == COLOURS[0]
    assert waited["shop_2"].get_hatch() and not waited["wire"].get_hatch()


def test_bytes_sent_are_stacked_upwards_and_received_ones_downwards(tmp_path: Path) -> None:
    axes = panels(figure_of(read_run(a_run(tmp_path / "demo"))))[BYTES]

    heights = [[(bar.get_y(), bar.get_height()) for bar in each] for each in axes.containers]
    assert heights == [
        [(0.0, 5_120_000.0)] * 2,
        [(5_120_000.0, 5_120_000.0)] * 2,
        [(0.0, -5_200_000.0)] * 2,
        [(-5_200_000.0, -5_200_000.0)] * 2,
    ]
    assert legend(axes) == ["the_bank", "shop_1"]
    tick = axes.yaxis.get_major_formatter()
    assert [tick(count, 0) for count in (-5e6, 0, 2.5e9)] == ["5 MB", "0 B", "2.5 GB"]


@pytest.mark.parametrize(("rounds", "as_bars"), [(30, True), (31, False)])
def test_beyond_thirty_rounds_bars_become_areas(tmp_path: Path, rounds: int, as_bars: bool) -> None:
    drawn = panels(figure_of(read_run(a_run(tmp_path / "demo", rounds=rounds))))

    for axes in (drawn[f"{TIMES}: the_bank"], drawn[BYTES]):
        assert bool(axes.containers) is as_bars
        assert bool(axes.collections) is not as_bars
    if not as_bars:
        areas = [area.get_datalim(drawn[BYTES].transData).extents for area in drawn[BYTES].collections]
        assert areas == [
            pytest.approx([1.0, 0.0, 31.0, 5_120_000.0]),
            pytest.approx([1.0, 5_120_000.0, 31.0, 10_240_000.0]),
            pytest.approx([1.0, -5_200_000.0, 31.0, 0.0]),
            pytest.approx([1.0, -10_400_000.0, 31.0, -5_200_000.0]),
        ]


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    write(tmp_path / "run" / "_bank", [{"iteration": 0, "round": 1, "loss": 1.0, "$x$/acc": 0.5}])
    write(tmp_path / "run" / ("a" * 64), [{"iteration": 0, "round": 1, "loss": 1.0}])

    drawn = panels(figure_of(read_run(tmp_path / "run")))

    assert legend(drawn[LOSS]) == [" _bank", "a" * 14 + "…" + "a" * 15]
    assert legend(drawn[SCORES]) == [r"\$x\$/acc"]  # a dollar sign, not the beginning of a formula


# -- how it looks ----------------------------------------------------------------------------------------------


def visible_texts(figure: Figure) -> list[tuple[str, Any]]:
    """Return every text that is drawn with the pixels that it takes."""
    canvas: Any = FigureCanvasAgg(figure)  # its method has no annotations
    renderer = canvas.get_renderer()
    figure.draw(renderer)
    texts = list(figure.texts)
    for axes in figure.axes:
        found = axes.get_legend()
        texts += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]  # type: ignore[attr-defined]  # no other way to its place
        texts += found.get_texts() if found else []
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            shown = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [axis.get_offset_text(), *(tick.label1 for tick in shown if tick.label1.get_visible())]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]


def assert_readable(figure: Figure) -> list[str]:
    """Check that nothing covers a text; returns all texts."""
    texts = visible_texts(figure)
    for number, (text, box) in enumerate(texts):
        assert figure.bbox.containsx(box.x0) and figure.bbox.containsx(box.x1), text
        assert figure.bbox.containsy(box.y0) and figure.bbox.containsy(box.y1), text
        assert [other for other, its in texts[number + 1 :] if box.padded(CLEAR).overlaps(its)] == [], text
    for axes in figure.axes:
        assert all(tick.get_text().isdigit() for tick in axes.get_xticklabels())
        assert axes.yaxis.get_offset_text().get_text() == ""
        found = axes.get_legend()
        assert found is None or found.get_window_extent().x0 > axes.bbox.x1
    return [text for text, _ in texts]


CLEAR = 3.0
"""Pixels around a text in which there is no other."""


@pytest.mark.parametrize(("parties", "rounds"), [(2, 1), (3, 5), (9, 12), (4, 30), (9, 200)])
def test_no_text_covers_another_or_the_data_or_leaves_the_picture(tmp_path: Path, parties: int, rounds: int) -> None:
    figure = figure_of(read_run(a_run(tmp_path / "demo", parties=parties, rounds=rounds)))

    assert len(assert_readable(figure)) > 40


def test_a_panel_is_as_high_as_its_legend_needs(tmp_path: Path) -> None:
    scores = {f"{'long_' * 12}{number}/acc": number / 20 for number in range(20)}
    for name in ("bank", "shop"):
        write(tmp_path / "run" / name, [{"iteration": 9, "round": 1, "lr": 0.1, **scores}])

    assert_readable(figure_of(read_run(tmp_path / "run")))


@pytest.mark.parametrize(("loss", "told"), [(2_345_678.0, "2 M"), (0.00002, "0.00002"), (1e-5, "0.00001")])
def test_large_and_small_numbers_are_written_out(tmp_path: Path, loss: float, told: str) -> None:
    lines = [{"iteration": i, "round": 1, "loss": loss * (1 - i / 4)} for i in range(4)]
    figure = figure_of(read_run(write(tmp_path / "bank", lines)))

    texts = assert_readable(figure)

    assert any(text.rstrip("0") == told.rstrip("0") for text in texts), texts


def test_numbers_close_to_each_other_are_written_in_full(tmp_path: Path) -> None:
    lines = [{"iteration": i, "round": 1, "loss": 1234.5 + i * 1e-4} for i in range(4)]
    figure = figure_of(read_run(write(tmp_path / "bank", lines)))

    assert "1234.5002" in [text.rstrip("0") for text in assert_readable(figure)]


def test_the_picture_is_a_png_of_the_figures_size_on_white(tmp_path: Path) -> None:
    run = read_run(a_run(tmp_path / "demo"))

    out = plot_run(run, tmp_path / "plot.png")

    assert out == tmp_path / "plot.png"
    width, height = (round(inches * plots.DPI) for inches in figure_of(run).get_size_inches())
    pixels = imread(out)
    assert width == 1320
    assert abs(pixels.shape[0] - height) <= 1 and pixels.shape[1:] == (width, 4)
    assert (pixels[0, 0] == 1.0).all()
    blue = np.array([0x00, 0x72, 0xB2]) / 255
    assert (np.abs(pixels[:, :, :3] - blue).max(axis=2) < 0.01).sum() > 1000


def test_a_long_run_of_nine_parties_is_drawn(tmp_path: Path) -> None:
    out = plot_run(read_run(a_run(tmp_path / "demo", parties=9, rounds=200)), tmp_path / "plot.png")

    assert imread(out).shape[1] == 1320


def test_names_in_letters_that_the_font_lacks_are_no_obstacle(tmp_path: Path) -> None:
    run = read_run(write(tmp_path / "bank", [{"iteration": 0, "round": 1, "模型/accuracy": 0.5}]))

    assert plot_run(run, tmp_path / "plot.png").is_file()


def test_a_disk_that_is_full_leaves_the_earlier_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read_run(a_run(tmp_path / "demo"))
    out = tmp_path / "pictures" / "plot.png"
    out.parent.mkdir()
    out.write_bytes(b"the earlier one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=rf"cannot write {out}: No space left on device"):
        plot_run(run, out)

    assert out.read_bytes() == b"the earlier one"
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("name", ["plot.pdf", "plot", "plot.png.txt"])
def test_another_kind_of_picture_is_refused(tmp_path: Path, name: str) -> None:
    run = read_run(a_run(tmp_path / "demo"))

    with pytest.raises(ConfigError) as caught:
        plot_run(run, tmp_path / name)

    told = f"no picture can be written as {tmp_path / name}; expected a name that ends in .png."
    assert str(caught.value) == told
    assert not (tmp_path / name).exists()


def test_a_run_with_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    run = read_run(write(tmp_path / "bank", [{"iteration": 4, "round": 1, "time": 0.5}]))

    with pytest.raises(DataError) as caught:
        plot_run(run, tmp_path / "plot.png")

    told = f"{tmp_path / 'bank'} has no loss, score, learning rate, time or bytes to draw."
    assert str(caught.value) == told


def test_without_matplotlib_the_table_is_there_and_the_picture_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plots.can_draw()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in [each for each in sys.modules if each.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)

    run = read_run(a_run(tmp_path / "demo"))

    assert "the_bank" in summary(run)
    assert not plots.can_draw()
    with pytest.raises(ConfigError) as caught:
        plot_run(run, tmp_path / "plot.png")
    assert str(caught.value).startswith("a picture needs matplotlib (")
    assert str(caught.value).endswith(' Install it: pip install "heterofed[plots]".')
    assert not (tmp_path / "plot.png").exists()


def test_reading_loads_no_matplotlib_and_drawing_no_pyplot_and_nothing_loads_torch(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from heterofed.metrics.plots import plot_run
from heterofed.metrics.runs import read_run, summary
run = read_run(Path(sys.argv[1]))
summary(run)
assert "matplotlib" not in sys.modules
import matplotlib
before = matplotlib.rcParams.copy()
plot_run(run, Path(sys.argv[1], "plot.png"))
assert not [each for each in before if each != "backend" and matplotlib.rcParams[each] != before[each]]
assert "matplotlib.pyplot" not in sys.modules
assert "torch" not in sys.modules
"""
    command = [sys.executable, "-W", "error", "-c", script, str(a_run(tmp_path / "demo"))]

    done = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=Path(__file__).parents[2])

    assert done.stderr == ""
    assert done.returncode == 0

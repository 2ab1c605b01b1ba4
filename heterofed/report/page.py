"""The page: report.html, one file that needs no other and no network, and the pictures beside it as PNGs."""

from __future__ import annotations

import base64
from importlib import resources
from pathlib import Path

from heterofed.files import make_folder, refused, write_whole
from heterofed.report.canvas import Picture
from heterofed.report.evaluation import Evaluation
from heterofed.report.needs import PACKAGES, need
from heterofed.report.pictures import NAMES, pictures_of
from heterofed.report.scores import SMALLER_IS_BETTER, main_score, spoken
from heterofed.report.summary import (
    EVALUATION_FILE,
    HOST_ALONE,
    Summary,
    drop,
    in_figures,
    in_rows,
    signed,
    summarise,
    write_summary,
)

REPORT_FILE = "report.html"
PICTURES = "pictures"
_TEMPLATE = "page.html.jinja"


def write_evaluation(folder: Path, evaluation: Evaluation) -> tuple[Path, ...]:
    """Write evaluation.json, report.html and pictures/*.png into a folder, which is made if it is not there.

    Everything is computed and drawn before the first file is written.

    Returns:
        The files.

    Raises:
        ConfigError: scikit-learn, matplotlib or jinja2 is missing.
        OutputError: a file cannot be written; an earlier one of its name is untouched.
    """
    need(*PACKAGES)
    summary = summarise(evaluation)
    drawn = [(each, each.png()) for each in pictures_of(evaluation, summary)]
    page = page_of(summary, drawn)
    written = [write_summary(make_folder(folder), summary)]
    written.append(write_whole(folder / REPORT_FILE, lambda file: file.write(page.encode())))
    pictures = make_folder(folder / PICTURES) if drawn else folder
    for picture, png in drawn:
        written.append(_write(pictures / f"{picture.name}.png", png))
    return tuple(written)


def remove_evaluation(folder: Path) -> None:
    """Remove what `write_evaluation` wrote before: a new run in its folder makes it that of something else.

    Nothing is removed where there is no evaluation.json, and no picture but those that a report may have.

    Raises:
        OutputError: it cannot be removed.
    """
    if not (folder / EVALUATION_FILE).exists():
        return
    pictures = (folder / PICTURES / f"{name}.png" for name in NAMES)
    # evaluation.json goes last: as long as it is there, what could not be removed is found again
    for path in (*pictures, folder / REPORT_FILE, folder / EVALUATION_FILE):
        with refused(path):
            path.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> Path:
    return write_whole(path, lambda file: file.write(content))


def page_of(summary: Summary, drawn: list[tuple[Picture, bytes]]) -> str:
    """Return report.html.

    Args:
        summary: its numbers.
        drawn: its pictures, as PNGs.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    score = summary.compared_by
    whole = summary.sets[summary.main].scores[score]
    alone = summary.host_alone.scores[score] if summary.host_alone else None
    return template.render(
        summary=summary,
        score=spoken(score),
        better="smaller" if score in SMALLER_IS_BETTER else "larger",
        cards=_cards(summary, whole, alone),
        table=summary.table(),
        contributions=_contributions(summary),
        pictures=[(each, base64.b64encode(png).decode()) for each, png in drawn],
        notes=_notes(summary),
    )


def _cards(summary: Summary, whole: float | None, alone: float | None) -> list[tuple[str, str, str]]:
    """Return what is written large: name, number, what it is."""
    name = spoken(summary.compared_by)
    rows = in_rows(summary.sets[summary.main].rows)
    if summary.with_stand_ins:
        rows = f"{rows}, {summary.with_stand_ins:,} with stand-ins"
    elif summary.parties:
        rows = f"{rows}, all parties"
    cards = [(f"{name}, {summary.main}", in_figures(whole), rows)]
    if summary.host_alone:
        cards.append((f"{name}, {HOST_ALONE}", in_figures(alone), "the same rows, the host's own columns"))
        gain = drop(summary.compared_by, whole, alone)
        if gain is not None:
            way = "better" if gain > 0 else "worse" if gain < 0 else "the same"
            cards.append(("with the others it is", in_figures(abs(gain)), way))
    return cards


def _contributions(summary: Summary) -> list[tuple[str, str, str]]:
    """Return a line for each party: name, score without it, how much worse that is."""
    found = []
    for party, each in summary.ablated.items():
        worse = summary.drops[party]
        told = "–" if worse is None else signed(worse)
        found.append((party, in_figures(each.scores[summary.compared_by]), told))
    return found


def _notes(summary: Summary) -> list[str]:
    """Return what a reader has to know of how the scores came about, and of what is missing."""
    main = summary.sets[summary.main]
    notes = list(summary.remarks)
    if not main.rows:
        notes.append(f"{summary.main} has no rows: nothing can be said of it.")
    elif main.rows < 100:
        notes.append(f"{summary.main} has only {in_rows(main.rows)}: its scores may be quite different for other rows.")
    undefined = [spoken(name) for name, value in main.scores.items() if value is None]
    if main.rows and undefined:
        reason = (
            "two rows or more with different values"
            if summary.task == "regression"
            else "rows of more than one class, and predictions of each"
        )
        notes.append(f"Undefined in {summary.main}, and shown as –: {', '.join(undefined)}. They need {reason}.")
    best = main_score(summary.task)[0]
    if main.rows and best != summary.compared_by:
        notes.append(
            f"Parties are compared by the {spoken(summary.compared_by)}, because the {spoken(best)} is undefined."
        )
    return notes

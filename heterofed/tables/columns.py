"""What the columns of a table are: numbers, categories, yes and no, dates, or nothing that a model can use.

How a column is recognised, by all its rows that are not missing; the first line that fits holds:

    all missing   no row has a value: an error, unless the column is ignored
    (as said)     `kinds` names its kind
    constant      every row has the same value: not used
    boolean       true/false, yes/no, t/f, y/n in any case of letters, 1/0, or stored as such
    date          stored as such, or text of the form 2024-01-31, perhaps with a time
    numeric       numbers, none of which is digits after a zero: 00123 is a code
    an error      dates that are not all of that form; text nine tenths of which are numbers, or would be but for a
                  decimal comma; lists, bytes, a mixture
    text          more than 1000 distinct texts, or more than 50 that are over half of the rows: not used
    categorical   any other text
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from heterofed.errors import ConfigError, DataError
from heterofed.tables.ordered import OrderedTable
from heterofed.tables.profile import MOST_COUNTED, Profile
from heterofed.tables.values import DATE_FORM, cells_of
from heterofed.words import some_of

Role: TypeAlias = Literal["host", "collaborator"]
"""Which party a table is of."""

FeatureKind = Literal["numeric", "categorical", "boolean", "date"]
"""What a model can use."""

Kind = Literal["numeric", "categorical", "boolean", "date", "constant", "all missing", "text", "label", "ignored"]

FEW_KINDS = 50
"""A text with at most so many distinct values is a category however few the rows are."""

MOSTLY = 0.9
"""From this share on, a text whose cells are numbers is taken for numbers with mistakes in it."""


@dataclass(frozen=True)
class Column:
    """What was found of a column."""

    name: str
    kind: Kind
    rows: int
    missing: int
    kinds: int
    """Distinct values; above `MOST_COUNTED` there are more than that."""
    low: str = ""
    """Lowest and highest number or day; "" where it has none, and for categories, whose values are not shown."""
    high: str = ""
    note: str = ""
    """Why it is not used, or what a reader should know."""
    problem: tuple[str, str, str] | None = None
    """What is wrong with it, what was expected and what to do; None: nothing."""

    @property
    def is_feature(self) -> bool:
        """Whether a model gets it."""
        return self.kind in get_args(FeatureKind) and self.problem is None


@dataclass(frozen=True)
class Columns(Sequence[Column]):
    """The columns of a table, without the ids, in their order."""

    table: str
    """Name of the table, for errors."""
    found: tuple[Column, ...]

    def __getitem__(self, index: Any) -> Any:
        return self.found[index]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Column]:
        return iter(self.found)

    @property
    def features(self) -> dict[str, FeatureKind]:
        """Name -> kind of the columns that a model gets."""
        kinds: tuple[FeatureKind, ...] = get_args(FeatureKind)
        return {each.name: kind for each in self if each.is_feature for kind in kinds if kind == each.kind}

    @property
    def problems(self) -> list[Column]:
        """The columns that cannot be used as they are."""
        return [each for each in self if each.problem is not None]

    def refuse_problems(self) -> None:
        """Raise for the first column that cannot be used, and name the others.

        Raises:
            DataError: there is one.
        """
        others = [each.name for each in self.problems[1:]]
        for column in self.problems[:1]:
            what, expected, advice = column.problem or ("", "", "")
            more = f" {len(others)} more columns have problems: {some_of(others)}." if others else ""
            raise DataError(f"column {column.name!r} of {self.table} {what}", expected=expected, advice=advice + more)

    def describe(self) -> list[tuple[str, ...]]:
        """Return a table of texts, header first, that shows no value of a category."""
        rows: list[tuple[str, ...]] = [("column", "kind", "missing", "distinct", "lowest", "highest", "note")]
        for each in self:
            is_many = each.kinds > MOST_COUNTED
            kinds = f">{MOST_COUNTED}" if is_many else str(each.kinds or "")  # of labels none are counted
            share = f"{each.missing} ({each.missing / each.rows:.1%})" if each.missing else "0"
            note = f"PROBLEM: {each.problem[0]}" if each.problem else each.note
            rows.append((each.name, each.kind, share, kinds, each.low, each.high, note))
        return rows


def recognise(
    table: OrderedTable,
    *,
    labels: Collection[str] = (),
    kinds: Mapping[str, FeatureKind] | None = None,
    ignore: Collection[str] = (),
    too_many_kinds: Literal["ignore", "refuse"] = "ignore",
) -> Columns:
    """Return what each column of a table is; raises nothing of what it finds there, see `Columns.refuse_problems`.

    Args:
        table: all its rows are looked at, for kinds and ranges only: what a model is fitted on is chosen later.
        labels: columns that are no features because they hold what is to be predicted.
        kinds: name -> kind, where the rule of this module would come to another.
        ignore: columns to leave out.
        too_many_kinds: whether a text of too many distinct values is left out or is a problem.

    Raises:
        ConfigError: a column is named that the table does not have, or twice for different ends; or no such kind.
        DataError: the file cannot be read.
    """
    forced = dict(kinds or {})
    _check_names(table, labels, forced, ignore)
    looked_at = [each for each in table.columns if each not in ignore and each not in labels]
    profiles = {each: Profile() for each in looked_at}
    for chunk in table.chunks(columns=looked_at):
        for name, profile in profiles.items():
            profile.add(cells_of(chunk[name]))
    found = []
    for name in table.columns:
        if name in profiles:
            found.append(_column(name, profiles[name], forced.get(name), too_many_kinds))
        else:
            found.append(Column(name, "label" if name in labels else "ignored", len(table), 0, 0))
    return Columns(table.name, tuple(found))


def refuse_label(label: str | Sequence[str] | None, role: Role) -> None:
    """Refuse a label column that is named at a collaborator, before anything is read.

    Raises:
        ConfigError: one is.
    """
    if label and role == "collaborator":
        names = label if isinstance(label, str) else ", ".join(label)
        raise ConfigError(
            f"the label column {names!r} is named at a collaborator",
            expected="labels at the host only: a collaborator has features and nothing else",
            advice="Leave the label out here; if this table has a column with the answer in it, name it in ignore.",
        )


def _check_names(
    table: OrderedTable, labels: Collection[str], kinds: Mapping[str, str], ignore: Collection[str]
) -> None:
    for what, names in (("label", labels), ("kinds", kinds), ("ignore", ignore)):
        unknown = [each for each in names if each not in table.columns]
        if unknown:
            is_id = unknown[0] == table.id_column
            raise ConfigError(
                f"{what} names {unknown[0]!r}, which is {'the id column' if is_id else 'no column'} of {table.name}",
                expected=f"columns among {some_of(table.columns)}",
            ).privately("a column is named that its table does not have")
    twice = [each for each in (*labels, *kinds, *ignore) if [*labels, *kinds, *ignore].count(each) > 1]
    if twice:
        raise ConfigError(f"column {twice[0]!r} is named twice", expected="once, among label, kinds and ignore")
    wrong = [name for name, kind in kinds.items() if kind not in get_args(FeatureKind)]
    if wrong:
        raise ConfigError(
            f"kinds says {kinds[wrong[0]]!r} of column {wrong[0]!r}",
            expected=f"one of {', '.join(get_args(FeatureKind))}",
        )


def _column(name: str, profile: Profile, forced: FeatureKind | None, too_many: str) -> Column:
    kind, note, problem = _judge(profile, forced, too_many)
    low = high = ""
    if kind == "numeric" and profile.low <= profile.high:
        low, high = f"{profile.low:.6g}", f"{profile.high:.6g}"
    if kind == "date" and not np.isnat(profile.first):
        low, high = (str(each.astype("datetime64[D]")) for each in (profile.first, profile.last))
    return Column(name, kind, profile.rows, profile.missing, len(profile.distinct), low, high, note, problem)


def _judge(found: Profile, forced: FeatureKind | None, too_many: str) -> tuple[Kind, str, tuple[str, str, str] | None]:
    """Return (kind, note, problem); see the table in this module's header."""
    present, kinds = found.present, len(found.distinct)
    if not present:
        advice = "Fill it in, or name it in ignore."
        return "all missing", "", (f"has no value in any of {found.rows} rows", "a value in some", advice)
    if "other" in found.storages or len(found.storages - {"nothing"}) > 1:
        advice = "Convert it to one of these, or name it in ignore."
        return "text", "", ("holds lists, bytes or values of mixed types", "text, numbers, booleans or dates", advice)
    if forced is not None:
        return forced, "as told", _misfit(found, forced)
    if kinds == 1 and not found.missing:
        return "constant", "the same value in every row: not used", None
    if found.booleans == present:
        return "boolean", "", None
    if found.dates + found.dates_otherwise == present or found.dates * 2 > present:
        return "date", "", _misfit(found, "date")
    if found.numbers == present and not found.codes_with_zeros:
        return "numeric", "", _misfit(found, "numeric")
    meant = found.numbers + found.numbers_with_comma >= MOSTLY * present and not found.codes_with_zeros
    if meant and (found.numbers_with_comma or kinds > FEW_KINDS):
        return "numeric", "", _misfit(found, "numeric")
    if found.has_many_kinds or (kinds > FEW_KINDS and kinds * 2 > present):
        if too_many == "ignore":
            return "text", "too many distinct texts for a category: not used", None
        advice = "Name it in ignore, or say kinds={…: 'categorical'} to use the most frequent ones."
        return "text", "", ("has too many distinct texts for a category", f"at most {MOST_COUNTED}", advice)
    return "categorical", "digits after a zero: codes, no numbers" if found.codes_with_zeros else "", None


def _misfit(found: Profile, kind: FeatureKind) -> tuple[str, str, str] | None:
    """Return what is wrong with a column that should be of this kind."""
    if kind == "categorical":
        return None
    fit = {"numeric": found.numbers, "boolean": found.booleans, "date": found.dates}[kind]
    if kind == "numeric" and found.unbounded:
        what = f"holds {found.unbounded} numbers that are infinite or too large"
        return what, "finite numbers up to 1e150", "Correct these, or leave their cells empty."
    if fit == found.present:
        return None
    noun, form = EXPECTED[kind]
    advice = "Correct these or leave their cells empty; if the column is something else, say so with kinds or ignore."
    return f"has {found.present - fit} of {found.present} values that are no {noun}", form, advice


EXPECTED: dict[FeatureKind, tuple[str, str]] = {
    "numeric": ("numbers", "numbers with a decimal point, such as -12.5 or 1e-3"),
    "boolean": ("booleans", "true/false, yes/no, t/f, y/n or 1/0"),
    "date": ("dates of the one form", DATE_FORM),
    "categorical": ("categories", "text"),
}
"""Kind -> (what its values are called, the form that they have to have)."""

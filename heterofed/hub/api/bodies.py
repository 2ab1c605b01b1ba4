"""What requests hold, as the OpenAPI document shows it. Meaning is checked by the store, form here."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt

from heterofed.hub.access import UserRole
from heterofed.tasks.course import ReportKind
from heterofed.tasks.model import LONGEST_LIFE, PartyStatus, Role, TaskStatus
from heterofed.tasks.options import UncertaintyName

LARGEST = 2**31 - 1
"""What every database takes as an integer."""

Text = Annotated[str, Field(max_length=20_000)]
Word = Annotated[str, Field(max_length=1000)]
Count = Annotated[StrictInt, Field(ge=0, le=LARGEST)]
Seconds = Annotated[StrictInt | StrictFloat, Field(gt=0, le=LONGEST_LIFE.total_seconds(), allow_inf_nan=False)]


class Body(BaseModel):
    """A JSON object with these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Options(Body):
    """A task's options; see `heterofed.tasks.options`."""

    skip_model_tests: StrictBool = False
    model_test_after_each_round: StrictBool = True
    delete_local_models_after_aggregation: StrictBool = True


class NewTask(Body):
    """What a task is made of."""

    name: Word
    parties: Annotated[list[Word], Field(max_length=100)]
    lives_for_s: Seconds | None = None
    rounds: Count | None = None
    options: Options | None = None
    uncertainty: UncertaintyName | None = None


class Reason(Body):
    """Why."""

    reason: Text | None = None


class Move(Body):
    """Where a task moves."""

    status: TaskStatus
    reason: Text | None = None


class PartyChange(Body):
    """What changes of a party: what is absent stays, null clears."""

    status: PartyStatus | None = None
    reason: Text | None = None
    role: Role | None = None
    public_key: Word | None = None
    endpoint: Word | None = None


class Key(Body):
    """A party's public key, as `heterofed keys show` prints it."""

    public_key: Word


class Verification(Body):
    """Whether a party's data can be used."""

    verified: StrictBool
    reason: Text | None = None


class MemberName(Body):
    """Which user a party is."""

    user: Word


class Line(Body):
    """A line of the log."""

    text: Text


class Report(Body):
    """What a party did."""

    kind: ReportKind
    round: Count
    body: dict[str, Any] | None = None


class Beginning(Body):
    """Which beginning of a party it is: a text of its own for each, of letters, digits, `_` and `-`."""

    launch: Word


class Row(Body):
    """One row of a metric set. NaN and infinity are the texts "nan", "inf" and "-inf"."""

    set: Word
    row: Count
    round: Count | None = None
    values: dict[str, StrictInt | StrictFloat | StrictBool | str | None]


class Rows(Body):
    """Rows of metric sets."""

    rows: Annotated[list[Row], Field(max_length=10_000)]


class NewUser(Body):
    """A user."""

    name: Word
    role: UserRole


class TokenWish(Body):
    """What a token is for."""

    role: UserRole | None = None
    expires_in: Seconds | None = None
    label: Annotated[str, Field(max_length=100)] = ""


class Endpoint(Body):
    """Where notifications go, and what they are signed with; null: nowhere."""

    url: Word | None
    secret: Annotated[str, Field(max_length=200)] | None = None

"""Who somebody is, and the one table of what who may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal, get_args

from heterofed.errors import ConfigError, NotAllowed
from heterofed.hub.settings import HubSettings

UserRole = Literal["viewer", "party", "owner"]
"""What a user is on this hub, the least first. An owner makes tasks; a party takes part; a viewer only reads."""

ROLES: tuple[UserRole, ...] = get_args(UserRole)


def cookie_name(settings: HubSettings) -> str:
    """Return the name of the cookie of a browser's session: browsers do not tell the ports of a machine apart."""
    return f"heterofed_hub_{settings.port}"


def check_role(role: object) -> UserRole:
    """Return `role` if it is one.

    Raises:
        ConfigError: it is none.
    """
    for each in ROLES:
        if role == each:
            return each
    raise ConfigError("a user's role is wrong", expected="owner, party or viewer")


@dataclass(frozen=True)
class Actor:
    """Who makes a request, as its token says."""

    user: str
    """Name of the user."""

    user_id: int

    role: UserRole
    """The token's: at most the user's."""

    admin: bool = False
    """Whether every task and every user is theirs."""

    task_id: str | None = None
    """The only task that the token is good for."""

    party: str | None = None
    """The only party of it."""

    token_id: int | None = None

    address: str | None = None
    """Where the request came from, for the audit log."""

    def at(self, address: str | None) -> Actor:
        """Return the same actor, come from an address."""
        return replace(self, address=address)

    @property
    def may_create(self) -> bool:
        """Whether they may make tasks and users."""
        return self.role == "owner" and self.task_id is None


class Tie(str, Enum):
    """What somebody is to one task."""

    OWNER = "its owner"
    HOST = "its host"
    PARTY = "one of its parties"
    VIEWER = "a viewer of it"


@dataclass(frozen=True)
class Ties:
    """What an actor is to one task, and which of its parties it is."""

    kinds: frozenset[Tie] = frozenset()

    keys: frozenset[str] = frozenset()
    """Feature keys."""

    def __bool__(self) -> bool:
        return bool(self.kinds)


@dataclass(frozen=True)
class Rule:
    """Who may do something to a task."""

    who: frozenset[Tie]
    as_itself: bool = False
    """Besides: the very party that it is about."""


_ALL = frozenset(Tie)
_OWNER = frozenset({Tie.OWNER})
RULES: Mapping[str, Rule] = {
    "see": Rule(_ALL),
    "start": Rule(_OWNER),
    "cancel": Rule(frozenset({Tie.OWNER, Tie.HOST})),
    "move": Rule(frozenset({Tie.HOST})),
    "note that data are checked": Rule(frozenset({Tie.OWNER, Tie.HOST, Tie.PARTY})),
    "change": Rule(frozenset(), as_itself=True),
    "verify": Rule(frozenset(), as_itself=True),
    "report for": Rule(frozenset(), as_itself=True),
    "fetch a model of": Rule(_OWNER, as_itself=True),
    "trust a key of": Rule(frozenset({Tie.OWNER, Tie.HOST}), as_itself=True),
    "invite": Rule(_OWNER),
    "see the members of": Rule(_OWNER),
    "choose the members of": Rule(_OWNER),
}
"""action -> who may do it. A party writes only as itself; only the host moves the task; a viewer reads."""


def allowed(action: str, ties: Ties, party: str | None = None) -> bool:
    """Return whether somebody of these ties may do something to a task, or to a party of it."""
    rule = RULES[action]
    return bool(rule.who & ties.kinds) or (rule.as_itself and party is not None and party in ties.keys)


def check(actor: Actor, action: str, ties: Ties, task_id: str, party: str | None = None) -> None:
    """Do nothing if an actor may do something.

    Raises:
        NotAllowed: it may not; the text says who may.
    """
    if allowed(action, ties, party):
        return
    rule = RULES[action]
    who = [tie.value for tie in Tie if tie in rule.who]
    what = f"party {party} of task {task_id}" if party is not None else f"task {task_id}"
    if rule.as_itself:
        who.append("that party itself")
    raise NotAllowed(
        f"{actor.user} may not {action} {what}",
        expected=" or ".join(who),
        advice="Use the token of the invitation to this task, or ask its owner.",
    )


def ties_of(
    actor: Actor, memberships: list[tuple[str, str | None]], host: str | None, unclaimed: frozenset[str]
) -> Ties:
    """Return what an actor is to a task.

    Args:
        actor: who.
        memberships: (role, feature key) of each of the user's memberships in the task.
        host: feature key of the party that said that it is the host.
        unclaimed: feature keys of the parties that no user is; until somebody is, the owner may speak for them, so
            that a task can be tried on one machine with one token.
    """
    keys = {key for role, key in memberships if role == "party" and key is not None}
    owner = actor.role == "owner" and (actor.admin or any(role == "owner" for role, _ in memberships))
    if owner:
        keys |= unclaimed
    if actor.party is not None:
        keys &= {actor.party}
    if actor.role == "viewer":
        return Ties(frozenset({Tie.VIEWER})) if memberships or actor.admin else Ties()
    kinds = set()
    if owner:
        kinds.add(Tie.OWNER)
    if keys:
        kinds.add(Tie.PARTY)
    if host is not None and host in keys:
        kinds.add(Tie.HOST)
    if memberships and not kinds:
        kinds.add(Tie.VIEWER)
    return Ties(frozenset(kinds), frozenset(keys))

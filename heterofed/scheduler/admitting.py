"""What keeps a collaborator that checks in out of a host's session."""

from __future__ import annotations

from collections.abc import Mapping

from heterofed.errors import ConfigError
from heterofed.frames.messages import LOCK_STEP, PROTOCOL_VERSION, CheckIn, Matching, Purpose, Terms
from heterofed.scheduler.standing import Standing
from heterofed.scheduler.terms import needs_plan

_PURPOSES: Mapping[Purpose, str] = {
    "train": "to train",
    "match": "to match ids alone",
    "predict": "for predictions with a run that is completed",
}


def problem(check_in: CheckIn, peer: str, task_id: str, purpose: Purpose) -> str | None:
    """Return why a party cannot be let in as it is; None where it can."""
    if check_in.protocol == PROTOCOL_VERSION and check_in.purpose != purpose:
        return (
            f"it came {_PURPOSES[check_in.purpose]}, and the host is here {_PURPOSES[purpose]}. Start both for the same"
        )
    for what, said, expected in (
        ("protocol version", check_in.protocol, PROTOCOL_VERSION),
        ("task id", check_in.task_id, task_id),
        ("feature key", check_in.feature_key, peer),
    ):
        if said != expected:
            return (
                f"it checked in with {what} {said}; expected {expected}. Run the same version of heterofed everywhere, "
                f"with the same task id"
            )
    return None


def unmatched(check_in: CheckIn, peer: str, ours: Matching) -> str | None:
    """Return how a party would match ids in another way than the host; None where it would not."""
    if check_in.matching == ours:
        return None
    return (
        f"{peer} would match ids by {check_in.matching}; expected what the host would do ({ours}). Agree on "
        f"HETEROFED_PSI_PROTOCOL and HETEROFED_PSI_PAIRWISE, and on who is to learn the shared ids, then start again"
    )


def check_same_run(ours: Standing, check_in: CheckIn, peer: str) -> None:
    """Refuse a party whose model was trained in another run than ours.

    Raises:
        ConfigError: it was.
    """
    if check_in.run != ours.run:
        raise ConfigError(
            "has loaded a model of another run of this task than the host",
            party=peer,
            expected="the folders that one and the same run wrote at all parties",
            advice="Name the folder of the run that all parties completed together.",
        )
    if check_in.points != ours.points:
        raise ConfigError(
            f"has loaded a model of {' or '.join(map(str, check_in.points)) or 'no'} rounds",
            party=peer,
            expected=f"{max(ours.points)} rounds, as the host's has",
            advice="Name the folder that the same run wrote, or take it from a backup.",
        )


def check_batching(
    here: Mapping[str, CheckIn], host: str, *, own_batches: bool, shuffle: bool, terms: Terms = LOCK_STEP
) -> None:
    """Refuse collaborators that could not follow the host's batches.

    Args:
        here: what each collaborator said of itself.
        host: the host's feature key.
        own_batches: whether the host's code chooses its batches.
        shuffle: whether the host's plan has another order in every round.
        terms: how batches are to be exchanged.

    Raises:
        ConfigError: the two ways do not fit together.
    """
    for peer, each in here.items():
        if own_batches and not each.own_batches:
            raise ConfigError(
                f"{peer} wrote load_batch and needs a batch plan, but {host} chooses its own batches",
                expected="load_batch at the host too, or iterate_* at both",
            )
        if not own_batches and shuffle and each.own_batches:
            raise ConfigError(
                f"{host} shuffles, but {peer} chooses its own batches",
                expected="load_batch at every party, or shuffle=False",
            )
        if each.own_batches and (argument := needs_plan(terms)):
            raise ConfigError(
                f"{host} declares {argument}, but {peer} chooses its own batches",
                expected=f"load_batch at every party, or no {argument}",
            )

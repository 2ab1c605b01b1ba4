"""The user's split of the shared ids: checked at its own party, then compared between the parties."""

from __future__ import annotations

from heterofed.errors import AlignmentError
from heterofed.features.alignment import OrderedIds, check_same_ids, digest_of, ordered
from heterofed.frames.messages import Split
from heterofed.metrics.progress import logger


def checked_split(split: object, shared: OrderedIds, *, party: str, own_batches: bool) -> tuple[list[str], list[str]]:
    """Return what `split_dataset` gave as ordered (train ids, test ids).

    Args:
        split: its return value.
        shared: the ids it had to split.
        party: feature key, for the text of errors.
        own_batches: whether the user's code reads the ids itself; then ids of its own making only draw a warning.

    Raises:
        AlignmentError: not two collections of unique str, no train ids, or ids that are not shared or in both parts.
    """
    if not isinstance(split, tuple | list) or len(split) != 2:
        raise AlignmentError(f"split_dataset returned {type(split).__name__}", expected="(train ids, test ids)")
    train, test = (ordered(each, "split_dataset") for each in split)
    if not train:
        raise AlignmentError(f"split_dataset left no train ids of {len(shared)} shared ones", expected="at least one")
    strangers = sum(1 for each in (*train, *test) if each not in shared)
    both = len(set(train) & set(test))
    if strangers or both:
        problem = f"split_dataset returned {strangers} ids that are not shared and {both} for both train and test"
        if not own_batches:
            raise AlignmentError(problem, expected="two separate parts of the shared ids")
        logger.warning("%s: %s; your iterate_* methods must know what they stand for", party, problem)
    return train, test


def describe_split(train: list[str], test: list[str], key: bytes) -> Split:
    """Return the sizes and keyed digests of a split, ready to be sent."""
    return Split(train=len(train), test=len(test), train_digest=digest_of(train, key), test_digest=digest_of(test, key))


def compare_splits(peer: str, theirs: Split, our_name: str, ours: Split) -> None:
    """Check that a peer split the ids as we did.

    Raises:
        AlignmentError: it did not; the text names both parties and both counts.
    """
    for what, their_count, their_digest, our_count, our_digest in (
        ("train", theirs.train, theirs.train_digest, ours.train, ours.train_digest),
        ("test", theirs.test, theirs.test_digest, ours.test, ours.test_digest),
    ):
        check_same_ids(
            what,
            party=peer,
            theirs=their_count,
            their_digest=their_digest,
            our_name=our_name,
            ours=our_count,
            our_digest=our_digest,
        )

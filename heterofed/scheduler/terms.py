"""What a host declares of the exchange of batches, checked when it is declared.

All of it is for long links: by default a training is exact, in lock-step (see docs/guides/long-links.md).
"""

from __future__ import annotations

from heterofed.checks import check_count
from heterofed.errors import ConfigError
from heterofed.frames.messages import MOST_AHEAD, MOST_LOCAL_STEPS, Terms
from heterofed.frames.precision import Precision


def declared(
    *,
    max_staleness: int,
    local_steps: int,
    batches_per_message: int,
    embedding_precision: str | None,
    gradient_precision: str | None,
    checkpoint_every: int | None,
) -> Terms:
    """Return the terms that a host's arguments make.

    Raises:
        ConfigError: one of them cannot work, or two of them not together.
    """
    check_count("max_staleness", max_staleness, 0, MOST_AHEAD)
    check_count("local_steps", local_steps, 1, MOST_LOCAL_STEPS)
    check_count("batches_per_message", batches_per_message, 1, MOST_AHEAD)
    if batches_per_message > max_staleness + 1:
        raise ConfigError(
            f"batches_per_message is {batches_per_message}, but max_staleness is {max_staleness}",
            expected=f"max_staleness={batches_per_message - 1} or more, since they are all in flight",
        )
    if checkpoint_every is not None and checkpoint_every <= max_staleness:
        raise ConfigError(
            f"checkpoint_every is {checkpoint_every}, but max_staleness is {max_staleness}",
            expected="checkpoints further apart: no batch is in flight when one is written",
        )
    for argument, text in (("embedding_precision", embedding_precision), ("gradient_precision", gradient_precision)):
        if text is not None:
            Precision.parse(text, argument)
    return Terms(max_staleness, local_steps, batches_per_message, embedding_precision or "", gradient_precision or "")


def needs_plan(terms: Terms) -> str | None:
    """Return which of the host's arguments wants `load_batch` at every party; None: none of them."""
    if terms.local_steps > 1:
        return "local_steps"
    if terms.batches_per_message > 1:
        return "batches_per_message"
    for argument in ("embedding_precision", "gradient_precision"):
        text = getattr(terms, argument)
        if text and Precision.parse(text).leaves_out:
            return argument
    return None


def summary(terms: Terms) -> str:
    """Return what makes these terms other than lock-step, for people; empty where nothing does."""
    said = []
    if terms.max_staleness:
        said.append(f"up to {terms.max_staleness} batches ahead of the gradients")
    if terms.batches_per_message > 1:
        said.append(f"{terms.batches_per_message} batches in a message")
    if terms.local_steps > 1:
        said.append(f"{terms.local_steps} steps for each exchange")
    if terms.embedding_precision:
        said.append(f"embeddings as {terms.embedding_precision}")
    if terms.gradient_precision:
        said.append(f"gradients as {terms.gradient_precision}")
    return ", ".join(said)

"""A collaborator's answer to the host's request for embeddings of rows that it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from heterofed.errors import ConfigError, RemoteProtocolError
from heterofed.features.batches import RoundOrder
from heterofed.frames.messages import AnyMessage, Ask, BatchesEnd, Embedding, Proceed
from heterofed.frames.tensors import pack
from heterofed.protocol.phases import TEST_AHEAD
from heterofed.scheduler.predicting.drawing import Drawing
from heterofed.scheduler.predicting.embedding import batches_of
from heterofed.training.evaluating import evaluating

if TYPE_CHECKING:
    from heterofed.scheduler.collaborator import CollaboratorScheduler


def answer(party: CollaboratorScheduler, ask: Ask, shared: Sequence[str], timeout_s: float, drawing: Drawing) -> None:
    """Send the embeddings that the host asks for, as the feature model or a draw of it is.

    Args:
        party: this one, in a session.
        ask: the host's request.
        shared: the shared ids in their order.
        timeout_s: longest wait for the host's word to go on, in seconds; 0: no limit.
        drawing: makes the draw that the host asks for.

    Raises:
        RemoteProtocolError: it asks for rows that are not shared.
        ConfigError: this party's code chooses its batches, or it cannot make that draw.
    """
    if party.own_batches:
        raise ConfigError(
            f"{type(party).__name__} chooses its own batches and cannot embed rows by name",
            party=party.feature_key,
            expected="load_batch in the place of iterate_*, for predictions",
            advice="Write load_batch: it says which rows belong to which ids.",
        ).privately("its code chooses its own batches, so it cannot embed rows by name")
    places = np.frombuffer(bytes(ask.rows.data), "<u4").astype(np.int64)
    if int(places.max()) >= len(shared):
        raise RemoteProtocolError(
            f"asks for a row beyond the {len(shared)} shared ones",
            party=party._host,
            phase="predicting",
            expected="places of shared ids",
            advice="Check that all parties run the same version of heterofed; if they do, do not trust this host.",
        )
    order = RoundOrder([shared[place] for place in places.tolist()], ask.batch_size, party._session_key, places)
    link, host = party._linked, party._host
    source = batches_of(party, order, party.load_batch, "load_batch")
    with evaluating([party.feature_model]), drawing.drawn(ask.draw):
        for batch, (ids, pending) in enumerate(zip(order, source.pending(), strict=True)):
            with torch.no_grad(), drawing.units(ask.draw, "feature", ids):
                local = pending()
            if batch > TEST_AHEAD:
                link.expect(Proceed, from_=[host], waiting_for="word to go on with a prediction", timeout_s=timeout_s)
            rows = local.embedding.shape[0]
            said: list[AnyMessage] = [Embedding(ask.round, batch, rows, local.digest, pack(local.embedding))]
            if batch + 1 == len(order):
                said.append(BatchesEnd(ask.round, len(order)))
            link.send_together(host, said, party._room_s)

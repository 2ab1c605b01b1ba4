"""The model card of a table party's run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from heterofed.export import ModelCard
from heterofed.report import Summary, summarise

if TYPE_CHECKING:
    from heterofed.tabular.collaborator import TableCollaborator
    from heterofed.tabular.host import TableHost


def card_of(party: TableHost | TableCollaborator) -> ModelCard:
    """Return the card of a party whose training has just ended."""
    from heterofed.tabular.host import TableHost

    facts = {"task id": party.task_id}
    settings: dict[str, Any] = {
        "rounds": party.trainer.round,
        "learning rate": party.learning_rate,
        **_feature_settings(party),
        "shares of train, valid and test": ", ".join(f"{each:g}" for each in party.fractions),
    }
    name = party.name or "A model of several tables"
    if not isinstance(party, TableHost):
        return ModelCard(
            name,
            "",
            party.feature_key,
            "collaborator",
            parties={each: party.own_width if each == party.feature_key else None for each in party.task_parties},
            rows={"train": len(party.train_ids), "valid and test": len(party.test_ids)},
            settings=settings,
            encoder=party.encoder,
            models={"feature model": party.feature_model},
            facts=facts,
        )
    settings |= {
        "batch size": party.batch_size,
        "top layers": ", ".join(map(str, party.top)) or "none",
        "class weights": "yes" if party.class_weights else "no",
    }
    found: Summary | None = summarise(party.evaluation) if party.evaluation is not None else None
    feature = {"feature model": party.feature_model} if party.has_features else {}
    return ModelCard(
        name,
        party.labels.task,
        party.feature_key,
        "host",
        parties=party.embedding_widths,
        rows={
            "train": len(party.train_ids),
            "valid": len(party.held_out.valid),
            "test": len(party.held_out.test),
        },
        settings=settings,
        encoder=party.encoder,
        labels=party.labels,
        models={**feature, "infer model": party.infer_model},
        metrics={name: each.scores for name, each in found.sets.items()} if found else {},
        compared=_compared(found) if found else {},
        facts=facts,
    )


def _feature_settings(party: TableHost | TableCollaborator) -> dict[str, Any]:
    if not party.data.has_features:
        return {}
    width: dict[str, Any] = {"width of the embedding": party.own_width}
    if not party.is_feature_trainable:
        width["weights of the feature model"] = "frozen, as the model was made"
    if party.make_model is None:
        return {"hidden layers": ", ".join(map(str, party.hidden)) or "none", **width}
    return {"feature model": party.model_name or "made by a function of one's own", **width}


def _compared(found: Summary) -> Mapping[str, Mapping[str, float | None]]:
    alone = {"host alone": found.host_alone.scores} if found.host_alone else {}
    return {**alone, **{f"without {party}": each.scores for party, each in found.ablated.items()}}

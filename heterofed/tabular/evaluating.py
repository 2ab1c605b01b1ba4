"""How good a trained model is, on which rows, without which party, and beside what the host could do alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heterofed.errors import ConfigError, HeterofedError
from heterofed.metrics.progress import logger
from heterofed.report import Evaluation, ScoredSet, in_rows, main_score, write_evaluation
from heterofed.scheduler.predicting.predicted import Absent, RowStatus
from heterofed.scheduler.predicting.predictions import Predictions
from heterofed.tables.answers import text_of
from heterofed.tabular.losses import loss_of, predictions_of
from heterofed.tabular.models import infer_layers, seeded, width_of
from heterofed.tabular.unsplit import Unsplit, train_unsplit
from heterofed.words import counted

if TYPE_CHECKING:
    from heterofed.tabular.host import TableHost

TRAIN_ROWS = 20_000
"""Train rows that are scored, at most: more would not change the score, and cost the parties time."""

ALONE_ROWS = 50_000
"""Train rows of the model of the host's own columns, at most."""

NEW_ROWS = "new rows"

STAND_INS: Mapping[Absent, str] = {"mean": "the mean embedding of training", "zeros": "zeros"}
"""What `absent` means, in words for people."""


@dataclass(frozen=True)
class _Scored:
    truth: npt.NDArray[Any]
    scores: npt.NDArray[np.float64]
    without: Mapping[str, npt.NDArray[np.float64]]
    """Party -> predictions with the mean embedding in the place of its own."""

    def only(self, ids: Sequence[str], wanted: Sequence[str]) -> _Scored:
        """Return what there is of some of the ids, in their order."""
        chosen = set(wanted)
        kept = np.fromiter((each in chosen for each in ids), bool, len(ids))
        return _Scored(self.truth[kept], self.scores[kept], {party: each[kept] for party, each in self.without.items()})


def report_on_run(host: TableHost, predictions: Predictions) -> Evaluation | None:
    """Score the train, valid and test rows together with the others, and write the report.

    Embeddings are asked for once more; what goes wrong there is the task's trouble. What goes wrong after that is this
    party's own, and no reason to lose a trained model: it becomes a warning.

    Args:
        host: at the end of its training.
        predictions: over all shared ids.

    Returns:
        What was reported; None: no report could be made.
    """
    ids, scored = _score_run(host, predictions)
    folder = host.out_dir or Path()
    try:
        evaluation = _evaluate_run(host, ids, scored, predictions)
        write_evaluation(folder, evaluation)
    except Exception as error:  # whatever it is, of scikit-learn, matplotlib or the disk
        # The text of what is not ours may quote a value of the table.
        why = error.what if isinstance(error, HeterofedError) else type(error).__name__
        logger.warning(
            "%s: the report could not be made (%s); the models are kept, and can be scored on rows with labels: "
            "`heterofed evaluate host --run %s --data TABLE`, and `heterofed evaluate collaborator` at the others",
            host.feature_key,
            why,
            folder,
        )
        logger.debug("why there is no report", exc_info=error)
        return None
    return evaluation


def _score_run(host: TableHost, predictions: Predictions) -> tuple[dict[str, list[str]], dict[str, _Scored]]:
    """Return the ids of each set and their predictions."""
    ids = {
        "train": _sample(host.train_ids, TRAIN_ROWS),
        "valid": host.held_out.valid,
        "test": host.held_out.test,
    }
    ids = {name: sorted(each) for name, each in ids.items() if each}
    main = _main_of(ids)
    # Valid and test rows are asked for together and in an order that tells nothing: only the host knows which is which.
    held_out = sorted(each for name, some in ids.items() if name != "train" for each in some)
    scored = {"train": _scored(host, predictions, ids["train"], ablate=main == "train")} if "train" in ids else {}
    if held_out:
        together = _scored(host, predictions, held_out, ablate=True)
        scored |= {name: together.only(held_out, some) for name, some in ids.items() if name != "train"}
    return ids, scored


def _main_of(ids: Mapping[str, Sequence[str]]) -> str:
    return "test" if "test" in ids else list(ids)[-1]


def _evaluate_run(
    host: TableHost, ids: Mapping[str, Sequence[str]], scored: Mapping[str, _Scored], predictions: Predictions
) -> Evaluation:
    """Return what the report of a training tells; asks nobody for anything."""
    main = _main_of(ids)
    history = _history(host)
    facts = {
        "rounds": str(host.trainer.round),
        "train rows": f"{len(host.train_ids):,}",
        "batch size": str(host.batch_size),
        "learning rate": f"{host.learning_rate:g}",
    }
    if len(host.train_ids) > TRAIN_ROWS:
        facts["scored train rows"] = f"{len(ids['train']):,}"
    alone, remarks = None, []
    if host.has_features and len(ids) > 1:
        alone = ScoredSet(main, scored[main].truth, predict_alone(host, ids[main]))
        remarks = remarks_on_alone(host)
        if len(host.train_ids) > ALONE_ROWS:
            facts["train rows of the host's own model"] = f"{len(_sample(host.train_ids, ALONE_ROWS)):,}"
    return _evaluation(host, scored, main, predictions, host_alone=alone, history=history, facts=facts, remarks=remarks)


def evaluate_new_rows(host: TableHost, predictions: Predictions) -> Evaluation:
    """Return what the report of rows tells that were not there in training.

    Args:
        host: made with `from_run(…, labelled=True)`.
        predictions: of its rows.

    Raises:
        ConfigError: no row can be predicted, or their labels are not known.
    """
    asked = sorted(predictions.asked)  # the order of a table may tell the others something of its labels
    statuses = predictions.status_of(asked)
    known = [each for each, status in zip(asked, statuses, strict=True) if status is not RowStatus.UNKNOWN]
    if not known:
        raise ConfigError(
            f"no prediction can be made for any of {counted(len(asked), 'row')}",
            expected="rows of people that every party knows",
            advice="Check that all parties have given tables of the same people, or let stand-ins be taken.",
        )
    facts, remarks = {"rows": f"{len(known):,}"}, []
    unlabelled = len(host.data.table) - len(host.load_local_ids())
    if unlabelled:
        facts["rows without a label"] = f"{unlabelled:,}"
    if len(known) < len(asked):
        facts["rows without a prediction"] = f"{len(asked) - len(known):,}"
    if predictions.absent:
        facts["absent parties"] = ", ".join(predictions.absent)
    partial = statuses.count(RowStatus.PARTIAL)
    if partial:
        facts["rows with stand-ins"] = f"{partial:,}"
        facts["stand-ins"] = taken = STAND_INS[predictions.policy]
        remarks.append(
            f"{partial:,} of {in_rows(len(known))} were predicted with stand-ins ({taken}) for embeddings that were "
            "not there. With all embeddings the scores would be others, and what each party contributes too."
        )
    scored = {NEW_ROWS: _scored(host, predictions, known, ablate=True)}
    return _evaluation(host, scored, NEW_ROWS, predictions, facts=facts, remarks=remarks, with_stand_ins=partial)


def remarks_on_alone(host: TableHost) -> list[str]:
    """Return in what the training of the model of the host's own columns differed from that of the parties' model."""
    remarks = []
    all_rows, used = len(host.train_ids), len(_sample(host.train_ids, ALONE_ROWS))
    if used < all_rows:
        remarks.append(
            f"The host's own model learned from {used:,} of the {in_rows(all_rows)} for training, the parties' model "
            "from all of them: with all of them it might do better."
        )
    if host.patience is not None and host.max_rounds is not None and host.trainer.round < host.max_rounds:
        rounds = counted(host.trainer.round, "round")
        remarks.append(
            f"The host's own model was trained for {rounds}, because there patience ended the training of the parties' "
            "model: with a number of rounds of its own it might do better."
        )
    return remarks


def _sample(ids: Sequence[str], most: int) -> list[str]:
    """Return at most so many of the ids, from all over them, in their order."""
    return list(ids[:: -(-len(ids) // most)]) if len(ids) > most else list(ids)


def _scored(host: TableHost, predictions: Predictions, ids: Sequence[str], *, ablate: bool) -> _Scored:
    """Ask for the embeddings of these ids and predict; bounded memory, but for the predictions themselves."""
    parties = [each for each, width in host.embedding_widths.items() if width] if ablate else []
    parties = [each for each in parties if each not in predictions.absent]
    scores: list[Tensor] = []
    without: dict[str, list[Tensor]] = {each: [] for each in parties}
    labels: list[Tensor] = []
    for some, projection in predictions.projections(ids):
        with torch.no_grad():
            scores.append(host.predict_a_batch(projection).cpu())
            for party in parties:
                mean = predictions.mean_embedding(party).to(projection[party])
                ablated = {**projection, party: mean.expand_as(projection[party])}
                without[party].append(host.predict_a_batch(ablated).cpu())
        labels.append(host.labels_of(some))
    truth = torch.cat(labels)
    if host.labels.task == "regression":
        truth = predictions_of(host.labels, truth)
    return _Scored(
        truth.numpy(), torch.cat(scores).numpy(), {party: torch.cat(each).numpy() for party, each in without.items()}
    )


def predict_alone(host: TableHost, ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """Train the same kind of model on the host's own columns alone, and return its predictions of these ids."""
    key, labels = host.feature_key, host.labels
    train_ids = _sample(host.train_ids, ALONE_ROWS)
    inputs = host.load_inputs(train_ids)
    feature = host.new_feature_model("alone")
    width = width_of(feature, inputs.shape[1])
    infer = seeded(lambda: infer_layers(width, host.top, labels.outputs), host.seed, key, "infer alone")
    model = Unsplit({key: feature}, infer)
    train_unsplit(
        model,
        {key: inputs},
        host.labels_of(train_ids),
        loss_of(labels, host.class_weights),
        rounds=host.trainer.round,
        batch_size=host.batch_size,
        learning_rate=host.learning_rate,
        seed=host.seed,
    )
    with torch.no_grad():
        parts = [
            predictions_of(labels, model({key: host.load_inputs(list(ids[start : start + TRAIN_ROWS]))}))
            for start in range(0, len(ids), TRAIN_ROWS)
        ]
    return np.asarray(torch.cat(parts).numpy())


def _evaluation(
    host: TableHost, scored: Mapping[str, _Scored], main: str, predictions: Predictions, **more: Any
) -> Evaluation:
    labels = host.labels
    ablated = {party: ScoredSet(main, scored[main].truth, each) for party, each in scored[main].without.items()}
    return Evaluation(
        labels.task,
        tuple(ScoredSet(name, each.truth, each.scores) for name, each in scored.items()),
        classes=tuple(text_of(each) for each in labels.classes),
        parties=tuple(predictions.parties),
        ablated=ablated,
        title=host.name or "Evaluation",
        label=", ".join(labels.columns),
        **more,
    )


def _history(host: TableHost) -> list[dict[str, float]]:
    """Return the rounds as the report takes them, with the name of the score in the place of "score"."""
    score, _ = main_score(host.labels.task)
    rows = host.get_metrics("history").trace()
    return [
        {key.replace("score", score): float(cell) for key, cell in row.items() if isinstance(cell, int | float)}
        for row in rows
    ]

"""Table parties: what they learn, keep, refuse, and how a run that is over goes on as predictions."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from heterofed import ConfigError, DataError, HeterofedError, Settings, run_locally
from heterofed.errors import EmbeddingError
from heterofed.report import can_report, read_summary
from heterofed.scheduler.predicting.predicted import RowStatus
from heterofed.simulate import predict_locally
from heterofed.tables import hash_split
from heterofed.tabular import TableCollaborator, TableHost, load_run
from heterofed.tabular.unsplit import predict_unsplit, put_together, unsplit_twin
from heterofed.tasks import open_directory
from tests.tabular.parties import parties, people, train
from tests.tiny import same_bits


def wide_model(inputs: int) -> nn.Module:
    """A feature model of a user's own."""
    return nn.Sequential(nn.Linear(inputs, 5), nn.Tanh())


def test_what_is_fitted_is_fitted_to_the_train_rows_alone(tmp_path: Path) -> None:
    frames = people()
    frames[0]["age"] = frames[0]["age"].astype(float)
    train_ids = hash_split(frames[0]["id"]).train
    frames[0].loc[~frames[0]["id"].isin(train_ids), "age"] += 1000

    host, others = train(tmp_path, frames, label="ill", rounds=1)

    assert host.train_ids == train_ids
    ages = host.data.rows(train_ids)[:, 0]
    assert ages.mean().item() == pytest.approx(0, abs=1e-5)
    assert ages.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert host.labels.counts == tuple(frames[0].set_index("id").loc[train_ids, "ill"].value_counts().sort_index())
    assert others[0].encoder is not None and others[0].encoder.columns == ("dose", "city")


def test_valid_and_test_rows_have_one_mix_of_labels_and_only_the_host_can_tell_which_is_which(tmp_path: Path) -> None:
    host, _ = train(tmp_path, people(400), label="ill", rounds=1)

    parts = host.held_out
    shares = [host.labels_of(each).mean().item() for each in (parts.valid, parts.test)]
    key = tmp_path / "host" / "split.key"
    assert sorted([*parts.valid, *parts.test]) == host.test_ids
    assert len(parts.test) == pytest.approx(2 * len(parts.valid), abs=2)
    assert shares[0] == pytest.approx(shares[1], abs=0.03)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    again = TableHost("host", people(400)[0], "id", label="ill", out_dir=tmp_path / "host", evaluate=False)
    again._id_split = host._id_split
    assert again.held_out == parts


def test_a_host_with_labels_only_trains_predicts_and_is_loaded(tmp_path: Path) -> None:
    host_rows, other_rows = people(300)
    host, others = train(tmp_path, [host_rows[["id", "ill"]], other_rows], label="ill", rounds=12, batch_size=32)

    folder = tmp_path / "host"
    model = put_together(host, *others)
    ids = other_rows["id"].tolist()
    in_memory = predict_unsplit(model, ids, host, *others)
    asking = TableHost.from_run(folder, other_rows[["id"]])
    answering = TableCollaborator.from_run(tmp_path / "c1", other_rows)
    with predict_locally(asking, answering) as predictions:
        values = torch.cat([each.values for each in predictions.predict()])
    loaded = load_run(folder)
    assert not host.has_features and host.embedding_widths == {"host": 0, "c1": 16}
    assert same_bits(model, unsplit_twin(host, *others))
    assert torch.allclose(values, in_memory, atol=1e-6)
    assert loaded.feature_model is None and loaded.encoder is None and dict(loaded.widths) == host.embedding_widths
    assert loaded.infer_model is not None and same_bits(loaded.infer_model, host.infer_model)


class Breaks(TableHost):
    """Ends in the test of round 2."""

    def test(self, batched_feature_projections: Any, batched_labels: Any) -> None:
        if self.current_round == 2:
            raise RuntimeError("a power cut")
        super().test(batched_feature_projections, batched_labels)


def test_a_run_that_was_cut_off_goes_on_to_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    frames = people()
    straight, _ = train(tmp_path / "straight", frames, label="ill", rounds=3, batch_size=32)
    with pytest.raises(HeterofedError, match="RuntimeError"):
        train(tmp_path / "broken", frames, label="ill", rounds=3, batch_size=32, host_class=Breaks)

    resumed, others = train(tmp_path / "broken", frames, label="ill", rounds=3, batch_size=32, recover=True)

    assert same_bits(resumed.infer_model, straight.infer_model)
    assert same_bits(resumed.feature_model, straight.feature_model)
    assert [row["round"] for row in resumed.get_metrics("history").trace()] == [1, 2, 3]
    assert others[0].encoder == load_run(tmp_path / "straight" / "c1").encoder


@pytest.mark.skipif(not can_report(), reason="scikit-learn and matplotlib are not installed")
def test_the_end_of_a_training_is_a_report_a_card_and_a_run_that_can_be_predicted_with(tmp_path: Path) -> None:
    frames = people(300)
    host, _ = train(tmp_path, frames, label="ill", rounds=4, batch_size=32, evaluate=True, name="illness")

    folder = tmp_path / "host"
    found = read_summary(folder)
    card = (folder / "model_card.md").read_text()
    assert set(found.sets) == {"train", "valid", "test"} and found.sets["test"].rows == len(host.held_out.test)
    assert set(found.ablated) == {"host", "c1"} and found.host_alone is not None
    assert [row["round"] for row in found.history] == [1, 2, 3, 4] and "valid_roc_auc" in found.history[0]
    assert "illness" in card and "host alone" in card and (tmp_path / "c1" / "model_card.md").exists()
    assert (folder / "report.html").exists()
    assert not any(
        each in text for each in frames[0]["id"] for text in (card, (folder / "evaluation.json").read_text())
    )

    new = people(60, seed=5)
    asking = TableHost.from_run(folder, new[0], labelled=True)
    with predict_locally(asking, TableCollaborator.from_run(tmp_path / "c1", new[1][:50])) as predictions:
        asking.evaluate_predictions(predictions, tmp_path / "new")
    scored = read_summary(tmp_path / "new")
    assert [each.rows for each in scored.sets.values()] == [50] and scored.facts["rows without a prediction"] == "10"
    assert scored.with_stand_ins == 0 and not scored.remarks and "rows with stand-ins" not in scored.facts
    assert "50 rows, all parties" in (tmp_path / "new" / "report.html").read_text()


@pytest.mark.skipif(not can_report(), reason="scikit-learn and matplotlib are not installed")
def test_rows_that_are_scored_with_stand_ins_and_rows_without_a_label_are_counted(tmp_path: Path) -> None:
    train(tmp_path, people(300), label="ill", rounds=1, batch_size=32)
    new = people(60, seed=5)
    new[0]["ill"] = new[0]["ill"].astype("Int64").mask(new[0]["id"].isin(new[1]["id"][:3]))
    asking = TableHost.from_run(tmp_path / "host", new[0], labelled=True, unlabelled="drop")
    answering = TableCollaborator.from_run(tmp_path / "c1", new[1][:50])

    with predict_locally(asking, answering, absent="mean") as predictions:
        asking.evaluate_predictions(predictions, tmp_path / "new")

    found = read_summary(tmp_path / "new")
    assert found.sets["new rows"].rows == 57 and found.with_stand_ins == 10
    assert found.facts == {
        "rows": "57",
        "rows without a label": "3",
        "rows with stand-ins": "10",
        "stand-ins": "the mean embedding of training",
    }
    page = (tmp_path / "new" / "report.html").read_text()
    assert "57 rows, 10 with stand-ins" in page and "10 of 57 rows were predicted with stand-ins (the mean" in page


def test_predictions_come_in_the_order_asked_and_in_the_labels_own_unit(tmp_path: Path) -> None:
    frames = people(300)
    frames[0]["ill"] = 5000 + 40 * frames[0]["age"] + np.random.default_rng(0).normal(size=300)
    host, others = train(tmp_path, frames, label="ill", rounds=30, batch_size=32)

    wanted = ["person-0200", "nobody", "person-0001"]
    in_memory = predict_unsplit(put_together(host, *others), ["person-0200", "person-0001"], host, *others)
    asking = TableHost.from_run(tmp_path / "host", frames[0])
    with predict_locally(asking, TableCollaborator.from_run(tmp_path / "c1", frames[1]), ids=wanted) as predictions:
        (batch,) = predictions.predict()
    true = frames[0].set_index("id").loc[["person-0200", "person-0001"], "ill"]
    assert batch.status == [RowStatus.PREDICTED, RowStatus.UNKNOWN, RowStatus.PREDICTED]
    assert torch.equal(batch.values, in_memory)
    assert np.abs(batch.values[:, 0].numpy() - true.to_numpy()).max() < 500


def test_models_of_ones_own_may_be_wider_and_are_loaded_by_their_name(tmp_path: Path) -> None:
    frames = people()
    host, others = parties(tmp_path, frames, label="ill", rounds=1, widths={"c1": 5}, make_model=wide_model)
    others = [TableCollaborator("c1", frames[1], "id", out_dir=tmp_path / "c1", make_model=f"{__name__}:wide_model")]
    run_locally(host, *others, seed=1)

    loaded = load_run(tmp_path / "c1")
    assert host.embedding_widths == {"host": 5, "c1": 5}
    assert loaded.feature_model is not None and same_bits(loaded.feature_model, others[0].feature_model)
    with pytest.raises(ConfigError, match=r"tests\.tabular\.nowhere:make cannot be imported"):
        TableCollaborator("c1", frames[1], "id", make_model="tests.tabular.nowhere:make")


def test_a_width_that_the_host_does_not_expect_is_named_with_the_argument(tmp_path: Path) -> None:
    host, _ = parties(tmp_path, people(), label="ill", rounds=1)
    other = TableCollaborator("c1", people()[1], "id", width=8, out_dir=tmp_path / "c1")

    with pytest.raises(EmbeddingError, match=r"embedding of c1 has the width \(8,\).*\n*.*widths={'c1': 8}"):
        run_locally(host, other)


def test_training_ends_when_the_valid_rows_have_not_become_better(tmp_path: Path) -> None:
    frames = people()
    frames[0]["ill"] = np.random.default_rng(1).integers(0, 2, len(frames[0]))  # nothing can be learned

    host, _ = train(tmp_path, frames, label="ill", rounds=60, batch_size=32, patience=2, fractions=(0.5, 0.3, 0.2),
                    shared={"fractions": (0.5, 0.3, 0.2)})  # fmt: skip

    losses = [float(str(row["valid_loss"])) for row in host.get_metrics("history").trace()]
    assert len(losses) < 60 and losses.index(min(losses)) == len(losses) - 3


def test_first_weights_are_secret_unless_a_seed_is_given() -> None:
    frame = people()[1]

    def weights(seed: int | None, key: str = "c1") -> nn.Module:
        party = TableCollaborator(key, frame, "id", seed=seed)
        party.data.fit(party.data.table.ids, None)
        return party.new_feature_model("feature")

    torch.manual_seed(0)
    first = weights(None)
    torch.manual_seed(0)
    assert not same_bits(first, weights(None))
    assert same_bits(weights(7), weights(7))
    assert not same_bits(weights(7), weights(7, "c2"))


def test_a_category_of_the_held_out_rows_does_not_stop_a_training_but_one_of_a_new_table_is_refused(
    tmp_path: Path,
) -> None:
    frames = people()
    held_out = hash_split(frames[0]["id"]).test
    frames[1].loc[frames[1]["id"] == held_out[0], "city"] = "Jena"
    train(tmp_path, frames, label="ill", rounds=1)

    with pytest.raises(DataError, match="column 'city' has 1 categories, in 1 of 160 rows, that training did not have"):
        TableCollaborator.from_run(tmp_path / "c1", frames[1])
    assert TableCollaborator.from_run(tmp_path / "c1", frames[1], unseen="other").load_local_ids()
    assert not list(tmp_path.rglob("encoded*"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder that tests read, or copy to change it."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HETEROFED_HOME", str(folder / "home"))
        patch.setenv("HETEROFED_PSI_PROTOCOL", "ecdh")
        patch.setenv("HETEROFED_PROGRESS", "off")
        train(folder, people(), label="ill", rounds=1)
    return folder


@pytest.mark.parametrize("name", ["feature_model_c1.pt", "encoder_c1.json"])
def test_a_file_that_was_changed_by_one_byte_is_named(finished: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "c1"
    folder.mkdir()
    for each in finished.joinpath("c1").iterdir():
        if each.is_file():
            (folder / each.name).write_bytes(each.read_bytes())
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)

    with pytest.raises(DataError, match=f"{name} was changed"):
        TableCollaborator.from_run(folder, people()[1])
    with pytest.raises(DataError, match=f"{name} was changed"):
        load_run(folder)


def test_the_folder_of_another_role_or_of_no_run_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is the run of a host"):
        TableCollaborator.from_run(finished / "host", people()[1])
    with pytest.raises(ConfigError, match="is the run of a collaborator"):
        TableHost.from_run(finished / "c1", people()[0])
    with pytest.raises(DataError, match="is not the folder of a completed run"):
        TableHost.from_run(tmp_path, people()[0])


def test_a_new_table_has_to_have_what_the_model_takes(finished: Path) -> None:
    host, other = people()

    with pytest.raises(DataError, match="lacks 1 of"):
        TableCollaborator.from_run(finished / "c1", other.drop(columns="dose"))
    with pytest.raises(ConfigError, match="has no label column 'ill'; expected the label of the training"):
        TableHost.from_run(finished / "host", host.drop(columns="ill"), labelled=True)
    with pytest.raises(DataError, match="has no id column 'id'"):
        TableCollaborator.from_run(finished / "c1", other.rename(columns={"id": "number"}))
    asking = TableHost.from_run(finished / "host", host.drop(columns="ill"))
    assert asking.labels.task == "binary" and len(asking.load_local_ids()) == 160


def test_a_run_names_its_models_but_no_person_and_no_value(finished: Path) -> None:
    for key in ("host", "c1"):
        text = (finished / key / "run.json").read_text()
        about = json.loads(text)["content"]["about"]
        assert about["features"]["width"] == 16
        assert "person-" not in text and "Ulm" not in text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"label": "nothing"}, "which is no column"),
        ({"hidden": (0,)}, "a layer of hidden is 0"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"fractions": (0.5, 0.5, 0.5)}, "the fractions of the split are"),
        ({"patience": 3, "fractions": (0.8, 0, 0.2)}, "no rows are for validation"),
        ({"task": "binary", "label": "age"}, "which is no binary task"),
        ({"id_column": "number"}, "has no id column 'number'"),
        ({"kinds": {"smoker": "numeric"}}, "column 'smoker' of the data frame has"),
        ({"seed": -1}, "seed is -1"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    arguments: dict[str, Any] = {"label": "ill", "id_column": "id", "evaluate": False, "out_dir": tmp_path / "run"}

    with pytest.raises((ConfigError, DataError), match=text):
        TableHost("host", people()[0], **{**arguments, **change})

    assert not (tmp_path / "run").exists() and not (tmp_path / "home").exists()


def test_a_collaborator_has_features_and_no_labels(tmp_path: Path) -> None:
    frame = people()[1]

    with pytest.raises(ConfigError, match="the label column 'ill' is named at a collaborator"):
        TableCollaborator("c1", frame, "id", label="ill")
    with pytest.raises(ConfigError, match="no column of the data frame is a feature"):
        TableCollaborator("c1", frame[["id"]], "id")
    with pytest.raises(DataError, match="column 'empty' of the data frame has no value in any"):
        TableCollaborator("c1", frame.assign(empty=None), "id")


def test_rows_without_a_label_are_refused_or_left_out() -> None:
    frame = people()[0]
    frame["ill"] = frame["ill"].astype("Int64").mask(frame.index < 3)

    with pytest.raises(DataError, match=r"3 of 160 rows .* have no label"):
        TableHost("host", frame, "id", label="ill", evaluate=False)
    assert len(TableHost("host", frame, "id", label="ill", unlabelled="drop", evaluate=False).load_local_ids()) == 157


@pytest.mark.skipif(not can_report(), reason="scikit-learn and matplotlib are not installed")
def test_a_score_that_is_not_defined_is_left_out(tmp_path: Path) -> None:
    frames = people(120)
    rare = hash_split(frames[0]["id"]).train[:2]
    frames[0]["ill"] = frames[0]["id"].isin(rare).astype(int)  # so all that is not trained on is of one class

    host, _ = train(tmp_path, frames, label="ill", rounds=1, evaluate=True, class_weights=True)

    (row,) = host.get_metrics("history").trace()
    assert row["valid_score"] is None and row["valid_loss"] is not None
    assert read_summary(tmp_path / "host").sets["test"].scores["roc_auc"] is None


def test_a_run_that_is_over_is_what_it_was_when_it_is_recovered(finished: Path, tmp_path: Path) -> None:
    frames = people()
    task = open_directory(Settings(home=tmp_path)).store.create("of two", ["host", "c1"])
    host = TableHost("host", frames[0], "id", label="ill", out_dir=finished / "host", evaluate=False)
    other = TableCollaborator("c1", frames[1], "id", out_dir=finished / "c1")

    rounds = [each.completed_before("local", task).rounds for each in (host, other)]

    loaded = [load_run(finished / each).feature_model for each in ("host", "c1")]
    assert rounds == [1, 1]
    assert all(model is not None for model in loaded)
    assert same_bits(host.feature_model, loaded[0] or host.infer_model)
    assert same_bits(other.feature_model, loaded[1] or host.infer_model)


def test_what_is_asked_for_at_the_end_does_not_tell_which_rows_are_for_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    class Listening(TableCollaborator):
        def load_batch(self, ids: list[str]) -> Any:
            if not self.feature_model.training:
                asked.append(list(ids))
            return super().load_batch(ids)

    frames = people()
    host = TableHost("host", frames[0], "id", label="ill", rounds=1, seed=1, out_dir=tmp_path / "h")
    run_locally(host, Listening("c1", frames[1], "id", seed=1, out_dir=tmp_path / "c1"), seed=1)

    held_out = sorted([*host.held_out.valid, *host.held_out.test])
    assert host.held_out.valid and host.held_out.test
    assert all(set(ids) <= set(host.train_ids) or ids == held_out for ids in asked)
    assert held_out in asked

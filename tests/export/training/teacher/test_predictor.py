"""The teacher of a run as a function of texts, and its answers as a file for the export."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import tiny_models as tinymodels
from support.command_line import ok, refused
from support.workshop import Workshop

from reaugkd import Runtime
from reaugkd.errors import DataError, TextError, UsageError
from reaugkd.export.training.run_folder import RunFolder, read_rows
from reaugkd.export.training.teacher.outputs import load_outputs
from reaugkd.export.training.teacher.predictor import TeacherPredictor

NEW = tinymodels.make_split(30, 9).texts


@pytest.fixture(scope="module")
def answered(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The answers to new texts, in a file."""
    path = tmp_path_factory.mktemp("answers") / "answers.parquet"
    pq.write_table(TeacherPredictor(workshop.run)(pa.table({"id": range(len(NEW)), "text": NEW})), path)
    return path


def test_logits_are_those_of_the_training_in_the_order_of_the_texts(workshop: Workshop) -> None:
    run = RunFolder(workshop.run)
    rows, expected = read_rows(run.data / "train.jsonl"), load_outputs(run)["train"].logits.numpy()
    teacher = pickle.loads(pickle.dumps(TeacherPredictor(str(workshop.run), device="cpu")))
    found = teacher.logits(rows.texts)
    assert found.dtype == np.float32 and teacher.labels == tuple(tinymodels.LABELS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(rows))[:70]
    np.testing.assert_allclose(teacher.logits([rows.texts[row] for row in order]), expected[order], atol=1e-5)
    assert teacher.logits([]).shape == (0, 3)
    assert len(pickle.dumps(teacher)) < 10_000  # without the model that it has loaded


def test_a_table_is_answered_with_probabilities(workshop: Workshop, answered: Path) -> None:
    table = pq.read_table(answered)
    assert table.column_names == ["text", "probs"] and table["text"].to_pylist() == NEW
    logits = TeacherPredictor(workshop.run).logits(NEW).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = [[row[label] for label in tinymodels.LABELS] for row in table["probs"].to_pylist()]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_it_cannot_answer_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(TextError, match="row 2, column 'text'"):
        TeacherPredictor(workshop.run)(pa.table({"text": ["rain", None]}))
    with pytest.raises(DataError, match=r"run\.json is missing"):
        TeacherPredictor(tmp_path)
    (tmp_path / "run.json").write_text((workshop.run / "run.json").read_text().replace("{", '{"teacher_file": {},', 1))
    with pytest.raises(DataError, match="not finished"):
        TeacherPredictor(tmp_path)
    for stage in ("query", "tuning"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "stage.json").touch()
    with pytest.raises(UsageError, match="teacher is a file"):
        TeacherPredictor(tmp_path)


def test_its_answers_give_the_knowledge_base_that_the_export_makes(
    workshop: Workshop, answered: Path, tmp_path: Path
) -> None:
    with (tmp_path / "new.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in NEW)])
    common = ("export", workshop.run, "--target", "avx2", "--allow-quality-loss")
    ok(*common, "--kb-data", tmp_path / "new.csv", "--out", tmp_path / "asked")
    told = ok(*common, "--kb-answers", answered, "--out", tmp_path / "answered").err
    assert "30 answers to" in told and f"{answered}: " in told and "new texts" in told and "teacher on" not in told
    with Runtime.open(tmp_path / "asked") as asked, Runtime.open(tmp_path / "answered") as given:
        assert asked.manifest.created_from["extra_rows"] == given.manifest.created_from["extra_rows"] > 0
        ours, theirs = given.knowledge_base, asked.knowledge_base
        texts = [theirs.text(row) for row in range(len(theirs))]
        assert [ours.text(row) for row in range(len(ours))] == texts and set(NEW) <= set(texts)
        np.testing.assert_allclose(ours.soft_labels[:], theirs.soft_labels[:], atol=3e-3)


def test_answers_that_do_not_fit_are_refused(workshop: Workshop, answered: Path, tmp_path: Path) -> None:
    both = refused("export", workshop.run, "--out", tmp_path / "b", "--kb-data", "x.csv", "--kb-answers", answered)
    assert "two ways" in both
    pq.write_table(pa.table({"text": ["a"], "probs": [{"snow": 1.0}]}), tmp_path / "other.parquet")
    other = refused("export", workshop.run, "--out", tmp_path / "b", "--kb-answers", tmp_path / "other.parquet")
    assert "unknown label" in other and "'snow'" in other
    pq.write_table(pa.table({"text": ["a"], "text_pair": ["b"], "label": ["music"]}), tmp_path / "pairs.parquet")
    pairs = refused("export", workshop.run, "--out", tmp_path / "b", "--kb-answers", tmp_path / "pairs.parquet")
    assert "found pairs; expected single texts" in pairs

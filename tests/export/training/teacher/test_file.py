"""Answers of a teacher in a file: their forms, sums and prior against numbers worked out by hand, and refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from reaugkd.errors import DataError, LabelError
from reaugkd.export.training.teacher.file import TeacherFile, read_teacher_file
from reaugkd.runtime.data import Columns


def write(path: Path, *rows: dict[str, Any]) -> Path:
    """Write JSON lines, or Parquet if the suffix says so."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def soft_labels(file: TeacherFile) -> np.ndarray:
    return np.exp(file.logits.astype(np.float64))


FORMS = (
    {"text": "one", "label": "b"},
    {"text": "five", "labels": ["a", "a", "b", "a", "c"]},
    {"text": "shares", "probs": {"a": 0.75, "b": 0.25}},
    {"text": "logs", "logprobs": {"c": math.log(0.6), "a": math.log(0.2)}},
)
# c = 3; the prior is 0.1 votes beside votes, and a thousandth beside probabilities.
SOFT = [
    [1 / 33, 31 / 33, 1 / 33],
    [91 / 153, 31 / 153, 31 / 153],
    [(0.75 + 0.001 / 3) / 1.001, (0.25 + 0.001 / 3) / 1.001, 0.001 / 3.003],
    [(0.25 + 0.001 / 3) / 1.001, 0.001 / 3.003, (0.75 + 0.001 / 3) / 1.001],
]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_every_form_becomes_a_distribution(suffix: str, tmp_path: Path) -> None:
    """In Parquet every row has every column, and every struct every label: the others are null."""
    columns: dict[str, None] = dict.fromkeys(("label", "labels", "probs", "logprobs"))
    rows = [{**columns, **row} for row in FORMS] if suffix == ".parquet" else FORMS
    file = read_teacher_file(write(tmp_path / f"answers{suffix}", *rows))
    assert file.label_names == ("a", "b", "c")
    np.testing.assert_allclose(soft_labels(file), SOFT, rtol=1e-5)
    assert file.split.texts == ["one", "five", "shares", "logs"]
    assert file.split.labels == ["b", "a", "a", "c"]
    assert file.gold.tolist() == [-1] * 4 and not file.has_embeddings
    assert any("which were normalised: 1; their sum: mean 0.800" in line for line in file.remarks)


def test_a_parquet_map_is_read_as_an_object(tmp_path: Path) -> None:
    kind = pa.map_(pa.string(), pa.float64())
    probs = pa.array([[("a", 0.75), ("b", 0.25)], [("c", 1.0)]], kind)
    pyarrow.parquet.write_table(pa.table({"text": ["shares", "sure"], "probs": probs}), tmp_path / "a.parquet")
    np.testing.assert_allclose(soft_labels(read_teacher_file(tmp_path / "a.parquet"))[0], SOFT[2], rtol=1e-5)


def test_the_answers_to_one_text_are_added(tmp_path: Path) -> None:
    """Three annotators in rows of their own are three votes; probabilities count as one answer beside them."""
    votes = [{"text": "where", "label": name} for name in ("a", "b", "a")]
    other = {"text": "who", "label": "c", "gold": "b"}
    alone = read_teacher_file(write(tmp_path / "votes.jsonl", votes[0], other, *votes[1:]))
    listed = read_teacher_file(write(tmp_path / "list.jsonl", {"text": "where", "labels": ["a", "b", "a"]}, other))
    np.testing.assert_array_equal(alone.logits, listed.logits)
    assert alone.split.rows == [1, 2] and alone.split.labels == ["a", "b"]
    assert alone.gold.tolist() == [-1, 1]
    both = read_teacher_file(write(tmp_path / "both.jsonl", votes[0], {"text": "where", "probs": {"b": 1}}, other))
    np.testing.assert_allclose(soft_labels(both)[0], [31 / 63, 31 / 63, 1 / 63], rtol=1e-5)
    assert "texts with several most probable labels, of which the first in order counts: 1" in both.remarks


def test_pairs_gold_labels_and_embeddings(tmp_path: Path) -> None:
    rows = [
        {"text": "a man", "text_pair": "a dog", "label": 1, "gold": 0, "embedding": [1, 0.5]},
        {"text": "a man", "text_pair": "a cat", "label": 0, "gold": None, "embedding": [0, 2], "model": "large"},
    ]
    file = read_teacher_file(write(tmp_path / "pairs.jsonl", *rows))
    assert file.split.inputs() == [("a man", "a dog"), ("a man", "a cat")]
    assert file.label_names == ("0", "1") and file.gold.tolist() == [0, -1] and file.split.labels == ["0", "0"]
    np.testing.assert_array_equal(file.embeddings, [[1, 0.5], [0, 2]])
    assert file.places(file.split.take([1])).tolist() == [1]
    assert "columns not used: model" in file.remarks


def test_the_labels_of_the_data_are_those_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "answers.jsonl", {"text": "x", "label": "b"}, {"text": "y", "label": "I think b"})
    assert read_teacher_file(path).label_names == ("I think b", "b")
    with pytest.raises(LabelError, match=r"row 2, column 'label': unknown label; found 'I think b'; .* 3 labels"):
        read_teacher_file(path, label_names=("c", "b", "a"))
    first = read_teacher_file(write(tmp_path / "one.jsonl", {"text": "x", "label": "b"}), label_names=("c", "b", "a"))
    assert first.label_names == ("c", "b", "a") and first.logits.argmax() == 1


def test_a_label_has_one_spelling(tmp_path: Path) -> None:
    """Numbers, booleans and blanks, as in labelled data; with --data's labels, its spelling."""
    rows = [{"text": "x", "label": 1}, {"text": "x", "label": "1.0 "}, {"text": "y", "label": 0, "gold": "0"}]
    file = read_teacher_file(write(tmp_path / "numbers.jsonl", *rows))
    assert file.label_names == ("0", "1") and file.gold.tolist() == [-1, 0]
    np.testing.assert_allclose(soft_labels(file)[0], [0.05 / 2.1, 2.05 / 2.1], rtol=1e-5)
    path = write(tmp_path / "booleans.jsonl", {"text": "x", "probs": {"True": 1}}, {"text": "y", "label": False})
    assert read_teacher_file(path).label_names == ("false", "true")
    assert read_teacher_file(path, label_names=("True", "False")).split.labels == ["True", "False"]


def test_a_change_of_any_answer_changes_the_fingerprint(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": "a", "embedding": [1]}, {"text": "y", "label": "b", "embedding": [2]}]
    changes = ({}, {"text": "z"}, {"labels": ["a", "a"], "label": None}, {"gold": "b"}, {"embedding": [3]})
    found = {
        read_teacher_file(write(tmp_path / f"{number}.jsonl", {**rows[0], **change}, rows[1])).fingerprint
        for number, change in enumerate(changes)
    }
    assert len(found) == len(changes)


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({}, r"the row has no answer; expected one of \"label\": \"refund\", .*Drop the row"),
        ({"label": None}, "the row has no answer"),
        ({"label": "a", "probs": {"a": 1}}, "several answers; found label and probs; .*gold labels is 'gold'"),
        ({"label": ["a", "b"]}, "column 'label': the value cannot be used"),
        ({"labels": "a, b"}, "column 'labels': .* expected a list of labels"),
        ({"labels": []}, "expected a list of labels"),
        ({"labels": ["a", None]}, "column 'labels': the label is missing"),
        ({"probs": [0.8, 0.2]}, r"column 'probs': .*found \[0.8, 0.2\]; expected an object of labels and numbers"),
        ({"probs": '{"a": 1}'}, "expected an object of labels and numbers"),
        ({"probs": {"a": 80, "b": 20}}, r"found \{'a': 80\}; expected probabilities from 0 to 1"),
        ({"probs": {"a": 0.5, "b": 0.2}}, "sum to 1, within 0.02; their sum is 0.7. Divide them"),
        ({"probs": {"a": "0.5"}}, "expected probabilities from 0 to 1"),
        ({"probs": {"a": True}}, "expected probabilities from 0 to 1"),
        ({"probs": {}}, "their sum is 0"),
        ({"logprobs": {"a": 2.5, "b": 0.1}}, r"found \{'a': 2.5\}; expected logarithms of probabilities, at most 0"),
        ({"logprobs": {"a": 0, "b": -0.1}}, "sum to at most 1; their sum is 1.905"),
        ({"logprobs": {"a": -math.inf}}, "their sum is 0"),
        ({"logprobs": {"a": math.nan}}, "at most 0"),
        ({"label": "a", "gold": {"a": 1}}, "column 'gold': the value is not a class label"),
        ({"label": "a", "embedding": [1.0, "x"]}, "column 'embedding': .*expected a list of finite numbers"),
        ({"label": "a", "embedding": []}, "expected a list of finite numbers"),
        ({"label": "a", "embedding": [math.inf]}, "expected a list of finite numbers"),
        ({"label": "a", "embedding": [0, 0.0]}, "finite numbers that are not all 0"),
        ({"label": "a", "text": " "}, "column 'text': the text is empty"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(row: dict[str, Any], match: str, tmp_path: Path) -> None:
    good = {"text": "good", "label": "b"}
    path = write(tmp_path / "answers.jsonl", good, {"text": "bad", **row})
    with pytest.raises(DataError, match=rf"(?s)answers.jsonl, row 2\b.*{match}"):
        read_teacher_file(path)


@pytest.mark.parametrize(
    ("second", "match"),
    [
        ({"text": "y", "embedding": [1, 2, 3]}, "row 2, column 'embedding': .*found 3 numbers; expected 2 numbers"),
        ({"text": "y"}, "row 2, column 'embedding': .*found 0 numbers"),
        ({"text": "x", "gold": "b"}, "row 2, column 'gold': .*expected 'a', the gold label of the same text"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(second: dict[str, Any], match: str, tmp_path: Path) -> None:
    first = {"text": "x", "label": "a", "gold": "a", "embedding": [1, 2]}
    with pytest.raises(DataError, match=match):
        read_teacher_file(write(tmp_path / "answers.jsonl", first, {"label": "b", **second}))


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_teacher_file(tmp_path / "no.jsonl")
    (tmp_path / "answers.xml").write_text("<a/>")
    with pytest.raises(DataError, match=r"unknown file format.*\.jsonl"):
        read_teacher_file(tmp_path / "answers.xml")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="the file is empty"):
        read_teacher_file(tmp_path / "empty.jsonl")
    (tmp_path / "list.jsonl").write_text('["x", "a"]\n')
    with pytest.raises(DataError, match="row 1: the row is not an object"):
        read_teacher_file(tmp_path / "list.jsonl")
    named = write(tmp_path / "named.jsonl", {"ticket": "x", "label": "a"})
    assert read_teacher_file(named, Columns("ticket")).split.texts == ["x"]

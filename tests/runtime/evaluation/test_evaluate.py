"""The evaluation against single predictions scored with scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score, log_loss
from support.tiny_bundle import build_tiny_bundle, tiny_texts

from reaugkd.errors import DataError, LabelError, TextError, UsageError
from reaugkd.runtime.data import Split
from reaugkd.runtime.evaluation.evaluate import evaluate_bundle
from reaugkd.runtime.evaluation.metrics import METRICS
from reaugkd.runtime.evaluation.report import format_evaluation
from reaugkd.runtime.evaluation.results import BLEND, RETRIEVAL, STUDENT, STUDENT_FP32, SYSTEMS, TEACHER
from reaugkd.runtime.runtime import Runtime

LABELS = ("a", "b", "c")
N = 60


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("evaluate") / "bundle")


@pytest.fixture(scope="module")
def runtime(bundle: Path) -> Runtime:
    return Runtime.open(bundle)


@pytest.fixture(scope="module")
def split(runtime: Runtime) -> Split:
    """Labels that the bundle predicts correctly about half the time."""
    texts = [str(text) for text in tiny_texts(N, seed=9)]
    rng = np.random.default_rng(9)
    said = [runtime.predict(text).label for text in texts]
    labels = [label if rng.random() < 0.5 else str(rng.choice(LABELS)) for label in said]
    return Split(texts, None, labels, "rows.csv", list(range(2, N + 2)))


@pytest.fixture(scope="module")
def teacher(runtime: Runtime) -> np.ndarray:
    p = np.random.default_rng(5).dirichlet(np.ones(len(LABELS)), N)
    return np.asarray(p)


def test_the_three_systems_of_a_bundle(runtime: Runtime, split: Split) -> None:
    report = evaluate_bundle(runtime, split)
    answers = [runtime.predict(text) for text in split.texts]
    neighbours = [
        np.sum([near.weight * near.soft_label.astype(float) for near in answer.neighbours], axis=0)
        for answer in answers
    ]
    expected = {
        STUDENT: np.array([answer.student_probabilities for answer in answers], float),
        RETRIEVAL: np.array(neighbours) / np.sum(neighbours, axis=1, keepdims=True),
        BLEND: np.array([answer.probabilities for answer in answers], float),
    }
    gold = [LABELS.index(label) for label in split.labels or []]
    assert [row.system for row in report.rows] == list(expected)
    for row in report.rows:
        p = expected[row.system]
        assert row.scores["accuracy"] == pytest.approx(accuracy_score(gold, p.argmax(axis=1)))
        assert row.scores["macro_f1"] == pytest.approx(f1_score(gold, p.argmax(axis=1), average="macro"))
        own = -np.mean(np.log(p[np.arange(N), gold]))
        assert row.scores["nll"] == pytest.approx(own, rel=1e-5)
        assert row.scores["teacher_kl"] is None
        assert set(row.intervals) == {"accuracy", "macro_f1", "mcc", "nll", "ece"}
        low, high = row.intervals["nll"]
        assert low < row.scores["nll"] < high
    assert len({tuple(row.scores.values()) for row in report.rows}) == 3
    assert (report.n, report.data, report.split, report.retrieved) == (N, "rows.csv", "test", 1.0)


def test_all_five_systems_in_the_tables_order(runtime: Runtime, split: Split, teacher: np.ndarray) -> None:
    fp32 = np.roll(teacher, 1, axis=0)
    report = evaluate_bundle(runtime, split, extra={STUDENT_FP32: fp32, TEACHER: teacher})
    rows = {row.system: row for row in report.rows}
    assert tuple(rows) == SYSTEMS[:-1]  # this bundle has no gate
    assert rows[TEACHER].scores["teacher_agreement"] == 1.0
    assert rows[TEACHER].scores["teacher_kl"] == 0.0
    assert rows[TEACHER].intervals["teacher_agreement"] == (1.0, 1.0)
    agreement = np.mean(teacher.argmax(axis=1) == fp32.argmax(axis=1))
    assert rows[STUDENT_FP32].scores["teacher_agreement"] == pytest.approx(agreement)
    gold = [LABELS.index(label) for label in split.labels or []]
    assert rows[TEACHER].scores["nll"] == pytest.approx(log_loss(gold, teacher, labels=range(3)))
    assert all(list(row.intervals) == list(METRICS) for row in report.rows)
    assert set(report.differences) == set(METRICS)


def test_differences_of_retrieval(runtime: Runtime, split: Split) -> None:
    report = evaluate_bundle(runtime, split)
    scores = {row.system: row.scores for row in report.rows}
    for metric, difference in report.differences.items():
        assert difference.value == scores[BLEND][metric] - scores[STUDENT][metric]
        assert difference.interval[0] <= difference.value <= difference.interval[1]
    answers = [runtime.predict(text) for text in split.texts]
    alone = [LABELS[answer.student_probabilities.argmax()] == gold for answer, gold in _zip(answers, split)]
    blended = [answer.label == gold for answer, gold in _zip(answers, split)]
    lost = sum(one and not two for one, two in zip(alone, blended, strict=True))
    won = sum(two and not one for one, two in zip(alone, blended, strict=True))
    assert report.mcnemar is not None
    assert (report.mcnemar.first_only, report.mcnemar.second_only) == (lost, won)
    assert lost + won > 0
    assert report.mcnemar.p_value == pytest.approx(binomtest(lost, lost + won).pvalue)


def _zip(answers: list, split: Split) -> list[tuple]:  # type: ignore[type-arg]
    return list(zip(answers, split.labels or [], strict=True))


def test_the_json_for_scripts(runtime: Runtime, split: Split) -> None:
    report = json.loads(json.dumps(evaluate_bundle(runtime, split, split_name="dev", data="here").to_json()))
    assert {"rows", "n", "split", "data", "mcnemar", "difference", "bootstrap", "labels"} <= set(report)
    assert (report["n"], report["split"], report["data"], report["labels"]) == (N, "dev", "here", list(LABELS))
    for row in report["rows"]:
        assert set(row) == {"system", *METRICS, "intervals"}
        assert row["teacher_agreement"] is None and row["teacher_kl"] is None
    assert (report["mcnemar"]["first"], report["mcnemar"]["second"]) == (STUDENT, BLEND)
    assert (report["difference"]["system"], report["difference"]["baseline"]) == (BLEND, STUDENT)
    assert len(report["difference"]["accuracy"]["interval"]) == 2


def test_the_same_report_again_and_with_more_threads(runtime: Runtime, bundle: Path, split: Split) -> None:
    first = evaluate_bundle(runtime, split).to_json()
    assert evaluate_bundle(runtime, split).to_json() == first
    with Runtime.open(bundle, threads=2) as threaded:
        assert evaluate_bundle(threaded, split).to_json() == first


def test_the_data_may_name_the_classes_otherwise(runtime: Runtime, split: Split) -> None:
    names = {"a": "0", "b": "1", "c": "2"}
    renamed = Split(split.texts, None, [names[label] for label in split.labels or []], split.source, split.rows)
    report = evaluate_bundle(runtime, renamed, ("0", "1", "2"))
    assert report.rows == evaluate_bundle(runtime, split).rows
    assert report.labels == LABELS


def test_without_retrieval_only_the_student_is_measured(bundle: Path, runtime: Runtime, split: Split) -> None:
    report = evaluate_bundle(runtime.with_retrieval("never"), split)
    full = evaluate_bundle(runtime, split)
    assert report.rows == full.rows[:1]
    assert (report.mcnemar, report.differences, report.retrieved) == (None, {}, 0.0)
    assert report.to_json()["mcnemar"] is None and report.to_json()["difference"] is None
    assert "McNemar" not in format_evaluation(report)


def test_an_empty_knowledge_base_leaves_the_student(tmp_path: Path, split: Split) -> None:
    with Runtime.open(build_tiny_bundle(tmp_path / "empty", rows=0)) as runtime:
        assert [row.system for row in evaluate_bundle(runtime, split).rows] == [STUDENT]


def test_progress_counts_the_rows(runtime: Runtime, split: Split) -> None:
    seen: list[tuple[int, int]] = []
    evaluate_bundle(runtime, split, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(row, N) for row in range(1, N + 1)]


def test_pairs(tmp_path: Path) -> None:
    pairs = [(str(one), str(two)) for one, two in tiny_texts(6, pairs=True)]
    split = Split([one for one, _ in pairs], [two for _, two in pairs], list("abcabc"), "pairs.tsv", [1, 2, 3, 4, 5, 6])
    with Runtime.open(build_tiny_bundle(tmp_path / "pairs", pairs=True)) as runtime:
        assert evaluate_bundle(runtime, split).n == 6


def test_the_table_shows_every_system_and_the_test(runtime: Runtime, split: Split, teacher: np.ndarray) -> None:
    report = evaluate_bundle(runtime, split, extra={TEACHER: teacher})
    text = format_evaluation(report)
    lines: dict[str, str] = {}
    for line in filter(None, text.splitlines()):
        lines.setdefault(line.split()[0], line)
    for row in report.rows:
        assert f"{100 * row.scores['accuracy']:.2f}" in lines[row.system]
        assert f"{row.scores['nll']:.3f}" in lines[row.system]
    assert report.mcnemar is not None
    assert f"p = {report.mcnemar.p_value:.3g}" in lines["McNemar"]
    assert f"{N} rows" in text


def test_an_unlabelled_split(runtime: Runtime) -> None:
    with pytest.raises(LabelError, match=r"rows\.csv"):
        evaluate_bundle(runtime, Split(["alarm"], None, None, "rows.csv", [1]))


def test_a_label_that_the_bundle_does_not_know_counts_as_wrong(runtime: Runtime) -> None:
    known = Split(["alarm", "noon"], None, ["a", "b"], "rows.csv", [1, 2])
    more = Split([*known.texts, "alarm", "music"], None, ["a", "b", "z", "y"], "rows.csv", [1, 2, 3, 4])
    report, without = evaluate_bundle(runtime, more), evaluate_bundle(runtime, known)
    assert (report.n, report.unseen, report.to_json()["unseen"], without.unseen) == (4, 2, 2, 0)
    for row, bare in zip(report.rows, without.rows, strict=True):
        assert row.scores["accuracy"] == (bare.scores["accuracy"] or 0) / 2
    assert "4 rows of rows.csv; 2 of them have a label that the bundle does not have" in format_evaluation(report)
    assert "do not have" not in format_evaluation(without) and "wrong" not in format_evaluation(without)


def test_labels_of_which_the_bundle_knows_none(runtime: Runtime) -> None:
    with pytest.raises(LabelError, match=r"rows\.csv: none of the labels is one of the classes; found 'z' \(1 row\)"):
        evaluate_bundle(runtime, Split(["alarm"], None, ["z"], "rows.csv", [7]))


def test_no_rows(runtime: Runtime) -> None:
    with pytest.raises(DataError, match="0 rows"):
        evaluate_bundle(runtime, Split([], None, [], "rows.csv", []))


def test_a_text_that_cannot_be_answered_is_named(runtime: Runtime) -> None:
    with pytest.raises(TextError, match=r"rows\.csv, row 12") as caught:
        evaluate_bundle(runtime, Split(["alarm", " "], None, ["a", "b"], "rows.csv", [11, 12]))
    assert caught.value.row == 12


@pytest.mark.parametrize(
    ("names", "extra", "message"),
    [
        (("a", "b"), {}, "3, one for each label"),
        (None, {"oracle": np.ones((N, 3)) / 3}, "unknown system"),
        (None, {TEACHER: np.ones((N, 2)) / 2}, "wrong shape"),
        (None, {TEACHER: np.ones((N - 1, 3)) / 3}, "wrong shape"),
    ],
)
def test_mismatched_arguments(runtime: Runtime, split: Split, names: object, extra: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate_bundle(runtime, split, names, extra=extra)  # type: ignore[arg-type]

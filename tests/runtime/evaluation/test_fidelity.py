"""Fidelity on three kinds of rows against single predictions and figures computed by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from support.tiny_bundle import build_tiny_bundle, tiny_texts

from reaugkd.errors import LabelError, UsageError
from reaugkd.runtime.data import Split
from reaugkd.runtime.evaluation.evaluate import evaluate_bundle as evaluate
from reaugkd.runtime.evaluation.fidelity import split_with_typos, with_fidelity
from reaugkd.runtime.evaluation.report import format_evaluation
from reaugkd.runtime.evaluation.results import (
    BLEND,
    CLEAN,
    DISTILLATION,
    FIDELITY_METRICS,
    MEANING,
    RETRIEVAL,
    STUDENT,
    STUDENT_FP32,
    SYSTEMS,
    TEACHER,
    TYPOS,
    EvalReport,
)
from reaugkd.runtime.evaluation.typos import add_typos
from reaugkd.runtime.runtime import Runtime

LABELS = ("a", "b", "c")
ROWS = {CLEAN: 40, TYPOS: 40, DISTILLATION: 15}
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("fidelity") / "bundle")


@pytest.fixture(scope="module")
def runtime(bundle: Path) -> Runtime:
    return Runtime.open(bundle)


def labelled(n: int, seed: int, source: str) -> Split:
    labels = [str(label) for label in np.random.default_rng(seed).choice(LABELS, n)]
    return Split([str(text) for text in tiny_texts(n, seed=seed)], None, labels, source, list(range(1, n + 1)))


@pytest.fixture(scope="module")
def clean() -> Split:
    return labelled(ROWS[CLEAN], 3, "test.csv")


@pytest.fixture(scope="module")
def others(clean: Split) -> dict[str, Split]:
    return {TYPOS: split_with_typos(clean), DISTILLATION: labelled(ROWS[DISTILLATION], 4, "train.jsonl")}


@pytest.fixture(scope="module")
def asked() -> dict[str, Arrays]:
    """Return the probabilities that the training code would pass."""
    rng = np.random.default_rng(8)
    return {kind: {name: rng.dirichlet(np.ones(3), n) for name in (TEACHER, STUDENT_FP32)} for kind, n in ROWS.items()}


@pytest.fixture(scope="module")
def report(runtime: Runtime, clean: Split, others: dict[str, Split], asked: dict[str, Arrays]) -> EvalReport:
    return measured(runtime, clean, others, asked)


def measured(
    runtime: Runtime, clean: Split, others: dict[str, Split], asked: dict[str, Arrays], progress: object = None
) -> EvalReport:
    first = evaluate(runtime, clean, extra=asked[CLEAN])
    return with_fidelity(first, runtime, others, {kind: asked[kind] for kind in others}, progress)  # type: ignore[arg-type]


def test_every_figure_of_every_system(
    runtime: Runtime, report: EvalReport, clean: Split, others: dict[str, Split], asked: dict[str, Arrays]
) -> None:
    assert report.fidelity is not None
    assert list(report.fidelity.kinds) == list(ROWS)
    for kind, split in {CLEAN: clean, **others}.items():
        answers = [runtime.predict(text) for text in split.inputs()]
        p = {
            **asked[kind],
            STUDENT: np.array([answer.student_probabilities for answer in answers], float),
            RETRIEVAL: np.array([answer.retrieval_probabilities for answer in answers], float),
            BLEND: np.array([answer.probabilities for answer in answers], float),
        }
        gold = np.array([LABELS.index(label) for label in split.labels or []])
        rows = report.fidelity.kinds[kind]
        assert [row.system for row in rows] == list(SYSTEMS[:-1])
        for row in rows:
            assert row.n == len(gold) == ROWS[kind]
            expected = by_hand(p[row.system], p[TEACHER], gold)
            found = {name: row.scores[name] for name in FIDELITY_METRICS}
            assert found == pytest.approx(expected, abs=1e-9), (kind, row.system)


def by_hand(p: np.ndarray, teacher: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    n = len(gold)
    answers, confidence = [int(np.argmax(row)) for row in p], [float(np.max(row)) for row in p]
    calibration = 0.0
    for low in range(10):
        inside = [i for i in range(n) if low / 10 < confidence[i] <= (low + 1) / 10]
        calibration += abs(sum((answers[i] == gold[i]) - confidence[i] for i in inside)) / n
    return {
        "accuracy": sum(answers[i] == gold[i] for i in range(n)) / n,
        "teacher_agreement": sum(answers[i] == int(np.argmax(teacher[i])) for i in range(n)) / n,
        "teacher_kl": sum(t * math.log(t / q) for t, q in zip(teacher.flat, p.flat, strict=True)) / n,
        "ece": calibration,
        "nll": -sum(float(np.log(p[i][gold[i]])) for i in range(n)) / n,
    }


def test_the_clean_rows_are_those_of_the_table(report: EvalReport) -> None:
    assert report.fidelity is not None
    assert [(row.system, row.scores) for row in report.fidelity.kinds[CLEAN]] == [
        (row.system, row.scores) for row in report.rows
    ]


def test_the_json_for_scripts(report: EvalReport) -> None:
    found = json.loads(json.dumps(report.to_json()))
    assert set(found["fidelity"]) == set(ROWS)
    for kind, rows in found["fidelity"].items():
        assert [row["system"] for row in rows] == list(SYSTEMS[:-1])
        assert all(set(row) == {"system", "n", *FIDELITY_METRICS} and row["n"] == ROWS[kind] for row in rows)
        teacher = rows[0]
        assert (teacher["teacher_agreement"], teacher["teacher_kl"]) == (1.0, 0.0)
    assert found["conventions"]["fidelity"] == MEANING
    assert "knowledge base" in found["conventions"]["fidelity"][DISTILLATION]


def test_without_the_teacher_there_is_none(runtime: Runtime, clean: Split) -> None:
    found = evaluate(runtime, clean)
    assert found.to_json()["fidelity"] is None and found.to_json()["conventions"]["fidelity"] is None
    assert "fidelity" not in format_evaluation(found)


def test_the_table_describes_every_kind(report: EvalReport) -> None:
    assert report.fidelity is not None
    text = format_evaluation(report)
    lines = text[text.index("fidelity to the teacher") :].splitlines()
    at = 2
    for kind, rows in report.fidelity.kinds.items():
        assert lines[at] == f"{kind}, {ROWS[kind]} rows"
        for line, row in zip(lines[at + 1 :], rows, strict=False):
            accuracy, nll, ece, agreement, kl = (row.scores[name] or 0.0 for name in FIDELITY_METRICS)
            percent = [f"{100 * share:.2f}" for share in (accuracy, ece, agreement)]
            assert line.split() == [row.system, percent[0], f"{nll:.3f}", *percent[1:], f"{kl:.3f}"]
        at += 1 + len(rows)
    assert lines[at:] == [f"{kind}: {MEANING[kind]}" for kind in ROWS]


def test_one_kind_alone(
    runtime: Runtime, report: EvalReport, clean: Split, others: dict[str, Split], asked: dict[str, Arrays]
) -> None:
    found = measured(runtime, clean, {TYPOS: others[TYPOS]}, asked)
    assert found.fidelity is not None and report.fidelity is not None
    assert found.fidelity.kinds == {kind: report.fidelity.kinds[kind] for kind in (CLEAN, TYPOS)}
    assert set(found.fidelity.meaning()) == {CLEAN, TYPOS}


def test_progress_goes_once_over_all_rows(
    runtime: Runtime, clean: Split, others: dict[str, Split], asked: dict[str, Arrays]
) -> None:
    seen: list[tuple[int, int]] = []
    measured(runtime, clean, others, asked, lambda done, total: seen.append((done, total)))
    total = ROWS[TYPOS] + ROWS[DISTILLATION]
    assert seen == [(row, total) for row in range(1, total + 1)]


def test_a_bundle_that_never_retrieves(bundle: Path, clean: Split, asked: dict[str, Arrays]) -> None:
    with Runtime.open(bundle, retrieval="never") as runtime:
        found = measured(runtime, clean, {TYPOS: split_with_typos(clean)}, asked)
    assert found.fidelity is not None
    for rows in found.fidelity.kinds.values():
        assert [row.system for row in rows] == [TEACHER, STUDENT_FP32, STUDENT]


def test_typos_rows_keep_their_labels_and_places(clean: Split) -> None:
    found = split_with_typos(clean)
    assert found.texts == add_typos(clean.texts) != clean.texts
    assert (found.labels, found.rows, found.source, found.pairs) == (clean.labels, clean.rows, clean.source, None)


def test_both_halves_of_a_pair_get_typos(tmp_path: Path, asked: dict[str, Arrays]) -> None:
    pairs = [(str(first), str(second)) for first, second in tiny_texts(ROWS[CLEAN], pairs=True)]
    labels = [LABELS[row % 3] for row in range(len(pairs))]
    split = Split([one for one, _ in pairs], [two for _, two in pairs], labels, "p.tsv", list(range(len(pairs))))
    changed = split_with_typos(split)
    assert changed.inputs() == add_typos(pairs)
    assert all(now != before for now, before in zip(changed.pairs or (), split.pairs or (), strict=True))
    with Runtime.open(build_tiny_bundle(tmp_path / "pairs", pairs=True)) as runtime:
        found = measured(runtime, split, {TYPOS: split_with_typos(split)}, asked)
    assert found.fidelity is not None and found.fidelity.kinds[TYPOS][0].n == len(pairs)


def test_a_distillation_row_of_an_unknown_class(runtime: Runtime, clean: Split, asked: dict[str, Arrays]) -> None:
    with pytest.raises(LabelError, match=r"train\.jsonl: none of the labels"):
        measured(runtime, clean, {DISTILLATION: Split(["alarm"], None, ["z"], "train.jsonl", [5])}, asked)


def test_mismatched_arguments(
    runtime: Runtime, clean: Split, others: dict[str, Split], asked: dict[str, Arrays]
) -> None:
    full, bare = evaluate(runtime, clean, extra=asked[CLEAN]), evaluate(runtime, clean)
    one = {TYPOS: others[TYPOS]}
    teacher = {TYPOS: {TEACHER: asked[TYPOS][TEACHER]}}
    with pytest.raises(UsageError, match="rows typos; probabilities distillation"):
        with_fidelity(full, runtime, one, {DISTILLATION: asked[DISTILLATION]})
    with pytest.raises(UsageError, match="of different kinds"):
        with_fidelity(full, runtime, {"odd": clean}, {"odd": asked[CLEAN]})
    with pytest.raises(UsageError, match="needs the teacher"):
        with_fidelity(bare, runtime, one, teacher)
    with pytest.raises(UsageError, match="needs the teacher"):
        with_fidelity(full, runtime, one, {TYPOS: {}})
    with pytest.raises(UsageError, match="wrong shape"):
        with_fidelity(full, runtime, one, {TYPOS: {TEACHER: np.ones((3, 3)) / 3}})

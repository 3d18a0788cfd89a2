"""Evaluation with a run: its models' answers and rows, compared with the run's files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.workshop import Workshop

import reaugkd.export.training.evaluate_run as evaluation
from reaugkd.errors import DataError, LabelError
from reaugkd.export.training.evaluate_run import RunSystems, evaluate_with_run, run_probabilities
from reaugkd.runtime.data import Split
from reaugkd.runtime.evaluation.results import CLEAN, DISTILLATION, TEACHER, TYPOS, EvalReport
from reaugkd.runtime.evaluation.typos import add_typos
from reaugkd.runtime.runtime import Runtime

LABELS = ("alarm", "music", "weather")


@pytest.fixture(scope="module")
def runtime(workshop: Workshop) -> Runtime:
    return Runtime.open(workshop.bundle)


@pytest.fixture(scope="module")
def split(runtime: Runtime) -> Split:
    texts = ["wake alarm bell snooze", "song album jazz", "rain cloud storm", "jazz or snow", "bell"]
    return Split(texts, None, ["alarm", "music", "weather", "weather", "alarm"], "here.csv", [1, 2, 3, 4, 5])


@pytest.fixture(scope="module")
def report(workshop: Workshop, runtime: Runtime, split: Split) -> EvalReport:
    return evaluate_with_run(workshop.run, runtime, split, "dev")


def figures(report: EvalReport, kind: str) -> dict[str, dict[str, float]]:
    return {row["system"]: row for row in report.to_json()["fidelity"][kind]}


def train_rows(run: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (run / "data" / "train.jsonl").read_text().splitlines()]


def test_the_teachers_answers_to_the_distillation_rows_are_those_it_gave_in_training(
    workshop: Workshop, report: EvalReport
) -> None:
    logits = load_file(workshop.run / "teacher_outputs" / "train.safetensors")["logits"].astype(float)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gold = [LABELS.index(row["label"]) for row in train_rows(workshop.run)]
    found = figures(report, DISTILLATION)[TEACHER]
    assert found["n"] == len(gold)
    assert found["accuracy"] == pytest.approx(np.mean(p.argmax(axis=1) == gold))
    assert found["nll"] == pytest.approx(-np.mean(np.log(p[range(len(gold)), gold])), abs=1e-4)


def test_the_bundle_is_compared_with_the_teachers_answers_to_the_same_rows(
    workshop: Workshop, runtime: Runtime, split: Split, report: EvalReport
) -> None:
    mistyped = Split(add_typos(split.texts), None, split.labels, split.source, split.rows)
    for kind, rows in ((CLEAN, split), (TYPOS, mistyped)):
        teacher = run_probabilities(workshop.run, rows, LABELS)[TEACHER]
        blend = np.array([runtime.predict(text).probabilities for text in rows.texts], float)
        found = figures(report, kind)["student+retrieval"]
        divergence = np.mean(np.sum(teacher * np.log(teacher / blend), axis=1))
        assert found["teacher_kl"] == pytest.approx(divergence, abs=1e-6)
        assert found["teacher_agreement"] == np.mean(teacher.argmax(axis=1) == blend.argmax(axis=1))
    assert figures(report, CLEAN) != figures(report, TYPOS)
    assert (report.split, report.n, report.data) == ("dev", 5, "here.csv")


def test_the_same_report_again(workshop: Workshop, runtime: Runtime, split: Split, report: EvalReport) -> None:
    assert evaluate_with_run(workshop.run, runtime, split, "dev").to_json() == report.to_json()


def test_a_sample_of_the_distillation_rows(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    systems, rows = RunSystems(workshop.run, LABELS), train_rows(workshop.run)
    every = systems.distillation_rows()
    assert (every.texts, every.labels) == ([row["text"] for row in rows], [row["label"] for row in rows])
    monkeypatch.setattr(evaluation, "DISTILLATION_ROWS", 40)
    sample = systems.distillation_rows()
    assert len(sample) == len(set(sample.rows)) == 40 and sample.rows == sorted(sample.rows)
    assert sample.rows != list(range(1, 41))
    for place, text, label in zip(sample.rows, sample.texts, sample.labels or [], strict=True):
        assert rows[place - 1] == {"text": text, "label": label}
    assert RunSystems(workshop.run, LABELS).distillation_rows() == sample


def test_every_distillation_row_is_in_the_knowledge_base(workshop: Workshop, runtime: Runtime) -> None:
    rows = RunSystems(workshop.run, LABELS).distillation_rows()
    kb = runtime.knowledge_base
    assert set(rows.texts) <= {kb.text(row) for row in range(len(kb))}


def test_the_models_are_loaded_once(
    workshop: Workshop, runtime: Runtime, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = evaluation.load_teacher
    monkeypatch.setattr(evaluation, "load_teacher", lambda *given: loaded.append(str(given[0])) or load(*given))
    evaluate_with_run(workshop.run, runtime, split)
    assert loaded == [str(workshop.run / "teacher")]


def test_rows_of_a_class_that_the_bundle_does_not_know(workshop: Workshop, runtime: Runtime) -> None:
    with pytest.raises(LabelError, match=r"here\.csv: none of the labels is one of the classes; found 'oos'"):
        evaluate_with_run(workshop.run, runtime, Split(["rain"], None, ["oos"], "here.csv", [7]))
    both = Split(["rain", "rain"], None, ["oos", runtime.predict("rain").label], "here.csv", [7, 8])
    report = evaluate_with_run(workshop.run, runtime, both)
    assert report.unseen == 1
    assert all(row.scores["accuracy"] <= 0.5 for row in report.rows)


def test_the_run_of_another_bundle(workshop: Workshop, edge_bundle: Path, split: Split) -> None:
    with Runtime.open(edge_bundle) as other, pytest.raises(DataError, match="labels differ from the bundle's"):
        evaluate_with_run(workshop.run, other, split)

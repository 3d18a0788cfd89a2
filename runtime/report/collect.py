"""Collect the numbers and examples of a report: each comes from the function that its own command uses.

Lists are limited, and texts are cut, so that the page stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...errors import UsageError
from ...kb.storage.ed25519 import PublicKey
from ..benchmark.bench import BenchReport, BenchSettings, bench
from ..benchmark.cold_start import bundle_bytes
from ..bundle.bundle import Bundle
from ..data import Split
from ..decision.abstention import policy_for
from ..evaluation.diagnostics import class_scores, confusions, reliability, risk_coverage
from ..evaluation.evaluate import SystemProbabilities, predict_split, score_answers
from ..evaluation.metrics import Floats
from ..evaluation.results import BLEND, STUDENT
from ..inference.prediction import Prediction
from ..labelling.review import review
from ..runtime import Runtime
from .contents import Curve, GoalResult, Report, ShownNeighbour, Text, WrongLabel, WrongLabels, WrongRow
from .provenance import now, provenance_of, recipe_of, rows_among

WRONG_ROWS, WRONG_LABELS, CLASSES, CONFUSIONS = 500, 100, 500, 600
"""The most entries of each list. 600 pairs are all of 25 classes."""

NEIGHBOURS = 3
TEXT_CHARS, LABEL_CHARS = 160, 80
CURVE_POINTS = 200

GOALS = ("coverage=99%", "coverage=95%", "coverage=90%", "coverage=80%", "error=1%", "error=2%", "error=5%")
"""The goals of abstention that are tried; those without a threshold are left out."""

BY_SCORE, BY_PROBABILITY = "rejection score", "probability of the answer"
"""What rows are ordered by for the error rate over coverage."""

ProgressOf = Callable[[str, str], AbstractContextManager[Callable[[int, int], object]]]
"""Called with a label and a unit; gives a function of (units done, units in total)."""


@dataclass(frozen=True)
class ReportSettings:
    """Settings of a report.

    Attributes:
        seconds: time for the latency measurement; 0 leaves it out.
        texts: whether texts are shown.
        split_name: the name of the split.
        command: the command line.
        note: same as `Report.note`.
        run_rows: same as for `rows_among`.
        run: the contents of the run's run.json; None without a run.
        signer: the key that must have signed the bundle; None if signatures are not read.
        follow_links: same as `Bundle.open`.
    """

    seconds: float
    texts: bool
    split_name: str
    command: str
    note: str = ""
    run_rows: Mapping[str, Split] = field(default_factory=dict)
    run: Mapping[str, Any] | None = None
    signer: PublicKey | None = None
    follow_links: bool = False


def collect(
    runtime: Runtime,
    path: Path,
    split: Split,
    settings: ReportSettings,
    progress: ProgressOf,
    extra: Mapping[str, ArrayLike] | None = None,
) -> Report:
    """Measure everything that a report shows.

    Args:
        runtime: the open bundle.
        path: its folder, as it was given.
        split: labelled rows.
        settings: the settings.
        progress: shows the progress of the rows, the review and the latency measurement.
        extra: same as `evaluate_bundle`.

    Raises:
        LabelError, TextError, DataError, UsageError: same as `evaluate_bundle`.
    """
    show = _Shown(settings.texts)
    rows = _Rows(split)
    abstains = runtime.manifest.abstention is not None
    with progress("report", "row") as advance:
        answers = predict_split(
            runtime, split, extra=extra, progress=advance, abstain="coverage=100%" if abstains else None, each=rows.add
        )
    evaluation = score_answers(answers, settings.split_name, split.source)
    assert split.labels is not None  # predict_split has checked it
    scored = answers.scored_rows()
    system = BLEND if BLEND in scored else STUDENT
    labels = [show.label(name) for name in answers.labels]
    classes = class_scores(scored[system], scored[STUDENT], labels)
    confused = confusions(split.labels, [answers.labels[one] for one in scored[system].predicted.tolist()])
    wrong = sorted(rows.wrong, key=lambda one: -one[1].probability)
    with progress("review", "row") as advance:
        found = review(runtime, progress=advance)
    issues = tuple(
        WrongLabel(**{**asdict(one), **_with(show, one.text, label=one.label, suggested=one.suggested)})
        for one in found.issues[:WRONG_LABELS]
    )
    bundle = Bundle.open(path, verify=False, follow_links=settings.follow_links)  # the runtime has checked it
    return Report(
        bundle=str(path),
        command=settings.command,
        made=now(),
        evaluation=replace(evaluation, labels=tuple(labels)),
        system=system,
        classes=tuple(sorted(classes, key=lambda one: one.f1)[:CLASSES]),
        class_count=len(classes),
        confusions=tuple(
            replace(one, gold=show.label(one.gold), predicted=show.label(one.predicted))
            for one in confused[:CONFUSIONS]
        ),
        confusion_count=len(confused),
        reliability={name: reliability(scored[name]) for name in dict.fromkeys((STUDENT, system))},
        curves=_curves(rows, scored[system].confidence, scored[system].correct),
        goals=_goals(runtime, path, rows, scored[system].correct) if abstains else (),
        wrong=tuple(_wrong_row(split, answers, row, one, show) for row, one in wrong[:WRONG_ROWS]),
        wrong_count=len(wrong),
        wrong_labels=WrongLabels(found.checked, len(found.issues), issues),
        note=settings.note,
        among=rows_among(runtime, split, settings.run_rows),
        latency=_latency(path, split, runtime.threads, settings, progress),
        bytes=bundle_bytes(bundle),
        provenance=provenance_of(bundle, split, settings.run, settings.signer),
        recipe=recipe_of(bundle.manifest, settings.run),
    )


@dataclass
class _Rows:
    """What the report needs of every prediction; of the wrong ones everything."""

    split: Split
    scores: list[float] = field(default_factory=list)
    retrieved: list[bool] = field(default_factory=list)
    wrong: list[tuple[int, Prediction]] = field(default_factory=list)

    def add(self, row: int, prediction: Prediction) -> None:
        assert self.split.labels is not None
        if prediction.rejection_score is not None:
            self.scores.append(prediction.rejection_score)
            self.retrieved.append(prediction.retrieval_probabilities is not None)
        if prediction.label != self.split.labels[row]:
            self.wrong.append((row, prediction))


@dataclass(frozen=True)
class _Shown:
    """Texts and labels as the page shows them."""

    texts: bool

    def text(self, text: Text) -> Text:
        if not self.texts or text is None:
            return None
        return cut(text, TEXT_CHARS) if isinstance(text, str) else (cut(text[0], TEXT_CHARS), cut(text[1], TEXT_CHARS))

    def label(self, label: str) -> str:
        return cut(label, LABEL_CHARS)


def cut(text: str, most: int) -> str:
    """The text, or its beginning and an ellipsis where it has more characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _with(show: _Shown, text: Text, **labels: str) -> dict[str, Any]:
    return {"text": show.text(text), **{name: show.label(label) for name, label in labels.items()}}


def _wrong_row(split: Split, answers: SystemProbabilities, row: int, prediction: Prediction, show: _Shown) -> WrongRow:
    assert split.labels is not None
    gold = int(answers.gold[row])
    found = prediction.neighbours
    said = found.probabilities() if len(found) else None
    return WrongRow(
        row=split.rows[row],
        text=show.text(split.texts[row] if split.pairs is None else (split.texts[row], split.pairs[row])),
        gold=show.label(split.labels[row]),
        predicted=show.label(prediction.label),
        probability=prediction.probability,
        gold_probability=None if gold < 0 else float(prediction.probabilities[gold]),
        student=show.label(prediction.labels[int(prediction.student_probabilities.argmax())]),
        neighbours_say=None if said is None else show.label(prediction.labels[int(said.argmax())]),
        neighbours=tuple(
            ShownNeighbour(
                near.id, near.similarity, near.weight, show.label(near.gold_label or near.label), show.text(near.text)
            )
            for near in found[:NEIGHBOURS]
        ),
    )


def _curves(rows: _Rows, confidence: Floats, correct: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Curve]:
    orders = {BY_SCORE: np.array(rows.scores)} if rows.scores else {}
    orders[BY_PROBABILITY] = -confidence
    curves = {}
    for name, uncertainty in orders.items():
        coverage, risk = risk_coverage(uncertainty, correct)
        kept = np.unique(np.linspace(0, len(coverage) - 1, CURVE_POINTS).round().astype(np.int64))
        curves[name] = Curve(tuple(coverage[kept].tolist()), tuple(risk[kept].tolist()))
    return curves


def _goals(
    runtime: Runtime, path: Path, rows: _Rows, correct: np.ndarray[Any, np.dtype[np.bool_]]
) -> tuple[GoalResult, ...]:
    scores, retrieved = np.array(rows.scores), np.array(rows.retrieved)
    results = []
    for goal in GOALS:
        try:
            policy = policy_for(runtime.manifest.abstention, goal, path, bool(retrieved.any()))
        except UsageError:  # too few held-out rows for this goal
            continue
        answered = scores <= np.where(retrieved, policy.blend, policy.student)
        error_rate = float((~correct[answered]).mean()) if answered.any() else None
        results.append(GoalResult(goal, float(answered.mean()), error_rate))
    return tuple(results)


def _latency(
    path: Path, split: Split, threads: int, settings: ReportSettings, progress: ProgressOf
) -> BenchReport | None:
    if not settings.seconds:
        return None
    texts: Sequence[str | tuple[str, str]] = split.inputs()
    with progress("bench", "step") as advance:
        return bench(
            path,
            texts,
            threads=threads,
            settings=BenchSettings(seconds=settings.seconds),
            source=split.source,
            progress=advance,
            require_signature=settings.signer,
            follow_links=settings.follow_links,
        )

"""Evaluate a run's teacher and float32 student together with the bundle on the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...errors import DataError
from ...runtime.data import Split
from ...runtime.decision.blending import softmax_many
from ...runtime.evaluation.evaluate import Progress, evaluate_bundle
from ...runtime.evaluation.fidelity import split_with_typos, with_fidelity
from ...runtime.evaluation.results import DISTILLATION, DISTILLATION_ROWS, STUDENT_FP32, TEACHER, TYPOS, EvalReport
from ...runtime.runtime import Runtime
from ..modeling.encoder import EncoderClassifier
from ..modeling.execution.inference import outputs_of
from ..modeling.execution.progress import progress
from ..modeling.execution.tokens import token_rows
from ..modeling.teacher import load_teacher
from ..recipe_file import recipe_from_dict
from .run_folder import RunFolder, read_rows

_SAMPLE_SEED = 0


class RunSystems:
    """Teacher and float32 student of a run, loaded once.

    Args:
        run_path: the folder of a finished run.
        labels: the bundle's labels in order.

    Attributes:
        has_teacher: whether the teacher is a model; a file has no answers to other rows.

    Raises:
        DataError: the run is not finished, or its labels differ from the bundle's.
    """

    def __init__(self, run_path: Path, labels: Sequence[str]) -> None:
        self.run = run = RunFolder(run_path)
        description = run.describe()
        if tuple(description["labels"]) != tuple(labels):
            raise DataError(
                "the run's labels differ from the bundle's",
                path=run.path,
                found=", ".join(description["labels"]),
                expected=", ".join(labels),
                remedy="Give the run that the bundle was exported from.",
            )
        run.require_finished()
        recipe = recipe_from_dict(description["recipe"])
        source = description["teacher"] if description["teacher_is_fine_tuned"] else run.teacher
        self.has_teacher = "teacher_file" not in description
        self._max_length: int = recipe.max_length
        self._models: dict[str, tuple[nn.Module, Path]] = {}
        if self.has_teacher:
            self._models[TEACHER] = load_teacher(source, recipe.teacher, labels), run.teacher
        self._models[STUDENT_FP32] = EncoderClassifier.load(run.student), run.student

    def probabilities(self, split: Split, kind: str = "") -> dict[str, NDArray[np.floating]]:
        """Return probabilities [n, c] of ``teacher``, if it is a model, and ``student_fp32``."""
        answers = {}
        for name, (model, folder) in self._models.items():
            rows = token_rows(folder, split, model.encoder.config, self._max_length)  # type: ignore[union-attr]
            logits = outputs_of(model, rows, f"{name}, {kind}" if kind else name).logits
            answers[name] = softmax_many(logits.numpy().astype(np.float64))
        return answers

    def distillation_rows(self) -> Split:
        """Return the rows that the student was distilled on: all, or a fixed sample of ``DISTILLATION_ROWS``."""
        split = read_rows(self.run.data / "train.jsonl")
        return split.take(distillation_sample(len(split)))


def distillation_sample(rows: int) -> NDArray[np.int64]:
    """Return sorted indices of the train rows in a report: all, or a fixed sample of ``DISTILLATION_ROWS``."""
    return np.sort(np.random.default_rng(_SAMPLE_SEED).permutation(rows)[:DISTILLATION_ROWS])


def run_probabilities(run_path: Path, split: Split, labels: Sequence[str]) -> dict[str, NDArray[np.floating]]:
    """Return probabilities [n, c] of ``teacher`` and ``student_fp32`` on a split's rows.

    Raises:
        DataError: same as ``RunSystems``.
    """
    return RunSystems(run_path, labels).probabilities(split)


def evaluate_with_run(run_path: Path, runtime: Runtime, split: Split, split_name: str = "test") -> EvalReport:
    """Evaluate a bundle, its teacher and its float32 student, with every system's fidelity to the teacher.

    All systems answer the rows, the rows with typing errors, and at most ``DISTILLATION_ROWS`` rows that the student
    was distilled on. If the teacher is a file, only bundle and float32 student answer the rows.

    Args:
        run_path: the run that the bundle was exported from.
        runtime: the open bundle.
        split: labelled rows.
        split_name: name of the split in the report.

    Raises:
        DataError: same as ``RunSystems``, or the split has no rows.
        LabelError, TextError: same as ``evaluate_bundle``.
    """
    systems = RunSystems(run_path, runtime.labels)
    extra = systems.probabilities(split)
    with _bar("bundle", len(split)) as advance:
        report = evaluate_bundle(runtime, split, extra=extra, split_name=split_name, progress=advance)
    if not systems.has_teacher:
        click.echo("the run's teacher is a file: it is not scored, and there is no fidelity to it", err=True)
        return report
    splits = {TYPOS: split_with_typos(split), DISTILLATION: systems.distillation_rows()}
    probabilities = {kind: systems.probabilities(rows, f"{kind} rows") for kind, rows in splits.items()}
    with _bar("bundle, " + " and ".join(f"{kind} rows" for kind in splits), sum(map(len, splits.values()))) as advance:
        return with_fidelity(report, runtime, splits, probabilities, advance)


@contextmanager
def _bar(label: str, total: int) -> Iterator[Progress]:
    with progress(label, total, "row") as advance:
        yield lambda _done, _total: advance(1)

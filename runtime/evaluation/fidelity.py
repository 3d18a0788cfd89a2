"""Fidelity: how closely a system matches its teacher's predictions, on three kinds of rows.

A student can score well and still differ from its teacher on many rows, even on the rows it was distilled on (Stanton
et al., "Does Knowledge Distillation Really Work?", NeurIPS 2021). So agreement of the most probable class, mean
KL(teacher || system) and calibration are reported beside accuracy on the evaluated rows (clean), on the same rows with
typing errors (typos; the teacher sees the errors too), and on rows of the distillation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from numpy.typing import ArrayLike

from ...errors import UsageError
from ..data import Split
from ..runtime import Runtime
from .evaluate import Progress, predict_split
from .metrics import METRICS
from .results import (
    CLEAN,
    DISTILLATION,
    TEACHER,
    TYPOS,
    EvalReport,
    Fidelity,
    FidelityRow,
)
from .typos import add_typos


def split_with_typos(split: Split) -> Split:
    """Return the rows with typing errors (``add_typos``, seed 0); labels and row numbers are unchanged."""
    return replace(split, texts=add_typos(split.texts), pairs=None if split.pairs is None else add_typos(split.pairs))


def with_fidelity(
    report: EvalReport,
    runtime: Runtime,
    splits: Mapping[str, Split],
    extra: Mapping[str, Mapping[str, ArrayLike]],
    progress: Progress | None = None,
) -> EvalReport:
    """Return the evaluation with the systems' fidelity added; the evaluated rows are the clean ones.

    Args:
        report: of the clean rows; the teacher must be among its systems.
        runtime: the evaluated bundle.
        splits: the other kinds of rows, ``"typos"`` and ``"distillation"``, with the bundle's class names.
        extra: for each kind in ``splits``, the probabilities that ``evaluate_bundle`` takes as ``extra``.
        progress: called with (rows done, rows in total) over all of ``splits``.

    Raises:
        UsageError: the teacher's probabilities are missing, or ``splits`` and ``extra`` have different kinds.
        LabelError, TextError, DataError: same as ``evaluate_bundle``.
    """
    if set(splits) != set(extra) or not set(splits) <= {TYPOS, DISTILLATION}:
        raise UsageError(
            "rows and probabilities are of different kinds",
            found=f"rows {', '.join(splits)}; probabilities {', '.join(extra)}",
            expected=f"{TYPOS}, {DISTILLATION} or both, the same in each",
        )
    if TEACHER not in (row.system for row in report.rows) or not all(TEACHER in asked for asked in extra.values()):
        raise UsageError("fidelity needs the teacher's probabilities on all rows", found="some are missing")
    kinds = {CLEAN: tuple(FidelityRow(row.system, report.n, row.scores) for row in report.rows)}
    total, done = sum(map(len, splits.values())), 0
    for kind, split in splits.items():
        kinds[kind] = tuple(_rows(runtime, split, extra[kind], _counted(progress, done, total)))
        done += len(split)
    return replace(report, fidelity=Fidelity(kinds))


def _rows(
    runtime: Runtime, split: Split, extra: Mapping[str, ArrayLike], progress: Progress | None
) -> Iterator[FidelityRow]:
    answers = predict_split(runtime, split, extra=extra, progress=progress)
    for name, rows in answers.scored_rows().items():
        yield FidelityRow(name, len(split), {metric.name: metric.value(rows) for metric in METRICS.values()})


def _counted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Return a progress function for one kind that reports progress over all kinds."""
    return None if progress is None else lambda done, _total: progress(before + done, total)

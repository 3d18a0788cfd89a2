"""Fidelity: does a system say what its teacher says, on three kinds of rows?

Stanton et al., "Does Knowledge Distillation Really Work?" (NeurIPS 2021): a student may score well and still differ
from its teacher on many rows, even on the rows it was distilled on. So agreement of the most probable class, mean
KL(teacher || system) and calibration are given beside accuracy on the rows scored (clean), on the same rows with typing
errors (shifted), where the teacher answers the changed text too, and on rows of the distillation itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from numpy.typing import ArrayLike

from ...errors import UsageError
from ..data import Split
from ..runtime import Runtime
from .evaluate import Progress, answer
from .metrics import score
from .results import (
    CLEAN,
    DISTILLATION,
    SHIFTED,
    TEACHER,
    EvalReport,
    Fidelity,
    FidelityRow,
)
from .typos import shifted


def shifted_split(split: Split) -> Split:
    """The rows with typing errors (``shift.shifted``, seed 0); labels and places as they were."""
    return replace(split, texts=shifted(split.texts), pairs=None if split.pairs is None else shifted(split.pairs))


def with_fidelity(
    report: EvalReport,
    runtime: Runtime,
    splits: Mapping[str, Split],
    extra: Mapping[str, Mapping[str, ArrayLike]],
    progress: Progress | None = None,
) -> EvalReport:
    """The evaluation with the systems' fidelity; its own rows are the clean ones.

    Args:
        report: of the clean rows, the teacher among its systems.
        runtime: the bundle that it evaluates.
        splits: the other kinds of rows, by ``"shifted"`` and ``"distillation"``, labelled as the bundle's classes are.
        extra: of each kind of ``splits``, the probabilities that ``evaluate_bundle`` takes as ``extra``.
        progress: called with (rows done, rows in all) over all of ``splits``.

    Raises:
        UsageError: the teacher's answers are missing, or there are answers to one kind of rows and not to the other.
        LabelError, TextError, DataError: as ``evaluate_bundle``.
    """
    if set(splits) != set(extra) or not set(splits) <= {SHIFTED, DISTILLATION}:
        raise UsageError(
            "rows and answers are not of the same kinds",
            found=f"rows {', '.join(splits)}; answers {', '.join(extra)}",
            expected=f"{SHIFTED}, {DISTILLATION} or both, in either",
        )
    if TEACHER not in (row.system for row in report.rows) or not all(TEACHER in asked for asked in extra.values()):
        raise UsageError("fidelity needs the teacher's answers to all rows", found="none to some")
    kinds = {CLEAN: tuple(FidelityRow(row.system, report.n, row.scores) for row in report.rows)}
    total, done = sum(map(len, splits.values())), 0
    for kind, split in splits.items():
        kinds[kind] = tuple(_rows(runtime, split, extra[kind], _counted(progress, done, total)))
        done += len(split)
    return replace(report, fidelity=Fidelity(kinds))


def _rows(
    runtime: Runtime, split: Split, extra: Mapping[str, ArrayLike], progress: Progress | None
) -> Iterator[FidelityRow]:
    answers = answer(runtime, split, extra=extra, progress=progress)
    teacher = answers.systems[TEACHER]
    for name, probabilities in answers.systems.items():
        yield FidelityRow(name, len(split), score(probabilities, answers.gold, teacher))


def _counted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress over all kinds from that of one."""
    return None if progress is None else lambda done, _of_one: progress(before + done, total)

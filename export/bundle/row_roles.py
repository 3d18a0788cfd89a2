"""Row roles: rows that are stored while the blend is tuned, rows that tune it, and rows that are added afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...runtime.data import Split, drop_duplicates_of
from ..onnx.quality import StudentOutputs
from ..recipe import RetrievalRecipe
from ..training.finished_run import FinishedRun
from ..tuning.build_kb import KbRows

AskStudent = Callable[[Sequence[str | tuple[str, str]], str], StudentOutputs]
"""Computes the exported student's outputs from (inputs, label of the progress bar)."""


@dataclass(frozen=True)
class Allocation:
    """The roles of rows.

    Args:
        searched: rows that are in the knowledge base while the blend is tuned; they are its first rows afterwards.
        asking: the held-out rows, which the blend is tuned on.
        later: rows that are added to the knowledge base after the blend is tuned.
    """

    searched: KbRows
    asking: KbRows
    later: KbRows


def allocate(
    source: FinishedRun,
    recipe: RetrievalRecipe,
    extra: Split | None,
    ask_student: AskStudent,
    heldout_answers: StudentOutputs,
) -> Allocation:
    """Assign roles to the rows of a run and to extra rows.

    Extra rows that the run already has are left out. Extra rows that are related to held-out rows are added later if
    the held-out rows are. The blend is not tuned on extra rows: by their labels, which are the teacher's answers, a
    student that repeats its teacher's errors looks better than neighbours that are right.

    Args:
        source: the run.
        recipe: the source of the keys, and whether held-out rows are added.
        extra: extra rows; None for none.
        ask_student: computes the exported student's outputs.
        heldout_answers: the exported student's outputs for the held-out rows.
    """
    of_students = recipe.keys != "teacher"
    searched = source.of_train(ask_student(source.train.inputs(), "keys").queries if of_students else None)
    heldout = source.of_heldout(heldout_answers.queries if of_students else None)
    later = heldout.take(np.full(len(heldout), recipe.keep_heldout))
    # Rows without a gold label tune the blend with their teacher's label, which is not stored as gold.
    heldout = replace(heldout, gold=np.where(heldout.gold < 0, heldout.logits.argmax(axis=1), heldout.gold))
    new = None if extra is None else extra.take(drop_duplicates_of(extra, [source.train, source.heldout]))
    if new is None or not len(new):
        return Allocation(searched, heldout, later)
    outputs = ask_student(new.inputs(), "the extra rows")
    added = source.of_extra(new, outputs.queries if of_students else None)
    groups = heldout.joined(added).groups()
    related = np.isin(groups[len(heldout) :], groups[: len(heldout)])
    if recipe.keep_heldout:
        later = later.joined(added.take(related))
    return Allocation(searched.joined(added.take(~related)), heldout, later)

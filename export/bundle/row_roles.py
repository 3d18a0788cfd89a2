"""Row roles: rows that are stored while the blend is tuned, rows that tune it, and rows that are added afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...runtime.data import Split, drop_duplicates_of
from ..onnx.quality import StudentOutputs
from ..recipe import RetrievalRecipe
from ..training.finished_run import FinishedRun
from ..tuning.build_kb import KbRows

FEWEST_EXTRA = 500
"""Smallest number of extra rows of which some are used for tuning."""

PSEUDO_LABELLED_SHARE = 0.2
MOST_PSEUDO_LABELLED = 2000
_SEED = 7

AskStudent = Callable[[Sequence[str | tuple[str, str]], str], StudentOutputs]
"""Computes the exported student's outputs from (inputs, label of the progress bar)."""


@dataclass(frozen=True)
class Allocation:
    """The roles of rows.

    Args:
        searched: rows that are in the knowledge base while the blend is tuned; they are its first rows afterwards.
        asking: rows that the blend is tuned on: the held-out rows, then pseudo-labelled validation rows.
        answers: the exported student's outputs for ``asking``.
        later: rows that are added to the knowledge base after the blend is tuned.
    """

    searched: KbRows
    asking: KbRows
    answers: StudentOutputs
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
    the held-out rows are.

    If there are many extra rows, a fifth of them become pseudo-labelled validation rows: the blend is tuned on them
    with the teacher's labels, before they are added. The student was not trained on them, and no related row is stored.
    So they measure how much the other extra rows help on such texts, which held-out rows cannot measure.

    Args:
        source: the run.
        recipe: the source of keys and labels, and whether held-out rows are added.
        extra: extra rows; None for none.
        ask_student: computes the exported student's outputs.
        heldout_answers: the exported student's outputs for the held-out rows.
    """
    of_students = recipe.keys != "teacher"
    searched = source.of_train(ask_student(source.train.inputs(), "keys").queries if of_students else None, recipe)
    heldout = source.of_heldout(heldout_answers.queries if of_students else None)
    later = heldout.take(np.full(len(heldout), recipe.keep_heldout))
    # Rows without a gold label tune the blend with their teacher's label, which is not stored as gold.
    heldout = replace(heldout, gold=np.where(heldout.gold < 0, heldout.logits.argmax(axis=1), heldout.gold))
    new = None if extra is None else extra.take(drop_duplicates_of(extra, [source.train, source.heldout]))
    if new is None or not len(new):
        return Allocation(searched, heldout, heldout_answers, later)
    outputs = ask_student(new.inputs(), "the extra rows")
    added = source.of_extra(new, outputs.queries if of_students else None)
    groups = heldout.joined(added).groups()
    related = np.isin(groups[len(heldout) :], groups[: len(heldout)])
    chosen = _choose_pseudo_labelled(searched.joined(heldout), added, related)
    if recipe.keep_heldout:
        later = later.joined(added.take(related))
    pseudo_labelled = added.take(chosen)
    return Allocation(
        searched.joined(added.take(~related & ~chosen)),
        heldout.joined(replace(pseudo_labelled, gold=pseudo_labelled.logits.argmax(axis=1))),
        heldout_answers.joined(outputs.take(chosen)),
        later.joined(pseudo_labelled),
    )


def _choose_pseudo_labelled(known: KbRows, added: KbRows, related: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Choose pseudo-labelled validation rows: bool [n], whole groups of related rows without a known row."""
    count = min(int(PSEUDO_LABELLED_SHARE * len(added)), MOST_PSEUDO_LABELLED) if len(added) >= FEWEST_EXTRA else 0
    # A group has the number of its first row, and the known rows come first.
    group = known.joined(added).groups()[len(known) :]
    alone = (group >= len(known)) & ~np.isin(group, group[related])
    groups, sizes = np.unique(group[alone], return_counts=True)
    order = np.random.default_rng(_SEED).permutation(len(groups))
    return np.isin(group, groups[order][np.cumsum(sizes[order]) <= count])

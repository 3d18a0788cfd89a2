"""Which rows a knowledge base holds while its blend is tuned, which the blend is tuned on, and which join later."""

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
"""Extra rows, below which none is spared for the tuning."""

WITNESS_SHARE = 0.2
MOST_WITNESSES = 2000
_WITNESS_SEED = 7

AskStudent = Callable[[Sequence[str | tuple[str, str]], str], StudentOutputs]
"""(inputs, label of the progress line) to the exported student's answers."""


@dataclass(frozen=True)
class Allocation:
    """The parts that rows play.

    Args:
        searched: in the knowledge base while the blend is tuned, and first in it afterwards.
        asking: what the blend is tuned on: the held-out rows, then extra ones whose label is the teacher's answer.
        answers: the exported student's to ``asking``.
        later: what joins the knowledge base once the blend is tuned.
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
    """The rows of a run, and extra ones, in their parts.

    Extra rows that the run holds already are left out. Relatives of held-out rows join later if the held-out rows do.

    Of many extra rows a fifth are witnesses: the blend is tuned on them too, with the teacher's answers for their
    labels, before they join. The student was not trained on them and the knowledge base does not hold their like, so
    they show what the others are worth for texts of their kind; a few hundred held-out rows of the student's own kind
    cannot.

    Args:
        source: the run.
        recipe: which keys there are and whether held-out rows join.
        extra: rows beside the run's; None for none.
        ask_student: asks the exported student.
        heldout_answers: its answers to the held-out rows.
    """
    of_students = recipe.keys != "teacher"
    searched = source.of_train(ask_student(source.train.inputs(), "keys").queries if of_students else None, recipe)
    heldout = source.of_heldout(heldout_answers.queries if of_students else None)
    later = heldout.take(np.full(len(heldout), recipe.keep_heldout))
    new = None if extra is None else extra.take(drop_duplicates_of(extra, [source.train, source.heldout]))
    if new is None or not len(new):
        return Allocation(searched, heldout, heldout_answers, later)
    asked = ask_student(new.inputs(), "the extra rows")
    added = source.of_extra(new, asked.queries if of_students else None)
    groups = heldout.joined(added).groups()
    related = np.isin(groups[len(heldout) :], groups[: len(heldout)])
    witness = _witnesses(searched.joined(heldout), added, related)
    if recipe.keep_heldout:
        later = later.joined(added.take(related))
    pseudo_labelled = added.take(witness)
    return Allocation(
        searched.joined(added.take(~related & ~witness)),
        heldout.joined(replace(pseudo_labelled, gold=pseudo_labelled.logits.argmax(axis=1))),
        heldout_answers.joined(asked.take(witness)),
        later.joined(pseudo_labelled),
    )


def _witnesses(known: KbRows, added: KbRows, related: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the added rows [n] are witnesses: whole groups of related rows, none of them related to a known row."""
    wanted = min(int(WITNESS_SHARE * len(added)), MOST_WITNESSES) if len(added) >= FEWEST_EXTRA else 0
    # A group's number is its first row's, and the known rows come first.
    group = known.joined(added).groups()[len(known) :]
    alone = (group >= len(known)) & ~np.isin(group, group[related])
    groups, sizes = np.unique(group[alone], return_counts=True)
    order = np.random.default_rng(_WITNESS_SEED).permutation(len(groups))
    return np.isin(group, groups[order][np.cumsum(sizes[order]) <= wanted])

"""Check, before the distillation, that a teacher that was fine-tuned elsewhere answers the train rows rightly."""

from __future__ import annotations

import csv
import io
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ....errors import ModelError
from ....runtime.data import Split, label_indices
from ...modeling.execution.inference import outputs_of
from ...modeling.execution.tokens import save_tokenizer, token_rows
from ...modeling.teacher import FineTunedTeacher, load_teacher
from ...recipe import Recipe

ROWS = 512
"""Largest number of train rows that are asked."""
CLEARLY_BETTER = 0.1
"""Share of rows that another order of the labels must answer better."""

Indices = NDArray[np.int64]


def require_right_answers(model: str, recipe: Recipe, train: Split, label_names: Sequence[str]) -> None:
    """Ask a fine-tuned teacher for some train rows and tell the share of right answers on stderr.

    Args:
        model: hub id or folder of the teacher.
        recipe: with the names of the teacher's outputs; if these are given, no answers are refused.
        train: the train rows.
        label_names: the data's labels in order.

    Raises:
        ModelError: another order of the teacher's labels is clearly better, or the teacher is no better than the most
            frequent label.
    """
    teacher = load_teacher(model, recipe.teacher, label_names)
    if not isinstance(teacher, FineTunedTeacher):
        return  # of another run: its labels have names
    order = list(teacher.order)
    names = _output_names(teacher, recipe.teacher.labels, order, label_names)
    teacher.order = list(range(len(names)))
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:ROWS])
    sample = train.take(rows.tolist())
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(model, Path(folder))
        tokens = token_rows(Path(folder), sample, teacher.encoder.config, recipe.max_length)
        answers = outputs_of(teacher, tokens, "teacher on some train rows").logits
    gold = label_indices(sample, label_names)
    right = float(np.mean(answers[:, order].argmax(dim=1).numpy() == gold))
    click.echo(f"the teacher answers {right:.1%} of {len(rows)} train rows rightly", err=True)
    if not recipe.teacher.labels:
        _require_order(model, answers.argmax(dim=1).numpy(), gold, right, names, label_names)


def _output_names(
    teacher: FineTunedTeacher, given: Sequence[str], order: Sequence[int], label_names: Sequence[str]
) -> list[str]:
    """Return the name of each of the teacher's outputs; the data's name where an output was matched with a label."""
    own = teacher.model.config.id2label
    names = list(given) or [str(own[number]) for number in sorted(own)]
    for output, name in zip(order, label_names, strict=True):
        names[output] = name
    return names


def _require_order(
    model: str, found: Indices, gold: Indices, right: float, names: Sequence[str], label_names: Sequence[str]
) -> None:
    other = _cross_validated(found, gold, len(names), len(label_names))
    settled = f"--teacher-labels {_joined(names)}"
    if other > right + CLEARLY_BETTER:
        best = list(names)
        for output, label in _assignment(found, gold, len(names), len(label_names)).items():
            best[output] = label_names[label]
        raise ModelError(
            "the teacher's labels are in another order",
            path=model,
            found=f"{right:.0%} of {len(gold)} train rows answered rightly, {other:.0%} with another order",
            expected="the order in which most answers are right",
            remedy=f"Name its outputs in their order: --teacher-labels {_joined(best)}. If the present order is right: "
            f"{settled}.",
        )
    chance = float(np.bincount(gold).max() / len(gold))
    if right <= min(chance + 2 * (chance * (1 - chance) / len(gold)) ** 0.5, 1 - 1 / len(gold)):  # few or skewed rows
        raise ModelError(
            "the teacher is no better than the most frequent label",
            path=model,
            found=f"{right:.0%} of {len(gold)} train rows answered rightly",
            expected=f"clearly more than {chance:.0%}",
            remedy="Check that it was trained for these labels, or give a model without a classifier, which is "
            f"fine-tuned on the data. To use it all the same: {settled}.",
        )


def _assignment(found: Indices, gold: Indices, outputs: int, labels: int) -> dict[int, int]:
    """Return the label of each output, one to one, with which most answers are right."""
    counts = np.zeros((outputs, labels))
    np.add.at(counts, (found, gold), 1)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return dict(zip(rows.tolist(), columns.tolist(), strict=True))


def _cross_validated(found: Indices, gold: Indices, outputs: int, labels: int) -> float:
    """Return the share of right answers with the best assignment of the other half of the rows."""
    halves = np.arange(len(gold)) % 2 == 0
    right = 0
    for half in (halves, ~halves):
        chosen = _assignment(found[half], gold[half], outputs, labels)
        right += sum(chosen.get(output) == label for output, label in zip(found[~half], gold[~half], strict=True))
    return right / len(gold)


def _joined(names: Sequence[str]) -> str:
    """Write names as a value of --teacher-labels, quoted for the shell."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    text = line.getvalue()
    return shlex.quote(text)

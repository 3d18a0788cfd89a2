"""Simulate how the blend is tuned, on train rows alone: many draws of held-out rows choose it, other rows score it.

    reaugkd train --data DATA --teacher TEACHER --limit 3000 --out RUN
    python benchmarks/quality/tuner.py RUN DATA [--kb-data]

The rows are at most 4,000 of DATA's train rows that are not related to a row that the run was trained on.
With --kb-data half of them are in the knowledge base, labelled by the teacher. The student is the run's, in float32.
Prints what each rule gains over the student alone, on average over the draws, and the worst draw.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.modeling.execution.inference import outputs_of
from reaugkd.export.modeling.execution.tokens import token_rows
from reaugkd.export.modeling.layer_query import with_layer_query
from reaugkd.export.modeling.projection import LinearLayer
from reaugkd.export.modeling.teacher import load_teacher
from reaugkd.export.training.finished_run import FinishedRun
from reaugkd.export.training.run_folder import RunFolder
from reaugkd.export.tuning.groups import mean_and_error, related_inputs
from reaugkd.export.tuning.tune import HeldOut, K, tune_blend
from reaugkd.kb.index.exact_search import exact_search
from reaugkd.runtime.data import label_indices, load_dataset
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.output.text_table import table

SIZES, DRAWS, MOST_ROWS = (100, 300, 1000), 5, 4000
GOLD_SHARES = (0.0, 0.5, 1.0)
Groups = NDArray[np.integer]
Rule = Callable[[HeldOut, Groups], BlendConfig]


def collected(path: Path, data: str, extra: bool) -> tuple[HeldOut, Groups]:
    """Compute the rows that the run has not seen, with their neighbours and their groups of related rows."""
    run = RunFolder(path)
    source, description = FinishedRun.read(run), run.describe()
    pool, known = load_dataset(data).splits["train"], source.train.inputs()
    groups = related_inputs([*known, *pool.inputs()])[len(known) :]
    order = np.random.default_rng(0).permutation(np.unique(groups[groups >= len(known)]))
    fits = np.cumsum(np.bincount(groups)[order]) <= MOST_ROWS
    pool = pool.take(np.flatnonzero(np.isin(groups, order[fits])))
    groups = related_inputs(pool.inputs())
    student = with_layer_query(EncoderClassifier.load(run.student), LinearLayer.load(run.query))
    origin = description["teacher"] if description["teacher_is_fine_tuned"] else run.teacher
    teacher = load_teacher(origin, source.recipe.teacher, source.labels)
    config, longest = student.encoder.config, source.recipe.max_length
    train, asked = (
        outputs_of(student, token_rows(run.student, rows, config, longest), "student") for rows in (source.train, pool)
    )
    stored = source.of_train(train.embedding.numpy())
    keys, logits, gold = stored.queries, stored.logits, stored.gold
    use = np.ones(len(pool), np.bool_)
    if extra:
        use = np.random.default_rng(0).permutation(len(pool))[groups] < len(pool) // 2
        answers = outputs_of(teacher, token_rows(run.teacher, pool, teacher.encoder.config, longest), "teacher")
        keys = np.concatenate([keys, asked.embedding.numpy()[~use]])
        logits = np.concatenate([logits, answers.logits.numpy()[~use]])
        gold = np.concatenate([gold, np.full((~use).sum(), -1)])
    found, similarities = exact_search(keys, asked.embedding.numpy()[use], K)
    labels = label_indices(pool, source.labels)[use]
    return HeldOut(asked.logits.numpy()[use], similarities, logits[found], labels, gold[found]), groups[use]


def gains(rows: HeldOut, blend: BlendConfig) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the blend's gains over the student by row: right answers, -1 to 1, and log-likelihood."""
    student, mixed = rows.student(blend.student_temperature), rows.answers(blend).probabilities
    right = (mixed.argmax(axis=1) == rows.gold).astype(float) - (student.argmax(axis=1) == rows.gold)
    student, mixed = (np.maximum(one[np.arange(len(rows.gold)), rows.gold], 1e-12) for one in (student, mixed))
    return right, np.log(mixed) - np.log(student)


def prior(prior_rows: float) -> Rule:
    """Return the rule with a prior of this strength."""
    return lambda rows, _: tune_blend(rows, GOLD_SHARES, prior_rows).blend


def careful(errors: float) -> Rule:
    """Return the rule that retrieves only where the cross-validated gain exceeds so many standard errors."""

    def rule(rows: HeldOut, groups: Groups) -> BlendConfig:
        folds, found = np.random.default_rng(0).permutation(groups.max() + 1)[groups] % 5, np.zeros(len(groups))
        for fold in range(5):
            found[folds == fold] = gains(rows.take(folds == fold), prior(0)(rows.take(folds != fold), groups))[1]
        gain, error = mean_and_error(found, groups)
        blend = prior(0)(rows, groups)
        return blend if gain > errors * error else replace(blend, student_weight=1.0)

    return rule


RULES: dict[str, Rule] = {
    "gain above one standard error": careful(1),
    "gain above zero": careful(0),
    "no prior": prior(0),
    **{f"prior of {rows} rows": prior(rows) for rows in (2, 5, 10)},
}


def main(path: str, data: str, extra: bool) -> None:
    """Print the table."""
    rows, groups = collected(Path(path), data, extra)
    lines = []
    for size in (size for size in SIZES if size <= len(groups) // 2):
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in RULES}
        for draw in range(DRAWS):
            order = np.random.default_rng(draw).permutation(groups.max() + 1)[groups].argsort(kind="stable")
            held, rest = rows.take(order[:size]), rows.take(order[size:])
            for name, rule in RULES.items():
                right, likelihood = gains(rest, rule(held, groups[order[:size]]))
                found[name].append((100 * right.mean(), 1000 * likelihood.mean()))
        for name, values in found.items():
            points, thousandths = np.array(values).T
            lines.append(
                [str(size), name, f"{points.mean():+.2f}", f"{points.min():+.2f}", f"{-thousandths.mean():+.1f}"]
            )
    sys.stdout.write(table(["held out", "rule", "points", "worst draw", "NLL / 1000"], lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "--kb-data" in sys.argv)

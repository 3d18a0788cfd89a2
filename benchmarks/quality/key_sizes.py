"""Compare dimensions and types of the keys; the blend is tuned for each on a run's held-out rows.

    python benchmarks/quality/key_sizes.py RUN BUNDLE

BUNDLE is an export of RUN. The query by layers consists of principal components in order. The first d components,
normalised to length 1, equal the query of a projection to d dimensions, so no training is needed. Searches are exact;
in i8 and f16 they use the stored keys; b1 stores signs only, and its similarity is the cosine of the estimated angle.
Scores are cross-validated: each half of the held-out rows is scored with the settings chosen on the other half.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reaugkd.export.bundle.student import ask
from reaugkd.export.training.finished_run import FinishedRun
from reaugkd.export.training.run_folder import RunFolder
from reaugkd.export.tuning.groups import related_inputs
from reaugkd.export.tuning.tune import HeldOut, K, tune_blend
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.index.exact_search import exact_search
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.inference.session.student import StudentSession
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer
from reaugkd.runtime.output.text_table import table

DIMENSIONS = (8, 16, 32, 64, 128)
BYTES = {"f32": 4.0, "f16": 2.0, "i8": 1.0, "b1": 1 / 8}
Floats = NDArray[np.float32]


def unit(vectors: Floats) -> Floats:
    """Normalise vectors to length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def stored(vectors: Floats, dtype: str) -> Floats:
    """Round vectors to an index's type and normalise them to length 1."""
    if dtype == "b1":
        return unit(np.where(vectors > 0, 1.0, -1.0).astype(np.float32))
    if dtype == "i8":
        return unit(np.rint(vectors / np.abs(vectors).max(axis=1, keepdims=True) * 127).astype(np.float32))
    return unit(vectors.astype(np.float16 if dtype == "f16" else np.float32).astype(np.float32))


def found_by(keys: Floats, queries: Floats, dtype: str) -> tuple[NDArray[np.int64], Floats]:
    """Return the nearest rows of each query and their cosine similarities."""
    rows, similarities = exact_search(stored(keys, dtype), stored(queries, dtype), K)
    # The share of signs that differ is the angle over pi (Goemans and Williamson 1995).
    return rows, np.cos(np.pi * (1 - similarities) / 2).astype(np.float32) if dtype == "b1" else similarities


def scored(rows: HeldOut, halves: NDArray[np.int64], gold_shares: Sequence[float]) -> tuple[float, ...]:
    """Return the cross-validated mean NLL of student and blend, and their accuracies in per cent."""
    nll, right = np.zeros((2, len(rows.gold))), np.zeros((2, len(rows.gold)))
    for half in (0, 1):
        known, unknown = halves != half, halves == half
        chosen = tune_blend(rows.take(known), gold_shares).blend
        unseen = rows.take(unknown)
        student, blend = unseen.student(chosen.student_temperature), unseen.answers(chosen).probabilities
        for number, answer in enumerate((student, blend)):
            nll[number, unknown] = -np.log(np.maximum(answer[np.arange(len(answer)), unseen.gold], 1e-12))
            right[number, unknown] = answer.argmax(axis=1) == unseen.gold
    return *nll.mean(axis=1).tolist(), *(100 * right.mean(axis=1)).tolist()


def main(run: str, path: str) -> None:
    """Print the table."""
    source, bundle = FinishedRun.read(RunFolder(Path(run))), Bundle.open(Path(path))
    recipe = source.recipe.retrieval
    session = StudentSession(bundle.path / "student" / "model.onnx")
    tokenizer = TextTokenizer(bundle.path / "student" / "tokenizer.json", source.recipe.max_length)
    known = ask(session, tokenizer, source.train.inputs(), "train").queries
    asked = ask(session, tokenizer, source.heldout.inputs(), "held out")
    rows, heldout = source.of_train(known), source.of_heldout(asked.queries)
    groups = related_inputs(source.heldout.inputs())
    halves = np.random.default_rng(0).permutation(groups.max() + 1)[groups] % 2
    lines = []
    for dimensions in DIMENSIONS:
        for dtype in BYTES if dimensions == DIMENSIONS[-1] else ("f16", "i8", "b1"):
            near, similarities = found_by(known[:, :dimensions], asked.queries[:, :dimensions], dtype)
            on = HeldOut(asked.logits, similarities, rows.logits[near], heldout.gold, rows.gold[near])
            alone, both, accuracy, with_both = scored(on, halves, recipe.gold_shares)
            graph = IndexConfig(dimensions).connectivity * 8 + 16
            size = f"{dimensions * BYTES[dtype] + graph:.0f}"
            lines.append(
                (str(dimensions), dtype, size, f"{alone:.4f}", f"{both:.4f}", f"{accuracy:.2f}", f"{with_both:.2f}")
            )
    head = ["dimensions", "type", "bytes a row", "NLL student", "NLL blend", "accuracy", "accuracy, blend"]
    sys.stdout.write(table(head, lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

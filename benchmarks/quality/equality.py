"""Answers of the search in the graph against the same answers computed in numpy, over many texts.

python benchmarks/quality/equality.py DATA BUNDLE [TEXTS]

The texts are the test texts of DATA and copies of them with typing errors, 10,000 by default. The reference takes the
logits and the embedding from a run of the student alone, rounds the query as ONNX defines DynamicQuantizeLinear,
compares it with every key, and blends in float64. Rows whose similarities differ by no more than float32's rounding may
change places. Exits with 1 if an answer differs. For a bundle with int8 keys and without lists or edits.
"""

from __future__ import annotations

import sys
from itertools import chain, count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.runtime.data import choose_split, load_dataset
from reaugkd.runtime.decision.blending import blend_batch, softmax_many
from reaugkd.runtime.evaluation.typos import add_typos
from reaugkd.runtime.inference.prediction import Prediction
from reaugkd.runtime.inference.text.inputs import Text, checked_input
from reaugkd.runtime.runtime import Runtime

TEXTS = 10_000
ALLOWED = 1e-5  # of a probability
ROUNDING = 1e-6  # of a similarity

Wide = NDArray[np.float64]


class Reference:
    """The answers in float64."""

    def __init__(self, runtime: Runtime) -> None:
        kb = runtime.knowledge_base
        assert isinstance(kb, KnowledgeBase) and kb.lists is None and kb.config.dtype == "i8"
        self._student, self._config = runtime.student, runtime.manifest.blend
        self._tokenizer, self._pair = runtime.tokenizer, runtime.manifest.text_pair
        keys = kb.index.stored().astype(np.float64)
        self._keys = keys / np.linalg.norm(keys, axis=1, keepdims=True)
        self._soft_labels = kb.soft_labels.take(np.arange(len(kb)))

    def answer(self, text: Text) -> tuple[Wide, Wide, NDArray[np.int64]]:
        """The probabilities [c], the similarities of all rows [n], and the k nearest rows."""
        logits, embedding = self._student.run(self._tokenizer.encode(*checked_input(text, self._pair)))
        similarities = self._keys @ rounded(embedding)
        rows = np.argsort(-similarities, kind="stable")[: self._config.k]
        own = softmax_many(logits.astype(np.float64), self._config.student_temperature)
        blended = blend_batch(
            own[np.newaxis], similarities[np.newaxis, rows], self._soft_labels[np.newaxis, rows], self._config
        )
        return blended.probabilities[0], similarities, rows


def rounded(query: NDArray[np.float32]) -> Wide:
    """The query in 8 bits."""
    low, high = min(query.min(), np.float32(0)), max(query.max(), np.float32(0))
    scale = (high - low) / np.float32(255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return (np.clip(np.rint(query / scale) + zero, 0, 255) - zero).astype(np.float64) * np.float64(scale)


def main(data: str, bundle: Path, number: int = TEXTS) -> int:
    """Compare, and print the differences."""
    given = choose_split(load_dataset(data), None)[1].texts
    more = chain.from_iterable(add_typos(given, seed) for seed in count())
    texts = [text for text, _ in zip(chain(given, more), range(number), strict=False)]
    with Runtime.open(bundle, search="graph") as runtime:
        reference, labels = Reference(runtime), runtime.labels
        apart, other_labels, swapped, other_rows = 0.0, 0, 0, 0
        for text in texts:
            found: Prediction = runtime.predict(text)
            probabilities, similarities, rows = reference.answer(text)
            apart = max(apart, float(np.abs(found.probabilities - probabilities).max()))
            other_labels += found.label != labels[int(probabilities.argmax())]
            differences = np.abs(similarities[found.neighbours.rows] - similarities[rows])
            swapped += not np.array_equal(found.neighbours.rows, rows)
            other_rows += len(set(found.neighbours.rows.tolist())) < len(rows) or bool((differences > ROUNDING).any())
    sys.stdout.write(
        f"{len(texts):,} texts, {len(similarities):,} rows: largest difference of a probability {apart:.1g}, "
        f"{other_labels} other labels, {other_rows} with other neighbours, {swapped} with equally near ones\n"
    )
    return int(apart > ALLOWED or other_labels > 0 or other_rows > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])))

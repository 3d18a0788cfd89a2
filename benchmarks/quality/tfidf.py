"""Score a baseline: TF-IDF with logistic regression on the same rows.

    python benchmarks/quality/tfidf.py DATA [TASK[:LIMIT] ...]

C is chosen on the held-out rows; the model is fitted on the train rows alone, the same as the students. It prints one
line of Markdown per task.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from reaugkd.export.recipe import Recipe
from reaugkd.export.training.splits import assign
from reaugkd.runtime.data import Split, choose_split, label_indices, load_dataset
from reaugkd.runtime.evaluation.metrics import score

TASKS = ("SST-2:16000", "MRPC", "RTE", "CoLA", "banking77", "clinc150")


def main(data: Path, tasks: list[str]) -> None:
    """Print the table of the tasks."""
    sys.stdout.write("| task | C | accuracy | MCC | NLL | ECE |\n|---|---|---|---|---|---|\n")
    for task in tasks or TASKS:
        name, _, limit = task.partition(":")
        dataset = load_dataset(data / name)
        splits = assign(dataset, Recipe(), int(limit) if limit else None)
        scored = choose_split(dataset, None)[1]
        gold = {
            "train": label_indices(splits.train, splits.label_names),
            "heldout": label_indices(splits.heldout, splits.label_names),
            "scored": label_indices(scored, splits.label_names),
        }
        fitted = {}
        for strength in (1.0, 10.0, 100.0):
            model = make_pipeline(
                TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=strength, max_iter=1000)
            ).fit(texts(splits.train), gold["train"])
            found = model.predict_proba(texts(splits.heldout))
            fitted[-np.log(found[np.arange(len(found)), gold["heldout"]]).mean()] = strength, model
        strength, model = fitted[min(fitted)]
        scores = score(model.predict_proba(texts(scored)), gold["scored"])
        figures = [f"{100 * scores['accuracy']:.2f}", f"{100 * scores['mcc']:.2f}", f"{scores['nll']:.4f}"]
        sys.stdout.write(f"| {name} | {strength:g} | {' | '.join(figures)} | {100 * scores['ece']:.2f} |\n")
        sys.stdout.flush()


def texts(split: Split) -> list[str]:
    """Return the texts; a pair becomes one text, with a special word between its parts."""
    return [item if isinstance(item, str) else " xxpair ".join(item) for item in split.inputs()]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

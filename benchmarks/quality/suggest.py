"""Accuracy gained by 100 labels: texts chosen by `reaugkd suggest`, the least certain ones, and random ones.

    python benchmarks/quality/suggest.py DATA BUNDLE... [--split test]

For each bundle, such as those of one study's seeds, draws 3,000 train texts that it does not store, chooses 100 of them
each way, adds them with their labels to a copy (`kb add`), and compares the accuracy with that before: of the answers,
and of the neighbours alone. Random choices are drawn three times. `--split train` scores on other train rows instead.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np

from reaugkd import Row, Runtime
from reaugkd.runtime.data import Split, load_dataset, with_dev_split
from reaugkd.runtime.inference.pipeline import mixed
from reaugkd.runtime.labelling.suggest import suggest

POOL, COUNT, SCORED, DRAWS = 3000, 100, 3000, 3


class Scored:
    """Rows to score: the student runs once on each text, and only the search and the blend are repeated."""

    def __init__(self, runtime: Runtime, rows: Split) -> None:
        encodings = [runtime.tokenizer.encode(text) for text in rows.texts]
        self.outputs = [runtime.student.everything(encoding)[1:] for encoding in encodings]
        self.labels = rows.labels or []

    def accuracy(self, runtime: Runtime) -> np.ndarray:
        """The accuracy of the answers and of the neighbours alone, in per cent."""
        kb, config, names = runtime.knowledge_base, runtime.manifest.blend, np.array(runtime.labels)
        blended = [mixed(kb, own, kb.search(query, config.k), config) for query, own in self.outputs]
        said = np.array([(one.probabilities.argmax(), one.retrieval_probabilities.argmax()) for one in blended])
        return 100 * (names[said] == np.array(self.labels)[:, np.newaxis]).mean(axis=0)


def measure(splits: dict[str, Split], bundle: Path, seed: int, scored: str) -> dict[str, np.ndarray]:
    """The points of accuracy gained by each choice: answers, neighbours alone."""
    rng, train = np.random.default_rng(seed), splits["train"]
    with Runtime.open(bundle) as runtime:
        kb = runtime.knowledge_base
        stored = {kb.text(row) for row in range(len(kb))}
        rows = rng.permutation([row for row, text in enumerate(train.texts) if text not in stored])
        pool, test = train.take(rows[:POOL]), splits[scored]
        if scored == "train":
            test = train.take(rows[POOL : POOL + SCORED])
        two = [np.sort(answer.probabilities)[-2:] for answer in runtime.predict_many(pool.texts)]
        rows_to_score = Scored(runtime, test)
        before = rows_to_score.accuracy(runtime)
        chosen = [one.place for one in suggest(runtime, pool.texts, COUNT)]
    least = np.argsort([second_first[1] - second_first[0] for second_first in two], kind="stable")[:COUNT]
    random = [rng.choice(len(pool), COUNT, replace=False) for _ in range(DRAWS)]
    choices = {"suggest": [chosen], "least margin": [least], "random": random}
    gains = {
        name: np.mean([after(bundle, pool.take(one), rows_to_score) for one in some], axis=0) - before
        for name, some in choices.items()
    }
    return gains | {"before": before}


def after(bundle: Path, chosen: Split, rows: Scored) -> np.ndarray:
    """The accuracies with the chosen rows added."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(bundle, Path(folder) / "bundle")
        with Runtime.open(copy) as runtime:
            runtime.kb.add([Row(text, label) for text, label in zip(chosen.texts, chosen.labels or (), strict=True)])
            return rows.accuracy(runtime)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--split", choices=["train", "test"], default="test")
    options = parser.parse_args()
    splits = with_dev_split(load_dataset(options.data)).splits
    found = [measure(splits, bundle, seed, options.split) for seed, bundle in enumerate(options.bundles)]
    print(f"{'points gained':14}  {'answers':>24}  {'neighbours alone':>24}")  # noqa: T201
    for name in found[0]:
        gains = np.array([one[name] for one in found])
        cells = [f"{gains[:, i].mean():+.2f} ({', '.join(f'{gain:+.2f}' for gain in gains[:, i])})" for i in (0, 1)]
        print(f"{name:14}  {cells[0]:>24}  {cells[1]:>24}")  # noqa: T201


if __name__ == "__main__":
    main()

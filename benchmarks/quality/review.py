"""`reaugkd kb review` on wrong labels, against cleanlab on the same probabilities.

    python benchmarks/quality/review.py prepare DATA OUT [--seed 0]    3,000 train rows, 5 % of them with another class
    reaugkd train --data OUT --teacher all-MiniLM-L6-v2 --recipe benchmarks/study/recipes/kd_3_layers.toml --out RUN
    reaugkd export RUN --out BUNDLE                               the student and its teacher have seen the wrong labels
    python benchmarks/quality/review.py measure BUNDLE OUT VOTES.npz
    python benchmarks/quality/review.py unseen BUNDLE DATA VOTES.npz    wrong labels in rows that were added later
    python benchmarks/quality/review.py cleanlab VOTES.npz              in an environment with cleanlab 2.9

`prepare` draws the rows stratified, and the wrong labels uniformly from the other classes; OUT/right.json maps the
changed texts to their right labels. `measure` and `unseen` print the precision at N, the number of wrong labels, by the
ranking of `review`, by the student's own probability of the label, and by the mean of both; and what `review` lists.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS, SHARE = 3000, 0.05

Floats = NDArray[np.floating]


def prepare(data: Path, out: Path, seed: int) -> None:
    """Write train.csv with wrong labels, dev.csv, test.csv and right.json."""
    from reaugkd.runtime.data import drop_duplicates_of, hold_out, load_dataset, with_dev_split

    dataset = with_dev_split(load_dataset(data))
    names, splits = dataset.label_names, dict(dataset.splits)
    train = splits["train"].take(drop_duplicates_of(splits["train"], [splits["dev"], splits["test"]]))
    splits["train"] = train = train.take(hold_out(train, names, ROWS, 0)[1])
    labels = list(train.labels or ())
    rng, right = np.random.default_rng(seed), {}
    for row in rng.choice(len(labels), round(SHARE * len(labels)), replace=False):
        others = [name for name in names if name != labels[row]]
        right[train.texts[row]] = labels[row]
        labels[row] = others[rng.integers(len(others))]
    out.mkdir(parents=True)
    for name, split in splits.items():
        with (out / f"{name}.csv").open("w", newline="") as file:
            given = labels if name == "train" else split.labels or ()
            csv.writer(file).writerows([("text", "label"), *zip(split.texts, given, strict=True)])
    (out / "right.json").write_text(json.dumps(right, indent=1, ensure_ascii=False) + "\n")


def measure(bundle: Path, data: Path, votes_file: Path) -> None:
    """Score a bundle whose student has seen the wrong labels."""
    from reaugkd import Runtime

    right = json.loads((data / "right.json").read_text())
    with Runtime.open(bundle, retrieval="never") as runtime:
        kb = runtime.knowledge_base
        texts = [kb.text(row) for row in range(len(kb))]
        gold = [runtime.labels[label] for label in kb.gold()]
        given = [right.get(text, label) for text, label in zip(texts, gold, strict=True)]
        student = np.array([answer.probabilities for answer in runtime.predict_many(texts)])
        score(kb, runtime.labels, np.array([runtime.labels.index(label) for label in given]), student, votes_file)


def unseen(bundle: Path, data: Path, votes_file: Path, seed: int) -> None:
    """Score a knowledge base of train rows that the bundle does not store, with wrong labels that no model has seen."""
    from reaugkd import KnowledgeBase, Runtime
    from reaugkd.runtime.data import load_dataset, with_dev_split

    train, rng = with_dev_split(load_dataset(data)).splits["train"], np.random.default_rng(seed)
    with Runtime.open(bundle) as runtime:
        kb, labels = runtime.knowledge_base, runtime.labels
        stored = {kb.text(row) for row in range(len(kb))}
        new = train.take(rng.permutation([row for row, text in enumerate(train.texts) if text not in stored])[:ROWS])
        right = np.array([labels.index(label) for label in new.labels or ()])
        given, wrong = right.copy(), rng.choice(len(right), round(SHARE * len(right)), replace=False)
        given[wrong] = (given[wrong] + rng.integers(1, len(labels), len(wrong))) % len(labels)
        answers = [runtime.student.everything(runtime.tokenizer.encode(text)) for text in new.texts]
        keys, soft = np.array([query for _, query, _ in answers]), np.eye(len(labels), dtype=np.float32)[given]
        added = KnowledgeBase.build(keys, soft, config=kb.config, gold=given)
        score(added, labels, right, np.array([own for _, _, own in answers]), votes_file)


def score(kb: Any, labels: tuple[str, ...], right: NDArray[np.integer], student: Floats, votes_file: Path) -> None:
    """Print how well the rankings find the rows whose label is not ``right``, and write their probabilities."""
    from reaugkd.runtime.labelling.review import neighbour_votes, review

    gold = np.array(kb.gold(), np.int64)
    wrong, votes = gold != right, neighbour_votes(kb, np.arange(len(kb)), kb.keys(), gold)
    print(f"{len(kb)} rows, {wrong.sum()} wrong labels")  # noqa: T201
    for name, found in (("review", votes), ("student", student), ("both", (votes + student) / 2)):
        other = found.copy()
        other[np.arange(len(gold)), gold] = -1
        scores = found[np.arange(len(gold)), gold] - 1e-6 * other.max(axis=1)
        print(f"{name}: precision at N {precision(scores, wrong):.3f}")  # noqa: T201
    places = {kb.id(row): row for row in range(len(kb))}
    state = SimpleNamespace(kb=kb, labels=labels)
    listed = review(SimpleNamespace(_current=lambda: state)).issues  # type: ignore[arg-type]
    hits = [labels[right[places[issue.id]]] == issue.suggested for issue in listed if wrong[places[issue.id]]]
    shares = f"precision {len(hits) / len(listed):.3f}, recall {len(hits) / wrong.sum():.3f}"
    print(f"listed: {len(listed)}, {shares}, label right for {np.mean(hits):.3f} of the wrong ones")  # noqa: T201
    np.savez(votes_file, votes=votes, student=student, gold=gold, wrong=wrong)


def cleanlab(votes_file: Path) -> None:
    """Score cleanlab on the same probabilities."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    kept = np.load(votes_file)
    gold, wrong = kept["gold"], kept["wrong"]
    for name in ("votes", "student"):
        found = kept[name] / kept[name].sum(axis=1, keepdims=True)
        for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
            scores = get_label_quality_scores(gold, np.clip(found, 1e-6, 1), method=method)
            print(f"{name}, get_label_quality_scores {method}: precision at N {precision(scores, wrong):.3f}")  # noqa: T201
        for rule in ("prune_by_noise_rate", "confident_learning", "both"):
            rows = find_label_issues(gold, found, return_indices_ranked_by="self_confidence", filter_by=rule, n_jobs=1)
            hits, first = wrong[rows].sum(), wrong[rows[: wrong.sum()]].sum() / wrong.sum()
            scores = f"precision {hits / len(rows):.3f}, recall {hits / wrong.sum():.3f}, precision at N {first:.3f}"
            print(f"{name}, find_label_issues {rule}: {len(rows)} listed, {scores}")  # noqa: T201


def precision(scores: Floats, wrong: NDArray[np.bool_]) -> float:
    """The share of wrong labels among as many rows of the lowest scores as there are wrong labels."""
    return float(wrong[np.argsort(scores, kind="stable")[: wrong.sum()]].mean())


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["prepare", "measure", "unseen", "cleanlab"])
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.step == "prepare":
        prepare(*options.paths, options.seed)
    elif options.step == "measure":
        measure(*options.paths)
    elif options.step == "unseen":
        unseen(*options.paths, options.seed)
    else:
        cleanlab(*options.paths)


if __name__ == "__main__":
    main()

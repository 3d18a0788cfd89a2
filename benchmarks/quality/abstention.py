"""Measure abstention: rejection of out-of-scope texts and of errors, prediction sets, and drift, on unseen rows.

    python benchmarks/quality/abstention.py BUNDLE DATA [SPLIT] [--json FILE]

DATA is clinc150's data_full.json. SPLIT ``test`` (the default) compares the rows of `test` with those of `oos_test`;
``dev`` compares `val` with `oos_train` and `oos_val`, the rows on which the signals and their weights were chosen. DATA
can also be another labelled data set; it then has no out-of-scope texts. A bundle without an abstention section gets
one from its held-out rows, the same as an export writes. No score was fitted on out-of-scope texts: scores are combined
by their ranks among held-out rows. Intervals are percentiles of 1,000 bootstrap samples of rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from reaugkd import Abstain, Prediction, Runtime, UsageError
from reaugkd.export.tuning.abstention import abstention_of
from reaugkd.export.tuning.build_kb import blend_found
from reaugkd.kb.index.exact_search import exact_search, unit
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.bundle.heldout_rows import HeldOutRows
from reaugkd.runtime.bundle.manifest import Manifest, seal
from reaugkd.runtime.data import Columns, choose_split, load_dataset
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.blending import softmax_many
from reaugkd.runtime.decision.conformal import COVERAGES
from reaugkd.runtime.decision.histogram import AGREEMENT_EDGES, SIMILARITY_EDGES, Histogram, population_stability
from reaugkd.runtime.decision.rejection_score import disagreement, distance, uncertainty
from reaugkd.runtime.output.text_table import table

RESAMPLES = 1000
FAR = 10
Floats = NDArray[np.float64]
Scores = dict[str, Floats]


@dataclass(frozen=True)
class Answered:
    """The answers to a split: whether each label is right, and each score (higher: more likely out of scope)."""

    answers: list[Prediction]
    right: NDArray[np.bool_]
    scores: Scores

    def __len__(self) -> int:
        return len(self.right)


@contextmanager
def with_thresholds(path: Path) -> Iterator[Path]:
    """Yield the bundle, or a copy with an abstention section."""
    bundle = Bundle.open(path)
    if bundle.manifest.abstention is not None:
        yield path
        return
    manifest = bundle.manifest
    kb = KnowledgeBase.open(bundle.kb_folder, manifest.kb, len(manifest.labels))
    heldout = HeldOutRows.open(path, len(manifest.labels), kb.ndim, len(kb))
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(path, Path(folder) / "bundle")
        seal(copy, replace(manifest, abstention=abstention_of(kb, heldout, manifest.blend, manifest.gate)))
        yield copy


def scores_of(logits: Floats, student: Floats, retrieved: Floats, blend: Floats, near: Floats, k: int) -> Scores:
    """Compute each score of n rows from logits, probabilities [n, c] and similarities [n, at least max(k, FAR)]."""
    largest = logits.max(axis=1)
    return {
        "student: 1 - max probability": 1 - student.max(axis=1),
        "student: entropy": -(student * np.log(student + 1e-30)).sum(axis=1),
        "student: generalized entropy": uncertainty(student),
        "student: energy of the logits": -largest - np.log(np.exp(logits - largest[:, None]).sum(axis=1)),
        "blend: 1 - max probability": 1 - blend.max(axis=1),
        "blend: entropy": -(blend * np.log(blend + 1e-30)).sum(axis=1),
        "distance to the 1st neighbour": 1 - near[:, 0],
        f"distance to the {FAR}th": 1 - near[:, FAR - 1],
        f"mean distance to all {k}": 1 - near[:, :k].mean(axis=1),
        "distance: mean to the first 4": distance(near[:, : max(k, 1)]),
        "disagreement": disagreement(student, retrieved),
    }


PARTS = ("distance: mean to the first 4", "student: generalized entropy", "disagreement")


def combinations(heldout: Scores) -> dict[str, Callable[[Scores], Floats]]:
    """Return ways to combine three scores into one, fitted on the held-out rows alone."""

    def p_values(scores: Scores) -> Floats:
        columns = []
        for name in PARTS:
            ordered = np.sort(heldout[name])
            columns.append((1 + len(ordered) - np.searchsorted(ordered, scores[name], "left")) / (1 + len(ordered)))
        return np.stack(columns, axis=1)

    normal = norm.isf(np.clip(p_values(heldout), 1e-4, 1 - 1e-4))
    mean, precision = normal.mean(axis=0), np.linalg.inv(np.cov(normal.T) + 1e-3 * np.eye(len(PARTS)))

    def one_sided_mahalanobis(scores: Scores) -> Floats:
        beyond = np.maximum(norm.isf(np.clip(p_values(scores), 1e-4, 1 - 1e-4)) - mean, 0)
        return np.einsum("nd,de,ne->n", beyond, precision, beyond)

    return {
        "Fisher of distance and uncertainty": lambda scores: -np.log(p_values(scores)[:, :2]).sum(axis=1),
        "Fisher of all three": lambda scores: -np.log(p_values(scores)).sum(axis=1),
        "smallest p-value of three": lambda scores: -p_values(scores).min(axis=1),
        "sum of three ranks": lambda scores: -p_values(scores).sum(axis=1),
        "Mahalanobis of three normal scores": one_sided_mahalanobis,
    }


def heldout_scores(path: Path) -> Scores:
    """Compute the scores of the bundle's held-out rows, with a search in the rows of the training split alone."""
    bundle = Bundle.open(path, verify=False)
    manifest = bundle.manifest
    kb = KnowledgeBase.open(bundle.kb_folder, manifest.kb, len(manifest.labels))
    heldout = HeldOutRows.open(path, len(manifest.labels), kb.ndim, len(kb))
    blend, keys = manifest.blend, unit(kb.keys()[: heldout.unrelated])
    found, near = exact_search(keys, heldout.queries, max(blend.k, FAR))
    answers = blend_found(found[:, : blend.k], near[:, : blend.k], kb.soft_labels, blend, heldout.logits)
    three = answers.student, answers.retrieval, answers.blend
    return scores_of(heldout.logits.astype(np.float64), *three, near.astype(np.float64), blend.k)


def answered(runtime: Runtime, rows: list[tuple[str, str | None]]) -> Answered:
    """Predict texts with their gold labels (None: out of scope)."""
    answers, logits, near = [], [], []
    blend: BlendConfig = runtime.manifest.blend
    for text, _ in rows:
        encoding = runtime.tokenizer.encode(*((text, None) if isinstance(text, str) else text))
        row_logits, query = runtime.student.run(encoding)
        answers.append(runtime.predict(text, abstain="threshold=0"))
        logits.append(row_logits.astype(np.float64))
        near.append(runtime.knowledge_base.search(query, max(blend.k, FAR)).similarities.astype(np.float64))
    retrieved = np.array([answer.retrieval_probabilities for answer in answers], np.float64)
    student = softmax_many(np.array(logits), blend.student_temperature).astype(np.float64)
    mixed = np.array([answer.probabilities for answer in answers], np.float64)
    scores = scores_of(np.array(logits), student, retrieved, mixed, np.array(near), blend.k)
    scores["rejection score (reaugkd)"] = np.array([answer.rejection_score for answer in answers])
    right = np.array([answer.label == label for answer, (_, label) in zip(answers, rows, strict=True)], bool)
    return Answered(answers, right, scores)


def auroc(known: Floats, foreign: Floats, draws: tuple[Floats, Floats] | None = None) -> Floats:
    """Compute the AUROC: the probability that an out-of-scope row scores above an in-scope one; ties count half.

    Args:
        known: scores of in-scope rows, [n].
        foreign: scores of out-of-scope rows, [m].
        draws: how often each row is drawn, [resamples, n] and [resamples, m]; the result is then [resamples].
    """
    values, place = np.unique(np.concatenate([known, foreign]), return_inverse=True)
    first, second = (np.ones((1, len(known))), np.ones((1, len(foreign)))) if draws is None else draws

    def counted(draw: Floats, places: NDArray[np.int64]) -> Floats:
        return np.stack([np.bincount(places, weights=one, minlength=len(values)) for one in draw])

    of_known, of_foreign = counted(first, place[: len(known)]), counted(second, place[len(known) :])
    below = np.cumsum(of_known, axis=1) - of_known / 2
    return (below * of_foreign).sum(axis=1) / (first.sum(axis=1) * second.sum(axis=1))


def false_positives(known: Floats, foreign: Floats) -> float:
    """Compute the share of out-of-scope rows accepted at the threshold that accepts 95 % of the in-scope rows."""
    return float((foreign <= np.quantile(known, 0.95)).mean())


def drawn(rows: int, seed: int) -> Floats:
    """Count how often each row is drawn in each bootstrap sample, [RESAMPLES, rows]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES).astype(np.float64)


def interval(values: Floats) -> tuple[float, float]:
    """Return the 2.5th and the 97.5th percentile."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def detection(known: Answered, foreign: Answered, heldout: Scores) -> tuple[str, dict[str, object]]:
    """Tabulate how well each score separates out-of-scope texts, and errors, from texts with a correct answer."""
    ways = {name: (known.scores[name], foreign.scores[name]) for name in known.scores}
    for name, way in combinations(heldout).items():
        ways[name] = way(known.scores), way(foreign.scores)
    draws = drawn(len(known), 1), drawn(len(foreign), 2)
    base = auroc(*ways["student: 1 - max probability"]), auroc(*ways["student: 1 - max probability"], draws)
    lines, record = [], {}
    for name, (of_known, of_foreign) in ways.items():
        whole, resampled = float(auroc(of_known, of_foreign)[0]), auroc(of_known, of_foreign, draws)
        low, high = interval(resampled)
        gain, (worst, best) = whole - float(base[0][0]), interval(resampled - base[1])
        missed = false_positives(of_known, of_foreign)
        errors = float(auroc(of_known[known.right], of_known[~known.right])[0])
        ours = f"{100 * gain:+.2f} [{100 * worst:+.2f}, {100 * best:+.2f}]"
        shown = (f"{100 * whole:.2f}", f"{100 * low:.2f} - {100 * high:.2f}", ours, f"{missed:.1%}", f"{errors:.1%}")
        lines.append((name, *shown))
        record[name] = {"auroc": whole, "interval": [low, high], "gain": gain, "gain_interval": [worst, best]}
        record[name] |= {"fpr_at_95": missed, "auroc_of_errors": errors}
    head = ["score", "AUROC", "95 % interval", "over max probability", "FPR at 95 % TPR", "AUROC of errors"]
    return table(head, lines), record


def goals(runtime: Runtime, known: Answered, foreign: Answered | None) -> tuple[str, list[dict[str, object]]]:
    """Tabulate the coverage and the error of each abstention goal."""
    abstention = runtime.manifest.abstention
    assert abstention is not None
    lines, record = [], []
    for goal in ("coverage=99%", "coverage=95%", "coverage=90%", "error=1%", "error=2%", "error=3%", "error=5%"):
        try:
            threshold = abstention.blend.threshold(Abstain.parse(goal))
        except UsageError:
            lines.append((goal, "not certified", "", "", ""))
            continue
        kept = known.scores["rejection score (reaugkd)"] <= threshold
        wrong = float((~known.right[kept]).mean())
        low, high = _wilson(int((~known.right[kept]).sum()), int(kept.sum()))
        let_in = None if foreign is None else float((foreign.scores["rejection score (reaugkd)"] <= threshold).mean())
        shown = (f"{kept.mean():.1%}", f"{wrong:.2%}", f"{low:.2%} - {high:.2%}")
        lines.append((goal, *shown, "" if let_in is None else f"{let_in:.1%}"))
        row = {"goal": goal, "answered": float(kept.mean()), "wrong": wrong, "interval": [low, high]}
        record.append({**row, "foreign_answered": let_in})
    return table(["goal", "answered", "wrong of these", "95 % interval", "out-of-scope answered"], lines), record


def sets(answers: list[Prediction], gold: list[str | None]) -> tuple[str, list[dict[str, object]]]:
    """Tabulate how often prediction sets contain the correct label, and their size."""
    lines, record = [], []
    for coverage in COVERAGES:
        try:
            found = [answer.prediction_set_of(coverage) for answer in answers]
        except UsageError:
            continue
        held = [label in labels for label, labels in zip(gold, found, strict=True)]
        sizes = np.array([len(labels) for labels in found])
        low, high = _wilson(sum(held), len(held))
        covered = float(np.mean(held))
        shown = (f"{covered:.2%}", f"{low:.2%} - {high:.2%}", f"{sizes.mean():.3f}", f"{(sizes == 0).mean():.1%}")
        lines.append((f"{coverage:.0%}", *shown, f"{(sizes > 1).mean():.1%}"))
        record.append({"coverage": coverage, "covered": covered, "interval": [low, high], "size": float(sizes.mean())})
    return table(["sets for", "contain the label", "95 % interval", "labels", "empty", "several"], lines), record


def drift(runtime: Runtime, answers: list[Prediction]) -> dict[str, float | None]:
    """Compute the stability indices of a stream of these answers."""
    abstention = runtime.manifest.abstention
    assert abstention is not None
    near = np.array([float(answer.similarities[0]) for answer in answers])
    alike = np.array([float(answer.student_probabilities @ answer.retrieval_probabilities) for answer in answers])
    reference = abstention.reference
    return {
        "similarity": population_stability(reference.similarity, Histogram.of(near, SIMILARITY_EDGES).counts),
        "agreement": population_stability(reference.agreement, Histogram.of(alike, AGREEMENT_EDGES).counts),
    }


def _wilson(hits: int, rows: int) -> tuple[float, float]:
    share, z = hits / rows, 1.96
    middle, half = share + z**2 / (2 * rows), z * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return float((middle - half) / (1 + z**2 / rows)), float((middle + half) / (1 + z**2 / rows))


def rows_of(data: Path, split: str, manifest: Manifest) -> tuple[list[tuple[str, str | None]], list[tuple[str, None]]]:
    """Load the in-scope rows with their labels, and the out-of-scope rows."""
    if data.suffix == ".json" and "oos_test" in (splits := json.loads(data.read_text())):
        known, foreign = {"test": ("test", ["oos_test"]), "dev": ("val", ["oos_train", "oos_val"])}[split]
        return [(text, label) for text, label in splits[known]], [
            (row[0], None) for one in foreign for row in splits[one]
        ]
    rows = choose_split(load_dataset(data, Columns(), None, manifest.labels), split)[1]
    return list(zip(rows.inputs(), rows.labels, strict=True)), []


def main() -> None:
    """Print the tables, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("split", nargs="?", default="test")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with with_thresholds(given.bundle) as path, Runtime.open(path) as runtime:
        labelled, unlabelled = rows_of(given.data, given.split, runtime.manifest)
        known = answered(runtime, labelled)
        foreign = answered(runtime, unlabelled) if unlabelled else None
        counts = (
            f"{len(known):,} in-scope rows, accuracy {known.right.mean():.2%}; {len(unlabelled):,} out-of-scope rows"
        )
        output = [counts]
        record: dict[str, object] = {"known": len(known), "foreign": len(unlabelled), "split": given.split}
        if foreign is not None:
            text, record["scores"] = detection(known, foreign, heldout_scores(path))
            output += ["", text]
        text, record["goals"] = goals(runtime, known, foreign)
        output += ["", text]
        gold = [label for _, label in labelled]
        for mode in ("always", "never", "gated"):
            if mode == "gated" and runtime.manifest.gate is None:
                continue
            answers = known.answers
            if mode != "always":
                answers = list(runtime.with_retrieval(mode).predict_many([text for text, _ in labelled]))
            text, record[f"sets_{mode}"] = sets(answers, gold)
            output += ["", f"retrieval {mode}", text]
        streams = {"known": known.answers, "foreign": [] if foreign is None else foreign.answers}
        record["drift"] = {name: drift(runtime, answers) for name, answers in streams.items() if answers}
        output += ["", f"stability index: {json.dumps(record['drift'])}"]
    sys.stdout.write("\n".join([*output, ""]))
    if given.json is not None:
        given.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

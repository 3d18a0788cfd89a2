"""Compare methods that condense a knowledge base: the share of retrieval's gain that each keeps on a labelled split.

    python benchmarks/quality/compaction.py BUNDLE DATA [SPLIT]

Each method starts from the rows of BUNDLE that come from its training split; searches are exact. The gain is the
difference between all these rows and the student alone. For random methods, the mean of several draws is shown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from reaugkd.export.bundle.condensation_curve import CurveInputs, Reference, blends_of
from reaugkd.export.bundle.prototypes import Condensation
from reaugkd.export.onnx.quality import answers_of
from reaugkd.kb.index.exact_search import exact_search, unit
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.kb.soft_labels import LABEL_LOSS, encode
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.bundle.heldout_rows import HeldOutRows
from reaugkd.runtime.data import Columns, choose_split, label_indices, load_dataset
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.blending import softmax_many
from reaugkd.runtime.inference.session.student import StudentSession
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer
from reaugkd.runtime.output.text_table import table

SHARES = (0.7, 0.5, 0.35, 0.25, 0.125)
DRAWS = 5
Floats = NDArray[np.float32]
Ways = dict[str, tuple[int, Callable[[int, int], tuple[Floats, Floats]]]]


def main(bundle_path: str, data: str, split: str | None = None) -> None:
    """Print the comparison."""
    bundle = Bundle.open(bundle_path)
    manifest = bundle.manifest
    kb = KnowledgeBase.open(bundle.kb_folder, manifest.kb, len(manifest.labels))
    heldout = HeldOutRows.open(bundle.path, len(manifest.labels), kb.ndim, len(kb))
    some = heldout.unrelated
    everything = Condensation.of(kb.keys()[:some], np.asarray(kb.soft_labels)[:some])
    scored = asked(bundle, data, split)
    full = blends_of(everything.keys, kb.soft_labels, manifest.blend, scored)
    student, best = (CurveInputs.of(system, scored.gold) for system in (full.student, full.blend))
    reference = Reference(student, best, np.arange(len(scored)))
    output = [f"{len(scored):,} rows of {data}; {some:,} rows in the knowledge base, k {manifest.blend.k}"]
    for name, system in (("student", student), ("all rows", best)):
        output.append(f"{name}: accuracy {system.right.mean():.2%}, NLL {system.nll.mean():.4f}")
    lines = []
    for share in SHARES:
        for name, (draws, way) in ways(everything, heldout, manifest.blend).items():
            answers = []
            for draw in range(draws):
                keys, labels = way(round(share * some), draw)
                blends = blends_of(keys, encode(labels, LABEL_LOSS), manifest.blend, scored)
                answers.append(CurveInputs.of(blends.blend, scored.gold))
            sizes = [reference.size(round(share * some), 0, answered) for answered in answers]
            mean = {key: np.mean([size.as_dict()[key] or 0.0 for size in sizes]) for key in sizes[0].as_dict()}
            kept = f"{mean['kept_nll']:.0%} ± {mean['kept_nll_error']:.0%}"
            right = f"{mean['accuracy']:.2%}"
            lines.append((f"{share:.0%}", name, kept, right, f"{mean['agreement']:.2%}"))
    head = ["rows", "method", "kept gain in NLL", "accuracy", "same label as all rows"]
    sys.stdout.write("\n".join([*output, "", table(head, lines), ""]))


def asked(bundle: Bundle, data: str, split: str | None) -> HeldOutRows:
    """Run the student on the rows of the split."""
    rows = choose_split(load_dataset(Path(data), Columns(), None, bundle.manifest.labels), split)[1]
    tokenizer = TextTokenizer(bundle.tokenizer_path, bundle.manifest.max_length)
    answers = answers_of(StudentSession(bundle.model_path), tokenizer, rows.inputs(), lambda _rows: None)
    gold = label_indices(rows, bundle.manifest.labels)
    return HeldOutRows(answers.logits, answers.queries, gold, np.arange(len(gold)), 0)


def ways(everything: Condensation, heldout: HeldOutRows, blend: BlendConfig) -> Ways:
    """Return each method's number of draws, and the function that returns the keys and labels of its condensed rows."""
    keys, labels = everything.keys, everything.soft_labels
    classes = labels.argmax(axis=1)
    found, similarities = exact_search(keys, heldout.queries, blend.k)
    used = np.bincount(found.ravel(), softmax_many(similarities, blend.tau).ravel(), len(keys))

    def of_each_class(count: int, draw: int) -> tuple[Floats, Floats]:
        order = np.random.default_rng(draw).permutation(len(keys))
        parts = [order[classes[order] == one] for one in np.unique(classes)]
        rows = np.concatenate([part[: max(1, round(len(part) * count / len(keys)))] for part in parts])
        return keys[rows], labels[rows]

    def most_used(count: int, _draw: int) -> tuple[Floats, Floats]:
        rows = np.argsort(-used, kind="stable")[:count]
        return keys[rows], labels[rows]

    def k_means(count: int, draw: int) -> tuple[Floats, Floats]:
        means, mixed = [], []
        for one in np.unique(classes):
            rows = np.flatnonzero(classes == one)
            wanted = min(max(1, round(len(rows) * count / len(keys))), len(rows))
            clusters = KMeans(wanted, n_init=1, random_state=draw).fit_predict(keys[rows])
            for cluster in np.unique(clusters):
                means.append(keys[rows[clusters == cluster]].mean(axis=0))
                mixed.append(labels[rows[clusters == cluster]].mean(axis=0))
        return unit(np.stack(means)), np.stack(mixed)

    def ward(count: int, _draw: int) -> tuple[Floats, Floats]:
        prototypes = everything.prototypes(max(count, everything.fewest))
        return prototypes.keys, prototypes.soft_labels

    return {
        "random rows of each class": (DRAWS, of_each_class),
        "rows that held-out texts use most": (1, most_used),
        "k-means in each class": (DRAWS, k_means),
        "Ward's merges": (1, ward),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])

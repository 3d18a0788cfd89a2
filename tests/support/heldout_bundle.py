"""A tiny bundle with held-out rows, the same as an export writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from reaugkd import Prediction, Runtime
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.bundle.heldout_rows import HeldOutRows
from reaugkd.runtime.bundle.manifest import seal
from support.tiny_bundle import Text, build_tiny_bundle, reseal, tiny_texts

TEXTS = tiny_texts(60, seed=77)


def seen(prediction: Prediction) -> tuple[object, ...]:
    """Return the parts of a prediction that depend on the knowledge base only."""
    return prediction.label, prediction.probabilities.tobytes(), prediction.retrieved


def build_heldout_bundle(path: Path, rows: int = 400, unrelated: int | None = None, **options: object) -> Path:
    """`build_tiny_bundle` with held-out rows on which retrieval gains: mostly, their gold labels are what it says.

    Args:
        path: where to.
        rows: rows of the knowledge base.
        unrelated: those that know nothing of the held-out ones; all unless given.
        options: same as `build_tiny_bundle`.
    """
    # 7-bit weights give the same integers on every processor, so the gain is the same too.
    build_tiny_bundle(path, rows=rows, reduce_range=True, **options)  # type: ignore[arg-type]
    add_heldout(path, TEXTS, rows if unrelated is None else unrelated)
    return path


def add_heldout(path: Path, texts: list[Text], unrelated: int) -> None:
    """Add the student's outputs on held-out rows to a bundle."""
    with Runtime.open(path) as runtime:
        labels, ndim = len(runtime.labels), runtime.knowledge_base.ndim
        said = [runtime.predict(text).retrieval_probabilities for text in texts]
        outputs = [runtime.student.run(runtime.tokenizer.encode(text)) for text in texts]
    gold = np.array([0 if one is None else one.argmax() for one in said], np.int64)
    gold[::5] = (gold[::5] + 1) % labels
    logits = np.array([logits for logits, _ in outputs], np.float32).reshape(-1, labels)
    queries = np.array([query for _, query in outputs], np.float32).reshape(-1, ndim)
    HeldOutRows(logits, queries, gold, np.arange(len(texts)) // 2, unrelated).save(path)
    reseal(path)


def add_abstention(path: Path) -> Path:
    """Fit abstention on a bundle's held-out rows, the same as the export."""
    from reaugkd.export.tuning.abstention import abstention_of

    bundle = Bundle.open(path)
    manifest = bundle.manifest
    kb = KnowledgeBase.open(bundle.kb_folder, manifest.kb, len(manifest.labels))
    heldout = HeldOutRows.open(path, len(manifest.labels), kb.ndim, len(kb))
    seal(path, replace(manifest, abstention=abstention_of(kb, heldout, manifest.blend, manifest.gate)))
    return path

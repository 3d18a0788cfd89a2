"""The held-out rows that are answered right without new labels, compared with one row after the other."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.tiny_bundle import tiny_texts

from reaugkd import Row, Runtime
from reaugkd.kb.edits.overlay import OverlayKnowledgeBase
from reaugkd.kb.searchable import SearchResult
from reaugkd.runtime.bundle.heldout_rows import HeldOutRows
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.blending import softmax
from reaugkd.runtime.decision.mixture_weight import BucketWeight, ExampleWeight, LogisticWeight
from reaugkd.runtime.editing.new_labels import calibration
from reaugkd.runtime.editing.new_labels.calibration import right_answers
from reaugkd.runtime.inference.pipeline import mixed

WEIGHTS = (None, BucketWeight((0.8, 0.95), (0.9, 0.3, 0.1)), LogisticWeight(0.3, (1.0, -2.0, 0.7, -0.4, 0.9)))


def one_by_one(
    heldout: HeldOutRows, seen: OverlayKnowledgeBase, config: BlendConfig, known: int
) -> tuple[list[int], list[float], list[np.ndarray]]:
    """The places, logarithms and neighbours' probabilities of the right answers, by the blend of single texts."""
    places, log_old, retrieved = [], [], []
    nothing_new = np.zeros(seen.num_labels, np.float32)
    for place, gold in enumerate(heldout.gold):
        found = SearchResult(*seen.search(heldout.queries[place], config.k))
        student = softmax(heldout.logits[place], config.student_temperature)
        answer = mixed(seen, student, found, config, False, nothing_new)
        old = int(answer.probabilities[:known].argmax())
        if old == gold:
            places.append(place)
            log_old.append(math.log(max(float(answer.probabilities[old]), 1e-30)))
            retrieved.append(answer.retrieval_probabilities)
    return places, log_old, retrieved


@pytest.mark.parametrize("weight", WEIGHTS, ids=["constant", "buckets", "logistic"])
@pytest.mark.parametrize("numbers", [1, 1000, 1 << 20])
def test_the_same_as_one_by_one(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, weight: ExampleWeight | None, numbers: int
) -> None:
    """Two new labels, pinned rows, rows removed; in blocks of one row, of some, and of all rows at once."""
    monkeypatch.setattr(calibration, "_MOST_SHARES", numbers)
    texts = tiny_texts(45, seed=91)
    with Runtime.open(bundle) as runtime:
        runtime.kb.add([Row(text, "new") for text in texts[:20]], new_labels=True)
        runtime.kb.add([Row(text, soft={"late": 0.7, "a": 0.3}) for text in texts[20:40]], new_labels=True)
        runtime.kb.add([Row(text, "b") for text in texts[40:]])
        runtime.kb.remove([runtime.knowledge_base.id(row) for row in (0, 3, 4)])
        runtime.kb.wait()
        store = runtime._current().parts.store
        manifest, related = store.bundle.manifest, store.related()
        assert related is not None
        config = replace(manifest.blend, weight=weight)
        monkeypatch.setattr(store, "bundle", replace(store.bundle, manifest=replace(manifest, blend=config)))
        kb = store.edited()
        places, log_old, retrieved = one_by_one(store.heldout(), kb.without(range(*related)), config, 3)
        found = right_answers(store, kb, related)
        assert found is not None and 0 < len(places) < len(store.heldout()) and kb.num_labels == 5
        assert found.queries.tobytes() == store.heldout().queries[places].tobytes()
        np.testing.assert_allclose(found.log_old, log_old, atol=1e-6, rtol=0)
        np.testing.assert_allclose(found.retrieved, retrieved, atol=1e-6, rtol=0)
        assert (found.retrieved[:, 3:].max(axis=0) > 0.01).all()  # new labels are near

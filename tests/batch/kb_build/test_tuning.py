"""`reaugkd kb build`: blend, gate and abstention are fitted to the new rows."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command_line import call, ok
from support.heldout_bundle import TEXTS, add_abstention, build_heldout_bundle
from support.lake import LABELS, distinct, write_lake
from support.tiny_bundle import build_tiny_bundle, reseal

from reaugkd import Runtime
from reaugkd.export.tuning import tune_again as tuning_module
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.bundle.heldout_rows import HeldOutRows
from reaugkd.runtime.bundle.manifest import seal

pytestmark = pytest.mark.usefixtures("in_process")

GATE = {"threshold": 0.9, "epsilon": 0.2, "delta": 0.1, "rows": 9, "losses": 0, "retrieved": 0.5}


def gaining_lake(bundle: Path, folder: Path) -> Path:
    """Rows with the labels that the bundle's neighbours give, so that a blend with them gains."""
    texts = [text for text in distinct(300) if text not in TEXTS]
    with Runtime.open(bundle) as runtime:
        said = [runtime.predict(text).retrieval_probabilities for text in texts]
    return write_lake(folder, texts, [LABELS[one.argmax()] for one in said if one is not None])


def in_float64(bundle: Path) -> tuple[HeldOutRows, Any, Any]:
    """The held-out rows, and the student's and the blend's probabilities for them, [n, c]."""
    manifest = Bundle.open(bundle).manifest
    blend, kb = manifest.blend, KnowledgeBase.open(bundle / "kb", manifest.kb, len(manifest.labels))
    held = HeldOutRows.open(bundle, len(manifest.labels), kb.ndim, len(kb))
    student = np.exp(held.logits.astype(np.float64) / blend.student_temperature)
    student /= student.sum(axis=1, keepdims=True)
    retrieved = []
    for query in held.queries:
        rows, similarities = kb.search(query, blend.k)
        weights = np.exp(similarities.astype(np.float64) / blend.tau)
        retrieved.append((weights / weights.sum()) @ kb.soft_labels.take(rows).astype(np.float64))
    return held, student, blend.student_weight * student + (1 - blend.student_weight) * np.array(retrieved)


def test_the_figures_are_those_of_the_new_rows(tmp_path: Path) -> None:
    bundle = build_heldout_bundle(tmp_path / "bundle", rows=40)
    old = Bundle.open(bundle).manifest
    stale = {"tuning": {"rows": 60, "accuracy": {"blend": 0.123}, "nll": {"blend": 9.0}}, "condensation": {"rows": 1}}
    seal(bundle, replace(old, quality={**old.quality, **stale}))
    texts = [text for text in distinct(200) if text not in TEXTS]
    lake = write_lake(tmp_path / "lake", texts, [LABELS[number % 3] for number in range(len(texts))])
    out = tmp_path / "new"
    ok("kb", "build", bundle, "--data", lake, "--out", out, "--workers", 1)
    manifest = Bundle.open(out).manifest
    blend, tuning = manifest.blend, manifest.quality["tuning"]
    assert "condensation" not in manifest.quality and "12.30%" not in (out / "README.md").read_text()
    assert (blend.k, blend.student_temperature) == (old.blend.k, old.blend.student_temperature)
    held, _, answers = in_float64(out)
    of_gold, right = answers[np.arange(len(held)), held.gold], answers.argmax(axis=1) == held.gold
    assert tuning["nll"]["blend"] == pytest.approx(-np.log(of_gold).mean(), abs=1e-3)
    assert tuning["accuracy"]["blend"] == pytest.approx(np.mean(right), abs=1e-6)
    assert tuning["blend"]["student_weight"] == blend.student_weight


def test_gate_and_thresholds_are_fitted_to_the_new_rows(tmp_path: Path) -> None:
    bundle = build_heldout_bundle(tmp_path / "bundle")
    reseal(add_abstention(bundle), gate=GATE)
    out, lake = tmp_path / "new", gaining_lake(bundle, tmp_path / "lake")
    done = call("kb", "build", bundle, "--data", lake, "--out", out, "--shards", 2, "--workers", 1, "--json", "-")
    assert done.code == 0, done.err
    report, manifest = json.loads(done.out), Bundle.open(out).manifest
    gate, abstention = manifest.gate, manifest.abstention
    assert gate is not None and abstention is not None and report["gate"] == asdict(gate)
    assert (gate.epsilon, gate.delta) == (GATE["epsilon"], GATE["delta"])

    held, student, blend = in_float64(out)
    each = np.arange(0, len(TEXTS), 2)  # pairs of rows are related
    sure = student.max(axis=1)
    lost = (student.argmax(axis=1) != held.gold) & (blend.argmax(axis=1) == held.gold)

    def proof(threshold: float) -> tuple[int, float]:
        """The losses, and the probability of so few of them if the gate loses epsilon."""
        n, count = len(each), int((lost[each] & (sure[each] >= threshold)).sum())
        terms = (math.comb(n, i) * gate.epsilon**i * (1 - gate.epsilon) ** (n - i) for i in range(count + 1))
        return count, math.fsum(terms)

    losses, probability = proof(gate.threshold)
    assert (gate.rows, gate.losses) == (len(each), losses) and probability <= gate.delta
    assert gate.retrieved == pytest.approx((sure < gate.threshold).mean())
    assert proof(sure[each][sure[each] < gate.threshold - 1e-5].max())[1] > gate.delta  # the lowest threshold

    with Runtime.open(out, retrieval="gated") as runtime:
        answers = [runtime.predict(text) for text in TEXTS]
    skipped = [answer.reason == "sure" for answer in answers]
    clear = np.abs(sure - gate.threshold) > 1e-2  # the file has the logits in float16
    assert [skip for skip, some in zip(skipped, clear, strict=True) if some] == list(sure[clear] >= gate.threshold)
    assert {True, False} <= set(skipped)
    assert all(answer.retrieved != skip for answer, skip in zip(answers, skipped, strict=True))

    assert abstention.rows == len(each) and report["abstention"] == {"rows": len(each)}
    with Runtime.open(out) as runtime:
        kept = sum(not runtime.predict(TEXTS[row], abstain="coverage=50%").abstained for row in each)
    assert kept == pytest.approx(math.ceil(0.5 * (len(each) + 1)), abs=1)
    blended, gated, thresholds = report["notes"]
    assert f"the {manifest.blend.k} nearest rows" in blended
    assert f"retrieves for {gate.retrieved:.1%}" in gated and "abstention: by" in thresholds


@pytest.mark.parametrize(
    ("heldout", "missing", "expected"),
    [
        (True, None, "gate (predict --gated): none: too few held-out rows to certify a loss of 0.10%"),
        (True, "scipy", "the new bundle has no gate: found no module 'scipy'; pip install 'reaugkd[train]'"),
        (False, None, "the new bundle has no gate: there are no held-out rows"),
    ],
)
def test_a_gate_that_cannot_be_certified_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heldout: bool, missing: str | None, expected: str
) -> None:
    monkeypatch.setattr(tuning_module, "missing_module", lambda: missing)
    bundle = (build_heldout_bundle if heldout else build_tiny_bundle)(tmp_path / "bundle")
    reseal(bundle, gate={**GATE, "epsilon": 0.001})
    lake = gaining_lake(bundle, tmp_path / "lake")
    done = ok("kb", "build", bundle, "--data", lake, "--out", tmp_path / "new", "--workers", 1)
    assert done.out.splitlines()[-1].startswith(expected) and "abstention" not in done.out
    assert (expected in done.err) == expected.startswith("the new bundle")  # said before the work, if it is known
    manifest = Bundle.open(tmp_path / "new").manifest
    assert manifest.gate is None and ("tuning" in manifest.quality) == heldout

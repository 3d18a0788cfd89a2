"""Tune the decisions of a bundle again on its held-out rows, for another knowledge base: blend, gate and abstention."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

from ...kb.knowledge_base import KnowledgeBase
from ...runtime.bundle.heldout_rows import HeldOutRows
from ...runtime.bundle.manifest import Manifest
from ...runtime.inference.session.threads import default_threads
from .build_kb import Neighbours, blend_found
from .tune import tune_blend_again


def tune_again(old: Manifest, kb: KnowledgeBase, heldout: HeldOutRows) -> Manifest:
    """Choose tau and the weight of the blend anew, certify the gate again and fit the abstention thresholds again.

    The neighbours are those that the knowledge base's own search finds, because the runtime gets the same: a search in
    shards misses some. For abstention in a small knowledge base they are exact, as in the runtime (`in_use`).

    Args:
        old: the bundle's manifest.
        kb: another knowledge base, without the held-out rows.
        heldout: the bundle's held-out rows, at least one.

    Returns:
        The manifest with the new blend, its report, gate and abstention (`fit_again`). If a module is missing for gate
        and abstention, they are None.
    """
    neighbours = Neighbours(*kb.search_many(heldout.queries, old.blend.k, default_threads()))
    labels = kb.soft_labels.take(neighbours.rows.ravel()).reshape(*neighbours.rows.shape, -1)
    tuning = tune_blend_again(old.blend, heldout, neighbours.similarities, labels)
    tuned = replace(old, blend=tuning.blend, quality={**old.quality, "tuning": tuning.as_dict()})
    if missing_module() is not None:
        return replace(tuned, gate=None, abstention=None)
    from .fit_again import fit_again  # here, because it needs the train extra

    answers = blend_found(*neighbours, kb.soft_labels, tuning.blend, heldout.logits)
    return fit_again(tuned, kb, heldout, answers, neighbours)


def missing_module() -> str | None:
    """Return the first module that gate and abstention need and that is not installed; None if all are there."""
    return next((name for name in ("scipy", "mapie") if find_spec(name) is None), None)

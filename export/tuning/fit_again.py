"""Fit gate and abstention of a bundle again on its held-out rows, for another knowledge base.

The neighbours of the held-out rows must come from a knowledge base without these rows and without rows related to them.
"""

from __future__ import annotations

from dataclasses import replace

from ...kb.knowledge_base import KnowledgeBase
from ...runtime.bundle.heldout_rows import HeldOutRows
from ...runtime.bundle.manifest import Manifest
from ...runtime.opening import compares_all
from .abstention import abstention_of
from .build_kb import Blends, Neighbours
from .gating import Certificate, certify


def fit_again(
    old: Manifest, kb: KnowledgeBase, heldout: HeldOutRows, answers: Blends, neighbours: Neighbours | None = None
) -> Manifest:
    """Certify the gate again, with the bounds of the old gate, and fit the abstention thresholds again.

    Args:
        old: the bundle's manifest, with the blend in use.
        kb: another knowledge base.
        heldout: the bundle's held-out rows.
        answers: the answers to them with this knowledge base.
        neighbours: the neighbours that the knowledge base's own search finds. Default: those of an exact search.

    Returns:
        The manifest with the new gate and abstention. Each is None if the old bundle has none, or if it cannot be
        fitted on these rows.

    Raises:
        DependencyError: MAPIE is not installed, and the bundle has abstention thresholds.
    """
    gate = old.gate
    if gate is not None:
        gate = certify(answers.student, answers.blend, heldout.gold, heldout.groups, Certificate.of(gate))
    abstention = None if old.abstention is None else abstention_of(kb, heldout, old.blend, gate, in_use(kb, neighbours))
    return replace(old, gate=gate, abstention=abstention)


def in_use(kb: KnowledgeBase, neighbours: Neighbours | None) -> Neighbours | None:
    """The neighbours to fit abstention thresholds with, as the runtime finds them: None for those of an exact search.

    A gate always goes with the knowledge base's own search, because the graph of the runtime cannot skip a search.

    Args:
        kb: the knowledge base.
        neighbours: those that its own search finds.
    """
    return None if compares_all(kb) else neighbours

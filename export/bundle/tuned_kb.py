"""Build the knowledge base of a run and tune the blend with the rows that the exported student retrieves from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ...kb.index.exact_search import EfSearchChoice
from ...kb.index.lists import chosen_lists
from ...kb.knowledge_base import KnowledgeBase
from ...runtime.data import Split
from ...runtime.decision.blend_config import BlendConfig
from ..modeling.execution.progress import progress
from ..onnx.quality import StudentOutputs
from ..recipe import RetrievalRecipe
from ..training.finished_run import FinishedRun
from ..tuning.build_kb import MOST_QUERIES, KbRows, KbStorageConfig, build_kb, tune, tune_ef_search
from ..tuning.tune import Tuning, soft_labels
from .row_roles import AskStudent, allocate


@dataclass(frozen=True)
class KbJob:
    """Contents and storage of a knowledge base.

    Args:
        recipe: keys, labels and the tuner's options.
        storage: settings of the storage.
        extra: extra rows, labelled by the teacher; None for none.
    """

    recipe: RetrievalRecipe
    storage: KbStorageConfig = KbStorageConfig()
    extra: Split | None = None


@dataclass(frozen=True)
class TunedKb:
    """A knowledge base with its blend.

    Args:
        kb: the knowledge base of the bundle.
        tuned_on: the knowledge base while the blend was tuned, without the rows that the blend was tuned on.
        tuning: the blend and its report.
        ef_search: the choice of ef_search; None if the knowledge base is empty or there are no tuning rows.
    """

    kb: KnowledgeBase
    tuned_on: KnowledgeBase
    tuning: Tuning
    ef_search: EfSearchChoice | None


def build_tuned_kb(source: FinishedRun, job: KbJob, ask_student: AskStudent, heldout: StudentOutputs) -> TunedKb:
    """Build the knowledge base of a run, tune blend and ef_search, and then add the rows that were kept back.

    Args:
        source: the run.
        job: contents and storage.
        ask_student: computes the exported student's outputs.
        heldout: the exported student's outputs for the held-out rows.
    """
    roles = allocate(source, job.recipe, job.extra, ask_student, heldout)
    rows = roles.searched
    with _building(rows) as report:
        kb = build_kb(rows, job.recipe, BlendConfig(1, 1.0, 1.0), job.storage, progress=report)
    tuning = tune(kb, rows, roles.asking, heldout, job.recipe)
    blend = tuning.blend
    ef_search = None
    if len(rows) and len(roles.asking):
        ef_search = tune_ef_search(kb, rows, heldout.queries, job.recipe, blend.k)
        kb = kb.with_lists(chosen_lists(kb.index, heldout.queries[:MOST_QUERIES], blend.k))
    # The search depends on the keys only, so the tuned soft labels can be set afterwards.
    labels = soft_labels(rows.logits, rows.gold, blend.gold_share)
    kb = kb.with_soft_labels(labels, job.storage.label_loss)
    if not len(roles.later):
        return TunedKb(kb, kb, tuning, ef_search)
    everything = rows.joined(roles.later)
    with _building(everything) as report:
        whole = build_kb(everything, job.recipe, blend, job.storage, kb.config.expansion_search, report)
    if kb.lists is not None:
        whole = whole.with_lists(kb.lists.rebuilt(whole.keys()))
    return TunedKb(whole, kb, tuning, ef_search)


@contextmanager
def _building(rows: KbRows) -> Iterator[Callable[[int, int], bool]]:
    with progress("knowledge base", len(rows), "row") as advance:
        done = 0

        def report(count: int, _total: int) -> bool:
            nonlocal done
            advance(count - done)
            done = count
            return True

        yield report

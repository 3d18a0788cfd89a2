"""Opening a runtime: its settings, the parts of its bundle, and the pipelines that are built from them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import BundleError, UsageError
from ..kb.index.usearch_import import compiled
from ..kb.knowledge_base import KnowledgeBase
from ..kb.searchable import Searchable
from ..kb.storage.ed25519 import PublicKey, read_public_key
from .bundle.bundle import Bundle
from .editing.new_labels.background_fit import BackgroundFit
from .editing.new_labels.in_use import classifier_in_use
from .editing.store import KnowledgeStore
from .graph.retrieval import OLDEST_OPSET
from .inference.golden_check import check_golden
from .inference.graph_pipeline import GraphPipeline
from .inference.latency_budget import SEARCHES, Budget, checked_budget, measured_cost
from .inference.pipeline import BasePipeline, Pipeline, mixed
from .inference.retrieval_policy import (
    RetrievalMode,
    SearchMethod,
    checked_mode,
    checked_search,
    has_weight,
    retrieval_policy,
)
from .inference.session.retrieval_session import graph_bytes
from .inference.session.sessions import Sessions
from .inference.session.threads import checked_threads
from .inference.text.inputs import checked_input
from .inference.text.tokenizer import TextTokenizer
from .monitoring.statistics import Statistics

MOST_GRAPH_BYTES = 8 * 2**20
"""Largest tables of keys and soft labels without lists that search ``"auto"`` puts into the graph: usearch is faster
with more. Where there are lists (`kb.index.lists`), they are searched.
"""

_NO_LIMIT = Budget(1e6, 0.0)


@dataclass(frozen=True)
class Settings:
    """The checked arguments of `Runtime.open`: enough to open the bundle again in another process."""

    path: Path
    threads: int
    retrieval: RetrievalMode
    verify: bool
    budget_ms: float | None
    signer: PublicKey | None
    follow_links: bool = False
    search: SearchMethod = "auto"

    @property
    def decides(self) -> bool:
        """Whether a gate or a budget decides after the student's run whether to search."""
        return self.retrieval == "gated" or (self.retrieval == "always" and self.budget_ms is not None)


@dataclass(frozen=True)
class Parts:
    """The open parts of a bundle, shared by a runtime and its siblings (`Runtime.with_retrieval`).

    Attributes:
        unit: whether the student's embeddings have length 1, as a search in the graph needs it.
        fits: the fits of the classifier of new labels.
    """

    bundle: Bundle
    tokenizer: TextTokenizer
    sessions: Sessions
    store: KnowledgeStore
    pid: int
    fits: BackgroundFit
    unit: bool = True

    def statistics(self) -> Statistics:
        """New counts, from zero."""
        abstention = self.bundle.manifest.abstention
        return Statistics(None if abstention is None else abstention.reference)


class Opened:
    """One consistent state of a runtime: a thread keeps it while another thread replaces it.

    Args:
        settings: the runtime's settings.
        parts: the bundle's parts.
        budget: the latency budget that the runtime has so far; None to measure the cost of a search again.

    Attributes:
        parts: the bundle's parts.
        view: the state of the edits.
        kb: the rows that answer; those of the files after all edits were undone, as if there had been none.
        labels: the names of all labels in the order of the probabilities; also without those of undone edits.
        classifier: the classifier that answers new labels; None where the neighbours do.
        budget: the latency budget; None for no limit.

    Raises:
        UsageError: retrieval is ``"gated"``, and the bundle has no gate; or search is ``"graph"``, with a gate or a
            budget.
    """

    def __init__(self, settings: Settings, parts: Parts, budget: Budget | None = None) -> None:
        self.parts, self.view, self._settings = parts, parts.store.current(), settings
        manifest, view = parts.bundle.manifest, self.view
        self.kb, self.labels = view.kb if view.edited else base_of(view.kb), view.answered_labels
        self.classifier = classifier_in_use(view, len(manifest.labels))
        if settings.retrieval == "gated" and manifest.gate is None:
            raise UsageError(
                "the bundle has no gate",
                path=settings.path,
                expected='a threshold in the manifest, for retrieval "gated"',
                remedy='Open it with retrieval "always". `reaugkd calibrate` certifies a gate on enough rows of yours.',
            )
        if settings.search == "graph" and settings.decides:
            raise UsageError(
                'search "graph" has neither a gate nor a budget: it is part of the run of every text',
                path=settings.path,
                remedy='Use retrieval "always" without a budget, or search "usearch".',
            )
        if budget is None and settings.budget_ms is not None:
            budget = Budget(settings.budget_ms, _search_cost(parts, self.kb, settings.threads))
        self.budget = budget
        self._pipelines: dict[tuple[bool, int], BasePipeline] = {}

    def pipeline(self, judging: bool, threads: int) -> BasePipeline:
        """The pipeline that answers texts.

        Args:
            judging: whether the answers are for abstention, which needs the neighbours of every text.
            threads: threads that share one run.

        Raises:
            BundleError: a part of the bundle that it needs is damaged.
        """
        found = self._pipelines.get((judging, threads))
        if found is None:
            found = self._pipelines[judging, threads] = self._built(judging, threads)
        return found

    def compacted(self) -> bool:
        """Whether the only edit since is a compaction: the rows are then the same."""
        now, latest = self.view, self.parts.store.view
        return latest.snapshot is not now.snapshot and now.head.seq + 1 == latest.snapshot.seq == latest.head.seq

    def renewed(self) -> Opened:
        """The state with the latest edits, with the same pipelines."""
        fresh = Opened(self._settings, self.parts, self.budget)
        for judging, threads in tuple(self._pipelines):
            fresh.pipeline(judging, threads)
        return fresh

    @property
    def retrieves(self) -> bool:
        """Whether answers for abstention have neighbours."""
        return self._settings.retrieval != "never" and len(self.kb) > 0

    def _built(self, judging: bool, threads: int) -> BasePipeline:
        settings, parts, kb, labels = self._settings, self.parts, self.kb, self.labels
        manifest = parts.bundle.manifest
        # The gate was certified for the exported knowledge base. It would hide edits of texts that the student is sure
        # of, and edits may pin rows and add labels, which then have a weight.
        gate, weighs = (None, True) if self.view.edited or judging else (manifest.gate, has_weight(manifest.blend))
        policy = retrieval_policy(settings.retrieval, len(kb), gate, self.budget, weighs)
        if policy.off is None and uses_graph(settings, parts, kb, judging):
            session = parts.sessions.retrieval(base_of(kb), threads)
            if session is not None:
                return GraphPipeline(manifest, parts.tokenizer, session, kb, labels, self.classifier)
            if settings.search == "graph":
                raise BundleError(
                    'search "graph" needs a model of newer ONNX operators',
                    path=parts.bundle.model_path,
                    expected=f"opset {OLDEST_OPSET} or later",
                    remedy='Use search "usearch", or export the bundle again.',
                )
        if policy.off is None:
            base_of(kb).index.load()
        student = parts.sessions.student(threads)
        return Pipeline(manifest, parts.tokenizer, student, kb, policy, labels, self.classifier)


def checked_settings(
    path: object,
    threads: object,
    retrieval: object,
    verify: object,
    budget_ms: object,
    signer: object,
    follow_links: object,
    search: object = "auto",
) -> Settings:
    """The arguments of `Runtime.open`, checked.

    Raises:
        UsageError: an argument has the wrong type or an unusable value.
        DependencyError: a signature is required, and the library ``cryptography`` is missing.
    """
    folder = checked_folder(path)
    if not (signer is None or isinstance(signer, PublicKey | bytes | str | os.PathLike)):
        expected = "a path, or PEM as bytes"
        raise UsageError("require_signature has the wrong type", found=kind_of(signer), expected=expected)
    return Settings(
        path=folder.absolute(),
        threads=checked_threads(threads),
        retrieval=checked_mode(retrieval),
        verify=checked_bool("verify", verify),
        budget_ms=None if budget_ms is None else checked_budget(budget_ms),
        signer=None if signer is None else read_public_key(signer),
        follow_links=checked_bool("follow_links", follow_links),
        search=checked_search(search),
    )


def checked_folder(path: object) -> Path:
    """The path of a bundle.

    Raises:
        UsageError: it has the wrong type, or is the address of a repository on the Hub.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError("the bundle's path has the wrong type", found=kind_of(path), expected="a str or a path")
    text = os.fsdecode(path)
    if text.startswith("hf://"):
        remedy = "Download it with `reaugkd pull`, or open it with Runtime.from_pretrained."
        raise UsageError("this is not a folder", found=text, expected="the folder of a bundle", remedy=remedy)
    return Path(text)


def checked_bool(name: str, value: object) -> bool:
    """``value``, if it is True or False.

    Raises:
        UsageError: it has another type.
    """
    if not isinstance(value, bool):
        raise UsageError(f"{name} has the wrong type", found=repr(value), expected="True or False")
    return value


def kind_of(value: object) -> str:
    """The type of a value in words, for an error message."""
    return "None" if value is None else f"{type(value).__name__} {value!r}"


def open_parts(settings: Settings) -> Parts:
    """Open a bundle's parts and run its golden texts.

    Raises: same as `Runtime.open`.
    """
    bundle = Bundle.open(settings.path, settings.verify, settings.signer, settings.follow_links)
    tokenizer = TextTokenizer(bundle.tokenizer_path, bundle.manifest.max_length)
    store = KnowledgeStore(bundle, settings.verify, settings.signer)
    sessions = Sessions(bundle, settings.verify)
    parts = Parts(bundle, tokenizer, sessions, store, os.getpid(), BackgroundFit(store))
    Opened(settings, parts, _NO_LIMIT).pipeline(False, settings.threads)  # opens the session that it needs
    unit = check_golden(bundle, tokenizer, sessions.encoder(settings.threads))
    bundle.check_links()
    if not unit:
        parts = replace(parts, unit=False)
        Opened(settings, parts, _NO_LIMIT).pipeline(False, settings.threads)  # refuses a search in the graph
    return parts


def uses_graph(settings: Settings, parts: Parts, kb: Searchable, judging: bool) -> bool:
    """Whether the search is part of the run of the model.

    Raises:
        DependencyError: it must not be, and usearch is not installed.
        BundleError: it has to be, and the embeddings do not have length 1.
    """
    if settings.search == "usearch":
        compiled('search "usearch"')
        return False
    if settings.search == "graph":
        if not parts.unit:
            raise BundleError(
                'search "graph" needs golden texts whose embeddings have length 1',
                path=settings.path,
                remedy='Use search "usearch", or export the bundle again.',
            )
        return True
    chosen = settings.budget_ms is not None or (settings.retrieval == "gated" and not judging)
    base = base_of(kb)
    return parts.unit and not chosen and (base.lists is not None or compares_all(base))


def compares_all(kb: KnowledgeBase) -> bool:
    """Whether search ``"auto"`` compares a text with every row, in the graph, unless a gate or a budget decides."""
    return kb.lists is None and graph_bytes(kb) <= MOST_GRAPH_BYTES


def base_of(kb: Searchable) -> KnowledgeBase:
    """The rows of the last compaction."""
    if isinstance(kb, KnowledgeBase):
        return kb
    from ..kb.edits.overlay import OverlayKnowledgeBase  # here: the import takes 15 ms, and most bundles have no edits

    assert isinstance(kb, OverlayKnowledgeBase)
    return kb.base


def _search_cost(parts: Parts, kb: Searchable, threads: int) -> float:
    """Nanoseconds of a search and its blend: random queries, each after a run of the student."""
    manifest = parts.bundle.manifest
    if not (len(kb) and manifest.golden):
        return 0.0
    config, golden = manifest.blend, manifest.golden[0].text
    encoding = parts.tokenizer.encode(*checked_input(golden, manifest.text_pair))
    queries = np.random.default_rng(0).normal(size=(SEARCHES, kb.ndim)).astype(np.float32)
    uniform = np.full(len(manifest.labels), 1 / len(manifest.labels), np.float32)
    student = parts.sessions.student(threads)

    def search(number: int) -> object:
        return mixed(kb, uniform, kb.search(queries[number], config.k), config)

    return measured_cost(search, lambda: student.run(encoding))

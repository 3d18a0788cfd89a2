"""Opening a runtime: its settings, the parts of its bundle, and the pipelines that are built from them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UsageError
from ..kb.searchable import Searchable
from ..kb.storage.ed25519 import PublicKey, read_public_key
from .bundle.bundle import Bundle
from .editing.store import KnowledgeStore, View
from .inference.golden_check import check_golden
from .inference.inputs import checked_input
from .inference.latency_budget import SEARCHES, Budget, checked_budget, measured_cost
from .inference.pipeline import Pipeline, mixed
from .inference.retrieval_policy import RetrievalMode, checked_mode, retrieval_policy
from .inference.student import StudentSession
from .inference.threads import checked_threads
from .inference.tokenizer import TextTokenizer
from .monitoring.statistics import Statistics


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


@dataclass
class Parts:
    """The open parts of a bundle, shared by a runtime and its siblings (`Runtime.with_retrieval`)."""

    bundle: Bundle
    tokenizer: TextTokenizer
    student: StudentSession
    store: KnowledgeStore
    pid: int
    single: StudentSession | None = None  # predict_many's single-threaded session, opened at its first use

    def statistics(self) -> Statistics:
        """New counts, from zero."""
        abstention = self.bundle.manifest.abstention
        return Statistics(None if abstention is None else abstention.reference)

    def single_threaded(self) -> StudentSession:
        """A session that uses one thread, for texts that run side by side."""
        if self.single is None:
            self.single = StudentSession(self.bundle.model_path, threads=1)
            self.bundle.check_links()
        return self.single


@dataclass(frozen=True)
class Opened:
    """One consistent state of a runtime: a thread keeps it while another thread replaces it.

    Attributes:
        parts: the bundle's parts.
        view: the knowledge base.
        pipeline: answers texts.
        ungated: answers texts with abstention, which needs the neighbours of every text: without the gate.
    """

    parts: Parts
    view: View
    pipeline: Pipeline
    ungated: Pipeline


def checked_settings(
    path: object,
    threads: object,
    retrieval: object,
    verify: object,
    budget_ms: object,
    signer: object,
    follow_links: object,
) -> Settings:
    """The arguments of `Runtime.open`, checked.

    Raises:
        UsageError: an argument has the wrong type or an unusable value.
        DependencyError: a signature is required, and the library ``cryptography`` is missing.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError("the bundle's path has the wrong type", found=kind_of(path), expected="a str or a path")
    if not (signer is None or isinstance(signer, PublicKey | bytes | str | os.PathLike)):
        expected = "a path, or PEM as bytes"
        raise UsageError("require_signature has the wrong type", found=kind_of(signer), expected=expected)
    return Settings(
        path=Path(os.fsdecode(path)).absolute(),
        threads=checked_threads(threads),
        retrieval=checked_mode(retrieval),
        verify=checked_bool("verify", verify),
        budget_ms=None if budget_ms is None else checked_budget(budget_ms),
        signer=None if signer is None else read_public_key(signer),
        follow_links=checked_bool("follow_links", follow_links),
    )


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
    student = StudentSession(bundle.model_path, settings.threads)
    check_golden(bundle, tokenizer, student)
    bundle.check_links()
    return Parts(bundle, tokenizer, student, store, os.getpid())


def opened(settings: Settings, parts: Parts, budget: Budget | None = None) -> Opened:
    """The current state of a runtime.

    Args:
        settings: its settings.
        parts: its parts.
        budget: the latency budget that it has so far; None to measure the cost of a search again.

    Raises:
        UsageError: retrieval is ``"gated"``, and the bundle has no gate.
    """
    manifest, view = parts.bundle.manifest, parts.store.current()
    if settings.retrieval == "gated" and manifest.gate is None:
        raise UsageError(
            "the bundle has no gate",
            path=settings.path,
            expected='a threshold in the manifest, for retrieval "gated"',
            remedy='Open it with retrieval "always", or export it again with another --gate-loss.',
        )
    if budget is None and settings.budget_ms is not None:
        budget = Budget(settings.budget_ms, _search_cost(parts, view.kb))
    # The gate was certified for the exported knowledge base. It would hide edits of texts that the student is sure of.
    gate = None if view.edited else manifest.gate

    def pipeline(with_gate: bool) -> Pipeline:
        policy = retrieval_policy(settings.retrieval, len(view.kb), gate if with_gate else None, budget)
        return Pipeline(manifest, parts.tokenizer, view.kb, policy, view.labels)

    return Opened(parts, view, pipeline(with_gate=True), pipeline(with_gate=False))


def _search_cost(parts: Parts, kb: Searchable) -> float:
    """Nanoseconds of a search and its blend: random queries, each after a run of the student."""
    manifest = parts.bundle.manifest
    if not (len(kb) and manifest.golden):
        return 0.0
    config, golden = manifest.blend, manifest.golden[0].text
    encoding = parts.tokenizer.encode(*checked_input(golden, manifest.text_pair))
    queries = np.random.default_rng(0).normal(size=(SEARCHES, kb.ndim)).astype(np.float32)
    uniform = np.full(len(manifest.labels), 1 / len(manifest.labels), np.float32)

    def search(number: int) -> object:
        return mixed(kb, uniform, *kb.search(queries[number], config.k), config)

    return measured_cost(search, lambda: parts.student.run(encoding))

"""The runtime: a bundle that is open, whatever happens to the process; `pipeline` has what it does with a text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from ..errors import BundleError, ReaugkdError, UsageError
from ..kb.searchable import Searchable
from ..kb.storage.ed25519 import PublicKey, read_public_key
from .bundle.bundle import Bundle
from .bundle.manifest import Manifest
from .decision.abstention_goal import Abstain
from .decision.gating import Gate
from .editing.store import KnowledgeStore, View
from .inference.abstain import AbstentionPolicy, policy_for
from .inference.golden_check import check_golden
from .inference.inputs import Text, checked_input
from .inference.latency_budget import SEARCHES, Budget, checked_budget, measured_cost
from .inference.pipeline import Pipeline, RetrievalMode, checked_mode, mixed
from .inference.prediction import Prediction
from .inference.streaming import OnError, checked_on_error, of_this_process, one_by_one, side_by_side
from .inference.student import StudentSession
from .inference.threads import checked_threads
from .inference.tokenizer import TextTokenizer
from .monitoring.statistics import Statistics, Stats

if TYPE_CHECKING:
    from .editing.editor import KnowledgeEditor

_MOST_JUDGES = 32  # goals of abstention whose thresholds are kept at hand


@dataclass(frozen=True)
class _Settings:
    """What `Runtime.open` was called with: enough to open it again, in another process."""

    path: Path
    threads: int
    retrieval: RetrievalMode
    verify: bool
    budget_ms: float | None
    signer: PublicKey | None


@dataclass
class _Parts:
    """What an open runtime holds; siblings (`Runtime.with_retrieval`) share it."""

    bundle: Bundle
    tokenizer: TextTokenizer
    student: StudentSession
    store: KnowledgeStore
    pid: int
    single: StudentSession | None = None  # the single-threaded session of predict_many, made when first needed


@dataclass(frozen=True)
class _Opened:
    """What one runtime answers with, as one: a thread that asks while another reopens has all of one opening."""

    parts: _Parts
    view: View
    pipeline: Pipeline


class Runtime:
    """An open bundle that answers texts.

    A text gets the same answer, bit for bit, alone or in a stream, whatever the number of threads. `predict` may be
    called from several Python threads. Pickling keeps the path and the settings, and unpickling opens the bundle again;
    after a fork the child opens it again at its first prediction.

    Example:
        >>> with Runtime.open("bundle") as runtime:
        ...     print(runtime.predict("wake me at seven").label)
    """

    def __init__(self, settings: _Settings, parts: _Parts) -> None:
        self._settings = settings
        view = parts.store.current()
        self._opened: _Opened | None = _Opened(parts, view, _pipeline(settings, parts, view))
        self._statistics = _statistics(parts)
        self._judges: dict[tuple[Abstain | str, bool], AbstentionPolicy] = {}

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        threads: int | None = 1,
        retrieval: RetrievalMode = "always",
        verify: bool = True,
        budget_ms: float | None = None,
        require_signature: PublicKey | bytes | str | os.PathLike[str] | None = None,
    ) -> Runtime:
        """Open a bundle, check it, and prove on its golden texts that this machine computes what the exporter's did.

        Args:
            path: the bundle's folder.
            threads: threads that share one `predict`, or that run texts side by side in `predict_many`; None takes
                every core that this process may use.
            retrieval: ``"always"`` blends in the neighbours; ``"gated"`` does where the student is not sure, which
                saves most searches and costs at most the accuracy that the manifest's gate certifies; ``"never"``
                answers with the student alone.
            verify: check the files' SHA-256 sums; without it only existence, sizes and what each part is made of.
            budget_ms: milliseconds that a text may take. Where the student has used so much of it that a search would
                be late, the student answers alone (``Prediction.reason`` is ``"budget"``): of two calls with one text,
                one may then retrieve and the other not. Default: no limit.
            require_signature: the public key (a path, or PEM as bytes) of who must have signed the bundle (`reaugkd
                sign`). It is read once; forked children and unpickled copies ask for the same key. Default: a bundle
                needs no signature, and none is looked at.

        Raises:
            BundleIntegrityError: a file is missing, truncated or altered; the signature asked for is missing, damaged,
                of another key, or not of this manifest.
            BundleVersionError: the bundle was written by a newer reaugkd.
            BundleError: the parts do not fit each other, or the golden texts come out differently.
            UsageError: an argument that cannot be meant (a key that is none, a signature without ``verify``), or
                ``"gated"`` where the bundle has no gate.
            DependencyError: a signature is asked for, and the library ``cryptography`` is missing.
        """
        budget = None if budget_ms is None else checked_budget(budget_ms)
        mode = checked_mode(retrieval)
        signer = None if require_signature is None else read_public_key(require_signature)
        settings = _Settings(Path(path).absolute(), checked_threads(threads), mode, verify, budget, signer)
        return cls(settings, _open_parts(settings))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the probabilities; those that edits brought come last."""
        return self._current().view.labels

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest, as it was exported."""
        return self._current().parts.bundle.manifest

    @property
    def threads(self) -> int:
        """The number of threads in use."""
        return self._settings.threads

    @property
    def retrieval(self) -> RetrievalMode:
        """``"always"``, ``"gated"`` or ``"never"``."""
        return self._settings.retrieval

    @property
    def gate(self) -> Gate | None:
        """Where the student answers alone with retrieval ``"gated"``; None without a gate, or where edits ended it.

        It was certified for the knowledge base as it was exported, and would hide edits where the student is sure.
        """
        opened = self._current()
        return None if opened.view.edited else opened.parts.bundle.manifest.gate

    @property
    def knowledge_base(self) -> Searchable:
        """The bundle's knowledge base, as it is now."""
        return self._current().view.kb

    @property
    def kb(self) -> KnowledgeEditor:
        """What edits the knowledge base."""
        from .editing.editor import (
            KnowledgeEditor,  # not at the top: most runtimes only answer, and its imports take 15 ms
        )

        parts = self._current().parts
        return KnowledgeEditor(parts.store, parts.tokenizer, parts.student)

    @property
    def student(self) -> StudentSession:
        """The student's session, for measuring it alone."""
        return self._current().parts.student

    @property
    def tokenizer(self) -> TextTokenizer:
        """The bundle's tokenizer."""
        return self._current().parts.tokenizer

    def with_retrieval(self, retrieval: RetrievalMode) -> Runtime:
        """A sibling on the same session and knowledge base with another setting; closing one leaves the other.

        Raises:
            UsageError: the setting is unknown, or ``"gated"`` where the bundle has no gate.
        """
        settings = replace(self._settings, retrieval=checked_mode(retrieval))
        return Runtime(settings, self._current().parts)

    def predict(self, text: Text, abstain: Abstain | str | None = None) -> Prediction:
        """Answer one text, or one pair.

        Args:
            text: the text or pair.
            abstain: when not to answer, such as ``Abstain(coverage=0.95)`` or ``"error=2%"``: the answer then has a
                ``doubt``, and is ``abstained`` where that is too much. With retrieval ``"gated"`` every text is looked
                up then, since the nearest rows tell most; with ``"never"`` the student's uncertainty alone counts.

        Raises:
            TextError: the text is empty, longer than a million characters or not valid Unicode, or is a single text
                where the model reads pairs (or the reverse).
            ModelError: the student cannot run, or computes no probabilities.
            BundleError: what the text needs of the bundle is damaged, which only a hash would have told.
            UsageError: the runtime is closed, or the bundle has no thresholds for this abstention.
        """
        opened = self._current()
        return self._answering(opened, abstain).answer(opened.parts.student, text)

    @overload
    def predict_many(
        self, texts: Iterable[Text], on_error: Literal["raise"] = "raise", abstain: Abstain | str | None = None
    ) -> Iterator[Prediction]: ...
    @overload
    def predict_many(
        self, texts: Iterable[Text], on_error: OnError, abstain: Abstain | str | None = None
    ) -> Iterator[Prediction | ReaugkdError]: ...

    def predict_many(
        self, texts: Iterable[Text], on_error: OnError = "raise", abstain: Abstain | str | None = None
    ) -> Iterator[Prediction | ReaugkdError]:
        """Answer a stream of texts, lazily and in order, in constant memory.

        With ``threads`` above 1, texts run side by side, at most eight a thread ahead of the one that is handed out.
        Leaving the iterator early, or a Ctrl-C, stops the threads.

        Args:
            texts: any iterable; it is read as answers are asked for, in the calling thread.
            on_error: ``"raise"`` stops at a bad text; ``"return"`` hands the error out in the text's place and goes on.
            abstain: as of `predict`.

        Raises:
            UsageError: one text in place of several, another ``on_error``, no thresholds for this abstention, or the
                runtime is closed; from the iterator, where a forked child goes on with its parent's.
        """
        on_error = checked_on_error(on_error)
        if isinstance(texts, str):
            raise UsageError("one text is no stream", found=texts, remedy="Put it into a list, or use predict.")
        opened = self._current()
        parts, latest = opened.parts, [opened]
        self._answering(opened, abstain)  # what is wrong with the goal is told now

        def current() -> CountedAnswers:
            latest[0] = self._refreshed(latest[0])
            return self._answering(latest[0], abstain)

        if self._settings.threads == 1:
            return of_this_process(one_by_one(current, parts.student, texts, on_error))
        if parts.single is None:
            parts.single = StudentSession(parts.bundle.model_path, threads=1)
        return of_this_process(side_by_side(current, parts.single, texts, on_error, self._settings.threads))

    def stats(self, reset: bool = False) -> Stats:
        """What this runtime has answered since it was opened, as counts; `Stats` has the keys.

        Siblings (`with_retrieval`) count apart, and so do a forked child and an unpickled copy, from zero. It may be
        called after `close`.

        Args:
            reset: count from zero afterwards.
        """
        return self._statistics.stats(reset)

    def close(self) -> None:
        """Let go of the model and the knowledge base; predicting afterwards raises UsageError."""
        self._opened = None

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        settings = self._settings
        given = (settings.threads, settings.retrieval, settings.verify, settings.budget_ms, settings.signer)
        return (Runtime.open, (str(settings.path), *given))

    def __repr__(self) -> str:
        settings = self._settings
        state = "" if self._opened is not None else ", closed"
        return f"Runtime({str(settings.path)!r}, threads={settings.threads}, retrieval={settings.retrieval!r}{state})"

    def _answering(self, opened: _Opened, abstain: Abstain | str | None) -> CountedAnswers:
        if abstain is None:
            return CountedAnswers(opened.pipeline, self._statistics)
        retrieves = self._settings.retrieval != "never" and len(opened.view.kb) > 0
        judge = self._judges.get((abstain, retrieves)) if isinstance(abstain, Abstain | str) else None
        if judge is None:
            judge = policy_for(opened.parts.bundle.manifest.abstention, abstain, self._settings.path, retrieves)
            if len(self._judges) >= _MOST_JUDGES:
                self._judges.clear()
            self._judges[abstain, retrieves] = judge
        return CountedAnswers(opened.pipeline.ungated(), self._statistics, judge)

    def _current(self) -> _Opened:
        opened = self._opened
        if opened is None:
            raise UsageError("the runtime is closed", path=self._settings.path, remedy="Open the bundle again.")
        if opened.parts.pid != os.getpid():
            return self._reopen(opened.parts)
        return self._refreshed(opened)

    def _refreshed(self, opened: _Opened) -> _Opened:
        """With the knowledge base as it is now."""
        view = opened.parts.store.current()
        if view is opened.view:
            return opened
        pipeline = _pipeline(self._settings, opened.parts, view, opened.pipeline.budget)
        fresh = _Opened(opened.parts, view, pipeline)
        if self._opened is opened:  # and not closed meanwhile
            self._opened = fresh
        return fresh

    def _reopen(self, old: _Parts) -> _Opened:
        """After a fork: the parent's thread pools and locks are of no use here."""
        parts = _open_parts(self._settings)
        if parts.bundle.seal != old.bundle.seal:
            raise BundleError(
                "the bundle was replaced since it was opened",
                path=self._settings.path,
                remedy="Restart the program to use the new bundle.",
            )
        self._statistics = _statistics(parts)  # another thread of the parent may have held the old one's lock
        view = parts.store.current()
        self._opened = opened = _Opened(parts, view, _pipeline(self._settings, parts, view))
        return opened


def _statistics(parts: _Parts) -> Statistics:
    abstention = parts.bundle.manifest.abstention
    return Statistics(None if abstention is None else abstention.reference)


def _open_parts(settings: _Settings) -> _Parts:
    bundle = Bundle.open(settings.path, settings.verify, settings.signer)
    manifest = bundle.manifest
    tokenizer = TextTokenizer(bundle.tokenizer_path, manifest.max_length)
    store = KnowledgeStore(bundle, settings.verify, settings.signer)
    student = StudentSession(bundle.model_path, settings.threads)
    check_golden(bundle, tokenizer, student)
    return _Parts(bundle, tokenizer, student, store, os.getpid())


def _pipeline(settings: _Settings, parts: _Parts, view: View, budget: Budget | None = None) -> Pipeline:
    manifest = parts.bundle.manifest
    if settings.retrieval == "gated" and manifest.gate is None:
        raise UsageError(
            "the bundle has no gate",
            path=settings.path,
            expected='a threshold in the manifest, for retrieval "gated"',
            remedy='Open it with retrieval "always", or export it again with another --gate-loss.',
        )
    if budget is None and settings.budget_ms is not None:
        budget = Budget(settings.budget_ms, _search_cost(parts, view.kb))
    # The gate was certified for the knowledge base as it was exported, and would hide edits where the student is sure.
    mode = "always" if settings.retrieval == "gated" and view.edited else settings.retrieval
    return Pipeline(manifest, parts.tokenizer, view.kb, mode, budget, view.labels)


def _search_cost(parts: _Parts, kb: Searchable) -> float:
    """Nanoseconds of a search and its blend, as seen now: with queries of all directions, each after the student."""
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


class CountedAnswers:
    """Answers as of a pipeline.

    Args:
        pipeline: answers.
        statistics: counts, texts that cannot be answered too.
        judge: says of each answer whether to abstain; None where nobody asked.
    """

    __slots__ = ("_judge", "_pipeline", "_statistics")

    def __init__(self, pipeline: Pipeline, statistics: Statistics, judge: AbstentionPolicy | None = None) -> None:
        self._pipeline, self._statistics, self._judge = pipeline, statistics, judge

    def answer(self, student: StudentSession, text: Text) -> Prediction:
        """The pipeline's answer to a text, judged.

        Raises:
            TextError: a text that cannot be answered.
            ModelError: the student cannot run, or computes no number.
        """
        try:
            answer = self._pipeline.answer(student, text)
        except ReaugkdError as error:
            self._statistics.count_error(error)
            raise
        if self._judge is not None:
            answer = self._judge.judged(answer)
        self._statistics.count(answer)
        return answer

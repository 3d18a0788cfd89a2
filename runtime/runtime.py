"""The runtime: an open bundle that answers texts, in this process, its threads and its forked children."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeVar, overload

from ..errors import BundleError, ReaugkdError, UsageError
from ..kb.searchable import Searchable
from ..kb.storage.ed25519 import PublicKey
from .bundle.manifest import Manifest
from .decision.abstention import AbstentionPolicies, AbstentionPolicy
from .decision.abstention_goal import Abstain
from .decision.gating import Gate
from .hub.methods import HubMethods
from .inference.asynchronous import AsynchronousAnswers
from .inference.prediction import Prediction
from .inference.retrieval_policy import RetrievalMode, SearchMethod, checked_mode, checked_search
from .inference.session.student import StudentSession
from .inference.streaming import OnError, checked_on_error, of_this_process, one_by_one, side_by_side
from .inference.text.inputs import Text
from .inference.text.tokenizer import TextTokenizer
from .monitoring.statistics import Stats
from .opening import Opened, Parts, Settings, checked_bool, checked_settings, kind_of, open_parts

if TYPE_CHECKING:
    from .editing.editor import KnowledgeEditor

Key = TypeVar("Key")
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Runtime(AsynchronousAnswers, HubMethods):
    """An open bundle that answers texts.

    A text gets the same answer, bit for bit, alone or in a stream, for any number of threads. `predict` may be called
    from several Python threads. A pickle holds the path and the settings, and unpickling opens the bundle again. After
    a fork, the child opens the bundle again at its first prediction.

    Example:
        >>> with Runtime.open("bundle") as runtime:
        ...     print(runtime.predict("wake me at seven").label)
    """

    def __init__(self, settings: Settings, parts: Parts) -> None:
        super().__init__(settings.threads)
        self._settings = settings
        self._opened: Opened | None = Opened(settings, parts)
        self._statistics = parts.statistics()
        self._refreshing = threading.Lock()
        self._policies = AbstentionPolicies(settings.path)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        threads: int | None = 1,
        retrieval: RetrievalMode = "always",
        verify: bool = True,
        budget_ms: float | None = None,
        require_signature: PublicKey | bytes | str | os.PathLike[str] | None = None,
        follow_links: bool = False,
        search: SearchMethod = "auto",
    ) -> Self:
        """Open a bundle, check its files, and check with its golden texts that this machine computes the same answers.

        Args:
            path: the bundle's folder.
            threads: threads that share one `predict`, or that answer texts side by side in `predict_many`; None uses
                every core available to this process.
            retrieval: ``"always"`` blends the neighbours into every answer; ``"gated"`` retrieves only if the student
                is not sure, which saves most searches and costs at most the accuracy that the manifest's gate
                certifies; ``"never"`` answers with the student alone.
            verify: check the SHA-256 of every file; without it, only existence, sizes and structure are checked, and a
                model that is replaced while the runtime is open is used at the next compaction.
            budget_ms: latency budget of a text in milliseconds. If a search would exceed it, the student answers alone
                (``Prediction.reason`` is ``"budget"``), so two calls with one text may differ. None: no limit.
            require_signature: the public key (a path, or PEM as bytes) that the bundle must be signed with (`reaugkd
                sign`). Forked children and unpickled copies require the same key. None: signatures are not read.
            follow_links: follow links that lead out of the folder too; only if you trust the places that they lead to.
            search: ``"graph"`` searches in the run of the model, ``"usearch"`` after it; ``"auto"`` takes ``"graph"``
                for few rows or with lists, unless a gate or budget decides after the run whether to search, or the
                model's ONNX operators are too old (below opset 13).

        Raises:
            BundleIntegrityError: a file is missing, truncated or altered; or the required signature is missing,
                damaged, made with another key, or made for another manifest.
            BundleVersionError: a newer reaugkd wrote the bundle.
            BundleError: the parts do not fit each other, a golden text is answered otherwise, or a link leads outside.
            UsageError: an argument has the wrong type or an unusable value; ``"gated"``, and the bundle has no gate; or
                search ``"graph"``, with a gate or a budget.
            DependencyError: a signature is required, and the library ``cryptography`` is missing; or usearch is, and
                the search needs it.
        """
        settings = checked_settings(
            path, threads, retrieval, verify, budget_ms, require_signature, follow_links, search
        )
        return cls(settings, open_parts(settings))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the probabilities; labels that edits added are last."""
        return self._current().labels

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
        """The retrieval mode: ``"always"``, ``"gated"`` or ``"never"``."""
        return self._settings.retrieval

    @property
    def search(self) -> SearchMethod | None:
        """How texts are searched for: ``"graph"`` or ``"usearch"``; None if no text is."""
        return self._current().pipeline(False, self._settings.threads).search

    @property
    def gate(self) -> Gate | None:
        """The gate of retrieval ``"gated"``; None if the bundle has no gate, and while its knowledge base has edits.

        It would hide edits where the student is sure. It is back when all are undone, unless they were compacted.
        """
        now = self._current()
        return None if now.view.edited else now.parts.bundle.manifest.gate

    @property
    def knowledge_base(self) -> Searchable:
        """The bundle's knowledge base in its current state."""
        return self._current().kb

    @property
    def kb(self) -> KnowledgeEditor:
        """The editor of the knowledge base."""
        from .editing.editor import KnowledgeEditor  # here: its imports take 15 ms, and most runtimes only answer

        parts = self._current().parts
        return KnowledgeEditor(parts.store, parts.tokenizer, parts.sessions.encoder(self._settings.threads), parts.fits)

    @property
    def student(self) -> StudentSession:
        """The student's session, for measurements of the student alone."""
        return self._current().parts.sessions.student(self._settings.threads)

    @property
    def tokenizer(self) -> TextTokenizer:
        """The bundle's tokenizer."""
        return self._current().parts.tokenizer

    def with_retrieval(self, retrieval: RetrievalMode, search: SearchMethod | None = None) -> Runtime:
        """A sibling with another retrieval mode, on the same knowledge base; each is closed by itself.

        Args:
            retrieval: same as `open`.
            search: same as `open`; None for this runtime's.

        Raises:
            UsageError: same as `open`, of the mode or the search.
        """
        search = self._settings.search if search is None else checked_search(search)
        settings = replace(self._settings, retrieval=checked_mode(retrieval), search=search)
        return Runtime(settings, self._current().parts)

    def predict(self, text: Text, abstain: Abstain | str | None = None) -> Prediction:
        """Answer one text, or one pair.

        Args:
            text: the text or pair.
            abstain: a goal, such as ``Abstain(coverage=0.95)`` or ``"error=2%"``: the answer then has a
                ``rejection_score``, and is ``abstained`` if the score is above the goal's threshold. With retrieval
                ``"gated"``, every text is then searched for, because the neighbours carry the strongest signal; with
                ``"never"``, only the student's uncertainty counts.

        Raises:
            TextError: the text is empty, longer than a million characters, not valid Unicode or not a text; or it is a
                single text and the model reads pairs (or the reverse).
            ModelError: the student cannot run, or its output is not a distribution.
            BundleError: a part of the bundle that this text needs is damaged; `verify` would have found it.
            UsageError: the runtime is closed, or the bundle has no thresholds for this goal.
        """
        now = self._current()
        return self._answer(now, self._settings.threads, text, abstain)

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

        With ``threads`` above 1, texts are answered side by side, at most eight per thread ahead of the last returned
        answer. Closing the iterator early, or a Ctrl-C, stops the threads.

        Args:
            texts: any iterable; it is read in the calling thread as answers are needed.
            on_error: ``"raise"`` stops at a bad text; ``"return"`` returns the error in the text's place.
            abstain: same as `predict`.

        Raises:
            UsageError: an argument has the wrong type or an unknown value, the bundle has no thresholds for this goal,
                or the runtime is closed; from the iterator, if a forked child continues its parent's stream.
        """
        on_error = checked_on_error(on_error)

        def answer(current: Callable[[], Opened], text: Text) -> Prediction | ReaugkdError:
            try:
                return self._answer(current(), 1, text, abstain)
            except ReaugkdError as error:
                if on_error == "raise":
                    raise
                return error

        return self._stream(answer, texts, abstain)

    def predict_keyed(
        self, items: Iterable[tuple[Key, Text | ReaugkdError]], abstain: Abstain | str | None = None
    ) -> Iterator[tuple[Key, Prediction | ReaugkdError]]:
        """`predict_many` for texts with keys: each answer or error is returned with the key of its text.

        Args:
            items: pairs of any key and its text. An error instead of a text (for a record that could not be read) is
                counted by `stats` and returned in its position.
            abstain: same as `predict`.

        Raises:
            UsageError: same as `predict_many`.
        """

        def answer(
            current: Callable[[], Opened], item: tuple[Key, Text | ReaugkdError]
        ) -> tuple[Key, Prediction | ReaugkdError]:
            if not isinstance(item, tuple) or len(item) != 2:
                raise UsageError("an item is not a pair of key and text", found=kind_of(item), expected="(key, text)")
            key, text = item
            if isinstance(text, ReaugkdError):
                self._statistics.count_error(text)
                return key, text
            try:
                return key, self._answer(current(), 1, text, abstain)
            except ReaugkdError as error:
                return key, error

        return self._stream(answer, items, abstain)

    def stats(self, reset: bool = False) -> Stats:
        """Counts of the answers since the runtime was opened; `Stats` has the keys.

        Siblings (`with_retrieval`), forked children and unpickled copies have counts of their own, from zero. `stats`
        may be called after `close`.

        Args:
            reset: count from zero afterwards.

        Raises:
            UsageError: ``reset`` is not a bool.
        """
        return self._statistics.stats(checked_bool("reset", reset))

    def close(self) -> None:
        """Release the model and the knowledge base; later predictions raise UsageError. Waits for a running fit."""
        now, self._opened = self._opened, None
        self._answer_threads.close()
        if now is not None and now.parts.pid == os.getpid():
            now.parts.fits.join()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        settings = self._settings
        given = (settings.threads, settings.retrieval, settings.verify, settings.budget_ms, settings.signer)
        return (Runtime.open, (str(settings.path), *given, settings.follow_links, settings.search))

    def __repr__(self) -> str:
        settings = self._settings
        state = "" if self._opened is not None else ", closed"
        return f"Runtime({str(settings.path)!r}, threads={settings.threads}, retrieval={settings.retrieval!r}{state})"

    def _answer_alone(self, text: Text, abstain: Abstain | str | None) -> Prediction:
        return self._answer(self._current(), 1, text, abstain)

    def _answer(self, now: Opened, threads: int, text: Text, abstain: Abstain | str | None) -> Prediction:
        policy = None if abstain is None else self._abstention_policy(now, abstain)
        try:
            answer = now.pipeline(policy is not None, threads).answer(text)
        except ReaugkdError as error:
            self._statistics.count_error(error)
            raise
        if policy is not None:
            score, signal = policy.decide(
                answer.student_probabilities, answer.retrieval_probabilities, answer.similarities, answer.edited
            )
            answer = replace(answer, rejection_score=score, abstention=signal)
        self._statistics.count(answer)
        return answer

    def _stream(
        self,
        answer: Callable[[Callable[[], Opened], Item], Answer],
        items: Iterable[Item],
        abstain: Abstain | str | None,
    ) -> Iterator[Answer]:
        """Return the answers to a stream, each from the latest state of the knowledge base.

        Raises:
            UsageError: ``items`` is not an iterable, or same as `predict_many`.
        """
        now = self._checked_stream(items, abstain, asynchronous=False)
        latest, threads = [now], self._settings.threads

        def current() -> Opened:
            latest[0] = self._refreshed(latest[0])
            return latest[0]

        def answer_now(item: Item) -> Answer:
            return answer(current, item)

        if threads == 1:
            return of_this_process(one_by_one(answer_now, items))
        return of_this_process(side_by_side(answer_now, items, threads))

    def _checked_stream(self, items: object, abstain: Abstain | str | None, asynchronous: bool = True) -> Opened:
        now = self._current()
        if isinstance(items, str | bytes) or not isinstance(items, (Iterable, AsyncIterable)[: 1 + asynchronous]):
            expected, remedy = "an iterable of texts", "Put a single text into a list, or use predict."
            raise UsageError("a stream takes several texts", found=kind_of(items), expected=expected, remedy=remedy)
        if abstain is not None:
            self._abstention_policy(now, abstain)  # an impossible goal is refused before the first text
        return now

    def _abstention_policy(self, now: Opened, abstain: Abstain | str) -> AbstentionPolicy:
        return self._policies.policy(now.parts.bundle.manifest.abstention, abstain, now.retrieves)

    def _current(self) -> Opened:
        now = self._opened
        if now is None:
            raise UsageError("the runtime is closed", path=self._settings.path, remedy="Open the bundle again.")
        if now.parts.pid != os.getpid():
            return self._reopen(now.parts)
        return self._refreshed(now)

    def _refreshed(self, now: Opened) -> Opened:
        """The runtime with the latest edits of its knowledge base."""
        if now.parts.store.current() is now.view:
            return now
        # After a compaction one thread opens a session with the new rows, and the others need not wait.
        if not self._refreshing.acquire(blocking=not now.compacted()):
            return now
        try:
            latest = self._opened
            if latest is not None and latest.parts is now.parts and latest.view is now.parts.store.view:
                return latest  # another thread was faster
            fresh = now.renewed()
            if latest is now:  # not closed meanwhile
                self._opened = fresh
            return fresh
        finally:
            self._refreshing.release()

    def _reopen(self, old: Parts) -> Opened:
        """Open the bundle in a forked child, which cannot use its parent's thread pools and locks.

        Raises:
            BundleError: the bundle was replaced after it was opened.
        """
        parts = open_parts(self._settings)
        if parts.bundle.seal != old.bundle.seal:
            raise BundleError(
                "the bundle was replaced after it was opened",
                path=self._settings.path,
                remedy="Restart the program to use the new bundle.",
            )
        # Another thread of the parent may have held the old ones' locks.
        self._statistics, self._refreshing = parts.statistics(), threading.Lock()
        self._opened = now = Opened(self._settings, parts)
        return now

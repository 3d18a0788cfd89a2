"""The runtime: one tokenizer call, one session run, one search, one blend."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter_ns
from types import TracebackType
from typing import Literal, overload

from ..errors import BundleError, ModelError, ReaugkdError, UsageError
from ..kb.knowledge_base import KnowledgeBase
from .blend import blend, softmax
from .bundle import Bundle
from .golden import check_golden
from .manifest import Manifest
from .prediction import Prediction, Retrieval, Timings
from .student import StudentSession
from .text import Text, checked_input
from .threads import checked_threads
from .tokenizer import TextTokenizer

RetrievalMode = Literal["always", "never"]
OnError = Literal["raise", "return"]
_LOOK_AHEAD = 4  # texts in work or waiting for their turn, a thread


@dataclass(frozen=True)
class _Settings:
    """What `Runtime.open` was called with: enough to open it again, in another process."""

    path: Path
    threads: int
    retrieval: RetrievalMode
    verify: bool


@dataclass
class _Parts:
    """What an open runtime holds; siblings (`Runtime.with_retrieval`) share it."""

    bundle: Bundle
    tokenizer: TextTokenizer
    student: StudentSession
    kb: KnowledgeBase
    pid: int
    single: StudentSession | None = None  # the single-threaded session of predict_many, made when first needed


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
        self._parts: _Parts | None = parts
        self._retrieve = settings.retrieval == "always" and len(parts.kb) > 0

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        threads: int | None = 1,
        retrieval: RetrievalMode = "always",
        verify: bool = True,
    ) -> Runtime:
        """Open a bundle, check it, and prove on its golden texts that this machine computes what the exporter's did.

        Args:
            path: the bundle's folder.
            threads: threads that share one `predict`, or that run texts side by side in `predict_many`; None takes
                every core that this process may use.
            retrieval: ``"always"`` blends in the neighbours, ``"never"`` answers with the student alone.
            verify: check the files' SHA-256 sums; without it only existence and sizes are checked.

        Raises:
            BundleIntegrityError: a file is missing, truncated or altered.
            BundleVersionError: the bundle was written by a newer reaugkd.
            BundleError: the parts do not fit each other, or the golden texts come out differently.
            UsageError: an argument that cannot be meant.
        """
        settings = _Settings(Path(path).absolute(), checked_threads(threads), _checked_mode(retrieval), verify)
        return cls(settings, _open_parts(settings))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the probabilities."""
        return self._open_parts().bundle.manifest.labels

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._open_parts().bundle.manifest

    @property
    def threads(self) -> int:
        """The number of threads in use."""
        return self._settings.threads

    @property
    def retrieval(self) -> RetrievalMode:
        """``"always"`` or ``"never"``."""
        return self._settings.retrieval

    @property
    def knowledge_base(self) -> KnowledgeBase:
        """The bundle's knowledge base."""
        return self._open_parts().kb

    @property
    def student(self) -> StudentSession:
        """The student's session, for measuring it alone."""
        return self._open_parts().student

    @property
    def tokenizer(self) -> TextTokenizer:
        """The bundle's tokenizer."""
        return self._open_parts().tokenizer

    def with_retrieval(self, retrieval: RetrievalMode) -> Runtime:
        """A sibling on the same session and knowledge base with the other setting; closing one leaves the other."""
        settings = replace(self._settings, retrieval=_checked_mode(retrieval))
        return Runtime(settings, self._open_parts())

    def predict(self, text: Text) -> Prediction:
        """Answer one text, or one pair.

        Raises:
            TextError: the text is empty, longer than a million characters or not valid Unicode, or is a single text
                where the model reads pairs (or the reverse).
            ModelError: the student cannot run, or computes no number.
            UsageError: the runtime is closed.
        """
        parts = self._open_parts()
        return self._answer(parts, parts.student, text)

    @overload
    def predict_many(self, texts: Iterable[Text]) -> Iterator[Prediction]: ...
    @overload
    def predict_many(self, texts: Iterable[Text], on_error: Literal["raise"]) -> Iterator[Prediction]: ...
    @overload
    def predict_many(self, texts: Iterable[Text], on_error: OnError) -> Iterator[Prediction | ReaugkdError]: ...

    def predict_many(self, texts: Iterable[Text], on_error: OnError = "raise") -> Iterator[Prediction | ReaugkdError]:
        """Answer a stream of texts, lazily and in order, in constant memory.

        With ``threads`` above 1, texts run side by side, at most four a thread ahead of the one that is handed out.
        Leaving the iterator early, or a Ctrl-C, stops the threads.

        Args:
            texts: any iterable; it is read as answers are asked for, in the calling thread.
            on_error: ``"raise"`` stops at a bad text; ``"return"`` hands the error out in the text's place and goes on.
        """
        if on_error not in ("raise", "return"):
            raise UsageError("on_error is unknown", found=on_error, expected="raise or return")
        parts = self._open_parts()
        if self._settings.threads == 1:
            return (self._attempt(parts, parts.student, text, on_error) for text in texts)
        return self._side_by_side(parts, texts, on_error)

    def close(self) -> None:
        """Let go of the model and the knowledge base; predicting afterwards raises UsageError."""
        self._parts = None

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        settings = self._settings
        return (Runtime.open, (str(settings.path), settings.threads, settings.retrieval, settings.verify))

    def __repr__(self) -> str:
        settings = self._settings
        state = "" if self._parts is not None else ", closed"
        return f"Runtime({str(settings.path)!r}, threads={settings.threads}, retrieval={settings.retrieval!r}{state})"

    def _open_parts(self) -> _Parts:
        parts = self._parts
        if parts is None:
            raise UsageError("the runtime is closed", path=self._settings.path, remedy="Open the bundle again.")
        if parts.pid != os.getpid():
            parts = self._reopen(parts)
        return parts

    def _reopen(self, old: _Parts) -> _Parts:
        """After a fork: the parent's thread pools and locks are of no use here."""
        parts = _open_parts(self._settings)
        if parts.bundle.manifest != old.bundle.manifest:
            raise BundleError(
                "the bundle was replaced since it was opened",
                path=self._settings.path,
                remedy="Restart the program to use the new bundle.",
            )
        self._parts = parts
        return parts

    def _side_by_side(
        self, parts: _Parts, texts: Iterable[Text], on_error: OnError
    ) -> Iterator[Prediction | ReaugkdError]:
        threads = self._settings.threads
        if parts.single is None:
            parts.single = StudentSession(parts.bundle.model_path, threads=1)
        student = parts.single
        pool = ThreadPoolExecutor(threads, thread_name_prefix="reaugkd")

        def submitted() -> Iterator[Future[Prediction | ReaugkdError]]:
            try:
                for text in texts:
                    yield pool.submit(self._attempt, parts, student, text, on_error)
            except Exception as error:  # of the source: it takes its turn after what was read before it
                failed: Future[Prediction | ReaugkdError] = Future()
                failed.set_exception(error)
                yield failed

        waiting: deque[Future[Prediction | ReaugkdError]] = deque()
        try:
            for future in submitted():
                waiting.append(future)
                if len(waiting) >= threads * _LOOK_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _attempt(
        self, parts: _Parts, student: StudentSession, text: Text, on_error: OnError
    ) -> Prediction | ReaugkdError:
        if on_error == "raise":
            return self._answer(parts, student, text)
        try:
            return self._answer(parts, student, text)
        except ReaugkdError as error:
            return error

    def _answer(self, parts: _Parts, student: StudentSession, text: Text) -> Prediction:
        manifest = parts.bundle.manifest
        config = manifest.blend
        began = perf_counter_ns()
        encoding = parts.tokenizer.encode(*checked_input(text, manifest.text_pair))
        tokenized = perf_counter_ns()
        logits, embedding = student.run(encoding)
        ran = perf_counter_ns()
        if self._retrieve:
            rows, similarities = parts.kb.search(embedding, config.k)
            searched = perf_counter_ns()
            own = softmax(logits, config.student_temperature)
            soft_labels = parts.kb.soft_labels.take(rows, 0)
            probabilities, retrieved, weights, share = blend(own, similarities, soft_labels, config)
            found: Retrieval | tuple[()] = Retrieval(parts.kb, rows, similarities, weights)
        else:
            searched = ran
            own = probabilities = softmax(logits, config.student_temperature)
            retrieved, found, share = None, (), 1.0
        best = int(probabilities.argmax())
        probability = float(probabilities[best])
        if probability != probability:
            raise ModelError("the student computed no number", path=student.path, found="NaN")
        blended = perf_counter_ns()
        timings = Timings(
            (tokenized - began) / 1e3, (ran - tokenized) / 1e3, (searched - ran) / 1e3, (blended - searched) / 1e3
        )
        labels = manifest.labels
        return Prediction(
            labels[best], probability, probabilities, own, retrieved, self._retrieve, share, timings, labels, found
        )


def _checked_mode(retrieval: str) -> RetrievalMode:
    modes: dict[str, RetrievalMode] = {"always": "always", "never": "never"}
    if retrieval in modes:
        return modes[retrieval]
    raise UsageError("the retrieval setting is unknown", found=retrieval, expected="always or never")


def _open_parts(settings: _Settings) -> _Parts:
    bundle = Bundle.open(settings.path, settings.verify)
    manifest = bundle.manifest
    tokenizer = TextTokenizer(bundle.tokenizer_path, manifest.max_length)
    kb = KnowledgeBase.open(bundle.kb_folder, manifest.kb)
    for name, found, expected in (
        ("rows", len(kb), manifest.kb_rows),
        ("labels", kb.num_labels, len(manifest.labels)),
    ):
        if found != expected:
            raise BundleError(
                f"the knowledge base has another number of {name} than the manifest",
                path=bundle.kb_folder,
                found=found,
                expected=str(expected),
                remedy="Export the bundle again.",
            )
    student = StudentSession(bundle.model_path, settings.threads)
    check_golden(bundle, tokenizer, student)
    return _Parts(bundle, tokenizer, student, kb, os.getpid())

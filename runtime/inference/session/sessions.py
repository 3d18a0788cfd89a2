"""The sessions of a bundle's model, each opened when it is first needed."""

from __future__ import annotations

import threading
from hashlib import sha256

from ....errors import BundleIntegrityError
from ....kb.knowledge_base import KnowledgeBase
from ...bundle.bundle import MODEL_FILE, Bundle
from ...bundle.onnx_safety import operator_sets, read_onnx_file
from ...graph.retrieval import OLDEST_OPSET
from .model_session import ModelSession
from .retrieval_session import RetrievalSession
from .student import StudentSession


class Sessions:
    """Sessions of the student alone, and with the rows of a knowledge base in its graph.

    Runtimes of one bundle share them (`Runtime.with_retrieval`). A session is shared by all Python threads.

    Args:
        bundle: the bundle, whose files were checked.
        verify: whether their hashes were checked. Without it, a model that is replaced later is used at the next
            compaction.
    """

    def __init__(self, bundle: Bundle, verify: bool = True) -> None:
        self._bundle, self._verify = bundle, verify
        self._students: dict[int, StudentSession] = {}
        self._retrieval: dict[int, RetrievalSession] = {}
        self._base: KnowledgeBase | None = None
        self._opened = self._old = False
        self._lock = threading.Lock()

    def student(self, threads: int) -> StudentSession:
        """The session of the student alone that uses so many threads.

        Raises:
            BundleError: the model cannot be loaded, or was replaced since the bundle was opened.
        """
        with self._lock:
            if threads not in self._students:
                temperature = self._bundle.manifest.blend.student_temperature
                model = self._model()
                self._students[threads] = StudentSession(self._bundle.model_path, threads, model, temperature)
                self._bundle.check_links()
            return self._students[threads]

    def encoder(self, threads: int) -> ModelSession:
        """A session for logits and embedding alone: an open one, if there is one."""
        found = self._retrieval.get(threads) or self._students.get(threads)
        return self.student(threads) if found is None else found

    def retrieval(self, base: KnowledgeBase, threads: int) -> RetrievalSession | None:
        """The session with these rows in its graph; after a compaction the first call opens one with the new rows.

        None if the model's operators are older than the search needs (`graph.retrieval.OLDEST_OPSET`).

        Raises:
            BundleError: same as `RetrievalSession`.
        """
        with self._lock:
            sessions = self._retrieval if self._base is base else {}
            if threads not in sessions and not self._old:
                manifest, path, model = self._bundle.manifest, self._bundle.model_path, self._model()
                self._old = operator_sets(model).get("", OLDEST_OPSET) < OLDEST_OPSET
                if not self._old:
                    classes = len(manifest.labels)
                    sessions[threads] = RetrievalSession(path, base, manifest.blend, classes, threads, model)
                self._bundle.check_links()
            self._retrieval, self._base = sessions, base
            return sessions.get(threads)

    def _model(self) -> bytes:
        """The model file.

        Raises:
            BundleIntegrityError: it is not the one whose hash was checked just before the first session was opened.
            BundleError: it is no usable model.
        """
        model = read_model(self._bundle, self._verify and self._opened)
        self._opened = True
        return model


def read_model(bundle: Bundle, verify: bool = True) -> bytes:
    """Read the model file of an open bundle.

    Args:
        bundle: the bundle.
        verify: check its hash.

    Raises:
        BundleIntegrityError: it is missing, or not the one that the bundle was opened with.
        BundleError: it is no usable model.
    """
    path, record = bundle.model_path, bundle.manifest.files[MODEL_FILE]
    model = read_onnx_file(path)
    if verify and sha256(model).hexdigest() != record.sha256:
        raise BundleIntegrityError(
            "the model was replaced after the bundle was opened", path=path, remedy="Open the bundle again."
        )
    return model

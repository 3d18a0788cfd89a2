"""The session that answers with the student alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...bundle.onnx_safety import output_names, read_onnx_file
from ...graph.retrieval import STUDENT_BEST, student_graph
from ..text.word_ids import Tokens
from .model_session import OUTPUTS, PROBABILITIES, ModelSession


class StudentAnswer(NamedTuple):
    """The student's largest probability and its class, its probabilities float32 [c], and its embedding float32 [d]."""

    top: float
    best: int
    probabilities: NDArray[np.float32]
    embedding: NDArray[np.float32]


class StudentSession(ModelSession):
    """A `ModelSession` of ``model.onnx`` that answers.

    Args:
        path: the model file.
        threads: threads that share one run.
        model: the checked content of the file; None to read and check it.
        temperature: the temperature of the logits, for a model without the output ``probabilities``.

    Raises:
        BundleError: the model cannot be loaded, or its inputs or outputs are wrong.
    """

    def __init__(self, path: Path, threads: int = 1, model: bytes | None = None, temperature: float = 1.0) -> None:
        model = read_onnx_file(path) if model is None else model
        names = output_names(model)
        if set(OUTPUTS) <= names:
            own = PROBABILITIES if PROBABILITIES in names else None
            model = student_graph(own, temperature).appended_to(model)
        super().__init__(path, threads, model)

    def answer(self, tokens: Tokens) -> StudentAnswer:
        """The student's answer to one text; its probabilities are softmax(logits / temperature).

        Raises:
            ModelError: same as `run`.
        """
        found, own, embedding = self._outputs([STUDENT_BEST, self._own, "embedding"], tokens)
        best = int(found)
        return StudentAnswer(own.item(best), best, own, embedding)

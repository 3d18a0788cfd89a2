"""The student: one ONNX Runtime session, set up for an edge device, that runs one text at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from ...errors import BundleError, ModelError
from ..bundle.onnx_safety import check_onnx_file
from ..decision.blending import softmax
from .onnxruntime_setup import import_onnxruntime, keep_in_children

OUTPUTS = ["logits", "embedding"]
PROBABILITIES = "probabilities"
KNOWN_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
_WARNING = 2
_LONGEST_SHARED_MASK = 4096
# The fused kernel takes more than twice the time of an addition and a LayerNormalization (37 against 15 us at 14
# tokens, 384 components): 9 % of a 3-layer student's run, seen with ONNX Runtime 1.31.
_DISABLED_OPTIMIZERS = ["SkipLayerNormFusion"]


class StudentSession:
    """``model.onnx`` with outputs ``logits`` [1, c] and ``embedding`` [1, d] (of length 1), and nearly always
    ``probabilities`` [1, c], calibrated.

    Texts are never batched or padded: dynamic int8 takes its ranges from the whole tensor, so that a text's answer
    would depend on its neighbours in the batch. The threads are ``threads`` and no more, and idle threads sleep instead
    of spinning.

    Args:
        path: the model.
        threads: threads that share one run.

    Raises:
        BundleError: the model cannot be loaded, or has other inputs and outputs.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.path = path
        self.session = _session(path, threads)
        names = {node.name for node in self.session.get_inputs()}
        outputs = {node.name for node in self.session.get_outputs()}
        if "input_ids" not in names or names - KNOWN_INPUTS or set(OUTPUTS) - outputs:
            raise BundleError(
                "the model has other inputs or outputs",
                path=path,
                found=f"{sorted(names)} -> {sorted(outputs)}",
                expected=f"input_ids and of {sorted(KNOWN_INPUTS - {'input_ids'})} -> {OUTPUTS}",
            )
        self._mask = np.ones((1, _LONGEST_SHARED_MASK), np.int64) if "attention_mask" in names else None
        self._types = "token_type_ids" in names
        self._answers = [PROBABILITIES, "embedding"] if PROBABILITIES in outputs else None
        self._run = self.session.run

    def feeds(self, encoding: Encoding) -> dict[str, NDArray[np.int64]]:
        """The session's inputs for one text, each int64 [1, tokens]."""
        ids = np.array([encoding.ids], np.int64)
        feeds = {"input_ids": ids}
        if self._mask is not None:
            # Never padded, so always all ones; sliced from one array instead of made anew.
            mask = self._mask[:, : ids.shape[1]]
            feeds["attention_mask"] = mask if mask.shape == ids.shape else np.ones_like(ids)
        if self._types:
            feeds["token_type_ids"] = np.array([encoding.type_ids], np.int64)
        return feeds

    def run(self, encoding: Encoding) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One text's logits float32 [c] and embedding float32 [d].

        Raises:
            ModelError: the model cannot run on these tokens, e.g. one that it has no embedding of.
        """
        logits, embedding = self._outputs(OUTPUTS, encoding)
        return logits, embedding

    def everything(
        self, encoding: Encoding, temperature: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """One text's logits and embedding, as of ``run``, and probabilities, as of ``answer``, of one run of the model.

        Raises:
            ModelError: as of ``run``.
        """
        if self._answers is None:
            logits, embedding = self.run(encoding)
            return logits, embedding, softmax(logits, temperature)
        logits, embedding, probabilities = self._outputs([*OUTPUTS, PROBABILITIES], encoding)
        return logits, embedding, probabilities

    def answer(self, encoding: Encoding, temperature: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One text's probabilities float32 [c], softmax(logits / temperature), and embedding float32 [d].

        Args:
            encoding: of the text.
            temperature: the one that the model's own probabilities were made with; used where it has none.

        Raises:
            ModelError: as of ``run``.
        """
        if self._answers is not None:
            probabilities, embedding = self._outputs(self._answers, encoding)
            return probabilities, embedding
        logits, embedding = self._outputs(OUTPUTS, encoding)
        return softmax(logits, temperature), embedding

    def _outputs(self, names: list[str], encoding: Encoding) -> list[NDArray[np.float32]]:
        try:
            found = self._run(names, self.feeds(encoding))
        except Exception as error:  # ONNX Runtime's exceptions share no base class but this
            raise ModelError("the student cannot run", path=self.path, found=_first_line(error)) from error
        return [output[0] for output in found]


def _session(path: Path, threads: int) -> Any:
    onnxruntime = import_onnxruntime()
    check_onnx_file(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _WARNING
    # With texts of every length the arena and its patterns only ever grow: a third more memory, and not faster.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_DISABLED_OPTIMIZERS,
            enable_fallback=0,  # to the same provider once more, with a banner on stdout
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base class but this
        raise BundleError(
            "the model cannot be loaded",
            path=path,
            found=_first_line(error),
            expected=f"a model that onnxruntime {onnxruntime.__version__} reads",
            remedy="Upgrade onnxruntime, or export the bundle again.",
        ) from error
    keep_in_children(session)
    return session


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

"""A session of ONNX Runtime, configured for an edge device, that runs one text at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from ....errors import BundleError, ModelError
from ...graph.builder import Array
from ...graph.retrieval import STUDENT
from ..text.word_ids import Tokens
from .onnxruntime_setup import import_onnxruntime, keep_in_children
from .saturation import int8_saturates

OUTPUTS = ["logits", "embedding"]
PROBABILITIES = "probabilities"
KNOWN_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
_WARNING = 2
_CONSTANTS = {"attention_mask": 1, "token_type_ids": 0}
_LONGEST_KEPT = 512  # tokens; the arrays of all lengths up to it have 2 MB
# The fused kernel takes more than twice as long as an addition and a LayerNormalization (37 and 15 us at 14 tokens, 384
# components): 9 % of the run of a 3-layer student, measured with ONNX Runtime 1.31.
_DISABLED_OPTIMIZERS = ["SkipLayerNormFusion"]
_FOLDER = "session.model_external_initializers_file_folder_path"


class ModelSession:
    """A session of a model with the outputs ``logits`` [1, c] and ``embedding`` [1, d], of length 1.

    Nearly every model also has the output ``probabilities`` [1, c], with the calibrated temperature; the models of
    early bundles get it when they are opened. Texts are never batched or padded: dynamic int8 computes its ranges from
    the whole tensor, so a text's answer would depend on the other texts of the batch. The session uses exactly
    ``threads`` threads, which sleep when idle instead of spinning.

    Args:
        path: the model file, for error messages and as the place of ``arrays``.
        threads: threads that share one run.
        model: the content of the file, with nodes appended.
        profile: first part of the name of a profile, which ``session.end_profiling`` writes; None for no profile.
        arrays: constants that are not in the model (`graph.builder`).

    Attributes:
        path: same as the argument.
        session: ONNX Runtime's session.

    Raises:
        BundleError: the model cannot be loaded, or its inputs or outputs are wrong.
    """

    def __init__(
        self,
        path: Path,
        threads: int,
        model: bytes,
        profile: Path | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        self.path = path
        self.session, self._values = _session(path, threads, model, profile, arrays or {})
        names = {node.name for node in self.session.get_inputs()}
        outputs = {node.name for node in self.session.get_outputs()}
        if "input_ids" not in names or names - KNOWN_INPUTS or set(OUTPUTS) - outputs:
            raise BundleError(
                "the model's inputs or outputs are wrong",
                path=path,
                found=f"{sorted(names)} -> {sorted(outputs)}",
                expected=f"input_ids and any of {sorted(KNOWN_INPUTS - {'input_ids'})} -> {OUTPUTS}",
            )
        self._types = "token_type_ids" in names
        self._values_of = {name: value for name, value in _CONSTANTS.items() if name in names}
        self._constant: dict[int, dict[str, NDArray[np.int64]]] = {}  # by the number of tokens
        self._own = PROBABILITIES if PROBABILITIES in outputs else STUDENT
        self._run = self.session.run

    def feeds(self, tokens: Tokens | Encoding) -> dict[str, NDArray[np.int64]]:
        """The inputs of the session for one text, each int64 [1, tokens]."""
        ids, types = tokens.ids, tokens.type_ids
        constant = self._constant.get(len(ids))
        if constant is None:
            constant = self._constants(len(ids))
        feeds = {"input_ids": np.array([ids], np.int64), **constant}
        if types is not None and self._types:
            feeds["token_type_ids"] = np.array([types], np.int64)
        return feeds

    def _constants(self, tokens: int) -> dict[str, NDArray[np.int64]]:
        """The inputs that are the same for all single texts with so many tokens.

        The mask is all ones, because texts are never padded.
        """
        made = {name: np.full((1, tokens), value, np.int64) for name, value in self._values_of.items()}
        if tokens <= _LONGEST_KEPT:
            self._constant[tokens] = made
        return made

    def run(self, tokens: Tokens | Encoding) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The logits float32 [c] and the embedding float32 [d] of one text.

        Raises:
            ModelError: the model cannot run on these tokens, for example if it has no embedding for one of them.
        """
        logits, embedding = self._outputs(OUTPUTS, tokens)
        return logits, embedding

    def everything(
        self, tokens: Tokens | Encoding
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """The logits, the embedding and the probabilities of one text, from one run of the model.

        Raises:
            ModelError: same as `run`.
        """
        logits, embedding, probabilities = self._outputs([*OUTPUTS, self._own], tokens)
        return logits, embedding, probabilities

    def _outputs(self, names: list[str], tokens: Tokens | Encoding) -> list[NDArray[Any]]:
        try:
            found = self._run(names, self.feeds(tokens))
        except Exception as error:  # ONNX Runtime's exceptions have no other common base class
            raise ModelError("the student cannot run", path=self.path, found=_first_line(error)) from error
        return [output[0] for output in found]


def _session(
    path: Path, threads: int, model: bytes, profile: Path | None, arrays: Mapping[str, Array]
) -> tuple[Any, list[Any]]:
    """A session, and the values that it shares with the caller, who must keep them.

    Raises:
        BundleError: the model cannot be loaded.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _WARNING
    # With texts of varying length, the arena and its patterns only grow: a third more memory, and no faster.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # For models of the targets avx512_vnni and arm64: exact integers, the same as with VNNI.
    if int8_saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")
    if arrays:
        options.add_session_config_entry(_FOLDER, str(path.resolve().parent))
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
    for name, value in zip(arrays, values, strict=True):
        options.add_initializer(name, value)
    try:
        session = onnxruntime.InferenceSession(
            model,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_DISABLED_OPTIMIZERS,
            enable_fallback=0,  # the fallback is the same provider again, with a banner on stdout
        )
    except Exception as error:  # ONNX Runtime's exceptions have no other common base class
        raise BundleError(
            "the model cannot be loaded",
            path=path,
            found=_first_line(error),
            expected=f"a model that onnxruntime {onnxruntime.__version__} can load",
            remedy="Upgrade onnxruntime, or export the bundle again.",
        ) from error
    keep_in_children(session)
    return session, values


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

"""Add the student's calibrated probabilities as an output of the model: softmax(logits / student_temperature).

In Python, five numpy calls after a run of the model cost 3 % of its time, because the run evicts their data from the
processor's caches. In the graph they cost almost nothing, and programs without reaugkd get the probabilities too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...kb.storage.atomic import atomic_write
from ...runtime.inference.session.model_session import PROBABILITIES

_INVERSE, _SCALED = "reaugkd_inverse_temperature", "reaugkd_scaled_logits"


def add_probabilities(path: Path, temperature: float) -> None:
    """Add output ``probabilities`` [batch, c] to a model with output ``logits`` [batch, c].

    Args:
        path: path of the model, which is replaced atomically.
        temperature: the student's temperature, more than 0.

    Raises:
        StorageError: the file cannot be written.
    """
    model = onnx.load(str(path))
    graph = model.graph
    (logits,) = (output for output in graph.output if output.name == "logits")
    graph.initializer.append(numpy_helper.from_array(np.array(1.0 / temperature, np.float32), _INVERSE))
    graph.node.append(helper.make_node("Mul", ["logits", _INVERSE], [_SCALED]))
    graph.node.append(helper.make_node("Softmax", [_SCALED], [PROBABILITIES], axis=-1))
    probabilities = graph.output.add()
    probabilities.CopyFrom(logits)
    probabilities.name = PROBABILITIES
    assert probabilities.type.tensor_type.elem_type == TensorProto.FLOAT
    with atomic_write(path, "wb") as file:
        file.write(model.SerializeToString(deterministic=True))

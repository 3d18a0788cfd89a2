"""The student's calibrated probabilities as an output of the model itself: softmax(logits / student_temperature).

Five calls of numpy on caches that the model's weights have just emptied cost 3 % of a run of the student; inside the
graph the same arithmetic costs next to nothing, and whoever runs the model without reaugkd has the probabilities too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...kb.storage.atomic import atomic_write
from ...runtime.inference.student import PROBABILITIES

_INVERSE, _SCALED = "reaugkd_inverse_temperature", "reaugkd_scaled_logits"


def add_probabilities(path: Path, temperature: float) -> None:
    """Give a bundle's model, with output ``logits`` [batch, c], an output ``probabilities`` [batch, c].

    Args:
        path: of the model; replaced by the larger one, whole or not at all.
        temperature: the student's, more than 0.

    Raises:
        StorageError: the disk refused.
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

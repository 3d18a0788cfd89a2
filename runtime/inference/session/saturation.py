"""Whether ONNX Runtime's int8 products overflow on this processor.

On x86-64 without VNNI, the kernels for u8 activations and s8 weights add pairs of products in 16 bits, which saturate.
The session's entry ``session.x64quantprecision`` asks for exact kernels. ONNX Runtime then uses them with VNNI too,
where nothing saturates, and a run takes nearly twice as long. So one small product decides.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .onnxruntime_setup import import_onnxruntime

# A model of one node, MatMulInteger of u8 [2, 16] and s8 [16, 16]; its test makes the same.
_INNER = 16
_MODEL = bytes.fromhex(
    "080512003a5c0a180a01610a0162120163220d4d61744d756c496e74656765721201675a130a0161120e0a0c080212080a0208020a020810"
    "5a130a0162120e0a0c080312080a0208100a02081062130a0163120e0a0c080612080a0208020a02081042040a00100a"
)
_LARGEST_U8, _LARGEST_S8 = 255, 127


@cache
def int8_saturates() -> bool:
    """Whether the largest products are computed wrongly."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # no threads, so a fork has none to lose
    session = onnxruntime.InferenceSession(_MODEL, options, providers=["CPUExecutionProvider"])
    activations = np.full((2, _INNER), _LARGEST_U8, np.uint8)
    weights = np.full((_INNER, 16), _LARGEST_S8, np.int8)
    (found,) = session.run(None, {"a": activations, "b": weights})
    return bool((found != _INNER * _LARGEST_U8 * _LARGEST_S8).any())

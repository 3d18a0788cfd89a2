"""Quantization of the student: its token embeddings in 4 bits, and dynamic int8 of the products with weights."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
import torch
from onnx import TensorProto
from onnxruntime.quantization import QuantType, quantize_dynamic

from ...errors import QualityError
from .quiet import quiet
from .token_table import pack_token_table

Target = Literal["avx2", "avx512_vnni", "arm64"]
Quantization = Literal["dynamic", "none"]

TARGETS: tuple[Target, ...] = ("avx2", "avx512_vnni", "arm64")

# Type of the weights; activations are always u8. Products of u8 and s8 saturate on AVX2 without VNNI.
WEIGHT_TYPES: dict[Target, QuantType] = {
    "avx2": QuantType.QUInt8,
    "avx512_vnni": QuantType.QInt8,
    "arm64": QuantType.QInt8,
}
QUANTIZED_OPS = ("MatMul", "Gemm", "Attention", "Gather", "EmbedLayerNormalization")
_MATRIX_OPS = ("MatMul", "Gemm")
_INTEGER_OPS = frozenset(
    ("MatMulInteger", "QLinearMatMul", "QGemm", "QAttention", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")
)


@dataclass(frozen=True)
class QuantizedNodes:
    """Counts of nodes by precision, and bytes before and after quantization.

    Args:
        int8: number of int8 matrix products.
        float32: number of float32 matrix products with weights.
        int8_gathers: number of table look-ups in int8 or 4 bits.
        bytes_float32: bytes of the model before quantization.
        bytes_int8: bytes of the model after quantization.
    """

    int8: int
    float32: int
    int8_gathers: int
    bytes_float32: int
    bytes_int8: int


def detect_target() -> Target:
    """Return the target for this machine's processor."""
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("architecture") in ("aarch64", "arm64"):
        return "arm64"
    return "avx512_vnni" if capabilities.get("avx512_vnni") else "avx2"


def quantize(model: Path, target: Target, quantization: Quantization, out: Path) -> QuantizedNodes:
    """Write ``out/model.onnx``, quantized for a target, and copy the model's config.json.

    Args:
        model: the float32 model, with config.json in the same folder; for ``dynamic``, with fused attention if possible
            (`attention_fusion`).
        target: the processor family, which decides the type of the weights (`WEIGHT_TYPES`).
        quantization: ``dynamic`` (activation ranges are computed at run time) or ``none``.
        out: an existing folder.

    Raises:
        QualityError: most matrix products are still float32 (quantization can skip layers silently).
    """
    made = out / "model.onnx"
    shutil.copyfile(model.parent / "config.json", out / "config.json")
    if quantization == "none":
        made.write_bytes(model.read_bytes())
        return count_nodes(model, made)
    prepared = onnx.load(str(model))
    packed = pack_token_table(prepared)
    with quiet():
        quantize_dynamic(
            prepared,
            str(made),
            nodes_to_exclude=packed,
            op_types_to_quantize=list(QUANTIZED_OPS),
            per_channel=True,
            reduce_range=False,
            weight_type=WEIGHT_TYPES[target],
            extra_options={
                "MatMulConstBOnly": True,  # products of two activations are small and belong to attention
                "WeightSymmetric": True,
                "ActivationSymmetric": False,
                "DefaultTensorType": TensorProto.FLOAT,  # output type of Attention, unknown to shape inference
            },
        )
    counted = count_nodes(model, made)
    if counted.int8 == 0 or counted.float32 > counted.int8:
        raise QualityError(
            "quantization skipped most of the student's matrix products",
            found=f"{counted.int8} int8 and {counted.float32} float32",
            expected="nearly all of them int8",
            remedy="Export with --quantization none, and report the versions of onnxruntime and torch.",
        )
    return counted


def count_nodes(float32: Path, quantized: Path) -> QuantizedNodes:
    """Count int8 nodes: integer matrix products, and float products with inputs from DequantizeLinear (QDQ).

    Args:
        float32: path of the model before quantization.
        quantized: path of the model after quantization.
    """
    graph = onnx.load(str(quantized)).graph
    producers = {output: node.op_type for node in graph.node for output in node.output}
    constants = {item.name for item in graph.initializer}
    int8_tables = {item.name for item in graph.initializer if item.data_type in (TensorProto.INT8, TensorProto.UINT8)}
    # Tables are int8, or in QDQ form outputs of a DequantizeLinear of the whole table.
    tables = int8_tables | {
        node.output[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in int8_tables
    }
    int8 = left = gathers = 0
    for node in graph.node:
        sources = [producers.get(name) for name in node.input]
        if node.op_type in _INTEGER_OPS:
            int8 += 1
        elif node.op_type in (*_MATRIX_OPS, "Attention"):
            weighted = any(name in constants for name in node.input)
            int8 += "DequantizeLinear" in sources
            left += weighted and "DequantizeLinear" not in sources
        elif node.op_type == "Gather":
            gathers += node.input[0] in tables
    return QuantizedNodes(int8, left, gathers, float32.stat().st_size, quantized.stat().st_size)

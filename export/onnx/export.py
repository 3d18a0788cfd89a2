"""ONNX export and int8 quantization of the student; the only module that imports optimum.

Optimum's preset is passed to ONNX Runtime's quantizer, because optimum's quantizer cannot restrict quantization to
products with weights and cannot set the output type of fused nodes.
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from onnx import TensorProto
from onnxruntime.quantization import quantize_dynamic
from optimum.exporters.onnx import export as optimum_export
from optimum.exporters.tasks import TasksManager
from optimum.onnxruntime import AutoQuantizationConfig, ORTConfig
from torch import Tensor
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from ...errors import ModelError, QualityError
from ...runtime.inference.onnxruntime_setup import import_onnxruntime
from ..modeling.encoder import EncoderClassifier, Outputs, takes_token_types

Target = Literal["avx2", "avx512_vnni", "arm64"]
Quantization = Literal["dynamic", "none"]

TARGETS: tuple[Target, ...] = ("avx2", "avx512_vnni", "arm64")

# Opset 17 has LayerNormalization as one node; ONNX Runtime 1.12 and later support it.
OPSET = 17
_MATRIX_OPS = ["MatMul", "Gemm"]
_INTEGER_OPS = frozenset(
    ("MatMulInteger", "QLinearMatMul", "QGemm", "QAttention", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")
)
_EXPORT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class QuantizedNodes:
    """Counts of nodes by precision, and bytes before and after quantization.

    Args:
        int8: number of int8 matrix products.
        float32: number of float32 matrix products with weights.
        int8_gathers: number of table look-ups in int8.
        bytes_float32: bytes of the model before quantization.
        bytes_int8: bytes of the model after quantization.
    """

    int8: int
    float32: int
    int8_gathers: int
    bytes_float32: int
    bytes_int8: int


def detect_target() -> Target:
    """Return the preset for this machine's processor."""
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("architecture") in ("aarch64", "arm64"):
        return "arm64"
    return "avx512_vnni" if capabilities.get("avx512_vnni") else "avx2"


class _Exportable(PreTrainedModel):  # type: ignore[misc]
    """Adapter of the student to the names and types that optimum's exporter expects."""

    config_class = PretrainedConfig

    def __init__(self, student: EncoderClassifier) -> None:
        super().__init__(student.encoder.config)
        self.student = student

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        outputs: Outputs = self.student(**inputs)
        return {"logits": outputs.logits, "embedding": outputs.embedding}


def onnx_config(config: PretrainedConfig) -> Any:
    """Make optimum's export configuration for a model type, with outputs ``logits`` and ``embedding``.

    Raises:
        ModelError: optimum cannot export this model type.
    """
    try:
        constructor = TasksManager.get_exporter_config_constructor(
            "onnx", model_type=config.model_type, task="text-classification", library_name="transformers"
        )
    except (KeyError, ValueError) as error:
        raise ModelError(
            "this kind of student cannot be exported to ONNX",
            found=config.model_type,
            expected="a model type that optimum-onnx exports for text classification",
            remedy="Start the student from another model: --student MODEL.",
        ) from error
    base = type(constructor(config))

    class StudentOnnxConfig(base):  # type: ignore[misc, valid-type]
        @property
        def inputs(self) -> dict[str, dict[int, str]]:
            # The inputs of the training, which can differ from the model type's default inputs.
            types = ["token_type_ids"] if takes_token_types(config) else []
            axes = {0: "batch_size", 1: "sequence_length"}
            return {name: dict(axes) for name in ("input_ids", "attention_mask", *types)}

        @property
        def outputs(self) -> dict[str, dict[int, str]]:
            return {"logits": {0: "batch_size"}, "embedding": {0: "batch_size"}}

    return StudentOnnxConfig(config, task="text-classification")


def export_float32(student: EncoderClassifier, label_names: Sequence[str], max_length: int, folder: Path) -> Path:
    """Write the student as ``folder/model.onnx`` with outputs ``logits`` and ``embedding``, and its config.json.

    Args:
        student: the student; not changed.
        label_names: the labels in order, for id2label in the configuration.
        max_length: largest number of tokens of a text, for the tokenizer's configuration.
        folder: an existing folder.

    Returns:
        The path of model.onnx.
    """
    student = _with_eager_attention(student)
    config = student.encoder.config
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: number for number, name in enumerate(label_names)}
    config.architectures = ["AutoModelForSequenceClassification"]
    path = folder / "model.onnx"
    with _quiet():
        optimum_export(_Exportable(student), onnx_config(config), path, opset=OPSET)
    config.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length}), encoding="utf-8"
    )
    return path


def _with_eager_attention(student: EncoderClassifier) -> EncoderClassifier:
    """Copy the student with eager attention, which can be traced for any batch size and length."""
    config = copy.deepcopy(student.encoder.config)
    copied = EncoderClassifier(AutoModel.from_config(config, attn_implementation="eager"), student.head)
    copied.load_state_dict(student.state_dict(), strict=False)  # only an unused pooler is missing
    return copied.eval()


def require_same_answers(student: EncoderClassifier, model: Path, batch: dict[str, Tensor]) -> None:
    """Check on one padded batch that the float32 ONNX model has the same outputs as the torch model.

    Args:
        student: the torch model.
        model: path of the ONNX model.
        batch: the tokenizer's outputs, each [n, t].

    Raises:
        ModelError: a logit or a component of an embedding differs by more than the tolerance.
    """
    feeds = {name: value.numpy() for name, value in batch.items()}
    session = import_onnxruntime().InferenceSession(str(model), providers=["CPUExecutionProvider"])
    found = session.run(["logits", "embedding"], feeds)
    with torch.inference_mode():
        expected = student.eval()(**batch)
    for name, here, there in zip(expected._fields, found, expected, strict=True):
        difference = float((torch.from_numpy(here) - there).abs().max())
        if not difference <= _EXPORT_TOLERANCE * max(1.0, float(there.abs().max())):
            raise ModelError(
                "the exported model gives other outputs than the student",
                found=f"a difference of {difference:.3g} in {name}",
                expected=f"at most {_EXPORT_TOLERANCE} of the largest value",
                remedy="Start the student from another model: --student MODEL.",
            )


def quantize(model: Path, target: Target, quantization: Quantization, out: Path) -> QuantizedNodes:
    """Write ``out/model.onnx``, quantized with the target's preset, and ``out/ort_config.json``.

    Args:
        model: the float32 model, with config.json in the same folder; for ``dynamic``, with fused attention if possible
            (`attention_fusion`).
        target: the preset (u8u8 for avx2, u8s8 for avx512_vnni and arm64).
        quantization: ``dynamic`` (activation ranges are computed at run time) or ``none``.
        out: an existing folder.

    Raises:
        QualityError: most matrix products are still float32 (quantization can skip layers silently).
    """
    if quantization == "none":
        (out / "model.onnx").write_bytes(model.read_bytes())
        ORTConfig().save_pretrained(out)
        return count_nodes(model, out / "model.onnx")
    config = getattr(AutoQuantizationConfig, target)(is_static=False, per_channel=True)
    with _quiet():
        _quantize_dynamic(model, config, out)
    counted = count_nodes(model, out / "model.onnx")
    if counted.int8 == 0 or counted.float32 > counted.int8:
        raise QualityError(
            "quantization skipped most of the student's matrix products",
            found=f"{counted.int8} int8 and {counted.float32} float32",
            expected="nearly all of them int8",
            remedy="Export with --quantization none, and report the versions of onnxruntime and optimum-onnx.",
        )
    return counted


def _quantize_dynamic(model: Path, config: Any, out: Path) -> None:
    """Quantize with the preset, except products of two activations, which are small and belong to attention."""
    quantize_dynamic(
        str(model),
        str(out / "model.onnx"),
        op_types_to_quantize=[*config.operators_to_quantize, "Gemm"],
        per_channel=config.per_channel,
        reduce_range=config.reduce_range,
        weight_type=config.weights_dtype,
        extra_options={
            "MatMulConstBOnly": True,
            "WeightSymmetric": config.weights_symmetric,
            "ActivationSymmetric": config.activations_symmetric,
            "DefaultTensorType": TensorProto.FLOAT,  # output type of Attention, unknown to shape inference
        },
    )
    ORTConfig(quantization=config).save_pretrained(out)
    shutil.copyfile(model.parent / "config.json", out / "config.json")


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's warnings about tracing and deprecations, which do not help a user."""
    loggers = [logging.getLogger(name) for name in ("optimum", "onnxruntime", "root", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

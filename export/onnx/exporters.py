"""Exporters: write the student's float32 graph, with inputs ids, mask [, types] and outputs logits and embedding.

``torch`` is PyTorch's own exporter by tracing. Its graph is the one whose attention ONNX Runtime's optimizer can fuse;
the exporter by ``torch.export`` takes six times as long and needs two more packages. ``optimum`` is optimum-onnx, which
needs transformers below 4.58, so an environment of its own (extra ``train-optimum``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from ...errors import DependencyError, ModelError
from ..modeling.encoder import EncoderClassifier, Outputs, takes_token_types
from .quiet import quiet

Exporter = Literal["torch", "optimum"]

# Opset 17 has LayerNormalization as one node; ONNX Runtime 1.12 and later support it.
OPSET = 17
OUTPUTS = ("logits", "embedding")
_EXAMPLE = (2, 8)  # rows and tokens of the text that is traced


def write_graph(exporter: Exporter, student: EncoderClassifier, path: Path) -> None:
    """Write the float32 graph of a student.

    Args:
        exporter: ``torch`` or ``optimum``.
        student: with eager attention, which can be traced for any batch size and length.
        path: the new file.

    Raises:
        DependencyError: optimum-onnx is not installed.
        ModelError: the exporter cannot export this type of model.
    """
    with quiet():
        _EXPORTERS[exporter](student, path)


def input_names(config: Any) -> list[str]:
    """Return the names of the graph's inputs, which are those of the training."""
    return ["input_ids", "attention_mask", *(["token_type_ids"] if takes_token_types(config) else [])]


class _Traced(nn.Module):
    """The student with inputs by position, as tracing needs them."""

    def __init__(self, student: EncoderClassifier) -> None:
        super().__init__()
        self.student = student
        self.names = input_names(student.encoder.config)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        outputs: Outputs = self.student(**dict(zip(self.names, inputs, strict=True)))
        return outputs.logits, outputs.embedding


def _with_torch(student: EncoderClassifier, path: Path) -> None:
    traced = _Traced(student)
    rows, tokens = _EXAMPLE
    ids = (torch.arange(rows * tokens).reshape(rows, tokens) % (student.encoder.config.vocab_size - 1)) + 1
    # With padding in the second row: a mask of ones alone lets some models leave out the mask.
    mask = torch.ones_like(ids)
    mask[1, tokens // 2 :] = 0
    axes = {0: "batch_size", 1: "sequence_length"}
    try:
        torch.onnx.export(
            traced,
            (ids, mask, torch.zeros_like(ids))[: len(traced.names)],
            str(path),
            input_names=traced.names,
            output_names=list(OUTPUTS),
            dynamic_axes={**{name: axes for name in traced.names}, **{name: {0: "batch_size"} for name in OUTPUTS}},
            opset_version=OPSET,
            dynamo=False,
        )
    except (RuntimeError, TypeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        raise _not_exportable(student, str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _with_optimum(student: EncoderClassifier, path: Path) -> None:
    try:
        from optimum.exporters.onnx import export
        from optimum.exporters.tasks import TasksManager
    except ImportError as error:
        raise DependencyError(
            "exporting with optimum needs optimum-onnx",
            found=str(error),
            expected="an environment with transformers below 4.58",
            remedy="Install it in an environment of its own: "
            "pip install 'reaugkd[train-optimum]'. Or leave out --exporter.",
        ) from error
    config = student.encoder.config
    try:
        constructor = TasksManager.get_exporter_config_constructor(
            "onnx", model_type=config.model_type, task="text-classification", library_name="transformers"
        )
    except (KeyError, ValueError) as error:
        raise _not_exportable(student, config.model_type) from error
    base = type(constructor(config))

    class StudentOnnxConfig(base):  # type: ignore[misc, valid-type]
        @property
        def inputs(self) -> dict[str, dict[int, str]]:
            return {name: {0: "batch_size", 1: "sequence_length"} for name in input_names(config)}

        @property
        def outputs(self) -> dict[str, dict[int, str]]:
            return {name: {0: "batch_size"} for name in OUTPUTS}

    export(_Exportable(student), StudentOnnxConfig(config, task="text-classification"), path, opset=OPSET)


class _Exportable(PreTrainedModel):  # type: ignore[misc]
    """The student with the base class and the outputs that optimum's exporter expects."""

    config_class = PretrainedConfig

    def __init__(self, student: EncoderClassifier) -> None:
        super().__init__(student.encoder.config)
        self.student = student

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        outputs = self.student(**{name: given[name] for name in input_names(self.config)})
        return dict(zip(OUTPUTS, outputs, strict=True))


def _not_exportable(student: EncoderClassifier, found: str) -> ModelError:
    return ModelError(
        "this type of student cannot be exported to ONNX",
        path=student.encoder.config.model_type,
        found=found,
        expected="an encoder such as BERT or RoBERTa",
        remedy="Start the student from another model: --student MODEL.",
    )


_EXPORTERS: dict[Exporter, Callable[[EncoderClassifier, Path], None]] = {"torch": _with_torch, "optimum": _with_optimum}
EXPORTERS: tuple[Exporter, ...] = tuple(_EXPORTERS)

"""ONNX export of the student in float32."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModel

from ...errors import ModelError
from ...runtime.inference.session.onnxruntime_setup import import_onnxruntime
from ..modeling.encoder import EncoderClassifier
from .exporters import OUTPUTS, Exporter, write_graph

_EXPORT_TOLERANCE = 1e-3


def export_float32(
    student: EncoderClassifier,
    label_names: Sequence[str],
    max_length: int,
    folder: Path,
    exporter: Exporter = "torch",
) -> Path:
    """Write the student as ``folder/model.onnx`` with outputs ``logits`` and ``embedding``, and its config.json.

    Args:
        student: the student; not changed.
        label_names: the labels in order, for id2label in the configuration.
        max_length: largest number of tokens of a text, for the tokenizer's configuration.
        folder: an existing folder.
        exporter: ``torch`` or ``optimum`` (`exporters`).

    Returns:
        The path of model.onnx.

    Raises:
        DependencyError: optimum-onnx is not installed.
        ModelError: the exporter cannot export this type of model.
    """
    student = _with_eager_attention(student)
    config = student.encoder.config
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: number for number, name in enumerate(label_names)}
    config.architectures = ["AutoModelForSequenceClassification"]
    path = folder / "model.onnx"
    write_graph(exporter, student, path)
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
    found = session.run(list(OUTPUTS), feeds)
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

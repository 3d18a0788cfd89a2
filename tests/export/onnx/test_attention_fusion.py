from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support import tiny_models as tinymodels
from support.tiny_models import LABELS, MAX_LENGTH
from transformers import PretrainedConfig

from reaugkd.export.modeling.checkpoint import ChosenPooling, load_encoder
from reaugkd.export.modeling.encoder import EncoderClassifier, HeadConfig
from reaugkd.export.onnx.attention_fusion import fuse_attention
from reaugkd.export.onnx.export import export_float32, require_same_answers
from reaugkd.export.onnx.quantization import quantize
from reaugkd.runtime.inference.session.model_session import OUTPUTS
from reaugkd.runtime.inference.session.student import StudentSession

WRITERS: dict[str, Callable[[Path], Path]] = {
    "bert": lambda folder: tinymodels.write_bert(folder, num_hidden_layers=2),
    "distilbert": tinymodels.write_distilbert,
    "roberta": tinymodels.write_roberta,
}


def exported(kind: str, folder: Path) -> tuple[EncoderClassifier, Path]:
    student = tinymodels.student_of(load_encoder(str(WRITERS[kind](folder / "start"))))
    (folder / "float32").mkdir()
    return student, export_float32(student, LABELS, MAX_LENGTH, folder / "float32")


def padded(rows: int, tokens: int, types: bool) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(3)
    ids, mask = rng.integers(4, 80, size=(rows, tokens)), np.ones((rows, tokens), np.int64)
    for row in range(1, rows):
        ids[row, tokens - row :] = mask[row, tokens - row :] = 0
    feeds = {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": np.zeros_like(ids)} if types else {})
    return {name: torch.from_numpy(value) for name, value in feeds.items()}


@pytest.mark.parametrize("kind", list(WRITERS))
def test_fused_or_not_the_answers_are_torchs_also_of_padded_rows(kind: str, tmp_path: Path) -> None:
    student, model = exported(kind, tmp_path)
    config, out = student.encoder.config, model.with_name("fused.onnx")
    if not fuse_attention(model, config, out):
        assert not out.exists() and kind != "bert"
        return
    ops = Counter(node.op_type for node in onnx.load(str(out)).graph.node)
    assert ops["Attention"] == config.num_hidden_layers
    assert not ops.keys() & {"SkipLayerNormalization", "EmbedLayerNormalization", "BiasGelu"}
    for rows, tokens in ((1, 1), (1, 20), (4, 9)):
        require_same_answers(student, out, padded(rows, tokens, kind == "bert"))
    (tmp_path / "int8").mkdir()
    counted = quantize(out, "avx2", "dynamic", tmp_path / "int8")
    ops = Counter(node.op_type for node in onnx.load(str(tmp_path / "int8" / "model.onnx")).graph.node)
    assert ops["QAttention"] == config.num_hidden_layers and counted.float32 == 0
    session, reference = StudentSession(tmp_path / "int8" / "model.onnx"), StudentSession(model)
    for tokens in (3, 12):
        feeds = {name: value.numpy() for name, value in padded(1, tokens, kind == "bert").items()}
        found, wanted = session.session.run(OUTPUTS, feeds), reference.session.run(OUTPUTS, feeds)
        assert float((found[1] * wanted[1]).sum()) > 0.95


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("all_layers", [False, True])
def test_pooling_is_one_product_and_hides_no_attention(
    pooling: ChosenPooling, all_layers: bool, tmp_path: Path
) -> None:
    encoder = load_encoder(str(WRITERS["bert"](tmp_path / "start")))
    torch.manual_seed(2)
    student = EncoderClassifier(encoder, HeadConfig(3, pooling, 16, all_layers=all_layers)).eval()
    model = export_float32(student, LABELS, MAX_LENGTH, tmp_path)
    fused, optimized = tmp_path / "fused.onnx", tmp_path / "optimized.onnx"
    assert fuse_attention(model, student.encoder.config, fused)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(str(fused), options, providers=["CPUExecutionProvider"])
    ops = Counter(node.op_type for node in onnx.load(str(optimized)).graph.node)
    masks = 2 if pooling == "last" and all_layers else 1
    # A sum of each mask, one for the attention, and no sum or weighted copy of the states.
    assert (ops["Attention"], ops["ReduceSum"], ops["Mul"]) == (2, masks + 1, 0)
    assert ops["MatMul"] == 3 * 2 + 1 + (2 if all_layers else 1)  # in two layers, for the projection and the pooling
    for rows, tokens in ((1, 1), (1, 20), (4, 9)):
        batch = padded(rows, tokens, types=True)
        with torch.inference_mode():
            expected = student(**batch)
        for found, there in zip(session.run(OUTPUTS, {k: v.numpy() for k, v in batch.items()}), expected, strict=True):
            np.testing.assert_allclose(found, there.numpy(), atol=1e-5)


def test_another_attention_is_not_fused(tmp_path: Path) -> None:
    """A configuration with more layers than the model makes the fusion fail."""
    student, model = exported("bert", tmp_path)
    config = PretrainedConfig.from_dict({**student.encoder.config.to_dict(), "num_hidden_layers": 3})
    assert not fuse_attention(model, config, tmp_path / "fused.onnx")
    assert not (tmp_path / "fused.onnx").exists()


def test_the_same_bytes_every_time(tmp_path: Path) -> None:
    student, model = exported("bert", tmp_path)
    for name in ("one", "two"):
        assert fuse_attention(model, student.encoder.config, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()

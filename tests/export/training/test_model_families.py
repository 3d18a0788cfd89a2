"""Every model family, as a model to fine-tune and as a fine-tuned classifier, from training to prediction."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support import tiny_models as tinymodels
from support.model_families import DECODERS, FAMILIES, write_family
from support.tiny_models import LABELS

from reaugkd import Runtime
from reaugkd.export.bundle.write import ExportJob, export
from reaugkd.export.modeling.teacher import load_fine_tuned
from reaugkd.export.onnx.fuse import fuse
from reaugkd.export.recipe import Recipe, StudentRecipe, TeacherRecipe
from reaugkd.export.training.train import TrainJob, train
from reaugkd.runtime.bundle.bundle import MODEL_FILE

TABLE = Path(__file__).parents[3] / "docs" / "reference" / "models.md"
TEXTS = ("please play the song", "rain", "wake me at seven tomorrow morning and tell me the forecast")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_from_training_to_prediction(family: str, tmp_path: Path) -> None:
    """The students of both teachers are of one kind: one of them is exported."""
    data, fit = tinymodels.make_dataset(rows=96, test=9), tinymodels.fast_fit(1)

    def quick(teacher: TeacherRecipe) -> Recipe:
        return tinymodels.tiny_recipe(teacher=teacher, student=StudentRecipe(fit=fit))

    encoder = write_family(tmp_path / "encoder", family)
    train(data, TrainJob(str(encoder), quick(TeacherRecipe(fit=fit))), tmp_path / "to fine-tune")
    teacher = write_family(tmp_path / "teacher", family, dict(enumerate(LABELS)))
    labels = TeacherRecipe(labels=LABELS)  # a random classifier is used all the same
    train(data, TrainJob(str(teacher), quick(labels)), tmp_path / "run")
    job = ExportJob("avx2", allow_quality_loss=True, vocabulary="full")
    done = export(tmp_path / "run", tmp_path / "bundle", job)
    assert done.manifest.pooling == ("last" if family in DECODERS else "mean")
    assert done.manifest.quantization["int8"] >= 4 and done.manifest.quantization["float32"] == 0
    with Runtime.open(tmp_path / "bundle") as runtime:
        assert {runtime.predict(text).label for text in TEXTS} <= set(LABELS)
    fuse(tmp_path / "bundle", tmp_path / "model.onnx")  # compares its answers with the bundle's
    ops = Counter(node.op_type for node in onnx.load(str(tmp_path / "bundle" / MODEL_FILE)).graph.node)
    fused = "yes" if ops["QAttention"] == 2 else "no"
    row = f"| {family} | {done.manifest.pooling} | {fused} | works | works |"
    assert row in TABLE.read_text().splitlines(), row


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_classifies_padded_rows_as_transformers_does_one_by_one(family: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path / "teacher", family, dict(enumerate(LABELS)))
    teacher = load_fine_tuned(str(folder), TeacherRecipe(), LABELS)
    rows = tinymodels.tokens_of(TEXTS, folder, teacher.encoder.config)
    with torch.inference_mode():
        found = teacher(**rows.batch(range(len(TEXTS)))).logits.numpy()
        expected = [teacher.model(**rows.batch([row])).logits[0].numpy() for row in range(len(TEXTS))]
    np.testing.assert_allclose(found, expected, atol=1e-5)

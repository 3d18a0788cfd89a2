"""Every model family, as a model to fine-tune and as a fine-tuned classifier, from training to prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
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

TEXTS = ("please play the song", "rain", "wake me at seven tomorrow morning and tell me the forecast")


def recipe() -> Recipe:
    return tinymodels.tiny_recipe(
        teacher=TeacherRecipe(labels=LABELS, fit=tinymodels.fast_fit(1)),  # random classifiers are used all the same
        student=StudentRecipe(fit=tinymodels.fast_fit(1)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("classifier", [False, True], ids=["to fine-tune", "fine-tuned"])
@pytest.mark.parametrize("family", FAMILIES)
def test_from_training_to_prediction(family: str, classifier: bool, tmp_path: Path) -> None:
    teacher = write_family(tmp_path / "teacher", family, dict(enumerate(LABELS)) if classifier else None)
    settings = recipe() if classifier else tinymodels.tiny_recipe(student=recipe().student)
    train(tinymodels.make_dataset(rows=96, test=9), TrainJob(str(teacher), settings), tmp_path / "run")
    job = ExportJob("avx2", allow_quality_loss=True, vocabulary="full")
    done = export(tmp_path / "run", tmp_path / "bundle", job)
    assert done.manifest.pooling == ("last" if family in DECODERS else "mean")
    assert done.manifest.quantization["int8"] >= 4 and done.manifest.quantization["float32"] == 0
    with Runtime.open(tmp_path / "bundle") as runtime:
        assert {runtime.predict(text).label for text in TEXTS} <= set(LABELS)
    fuse(tmp_path / "bundle", tmp_path / "model.onnx")  # compares its answers with the bundle's


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_classifies_padded_rows_as_transformers_does_one_by_one(family: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path / "teacher", family, dict(enumerate(LABELS)))
    teacher = load_fine_tuned(str(folder), TeacherRecipe(), LABELS)
    rows = tinymodels.tokens_of(TEXTS, folder, teacher.encoder.config)
    with torch.inference_mode():
        found = teacher(**rows.batch(range(len(TEXTS)))).logits.numpy()
        expected = [teacher.model(**rows.batch([row])).logits[0].numpy() for row in range(len(TEXTS))]
    np.testing.assert_allclose(found, expected, atol=1e-5)

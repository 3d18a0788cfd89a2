from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import tiny_models as tinymodels
from support.steps import make_step, make_targets, step_of
from torch import Tensor

from reaugkd.errors import RecipeError
from reaugkd.export.bundle.write import ExportJob, export
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.modeling.execution.inference import outputs_of
from reaugkd.export.modeling.execution.training_loop import FitJob
from reaugkd.export.modeling.projection import LinearLayer
from reaugkd.export.objectives.base import Distillation, Targets
from reaugkd.export.objectives.sea import Sea
from reaugkd.export.recipe import ObjectiveRecipe, Recipe, RetrievalRecipe
from reaugkd.export.recipe_file import override
from reaugkd.export.training import train as training
from reaugkd.export.training.distill import distil
from reaugkd.export.training.run_folder import RunFolder
from reaugkd.export.training.train import TrainJob, train
from reaugkd.runtime.data import Dataset
from reaugkd.runtime.inference.session.student import StudentSession
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer
from reaugkd.runtime.runtime import Runtime

HIDDEN = tinymodels.HIDDEN


def begun(targets: Targets) -> Sea:
    objective = Sea()
    objective.begin(Distillation(tinymodels.tiny_student(), None, None, targets, 0, "fp32"))
    return objective


def reduced(embeddings: np.ndarray, dim: int) -> np.ndarray:
    """phi by the singular value decomposition, in float64; a component's largest entry is positive."""
    centred = embeddings.astype(np.float64) - embeddings.astype(np.float64).mean(axis=0)
    components = np.linalg.svd(centred, full_matrices=False)[2][:dim]
    components *= np.sign(components[np.arange(len(components)), np.abs(components).argmax(axis=1)])[:, None]
    scores = centred @ components.T
    return np.asarray(scores / np.sqrt((scores**2).sum(axis=1).mean()))


@pytest.mark.parametrize("rows", [[0], [7, 3, 3], list(range(50))])
def test_it_is_the_squared_distance_to_the_reduced_embedding(rows: list[int]) -> None:
    targets = make_targets(50, dim=6, hidden=20)
    student = make_step(len(rows), dim=6).student_projection
    step = step_of(targets.teacher_logits[rows], student, targets, torch.tensor(rows))
    distances = ((student.numpy() - reduced(targets.teacher_embeddings.numpy(), 6)[rows]) ** 2).sum(axis=1)
    assert begun(targets)(step).item() == pytest.approx(distances.mean(), rel=1e-9)


def test_a_student_with_output_0_has_a_loss_of_1() -> None:
    targets = make_targets(50, dim=6, hidden=20)
    step = step_of(targets.teacher_logits, torch.zeros(50, 6, dtype=torch.float64), targets)
    assert begun(targets)(step).item() == pytest.approx(1.0, rel=1e-12)


def test_it_reads_the_projection_before_its_normalisation() -> None:
    targets = make_targets(9, dim=6, hidden=8)
    step = make_step(9, dim=6)
    loss = begun(targets)(step)
    other = dataclasses.replace(step, student_embedding=-step.student_embedding)
    assert begun(targets)(other) == loss
    assert begun(targets)(dataclasses.replace(step, student_projection=2 * step.student_projection)) != loss


def test_gradients_are_right() -> None:
    targets = make_targets(7, dim=6, hidden=8)
    step, objective = make_step(7, dim=6, grad=True), begun(make_targets(7, dim=6, hidden=8))

    def of(projection: Tensor) -> Tensor:
        return objective(
            step_of(targets.teacher_logits, step.student_embedding, targets, student_projection=projection)
        )

    assert torch.autograd.gradcheck(of, (step.student_projection,))


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_few_rows_and_equal_rows(rows: int, equal: bool) -> None:
    targets = make_targets(rows, dim=6, dtype=torch.float32)
    if equal:
        targets.teacher_embeddings.copy_(targets.teacher_embeddings[:1].clone())
    step = make_step(rows, dim=6, grad=True, dtype=torch.float32)
    step = dataclasses.replace(step, teacher_embedding=targets.teacher_embeddings)
    loss = begun(targets)(step)
    loss.backward()
    assert torch.isfinite(loss)
    assert step.student_projection.grad is not None and torch.isfinite(step.student_projection.grad).all()
    if equal or rows == 1:  # equal rows are reduced to the origin
        assert loss.item() == pytest.approx(step.student_projection.pow(2).sum(dim=1).mean().item(), rel=1e-6)


def test_more_dimensions_than_the_teacher_has() -> None:
    with pytest.raises(RecipeError, match="cannot add dimensions") as caught:
        begun(make_targets(9, dim=9, hidden=8))
    assert (caught.value.found, caught.value.expected) == ("embedding_dim 9", "at most the teacher's 8")


def test_distillation_lowers_it(tmp_path: Path, tiny_bert: Path) -> None:
    split = tinymodels.make_split(60, 5)
    rows = tinymodels.tokens_of(split.inputs(), tiny_bert)
    teacher = outputs_of(tinymodels.tiny_student(embedding_dim=None, seed=4), rows, "")
    labels = torch.arange(60) % 3
    targets = Targets(teacher.logits, teacher.embedding, torch.eye(16)[labels], labels)
    objective = begun(targets)
    student = tinymodels.tiny_student(dropout=0.0)

    def loss() -> float:
        with torch.no_grad():
            found = student(**rows.batch(range(60)), detailed=True)
        step = step_of(found.logits, found.embedding, targets, student_projection=found.projection)
        return objective(step).item()

    recipe = tinymodels.tiny_recipe(objectives=(ObjectiveRecipe("sea"),))
    distil(
        student,
        tinymodels.tiny_student,
        rows,
        targets,
        recipe,
        FitJob("s", tinymodels.fast_fit(8), 0, "fp32", tmp_path / "c"),
    )
    assert loss() < 0.7  # output 0 gives 1; a student trained on other rows' embeddings ends above 1


# A whole run with keys by PCA.


def sea_recipe() -> Recipe:
    return override(
        tinymodels.tiny_recipe(objectives=(ObjectiveRecipe("soft_labels"), ObjectiveRecipe("sea", 5.0))),
        projection__method="pca",
    )


def test_keys_and_queries_share_the_reduced_space(tiny_bert: Path, tiny_dataset: Dataset, tmp_path: Path) -> None:
    train(tiny_dataset, TrainJob(str(tiny_bert), sea_recipe()), tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    outputs = load_file(str(run.teacher_outputs / "train.safetensors"))
    phi = reduced(outputs["embeddings"].numpy(), 16)
    keys = phi / np.linalg.norm(phi, axis=1, keepdims=True)
    head = LinearLayer.load(run.projection)
    assert head.bias is not None
    np.testing.assert_allclose(head(outputs["embeddings"]).numpy(), phi, atol=1e-3)

    student = EncoderClassifier.load(run.student)
    assert student.head.projection_bias and student.projection is not None and student.projection.bias is not None
    rows = tinymodels.tokens_of(tiny_dataset.splits["test"].inputs(), run.student)
    queries = outputs_of(student, rows, "").embedding

    asked = RetrievalRecipe("distilled", "teacher", keep_heldout=False)
    export(run.path, tmp_path / "bundle", ExportJob("avx2", "none", allow_quality_loss=True, retrieval=asked))
    with Runtime.open(tmp_path / "bundle") as runtime:
        nearest, similarities = runtime.knowledge_base.search_many(keys.astype(np.float32), 1)
        np.testing.assert_allclose(similarities[:, 0], 1.0, atol=2e-3)
        np.testing.assert_allclose((keys[nearest[:, 0]] * keys).sum(axis=1), 1.0, atol=2e-3)
    session = StudentSession(tmp_path / "bundle" / "student" / "model.onnx")
    tokenizer = TextTokenizer(tmp_path / "bundle" / "student" / "tokenizer.json", tinymodels.MAX_LENGTH)
    for row, text in enumerate(tiny_dataset.splits["test"].texts[:5]):
        np.testing.assert_allclose(session.run(tokenizer.encode(text))[1], queries[row].numpy(), atol=1e-4)


def test_too_many_dimensions_are_refused_before_any_training(
    tiny_bert: Path, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the teacher was trained")

    monkeypatch.setattr(training, "fine_tune", never)
    recipe = override(sea_recipe(), projection__embedding_dim=HIDDEN + 1)
    with pytest.raises(RecipeError, match="cannot add dimensions"):
        train(tiny_dataset, TrainJob(str(tiny_bert), recipe), tmp_path / "run")
    assert not (tmp_path / "run").exists()

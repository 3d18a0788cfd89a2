from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import tiny_models as tinymodels
from support.distillations import tiny_rows, tiny_targets
from support.runs import QUICK, STAGES, KilledError, contents, redone, times
from support.steps import make_step
from support.tiny_models import LABELS
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel

from reaugkd.errors import RecipeError
from reaugkd.export.bundle.write import ExportJob, export
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.modeling.execution.training_loop import FitJob
from reaugkd.export.objectives.general import General
from reaugkd.export.recipe import ObjectiveRecipe, RetrievalRecipe
from reaugkd.export.recipe_file import override
from reaugkd.export.training import train as training
from reaugkd.export.training.distill import distil
from reaugkd.export.training.run_folder import RunFolder, read_rows
from reaugkd.export.training.train import TrainJob, train
from reaugkd.runtime.data import Dataset
from reaugkd.runtime.runtime import Runtime

RECIPE = override(QUICK, objectives=(ObjectiveRecipe("soft_labels"), ObjectiveRecipe("general", 4.0)))


def drawn(rows: int, hidden: int = 8) -> tuple[Tensor, Tensor]:
    """A student's general embeddings, and pretrained ones."""
    generator = torch.Generator().manual_seed(7)
    student, pretrained = torch.randn(2, rows, hidden, generator=generator, dtype=torch.float64)
    return student, normalize(pretrained, dim=-1)


def loss_of(student: Tensor, pretrained: Tensor) -> Tensor:
    step = make_step(len(student))
    return General()(dataclasses.replace(step, student_general=student, pretrained=pretrained))


@pytest.mark.parametrize("rows", [1, 5])
def test_it_is_1_less_the_mean_cosine(rows: int) -> None:
    student, pretrained = drawn(rows)
    ours, theirs = student.numpy(), pretrained.numpy()
    cosines = (ours * theirs).sum(axis=1) / np.sqrt((ours**2).sum(axis=1) * (theirs**2).sum(axis=1))
    assert loss_of(student, pretrained).item() == pytest.approx(1 - cosines.mean(), rel=1e-12)
    assert loss_of(3 * pretrained, pretrained).item() == pytest.approx(0, abs=1e-12)
    assert loss_of(-pretrained, pretrained).item() == pytest.approx(2, rel=1e-12)


def test_gradients_are_right() -> None:
    student, pretrained = drawn(5)
    assert torch.autograd.gradcheck(lambda given: loss_of(given, pretrained), (student.requires_grad_(),))


def test_a_students_general_embedding_is_a_linear_map_of_the_means_of_all_layers(tiny_bert: Path) -> None:
    student, rows = tinymodels.tiny_student(pooling="cls", general_dim=5), tiny_rows(tiny_bert)
    assert student.general is not None
    weight, bias = (value.detach().double().numpy() for value in (student.general.weight, student.general.bias))
    with torch.no_grad():
        found = student(**rows.batch(range(9)), detailed=True).general.numpy()
        for row in range(9):  # alone, so without padding
            states = student.encoder(**rows.batch([row]), output_hidden_states=True).hidden_states[1:]
            means = np.concatenate([layer[0].double().numpy().mean(axis=0) for layer in states])
            np.testing.assert_allclose(found[row], weight @ means + bias, atol=1e-5)


def test_a_model_without_a_general_embedding_has_none(tiny_bert: Path) -> None:
    student, rows = tinymodels.tiny_student(), tiny_rows(tiny_bert)
    assert student(**rows.batch([0]), detailed=True).general is None


def test_distillation_lowers_it(tmp_path: Path, tiny_bert: Path) -> None:
    rows, targets = tiny_rows(tiny_bert), tiny_targets()
    student = tinymodels.tiny_student(dropout=0.0, general_dim=tinymodels.HIDDEN)
    assert targets.pretrained is not None

    def loss(moved: int) -> float:
        """With ``moved`` other than 0, against the embeddings of other rows."""
        with torch.no_grad():
            found = student(**rows.batch(range(60)), detailed=True)
        assert targets.pretrained is not None
        return 1 - torch.cosine_similarity(found.general, targets.pretrained.roll(moved, 0)).mean().item()

    before = loss(0)
    recipe = tinymodels.tiny_recipe(objectives=(ObjectiveRecipe("general"),))
    job = FitJob("s", tinymodels.fast_fit(8), 0, "fp32", tmp_path / "c")
    distil(student, tinymodels.tiny_student, rows, targets, recipe, job)
    assert loss(0) < 0.8 * before
    assert loss(0) < loss(1) - 0.1


# Whole runs.


@pytest.fixture(scope="module")
def run(small_dataset: Dataset, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; read-only."""
    path = tmp_path_factory.mktemp("general") / "run"
    train(small_dataset, TrainJob(str(tiny_bert), RECIPE), path)
    return path


def test_the_target_is_the_embedding_before_the_fine_tuning(run: Path, tiny_bert: Path) -> None:
    folder = RunFolder(run)
    found = load_file(str(folder.teacher_pretrained / "train.safetensors"))["embeddings"].numpy()
    rows = tinymodels.tokens_of(read_rows(folder.data / "train.jsonl").inputs(), tiny_bert)
    encoder = AutoModel.from_pretrained(tiny_bert).eval()
    with torch.no_grad():
        states = [encoder(**rows.batch([row])).last_hidden_state[0].double().numpy() for row in range(len(rows))]
    means = np.stack([state.mean(axis=0) for state in states])
    np.testing.assert_allclose(found, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-5)


def test_the_map_is_saved_with_the_student_which_can_be_exported(run: Path, tmp_path: Path) -> None:
    student = EncoderClassifier.load(RunFolder(run).student)
    assert student.head.general_dim == tinymodels.HIDDEN
    for query in ("layers", "distilled"):
        asked = RetrievalRecipe(query)  # type: ignore[arg-type]
        export(run, tmp_path / query, ExportJob("avx2", "none", allow_quality_loss=True, retrieval=asked))
        with Runtime.open(tmp_path / query) as runtime:
            assert runtime.predict("play the song").label in LABELS


def test_a_killed_run_ends_with_the_same_weights(
    run: Path, small_dataset: Dataset, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> Any:
        raise KilledError

    again, job = tmp_path / "run", TrainJob(str(tiny_bert), RECIPE)
    for function in ("pretrained_embeddings", "distil"):
        with monkeypatch.context() as patch:
            patch.setattr(training, function, killed)
            with pytest.raises(KilledError):
                train(small_dataset, job, again)
    monkeypatch.setattr(training, "pretrained_embeddings", killed)  # they are there
    train(small_dataset, job, again)
    assert contents(again, timed=False) == contents(run, timed=False)


def test_what_repeats_which_stages(small_dataset: Dataset, tmp_path: Path) -> None:
    teacher, path = tinymodels.write_bert(tmp_path / "teacher"), tmp_path / "run"
    job = TrainJob(str(teacher), RECIPE, redo=True)
    train(small_dataset, job, path)
    from_the_student_on = {"student", "query", "tuning"}
    weaker = override(RECIPE, objectives=(ObjectiveRecipe("soft_labels"), ObjectiveRecipe("general", 1.0)))
    other_seed = override(weaker, seed=1)
    changes = [
        (weaker, from_the_student_on),
        (other_seed, from_the_student_on | {"teacher", "teacher_outputs", "projection"}),  # not the pretrained encoder
        (override(other_seed, teacher__pooling="cls"), {*STAGES, "teacher_pretrained"} - {"data"}),
    ]
    for recipe, expected in changes:
        before = times(path)
        train(small_dataset, replace(job, recipe=recipe), path)
        assert redone(before, times(path)) == expected
    before = times(path)
    tinymodels.write_bert(teacher, seed=9)
    train(small_dataset, replace(job, recipe=changes[-1][0]), path)
    assert redone(before, times(path)) == {*STAGES, "teacher_pretrained"} - {"data"}


def test_runs_that_share_teachers_share_the_pretrained_embeddings(
    run: Path, small_dataset: Dataset, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "teachers"
    job = TrainJob(str(tiny_bert), RECIPE, shared=place)
    train(small_dataset, job, tmp_path / "first")
    assert contents(tmp_path / "first", timed=False) == contents(run, timed=False)
    monkeypatch.delattr(training, "pretrained_embeddings")
    train(small_dataset, replace(job, recipe=override(RECIPE, seed=1)), tmp_path / "second")
    assert len(list(place.glob("teacher_pretrained-*"))) == 1


def test_a_fine_tuned_teacher_is_refused(small_dataset: Dataset, tmp_path: Path) -> None:
    teacher = tinymodels.write_classifier(tmp_path / "teacher", dict(enumerate(LABELS)))
    with pytest.raises(RecipeError, match="before its fine-tuning; found a fine-tuned classifier") as caught:
        train(small_dataset, TrainJob(str(teacher), RECIPE), tmp_path / "run")
    assert "--teacher" in str(caught.value.remedy)
    assert not (tmp_path / "run").exists()

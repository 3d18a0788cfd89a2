from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import tiny_models as tinymodels
from support.runs import KilledError, contents, redone, times
from support.teacher_files import answer_rows, write_answers
from support.tiny_models import LABELS

from reaugkd.errors import OutputExistsError, RecipeError, UsageError
from reaugkd.export import objectives
from reaugkd.export.recipe import REAUGKD, ObjectiveRecipe, ProjectionRecipe, Recipe, RetrievalRecipe, StudentRecipe
from reaugkd.export.recipe_file import override
from reaugkd.export.training import train as training
from reaugkd.export.training.finished_run import FinishedRun
from reaugkd.export.training.run_folder import RunFolder, read_rows
from reaugkd.export.training.teacher.file import TeacherFile, read_teacher_file
from reaugkd.export.training.train import TrainJob
from reaugkd.export.training.train_from_file import default_objectives, train_from_file
from reaugkd.export.tuning.tune import Tuning
from reaugkd.runtime.data import Dataset

SPLIT = tinymodels.make_split(84, 0)
GOLD = range(0, 84, 2)
STAGES = ["data", "projection", "query", "student", "teacher_outputs", "tuning"]

Trained = tuple[Path, Tuning, TrainJob, TeacherFile]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Soft and hard labels, a student of one layer."""
    model = tinymodels.write_bert(tmp_path_factory.mktemp("models") / "student", num_hidden_layers=1)
    student = StudentRecipe(model=str(model), fit=tinymodels.fast_fit(12))
    return tinymodels.tiny_recipe(student=student, objectives=REAUGKD[:2])


def read(path: Path, **changes: Any) -> TeacherFile:
    return read_teacher_file(write_answers(path, answer_rows(SPLIT, **changes)))


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run from votes; every second text has a gold label. Read-only."""
    folder = tmp_path_factory.mktemp("file")
    file, job = read(folder / "answers.jsonl", gold=GOLD), TrainJob("file answers.jsonl", recipe)
    return folder / "run", train_from_file(file, None, job, folder / "run"), job, file


def test_the_files_of_a_finished_run(trained: Trained) -> None:
    path, tuning, _, file = trained
    assert sorted(item.name for item in path.iterdir()) == sorted([*STAGES, "run.json"])
    run = RunFolder(path)
    run.require_finished()
    description = run.describe()
    assert description["teacher"] == "file answers.jsonl" and description["labels"] == list(LABELS)
    rows = {name: read_rows(run.data / f"{name}.jsonl") for name in ("train", "heldout")}
    assert len(rows["train"]) + len(rows["heldout"]) == len(set(SPLIT.texts))  # no dev rows are split off
    assert tuning.rows == len(rows["heldout"])
    place = {text: number for number, text in enumerate(file.split.texts)}
    for name, split in rows.items():
        places = [place[text] for text in split.texts]
        saved = load_file(str(run.teacher_outputs / f"{name}.safetensors"))
        np.testing.assert_array_equal(saved["logits"], file.logits[places])
        np.testing.assert_array_equal(saved["gold"], file.gold[places])
        assert saved["embeddings"].shape == (len(split), 0)
        assert description["teacher_file"]["gold"][name] == (file.gold[places] >= 0).sum()


def test_gold_labels_are_stored_only_where_they_are_known(trained: Trained) -> None:
    source = FinishedRun.read(RunFolder(trained[0]))
    queries = np.zeros((len(source.train), 16), np.float32)
    stored = source.of_train(queries)
    known = {text: LABELS.index((SPLIT.labels or [])[row]) for row, text in enumerate(SPLIT.texts) if row in GOLD}
    assert stored.gold.tolist() == [known.get(text, -1) for text in source.train.texts]
    assert -1 in stored.gold


def test_the_student_learns_the_answers(trained: Trained) -> None:
    source = FinishedRun.read(RunFolder(trained[0]))
    rows = tinymodels.tokens_of(source.train.inputs(), trained[0] / "student")
    found = source.student(RetrievalRecipe())(**rows.batch(range(len(rows)))).logits.argmax(dim=1)
    right = [LABELS.index(label) for label in source.train.labels or ()]
    assert (found == torch.tensor(right)).double().mean() > 0.8


def test_a_second_call_touches_nothing_and_another_answer_repeats_the_stages(trained: Trained, tmp_path: Path) -> None:
    job, file, path = trained[2], trained[3], Path(shutil.copytree(trained[0], tmp_path / "run"))
    before = times(path)
    train_from_file(file, None, job, path)
    assert redone(before, times(path)) == set()
    rows = answer_rows(SPLIT, gold=GOLD)
    rows[0]["labels"] = [*rows[0]["labels"], SPLIT.labels[0] if SPLIT.labels else ""]
    other = read_teacher_file(write_answers(tmp_path / "answers.jsonl", rows))
    with pytest.raises(OutputExistsError, match=r"fingerprints\.teacher"):
        train_from_file(other, None, job, path)
    train_from_file(other, None, replace(job, redo=True), path)
    assert redone(before, times(path)) == set(STAGES) - {"data"}


def test_a_killed_training_ends_the_same(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> Any:
        raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(training, "distil", killed)
        train_from_file(trained[3], None, trained[2], tmp_path / "run")
    torch.manual_seed(5)  # another process would have drawn other numbers
    train_from_file(trained[3], None, trained[2], tmp_path / "run")
    assert contents(tmp_path / "run", timed=False) == contents(trained[0], timed=False)


def test_dev_and_test_rows_are_kept_out_of_the_training(recipe: Recipe, tmp_path: Path) -> None:
    scored = Dataset("gold", {"train": SPLIT, "test": SPLIT.take(range(9))}, LABELS)
    train_from_file(read(tmp_path / "answers.jsonl"), scored, TrainJob("file", recipe), tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    used = {text for name in ("train", "heldout") for text in read_rows(run.data / f"{name}.jsonl").texts}
    assert used == set(SPLIT.texts) - set(SPLIT.texts[:9])


def test_embeddings_become_keys_and_feed_the_relation(
    trained: Trained, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys are the head's outputs for the file's embeddings; the distillation and the knowledge base get them."""
    file = read(tmp_path / "answers.jsonl", embeddings=True)
    assert default_objectives(file) == REAUGKD and default_objectives(trained[3]) == REAUGKD[:2]
    given: list[objectives.Targets] = []
    original: Callable[..., None] = training.distil

    def spy(student: Any, load: Any, rows: Any, targets: objectives.Targets, *rest: Any) -> None:
        given.append(targets)
        original(student, load, rows, targets, *rest)

    monkeypatch.setattr(training, "distil", spy)
    retrieval = RetrievalRecipe("distilled", "teacher")
    job = TrainJob("file", override(recipe, objectives=REAUGKD, retrieval=retrieval))
    train_from_file(file, None, job, tmp_path / "run")
    source = FinishedRun.read(RunFolder(tmp_path / "run"))
    place = {text: number for number, text in enumerate(file.split.texts)}
    embeddings = file.embeddings[[place[text] for text in source.train.texts]]
    keys = embeddings @ source.head.weight.numpy().T
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    np.testing.assert_allclose(given[0].keys, keys, atol=1e-5)
    np.testing.assert_allclose(source.of_train(None).keys(retrieval), keys, atol=1e-5)


NEEDS = {name: objectives.build([ObjectiveRecipe(name)]).needs for name in objectives.names()}
LIVE = [name for name, needs in NEEDS.items() if needs & {"teacher", "attentions"}]
OF_EMBEDDINGS = [name for name, needs in NEEDS.items() if needs == {"embeddings"}]


def test_every_objective_says_what_it_needs() -> None:
    assert set(LIVE) == {"attention", "mixkd"}
    assert set(OF_EMBEDDINGS) == {"compress", "compress_2q", "disk", "relation", "sea"}
    assert [name for name, needs in NEEDS.items() if "pretrained" in needs] == ["general"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        *(({"objectives": (ObjectiveRecipe(name),)}, f"'{name}' runs the teacher .*kd.toml") for name in LIVE),
        *(
            ({"objectives": (ObjectiveRecipe(name),)}, f"'{name}' needs .*embeddings.*kd.toml")
            for name in OF_EMBEDDINGS
        ),
        ({"objectives": (ObjectiveRecipe("general"),)}, "'general' needs .* before its fine-tuning; .*file.*kd.toml"),
        (
            {"retrieval": RetrievalRecipe("distilled", "teacher")},
            "the teacher's keys need its embeddings; found keys 'teacher'",
        ),
        ({"student": StudentRecipe()}, "no model to start from.*--student"),
    ],
)
def test_what_needs_a_model_or_embeddings_is_refused_before_any_training(
    changes: dict[str, Any], match: str, recipe: Recipe, tmp_path: Path
) -> None:
    file = read(tmp_path / "answers.jsonl")
    with pytest.raises(RecipeError, match=rf"answers.jsonl: .*{match}"):
        train_from_file(file, None, TrainJob("file", override(recipe, **changes)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_embeddings_with_too_few_components_for_the_keys_are_refused_before_any_training(
    recipe: Recipe, tmp_path: Path
) -> None:
    file = read(tmp_path / "answers.jsonl", embeddings=True)
    dim = file.embeddings.shape[1] + 1
    job = TrainJob("file", override(recipe, projection=ProjectionRecipe("pca", dim)))
    with pytest.raises(RecipeError, match=f"found embedding_dim {dim}; expected at most"):
        train_from_file(file, None, job, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_has_no_teacher_to_ask(trained: Trained) -> None:
    source = FinishedRun.read(RunFolder(trained[0]))
    source.require(RetrievalRecipe(), extra=False)
    with pytest.raises(UsageError, match="the run's teacher is a file"):
        source.require(RetrievalRecipe(), extra=True)
    with pytest.raises(RecipeError, match="the teacher's keys need its embeddings"):
        source.require(RetrievalRecipe("distilled", "teacher"), extra=False)

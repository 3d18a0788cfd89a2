from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import tiny_models as tinymodels
from support.runs import QUICK, STAGES, Finished, contents, redone, times
from support.tiny_models import LABELS
from transformers import (
    AutoModelForSequenceClassification,
)

from reaugkd.errors import DataError, OutputExistsError
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.modeling.execution.inference import outputs_of
from reaugkd.export.modeling.projection import LinearLayer
from reaugkd.export.recipe import ObjectiveRecipe, RetrievalRecipe, StudentRecipe
from reaugkd.export.recipe_file import override
from reaugkd.export.training import train as training
from reaugkd.export.training.evaluate_run import run_probabilities
from reaugkd.export.training.run_folder import RunFolder, read_rows
from reaugkd.export.training.splits import assign
from reaugkd.export.training.train import TrainJob, exact_neighbours, train
from reaugkd.runtime.data import Dataset, label_indices

FROM_THE_STUDENT_ON = {"student", "query", "tuning"}


def test_the_files_of_a_finished_run(tiny_run: Finished, tiny_dataset: Dataset) -> None:
    path, _, job = tiny_run
    assert sorted(item.name for item in path.iterdir()) == sorted([*STAGES, "run.json"])
    run = RunFolder(path)
    run.require_finished()
    description = run.describe()
    splits = assign(tiny_dataset, job.recipe, None)
    assert description["labels"] == list(LABELS)
    assert description["teacher"] == job.teacher and description["teacher_is_fine_tuned"] is False
    assert description["data"]["rows"] == {"train": len(splits.train), "heldout": len(splits.heldout)}
    assert description["recipe"] == json.loads(json.dumps(job.recipe.as_dict()))
    for name, split in (("train", splits.train), ("heldout", splits.heldout)):
        rows = read_rows(run.data / f"{name}.jsonl")
        assert (rows.texts, rows.pairs, rows.labels) == (split.texts, split.pairs, split.labels)


def test_the_cached_outputs_are_the_teachers(tiny_run: Finished) -> None:
    path, _, job = tiny_run
    run = RunFolder(path)
    teacher = EncoderClassifier.load(run.teacher)
    for name in ("train", "heldout"):
        rows = tinymodels.tokens_of(read_rows(run.data / f"{name}.jsonl").inputs(), run.teacher)
        cached = load_file(str(run.teacher_outputs / f"{name}.safetensors"))
        alone = [teacher(**rows.batch([row])) for row in range(len(rows))]
        torch.testing.assert_close(cached["logits"], torch.cat([one.logits for one in alone]), atol=1e-4, rtol=0)
        torch.testing.assert_close(cached["embeddings"], torch.cat([one.embedding for one in alone]), atol=1e-4, rtol=0)
    assert LinearLayer.load(run.projection).weight.shape == (job.recipe.projection.embedding_dim, tinymodels.HIDDEN)


def test_teacher_and_student_learn(tiny_run: Finished, tiny_dataset: Dataset) -> None:
    split = tiny_dataset.splits["test"]
    gold = label_indices(split, LABELS)
    answers = run_probabilities(tiny_run[0], split, LABELS)
    assert list(answers) == ["teacher", "student_fp32"]
    for probabilities in answers.values():
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-9)
        assert (probabilities.argmax(axis=1) == gold).mean() > 0.8


def test_scores_of_another_runs_labels_are_refused(tiny_run: Finished, tiny_dataset: Dataset) -> None:
    with pytest.raises(DataError, match="labels differ from the bundle's") as caught:
        run_probabilities(tiny_run[0], tiny_dataset.splits["test"], ("alarm", "music"))
    assert caught.value.found == "alarm, music, weather"


def test_the_student_has_the_chosen_layers(tiny_run: Finished) -> None:
    run = RunFolder(tiny_run[0])
    student = EncoderClassifier.load(run.student)
    assert len(student.encoder.encoder.layer) == 2
    assert student.head.embedding_dim == 16 and student.head.num_labels == 3
    assert (run.student / "tokenizer.json").read_bytes() == (run.teacher / "tokenizer.json").read_bytes()


def softmax(scores: np.ndarray, temperature: float) -> np.ndarray:
    exponents = np.exp((scores - scores.max(axis=-1, keepdims=True)) / temperature)
    return exponents / exponents.sum(axis=-1, keepdims=True)


def states_of_all_layers(student: EncoderClassifier, folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The mean states of each layer, side by side, [rows, layers * hidden], float64: a text at a time, unpadded."""
    rows = tinymodels.tokens_of(texts, folder)
    found = []
    for row in range(len(texts)):
        with torch.inference_mode():
            states = student.encoder(**rows.batch([row]), output_hidden_states=True).hidden_states[1:]
        found.append(np.concatenate([layer[0].double().numpy().mean(axis=0) for layer in states]))
    return np.array(found)


def normalised(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module", params=["layers", "distilled", "teacher"])
def tuned_run(
    request: pytest.FixtureRequest, tiny_run: Finished, tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """The run by each way to ask and to be found."""
    ways = {
        "layers": RetrievalRecipe(),
        "distilled": RetrievalRecipe("distilled", "student", gold_shares=(0.0,)),
        "teacher": RetrievalRecipe("distilled", "teacher", gold_shares=(0.5,)),
    }
    path = Path(shutil.copytree(tiny_run[0], tmp_path_factory.mktemp("tuned") / request.param))
    job = replace(tiny_run[2], recipe=override(tiny_run[2].recipe, retrieval=ways[request.param]), redo=True)
    return path, train(tiny_dataset, job, path), job


def test_the_tuning_is_of_the_held_out_rows_against_the_train_rows(tuned_run: Finished) -> None:
    """The likelihoods again, from the files alone and by the formula written out."""
    path, tuning, job = tuned_run
    retrieval = job.recipe.retrieval
    run = RunFolder(path)
    assert json.loads((run.tuning / "tuning.json").read_text()) == json.loads(json.dumps(tuning.as_dict()))
    splits = {name: read_rows(run.data / f"{name}.jsonl") for name in ("train", "heldout")}
    gold = {name: label_indices(split, LABELS) for name, split in splits.items()}
    assert tuning.rows == len(splits["heldout"])
    student = EncoderClassifier.load(run.student)
    answers = {
        name: outputs_of(student, tinymodels.tokens_of(split.inputs(), run.student), "")
        for name, split in splits.items()
    }
    queries = {name: found.embedding.double().numpy() for name, found in answers.items()}
    if retrieval.query == "layers":
        head = {name: value.double().numpy() for name, value in load_file(run.query / "projection.safetensors").items()}
        queries = {
            name: normalised(states_of_all_layers(student, run.student, split.texts) @ head["weight"].T + head["bias"])
            for name, split in splits.items()
        }
    train_outputs = load_file(str(run.teacher_outputs / "train.safetensors"))
    teacher = normalised(
        train_outputs["embeddings"].double().numpy() @ LinearLayer.load(run.projection).weight.double().numpy().T
    )
    keys = {"student": queries["train"], "teacher": teacher}[retrieval.keys]

    blend = tuning.blend
    assert blend.weight is None and blend.label_temperature == 1.0 and blend.gold_share in retrieval.gold_shares
    similarities = queries["heldout"] @ keys.T
    soft = softmax(train_outputs["logits"].double().numpy(), 1.0)
    soft = (1 - blend.gold_share) * soft + blend.gold_share * np.eye(3)[gold["train"]]
    total = {"student": 0.0, "retrieval": 0.0, "blend": 0.0}
    for row, label in enumerate(gold["heldout"]):
        nearest = np.argsort(-similarities[row], kind="stable")[: blend.k]
        retrieved = softmax(similarities[row, nearest], blend.tau) @ soft[nearest]
        alone = softmax(answers["heldout"].logits[row].double().numpy(), blend.student_temperature)
        total["student"] -= np.log(alone[label])
        total["retrieval"] -= np.log(max(retrieved[label], 1e-12))  # 0 where every neighbour is gold of another class
        total["blend"] -= np.log(blend.student_weight * alone[label] + (1 - blend.student_weight) * retrieved[label])
    for name, value in total.items():
        assert tuning.nll[name] == pytest.approx(value / len(gold["heldout"]), rel=1e-3, abs=1e-5)


def test_the_same_again_is_the_same_bytes(quick_run: Finished, small_dataset: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(5)
    tuning = train(small_dataset, quick_run[2], tmp_path / "run")
    assert tuning == quick_run[1]
    assert contents(tmp_path / "run", timed=False) == contents(quick_run[0], timed=False)


def test_a_second_call_touches_nothing(
    quick_run: Finished, small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tuning, job = quick_run
    before = times(path)

    def never(*_: object, **__: object) -> Any:
        raise AssertionError("a stage was done again")

    for name in (
        "fine_tune",
        "fit_projection",
        "distil",
        "fit_layer_query",
        "save_tokenizer",
        "write_rows",
        "save_file",
    ):
        monkeypatch.setattr(training, name, never)
    assert train(small_dataset, job, path) == tuning
    assert redone(before, times(path)) == set()


@pytest.mark.parametrize(
    ("changes", "key", "stages"),
    [
        ({"seed": 1}, "recipe.seed", set(STAGES) - {"data"}),
        ({"precision": "bf16"}, "recipe.precision", set(STAGES) - {"data"}),
        ({"max_length": 20}, "recipe.max_length", set(STAGES) - {"data"}),
        ({"teacher__fit__learning_rate": 1e-3}, "recipe.teacher.fit.learning_rate", set(STAGES) - {"data"}),
        ({"projection__embedding_dim": 8}, "recipe.projection.embedding_dim", {"projection", *FROM_THE_STUDENT_ON}),
        ({"student__fit__batch_size": 8}, "recipe.student.fit.batch_size", FROM_THE_STUDENT_ON),
        ({"student__layers": (1,)}, "recipe.student.layers", FROM_THE_STUDENT_ON),
        ({"objectives": (ObjectiveRecipe("hard_labels"),)}, "recipe.objectives", FROM_THE_STUDENT_ON),
        ({"retrieval__gold_shares": (0.5,)}, "recipe.retrieval.gold_shares", {"tuning"}),
        ({"retrieval": RetrievalRecipe("distilled", "teacher")}, "recipe.retrieval.keys", {"tuning"}),
        ({"heldout_max": 5}, "data.rows.heldout", set(STAGES)),
    ],
)
def test_other_settings_are_refused_and_redo_repeats_the_dependent_stages(
    quick_run: Finished,
    small_dataset: Dataset,
    copy_of: Callable[[Path], Path],
    changes: dict[str, Any],
    key: str,
    stages: set[str],
) -> None:
    path, _, job = quick_run
    path = copy_of(path)
    before, files = times(path), contents(path)
    other = replace(job, recipe=override(job.recipe, **changes))
    with pytest.raises(OutputExistsError, match=key):
        train(small_dataset, other, path)
    assert times(path) == before and contents(path) == files
    train(small_dataset, replace(other, redo=True), path)
    assert redone(before, times(path)) == stages
    assert RunFolder(path).describe()["recipe"] == json.loads(json.dumps(other.recipe.as_dict()))
    train(small_dataset, other, path)  # and now those are its settings


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:

    def copy(path: Path) -> Path:
        return Path(shutil.copytree(path, tmp_path / "copy"))

    return copy


def test_frozen_word_embeddings_keep_the_pretrained_values(
    small_dataset: Dataset, tiny_bert: Path, tmp_path: Path
) -> None:
    frozen = tinymodels.fast_fit(1, freeze_word_embeddings=True)
    recipe = override(QUICK, teacher__fit=frozen, student__fit=frozen)
    train(small_dataset, TrainJob(str(tiny_bert), recipe), tmp_path / "run")
    name = "embeddings.word_embeddings.weight"
    start = load_file(str(tiny_bert / "model.safetensors"))
    for stage in ("teacher", "student"):
        weights = load_file(str(tmp_path / "run" / stage / "model.safetensors"))
        assert torch.equal(weights[name], start[name])
        assert not torch.equal(weights["embeddings.LayerNorm.weight"], start["embeddings.LayerNorm.weight"])


def test_a_fine_tuned_teacher_is_used_as_it_is(small_dataset: Dataset, tmp_path: Path) -> None:
    names = ("Weather", "Alarm", "Music")
    source = tinymodels.write_classifier(tmp_path / "teacher", dict(enumerate(names)))
    recipe = override(QUICK, teacher__labels=names)  # a random classifier is used all the same
    train(small_dataset, TrainJob(str(source), recipe), tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    assert run.describe()["teacher_is_fine_tuned"] is True
    assert sorted(path.name for path in run.teacher.iterdir()) == ["stage.json", "tokenizer.json"]
    model = AutoModelForSequenceClassification.from_pretrained(source).eval()
    rows = tinymodels.tokens_of(read_rows(run.data / "train.jsonl").inputs()[:6], run.teacher)
    logits = load_file(str(run.teacher_outputs / "train.safetensors"))["logits"]
    for row in range(6):
        torch.testing.assert_close(logits[row], model(**rows.batch([row])).logits[0, [1, 2, 0]], atol=1e-5, rtol=0)
    assert set(run_probabilities(run.path, small_dataset.splits["test"], LABELS)) == {"teacher", "student_fp32"}


def test_a_student_from_another_model(small_dataset: Dataset, tiny_bert: Path, tmp_path: Path) -> None:
    source = tinymodels.write_distilbert(tmp_path / "other")
    recipe = override(QUICK, student=StudentRecipe(model=str(source), fit=tinymodels.fast_fit(1)))
    train(small_dataset, TrainJob(str(tiny_bert), recipe), tmp_path / "run")
    student = EncoderClassifier.load(tmp_path / "run" / "student")
    assert student.encoder.config.model_type == "distilbert"
    assert student.head.embedding_dim == 16


def test_pairs(tiny_bert: Path, tmp_path: Path) -> None:
    dataset = tinymodels.make_dataset(rows=84, test=9, pairs=True)
    train(dataset, TrainJob(str(tiny_bert), QUICK), tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    assert run.describe()["data"]["text_pair"] is True
    assert read_rows(run.data / "train.jsonl").pairs is not None


def test_limit(small_dataset: Dataset, tiny_bert: Path, tmp_path: Path) -> None:
    train(small_dataset, TrainJob(str(tiny_bert), QUICK, limit=30), tmp_path / "run")
    assert RunFolder(tmp_path / "run").describe()["data"]["rows"] == {"train": 24, "heldout": 6}


def test_a_run_finds_its_teacher_from_any_folder(
    quick_run: Finished, small_dataset: Dataset, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fine-tuned teacher is read again by `eval --run`, wherever that is called."""
    path, _, job = quick_run
    monkeypatch.chdir(tiny_bert.parent)
    train(small_dataset, replace(job, teacher=tiny_bert.name), path)  # the same teacher: nothing to refuse or redo
    assert RunFolder(path).describe()["teacher"] == str(tiny_bert)


@pytest.mark.parametrize(("queries", "k"), [(7, 3), (1, 1), (5, 20)])
def test_exact_neighbours(queries: int, k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    asked, keys = torch.randn(queries, 6, generator=generator), torch.randn(20, 6, generator=generator)
    similarities, rows = exact_neighbours(asked, keys, k, chunk=2)
    scores = asked.double().numpy() @ keys.double().numpy().T
    expected = np.argsort(-scores, axis=1)[:, :k]
    np.testing.assert_array_equal(rows.numpy(), expected)
    np.testing.assert_allclose(similarities.numpy(), np.take_along_axis(scores, expected, axis=1), atol=1e-5)


def test_torchs_own_settings_are_put_back(quick_run: Finished, small_dataset: Dataset) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    train(small_dataset, quick_run[2], quick_run[0])
    assert torch.are_deterministic_algorithms_enabled() is before

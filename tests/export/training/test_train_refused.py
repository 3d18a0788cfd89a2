from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support import tiny_models as tinymodels
from support.runs import QUICK, Finished, contents
from transformers import (
    AutoModel,
    BartConfig,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
    YosoConfig,
)

from reaugkd.errors import ModelError, OutputExistsError, RecipeError
from reaugkd.export.recipe import ObjectiveRecipe, Recipe, StudentRecipe
from reaugkd.export.recipe_file import override
from reaugkd.export.training import model_checks
from reaugkd.export.training.train import TrainJob, train
from reaugkd.runtime.data import Dataset


def test_other_rows_are_refused(quick_run: Finished, tmp_path: Path) -> None:
    path, _, job = quick_run
    other = tinymodels.make_dataset(rows=84, test=9)
    other.splits["train"].texts[0] = "please wake me"
    with pytest.raises(OutputExistsError, match=r"data\.sha256"):
        train(other, job, Path(shutil.copytree(path, tmp_path / "copy")))


def test_other_folders_are_not_overwritten(small_dataset: Dataset, tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="not a run folder"):
        train(small_dataset, TrainJob(str(tiny_bert), QUICK), tmp_path)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}


def refused(recipe: Recipe, teacher: Path, dataset: Dataset, out: Path, error: type[Exception], match: str) -> None:
    """Unusable settings are refused at once and leave no folder."""
    with pytest.raises(error, match=match):
        train(dataset, TrainJob(str(teacher), recipe), out)
    assert not out.exists()


def test_unusable_settings_are_refused_before_any_training(
    small_dataset: Dataset, tiny_bert: Path, tmp_path: Path
) -> None:
    def check(recipe: Recipe, error: type[Exception], match: str, teacher: Path = tiny_bert) -> None:
        refused(recipe, teacher, small_dataset, tmp_path / "run", error, match)

    check(override(QUICK, objectives=(ObjectiveRecipe("no-such"),)), RecipeError, "unknown objective")
    check(override(QUICK, student__layers=(0, 4)), ModelError, "no such layer; found 0,4; expected numbers from 0 to 3")
    check(override(QUICK, student=StudentRecipe(model=str(tmp_path / "no"))), ModelError, "cannot be loaded")
    check(override(QUICK, max_length=tinymodels.POSITIONS + 1), RecipeError, "max_length exceeds .*at most 40")
    check(QUICK, ModelError, "cannot be loaded", tmp_path / "no")
    other = tinymodels.write_classifier(tmp_path / "teacher", {0: "a", 1: "b", 2: "c"})
    check(QUICK, ModelError, "does not know a label of the data", other)
    check(override(QUICK, teacher__labels=tinymodels.LABELS), RecipeError, "--teacher-labels names the outputs")


def small_config(kind: type[PretrainedConfig], **changes: Any) -> PretrainedConfig:
    like = tinymodels.bert_config()
    names = (
        "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size "
        "max_position_embeddings initializer_range"
    )
    return kind(**{**{name: getattr(like, name) for name in names.split()}, "pad_token_id": 0, **changes})


@pytest.mark.parametrize(
    ("config", "layers", "match"),
    [
        (small_config(ModernBertConfig, local_attention=8), (1, 3), "do not work in other positions"),
        (small_config(RobertaConfig, max_position_embeddings=tinymodels.MAX_LENGTH), (0, 3), "expected states of 24"),
        (
            BartConfig(vocab_size=len(tinymodels.VOCABULARY), d_model=16, encoder_layers=1, decoder_layers=1),
            (0,),
            "not an encoder",
        ),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_unusable_model_types_are_refused_before_any_training(
    config: PretrainedConfig, layers: tuple[int, ...], match: str, small_dataset: Dataset, tmp_path: Path
) -> None:
    AutoModel.from_config(config).save_pretrained(tmp_path / "teacher")
    tinymodels.tiny_tokenizer().save(str(tmp_path / "teacher" / "tokenizer.json"))
    recipe = override(QUICK, student__layers=layers)
    refused(recipe, tmp_path / "teacher", small_dataset, tmp_path / "run", ModelError, match)


OWN = StudentRecipe(model="own", fit=tinymodels.fast_fit(1))


@pytest.mark.parametrize(
    ("term", "changes", "match"),
    [
        (ObjectiveRecipe("attention", 1.0, {"layers": (0, 1, 2)}), {}, r"expected 2 numbers.* from 0 to 3"),
        (ObjectiveRecipe("attention", 1.0, {"layers": (0, 4)}), {}, r"expected 2 numbers.* from 0 to 3"),
        (ObjectiveRecipe("attention"), {"student": OWN}, "'attention' needs the same vocabulary .*found 200 tokens"),
        (ObjectiveRecipe("mixkd"), {"student": OWN}, "'mixkd' needs the same vocabulary .*found 200 tokens"),
        (
            ObjectiveRecipe("sea"),
            {"projection__embedding_dim": tinymodels.HIDDEN + 1},
            "cannot add dimensions .*found embedding_dim 33; expected at most the teacher's 32",
        ),
    ],
    ids=["too many layers", "no such layer", "attention", "mixkd", "sea"],
)
def test_an_objective_that_does_not_fit_the_models_is_refused_before_any_training(
    term: ObjectiveRecipe,
    changes: dict[str, Any],
    match: str,
    small_dataset: Dataset,
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    tinymodels.write_bert(tmp_path / "own", vocab_size=200, num_hidden_layers=1)
    recipe = override(QUICK, **changes, objectives=(ObjectiveRecipe("soft_labels"), term))
    refused(recipe, tiny_bert, small_dataset, tmp_path / "run", RecipeError, match)


@pytest.mark.parametrize("of_the_teacher", [True, False], ids=["teacher", "student"])
def test_a_model_without_attention_maps_is_refused_before_any_training(
    small_dataset: Dataset, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_the_teacher: bool
) -> None:
    """YOSO returns its layers' states instead of attention maps."""
    monkeypatch.setattr(model_checks, "require_exportable", lambda *_: None)  # as a student it could not be exported
    other = tmp_path / "yoso"
    AutoModel.from_config(small_config(YosoConfig)).save_pretrained(other)
    tinymodels.tiny_tokenizer().save(str(other / "tokenizer.json"))
    teacher, own = (other, tiny_bert) if of_the_teacher else (tiny_bert, other)
    student = StudentRecipe(model=str(own), fit=tinymodels.fast_fit(1))
    recipe = override(QUICK, student=student, objectives=(ObjectiveRecipe("attention"),))
    match = "yoso: the model does not return its attention maps; found shapes"
    refused(recipe, teacher, small_dataset, tmp_path / "run", ModelError, match)

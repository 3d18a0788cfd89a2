"""Runs with the attention objective: both models use eager attention, which returns the maps."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import tiny_models as tinymodels
from support.runs import QUICK
from support.tiny_models import LABELS

from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.recipe import ObjectiveRecipe, StudentRecipe
from reaugkd.export.recipe_file import override
from reaugkd.export.training import train as training
from reaugkd.export.training.distill import distil
from reaugkd.export.training.train import TrainJob, train
from reaugkd.runtime.data import Dataset

TERMS = (ObjectiveRecipe("soft_labels"), ObjectiveRecipe("attention"))


@pytest.fixture
def warned() -> Iterator[list[str]]:
    """What transformers warns of, also of what it tells once a process only."""
    found: list[str] = []

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    logger, handler = logging.getLogger("transformers"), Heard(logging.WARNING)
    logging.Logger.warning_once.cache_clear()  # type: ignore[attr-defined]
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def start(kind: str, tiny_bert: Path, folder: Path) -> tuple[Path, StudentRecipe]:
    """A teacher, and a student of its layers or of a model of its own."""
    fit = tinymodels.fast_fit(1)
    if kind == "own model":
        own = tinymodels.write_bert(folder / "own", seed=3, num_hidden_layers=1)
        return tiny_bert, StudentRecipe(model=str(own), fit=fit)
    if kind == "roberta":
        return tinymodels.write_roberta(folder / "roberta"), StudentRecipe(layers=(1,), fit=fit)
    if kind == "fine-tuned":
        return tinymodels.write_classifier(folder / "teacher", dict(enumerate(LABELS))), QUICK.student
    return tiny_bert, QUICK.student


@pytest.mark.parametrize("kind", ["layers", "own model", "roberta", "fine-tuned"])
def test_both_models_are_loaded_so_that_they_show_their_maps(
    small_dataset: Dataset,
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warned: list[str],
    kind: str,
) -> None:
    seen: list[Any] = []

    def watched(student: EncoderClassifier, load_teacher: Any, *rest: Any) -> None:
        seen.extend(model.encoder.config._attn_implementation for model in (student, load_teacher()))
        distil(student, load_teacher, *rest)

    monkeypatch.setattr(training, "distil", watched)
    teacher, student = start(kind, tiny_bert, tmp_path)
    run = tmp_path / "run"
    labels = LABELS if kind == "fine-tuned" else ()  # it is random, and used all the same
    recipe = override(QUICK, student=student, teacher__labels=labels)
    train(small_dataset, TrainJob(str(teacher), override(recipe, objectives=TERMS)), run)
    assert seen == ["eager", "eager"]
    assert [text for text in warned if "attention" in text] == []
    # Later stages, and runs without the objective, use the faster attention.
    assert EncoderClassifier.load(run / "student").encoder.config._attn_implementation == "sdpa"
    shutil.rmtree(run / "student")
    plain = override(recipe, objectives=TERMS[:1])
    train(small_dataset, TrainJob(str(teacher), plain, redo=True), run)
    assert seen[2:] == ["sdpa", "sdpa"]

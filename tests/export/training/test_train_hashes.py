"""Inputs of stages besides the settings of test_train.py: model files, rows, seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_models as tinymodels
from support.runs import QUICK, STAGES, Finished, KilledError, contents, redone, times

from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.modeling.layer_query import fit_layer_query
from reaugkd.export.modeling.projection import LinearLayer
from reaugkd.export.recipe import StudentRecipe
from reaugkd.export.recipe_file import override
from reaugkd.export.training import train as training
from reaugkd.export.training.run_folder import RunFolder, read_rows
from reaugkd.export.training.train import TrainJob, train
from reaugkd.runtime.data import Dataset

AFTER_THE_DATA = set(STAGES) - {"data"}
FROM_THE_STUDENT_ON = {"student", "query", "tuning"}


def two_models(folder: Path) -> TrainJob:
    """A teacher and a student of a model of its own, each in its folder."""
    student = tinymodels.write_bert(folder / "student", num_hidden_layers=1)
    recipe = override(QUICK, student=StudentRecipe(model=str(student), fit=tinymodels.fast_fit(1)))
    return TrainJob(str(tinymodels.write_bert(folder / "teacher")), recipe)


def test_changed_weights_in_a_models_folder_repeat_the_dependent_stages(small_dataset: Dataset, tmp_path: Path) -> None:
    """The settings are identical; only the files differ."""
    job, run = replace(two_models(tmp_path), redo=True), tmp_path / "run"
    train(small_dataset, job, run)
    changes: list[tuple[str, dict[str, Any], set[str]]] = [
        ("student", {"num_hidden_layers": 1}, FROM_THE_STUDENT_ON),
        ("teacher", {}, AFTER_THE_DATA),
    ]
    for model, shape, stages in changes:
        before = times(run)
        tinymodels.write_bert(tmp_path / model, seed=9, **shape)
        train(small_dataset, job, run)
        assert redone(before, times(run)) == stages


def test_a_student_of_its_own_model_starts_the_same_after_a_kill(
    small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heads are drawn, where one of the teacher's layers inherits them."""
    job = two_models(tmp_path)

    def killed(*_: object) -> Any:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(training, "start_student", killed)
        with pytest.raises(KilledError):
            train(small_dataset, job, tmp_path / "killed")
    torch.manual_seed(5)  # another process would have drawn other numbers
    assert train(small_dataset, job, tmp_path / "killed") == train(small_dataset, job, tmp_path / "whole")
    assert contents(tmp_path / "killed", timed=False) == contents(tmp_path / "whole", timed=False)


def test_the_query_is_fitted_on_the_train_rows_alone(quick_run: Finished) -> None:
    """The blend is tuned on the held-out rows; a query that had seen them would look better there than it is."""
    run, dim = RunFolder(quick_run[0]), quick_run[2].recipe.projection.embedding_dim
    rows = tinymodels.tokens_of(read_rows(run.data / "train.jsonl").inputs(), run.student)
    expected, found = fit_layer_query(EncoderClassifier.load(run.student), rows, dim), LinearLayer.load(run.query)
    assert expected.bias is not None and found.bias is not None
    torch.testing.assert_close(found.weight, expected.weight)
    torch.testing.assert_close(found.bias, expected.bias)

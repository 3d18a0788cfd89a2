"""A teacher or student whose files changed after a run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support import tiny_models as tinymodels
from support.runs import QUICK, STAGES, Finished, contents, redone, times

from reaugkd.errors import OutputExistsError
from reaugkd.export.recipe import StudentRecipe
from reaugkd.export.recipe_file import override
from reaugkd.export.training.run_folder import RunFolder
from reaugkd.export.training.train import TrainJob, train
from reaugkd.runtime.data import Dataset


def require_refused_and_redone(dataset: Dataset, job: TrainJob, run: Path, model: str, stages: set[str]) -> None:
    before, files = times(run), contents(run)
    with pytest.raises(OutputExistsError, match=rf"other settings: fingerprints\.{model};.*--redo"):
        train(dataset, job, run)
    assert times(run) == before and contents(run) == files
    train(dataset, replace(job, redo=True), run)
    assert redone(before, times(run)) == stages
    before = times(run)
    train(dataset, job, run)  # and now it was made from those
    assert redone(before, times(run)) == set()


def test_a_changed_teacher_is_refused(
    quick_run: Finished, small_dataset: Dataset, tiny_bert: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(quick_run[0], tmp_path / "run"))
    teacher = Path(shutil.copytree(tiny_bert, tmp_path / "teacher"))
    description = RunFolder(run).describe()
    (run / "run.json").write_text(json.dumps({**description, "teacher": str(teacher)}), encoding="utf-8")
    job = replace(quick_run[2], teacher=str(teacher))
    assert train(small_dataset, job, run) == quick_run[1]  # a copy is the same model
    (teacher / "notes.txt").write_text("mine")
    require_refused_and_redone(small_dataset, job, run, "teacher", set(STAGES) - {"data"})


def test_a_changed_student_is_refused(small_dataset: Dataset, tiny_bert: Path, tmp_path: Path) -> None:
    source = tinymodels.write_bert(tmp_path / "start", seed=1, num_hidden_layers=1)
    student = StudentRecipe(model=str(source), fit=tinymodels.fast_fit(1))
    job = TrainJob(str(tiny_bert), override(QUICK, student=student))
    train(small_dataset, job, tmp_path / "run")
    tinymodels.write_bert(source, seed=2, num_hidden_layers=1)
    require_refused_and_redone(small_dataset, job, tmp_path / "run", "student", {"student", "query", "tuning"})


def test_a_run_without_fingerprints_resumes(quick_run: Finished, small_dataset: Dataset, tmp_path: Path) -> None:
    path, tuning, job = quick_run
    run = Path(shutil.copytree(path, tmp_path / "run"))
    description = RunFolder(run).describe()
    old = {key: value for key, value in description.items() if key != "fingerprints"}
    (run / "run.json").write_text(json.dumps(old), encoding="utf-8")
    before = times(run)
    assert train(small_dataset, job, run) == tuning
    assert redone(before, times(run)) == set()
    assert RunFolder(run).describe() == description

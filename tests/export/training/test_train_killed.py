from __future__ import annotations

import functools
import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.runs import QUICK_STEPS, Finished, KilledError, contents

from reaugkd.errors import DataError
from reaugkd.export.modeling.execution import training_loop as fitting
from reaugkd.export.modeling.execution.training_loop import FitJob
from reaugkd.export.recipe import ObjectiveRecipe
from reaugkd.export.recipe_file import override
from reaugkd.export.training import train as training
from reaugkd.export.training.run_folder import RunFolder
from reaugkd.export.training.train import train
from reaugkd.runtime.data import Dataset

pytestmark = pytest.mark.slow

KILLED_BETWEEN = [
    "save_tokenizer",
    "fine_tune",
    "outputs_of",
    "fit_projection",
    "start_student",
    "distil",
    "fit_layer_query",
    "tune_blend",
]


@pytest.mark.parametrize("function", KILLED_BETWEEN)
def test_killed_between_stages_and_started_again(
    quick_run: Finished,
    small_dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
) -> None:
    path, tuning, job = quick_run

    def killed(*_: object, **__: object) -> Any:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(training, function, killed)
        with pytest.raises(KilledError):
            train(small_dataset, job, tmp_path / "run")
    half = contents(tmp_path / "run")
    assert not any(".tmp" in name for name in half)
    assert not (tmp_path / "run" / "tuning").exists()
    assert train(small_dataset, job, tmp_path / "run") == tuning
    assert contents(tmp_path / "run", timed=False) == contents(path, timed=False)
    # What was done before the kill was not done again.
    after = contents(tmp_path / "run")
    assert all(after[name] == content for name, content in half.items() if not name.startswith("checkpoints"))


@pytest.mark.parametrize("steps", [0, 1, QUICK_STEPS, QUICK_STEPS + 2, 2 * QUICK_STEPS - 1])
def test_killed_within_a_stage_and_started_again(
    quick_run: Finished, small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    path, tuning, job = quick_run
    monkeypatch.setattr(training, "FitJob", functools.partial(FitJob, checkpoint_seconds=0.0))
    step, taken = fitting._Loop.step, itertools.count()

    def counted(self: Any, number: int) -> None:
        if next(taken) == steps:
            raise KilledError
        step(self, number)

    monkeypatch.setattr(fitting._Loop, "step", counted)
    with pytest.raises(KilledError):
        train(small_dataset, job, tmp_path / "run")
    assert train(small_dataset, job, tmp_path / "run") == tuning
    # The killed step was the only one begun twice: the checkpoints were used.
    assert next(taken) == 2 * QUICK_STEPS + 1
    assert contents(tmp_path / "run", timed=False) == contents(path, timed=False)


def test_killed_again_and_again_it_still_ends_the_same(
    quick_run: Finished, small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tuning, job = quick_run
    monkeypatch.setattr(training, "FitJob", functools.partial(FitJob, checkpoint_seconds=0.0))
    step = fitting._Loop.step
    kills = 0
    for _ in range(20):
        left = itertools.count(-2)

        def deadly(self: Any, number: int, left: Any = left) -> None:
            if next(left) == 0:
                raise KilledError
            step(self, number)

        monkeypatch.setattr(fitting._Loop, "step", deadly)
        try:
            found = train(small_dataset, job, tmp_path / "run")
            break
        except KilledError:
            kills += 1
    assert kills >= 3 and found == tuning
    assert contents(tmp_path / "run", timed=False) == contents(path, timed=False)


def test_a_checkpoint_of_other_settings_is_not_taken(
    quick_run: Finished, small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill in the student's fit, a run with --redo and other settings must not use the checkpoint."""
    _, _, job = quick_run
    path = tmp_path / "run"
    other = replace(job, recipe=override(job.recipe, objectives=(ObjectiveRecipe("hard_labels"),)), redo=True)
    expected = train(small_dataset, other, tmp_path / "expected")
    monkeypatch.setattr(training, "FitJob", functools.partial(FitJob, checkpoint_seconds=0.0))
    step, taken = fitting._Loop.step, itertools.count()

    def counted(self: Any, number: int) -> None:
        if next(taken) == QUICK_STEPS + 2:
            raise KilledError
        step(self, number)

    monkeypatch.setattr(fitting._Loop, "step", counted)
    with pytest.raises(KilledError):
        train(small_dataset, job, path)
    assert (path / "checkpoints" / "student.pt").is_file()
    assert train(small_dataset, other, path) == expected
    assert contents(path / "student", timed=False) == contents(tmp_path / "expected" / "student", timed=False)


def test_a_run_that_is_being_redone_is_not_finished(
    quick_run: Finished, small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise an export would use the old student with the new settings."""
    path, _, job = quick_run
    shutil.copytree(path, tmp_path / "run")

    def killed(*_: object) -> None:
        raise KilledError

    monkeypatch.setattr(training, "fine_tune", killed)
    other = replace(job, recipe=override(job.recipe, seed=1), redo=True)
    with pytest.raises(KilledError):
        train(small_dataset, other, tmp_path / "run")
    with pytest.raises(DataError, match="not finished"):
        RunFolder(tmp_path / "run").require_finished()

"""Runs that share a folder of teachers reuse each other's stages by hard links."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.runs import QUICK, Finished, KilledError, contents, redone, times

from reaugkd.export.recipe import ObjectiveRecipe
from reaugkd.export.recipe_file import override
from reaugkd.export.training import run_folder as running
from reaugkd.export.training import train as training
from reaugkd.export.training.run_folder import RunFolder
from reaugkd.export.training.train import TrainJob, train
from reaugkd.runtime.data import Dataset

pytestmark = pytest.mark.slow

OF_TEACHERS = {"teacher", "teacher_outputs"}
PLAIN = override(QUICK, objectives=(ObjectiveRecipe("hard_labels"),))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "teachers"


@pytest.fixture
def first(quick_run: Finished, small_dataset: Dataset, tmp_path: Path, place: Path) -> Finished:
    """A run that shares, and has made its teacher itself."""
    job = replace(quick_run[2], shared=place)
    return tmp_path / "first", train(small_dataset, job, tmp_path / "first"), job


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that are fine-tuned from here on."""
    found: list[str] = []
    original = training.fine_tune

    def noted(model: str, *rest: Any) -> Any:
        found.append(model)
        return original(model, *rest)

    monkeypatch.setattr(training, "fine_tune", noted)
    return found


def shared_stages(place: Path) -> set[str]:
    """The stages in the folder of teachers, without the hashes of what they were made from."""
    return {folder.name.rpartition("-")[0] for folder in place.iterdir()}


def test_sharing_changes_nothing_in_a_run(first: Finished, quick_run: Finished, place: Path) -> None:
    assert first[1] == quick_run[1]
    assert contents(first[0], timed=False) == contents(quick_run[0], timed=False)
    assert shared_stages(place) == OF_TEACHERS and len(list(place.iterdir())) == 2


def test_another_students_run_takes_the_teacher_over(
    first: Finished, small_dataset: Dataset, tmp_path: Path, place: Path, fitted: list[str]
) -> None:
    """And is, byte for byte, the run that makes everything itself."""
    job = replace(first[2], recipe=PLAIN)
    tuning = train(small_dataset, job, tmp_path / "second")
    assert fitted == []
    alone = train(small_dataset, replace(job, shared=None), tmp_path / "alone")
    assert fitted == [job.teacher]
    assert tuning == alone
    assert contents(tmp_path / "second", timed=False) == contents(tmp_path / "alone", timed=False)
    assert len(list(place.iterdir())) == 2


def test_shared_stages_take_no_extra_space(
    first: Finished, small_dataset: Dataset, tmp_path: Path, place: Path
) -> None:
    train(small_dataset, replace(first[2], recipe=PLAIN), tmp_path / "second")
    files = [file for file in place.rglob("*") if file.is_file()]
    assert "model.safetensors" in {file.name for file in files}
    for file in files:
        name = Path(file.parent.name.rpartition("-")[0], file.name)
        assert file.samefile(first[0] / name) and file.samefile(tmp_path / "second" / name)
        assert file.stat().st_nlink == 3


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"teacher__fit__learning_rate": 1e-3}, {"max_length": 16}, {"heldout_max": 5}]
)
def test_changed_inputs_train_another_teacher(
    first: Finished, small_dataset: Dataset, tmp_path: Path, place: Path, fitted: list[str], changes: dict[str, Any]
) -> None:
    other = replace(first[2], recipe=override(QUICK, **changes))
    train(small_dataset, other, tmp_path / "second")
    assert fitted == [other.teacher]
    assert len(list(place.iterdir())) == 4 and shared_stages(place) == OF_TEACHERS


def test_a_run_that_is_redone_leaves_the_others_alone(
    first: Finished, small_dataset: Dataset, tmp_path: Path, place: Path
) -> None:
    train(small_dataset, replace(first[2], recipe=PLAIN), tmp_path / "second")
    kept = {folder: contents(folder) for folder in (tmp_path / "second", place)}
    train(small_dataset, replace(first[2], recipe=override(QUICK, seed=1), redo=True), first[0])
    assert contents(tmp_path / "second") == kept[tmp_path / "second"]
    assert kept[place].items() <= contents(place).items()
    # And back again: the first teacher is taken over from where it lies.
    before = times(first[0])
    assert train(small_dataset, replace(first[2], redo=True), first[0]) == first[1]
    assert redone(before, times(first[0])) >= OF_TEACHERS
    assert (first[0] / "teacher" / "model.safetensors").samefile(tmp_path / "second" / "teacher" / "model.safetensors")


def test_a_teacher_that_was_made_without_sharing_is_shared_by_the_next_call(
    quick_run: Finished, small_dataset: Dataset, tmp_path: Path, place: Path, fitted: list[str]
) -> None:
    path = Path(shutil.copytree(quick_run[0], tmp_path / "run"))
    before = times(path)
    assert train(small_dataset, replace(quick_run[2], shared=place), path) == quick_run[1]
    assert redone(before, times(path)) == set() and fitted == []
    assert shared_stages(place) == OF_TEACHERS


def killing(number: int) -> Callable[[Any, Any], None]:
    """``os.link``, but the call of that number is the process's last."""
    calls = itertools.count()

    def link(source: Any, target: Any, **options: Any) -> None:
        if next(calls) == number:
            raise KilledError
        os_link(source, target, **options)

    return link


os_link = os.link


@pytest.mark.parametrize("number", [0, 3, 8])
def test_killed_while_sharing(
    quick_run: Finished,
    small_dataset: Dataset,
    tmp_path: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    fitted: list[str],
    number: int,
) -> None:
    job = replace(quick_run[2], shared=place)
    with monkeypatch.context() as patch:
        patch.setattr(running.os, "link", killing(number))
        with pytest.raises(KilledError):
            train(small_dataset, job, tmp_path / "run")
    require_whole(place)
    assert train(small_dataset, job, tmp_path / "run") == quick_run[1]
    assert fitted == [job.teacher]
    assert contents(tmp_path / "run", timed=False) == contents(quick_run[0], timed=False)
    assert shared_stages(place) == OF_TEACHERS
    for stage in OF_TEACHERS:
        (there,) = place.glob(f"{stage}-*")
        assert contents(there) == contents(tmp_path / "run" / stage)


@pytest.mark.parametrize("number", [0, 3, 8])
def test_killed_while_taking_over(
    first: Finished,
    small_dataset: Dataset,
    tmp_path: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    fitted: list[str],
    number: int,
) -> None:
    job = replace(first[2], recipe=PLAIN)
    kept = contents(place)
    with monkeypatch.context() as patch:
        patch.setattr(running.os, "link", killing(number))
        with pytest.raises(KilledError):
            train(small_dataset, job, tmp_path / "run")
    require_whole(place)
    require_whole(tmp_path / "run", "teacher")
    tuning = train(small_dataset, job, tmp_path / "run")
    assert fitted == [] and contents(place) == kept
    assert tuning == train(small_dataset, replace(job, shared=None), tmp_path / "alone")
    assert contents(tmp_path / "run", timed=False) == contents(tmp_path / "alone", timed=False)


def require_whole(folder: Path, prefix: str = "") -> None:
    """Assert that there is no temporary, and that every stage with that prefix is there with its marker."""
    assert [path for path in folder.rglob("*") if path.name.endswith(".tmp")] == []
    assert all((stage / "stage.json").is_file() for stage in folder.glob(f"{prefix}*") if stage.is_dir())


def test_only_a_teachers_stages_are_shared(tmp_path: Path, place: Path) -> None:
    run = RunFolder(tmp_path / "run", place)
    for folder in (run.data, run.teacher, run.teacher_outputs, run.projection, run.student, run.query, run.tuning):
        with run.stage(folder, f"hash of {folder.name}"):
            pass
    assert shared_stages(place) == OF_TEACHERS


def test_a_job_shares_nothing_by_default() -> None:
    assert TrainJob("teacher", QUICK).shared is None and RunFolder(Path("run")).shared is None

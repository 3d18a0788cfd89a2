"""Cross-fitted labels: related rows share a fold, and no row is labelled by a teacher that was fitted on its fold."""

from __future__ import annotations

import functools
import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from support import tiny_models as tinymodels
from support.runs import QUICK, STAGES, Finished, KilledError, contents, redone, times
from support.tiny_models import LABELS

from reaugkd import Runtime
from reaugkd.errors import DataError, RecipeError
from reaugkd.export.bundle.write import ExportJob, export
from reaugkd.export.modeling import training_loop as fitting
from reaugkd.export.modeling.teacher import fine_tune
from reaugkd.export.modeling.training_loop import FitJob, outputs_of
from reaugkd.export.recipe import RetrievalRecipe
from reaugkd.export.recipe_file import override
from reaugkd.export.training import train as training
from reaugkd.export.training.cross_fit import folds_of
from reaugkd.export.training.run_folder import RunFolder, read_rows
from reaugkd.export.training.teacher_outputs import load_cross_fitted
from reaugkd.export.training.train import TrainJob, train
from reaugkd.export.tuning.groups import related_rows
from reaugkd.runtime.data import Dataset, Split, label_indices

FOLDS = 2
CROSS_FITTED = RetrievalRecipe(labels="cross_fitted", folds=FOLDS, keep_heldout=False)
JOB = ExportJob("avx2", "none", allow_quality_loss=True)

words = st.sampled_from(["a", "b", "c", "d"])
phrases = st.lists(words, min_size=1, max_size=4).map(" ".join)


def split_of(texts: list[str], pairs: list[str] | None = None) -> Split:
    return Split(texts, pairs, None, "here.csv", list(range(1, len(texts) + 1)))


# Folds.


@given(st.lists(st.tuples(phrases, phrases), min_size=1, max_size=60), st.integers(2, 5), st.booleans())
@settings(max_examples=100, deadline=None)
def test_related_rows_share_a_fold_and_folds_are_about_equal(
    rows: list[tuple[str, str]], folds: int, pairs: bool
) -> None:
    split = split_of([first for first, _ in rows], [second for _, second in rows] if pairs else None)
    groups = related_rows(split)
    largest = np.bincount(groups).max()
    if largest == len(rows):
        with pytest.raises(DataError, match="all related"):
            folds_of(split, folds)
        return
    found = folds_of(split, folds)
    assert found.dtype == np.int64 and found.shape == (len(rows),)
    for group in set(groups.tolist()):
        assert len(set(found[groups == group].tolist())) == 1
    sizes = np.bincount(found)
    assert 2 <= len(sizes) <= folds and sizes.min() >= 1  # numbered from 0 without a gap
    if len(sizes) == folds:
        assert np.abs(sizes - len(rows) / folds).max() <= largest
    assert np.array_equal(folds_of(split, folds), found)


def test_unrelated_rows_make_equal_folds_in_a_drawn_order() -> None:
    found = folds_of(split_of([f"word{number}" for number in range(100)]), 3)
    assert sorted(np.bincount(found).tolist()) == [33, 33, 34]
    assert not np.array_equal(found, np.sort(found))
    assert [len(set(found[start : start + 20].tolist())) for start in range(0, 100, 20)] == [3] * 5


def test_rows_that_are_all_related_are_refused() -> None:
    with pytest.raises(DataError, match="all rows are related") as caught:
        folds_of(split_of(["wake me", "wake", "wake me up"]), 2)
    assert caught.value.path == "here.csv" and 'labels = "teacher"' in str(caught.value)


# Labels.


@pytest.fixture(scope="module")
def job(quick_run: Finished) -> TrainJob:
    return replace(quick_run[2], recipe=override(QUICK, retrieval=CROSS_FITTED))


@pytest.fixture(scope="module")
def cross_fitted_run(small_dataset: Dataset, job: TrainJob, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    path = tmp_path_factory.mktemp("cross") / "run"
    return path, train(small_dataset, job, path), job


def labels_of(run: RunFolder, fold: int) -> tuple[np.ndarray, np.ndarray]:
    stored = load_file(str(run.cross_fit(fold) / "labels.safetensors"))
    return stored["rows"].numpy(), stored["logits"].numpy()


def test_every_row_is_labelled_once(cross_fitted_run: Finished) -> None:
    path = cross_fitted_run[0]
    run = RunFolder(path)
    assert sorted(item.name for item in path.iterdir()) == sorted([*STAGES, "cross_fit_0", "cross_fit_1", "run.json"])
    rows = read_rows(run.data / "train.jsonl")
    parts = [labels_of(run, fold) for fold in range(FOLDS)]
    assert sorted(np.concatenate([found for found, _ in parts]).tolist()) == list(range(len(rows)))
    together = load_cross_fitted(run)
    assert together is not None and together.shape == (len(rows), 3)
    groups = related_rows(rows)
    for found, logits in parts:
        assert np.array_equal(together.numpy()[found], logits)
        others = np.setdiff1d(np.arange(len(rows)), found)
        assert not set(groups[found]) & set(groups[others])
        assert not {rows.texts[row] for row in found} & {rows.texts[row] for row in others}


@pytest.mark.parametrize("fold", range(FOLDS))
def test_a_folds_teacher_has_not_seen_it(
    cross_fitted_run: Finished, tiny_bert: Path, tmp_path: Path, fold: int
) -> None:
    """The fold's teacher fitted again by hand, on the rows of the other folds alone."""
    run, recipe = RunFolder(cross_fitted_run[0]), QUICK.teacher
    rows = read_rows(run.data / "train.jsonl")
    unknown, logits = labels_of(run, fold)
    known = np.setdiff1d(np.arange(len(rows)), unknown)
    gold = torch.from_numpy(label_indices(rows, LABELS))

    def fitted(chosen: np.ndarray) -> np.ndarray:
        shown = tinymodels.tokens_of([rows.texts[row] for row in chosen], tiny_bert)
        fit = FitJob("by hand", recipe.fit, QUICK.seed, "fp32", tmp_path / "never.pt")
        teacher = fine_tune(str(tiny_bert), recipe, shown, gold[chosen], LABELS, fit)
        asked = tinymodels.tokens_of([rows.texts[row] for row in unknown], tiny_bert)
        return outputs_of(teacher, asked, "").logits.numpy()

    np.testing.assert_allclose(logits, fitted(known), atol=1e-5)
    assert np.abs(logits - fitted(np.arange(len(rows)))).max() > 0.01


def test_the_student_is_distilled_from_the_teacher_of_all_rows(cross_fitted_run: Finished, quick_run: Finished) -> None:
    ours, plain = (contents(path, timed=False) for path in (cross_fitted_run[0], quick_run[0]))
    for name in plain:
        if name.split("/")[0] in STAGES and not name.startswith("tuning"):
            assert ours[name] == plain[name], name


def test_the_knowledge_base_has_them(cross_fitted_run: Finished, tmp_path: Path) -> None:
    run = RunFolder(cross_fitted_run[0])
    made = export(run.path, tmp_path / "bundle", JOB)
    assert made.tuning.nll == pytest.approx(cross_fitted_run[1].nll, rel=0.02)
    blend = made.manifest.blend
    rows = read_rows(run.data / "train.jsonl")
    expected = np.empty((len(rows), 3))
    for fold in range(FOLDS):
        found, logits = labels_of(run, fold)
        exponents = np.exp(logits.astype(np.float64))
        expected[found] = exponents / exponents.sum(axis=1, keepdims=True)
    expected = (1 - blend.gold_share) * expected + blend.gold_share * np.eye(3)[label_indices(rows, LABELS)]
    with Runtime.open(tmp_path / "bundle") as runtime:
        np.testing.assert_allclose(runtime.knowledge_base.soft_labels, expected, atol=1e-3)


def test_an_export_can_choose_them(cross_fitted_run: Finished, tmp_path: Path) -> None:
    """The teacher's own labels are there too: the tuning is then that of a run without cross-fitting."""
    plain = replace(CROSS_FITTED, labels="teacher", gold_shares=(0.0,))
    export(cross_fitted_run[0], tmp_path / "bundle", replace(JOB, retrieval=plain))
    logits = load_file(str(RunFolder(cross_fitted_run[0]).teacher_outputs / "train.safetensors"))["logits"].double()
    with Runtime.open(tmp_path / "bundle") as runtime:
        expected = torch.softmax(logits, dim=1).numpy()
        np.testing.assert_allclose(runtime.knowledge_base.soft_labels, expected, atol=1e-3)


# Killed, changed, refused.


@pytest.mark.parametrize("step", [4, 5, 6, 8])  # the teacher takes four, each fold's about two
@pytest.mark.slow
def test_killed_and_started_again(
    cross_fitted_run: Finished, small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    path, tuning, job = cross_fitted_run
    monkeypatch.setattr(training, "FitJob", functools.partial(FitJob, checkpoint_seconds=0.0))
    original, taken = fitting._Loop.step, itertools.count()

    def counted(self: Any, number: int) -> None:
        if next(taken) == step:
            raise KilledError
        original(self, number)

    monkeypatch.setattr(fitting._Loop, "step", counted)
    with pytest.raises(KilledError):
        train(small_dataset, job, tmp_path / "run")
    assert (tmp_path / "run" / "teacher").is_dir() and not (tmp_path / "run" / "student").exists()
    half = contents(tmp_path / "run")
    assert not any(".tmp" in name for name in half)
    assert train(small_dataset, job, tmp_path / "run") == tuning
    after = contents(tmp_path / "run")
    assert all(after[name] == content for name, content in half.items() if not name.startswith("checkpoints"))
    assert contents(tmp_path / "run", timed=False) == contents(path, timed=False)


def test_a_run_gets_them_later(
    quick_run: Finished, cross_fitted_run: Finished, small_dataset: Dataset, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(quick_run[0], tmp_path / "run"))
    before = times(path)
    train(small_dataset, replace(cross_fitted_run[2], redo=True), path)
    assert redone(before, times(path)) == {"cross_fit_0", "cross_fit_1", "tuning"}
    assert contents(path, timed=False) == contents(cross_fitted_run[0], timed=False)


@pytest.mark.slow
def test_those_of_other_settings_are_not_taken(
    cross_fitted_run: Finished, small_dataset: Dataset, tmp_path: Path
) -> None:
    """Fewer folds than before leave labels of the old ones beside the new ones; other labels leave them all."""
    path = Path(shutil.copytree(cross_fitted_run[0], tmp_path / "run"))
    run, job = RunFolder(path), replace(cross_fitted_run[2], redo=True)
    two = load_cross_fitted(run)
    train(small_dataset, replace(job, recipe=override(job.recipe, retrieval__folds=3)), path)
    three = load_cross_fitted(run)
    train(small_dataset, job, path)
    again = load_cross_fitted(run)
    assert two is not None and three is not None and again is not None
    assert torch.equal(again, two) and not torch.equal(three, two) and three.shape == two.shape
    train(small_dataset, replace(job, recipe=override(job.recipe, seed=1, retrieval=RetrievalRecipe())), path)
    assert load_cross_fitted(run) is None
    with pytest.raises(DataError, match="no cross-fitted labels"):
        export(path, tmp_path / "bundle", replace(JOB, retrieval=CROSS_FITTED))


def test_a_run_without_them_cannot_export_them(quick_run: Finished, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no cross-fitted labels") as caught:
        export(quick_run[0], tmp_path / "bundle", replace(JOB, retrieval=CROSS_FITTED))
    assert caught.value.path == str(quick_run[0])
    assert 'labels = "cross_fitted"' in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("gone", [["cross_fit_0"], ["cross_fit_1"], ["cross_fit_0", "cross_fit_1"]])
def test_missing_folds_are_reported(cross_fitted_run: Finished, tmp_path: Path, gone: list[str]) -> None:
    path = Path(shutil.copytree(cross_fitted_run[0], tmp_path / "run"))
    for name in gone:
        shutil.rmtree(path / name)
    with pytest.raises(DataError, match="do not cover each train row once") as caught:
        export(path, tmp_path / "bundle", replace(JOB, retrieval=CROSS_FITTED))
    assert "run the same `reaugkd train` again" in str(caught.value)


def test_a_teacher_that_comes_fine_tuned_is_refused(job: TrainJob, small_dataset: Dataset, tmp_path: Path) -> None:
    source = tinymodels.write_classifier(tmp_path / "teacher", dict(enumerate(LABELS)))
    with pytest.raises(RecipeError, match="a teacher that is not fine-tuned") as caught:
        train(small_dataset, replace(job, teacher=str(source)), tmp_path / "run")
    assert caught.value.path == str(source) and 'labels = "teacher"' in str(caught.value)
    assert not (tmp_path / "run").exists()

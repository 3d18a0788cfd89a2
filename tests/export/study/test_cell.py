"""A small cell of a study, from its TOML to its metrics, which equal those of a bundle with the same recipe."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny_models as tinymodels
from support.tiny_models import LABELS

from reaugkd import Runtime
from reaugkd.errors import UsageError
from reaugkd.export.bundle.write import ExportJob, export
from reaugkd.export.modeling.teacher import fine_tune
from reaugkd.export.onnx.quantization import detect_target
from reaugkd.export.recipe import RetrievalRecipe
from reaugkd.export.study import cell as cells
from reaugkd.export.study.cell import load_local, run_cell
from reaugkd.export.study.plan import KB_REST, Cell, Plan, load_plan
from reaugkd.export.study.results import CellNotes, CellResult, SystemResult, read_cell, write_cell
from reaugkd.export.training import evaluate_run as evaluate
from reaugkd.export.training import train as training
from reaugkd.export.training.evaluate_run import evaluate_with_run, run_probabilities
from reaugkd.export.training.finished_run import FinishedRun
from reaugkd.export.training.run_folder import RunFolder
from reaugkd.export.training.splits import assign
from reaugkd.runtime.data import Columns, Split, label_indices
from reaugkd.runtime.evaluation.evaluate import predict_split
from reaugkd.runtime.evaluation.metrics import score
from reaugkd.runtime.evaluation.results import BLEND, FIDELITY_METRICS, TEACHER

FIT = "epochs = 2\nbatch_size = 16\nlearning_rate = 2e-3\nhead_learning_rate = 5e-3\nfreeze_word_embeddings = false\n"
RECIPE = f"""
max_length = 24
precision = "fp32"
heldout_share = 0.2
projection.embedding_dim = 16
projection.epochs = 2
student.layers = [0, 3]
[teacher.fit]
{FIT}
[student.fit]
{FIT}
[retrieval]
"""
STUDY = """
teacher = "teacher"
seeds = [0, 1]
recipes = ["kd", "plain"]

[[tasks]]
name = "tiny"
data = "data"
limit = 120
kb_rest = true

[[variants]]
name = "paper"
query = "distilled"
keys = "teacher"
gold_shares = [0.0]
keep_heldout = false

[[variants]]
name = "left"
keep_heldout = false

[options]
out_of_domain = "other.csv"
"""
PAPER = RetrievalRecipe("distilled", "teacher", gold_shares=(0.0,), keep_heldout=False)
VARIANTS: dict[str, RetrievalRecipe] = {
    "": RetrievalRecipe(),
    "paper": PAPER,
    "left": RetrievalRecipe(keep_heldout=False),
    KB_REST: RetrievalRecipe(),
}
OF_BUNDLES = ("student", "retrieval", "student+retrieval")


def write_csv(path: Path, split: Split) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(zip(split.texts, split.labels or (), strict=True))


@dataclass(frozen=True)
class Done:
    """A finished cell and its folder."""

    cell: Cell
    plan: Plan
    out: Path
    data: Path
    result: CellResult

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.out / "runs" / "tiny" / f"{self.cell.recipe}-{self.cell.seed}")

    def again(self, **changes: Any) -> CellResult:
        """The cell, or one that differs in some fields, in the same study; without variants if it differs."""
        plan = replace(self.plan, variants=()) if changes else self.plan
        return run_cell(replace(self.cell, **changes), plan, self.out, self.data)

    def find(self, system: str, variant: str = "") -> SystemResult:
        found = self.result.find(system, variant)
        assert found is not None, (system, variant)
        return found


@pytest.fixture(scope="module", autouse=True)
def few_distillation_rows() -> Iterator[None]:
    """So few that they are a sample of the tiny train split too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "DISTILLATION_ROWS", 40)
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("study")
    (folder / "data").mkdir()
    for name, split in tinymodels.make_dataset(rows=180, test=40).splits.items():
        write_csv(folder / "data" / f"{name}.csv", split)
    write_csv(folder / "other.csv", tinymodels.make_split(600, 9))
    tinymodels.write_bert(folder / "teacher")
    (folder / "kd.toml").write_text(RECIPE)
    (folder / "plain.toml").write_text(f"{RECIPE}[[objectives]]\nname = 'hard_labels'\n")
    (folder / "study.toml").write_text(STUDY)
    plan = load_plan(folder / "study.toml")
    cell = plan.cells()[0]
    return Done(cell, plan, folder / "out", folder, run_cell(cell, plan, folder / "out", folder))


@pytest.fixture(scope="module")
def test_rows(done: Done) -> Split:
    return load_local(str(done.data / "data"), None, Columns()).splits["test"]


def test_every_system_has_a_result(done: Done) -> None:
    expected = [("teacher", ""), ("student_fp32", "")]
    expected += [
        (system, variant) for variant in VARIANTS for system in OF_BUNDLES if not variant or system != "student"
    ]
    assert [(one.system, one.variant) for one in done.result.systems] == expected
    assert (done.cell.task.name, done.cell.recipe, done.cell.seed) == ("tiny", "kd", 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_its_metrics_are_those_of_a_bundle(done: Done, test_rows: Split, tmp_path: Path, variant: str) -> None:
    """Exported from the cell's run by the variant's recipe, and asked row by row, with the same search."""
    extra = None
    if variant == KB_REST:
        extra = assign(load_local(str(done.data / "data"), None, Columns()), done.cell.settings, 120).beyond
        assert len(extra) > 20
    job = ExportJob(detect_target(), allow_quality_loss=True, retrieval=VARIANTS[variant], extra=extra)
    manifest = export(done.run.path, tmp_path / "bundle", job).manifest
    teacher = run_probabilities(done.run.path, test_rows, LABELS)["teacher"]
    with Runtime.open(tmp_path / "bundle", search="usearch") as runtime:
        answers = predict_split(runtime, test_rows)
        fidelity = evaluate_with_run(done.run.path, runtime, test_rows).fidelity
    assert fidelity is not None
    beside = {(kind, row.system): row.scores for kind in ("typos", "distillation") for row in fidelity.kinds[kind]}
    for system in OF_BUNDLES:
        # Retrieval does not change the student alone, which is the same for all variants.
        probabilities, found = answers.systems[system], done.find(system, "" if system == "student" else variant)
        expected = score(probabilities, answers.gold, teacher)
        for kind in ("typos", "distillation"):
            for name in FIDELITY_METRICS:
                expected[f"{kind}_{name}"] = beside[kind, system][name]
        for name, value in expected.items():
            assert found.metrics[name] == pytest.approx(value, abs=1e-4), (system, name)
        assert found.metrics["n"] == 40
        assert np.array_equal(found.gold, answers.gold)
        assert np.array_equal(found.predicted, probabilities.argmax(axis=1))
        np.testing.assert_allclose(found.gold_probability, probabilities[np.arange(40), found.gold], atol=1e-4)
        np.testing.assert_allclose(found.confidence, probabilities.max(axis=1), atol=1e-4)
    for (kind, system), scores in beside.items():
        if system == "teacher":
            figures = {name: done.find("teacher").metrics[f"{kind}_{name}"] for name in FIDELITY_METRICS}
            assert figures == pytest.approx({name: scores[name] for name in FIDELITY_METRICS}, abs=1e-5)
    reported, blend = done.find("student+retrieval", variant).metrics, manifest.blend
    assert reported["kb_rows"] == manifest.kb_rows
    assert (reported["k"], reported["tau"], reported["gold_share"]) == (blend.k, blend.tau, blend.gold_share)
    assert reported["student_weight"] == pytest.approx(blend.student_weight)


def test_teacher_and_float32_student_are_the_runs(done: Done, test_rows: Split) -> None:
    answers = run_probabilities(done.run.path, test_rows, LABELS)
    gold = label_indices(test_rows, LABELS)
    for system, probabilities in answers.items():
        expected = score(probabilities, gold, answers["teacher"])
        found = done.find(system).metrics
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_mistyped_rows_can_be_left_out(done: Done) -> None:
    plan = replace(done.plan, variants=(), options={"typos": False})
    student = run_cell(done.cell, plan, done.out, done.data).find("student")
    assert student is not None and "distillation_ece" in student.metrics
    assert not [name for name in student.metrics if name.startswith("typos")]


def test_the_embeddings_are_evaluated_on_another_domain(done: Done) -> None:
    figures = {one.system: one.metrics.get("out_of_domain") for one in done.result.systems}
    assert {name for name, value in figures.items() if value is not None} == {"teacher", "student_fp32"}
    assert all(1 / 3 < float(figures[name] or 0) <= 1 for name in ("teacher", "student_fp32"))


def test_it_leaves_a_finished_run_and_a_shared_teacher(done: Done) -> None:
    FinishedRun.read(done.run)  # which an export can be made from
    stages = {folder.name.rpartition("-")[0] for folder in (done.out / "teachers").iterdir()}
    assert stages == {"teacher", "teacher_outputs", "scored"}


def test_it_can_be_kept(done: Done, tmp_path: Path) -> None:
    write_cell(tmp_path / "cell.parquet", done.cell, done.result, CellNotes("settings", "inputs", 1.0, 3))
    again = read_cell(tmp_path / "cell.parquet")
    assert [(one.system, one.variant, dict(one.metrics)) for one in again.systems] == [
        (one.system, one.variant, dict(one.metrics)) for one in done.result.systems
    ]


def test_the_teacher_of_another_run_teaches_as_it_is(done: Done, tmp_path: Path) -> None:
    """It has seen all rows, the student a third; nothing is fitted again."""
    plan = replace(done.plan, here=str(done.run.teacher), variants=(), options={})
    cell = replace(done.cell, task=replace(done.cell.task, limit=60, kb_rest=True))
    found = run_cell(cell, plan, tmp_path, done.data)
    teacher, before = found.find(TEACHER), done.find(TEACHER)
    assert teacher is not None and np.array_equal(teacher.predicted, before.predicted)
    np.testing.assert_allclose(teacher.gold_probability, before.gold_probability, atol=1e-5)
    own, rest = found.find(BLEND), found.find(BLEND, KB_REST)
    assert own is not None and rest is not None
    assert int(str(rest.metrics["kb_rows"])) > int(str(own.metrics["kb_rows"])) <= 60


@pytest.fixture
def asked_teachers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records what is done with teachers: ``fitted``, or ``asked`` for the scored rows."""
    found: list[str] = []
    teacher = FinishedRun.teacher

    def fitted(*given: Any) -> Any:
        found.append("fitted")
        return fine_tune(*given)

    def asked(self: FinishedRun) -> Any:
        found.append("asked")
        return teacher(self)

    monkeypatch.setattr(training, "fine_tune", fitted)
    monkeypatch.setattr(FinishedRun, "teacher", asked)
    monkeypatch.setattr(cells, "_with_out_of_domain", lambda systems, *_: systems)
    return found


def test_another_recipe_takes_teacher_and_its_answers_over(done: Done, asked_teachers: list[str]) -> None:
    other = next(cell for cell in done.plan.cells() if (cell.recipe, cell.seed) == ("plain", 0))
    # Only the rest of the rows, which go into another knowledge base, are asked about again.
    result = done.again(recipe="plain", settings=other.settings)
    assert asked_teachers == ["asked"]
    found, first = result.find("teacher"), done.find("teacher")
    assert found is not None and np.array_equal(found.gold_probability, first.gold_probability)
    student = result.find("student_fp32")
    assert student is not None and not np.array_equal(student.confidence, done.find("student_fp32").confidence)


def test_another_seed_does_not(done: Done, asked_teachers: list[str]) -> None:
    other = next(cell for cell in done.plan.cells() if (cell.recipe, cell.seed) == ("kd", 1))
    result = done.again(seed=1, settings=other.settings)
    assert asked_teachers == ["fitted", "asked", "asked"]
    found = result.find("teacher")
    assert found is not None and not np.array_equal(found.confidence, done.find("teacher").confidence)


def test_the_same_again_is_the_same(done: Done, asked_teachers: list[str]) -> None:
    again = done.again()
    assert asked_teachers == ["asked"]
    for one, other in zip(again.systems, done.result.systems, strict=True):
        kept = {name: value for name, value in other.metrics.items() if name != "out_of_domain"}
        assert dict(one.metrics) == kept
        assert np.array_equal(one.gold_probability, other.gold_probability)


def test_a_missing_split_is_refused_before_the_training(done: Done, tmp_path: Path) -> None:
    cell = replace(done.cell, task=replace(done.cell.task, data="rows.csv", split="test"))
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"row {n},{n % 2}\n" for n in range(60)))
    with pytest.raises(UsageError, match="test"):
        run_cell(cell, done.plan, tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()

"""`train --teacher-outputs`: from an LLM's answers to a bundle, on the command line."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.command_line import ok, ok_json, records, refused
from support.workshop import RECIPE

from reaugkd import Runtime

KD = """
[[objectives]]
name = "soft_labels"
[[objectives]]
name = "hard_labels"
weight = 0.5
"""


@dataclass(frozen=True)
class Job:
    """A training from answers: its inputs, its run, its bundle, and what train and export said."""

    folder: Path
    train_said: str
    export_said: str

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    def arguments(self, out: str) -> list[object]:
        options = {
            "--teacher-outputs": self.folder / "answers.jsonl",
            "--student": self.folder / "student",
            "--recipe": self.folder / "recipe.toml",
            "--out": self.folder / out,
            "--student-epochs": 6,
        }
        return ["train", *(part for pair in options.items() for part in pair), "--data", self.folder / "gold"]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """240 texts with five votes each, 60 test rows with gold labels, a pretrained student of two layers. Read-only."""
    from support import teacher_files, tiny_models

    folder = tmp_path_factory.mktemp("answers")
    splits = tiny_models.make_dataset().splits
    teacher_files.write_answers(folder / "answers.jsonl", teacher_files.answer_rows(splits["train"]))
    (folder / "gold").mkdir()
    with (folder / "gold" / "test.csv").open("w", encoding="utf-8", newline="") as file:
        rows = zip(splits["test"].texts, splits["test"].labels or (), strict=True)
        csv.writer(file).writerows([("text", "label"), *rows])
    (folder / "recipe.toml").write_text(RECIPE + KD)
    tiny_models.write_bert(folder / "student", num_hidden_layers=2)
    trained = ok(*Job(folder, "", "").arguments("run"))
    exported = ok("export", folder / "run", "--out", folder / "bundle", "--target", "avx2", "--allow-quality-loss")
    assert trained.out == exported.out == ""
    return Job(folder, trained.err, exported.err)


def test_train_says_what_it_read_and_what_the_held_out_rows_measure(job: Job) -> None:
    lines = job.train_said.splitlines()
    assert f"{job.folder / 'answers.jsonl'}: 240 answers to 240 texts, 3 labels; gold labels: none" in lines
    (heldout,) = (line for line in lines if "no gold label" in line)
    assert heldout in job.export_said.splitlines()
    rows = len((job.run / "data" / "heldout.jsonl").read_text().splitlines())
    assert heldout.startswith(f"{rows} of {rows} held-out rows have no gold label")


def test_the_bundle_answers_and_names_its_teacher(job: Job) -> None:
    texts = {"alarm": "wake alarm bell snooze", "music": "song album jazz", "weather": "rain cloud storm"}
    assert [record["label"] for record in records(ok_json(job.bundle, *texts.values()))] == list(texts)
    assert "file answers.jsonl, on answers" in ok("inspect", job.bundle).out
    with Runtime.open(job.bundle) as runtime:
        assert runtime.manifest.created_from["teacher"] == "file answers.jsonl"
        assert str(job.folder) not in json.dumps(runtime.manifest.created_from)
        neighbour = runtime.predict("song album jazz").neighbours[0]
    assert neighbour.label == "music"


def test_the_bundle_scores_on_gold_labels(job: Job) -> None:
    done = ok("eval", job.bundle, "--data", job.folder / "gold", "--json", "-")
    found = json.loads(done.out)
    assert found["n"] == 60 and found["rows"][0]["system"] == "student" and found["rows"][0]["accuracy"] > 0.8
    done = ok("eval", job.bundle, "--data", job.folder / "gold", "--run", job.run, "--json", "-")
    assert [row["system"] for row in json.loads(done.out)["rows"]][:2] == ["student_fp32", "student"]
    assert "the run's teacher is a file: it is not scored" in done.err


def test_a_tenth_that_training_did_not_hold_out_is_not_scored_as_if_it_had(job: Job) -> None:
    message = refused("eval", job.bundle, "--data", job.folder / "gold" / "test.csv")
    assert "--teacher-outputs holds no dev rows out" in message and "--split all" in message
    assert (
        json.loads(
            ok("eval", job.bundle, "--data", job.folder / "gold" / "test.csv", "--split", "all", "--json", "-").out
        )["n"]
        == 60
    )


def test_the_same_again_repeats_nothing(job: Job) -> None:
    before = {file: file.stat().st_mtime_ns for file in job.run.rglob("*.safetensors")}
    assert ok(*job.arguments("run")).err.splitlines()[-2:] == job.train_said.splitlines()[-2:]
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("--kb-data", "gold/test.csv"), "the run's teacher is a file"),
        (("--query", "distilled", "--keys", "teacher"), "the teacher's keys need its embeddings"),
    ],
)
def test_an_export_that_needs_a_model_is_refused_before_it_starts(
    options: tuple[str, ...], match: str, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(job.folder)
    assert match in refused("export", "run", "--out", tmp_path / "bundle", "--target", "avx2", *options)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "train needs one teacher; found none"),
        (["--teacher", "x", "--teacher-outputs", "answers.jsonl"], "found --teacher and --teacher-outputs"),
        (["--teacher", "x"], "expected --data"),
        (["--teacher-outputs", "answers.jsonl", "--student-layers", "0"], "--student-layers needs a teacher"),
        (["--teacher-outputs", "answers.jsonl", "--teacher-epochs", "3"], "--teacher-epochs needs a teacher"),
        (["--teacher-outputs", "no.jsonl", "--student", "student"], "no.jsonl: no such file"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    arguments: list[str], match: str, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(job.folder)
    assert match in refused("train", *arguments, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_needs_a_model_is_refused_before_any_training(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(job.folder)
    (tmp_path / "mixkd.toml").write_text('[[objectives]]\nname = "mixkd"\n')
    given = ["--teacher-outputs", "answers.jsonl", "--student", "student", "--recipe", tmp_path / "mixkd.toml"]
    message = refused("train", *given, "--out", tmp_path / "run", remarks=1)
    assert "objective 'mixkd' runs the teacher" in message and "recipes/kd.toml" in message
    assert not (tmp_path / "run").exists()


def test_without_a_recipe_the_objectives_are_those_that_the_file_can_serve(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(job.folder)
    given = [
        "--teacher-outputs",
        "answers.jsonl",
        "--student",
        "student",
        "--max-length",
        "24",
        "--student-epochs",
        "0",
    ]
    ok("train", *given, "--out", tmp_path / "run")
    recipe = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert [item["name"] for item in recipe["objectives"]] == ["soft_labels", "hard_labels"]

"""Training and export on the command line, and the error if the train extra is not installed."""

from __future__ import annotations

import json
from pathlib import Path

from support.command_line import (
    HEAVY,
    finish,
    labelled_rows,
    ok,
    ok_json,
    records,
    refused,
    spawn_python,
)
from support.short_bench import short_bench
from support.workshop import Workshop

from reaugkd import Runtime

WITHOUT = f"""
import sys
for name in {HEAVY}:
    sys.modules[name] = None  # as if not installed
from support.short_bench import short_bench
from reaugkd.cli import main
"""


class TestWithoutTheTrainExtra:
    def test_the_edges_commands_work(self, edge_bundle: Path, tmp_path: Path) -> None:
        data = labelled_rows(tmp_path / "data.jsonl")
        calls = [
            ["predict", edge_bundle, "noon", "--explain"],
            ["eval", edge_bundle, "--data", data, "--split", "all"],
            ["bench", edge_bundle, "--seconds", "0.01", "--processes", "0"],
            ["inspect", edge_bundle],
        ]
        script = f"""{WITHOUT}
for arguments in {[[str(part) for part in one] for one in calls]}:
    sys.argv = ["reaugkd", *arguments]
    try:
        with short_bench():
            main()
    except SystemExit as stop:
        assert not stop.code, arguments
"""
        done = finish(spawn_python(script))
        assert (done.code, done.err) == (0, "")
        assert "student+retrieval" in done.out

    def test_the_other_commands_name_the_missing_extra(self, edge_bundle: Path, tmp_path: Path) -> None:
        data = labelled_rows(tmp_path / "data.jsonl")
        (tmp_path / "x.parquet").write_bytes(b"PAR1")
        calls = [
            ["train", "--data", data, "--teacher", "x", "--out", tmp_path / "out"],
            ["export", tmp_path / "run", "--out", tmp_path / "out"],
            ["demo", "--out", tmp_path / "out"],
            ["eval", edge_bundle, "--data", data, "--split", "all", "--run", tmp_path / "run"],
            ["eval", edge_bundle, "--data", "org/name"],
            ["predict", edge_bundle, "--input", tmp_path / "x.parquet"],
        ]
        script = f"""{WITHOUT}
for arguments in {[[str(part) for part in one] for one in calls]}:
    sys.argv = ["reaugkd", *arguments]
    try:
        main()
    except SystemExit as stop:
        assert stop.code == 2, arguments
"""
        done = finish(spawn_python(script, env={"HF_HUB_OFFLINE": "1"}))
        assert (done.code, done.out) == (0, "")
        lines = done.err.splitlines()
        assert len(lines) == len(calls)
        extra, reader = "pip install 'reaugkd[train]'", "pip install pyarrow"
        for line, install in zip(lines, [extra] * 5 + [reader], strict=True):
            assert line.startswith("error: ") and install in line
        assert not (tmp_path / "out").exists()


class TestWholeJob:
    """train -> export -> predict -> eval -> bench -> inspect on a tiny model."""

    def test_training_and_exporting_speak_on_stderr_only(self, workshop: Workshop) -> None:
        out, err = workshop.train_said
        heldout = len((workshop.run / "data" / "heldout.jsonl").read_text().splitlines())
        blend = json.loads((workshop.run / "tuning" / "tuning.json").read_text())["blend"]
        share = blend["student_weight"]
        told = "the student answers alone" if share == 1 else f"{share:.0%} of an answer from the student"
        assert heldout == 45 and f"{heldout} held-out rows" in err and told in err
        assert out == "" and f"next: reaugkd export {workshop.run}" in err
        out, err = workshop.export_said
        assert out == "" and "dynamic quantization for avx2" in err and f"reaugkd predict {workshop.bundle}" in err

    def test_every_file_has_the_mode_of_a_new_file(self, workshop: Workshop, tmp_path: Path) -> None:
        (tmp_path / "new").touch()
        files = [file for folder in (workshop.run, workshop.bundle) for file in folder.rglob("*") if file.is_file()]
        assert sum(file.suffix == ".safetensors" for file in files) > 5
        assert {oct(file.stat().st_mode) for file in files} == {oct((tmp_path / "new").stat().st_mode)}

    def test_truncated_rows_are_told(self, workshop: Workshop, tmp_path: Path) -> None:
        one_epoch = ("--teacher-epochs", 1, "--student-epochs", 1)
        err = ok(*workshop.train_arguments(tmp_path / "run"), "--max-length", 8, *one_epoch).err
        lines = (tmp_path / "run" / "data" / "train.jsonl").read_text().splitlines()
        longer = sum(len(json.loads(line)["text"].split()) > 6 for line in lines)  # beside [CLS] and [SEP]
        assert longer and err.count("rows truncated") == 1
        assert f"{longer} of {len(lines)} train rows truncated to 8 tokens\n" in err
        assert "rows truncated" not in workshop.train_said[1]

    def test_a_finished_run_is_done_again_in_no_time(self, workshop: Workshop) -> None:
        before = {file: file.stat().st_mtime_ns for file in workshop.run.rglob("*.safetensors")}
        done = ok(*workshop.train_arguments(workshop.run))
        assert done.err.splitlines()[-2:] == workshop.train_said[1].splitlines()[-2:]
        assert {file: file.stat().st_mtime_ns for file in before} == before

    def test_a_run_of_other_settings_is_not_overwritten(self, workshop: Workshop) -> None:
        message = refused(*workshop.train_arguments(workshop.run), "--seed", "5")
        assert str(workshop.run) in message and "recipe.seed = 5" in message and "--redo" in message

    def test_an_existing_bundle_is_not_overwritten(self, workshop: Workshop) -> None:
        before = (workshop.bundle / "manifest.json").read_bytes()
        assert "exists already" in refused("export", workshop.run, "--out", workshop.bundle)
        assert (workshop.bundle / "manifest.json").read_bytes() == before

    def test_the_bundle_answers(self, workshop: Workshop) -> None:
        texts = {"alarm": "wake alarm bell snooze", "music": "song album jazz", "weather": "rain cloud storm"}
        found = records(ok_json(workshop.bundle, *texts.values()))
        assert [record["label"] for record in found] == list(texts)
        shown = ok("inspect", workshop.bundle).out
        assert "3: alarm, music, weather" in shown and f"{workshop.teacher.name}, on" in shown

    def test_the_evaluation_with_the_run_has_all_systems(self, workshop: Workshop) -> None:
        done = ok("eval", workshop.bundle, "--data", workshop.data, "--run", workshop.run, "--json", "-")
        found = json.loads(done.out)
        assert found["n"] == 60 and found["split"] == "test"
        systems = ["teacher", "student_fp32", "student", "retrieval", "student+retrieval"]
        with Runtime.open(workshop.bundle) as runtime:
            systems += ["student+gated"] * (runtime.manifest.gate is not None)
        assert [row["system"] for row in found["rows"]] == systems
        for row in found["rows"]:
            assert 0 <= row["teacher_agreement"] <= 1 and row["teacher_kl"] >= 0
        assert found["rows"][0]["teacher_agreement"] == 1 and found["rows"][0]["teacher_kl"] == 0
        assert found["rows"][0]["accuracy"] > 0.8

    def test_the_evaluation_with_the_run_reports_fidelity_on_three_kinds_of_rows(self, workshop: Workshop) -> None:
        done = ok("eval", workshop.bundle, "--data", workshop.data, "--run", workshop.run, "--json", "-")
        found = json.loads(done.out)
        train_rows = len((workshop.run / "data" / "train.jsonl").read_text().splitlines())
        counts = {kind: {row["n"] for row in systems} for kind, systems in found["fidelity"].items()}
        assert counts == {"clean": {60}, "typos": {60}, "distillation": {train_rows}}
        for systems in found["fidelity"].values():
            assert [row["system"] for row in systems] == [row["system"] for row in found["rows"]]
        for clean, row in zip(found["fidelity"]["clean"], found["rows"], strict=True):
            assert all(row[name] == value for name, value in clean.items() if name != "n")
        for heading in ("clean, 60 rows", "typos, 60 rows", f"distillation, {train_rows} rows"):
            assert f"\n{heading}\n" in done.err
        assert "training rows of the student" in done.err

    def test_the_evaluation_without_it_has_three(self, workshop: Workshop) -> None:
        done = ok("eval", workshop.bundle, "--data", workshop.data)
        assert done.err == "" and "teacher " not in done.out.splitlines()[4]
        assert "fidelity" not in done.out

    def test_the_benchmark(self, workshop: Workshop) -> None:
        quick = ("--seconds", "0.01", "--processes", "0", "--json", "-")
        with short_bench():
            done = ok("bench", workshop.bundle, "--data", workshop.data, *quick)
        assert json.loads(done.out)["setting"]["texts"] == 60

"""Order, crashes and interrupts, with real worker processes and fake cells."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import study_cells as studycells
from support.command_line import call, finish, names, ok, refused, spawn_python
from support.html_pages import checked
from support.study_cells import STUDY, events, write_orders, write_study

from reaugkd.export.study import command, schedule
from reaugkd.export.study.fingerprints import CELL_FORMAT
from reaugkd.export.study.plan import load_plan
from reaugkd.export.study.results import CellNotes, cell_file, write_cell
from reaugkd.export.study.schedule import CellFunction, CellJob, Failure, Workers, next_job

CELLS = ["one.kd.0", "one.better.0", "two.kd.5", "two.better.5"]
SMALL = STUDY.replace("[0, 1, 2]", "[0]")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the stand-ins."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a stand-in in the place of the real cell."""

    def in_this_process(jobs: Sequence[CellJob], *_rest: object) -> list[Failure]:
        for job in jobs:
            result = job.run(job.cell, job.plan, job.out, job.data_dir)
            notes = CellNotes(job.settings, job.inputs, 1.0, CELL_FORMAT)
            write_cell(cell_file(job.out, job.cell), job.cell, result, notes)
        return []

    def put(run: CellFunction, processes: bool = False) -> None:
        job = command.StudyJob
        monkeypatch.setattr(command, "draw", lambda *_: [])  # plots take most of the time of a report
        monkeypatch.setattr(command, "run_jobs", schedule.run_jobs if processes else in_this_process)
        monkeypatch.setattr(command, "StudyJob", lambda *arguments: replace(job(*arguments), run=run))

    return put


@pytest.fixture(scope="module")
def done_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study and its finished out/, not to be changed."""
    folder = tmp_path_factory.mktemp("done")
    study = write_study(folder / "study", SMALL)
    with pytest.MonkeyPatch.context() as patch:
        job = command.StudyJob
        patch.setattr(command, "StudyJob", lambda *arguments: replace(job(*arguments), run=studycells.calm))
        done = ok("study", study, "--out", folder / "out", "--processes", 2)
    (folder / "stdout").write_text(done.out)
    (folder / "stderr").write_text(done.err)
    return folder


@pytest.fixture
def carried(done_once: Path, tmp_path: Path) -> Path:
    """A copy of it in another place, where no cell has run yet."""
    shutil.copytree(done_once, tmp_path / "carried")
    (tmp_path / "carried" / "out" / "events").unlink()
    return tmp_path / "carried"


def cells_of(out: Path) -> list[str]:
    return [name.removesuffix(".parquet") for name in names(out / "cells")]


def begun(out: Path) -> list[str]:
    return [line.removeprefix("begin ") for line in events(out) if line.startswith("begin ")]


class TestOrder:
    def jobs(self, folder: Path) -> list[CellJob]:
        plan = load_plan(write_study(folder / "study"))
        return [CellJob(cell, plan, folder, folder, "s", "i", studycells.calm) for cell in plan.cells()]

    def test_one_cell_trains_the_teacher_and_the_others_wait(self, tmp_path: Path) -> None:
        jobs = self.jobs(tmp_path)
        assert next_job(jobs, set(), []) is jobs[0]
        assert next_job(jobs[1:], set(), [("one", 0)]) is jobs[2]
        assert next_job(jobs[1:], {("one", 0)}, [("one", 0)]) is jobs[1]
        assert next_job(jobs[1:2], set(), [("one", 0)]) is None
        assert next_job(jobs[1:2], set(), []) is jobs[1]  # the first has failed: now this one makes it
        assert next_job([], set(), []) is None

    def test_no_second_cell_starts_before_the_teacher_exists(self, done_once: Path) -> None:
        reported = events(done_once / "out")
        assert sorted(reported) == sorted(f"{word} {name}" for name in CELLS for word in ("begin", "end"))
        for name in CELLS:
            if ".better." in name:
                assert reported.index(f"begin {name}") > reported.index(f"end {name.replace('better', 'kd')}")

    def test_shares_of_the_machine(self) -> None:
        assert Workers.of(None, 4) == Workers(4, 1)
        assert Workers.of(1, 4) == Workers(1, 4)
        assert Workers.of(3, 4) == Workers(3, 1)
        assert Workers.of(9, 4) == Workers(9, 1)
        assert Workers.of(None, 16, ["0", "3"]) == Workers(2, 8, ("0", "3"))
        environment = Workers.of(3, 16, ["0", "3"]).environment(2)
        threads = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "5", "RAYON_NUM_THREADS": "5"}
        assert environment == {**threads, "CUDA_VISIBLE_DEVICES": "0"}
        assert "CUDA_VISIBLE_DEVICES" not in Workers.of(2, 2).environment(0)

    @pytest.mark.parametrize(
        ("count", "visible", "expected"),
        [(0, None, []), (2, None, ["0", "1"]), (2, "5,GPU-7", ["5", "GPU-7"])],
    )
    def test_gpus(self, monkeypatch: pytest.MonkeyPatch, count: int, visible: str | None, expected: list[str]) -> None:
        monkeypatch.delenv("ACCELERATE_USE_CPU")
        monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert list(schedule.available_workers(None).gpus) == expected
        monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
        assert schedule.available_workers(None).gpus == ()


class TestStudy:
    def test_from_plan_to_report(self, done_once: Path) -> None:
        out, reported = done_once / "out", (done_once / "stderr").read_text().splitlines()
        tables = (done_once / "stdout").read_text()
        assert tables.startswith("# Study\n") and tables.rstrip() in (out / "report.md").read_text()
        assert len(reported) == len(CELLS)
        assert all(re.fullmatch(r"\S+: done in \d+ s \(\d of 4\)", line) for line in reported)
        assert reported[-1].endswith("(4 of 4)")
        files = {"cells", "logs", "events", "plan.json", "report.md", "results.parquet", "rows.parquet", ".lock"}
        plots = {"retrieval.svg", "variants.kd.svg", "variants.better.svg"}
        assert set(names(out)) == files | plots
        assert cells_of(out) == sorted(CELLS)

    @pytest.mark.parametrize("option", [[], ["--report-only"]])
    def test_a_second_run_trains_nothing_and_reports_the_same(self, carried: Path, option: list[str]) -> None:
        out = carried / "out"
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        again = ok("study", carried / "study" / "study.toml", "--out", out, *option)
        assert (again.out, again.err) == ((carried / "stdout").read_text(), "")
        assert begun(out) == []
        assert {path: path.read_bytes() for path in before} == before

    def test_a_page_of_the_results(self, carried: Path) -> None:
        study, page = carried / "study" / "study.toml", carried / "page.html"
        ok("study", study, "--out", carried / "out", "--report-only", "--report", page)
        document, inside = checked(page)
        assert "4 of 4 cells" in "".join(document.find(".//header").itertext()) and inside["sections"]
        assert "exists" in refused("study", study, "--out", carried / "out", "--report-only", "--report", page)

    def test_a_changed_recipe_is_run_again_and_nothing_else(self, carried: Path, use: Callable[..., None]) -> None:
        use(studycells.calm)
        study, out = carried / "study" / "study.toml", carried / "out"
        (study.parent / "better.toml").write_text("max_length = 48\n")
        only = ok("study", study, "--out", out, "--report-only")
        assert only.err == "2 of 4 cells are unfinished or have other settings\n"
        assert "2 of 4 cells" in only.out
        ok("study", study, "--out", out)
        assert sorted(begun(out)) == sorted(name for name in CELLS if ".better." in name)

    @pytest.mark.parametrize("changed", ["data", "cell"])
    def test_changed_data_and_broken_cells_are_run_again(
        self, carried: Path, use: Callable[..., None], changed: str
    ) -> None:
        use(studycells.calm)
        out = carried / "out"
        if changed == "data":
            (carried / "study" / "two.csv").write_text("text,label\nx,y\n")
        else:
            (out / "cells" / "two.kd.5.parquet").write_bytes(b"PAR1")
        ok("study", carried / "study" / "study.toml", "--out", out)
        assert begun(out) == ["two.kd.5", "two.better.5"][: 2 if changed == "data" else 1]

    def test_data_elsewhere(self, carried: Path, use: Callable[..., None]) -> None:
        use(studycells.calm)
        study, out, data = carried / "study" / "study.toml", carried / "out", carried / "data"
        data.mkdir()
        for name in ("one.csv", "two.csv"):
            (study.parent / name).rename(data / name)
        assert ok("study", study, "--out", out, "--data", data).err == "" and begun(out) == []
        # A report asks for no data.
        shutil.rmtree(data)
        assert ok("study", study, "--out", out, "--report-only").err == ""

    def test_without_matplotlib_only_the_plots_are_missing(
        self, carried: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("matplotlib", "matplotlib.figure"):
            monkeypatch.setitem(sys.modules, name, None)
        out = carried / "out"
        for file in out.glob("*.*"):
            if file.suffix in (".svg", ".md"):
                file.unlink()
        done = ok("study", carried / "study" / "study.toml", "--out", out, "--report-only")
        assert done.err.startswith("no plots: the plots need matplotlib; found no module 'matplotlib")
        assert "pip install 'reaugkd[plots]'" in done.err
        assert not list(out.glob("*.svg")) and (out / "report.md").is_file()


@pytest.mark.slow
class TestFailures:
    def test_failures_are_reported_and_stop_no_other_cell(self, tmp_path: Path, use: Callable[..., None]) -> None:
        use(studycells.troubled, processes=True)
        how = {"one.kd.0": "killed", "one.better.0": "raises", "two.kd.5": "refuses"}
        study, out = write_study(tmp_path / "study", SMALL), tmp_path / "out"
        write_orders(study, how)
        done = call("study", study, "--out", out, "--processes", 2)
        assert done.code == 1 and "Traceback" not in done.err
        assert cells_of(out) == sorted(set(CELLS) - set(how))
        assert "1 of 4 cells" in done.out
        reasons = {
            "one.kd.0": "the process was killed (out of memory?) or ended without a result",
            "one.better.0": "ValueError: a bug",
            "two.kd.5": "x.csv, row 3: unusable rows",
        }
        reported = done.err.splitlines()
        for name, reason in reasons.items():
            assert f"{name}: failed: {reason}" in reported
            (line,) = (line for line in reported if line.startswith(f"{name} failed: {reason} (see "))
            assert Path(line.rpartition("(see ")[2].rstrip(")")) == out / "logs" / f"{name}.log"
        assert "Traceback" in (out / "logs" / "one.better.0.log").read_text()

        use(studycells.calm)
        (out / "events").unlink()
        ok("study", study, "--out", out)
        assert sorted(begun(out)) == sorted(how)

    def test_nothing_to_report(self, tmp_path: Path, use: Callable[..., None]) -> None:
        use(studycells.troubled, processes=True)
        cells = ["one.kd.0", "one.better.0"]
        text = STUDY.partition('[[tasks]]\nname = "two"')[0].replace("[0, 1, 2]", "[0]")
        study, out = write_study(tmp_path / "study", text), tmp_path / "out"
        write_orders(study, dict.fromkeys(cells, "refuses"))
        assert "is not of a study" in refused("study", study, "--out", out, "--report-only")
        done = call("study", study, "--out", out)
        assert done.code == 1 and done.out == "" and len(done.err.splitlines()) == 2 * len(cells)
        assert not (out / "report.md").exists()
        assert "no cell of this study is finished" in refused("study", study, "--out", out, "--report-only", remarks=1)

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        study, out = write_study(tmp_path / "study", SMALL), tmp_path / "out"
        out.mkdir()
        (out / "thesis.tex").write_text("years")
        assert "is not of a study" in refused("study", study, "--out", out, remarks=1)
        assert names(out) == ["thesis.tex"]

    def test_an_invalid_plan_is_refused(self, tmp_path: Path) -> None:
        study = write_study(tmp_path / "study", STUDY.replace("seeds", "seed"))
        assert "unknown key 'seed'" in refused("study", study, "--out", tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.slow
class TestInterrupt:
    """Workers that never end hold a pipe open; when the pipe ends, so have they."""

    SCRIPT = """
import sys
from dataclasses import replace
from support import study_cells as studycells
from reaugkd.cli import main
from reaugkd.export.study import command
from reaugkd.export.study.schedule import Workers
job = command.StudyJob
command.StudyJob = lambda *arguments: replace(job(*arguments), run=studycells.stuck)
command.available_workers = lambda processes: Workers(2, 1)
main()
"""

    def begin(self, tmp_path: Path) -> tuple[Path, Path, Any, Any]:
        """A study whose workers both hang, one.kd.0 alone done: its file, its folder, the parent, the pipe."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        study, out = write_study(tmp_path / "study", SMALL), tmp_path / "out"
        write_orders(study, dict.fromkeys(set(CELLS) - {"one.kd.0"}, str(pipe)))
        process = spawn_python(self.SCRIPT, "study", study, "--out", out)
        end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        assert process.stdout is not None
        ready = select.select([end, process.stdout], [], [])[0]  # the second only if the parent has died
        assert ready == [end], finish(process).err
        os.set_blocking(end, True)
        reader = os.fdopen(end, "rb", buffering=0)
        said = b""
        while len(said) < 2 * len("here"):
            said += (more := reader.read(4))
            assert more, finish(process).err
        assert said == b"herehere"
        return study, out, process, reader

    @pytest.mark.parametrize(
        ("number", "code"),
        [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)],
        ids=["int", "term", "kill"],
    )
    def test_the_workers_end_and_the_next_run_resumes(
        self, tmp_path: Path, use: Callable[..., None], number: signal.Signals, code: int
    ) -> None:
        study, out, process, reader = self.begin(tmp_path)
        assert "another run of this study is in progress" in refused("study", study, "--out", out)
        process.send_signal(number)
        done = finish(process)
        assert done.code == code
        assert number == signal.SIGKILL or "to resume, run the same command again" in done.err
        while reader.read(100):  # the end comes when the last worker is gone
            pass
        reader.close()
        before = cells_of(out)
        assert before == ["one.kd.0"]
        assert not list(out.rglob("*.tmp"))

        use(studycells.calm)
        (out / "events").unlink()
        ok("study", study, "--out", out)
        assert sorted(begun(out)) == sorted(set(CELLS) - set(before))
        assert cells_of(out) == sorted(CELLS)

"""Run a study (`reaugkd study`): cells, results, tables and plots.

OUT/plan.json         the plan with all recipes
OUT/cells/, logs/     a file for each finished cell; the output of each cell's process
OUT/results.parquet   every system's metrics
OUT/rows.parquet      every system's prediction for every row
OUT/report.md         the tables; *.svg the plots
OUT/teachers/, runs/  trained teachers, shared by the cells, and the runs
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import DataError, DependencyError, OutputExistsError, UsageError
from ...kb.storage.atomic import atomic_write
from .compare import Analysis
from .fingerprints import CELL_FORMAT, Inputs, finished, settings_key
from .page import render_study
from .plan import Cell, Plan
from .plots import draw
from .results import CellNotes, CellResult, cell_file, read_cell, write_results
from .schedule import CellFunction, CellJob, Failure, available_workers, run_jobs
from .tables import report, summary


@dataclass(frozen=True)
class StudyJob:
    """The settings of a study's run.

    Args:
        plan: the study.
        out: folder of the results, new or of an earlier run.
        run: computes a cell.
        data_dir: base folder of relative data paths; None for the study's folder.
        processes: number of parallel cells; None for one per GPU, or one per core without a GPU.
        report_only: run no cells, only write tables and plots.
    """

    plan: Plan
    out: Path
    run: CellFunction
    data_dir: Path | None = None
    processes: int | None = None
    report_only: bool = False


@dataclass(frozen=True)
class NewPage:
    """A new HTML page of the results.

    Args:
        path: its file.
        command: the command line, which the page names.
    """

    path: Path
    command: str


def study(
    job: StudyJob, show: Callable[[str], None], warn: Callable[[str], None], page: NewPage | None = None
) -> list[Failure]:
    """Run the unfinished cells, then make tables and plots of all finished cells.

    Args:
        job: the study.
        show: prints the tables.
        warn: prints notes on stderr.
        page: an HTML page to write too; None for none.

    Returns:
        The cells that failed.

    Raises:
        OutputExistsError: the folder holds something else.
        UsageError: another run of the study is in progress in the folder.
        DataError: no cell is finished.
        StorageError: a file cannot be written.
    """
    _refuse_other_folder(job)
    with _alone(job.out):
        failures, done = ([], finished(job.plan, job.out)) if job.report_only else _run(job)
        cells = job.plan.cells()
        if not done:
            if failures:
                return failures
            raise DataError("no cell of this study is finished", path=job.out, remedy="Leave out --report-only.")
        if job.report_only and len(done) < len(cells):
            warn(f"{len(cells) - len(done)} of {len(cells)} cells are unfinished or have other settings")
        older = sum(notes.format < CELL_FORMAT for notes in done.values())
        if older:
            warn(f"{older} cells are from an earlier version; a run without --report-only runs them again")
        found = [(cell, read_cell(cell_file(job.out, cell))) for cell in cells if cell.name in done]
        analysis = _report(job, found, show, warn)
        if page is not None:
            notes = {cell.name: done[cell.name] for cell, _ in found}
            with atomic_write(page.path) as file:
                file.write(render_study(analysis, notes, _description(job.plan), page.command))
    return failures


def _refuse_other_folder(job: StudyJob) -> None:
    """Check that the folder is new, empty or of a study; for --report-only it must be of a study.

    Raises:
        DataError: it is not of a study, with --report-only.
        OutputExistsError: it has other contents.
    """
    if (job.out / "plan.json").is_file():
        return
    if job.report_only:
        raise DataError("the folder is not of a study", path=job.out, expected="the --out of an earlier run")
    begun = job.out.is_dir() and all(_is_ours(entry.name) for entry in job.out.iterdir())
    if job.out.exists() and not begun:
        remedy = "Choose another --out; nothing is overwritten."
        raise OutputExistsError("the output folder exists and is not of a study", path=job.out, remedy=remedy)


def _is_ours(name: str) -> bool:
    """Whether a file is from a run that was killed before it wrote plan.json."""
    return name == ".lock" or (name.startswith(".plan.json.") and name.endswith(".tmp"))


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Lock the folder against a second run; the lock ends with the process.

    Raises:
        UsageError: another run is in progress.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "Wait until it ends, or choose another --out."
            raise UsageError("another run of this study is in progress", path=out, remedy=remedy) from None
        yield
    finally:
        os.close(descriptor)


def _run(job: StudyJob) -> tuple[list[Failure], dict[str, CellNotes]]:
    """Run the unfinished cells; returns the failures and the notes of all finished cells."""
    plan, out, data_dir = job.plan, job.out, job.data_dir or job.plan.folder
    with atomic_write(out / "plan.json") as file:
        file.write(json.dumps(_description(plan), indent=1, ensure_ascii=False, default=str))
    inputs = Inputs(plan, data_dir)
    done = finished(plan, out, inputs)
    cells = plan.cells()
    jobs = [
        CellJob(cell, plan, out, data_dir, settings_key(plan, cell), inputs.key(cell), job.run)
        for cell in cells
        if cell.name not in done
    ]
    have_teacher = {cell.pair for cell in cells if cell.name in done}
    failures = run_jobs(jobs, have_teacher, available_workers(job.processes)) if jobs else []
    return failures, finished(plan, out, inputs)


def _description(plan: Plan) -> dict[str, object]:
    """Return the plan with the full recipes, as JSON values."""
    return {
        "teacher": plan.teacher,
        "tasks": [asdict(task) for task in plan.tasks],
        "recipes": {name: recipe.as_dict() for name, recipe in plan.recipes.items()},
        "baseline": plan.baseline,
        "variants": [{"name": variant.name, **variant.settings} for variant in plan.variants],
        "options": plan.options,
    }


def _report(
    job: StudyJob,
    done: list[tuple[Cell, CellResult]],
    show: Callable[[str], None],
    warn: Callable[[str], None],
) -> Analysis:
    """Write results, report and plots, and show the main tables."""
    write_results(job.out, done)
    analysis = Analysis(job.plan, {(cell.task.name, cell.recipe, cell.seed): result for cell, result in done})
    with atomic_write(job.out / "report.md") as file:
        file.write(report(analysis))
    show(summary(analysis))
    try:
        draw(analysis, job.out)
    except DependencyError as error:
        warn(f"no plots: {error}")
    return analysis

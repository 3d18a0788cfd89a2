"""`reaugkd study`: from a plan to its tables.

    OUT/plan.json         what is studied
    OUT/cells/, logs/     a file for each finished cell, and what each worker said
    OUT/results.parquet   every system's metrics
    OUT/rows.parquet      every system's answer to every row
    OUT/report.md         the tables; *.svg the plots

Beside them lies whatever the cells keep for each other: trained teachers, runs.
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
from .plan import Cell, Plan
from .plots import draw
from .results import CellNotes, CellResult, cell_file, read_cell, write_results
from .schedule import Failure, available_workers, run_jobs
from .tables import report, summary
from .watch import Watch
from .worker import CellFunction, Job


@dataclass(frozen=True)
class StudyJob:
    """What to study and how.

    Args:
        plan: the study.
        out: its folder, made or gone on with.
        run: what a cell is.
        data_dir: where relative data paths count from; None for the study's folder.
        processes: cells at once; None for one for each GPU, or else each core.
        report_only: run no cell.
    """

    plan: Plan
    out: Path
    run: CellFunction
    data_dir: Path | None = None
    processes: int | None = None
    report_only: bool = False


def study(job: StudyJob, tell: Callable[[str], None], remark: Callable[[str], None]) -> list[Failure]:
    """Run the cells that are not done yet, then make tables and plots of all that are.

    Args:
        job: what to study.
        tell: takes the tables.
        remark: takes what goes to stderr.

    Returns:
        The cells that failed.

    Raises:
        OutputExistsError: the folder holds something else.
        UsageError: another call is at work in the folder.
        DataError: no cell is finished, so there is nothing to report.
        StorageError: the disk refused.
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
            remark(f"{len(cells) - len(done)} of {len(cells)} cells are not done, or were made with other settings")
        older = sum(notes.format < CELL_FORMAT for notes in done.values())
        if older:
            remark(f"{older} cells were made by an earlier version; a call without --report-only makes them anew")
        _report(job, [(cell, read_cell(cell_file(job.out, cell))) for cell in cells if cell.name in done], tell, remark)
    return failures


def _refuse_other_folder(job: StudyJob) -> None:
    """A new or empty folder, or that of a study; for a report that of a study."""
    if (job.out / "plan.json").is_file():
        return
    if job.report_only:
        raise DataError("there is no study here to report", path=job.out, expected="the --out of an earlier call")
    begun = job.out.is_dir() and all(_is_ours(entry.name) for entry in job.out.iterdir())
    if job.out.exists() and not begun:
        remedy = "Choose another --out: nothing is overwritten."
        raise OutputExistsError("the output exists already and is no study's folder", path=job.out, remedy=remedy)


def _is_ours(name: str) -> bool:
    """Whether a call that was killed at its very beginning left this."""
    return name == ".lock" or (name.startswith(".plan.json.") and name.endswith(".tmp"))


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep a second call away from the folder; the lock goes with the process."""
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
            remedy = "Wait for it, or choose another --out."
            raise UsageError("another call is at work on this study", path=out, remedy=remedy) from None
        yield
    finally:
        os.close(descriptor)


def _run(job: StudyJob) -> tuple[list[Failure], dict[str, CellNotes]]:
    """Run what is not done: the failures, and the cells that are done then."""
    plan, out, data_dir = job.plan, job.out, job.data_dir or job.plan.folder
    with atomic_write(out / "plan.json") as file:
        file.write(json.dumps(_description(plan), indent=1, ensure_ascii=False, default=str))
    inputs = Inputs(plan, data_dir)
    done = finished(plan, out, inputs)
    cells = plan.cells()
    jobs = [
        Job(cell, plan, out, data_dir, settings_key(plan, cell), inputs.key(cell), job.run)
        for cell in cells
        if cell.name not in done
    ]
    failures = []
    if jobs:
        workers = available_workers(job.processes)
        watch = Watch(cells, {name: notes.seconds for name, notes in done.items()}, workers.processes, sys.stderr)
        failures = run_jobs(jobs, {cell.pair for cell in cells if cell.name in done}, workers, watch)
    return failures, finished(plan, out, inputs)


def _description(plan: Plan) -> dict[str, object]:
    """The plan for those who find the folder, with the recipes in full."""
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
    tell: Callable[[str], None],
    remark: Callable[[str], None],
) -> None:
    """The files of the report, and its first tables for the reader."""
    write_results(job.out, done)
    analysis = Analysis(job.plan, {(cell.task.name, cell.recipe, cell.seed): result for cell, result in done})
    with atomic_write(job.out / "report.md") as file:
        file.write(report(analysis))
    tell(summary(analysis))
    try:
        draw(analysis, job.out)
    except DependencyError as error:
        remark(f"no plots: {error}")

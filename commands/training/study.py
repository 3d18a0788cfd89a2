"""`reaugkd study`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..console import command_line, resumable, train_extra
from ..data_source import go_offline_if_unreachable, load
from ..options import PATH

if TYPE_CHECKING:
    from ...export.study.plan import Cell, Plan
    from ...export.study.results import CellResult


@click.command(short_help="Compare recipes over tasks and seeds, with tests and plots. *")
@click.argument("plan", metavar="STUDY.toml", type=PATH)
@click.option(
    "--out",
    required=True,
    type=PATH,
    metavar="OUT",
    help="Folder of the results: a new one, or that of an earlier run.",
)
@click.option(
    "--data",
    type=PATH,
    metavar="DIR",
    help="Folder that relative data paths start from.  [default: the study's folder]",
)
@click.option("--teacher", metavar="MODEL", help="Hub id or folder of a teacher that replaces the study's.")
@click.option(
    "--processes",
    type=click.IntRange(1),
    metavar="N",
    help="Number of cells (one recipe, task and seed) that run at the same time.  "
    "[default: one per GPU, or one per core without a GPU]",
)
@click.option(
    "--report-only", is_flag=True, help="Write tables and plots of the finished cells only, without training."
)
@click.option(
    "--report",
    "page_path",
    type=PATH,
    metavar="FILE.html",
    help="Write the results as one HTML page to a new file.",
)
def study(
    plan: Path,
    out: Path,
    data: Path | None,
    teacher: str | None,
    processes: int | None,
    report_only: bool,
    page_path: Path | None,
) -> int:
    """Train and score every recipe on every task with every seed.

    The same command resumes the study after an interruption. Tables are written to stdout and OUT/report.md, plots to
    OUT, and all metrics and predictions to two Parquet files in OUT.
    """
    with train_extra("a study"):
        from ...export.study.command import NewPage, StudyJob
        from ...export.study.command import study as run_study
        from ...export.study.plan import load_plan, located
    from ...kb.storage.atomic import refuse_existing

    planned = load_plan(plan)
    if teacher is not None:
        # The study's own name is kept too, so that the hashes of the cells are the same on another machine.
        planned = replace(planned, here=str(Path(teacher).absolute()) if Path(teacher).exists() else teacher)
    data_dir = data or planned.folder
    models = [planned.model, *(planned.located(recipe.student.model) for recipe in planned.recipes.values())]
    data_sets = [task.located(data_dir) for task in planned.tasks]
    if planned.options.get("out_of_domain"):
        data_sets.append(located(planned.options["out_of_domain"], data_dir))
    go_offline_if_unreachable(*models, *data_sets)
    job = StudyJob(planned, out, run_cell, data_dir, processes, report_only)
    if page_path is not None:
        refuse_existing(page_path)
    with resumable():
        page = None if page_path is None else NewPage(page_path, command_line())
        failures = run_study(job, click.echo, lambda line: click.echo(line, err=True), page)
    for failure in failures:
        click.echo(f"{failure.cell} failed: {failure.reason} (see {failure.log})", err=True)
    return 1 if failures else 0


def run_cell(cell: Cell, plan: Plan, out: Path, data_dir: Path) -> CellResult:
    """Run a cell in a worker process, which imports torch and can load data from the hub."""
    from ...export.study.cell import run_cell as run

    return run(cell, plan, out, data_dir, load)

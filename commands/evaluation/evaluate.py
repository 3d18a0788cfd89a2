"""`reaugkd eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..console import json_report, progress, train_extra
from ..data_source import rows_to_score
from ..options import (
    BUNDLE,
    PATH,
    with_columns,
    with_json,
    with_opening,
    with_split,
    with_task,
    with_threads,
)

if TYPE_CHECKING:
    from ...runtime.data import Columns


@click.command(name="eval", short_help="Score the student, retrieval and their blend on labelled rows.")
@click.argument("bundle", type=BUNDLE)
@click.option("--data", required=True, metavar="PATH|HUB_ID", help="Data set of labelled rows to score.")
@with_split
@with_task
@click.option(
    "--run", type=PATH, metavar="RUN", help="Training run whose teacher and float32 student are also scored. *"
)
@with_threads
@with_opening
@with_json
@with_columns
def evaluate(
    bundle: Path,
    data: str,
    split: str | None,
    task: str | None,
    run: Path | None,
    threads: int,
    require_signature: Path | None,
    follow_links: bool,
    json_path: str | None,
    columns: Columns,
) -> None:
    """Score the student, retrieval and their blend on labelled rows.

    With --run it also scores the teacher and the float32 student, and reports the fidelity of each to the teacher on
    three sets: these rows, the same rows with typing errors, and up to 1,000 rows of the distillation.

    If the data has no dev split, the dev split is the tenth of train that the training holds out. For a file of rows
    that were not used in the training, use --split all.
    """
    from ...runtime.evaluation.evaluate import evaluate_bundle
    from ...runtime.evaluation.report import format_evaluation
    from ...runtime.runtime import Runtime

    runtime = Runtime.open(bundle, threads=threads, require_signature=require_signature, follow_links=follow_links)
    name, rows, _ = rows_to_score(runtime, data, task, columns, split)
    with json_report(json_path) as write:
        if run is None:
            with progress("eval", "row") as advance:
                report = evaluate_bundle(runtime, rows, split_name=name, progress=advance)
        else:
            with train_extra("scoring the teacher (--run)"):
                from ...export.training.evaluate_run import evaluate_with_run
            report = evaluate_with_run(run, runtime, rows, name)
        click.echo(format_evaluation(report), err=json_path == "-")
        write(report.to_json())

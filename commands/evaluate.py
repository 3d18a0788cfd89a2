"""`reaugkd eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .console import json_report, progress, train_extra
from .data_source import load
from .options import PATH, with_columns, with_json, with_signature, with_task, with_threads

if TYPE_CHECKING:
    from ..runtime.data import Columns


@click.command(name="eval", short_help="How good student, retrieval and their blend are.")
@click.argument("bundle", type=PATH)
@click.option("--data", required=True, metavar="PATH|HUB_ID", help="The data set to score on.")
@click.option(
    "--split", metavar="NAME", help="train, dev, test, or all rows.  [default: test if it has labels, else dev]"
)
@with_task
@click.option("--run", type=PATH, metavar="RUN", help="Add the run's teacher and float32 student. *")
@with_threads
@with_signature
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
    json_path: str | None,
    columns: Columns,
) -> None:
    """Score student, retrieval and their blend, and with --run the teacher and the float32 student.

    With --run it also says how faithful each is to the teacher: on these rows, on the same rows with typing errors, and
    on up to 1,000 rows of the distillation.

    Where the data has no dev split, the one that training carves out of train is scored; a file of rows that no
    training has seen wants --split all.
    """
    from ..runtime.data import choose_split, is_held_out
    from ..runtime.evaluation.evaluate import evaluate_bundle
    from ..runtime.evaluation.report import format_evaluation
    from ..runtime.runtime import Runtime

    runtime = Runtime.open(bundle, threads=threads, require_signature=require_signature)
    dataset = load(data, task, columns, runtime.labels)
    name, rows = choose_split(dataset, split)
    if is_held_out(dataset, name):
        click.echo(
            f"{rows.source} has no dev split: scoring the {len(rows):,} rows that training carves out of its "
            f"{len(dataset.splits['train']):,}; every row with --split all",
            err=True,
        )
    with json_report(json_path) as write:
        if run is None:
            with progress("eval", "row") as advance:
                report = evaluate_bundle(runtime, rows, split_name=name, progress=advance)
        else:
            with train_extra("scoring the teacher (--run)"):
                from ..export.training.evaluate_run import evaluate_with_run
            report = evaluate_with_run(run, runtime, rows, name)
        click.echo(format_evaluation(report), err=json_path == "-")
        write(report.to_json())

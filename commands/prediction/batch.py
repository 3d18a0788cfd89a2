"""`reaugkd batch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console import json_report, resumable, stages, tell
from ..options import (
    BUNDLE,
    PATH,
    names,
    with_engine,
    with_json,
    with_opening,
    with_text_columns,
    without_blas_threads,
)

if TYPE_CHECKING:
    from ...runtime.data import Columns

_LINES = {"read": ("row", False), "batch": ("row", True), "check": ("part", False)}
"""The progress lines of the stages: the unit, and whether there is a rate."""


@click.command(short_help="Predict the labels of large files, on several processes or machines.")
@click.argument("bundle", type=BUNDLE)
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, metavar="FOLDER", help="Folder of the output: Parquet files.")
@with_engine
@click.option(
    "--columns",
    "kept",
    callback=names,
    metavar="NAMES",
    help="Input columns to keep, separated by commas.  [default: all]",
)
@click.option(
    "--prefix", default="", metavar="TEXT", help="Beginning of the names of the added columns.  [default: none]"
)
@click.option(
    "--top-k",
    type=click.IntRange(1),
    metavar="N",
    help="Also add the N most probable labels and their scores, as lists.",
)
@click.option(
    "--retrieval",
    type=click.Choice(["always", "gated", "never"]),
    default="always",
    help="When to retrieve.  [default: always]",
)
@click.option("--abstain", metavar="GOAL", help="Abstain if the rejection score is too high; see `reaugkd predict`.")
@click.option(
    "--on-error",
    type=click.Choice(["record", "raise"]),
    default="record",
    help="What to do with a row that cannot be predicted: write its error, or stop.  [default: record]",
)
@click.option(
    "--part-rows",
    type=click.IntRange(1),
    default=20_000,
    metavar="N",
    help="Largest number of rows of an output file. A worker that is killed loses the work on one file.  "
    "[default: 20000]",
)
@click.option("--overwrite", is_flag=True, help="Delete the job in the output folder, and start again.")
@with_json
@with_opening
@without_blas_threads
@with_text_columns
def batch(
    bundle: Path,
    inputs: tuple[str, ...],
    out: Path,
    engine: Any,
    address: str | None,
    workers: int | None,
    threads: int,
    kept: tuple[str, ...] | None,
    abstain: str | None,
    overwrite: bool,
    json_path: str | None,
    require_signature: Path | None,
    follow_links: bool,
    columns: Columns,
    **options: Any,
) -> int:
    """Predict the label of each row of every INPUT with the bundle BUNDLE.

    An INPUT is a Parquet, CSV, TSV, JSON lines or text file, a folder of such files, or a pattern in quotes. Memory
    does not grow with the input. The output has the input's columns, and label, score, retrieved, abstained and error.

    The same command resumes a job that was ended in any way: each row is written once. A row that
    cannot be read or predicted is a record with its error.

    Exit code: 0 if every row was answered, 3 if some rows failed, 1 if all did, 2 for a wrong call or with --on-error
    raise. Needs the batch extra: pip install 'reaugkd[batch]'.
    """
    from ...batch.job.part import Settings
    from ...batch.job.plan import Options
    from ...batch.run import Job, run_job
    from ...runtime.decision.abstention_goal import Abstain
    from ...runtime.output.prediction_stream import Outcome

    if abstain is not None:
        Abstain.parse(abstain)
    signer = None if require_signature is None else str(require_signature.absolute())
    job = Job(
        inputs,
        out,
        columns,
        Settings(str(out.absolute()), str(bundle.absolute()), threads, signer, follow_links),
        Options(
            seal="",
            edits=0,
            text=columns.text,
            text_pair=columns.pair,
            columns=kept,
            abstain=abstain,
            encoding=columns.encoding,
            **options,
        ),
        engine,
        workers,
        address,
        overwrite,
    )
    with json_report(json_path) as write_json:
        with resumable(), stages(_LINES) as show:
            parts = run_job(job, tell, show)
        rows, errors = sum(part.rows for part in parts), sum(part.errors for part in parts)
        write_json({"out": str(out), "rows": rows, "errors": errors, "parts": len(parts)})
    outcome = Outcome(rows, errors)
    if json_path != "-":
        failed = f", {errors:,} failed (see the column error)" if errors else ""
        click.echo(f"{rows:,} rows: {rows - errors:,} answered{failed}, in {len(parts):,} files: {out}")
    return outcome.exit_code

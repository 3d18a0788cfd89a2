"""`reaugkd kb build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .batch import stages, with_engine
from .console import json_report, resumable, tell
from .options import BUNDLE, PATH, with_columns, with_json, with_opening, without_blas_threads

if TYPE_CHECKING:
    from ..runtime.data import Columns

_LINES = {
    "read": ("row", False),
    "sample": ("row", True),
    "encode": ("row", True),
    "index": ("row", True),
    "tune": ("row", False),
}
"""The progress lines of the stages: the unit, and whether there is a rate."""


@click.command(short_help="Build a knowledge base of millions of rows, in shards.")
@click.argument("bundle", type=BUNDLE)
@click.option(
    "--data",
    "inputs",
    multiple=True,
    required=True,
    metavar="INPUT",
    help="File, folder or pattern with the rows; can be given repeatedly.",
)
@click.option("--out", type=PATH, required=True, metavar="FOLDER", help="Folder of the new bundle; must not exist.")
@click.option(
    "--shards",
    type=click.IntRange(1, 1000),
    default=1,
    metavar="N",
    help="Number of shards of the index. A shard is built in memory, with about 600 bytes a row for keys of 128 "
    "components.  [default: 1]",
)
@click.option(
    "--run",
    type=PATH,
    metavar="RUN",
    help="Run whose teacher labels the rows (extra train).  [default: the label column of the data]",
)
@with_engine
@click.option(
    "--part-rows",
    type=click.IntRange(1),
    default=20_000,
    metavar="N",
    help="Rows that a worker encodes at a time; a worker that is killed loses the work on so many.  [default: 20000]",
)
@with_json
@with_opening
@without_blas_threads
@with_columns
def build(
    bundle: Path,
    inputs: tuple[str, ...],
    out: Path,
    shards: int,
    run: Path | None,
    engine: Any,
    address: str | None,
    workers: int | None,
    threads: int,
    part_rows: int,
    json_path: str | None,
    require_signature: Path | None,
    follow_links: bool,
    columns: Columns,
) -> None:
    """Write a bundle with the student of BUNDLE and a knowledge base of the rows of --data.

    An INPUT is a Parquet, CSV, TSV or JSON lines file, a folder of such files, or a pattern in quotes. Keys are the
    student's embeddings. Each text is stored once. Texts of held-out rows are left out, and the blend is tuned on
    these rows. The rows of BUNDLE's own knowledge base are not kept: give their data too.

    The same command resumes a build that was ended in any way. Its work is in FOLDER.build until the new bundle is
    complete. Needs the batch extra: pip install 'reaugkd[batch]'.
    """
    from ..batch.build.run import BuildJob
    from ..batch.build.run import build as build_kb
    from ..batch.build.settings import BuildOptions, BuildSettings
    from ..export.tuning.tune import tune_again

    signer = None if require_signature is None else str(require_signature.absolute())
    teacher = None
    if run is not None:
        from ..export.training.teacher_predictor import RunTeacher

        teacher = RunTeacher(str(run.absolute()))
        _require_same_labels(bundle, teacher().labels, run)
    identity = None if teacher is None else teacher.run
    job = BuildJob(
        inputs,
        out,
        columns,
        BuildSettings("", str(bundle.absolute()), "rows", threads, teacher, signer, follow_links),
        BuildOptions("", shards, columns.text, columns.pair, columns.label, identity, columns.encoding, part_rows),
        engine,
        workers,
        address,
        tune_again,
    )
    with json_report(json_path) as write_json:
        with resumable(), stages(_LINES) as show:
            made = build_kb(job, tell, show)
        rows, duplicates = made.manifest.kb_rows, sum(one.duplicates for one in made.shards)
        report = {
            "out": str(out),
            "rows": rows,
            "shards": len(made.shards),
            "duplicates": duplicates,
            "conflicts": sum(one.conflicts for one in made.shards),
            "left_out": made.left_out,
            "recall": made.search.recall,
            "ef_search": made.search.expansion_search,
            "probes": made.search.probes,
        }
        write_json(report)
    if json_path == "-":
        return
    search = made.search
    click.echo(f"{rows:,} rows in {len(made.shards)} shards: {out}")
    click.echo(f"recall {search.recall:.3f} with ef_search {search.expansion_search} and {search.probes} probes")
    if duplicates:
        conflicts = f"{report['conflicts']:,} of them with another label"
        click.echo(f"{duplicates:,} rows were left out: the text is that of another row, {conflicts}")
    for reason, count in made.left_out.items():
        click.echo(f"{count:,} rows were left out: {reason}")
    click.echo("The gate and the thresholds of abstention were left out; `reaugkd calibrate` fits thresholds.")


def _require_same_labels(bundle: Path, labels: tuple[str, ...], run: Path) -> None:
    """Check that a run's teacher has the labels of the bundle.

    Raises:
        UsageError: it has others.
    """
    from ..errors import UsageError
    from ..runtime.bundle.bundle import Bundle

    expected = Bundle.open(bundle, verify=False).manifest.labels
    if labels != expected:
        raise UsageError(
            "the run has other labels than the bundle",
            path=run,
            found=", ".join(labels[:5]),
            expected=", ".join(expected[:5]),
            remedy="Give the run that the bundle was exported from.",
        )

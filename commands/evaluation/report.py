"""`reaugkd report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..console import command_line, json_report, output, progress, require_two_places, train_extra
from ..data_source import rows_to_score
from ..options import BUNDLE, PATH, with_columns, with_json, with_opening, with_split, with_task, with_threads

if TYPE_CHECKING:
    from ...runtime.data import Columns


@click.command(short_help="Write one HTML page on how good a bundle is, and where it is wrong.")
@click.argument("bundle", type=BUNDLE)
@click.option("--data", required=True, metavar="PATH|HUB_ID", help="Data set of labelled rows to score.")
@click.option("--out", required=True, type=PATH, metavar="FILE.html", help="Path of the new page.")
@with_split
@with_task
@click.option(
    "--run",
    type=PATH,
    metavar="RUN",
    help="Training run whose teacher and float32 student are also scored, and whose recipe and data are named. *",
)
@click.option("--no-texts", is_flag=True, help="Show no texts of the data and of the knowledge base.")
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    default=10.0,
    metavar="S",
    help="Time for the latency measurement; 0 leaves it out.  [default: 10]",
)
@with_threads
@with_opening
@with_json
@with_columns
def report(
    bundle: Path,
    data: str,
    out: Path,
    split: str | None,
    task: str | None,
    run: Path | None,
    no_texts: bool,
    seconds: float,
    threads: int,
    require_signature: Path | None,
    follow_links: bool,
    json_path: str | None,
    columns: Columns,
) -> None:
    """Write one HTML page on how good a bundle is, and where it is wrong.

    The page has the figures of `eval`, the scores of every class, confused classes, how far the probabilities can be
    trusted, the error rate with abstention, wrong answers with their neighbours, rows of the knowledge base whose label
    is probably wrong, the figures of `bench`, and where all of this comes from. It is one file of at most 1 MB, which
    loads nothing from the network. It shows texts of the data: with --no-texts it does not.
    """
    from ...kb.storage.ed25519 import read_public_key
    from ...runtime.report.collect import ReportSettings, collect
    from ...runtime.report.page import render
    from ...runtime.report.provenance import TRAINED, TUNED
    from ...runtime.runtime import Runtime

    require_two_places("--out", str(out), "--json", json_path)
    signer = None if require_signature is None else read_public_key(require_signature)
    runtime = Runtime.open(bundle, threads=threads, require_signature=signer, follow_links=follow_links)
    name, rows, note = rows_to_score(runtime, data, task, columns, split)
    with json_report(json_path) as write, output(str(out), machine=True) as page:
        description, extra, run_rows = None, None, {}
        if run is not None:
            with train_extra("scoring the teacher (--run)"):
                from ...export.training.evaluate_run import run_probabilities
                from ...export.training.run_folder import RunFolder, read_rows
            folder = RunFolder(run)
            description = folder.describe()
            extra = run_probabilities(run, rows, runtime.labels)
            files = {TRAINED: "train.jsonl", TUNED: "heldout.jsonl"}
            run_rows = {name: read_rows(folder.data / file) for name, file in files.items()}
        settings = ReportSettings(
            seconds=seconds,
            texts=not no_texts,
            split_name=name,
            command=command_line(),
            note=note,
            run_rows=run_rows,
            run=description,
            signer=signer,
            follow_links=follow_links,
        )
        made = collect(runtime, bundle, rows, settings, progress, extra)
        page.write(render(made))
        write(made.to_json())

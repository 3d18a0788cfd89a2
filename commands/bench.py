"""`reaugkd bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .console import json_report, progress
from .datasource import load_texts
from .options import PATH, with_columns, with_json, with_task, with_threads

if TYPE_CHECKING:
    from ..runtime.data import Columns


@click.command(short_help="What retrieval costs in time, memory and bytes.")
@click.argument("bundle", type=PATH)
@click.option("--data", metavar="PATH|HUB_ID", help="Texts to time with.  [default: the knowledge base's own]")
@with_task
@with_threads
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="Time for the latencies.  [default: 10]"
)
@click.option(
    "--processes", type=click.IntRange(0), metavar="N", help="Fresh processes, for cold start and memory.  [default: 5]"
)
@with_json
@with_columns
def bench(
    bundle: Path,
    data: str | None,
    task: str | None,
    threads: int,
    seconds: float | None,
    processes: int | None,
    json_path: str | None,
    columns: Columns,
) -> None:
    """Measure what retrieval costs: student alone and with retrieval, interleaved, stage by stage."""
    from ..runtime.bench import BenchSettings
    from ..runtime.bench import bench as run_bench
    from ..runtime.bundle import Bundle
    from ..runtime.report import format_bench

    pair = Bundle.open(bundle, verify=False).manifest.text_pair
    texts, source = (None, None) if data is None else load_texts(data, task, columns, pair)
    chosen = {"seconds": seconds, "processes": processes}
    settings = BenchSettings(**{name: value for name, value in chosen.items() if value is not None})  # type: ignore[arg-type]
    with json_report(json_path) as write:
        with progress("bench", "step") as advance:
            report = run_bench(bundle, texts, threads=threads, settings=settings, source=source, progress=advance)
        click.echo(format_bench(report), err=json_path == "-")
        write(report.to_json())

"""`reaugkd bench`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console import command_line, json_report, output, progress, require_two_places
from ..data_source import load_texts
from ..options import BUNDLE, with_columns, with_json, with_opening, with_search, with_task, with_threads

if TYPE_CHECKING:
    from ...runtime.data import Columns
    from ...runtime.inference.retrieval_policy import SearchMethod


@click.command(short_help="Measure what retrieval costs in time and memory.")
@click.argument("bundle", type=BUNDLE)
@click.option(
    "--data", metavar="PATH|HUB_ID", help="Data set of texts to predict.  [default: the knowledge base's texts]"
)
@with_task
@with_threads
@with_search
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="Time for the latency measurement.  [default: 10]",
)
@click.option(
    "--processes",
    type=click.IntRange(0),
    metavar="N",
    help="Number of new processes for cold start and memory.  [default: 5]",
)
@with_opening
@click.option("--report", "page_path", metavar="FILE.html", help="Write the results as one HTML page to a new file.")
@with_json
@with_columns
def bench(
    bundle: Path,
    data: str | None,
    task: str | None,
    threads: int,
    search: SearchMethod,
    require_signature: Path | None,
    follow_links: bool,
    page_path: str | None,
    json_path: str | None,
    columns: Columns,
    **chosen: Any,
) -> None:
    """Measure what retrieval costs in time and memory.

    The student alone and the student with retrieval are timed interleaved, stage by stage. Where the search is part of
    the run of the model, a second pass with ONNX Runtime's profiler shows its share, and usearch is timed too. New
    processes measure cold start and memory.
    """
    from ...kb.storage.ed25519 import read_public_key
    from ...runtime.benchmark.bench import BenchSettings
    from ...runtime.benchmark.bench import bench as run_bench
    from ...runtime.benchmark.report import format_bench
    from ...runtime.bundle.bundle import Bundle

    require_two_places("--report", page_path, "--json", json_path)
    settings = BenchSettings(**{name: value for name, value in chosen.items() if value is not None})
    signer = None if require_signature is None else read_public_key(require_signature)
    pair = Bundle.open(
        bundle, verify=signer is not None, require_signature=signer, follow_links=follow_links
    ).manifest.text_pair
    texts, source = (None, None) if data is None else load_texts(data, task, columns, pair)
    new_page = nullcontext() if page_path is None else output(page_path, machine=True)
    with json_report(json_path) as write, new_page as page:
        with progress("bench", "step") as advance:
            report = run_bench(
                bundle,
                texts,
                threads=threads,
                search=search,
                settings=settings,
                source=source,
                progress=advance,
                require_signature=signer,
                follow_links=follow_links,
            )
        if page is not None:
            from ...runtime.report.page import render_bench

            page.write(render_bench(report, str(bundle), command_line()))
        click.echo(format_bench(report), err="-" in (json_path, page_path))
        write(report.to_json())

"""`reaugkd bench`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .console import json_report, progress
from .data_source import load_texts
from .options import PATH, numbers, with_columns, with_json, with_signature, with_task, with_threads

if TYPE_CHECKING:
    from ..runtime.data import Columns

_OF_THE_SWEEP = ("tokens", "rows", "plot")


@click.command(short_help="What retrieval costs in time, memory and bytes.")
@click.argument("bundle", type=PATH)
@click.option("--data", metavar="PATH|HUB_ID", help="Texts to time with.  [default: the knowledge base's own]")
@with_task
@with_threads
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="Time for the latencies.  [default: 10, of a sweep 20]",
)
@click.option(
    "--processes", type=click.IntRange(0), metavar="N", help="Fresh processes, for cold start and memory.  [default: 5]"
)
@click.option(
    "--sweep",
    is_flag=True,
    help="How that grows with tokens and rows, on one thread and on all cores (or --threads N).",
)
@click.option(
    "--tokens",
    callback=numbers,
    metavar="N,N...",
    help="Of the sweep's texts.  [default: 8,16,32,64,128 as far as the model reads]",
)
@click.option(
    "--rows",
    callback=numbers,
    metavar="N,N...",
    help="Of the sweep's knowledge bases, grown from the bundle's own.  [default: 10000,100000]",
)
@click.option("--plot", type=PATH, metavar="FILE.svg|png", help="Draw the sweep (takes the plots extra).")
@with_signature
@with_json
@with_columns
def bench(
    bundle: Path,
    data: str | None,
    task: str | None,
    threads: int,
    require_signature: Path | None,
    json_path: str | None,
    columns: Columns,
    sweep: bool,
    **chosen: Any,
) -> None:
    """Measure what retrieval costs: student alone and with retrieval, interleaved, stage by stage.

    With --sweep, over texts and knowledge bases of several sizes; a million rows take minutes to build.
    """
    from ..kb.storage.ed25519 import read_public_key
    from ..runtime.bundle.bundle import Bundle

    given = {name: value for name, value in chosen.items() if value is not None}
    _check(sweep, given)
    signer = None if require_signature is None else read_public_key(require_signature)
    pair = Bundle.open(bundle, verify=signer is not None, require_signature=signer).manifest.text_pair
    texts, source = (None, None) if data is None else load_texts(data, task, columns, pair)
    chosen_threads = threads if _is_given("threads") or not sweep else None
    with _plot_file(given.pop("plot", None)) as draw:
        with json_report(json_path) as write:
            measure = _sweep if sweep else _bench
            shown, report = measure(bundle, texts, source, chosen_threads, signer, given)
            click.echo(shown, err=json_path == "-")
            write(report.to_json())
        draw(report)


def _is_given(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT


def _check(sweep: bool, given: dict[str, Any]) -> None:
    """Refuse an option of the one kind of measurement with the other."""
    from ..errors import UsageError

    for name in () if sweep else _OF_THE_SWEEP:
        if name in given:
            raise UsageError(f"--{name} is an option of the sweep", remedy="Give --sweep as well.")
    if sweep and "processes" in given:
        raise UsageError("a sweep starts no processes", found="--processes", remedy="Leave one of the two out.")


def _bench(
    bundle: Path, texts: Any, source: str | None, threads: Any, signer: Any, given: dict[str, Any]
) -> tuple[str, Any]:
    from ..runtime.benchmark.bench import BenchSettings
    from ..runtime.benchmark.bench import bench as run_bench
    from ..runtime.benchmark.report import format_bench

    settings = BenchSettings(**given)
    with progress("bench", "step") as advance:
        report = run_bench(
            bundle, texts, threads=threads, settings=settings, source=source, progress=advance, require_signature=signer
        )
    return format_bench(report), report


def _sweep(
    bundle: Path, texts: Any, source: str | None, threads: Any, signer: Any, given: dict[str, Any]
) -> tuple[str, Any]:
    from ..benchmarks.sweep.report import format_sweep
    from ..benchmarks.sweep.sweep import SweepSettings
    from ..benchmarks.sweep.sweep import sweep as run_sweep

    settings = SweepSettings(threads=threads, **given)
    report = run_sweep(bundle, texts, settings=settings, source=source, progress=progress, require_signature=signer)
    return format_sweep(report), report


def _plot_file(path: Path | None) -> Any:
    if path is None:
        return nullcontext(lambda _report: None)
    from ..benchmarks.sweep.plot import plot_file

    return plot_file(path)

"""`reaugkd predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .console import output, progress, stats_report
from .options import PATH, LazyChoice, with_columns, with_signature, with_threads, without_blas_threads

if TYPE_CHECKING:
    from ..runtime.data import Columns
    from ..runtime.output.prediction_formats import Format


def _input_formats() -> list[str]:
    from ..runtime.data.formats import FORMATS

    return [one.name for one in FORMATS]


@click.command(short_help="The label of each text.")
@click.argument("bundle", type=PATH)
@click.argument("text", nargs=-1)
@click.option("--input", "source", metavar="FILE|-", help="Read texts from a file, or from stdin.")
@click.option(
    "--input-format",
    type=LazyChoice(_input_formats),
    help="Format of the input.  [default: by its suffix; for stdin txt, one text a line]",
)
@click.option("--output", "target", metavar="FILE|-", default="-", help="A new file, whole or not at all, or stdout.")
@click.option(
    "--format", "kind", type=click.Choice(["table", "jsonl", "csv"]), help="[default: table; jsonl with --input]"
)
@click.option("--explain", is_flag=True, help="Show the neighbours that were retrieved.")
@click.option("--no-retrieval", is_flag=True, help="Answer with the student alone.")
@click.option("--gated", is_flag=True, help="Retrieve only where the student is not sure, as the bundle's gate says.")
@click.option(
    "--budget-ms", type=click.FloatRange(0, min_open=True), metavar="MS", help="Leave out a search that would be late."
)
@click.option(
    "--abstain",
    metavar="GOAL",
    help="Say where not to answer: coverage=95% (answered, of texts like the held-out ones), error=2% (wrong, of the "
    "answers; certified) or threshold=N (of the doubt).",
)
@click.option(
    "--stats",
    "stats_path",
    metavar="FILE|-",
    help="Write counts of the answers at the end, as JSON, or for Prometheus if FILE ends in .prom.",
)
@with_threads
@with_signature
@without_blas_threads
@with_columns
def predict(
    bundle: Path,
    text: tuple[str, ...],
    source: str | None,
    input_format: Any,
    target: str,
    kind: Format | None,
    explain: bool,
    no_retrieval: bool,
    gated: bool,
    budget_ms: float | None,
    abstain: str | None,
    stats_path: str | None,
    threads: int,
    require_signature: Path | None,
    columns: Columns,
) -> None:
    """Classify each TEXT, or each row of --input, with the bundle at BUNDLE.

    A bundle trained on pairs takes the TEXTs two by two. A row of --input that cannot be used gives an error record in
    its place and the rest goes on; how many there were is said on stderr.
    """
    from ..runtime.decision.abstention_goal import Abstain
    from ..runtime.output.prediction_stream import (
        STDIN,
        PredictOptions,
        answer_stream,
        records_of_arguments,
        records_of_source,
    )
    from ..runtime.runtime import Runtime

    if bool(text) == (source is not None):
        found = f"{len(text)} texts and --input {source}" if text else "neither"
        remedy = "Quote a text as one argument, or read stdin with --input -."
        raise UsageError("give either TEXTs or --input", found=found, remedy=remedy)
    if gated and no_retrieval:
        raise UsageError("give either --gated or --no-retrieval", found="both")
    retrieval: Any = "never" if no_retrieval else "gated" if gated else "always"
    if stats_path == target == "-":
        raise UsageError("answers and --stats cannot both go to stdout", remedy="Name a file with --output or --stats.")
    goal = None if abstain is None else Abstain.parse(abstain)
    runtime = Runtime.open(
        bundle, threads=threads, retrieval=retrieval, budget_ms=budget_ms, require_signature=require_signature
    )
    pair = runtime.manifest.text_pair
    records = (
        records_of_arguments(text, pair) if source is None else records_of_source(source, input_format, columns, pair)
    )
    kind = kind or ("table" if source is None else "jsonl")
    if source == STDIN and sys.stdin.isatty():
        click.echo("reading texts, one a line; end with Ctrl-D", err=True)
    with (
        stats_report(stats_path) as write_stats,
        output(target, machine=kind != "table") as out,
        progress("predict", "row") as advance,
    ):
        counted = None if target == "-" else advance
        failed = answer_stream(runtime, records, PredictOptions(kind, explain, source, goal), out, counted)
        write_stats(runtime.stats())
    if failed:
        click.echo(f"{failed:,} row{'s' * (failed > 1)} could not be answered: see the error records", err=True)

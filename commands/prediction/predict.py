"""`reaugkd predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import UsageError
from ...runtime.output.prediction_formats import FORMATS
from ..console import output, progress, require_two_places, stats_report, tell
from ..options import (
    BUNDLE,
    LazyChoice,
    not_empty,
    with_opening,
    with_search,
    with_text_columns,
    with_threads,
    without_blas_threads,
)

if TYPE_CHECKING:
    from ...runtime.data import Columns
    from ...runtime.inference.retrieval_policy import SearchMethod


def _input_formats() -> list[str]:
    from ...runtime.data.formats import FORMATS

    return [one.name for one in FORMATS]


@click.command(short_help="Predict the label of each text.")
@click.argument("bundle", type=BUNDLE)
@click.argument("text", nargs=-1)
@click.option(
    "--input",
    "source",
    callback=not_empty,
    metavar="FILE|-",
    help="Read texts from a file, from a folder of its parts, or from stdin (-).",
)
@click.option(
    "--input-format",
    type=LazyChoice(_input_formats),
    help="Format of the input.  [default: by its suffix; for stdin txt, one text per line]",
)
@click.option(
    "--output",
    "target",
    metavar="FILE|-",
    default="-",
    help="Write the predictions to a new file, or to stdout (-).  [default: -]",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    help="Format of the predictions.  [default: table; jsonl with --input]",
)
@click.option(
    "--on-error",
    type=click.Choice(["record", "skip", "raise"]),
    help="What becomes of a row that cannot be predicted: an error record in its place, nothing, or the end of the "
    "command.  [default: raise for TEXTs; record with --input]",
)
@click.option(
    "--top-k",
    type=click.IntRange(1),
    metavar="N",
    help="Show the N most probable labels, most probable first.  [default: one; with jsonl all]",
)
@click.option("--explain", is_flag=True, help="Include the retrieved neighbours.")
@click.option("--no-retrieval", is_flag=True, help="Predict with the student alone.")
@click.option("--gated", is_flag=True, help="Retrieve only if the bundle's gate finds the student uncertain.")
@click.option(
    "--budget-ms",
    type=click.FloatRange(0, min_open=True),
    metavar="MS",
    help="Skip retrieval if it would exceed this latency budget in milliseconds.",
)
@click.option(
    "--abstain",
    metavar="GOAL",
    help="Abstain if the rejection score is too high. GOAL is coverage=95% (answer 95 % of texts like the held-out "
    "rows), error=2% (at most 2 % of the answers are wrong, certified) or threshold=N (answer up to score N).",
)
@click.option(
    "--stats",
    "stats_path",
    metavar="FILE|-",
    help="Write statistics of the predictions to a new file or to stdout (-): as JSON, or in Prometheus's text format "
    "if FILE ends in .prom.",
)
@with_search
@with_threads
@with_opening
@without_blas_threads
@with_text_columns
def predict(
    bundle: Path,
    text: tuple[str, ...],
    source: str | None,
    input_format: Any,
    target: str,
    kind: str | None,
    on_error: Any,
    top_k: int | None,
    explain: bool,
    no_retrieval: bool,
    gated: bool,
    budget_ms: float | None,
    abstain: str | None,
    stats_path: str | None,
    search: SearchMethod,
    threads: int,
    require_signature: Path | None,
    follow_links: bool,
    columns: Columns,
) -> int:
    """Predict the label of each TEXT, or of each row of --input, with the bundle BUNDLE.

    For a bundle of text pairs, give two TEXTs per pair: A B C D are the pairs (A, B) and (C, D). The numbers of rows
    that were answered, failed and truncated are printed to stderr.

    Exit code: 0 if every row was answered, 3 if some rows failed, 1 if all did, 2 for a wrong call or with --on-error
    raise.
    """
    from ...runtime.decision.abstention_goal import Abstain
    from ...runtime.output.prediction_stream import (
        STDIN,
        PredictOptions,
        answer_stream,
        records_of_arguments,
        records_of_source,
    )
    from ...runtime.runtime import Runtime

    _check_places(text, source, target, stats_path)
    if gated and no_retrieval:
        raise UsageError("give either --gated or --no-retrieval", found="both")
    retrieval: Any = "never" if no_retrieval else "gated" if gated else "always"
    goal = None if abstain is None else Abstain.parse(abstain)
    runtime = Runtime.open(
        bundle,
        threads,
        retrieval,
        budget_ms=budget_ms,
        require_signature=require_signature,
        follow_links=follow_links,
        search=search,
    )
    pair = runtime.manifest.text_pair
    records = (
        records_of_arguments(text, pair)
        if source is None
        else records_of_source(source, input_format, columns, pair, tell)
    )
    kind = kind or ("table" if source is None else "jsonl")
    on_error = on_error or ("raise" if source is None else "record")
    if source == STDIN and sys.stdin.isatty():
        click.echo("reading one text per line; end with Ctrl-D", err=True)
    with (
        stats_report(stats_path) as write_stats,
        output(target, machine=kind != "table") as out,
        progress("predict", "row") as advance,
    ):
        counted = None if target == "-" else advance
        options = PredictOptions(kind, explain, source, on_error, goal, top_k)
        done = answer_stream(runtime, records, options, out, counted)
        write_stats(runtime.stats())
    if source is not None or done.failed or done.truncated:
        click.echo(done.summary(on_error, runtime.manifest.max_length), err=True)
    return done.exit_code


def _check_places(text: tuple[str, ...], source: str | None, target: str, stats_path: str | None) -> None:
    """Check that the texts come from one place, and that the two outputs go to two places.

    Raises:
        UsageError: otherwise.
    """
    if bool(text) == (source is not None):
        found = f"{len(text)} texts and --input {source}" if text else "neither"
        remedy = "Quote each text as one argument, or read stdin with --input -."
        raise UsageError("give either TEXTs or --input", found=found, remedy=remedy)
    require_two_places("--output", target, "--stats", stats_path)

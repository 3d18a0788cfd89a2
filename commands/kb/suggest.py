"""`reaugkd suggest`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console import json_report, output, progress, tell
from ..options import BUNDLE, not_empty, with_json, with_opening, with_text_columns, without_blas_threads

if TYPE_CHECKING:
    from ...runtime.data import BadRow, Columns, TextRow
    from ...runtime.labelling.suggest import Suggestion


@click.command(short_help="Choose the texts that are worth labelling next.")
@click.argument("bundle", type=BUNDLE)
@click.option(
    "--input",
    "source",
    required=True,
    callback=not_empty,
    metavar="FILE|-",
    help="Texts without labels in any format that `predict` reads; - for one text a line on stdin.",
)
@click.option(
    "--count",
    type=click.IntRange(1),
    default=100,
    metavar="N",
    help="Largest number of texts, up to 2,000.  [default: 100]",
)
@with_json
@with_opening
@without_blas_threads
@with_text_columns
def suggest(
    bundle: Path,
    source: str,
    count: int,
    json_path: str | None,
    require_signature: Path | None,
    follow_links: bool,
    columns: Columns,
) -> None:
    """Choose up to N texts that are worth labelling next, best first, as CSV on stdout.

    The texts are uncertain, stand for many others, and are not alike. Texts that are stored already and repeated ones
    are left out. The column `label` is empty: fill it in, and give the file to `kb add --input`.
    """
    from ...runtime.labelling.suggest import suggest as choose
    from ...runtime.output.prediction_stream import records_of_source
    from ...runtime.runtime import Runtime

    runtime = Runtime.open(bundle, require_signature=require_signature, follow_links=follow_links)
    numbers: list[int] = []
    records = records_of_source(source, None, columns, runtime.manifest.text_pair, tell)
    with json_report(json_path) as write:
        with progress("suggest", "row") as advance:
            chosen = choose(runtime, _texts(records, numbers), count, advance)
        write([{"row": numbers[one.place], **_record(one)} for one in chosen])
    if json_path != "-":
        with output("-", machine=True) as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow([*(["text", "text_pair"] if runtime.manifest.text_pair else ["text"]), "label", "reason"])
            writer.writerows([*_cells(one.text), "", one.reason] for one in chosen)
    counts = f"{len(numbers):,} texts read, {len(chosen):,} chosen"
    click.echo(f"{counts}; texts that are stored or repeated are left out", err=True)


def _texts(records: Iterator[TextRow | BadRow], numbers: list[int]) -> Iterator[Any]:
    """The usable texts; their rows' numbers are appended to ``numbers``."""
    from ...runtime.data import BadRow

    bad = 0
    for record in records:
        if isinstance(record, BadRow):
            bad += 1
            if bad == 1:
                tell(f"rows without a usable text are left out, the first one: {record.error}")
        else:
            numbers.append(record.row)
            yield record.text


def _cells(text: str | tuple[str, str]) -> list[str]:
    return [text] if isinstance(text, str) else list(text)


def _record(one: Suggestion) -> dict[str, Any]:
    record = asdict(one)
    del record["place"]
    return {**record, "reason": one.reason}

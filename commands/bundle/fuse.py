"""`reaugkd fuse`."""

from __future__ import annotations

from pathlib import Path

import click

from ..console import train_extra
from ..options import BUNDLE, PATH, with_links


@click.command(short_help="Fuse student, knowledge base and blend into one ONNX file. *")
@click.argument("bundle", type=BUNDLE)
@click.option("--out", required=True, type=PATH, metavar="FILE.onnx", help="Path of the new file.")
@click.option(
    "--max-rows",
    type=click.IntRange(1),
    default=4096,
    metavar="N",
    help="Refuse a knowledge base with more rows.  [default: 4096]",
)
@with_links
def fuse(bundle: Path, out: Path, max_rows: int, follow_links: bool) -> None:
    """Write BUNDLE as one ONNX file with student, knowledge base and blend, for any ONNX Runtime (C#, Java, browser).

    Its inputs are token ids from the bundle's tokenizer.json. It compares every text with every row of the knowledge
    base, so the search is exact, and it is suited to a few thousand rows.
    """
    with train_extra("fusing"):
        from ...export.onnx.fuse import fuse as run_fuse
    done = run_fuse(bundle, out, max_rows, follow_links)
    compared = done.comparison
    agreement = f"{compared.texts} texts have the bundle's probabilities to {compared.difference:.1g}"
    click.echo(f"{out}: {done.bytes / 1e6:.1f} MB with {done.rows:,} rows; {agreement}", err=True)

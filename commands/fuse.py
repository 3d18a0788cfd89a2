"""`reaugkd fuse`."""

from __future__ import annotations

from pathlib import Path

import click

from .console import train_extra
from .options import PATH


@click.command(short_help="Fuse a bundle into one ONNX file with the knowledge base inside. *")
@click.argument("bundle", type=PATH)
@click.option("--out", required=True, type=PATH, metavar="FILE.onnx", help="Path of the new file.")
@click.option(
    "--max-rows",
    type=click.IntRange(1),
    default=4096,
    metavar="N",
    help="Largest number of rows of the knowledge base.  [default: 4096]",
)
def fuse(bundle: Path, out: Path, max_rows: int) -> None:
    """Write student, knowledge base and blend as one ONNX file, for any ONNX Runtime: C#, Java, a phone, a browser.

    Its inputs are token ids from the bundle's tokenizer.json. It compares every text with every row of the knowledge
    base: the search is exact, and suits a few thousand rows.
    """
    with train_extra("fusing"):
        from ..export.onnx.fuse import fuse as run_fuse
    done = run_fuse(bundle, out, max_rows)
    compared = done.comparison
    same = compared.texts - compared.other_neighbours
    said = f"{same} of {compared.texts} texts get the bundle's answers, to {compared.difference:.1g}"
    if compared.other_neighbours:
        said += f"; the others, where the bundle's search misses neighbours, to {compared.others_difference:.1g}"
    click.echo(f"{out}: {done.bytes / 1e6:.1f} MB with {done.rows:,} rows inside; {said}", err=True)

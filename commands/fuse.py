"""`reaugkd fuse`."""

from __future__ import annotations

from pathlib import Path

import click

from .console import train_extra
from .options import PATH


@click.command(short_help="A bundle as one ONNX file, knowledge base inside. *")
@click.argument("bundle", type=PATH)
@click.option("--out", required=True, type=PATH, metavar="FILE.onnx", help="The file to make.")
@click.option(
    "--max-rows",
    type=click.IntRange(1),
    default=4096,
    metavar="N",
    help="Refuse a knowledge base of more rows.  [default: 4096]",
)
def fuse(bundle: Path, out: Path, max_rows: int) -> None:
    """Write student, knowledge base and blend as one ONNX file, for any ONNX Runtime: C#, Java, a phone, a browser.

    It takes token ids, made with the bundle's tokenizer.json, and looks at every row of the knowledge base at every
    text: exactly, without the graph search's misses, and for some thousand rows at most.
    """
    with train_extra("fusing"):
        from ..export.onnx.fuse import fuse as run_fuse
    done = run_fuse(bundle, out, max_rows)
    compared = done.comparison
    same = compared.texts - compared.other_neighbours
    said = f"{same} of {compared.texts} texts as the bundle answers them, to {compared.difference:.1g}"
    if compared.other_neighbours:
        said += f"; the others, for which its approximate search misses neighbours, to {compared.others_difference:.1g}"
    click.echo(f"{out}: {done.bytes / 1e6:.1f} MB with {done.rows:,} rows inside; {said}", err=True)

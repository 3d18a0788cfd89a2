"""`reaugkd compact`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from .console import json_report, progress, train_extra
from .options import PATH, with_json

_MOST_BYTES = 1e18  # beyond, numbers end
_UNITS = {"": 1, "b": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


def _bytes(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    read = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmg]?)b?", value.strip().lower())
    if read is None:
        raise click.BadParameter(f"{value!r} is no size such as 2500000, 900kB or 2.5MB")
    return int(min(float(read[1]) * _UNITS[read[2]], _MOST_BYTES))


@click.command(short_help="A bundle with a smaller knowledge base. *")
@click.argument("bundle", type=PATH)
@click.option("--out", type=PATH, metavar="NEW", help="The bundle folder to make; takes one of the limits below.")
@click.option("--max-bytes", callback=_bytes, metavar="N[kB|MB]", help="The most bytes of the whole knowledge base.")
@click.option("--max-rows", type=click.IntRange(1), metavar="N", help="The most rows.")
@click.option(
    "--max-loss",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="The smallest that keeps all of retrieval's gain but for this share, such as 0.05.",
)
@click.option("--no-texts", is_flag=True, help="Leave the rows' texts out.")
@with_json
def compact(
    bundle: Path,
    out: Path | None,
    max_bytes: int | None,
    max_rows: int | None,
    max_loss: float | None,
    no_texts: bool,
    json_path: str | None,
) -> None:
    """Write BUNDLE anew with a small knowledge base: keys of one byte a component, near rows merged into prototypes.

    Without --out it shows what every size keeps of retrieval's gain, on the bundle's held-out rows. Of the train extra
    it takes scipy alone, and mapie for a bundle that knows when to abstain.
    """
    from ..errors import UsageError

    with train_extra("compacting"):
        from ..export import compact as compacting
    limited = any(limit is not None for limit in (max_bytes, max_rows, max_loss))
    if out is None and limited:
        raise UsageError("a limit is given, but no place to write to", expected="--out NEW")
    with json_report(json_path) as write:
        if out is None:
            from ..export.compact_report import format_frontier

            found = compacting.frontier(bundle, progress, not no_texts)
            click.echo(format_frontier(found), err=json_path == "-")
            write(found.to_json())
            return
        from ..export.compact_report import format_compacted

        limit = compacting.Limit(max_rows, max_bytes, max_loss)
        done = compacting.compact(bundle, out, limit, progress, not no_texts)
        click.echo(format_compacted(out, done), err=True)
        write(done.manifest.quality["compaction"])

"""`reaugkd condense`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..console import json_report, progress, tell_kept_card, train_extra
from ..options import BUNDLE, PATH, with_json, with_links

if TYPE_CHECKING:
    from ...export.bundle.condensation_curve import Size
    from ...export.bundle.condense import Condensed, Frontier

_MOST_BYTES = 1e18  # fits an int64
_UNITS = {"": 1, "b": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


def _bytes(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    read = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmg]?)b?", value.strip().lower())
    if read is None:
        raise click.BadParameter(f"{value!r} is not a size such as 2500000, 900kB or 2.5MB")
    return int(min(float(read[1]) * _UNITS[read[2]], _MOST_BYTES))


@click.command(short_help="Make a knowledge base smaller by merging near rows. *")
@click.argument("bundle", type=BUNDLE)
@click.option("--out", type=PATH, metavar="NEW", help="Folder of the new bundle; needs one of the limits below.")
@click.option("--max-bytes", callback=_bytes, metavar="N[kB|MB]", help="Largest size of the new knowledge base.")
@click.option(
    "--max-rows", type=click.IntRange(1), metavar="N", help="Largest number of rows of the new knowledge base."
)
@click.option(
    "--max-loss",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Largest share of retrieval's gain in NLL that may be lost, such as 0.05; the smallest such size is chosen.",
)
@click.option("--no-texts", is_flag=True, help="Do not store texts in the new knowledge base.")
@with_links
@with_json
def condense(
    bundle: Path,
    out: Path | None,
    max_bytes: int | None,
    max_rows: int | None,
    max_loss: float | None,
    no_texts: bool,
    follow_links: bool,
    json_path: str | None,
) -> None:
    """Write a copy of BUNDLE with a condensed knowledge base: int8 keys, and near rows merged into prototypes.

    Without --out, print the share of retrieval's gain that each size keeps, measured on the bundle's held-out rows. The
    command needs scipy from the train extra, and mapie for a bundle with abstention thresholds.
    """
    _refuse_limit_without_output(out, max_bytes, max_rows, max_loss)
    with train_extra("condensing"):
        from ...export.bundle import condense as condensing
    from ...runtime.bundle.bundle import Bundle

    with json_report(json_path) as write:
        if out is None:
            found = condensing.frontier(bundle, progress, not no_texts, follow_links)
            click.echo(format_frontier(found), err=json_path == "-")
            write(found.to_json())
            return
        limit = condensing.Limit(max_rows, max_bytes, max_loss)
        done = condensing.condense(bundle, out, limit, progress, not no_texts, follow_links)
        tell_kept_card(Bundle.open(bundle, verify=False, follow_links=follow_links), follow_links)
        click.echo(format_condensed(out, done), err=True)
        write(done.manifest.quality["condensation"])


def _refuse_limit_without_output(out: Path | None, *limits: float | None) -> None:
    from ...errors import UsageError

    if out is None and any(limit is not None for limit in limits):
        raise UsageError("a limit needs an output folder", expected="--out NEW")


def format_frontier(found: Frontier) -> str:
    """Format a frontier as a table."""
    from ...export.bundle.condense import CONNECTIVITY, DTYPE
    from ...runtime.output.text_table import table

    alone = found.reference.student
    student = ("student alone", "", "", f"{alone.right.mean():.2%}", f"{alone.nll.mean():.4f}", "", "")
    most = found.sizes[0].rows
    rows = [
        (
            f"{size.rows:,} rows",
            f"{size.rows / most:.1%}",
            f"{size.bytes / 1e6:.2f}",
            f"{size.accuracy:.2%}",
            f"{size.nll:.4f}",
            _kept(size),
            f"{size.agreement:.2%}",
        )
        for size in found.sizes
    ]
    head = ["knowledge base", "share", "about MB", "accuracy", "NLL", "gain in NLL kept", "label as in full"]
    return "\n".join(
        [
            f"now {most:,} rows, {found.bytes / 1e6:.2f} MB; sizes with {DTYPE} keys and {CONNECTIVITY} edges, "
            f"measured on the same {len(alone.nll):,} held-out rows",
            "",
            table(head, [student, *rows]),
            "",
            "next: --out NEW with --max-rows, --max-bytes or --max-loss",
        ]
    )


def format_condensed(out: Path, done: Condensed) -> str:
    """Format the result of a condensation."""
    from ...export.tuning.abstention import describe_abstention
    from ...export.tuning.gating import describe_gate

    size, reference, search = done.size, done.reference, done.manifest.quality["search"]
    before, after = done.bytes_before / 1e6, size.bytes / 1e6
    kept = f"keeps {_kept(size)} of retrieval's gain in log-likelihood"
    if size.kept_nll is None:
        kept = "retrieval has no gain in log-likelihood, even with all rows"
    accuracies = " -> ".join(f"{system.right.mean():.2%}" for system in (reference.student, reference.full))
    lines = [
        f"{out}: {size.rows:,} of {done.rows_before:,} rows, {after:.2f} of {before:.2f} MB",
        f"{kept} on {len(reference.full.nll):,} held-out rows; "
        f"their accuracy: student {accuracies} with all rows, {size.accuracy:.2%} with these",
        f"a search with ef_search {search['expansion_search']} finds {search['recall']:.1%} of the nearest rows and "
        f"compares {search['compared']:,.0f} keys",
    ]
    if done.gate_before is not None:
        lines.append(f"gate (predict --gated): {describe_gate(done.manifest.gate, done.gate_before.epsilon)}")
    if done.manifest.abstention is not None:
        lines.append(f"abstention: {describe_abstention(done.manifest.abstention)}")
    if size.kept_nll is not None and size.kept_nll <= 0:
        lines.append("this knowledge base is worse than none: keep more rows")
    return "\n".join(lines)


def _kept(size: Size) -> str:
    return "-" if size.kept_nll is None else f"{size.kept_nll:.0%} ± {size.kept_nll_error:.0%}"

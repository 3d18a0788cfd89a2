"""What `reaugkd compact` says."""

from __future__ import annotations

from pathlib import Path

from ..runtime.tables import table
from .compact import Compacted, Frontier


def format_frontier(found: Frontier) -> str:
    """A frontier as a table, with what it was measured on."""
    rows = [
        ("student alone", "", "", f"{found.student.right.mean():.2%}", f"{found.student.nll.mean():.4f}", "", "", "")
    ]
    most = found.sizes[0].rows
    rows += [
        (
            f"{size.rows:,} rows",
            f"{size.rows / most:.1%}",
            f"{size.bytes / 1e6:.2f}",
            f"{size.accuracy:.2%}",
            f"{size.nll:.4f}",
            _share(size.kept_accuracy),
            _share(size.kept_nll),
            f"{size.agreement:.2%}",
        )
        for size in found.sizes
    ]
    head = ["knowledge base", "share", "about MB", "accuracy", "NLL", "gain kept: accuracy", "NLL", "label as in full"]
    return "\n".join(
        [
            f"now {most:,} rows, {found.bytes / 1e6:.2f} MB; sizes as with keys of i8, all measured on the same "
            f"{found.rows:,} held-out rows",
            "",
            table(head, rows),
            "",
            "next: --out NEW with --max-rows, --max-bytes or --max-loss",
        ]
    )


def format_compacted(out: Path, done: Compacted) -> str:
    """What a compaction came to."""
    size, index = done.size, done.setting.config
    megabytes = f"{size.bytes / 1e6:.2f} MB of {done.bytes_before / 1e6:.2f} MB"
    lines = [
        f"{out}: {size.rows:,} of {done.rows_before:,} rows, {megabytes}",
        f"keeps {_share(size.kept_nll)} of what retrieval gains in log-likelihood and {_share(size.kept_accuracy)} in "
        f"accuracy on {done.heldout_rows:,} held-out rows, {size.agreement:.2%} of them labelled as before",
        f"index: {index.dtype}, {index.connectivity} edges, search width {index.expansion_search}: finds "
        f"{done.setting.recall:.1%} of the nearest, comparing {done.setting.compared:,.0f} keys",
    ]
    if done.cross_validated is not None:
        lines[1] += (
            f"; the size was chosen on these: on rows it was not chosen on, {_share(done.cross_validated)} in "
            "log-likelihood"
        )
    if size.kept_nll is not None and size.kept_nll <= 0:
        lines.append("this knowledge base is worth less than none: give it more rows")
    return "\n".join(lines)


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"

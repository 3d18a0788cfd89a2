"""What `reaugkd compact` says."""

from __future__ import annotations

from pathlib import Path

from ..runtime.tables import table
from .compact import CONNECTIVITY, DTYPE, Compacted, Frontier
from .gate import told_gate
from .sizes import Size


def format_frontier(found: Frontier) -> str:
    """A frontier as a table, with what it was measured on."""
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
            f"now {most:,} rows, {found.bytes / 1e6:.2f} MB; sizes as with {DTYPE} keys and {CONNECTIVITY} edges, "
            f"measured on the same {len(alone.nll):,} held-out rows",
            "",
            table(head, [student, *rows]),
            "",
            "next: --out NEW with --max-rows, --max-bytes or --max-loss",
        ]
    )


def format_compacted(out: Path, done: Compacted) -> str:
    """What a compaction came to."""
    size, reference, search = done.size, done.reference, done.manifest.quality["search"]
    before, after = done.bytes_before / 1e6, size.bytes / 1e6
    kept = f"keeps {_kept(size)} of what retrieval gains in log-likelihood"
    if size.kept_nll is None:
        kept = "retrieval, with all rows too, gains nothing in log-likelihood"
    accuracies = " -> ".join(f"{system.right.mean():.2%}" for system in (reference.student, reference.full))
    lines = [
        f"{out}: {size.rows:,} of {done.rows_before:,} rows, {after:.2f} of {before:.2f} MB",
        f"{kept} on {len(reference.full.nll):,} held-out rows; "
        f"their accuracy: student {accuracies} with all rows, {size.accuracy:.2%} with these",
        f"a search {search['expansion_search']} wide finds {search['recall']:.1%} of the nearest, comparing "
        f"{search['compared']:,.0f} keys",
    ]
    if done.gate_before is not None:
        lines.append(f"gate (predict --gated): {told_gate(done.manifest.gate, done.gate_before.epsilon)}")
    if size.kept_nll is not None and size.kept_nll <= 0:
        lines.append("this knowledge base is worth less than none: give it more rows")
    return "\n".join(lines)


def _kept(size: Size) -> str:
    return "-" if size.kept_nll is None else f"{size.kept_nll:.0%} ± {size.kept_nll_error:.0%}"

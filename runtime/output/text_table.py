"""Plain text tables with aligned columns, in ASCII."""

from __future__ import annotations

from collections.abc import Sequence

GAP = "  "


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a ruled header; the first column is left-aligned, the others are right-aligned.

    Args:
        header: the names of the columns.
        rows: the cells, as many per row as columns.
    """
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(_aligned(line, widths) for line in ruled)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
    return GAP.join(cells).rstrip()

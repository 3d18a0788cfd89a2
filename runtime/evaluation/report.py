"""Text report of an evaluation for the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from ..output.text_table import table
from .metrics import METRICS, Scores
from .results import BLEND, FIDELITY_METRICS, STUDENT, EvalReport, EvalRow, Fidelity, ScoreDifference


def format_evaluation(report: EvalReport) -> str:
    """Format the systems as a table, then what retrieval changed, with its intervals and its test, then fidelity."""
    first, *others = (metric.title for metric in METRICS.values())
    in_percent = ", ".join(metric.title for metric in METRICS.values() if metric.unit == "share")
    lines = [
        f"{report.split}: {report.n} rows of {report.data}{_unseen(report)}",
        f"per cent: {in_percent}; KL is KL(teacher || system) in nats, as is NLL",
        "",
        table(["system", first, "95 % interval", *others], [_eval_cells(row) for row in report.rows]),
    ]
    if report.differences:
        lines += ["", f"{BLEND} minus {STUDENT}, 95 % interval of the paired difference:"]
        lines += [f"  {_difference(name, difference)}" for name, difference in report.differences.items()]
    if report.mcnemar is not None:
        test = report.mcnemar
        lines.append(
            f"  McNemar (exact): {test.second_only} rows correct only with retrieval, {test.first_only} only without, "
            f"p = {test.p_value:.3g}"
        )
    if report.gated is not None:
        lines.append(f"the gate retrieves for {report.gated:.1%} of the rows")
    if report.fidelity is not None:
        lines += ["", *_fidelity(report.fidelity)]
    return "\n".join(lines)


def _unseen(report: EvalReport) -> str:
    if not report.unseen:
        return ""
    return f"; {report.unseen} of them have a label that the bundle does not have, and count as wrong"


def _eval_cells(row: EvalRow) -> list[str]:
    first, *others = METRICS
    low, high = row.intervals[first]
    interval = f"{format_score(first, low)} - {format_score(first, high)}"
    return [row.system, *_cells(row.scores, [first]), interval, *_cells(row.scores, others)]


def _fidelity(fidelity: Fidelity) -> list[str]:
    header = ["fidelity to the teacher", *(METRICS[name].title for name in FIDELITY_METRICS)]
    cells: list[list[str]] = []
    for kind, rows in fidelity.kinds.items():
        cells.append([f"{kind}, {rows[0].n} rows", *[""] * len(FIDELITY_METRICS)])
        cells += [[f"  {row.system}", *_cells(row.scores, FIDELITY_METRICS)] for row in rows]
    return [table(header, cells), *(f"{kind}: {words}" for kind, words in fidelity.meaning().items())]


def _cells(scores: Scores, metrics: Iterable[str]) -> list[str]:
    return ["-" if (value := scores[name]) is None else format_score(name, value) for name in metrics]


def format_score(metric: str, value: float) -> str:
    """Format a metric's value: shares in per cent with two decimals, the others with three."""
    return f"{100 * value:.2f}" if METRICS[metric].unit == "share" else f"{value:.3f}"


def _difference(metric: str, difference: ScoreDifference) -> str:
    unit, digits, scale = ("points", 2, 100) if METRICS[metric].unit == "share" else ("", 3, 1)
    value, low, high = (scale * number for number in (difference.value, *difference.interval))
    return f"{METRICS[metric].title:<16} {value:+.{digits}f} {unit:<6} [{low:+.{digits}f}, {high:+.{digits}f}]"

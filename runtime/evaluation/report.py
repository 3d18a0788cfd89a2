"""The reports of ``eval`` and ``bench`` for the terminal."""

from __future__ import annotations

from ..output.text_table import table
from .results import BLEND, STUDENT, Difference, EvalReport, EvalRow, Fidelity, FidelityRow

# What a person reads as per cent; the others are correlations and nats.
_PERCENT = {"accuracy": "accuracy", "macro_f1": "macro F1", "ece": "ECE", "teacher_agreement": "agreement"}
_NAMES = {**_PERCENT, "mcc": "MCC", "nll": "NLL", "teacher_kl": "KL from teacher"}


def format_evaluation(report: EvalReport) -> str:
    """The evaluation as a table, and what retrieval changed with its interval and its test."""
    header = ["system", "accuracy", "95 % interval", "macro F1", "MCC", "NLL", "ECE", "agreement", "KL(teacher||)"]
    lines = [
        f"{report.split}: {report.n} rows of {report.data}; accuracy, F1, ECE and agreement in per cent",
        "",
        table(header, [_eval_cells(row) for row in report.rows]),
    ]
    if report.differences:
        lines += ["", f"{BLEND} minus {STUDENT}, 95 % interval of the paired difference:"]
        lines += [f"  {_difference(name, difference)}" for name, difference in report.differences.items()]
    if report.mcnemar is not None:
        test = report.mcnemar
        lines.append(
            f"  McNemar (exact): {test.second_only} rows right only with retrieval, {test.first_only} only without, "
            f"p = {test.p_value:.3g}"
        )
    if report.gated is not None:
        lines.append(f"the gate retrieves for {report.gated:.1%} of the rows")
    if report.fidelity is not None:
        lines += ["", *_fidelity(report.fidelity)]
    return "\n".join(lines)


def _eval_cells(row: EvalRow) -> list[str]:
    scores = row.scores
    low, high = row.intervals["accuracy"]
    return [
        row.system,
        _percent(scores.accuracy),
        f"{_percent(low)} - {_percent(high)}",
        _percent(scores.macro_f1),
        f"{scores.mcc:.3f}",
        f"{scores.nll:.3f}",
        _percent(scores.ece),
        "-" if scores.teacher_agreement is None else _percent(scores.teacher_agreement),
        "-" if scores.teacher_kl is None else f"{scores.teacher_kl:.3f}",
    ]


def _fidelity(fidelity: Fidelity) -> list[str]:
    header = ["fidelity to the teacher", "accuracy", "agreement", "KL(teacher||)", "ECE", "NLL"]
    cells: list[list[str]] = []
    for kind, rows in fidelity.kinds.items():
        cells.append([f"{kind}, {rows[0].n} rows", *[""] * (len(header) - 1)])
        cells += [_fidelity_cells(row) for row in rows]
    return [table(header, cells), *(f"{kind}: {words}" for kind, words in fidelity.meaning().items())]


def _fidelity_cells(row: FidelityRow) -> list[str]:
    scores = row.scores
    assert scores.teacher_agreement is not None and scores.teacher_kl is not None  # there is no fidelity without
    return [
        f"  {row.system}",
        _percent(scores.accuracy),
        _percent(scores.teacher_agreement),
        f"{scores.teacher_kl:.3f}",
        _percent(scores.ece),
        f"{scores.nll:.3f}",
    ]


def _difference(metric: str, difference: Difference) -> str:
    unit, digits, scale = ("points", 2, 100) if metric in _PERCENT else ("", 3, 1)
    value, low, high = (scale * number for number in (difference.value, *difference.interval))
    return f"{_NAMES[metric]:<16} {value:+.{digits}f} {unit:<6} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"

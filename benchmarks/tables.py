"""The tables of docs/results.md from what `reaugkd eval --json` wrote: python benchmarks/tables.py FOLDER."""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

SYSTEMS = ("teacher", "student_fp32", "student", "retrieval", "student+retrieval")
COLUMNS = {
    "accuracy": ("accuracy", 100, 2),
    "macro_f1": ("macro F1", 100, 2),
    "mcc": ("MCC", 100, 2),
    "nll": ("NLL", 1, 4),
    "ece": ("ECE", 100, 2),
    "teacher_agreement": ("agreement", 100, 2),
    "teacher_kl": ("KL from teacher", 1, 4),
}


def main(folder: Path) -> None:
    """Print a summary and one table a task, means over the seeds with their standard deviation."""
    by_task: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(folder.glob("*-seed*.json")):
        by_task[path.stem.rsplit("-seed", 1)[0]].append(json.loads(path.read_text(encoding="utf-8")))
    print(summary(by_task))  # noqa: T201
    for task, reports in by_task.items():
        print(f"\n### {task}: {reports[0]['split']}, {reports[0]['n']} rows, {len(reports)} seed(s)\n")  # noqa: T201
        print(table(reports))  # noqa: T201
        print("\n" + change(reports))  # noqa: T201


def summary(by_task: dict[str, list[dict[str, Any]]]) -> str:
    """The headline of each task as Markdown: accuracy, or MCC for CoLA, most of whose rows are of one class."""
    lines = ["| task | seeds | teacher | student, int8 | with retrieval | retrieval's part |", "|---" * 6 + "|"]
    for task, reports in by_task.items():
        key = "mcc" if task == "CoLA" else "accuracy"
        name, scale, digits = COLUMNS[key]
        cells = [
            spread([row[key] for report in reports for row in report["rows"] if row["system"] == system], scale, digits)
            for system in ("teacher", "student", "student+retrieval")
        ]
        cells.append(spread([report["difference"][key]["value"] for report in reports], scale, digits, signed=True))
        lines.append(f"| {task} ({name}, {reports[0]['n']} rows) | {len(reports)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table(reports: list[dict[str, Any]]) -> str:
    """The systems' scores as Markdown."""
    lines = ["| system | " + " | ".join(name for name, _, _ in COLUMNS.values()) + " |", "|---" * 8 + "|"]
    for system in SYSTEMS:
        rows = [row for report in reports for row in report["rows"] if row["system"] == system]
        cells = [spread([row[key] for row in rows], scale, digits) for key, (_, scale, digits) in COLUMNS.items()]
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def change(reports: list[dict[str, Any]]) -> str:
    """What retrieval changed over the same student, and McNemar's p of each seed."""
    parts = []
    for key in ("accuracy", "mcc", "nll"):
        name, scale, digits = COLUMNS[key]
        values = [report["difference"][key]["value"] for report in reports]
        parts.append(f"{name} {spread(values, scale, digits, signed=True)}")
    tests = ", ".join(f"{report['mcnemar']['p_value']:.2f}" for report in reports)
    return f"student+retrieval minus student: {'; '.join(parts)}. McNemar p: {tests}."


def spread(values: list[float], scale: float, digits: int, signed: bool = False) -> str:
    """A mean, and with several values their standard deviation."""
    scaled = [value * scale for value in values]
    mean = f"{statistics.mean(scaled):{'+' if signed else ''}.{digits}f}"
    return mean if len(scaled) < 2 else f"{mean} ± {statistics.stdev(scaled):.{digits}f}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))

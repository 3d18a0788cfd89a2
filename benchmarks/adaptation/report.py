"""Write the table and the picture of one task from the replays and the timings.

    python report.py DATA TASK SEED OUT DOCS    (writes DOCS/TASK.json, .md and .svg)

Systems that were not replayed, or whose costs were not measured, are left out.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prepare import SYSTEMS, load
from stream import Stream, rows_until_learned
from systems import REAUGKD, STUDENT

from reaugkd.benchmarks.figures import pyplot, save
from reaugkd.runtime.benchmark.environment import host_facts

WINDOW = 200  # texts
MEASURED = ("answer", "correction", "background")
LAST = 500  # texts at the end, by which the systems are compared


def main(data: Path, task: str, seed: int, out: Path, docs: Path) -> None:
    """Write the three files."""
    rows, stream = load(data, task, seed)
    costs = json.loads((out / "costs.json").read_text()) if (out / "costs.json").exists() else {}
    systems = {}
    for name in SYSTEMS:
        path = out / "replay" / f"{name}.json"
        if path.exists():
            replay = json.loads(path.read_text())
            systems[name] = figures(replay, stream)
    new = [event for event in stream.events if event.new]
    report = {
        "task": task,
        "seed": seed,
        "rows": len(rows),
        "texts": len(stream.events),
        "texts_of_new_classes": len(new),
        "kept_test_rows": {"old": len(stream.old), "new": len(stream.new)},
        "settings": json.loads((out / "settings.json").read_text()),
        "systems": systems,
        "costs": costs,
        "host": host_facts(),
    }
    docs.mkdir(parents=True, exist_ok=True)
    (docs / f"{task}.json").write_text(json.dumps(report, indent=1) + "\n")
    (docs / f"{task}.md").write_text(table(systems, costs))
    _draw(report, docs / f"{task}.svg")
    sys.stdout.write(table(systems, costs))


def figures(replay: dict[str, Any], stream: Stream) -> dict[str, Any]:
    """Compute the figures of one replay."""
    right, events = replay["right"], stream.events
    found: dict[str, Any] = {"group": replay["group"], "told": len(right) - sum(right)}
    for name, new in (("old", False), ("new", True)):
        chosen = [(event.new == new, hit) for event, hit in zip(events, right, strict=True)]
        found[f"windows_{name}"] = [
            _mean([hit for it_is, hit in chosen[at : at + WINDOW] if it_is]) for at in range(0, len(chosen), WINDOW)
        ]
        found[f"last_{name}"] = _mean([hit for it_is, hit in chosen[-LAST:] if it_is])
        found[f"after_{name}"] = replay[name]
    rows = rows_until_learned(events, right)
    found["all"] = _mean(right)
    found["rows_until_learned"] = None if statistics.median(rows) == float("inf") else statistics.median(rows)
    found["classes_learned"] = _mean([row < float("inf") for row in rows])
    found["corrected"] = {"rows": len(replay["corrected"]), "right": _mean(replay["corrected"])}
    return found


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def table(systems: dict[str, Any], costs: dict[str, Any]) -> str:
    """Two tables: accuracy, and cost."""
    lines = [
        f"| system | all texts | last {LAST}: old | new | after the stream: old | new | rows told until a new class is"
        " learned (median) | new classes learned | wrong labels corrected: rows | right then |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in systems.items():
        keys = ("all", "last_old", "last_new", "after_old", "after_new")
        cells = [_percent(found[key]) for key in keys]
        cells.append("never" if found["rows_until_learned"] is None else f"{found['rows_until_learned']:g}")
        cells += [
            _percent(found["classes_learned"]),
            str(found["corrected"]["rows"]),
            _percent(found["corrected"]["right"]),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| system | answer, ms (CPU) | correction, ms (CPU) | in the background, ms (CPU) | MB on disk | MB in memory |"
        " start, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in costs.items():
        times = [f"{found[f'{what}_ms']:.1f} ({found[f'{what}_cpu_ms']:.1f})" for what in MEASURED]
        sizes = [f"{found['disk_mb']:.1f}", f"{found['rss_mb']:.0f}", f"{found['start_ms']:.0f}"]
        lines.append(f"| {name} | {' | '.join([*times, *sizes])} |")
    return "\n".join(lines) + "\n"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _draw(report: dict[str, Any], path: Path) -> None:
    """Accuracy over the texts of the stream, on old and on new classes."""
    figure, plots = pyplot().subplots(1, 2, figsize=(11, 4))
    for axes, which in zip(plots, ("old", "new"), strict=True):
        for number, (name, found) in enumerate(report["systems"].items()):
            if name == STUDENT and which == "new":
                continue  # always wrong
            values = [None if value is None else 100 * value for value in found[f"windows_{which}"]]
            ends = [WINDOW * (1 + at) for at in range(len(values))]
            axes.plot(ends, values, f"C{number}", linewidth=2.5 if name == REAUGKD else 1.2, label=name)
        axes.set_title(f"{report['task']}: {which} classes")
        axes.set_xlabel(f"texts so far; accuracy of the last {WINDOW}")
    plots[0].set_ylabel("accuracy, per cent")
    plots[0].legend(fontsize=8)
    figure.tight_layout()
    save(figure, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))

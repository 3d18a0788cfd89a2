"""Accuracy over latency: students of several sizes, each alone and with retrieval.

    reaugkd study benchmarks/study/frontier.toml --data DATA --teacher TEACHER --out STUDY
    python benchmarks/study/frontier.py STUDY DATA OUT

Exports every run of the study, scores it on the test rows, and measures the latencies of one task's bundles, all
systems in turns in one process, one thread. For every student with retrieval it computes the gain at equal latency: its
accuracy minus that of students without retrieval, interpolated between the two nearest sizes. Bundles and scores stay
in OUT, so the same command resumes; it writes OUT/frontier.json, .md and .svg.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reaugkd import Runtime
from reaugkd.benchmarks.figures import pyplot, save
from reaugkd.export.bundle.write import ExportJob, export
from reaugkd.runtime.benchmark.latency import interleave, visits
from reaugkd.runtime.data import choose_split, load_dataset
from reaugkd.runtime.inference.retrieval_policy import RetrievalMode

Floats = NDArray[np.float64]

ALONE, BOTH = "student", "student+retrieval"
RETRIEVAL: dict[str, RetrievalMode] = {ALONE: "never", BOTH: "always"}
VISITS, WARM_UP, TEXTS = 1000, 50, 300
DRAWS = 2000  # of test rows, for the intervals
PERCENT = (2.5, 97.5)


def main(study: Path, data: Path, out: Path) -> None:
    """Export, score, measure and write the files."""
    out.mkdir(parents=True, exist_ok=True)
    tasks: dict[str, dict[str, list[Path]]] = {}
    for run in sorted((study / "runs").glob("*/*")):
        size = run.name.rpartition("-")[0]
        tasks.setdefault(run.parent.name, {}).setdefault(size, []).append(_exported(run, out))
    first = next(iter(tasks))
    latency = _latencies({size: bundles[0] for size, bundles in tasks[first].items()}, data / first)
    report = {
        "latency_us": latency,
        "tasks": {task: _scores(sizes, data / task, latency) for task, sizes in tasks.items()},
    }
    (out / "frontier.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "frontier.md").write_text(_table(report))
    _draw(report, out / "frontier.svg")
    sys.stdout.write(_table(report))


def _exported(run: Path, out: Path) -> Path:
    bundle = out / run.parent.name / run.name
    if not bundle.exists():
        sys.stderr.write(f"exporting {bundle}\n")
        export(run, bundle, ExportJob("avx512_vnni"))
    return bundle


def _latencies(bundles: dict[str, Path], data: Path) -> dict[str, dict[str, float]]:
    """The p50 of each size alone and with retrieval, in microseconds, smallest first; all in turns."""
    split = choose_split(load_dataset(data), None)[1]
    texts = [split.texts[i] for i in np.random.default_rng(0).choice(len(split), TEXTS, replace=False)]
    systems = [(size, system) for size in bundles for system in RETRIEVAL]
    opened = [Runtime.open(bundles[size], retrieval=RETRIEVAL[system]) for size, system in systems]
    asks = [(lambda i, one=one: one.predict(texts[i])) for one in opened]
    interleave(asks, visits(TEXTS, WARM_UP, 1))
    taken = np.median(interleave(asks, visits(TEXTS, VISITS, 0)), axis=0)
    found: dict[str, dict[str, float]] = {size: {} for size in bundles}
    for (size, system), microseconds in zip(systems, taken.tolist(), strict=True):
        found[size][system] = microseconds
    return dict(sorted(found.items(), key=lambda item: item[1][ALONE]))


def _scores(sizes: dict[str, list[Path]], data: Path, latency: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Each size's accuracy in per cent, its spread over seeds, and its gain at equal latency with an interval."""
    right = {(size, system): _right(sizes[size], data, system) for size in latency for system in RETRIEVAL}
    scores = {}
    for size, times in latency.items():
        of = {system: 100 * right[size, system].mean(axis=1) for system in RETRIEVAL}
        alone = _at_equal_latency(right, latency, times[BOTH])
        gains = None if alone is None else _interval((right[size, BOTH] - alone).mean(axis=0))
        scores[size] = {
            "seeds": len(of[ALONE]),
            **{system: {"mean": float(found.mean()), "sd": float(found.std(ddof=1))} for system, found in of.items()},
            "gain": _interval((right[size, BOTH] - right[size, ALONE]).mean(axis=0)),
            "gain_at_equal_latency": gains,
        }
    return scores


def _right(bundles: list[Path], data: Path, system: str) -> Floats:
    """Whether each test row is answered right, [seeds, rows]."""
    split = choose_split(load_dataset(data), None)[1]
    found = []
    for bundle in bundles:
        kept = bundle.with_name(f"{bundle.name}.{system}.npy")
        if not kept.exists():
            runtime = Runtime.open(bundle, retrieval=RETRIEVAL[system])
            answers = zip(runtime.predict_many(split.texts), split.labels, strict=True)
            np.save(kept, [answer.label == label for answer, label in answers])
        found.append(np.load(kept).astype(float))
    return np.array(found)


def _at_equal_latency(
    right: dict[tuple[str, str], Floats], latency: dict[str, dict[str, float]], time: float
) -> Floats | None:
    """What students alone would answer at a latency, between the two nearest sizes; None beyond the largest."""
    sizes = list(latency)
    for smaller, larger in pairwise(sizes):
        low, high = latency[smaller][ALONE], latency[larger][ALONE]
        if low <= time <= high:
            share = (time - low) / (high - low)
            mixed: Floats = (1 - share) * right[smaller, ALONE] + share * right[larger, ALONE]
            return mixed
    return None


def _interval(gains: Floats) -> dict[str, float]:
    """The mean in per cent, with a 95 % bootstrap interval over rows."""
    rng = np.random.default_rng(0)
    draws = [100 * gains[rng.integers(0, len(gains), len(gains))].mean() for _ in range(DRAWS)]
    low, high = np.percentile(draws, PERCENT)
    return {"mean": float(100 * gains.mean()), "low": float(low), "high": float(high)}


def _table(report: dict[str, Any]) -> str:
    """One row for each task and size."""
    names = [
        "task",
        "student",
        "p50 alone, µs",
        "with retrieval",
        "accuracy alone",
        "with retrieval",
        "gain at equal latency",
    ]
    lines = [names, ["---"] * len(names)]
    for task, scores in report["tasks"].items():
        for size, found in scores.items():
            times, gain = report["latency_us"][size], found["gain_at_equal_latency"]
            cells = [f"{times[ALONE]:.0f}", f"+{100 * (times[BOTH] / times[ALONE] - 1):.1f} %"]
            cells += [f"{found[system]['mean']:.2f} ± {found[system]['sd']:.2f}" for system in RETRIEVAL]
            cells.append("no larger one" if gain is None else "{mean:+.2f} [{low:+.2f}, {high:+.2f}]".format(**gain))
            lines.append([task, size, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _draw(report: dict[str, Any], path: Path) -> None:
    """A plot for each task: accuracy over p50 latency, one line for each system."""
    figure, plots = pyplot().subplots(1, len(report["tasks"]), figsize=(10, 4), squeeze=False)
    for axes, (task, scores) in zip(plots[0], report["tasks"].items(), strict=True):
        for system in RETRIEVAL:
            times = [report["latency_us"][size][system] for size in scores]
            axes.errorbar(
                times,
                [found[system]["mean"] for found in scores.values()],
                [found[system]["sd"] for found in scores.values()],
                marker="o",
                capsize=3,
                label=system,
            )
        axes.set_title(task)
        axes.set_xlabel("p50 latency of one text, µs")
        axes.set_ylabel("accuracy, per cent")
        axes.legend()
    figure.tight_layout()
    save(figure, path)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))

"""Measure accuracy, latency, size and cold start of every system.

    python measure.py DATA BUILT OUT

The systems are interleaved on the same texts in one process, in a random order for each text; ratios are measured with
two systems at a time. Cold start and memory come from new processes. Writes OUT.json, OUT.md and OUT.svg.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from graphs import compare_graphs
from systems import (
    BLEND,
    EAGER,
    FAISS,
    FLOAT32,
    GATED,
    PIPELINE,
    STUDENT,
    SYSTEMS,
    TEACHER,
    TEACHER_INT8,
    Ask,
    open_system,
    places,
)

from reaugkd.benchmarks.figures import pyplot, save
from reaugkd.runtime.benchmark.environment import host_facts
from reaugkd.runtime.benchmark.latency import Quantiles, interleave, visits
from reaugkd.runtime.data import choose_split, load_dataset
from reaugkd.runtime.evaluation.typos import add_typos

VISITS, WARM_UP, TEXTS, STARTS = 600, 100, 300, 5


def main(data: Path, built: Path, out: Path) -> None:
    """Measure, and write the three files."""
    split = choose_split(load_dataset(data), None)[1]
    gated = json.loads((built / "bundle" / "manifest.json").read_text())["gate"] is not None
    asks = {name: open_system(name, built) for name in SYSTEMS if name != GATED or gated}
    count = min(TEXTS, len(split))
    texts = [split.texts[i] for i in np.random.default_rng(0).choice(len(split), count, replace=False)]
    mistyped = add_typos(split.texts)
    tasks = [_task(ask, texts) for ask in asks.values()]
    interleave(tasks, visits(count, count, 1))  # warms every system up
    taken = interleave(tasks, visits(count, VISITS, 0))
    cpu = _cpu_us(asks, texts)
    latencies = {name: Quantiles.of(taken[:, i]) for i, name in enumerate(asks)}
    systems = {}
    for name, ask in asks.items():
        sys.stderr.write(f"{name}\n")
        starts = [_start(name, built) for _ in range(STARTS)]
        systems[name] = {
            "accuracy": _accuracy(ask, split.texts, split.labels),
            "accuracy_typos": _accuracy(ask, mistyped, split.labels),
            "p50_us": latencies[name].p50_us,
            "p95_us": latencies[name].p95_us,
            "cpu_us": cpu[name],
            "bytes": sum(_bytes(place) for place in places(name, built)),
            "start_ms": statistics.median(start["ms"] for start in starts),
            "rss_mb": statistics.median(start["rss_mb"] for start in starts),
        }
    ratios = {
        f"{slow} over {fast}": _ratio(asks[slow], asks[fast], texts)
        for slow, fast in (
            *((PIPELINE, STUDENT), (PIPELINE, BLEND), (FLOAT32, STUDENT), (EAGER, STUDENT), (FAISS, BLEND)),
            *((TEACHER, STUDENT), (TEACHER_INT8, STUDENT), (TEACHER_INT8, BLEND)),
        )
    }
    report = {
        "data": data.name,
        "rows": len(split),
        "systems": systems,
        "ratios": ratios,
        "search": compare_graphs(built, texts, VISITS),
        "host": host_facts(),
    }
    out.with_suffix(".json").write_text(json.dumps(report, indent=1))
    out.with_suffix(".md").write_text(_table(report))
    _draw(systems, out.with_suffix(".svg"))
    sys.stdout.write(_table(report))


def _task(ask: Ask, texts: list[str]) -> Any:
    return lambda i: ask(texts[i])


def _ratio(slow: Ask, fast: Ask, texts: list[str]) -> float:
    """Measure the ratio of the p50s of two systems: ten interleaved models would evict each other from the caches."""
    tasks = [_task(ask, texts) for ask in (slow, fast)]
    interleave(tasks, visits(len(texts), WARM_UP, 1))
    taken = interleave(tasks, visits(len(texts), VISITS, 0))
    return float(np.median(taken[:, 0]) / np.median(taken[:, 1]))


def _cpu_us(asks: dict[str, Ask], texts: list[str]) -> dict[str, float]:
    """The median CPU time of the answering thread, in turns: other work on the machine changes it least."""
    taken: dict[str, list[int]] = {name: [] for name in asks}
    rng = np.random.default_rng(0)
    for text in texts:
        for name in rng.permutation(list(asks)):
            begun = time.thread_time_ns()
            asks[name](text)
            taken[name].append(time.thread_time_ns() - begun)
    return {name: statistics.median(times) / 1e3 for name, times in taken.items()}


def _accuracy(ask: Ask, texts: Sequence[str], labels: Sequence[str]) -> float:
    return float(np.mean([ask(text) == label for text, label in zip(texts, labels, strict=True)]))


def _bytes(place: Path) -> int:
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _start(name: str, built: Path) -> dict[str, float]:
    """Measure a new process: milliseconds to the first answer, imports included, and its memory then."""
    script = str(Path(__file__).with_name("start.py"))
    done = subprocess.run([sys.executable, script, name, str(built)], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _table(report: dict[str, Any]) -> str:
    lines = [
        "| system | accuracy | with typing errors | p50 us | p95 us | CPU us | MB on disk | start ms | memory MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in report["systems"].items():
        cells = [f"{100 * found[key]:.2f}" for key in ("accuracy", "accuracy_typos")]
        cells += [f"{found[key]:.0f}" for key in ("p50_us", "p95_us", "cpu_us")]
        cells += [f"{found['bytes'] / 1e6:.1f}", f"{found['start_ms']:.0f}", f"{found['rss_mb']:.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "Ratios of the p50, measured with these two systems alone:", ""]
    lines += [f"- {name}: {ratio:.2f}x" for name, ratio in report["ratios"].items()]
    search = report["search"]
    lines += ["", "{rows} keys of {ndim} dimensions, k {k}, {edges} edges, width {width}:".format(**search["setting"])]
    lines += ["", "| search, after a student's run | recall | p50 us | p95 us | MB |", "|---|---|---|---|---|"]
    for name, found in search["graphs"].items():
        cells = [f"{found['recall']:.4f}", f"{found['p50_us']:.0f}", f"{found['p95_us']:.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} | {found['bytes'] / 1e6:.1f} |")
    return "\n".join(lines) + "\n"


def _draw(systems: dict[str, dict[str, float]], path: Path) -> None:
    """Plot accuracy over p50 latency; the area of a point is the size on disk."""
    figure, axes = pyplot().subplots(figsize=(8, 5))
    for name, found in systems.items():
        colour = "tab:blue" if name.startswith("reaugkd") else "tab:gray"
        axes.scatter(found["p50_us"], 100 * found["accuracy"], s=found["bytes"] / 5e4, alpha=0.5, color=colour)
        axes.annotate(name, (found["p50_us"], 100 * found["accuracy"]), fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("p50 latency of one text, one thread, microseconds")
    axes.set_ylabel("accuracy, per cent")
    save(figure, path)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))

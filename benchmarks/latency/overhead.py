"""Overhead of retrieval and of the runtime, in several runs with their range, as a table.

python benchmarks/latency/overhead.py DATA BUNDLE...
CPU=1 python benchmarks/latency/overhead.py DATA BUNDLE...    busy machine: CPU time of the thread instead of wall time

Each run measures the bundles one after the other, as `reaugkd bench` does: the systems of a bundle interleaved in one
process, one thread. Nothing else should run meanwhile.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns, thread_time_ns

from reaugkd.runtime.benchmark.bench import BenchReport, BenchSettings, bench
from reaugkd.runtime.benchmark.latency import Overhead
from reaugkd.runtime.data import choose_split, load_dataset

RUNS = 5
SETTINGS = BenchSettings(seconds=8.0, inputs=500, passes=1, processes=0)
COLUMNS = {
    "retrieval over student": "overhead",
    "usearch over student": "usearch_overhead",
    "student over `session.run`": "runtime_overhead",
    "retrieval over `session.run`": "retrieval_runtime_overhead",
}


def main(data: str, bundles: list[Path]) -> None:
    """Print the table."""
    texts = choose_split(load_dataset(data), None)[1].texts
    clock = thread_time_ns if os.environ.get("CPU") else perf_counter_ns
    reports: dict[Path, list[BenchReport]] = {bundle: [] for bundle in bundles}
    for run in range(RUNS):
        for bundle, found in reports.items():
            found.append(bench(bundle, texts, settings=replace(SETTINGS, seed=run), clock=clock))
            sys.stderr.write(f"run {run + 1} of {RUNS}: {bundle.name}\n")
    names = ["bundle", "rows", "`session.run` µs", *COLUMNS]
    lines = [names, ["---"] * len(names)]
    for bundle, found in reports.items():
        bare = _range([report.latencies["session_run"].total.p50_us for report in found], ".0f")
        cells = [_overheads([getattr(report, name) for report in found]) for name in COLUMNS.values()]
        lines.append([bundle.name, f"{found[0].setting['knowledge_base_rows']:,}", bare, *cells])
    sys.stdout.write("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")


def _overheads(found: list[Overhead | None]) -> str:
    known = [one for one in found if one is not None]
    if not known:
        return "-"
    parts = [_range([getattr(one, f"{name}_percent") for one in known], ".1f") for name in ("p50", "p95")]
    return f"p50 {parts[0]} %, p95 {parts[1]} %"


def _range(values: list[float], form: str) -> str:
    """The median, and the range in brackets."""
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:{form}} [{ordered[0]:{form}}, {ordered[-1]:{form}}]"


if __name__ == "__main__":
    main(sys.argv[1], [Path(name) for name in sys.argv[2:]])

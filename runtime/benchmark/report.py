"""Text report of a benchmark for the terminal."""

from __future__ import annotations

from ..output.text_table import table
from .bench import BenchReport, Latencies
from .interleaved import OWN_TEXTS
from .latency import Overhead


def format_bench(report: BenchReport) -> str:
    """Format the benchmark: latencies, stages, overhead of retrieval, throughput, cold start, memory and bytes."""
    setting = report.setting
    graph = report.graph_stages
    lines = [
        f"{setting['samples']} measurements with {setting['texts']} texts ({setting['source']}), "
        f"{report.tokens['p50']:.0f} tokens (p50), {setting['threads']} thread(s), "
        f"{setting['knowledge_base_rows']} rows, k {setting['k']}, search {setting['search'] or 'none'}; "
        f"{report.host['cpu']}",
        "",
        table(["microseconds", "p50", "p95", "p99"], _latency_rows(report)),
        "",
        "session_run is ONNX Runtime alone, on token ids.",
        f"overhead of the runtime over session_run:      {_overhead(report.runtime_overhead)}",
    ]
    for name, overhead in (
        ("runtime and retrieval over session_run:", report.retrieval_runtime_overhead),
        ("retrieval over the student:            ", report.overhead),
        ("retrieval by usearch over the student: ", report.usearch_overhead),
    ):
        lines += [] if overhead is None else [f"overhead of {name} {_overhead(overhead)}"]
    if graph:
        parts = ", ".join(f"{stage} {us:.0f}" for stage, us in graph.items())
        lines.append(f"a run with retrieval, by profiler, in us:      {parts}")
    if report.gated_overhead is not None:
        share = f"{setting['gate_retrieved']:.1%} of the answers retrieve"
        if setting["source"] == OWN_TEXTS:
            share += (
                f" (of the knowledge base's own rows; at export {setting['gate_expected']:.1%} of the held-out rows)"
            )
        lines.append(f"overhead of gated over the student:            {_overhead(report.gated_overhead)}; {share}")
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in report.throughput.items())
    lines.append(f"texts per second:                              {rates}")
    if report.processes:
        lines += ["", table(["a new process", "import ms", "open ms", "first ms", "RSS MB"], _process_rows(report))]
    sizes = report.bytes
    lines += [
        "",
        f"bytes: student {sizes['student']:,}, knowledge base {sizes['knowledge_base']:,}, total {sizes['total']:,}",
    ]
    return "\n".join(lines)


def _latency_rows(report: BenchReport) -> list[list[str]]:
    rows = []
    for name, latencies in report.latencies.items():
        rows.append([name, *_quantiles(latencies)])
        for stage, quantiles in latencies.stages.items():
            rows.append([f"  {stage}", *_quantiles(Latencies(quantiles, {}))])
    return rows


def _quantiles(latencies: Latencies) -> list[str]:
    total = latencies.total
    return [f"{value:.1f}" for value in (total.p50_us, total.p95_us, total.p99_us)]


def _overhead(overhead: Overhead) -> str:
    low, high = overhead.ci95_percent
    return (
        f"p50 {overhead.p50_us:+.1f} us, {overhead.p50_percent:+.2f} % (95 % interval {low:+.2f} to {high:+.2f}); "
        f"p95 {overhead.p95_us:+.1f} us, {overhead.p95_percent:+.2f} %; mean {overhead.mean_percent:+.2f} %"
    )


def _process_rows(report: BenchReport) -> list[list[str]]:
    rows = []
    for name, process in report.processes.items():
        times = (process.import_ms, process.open_ms, process.first_answer_ms)
        memory = "-" if process.rss_mb is None else f"{process.rss_mb:.1f}"
        rows.append([name, *(f"{ms:.1f}" for ms in times), memory])
    return rows

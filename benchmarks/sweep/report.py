"""Text report of the sweep for the terminal."""

from __future__ import annotations

from reaugkd.benchmarks.sweep.sweep import Alone, SweepCell, SweepReport, few_texts
from reaugkd.benchmarks.sweep.thread_scaling import Throughput
from reaugkd.runtime.benchmark.latency import Quantiles
from reaugkd.runtime.output.progress import duration
from reaugkd.runtime.output.text_table import table


def format_sweep(report: SweepReport) -> str:
    """Format the table: for each number of tokens the student alone, then one line for each number of rows."""
    setting = report.setting
    index = setting["index"]
    threads = sorted({1, setting["threads"]})
    header = ["tokens", "rows", "p50 us", "p95 us", "overhead", "95 % interval", "search p50", "p95", "growth"]
    header += [f"texts/s, {count} thr." for count in threads] + ["speed-up"][: len(threads) - 1]
    lines = []
    for alone in report.alone:
        lines.append([str(alone.tokens), "alone", *_total(alone), *["-"] * 5, *_streams(alone.throughput)])
        for cell in report.cells:
            if cell.tokens == alone.tokens:
                lines.append(["", f"{cell.rows:,}", *_total(cell), *_retrieval(cell), *_streams(cell.throughput)])
    built = (
        f"{rows:,} rows in {duration(facts['seconds'])}, {facts['bytes'] / 1e6:.1f} MB, recall {facts['recall']:.3f}"
        for rows, facts in report.built.items()
    )
    return "\n".join(
        [
            f"{setting['samples']} interleaved visits, {setting['texts']} texts of each length "
            f"({setting['source']}); {report.host['cpu']}",
            f"k {setting['k']}, {index['ndim']} dimensions in {index['dtype']}, {index['connectivity']} edges, "
            f"ef_search {index['expansion_search']}",
            f"rows: the bundle's own {setting['own_rows']:,}, then copies of these, rotated by the angle between "
            f"nearest keys (median cosine {setting['nearest']:.3f})",
            f"built: {'; '.join(built)}",
            "",
            table(header, lines),
            "",
            "overhead: relative to the student alone; growth: search p50 relative to the smallest knowledge base",
            "texts/s: throughput by number of threads, interleaved; one line was measured after the other",
            *_warnings(report),
        ]
    )


def _total(one: Alone | SweepCell) -> list[str]:
    return _quantiles(one.total)


def _retrieval(cell: SweepCell) -> list[str]:
    low, high = cell.overhead.ci95_percent
    overhead = [f"{cell.overhead.p50_percent:+.1f} %", f"{low:+.1f} to {high:+.1f}"]
    return [*overhead, *_quantiles(cell.search), f"{cell.growth.ratio:.2f}"]


def _quantiles(quantiles: Quantiles) -> list[str]:
    return [f"{quantiles.p50_us:.0f}", f"{quantiles.p95_us:.0f}"]


def _streams(throughput: Throughput) -> list[str]:
    rates = [f"{rate:,.0f}" for rate in throughput.per_s.values()]
    return rates if throughput.speedup is None else [*rates, f"{throughput.speedup:.2f}"]


def _warnings(report: SweepReport) -> list[str]:
    """Warnings of conditions that make the figures unreliable."""
    streams = [(one.tokens, "alone", one.throughput) for one in report.alone]
    streams += [(cell.tokens, f"{cell.rows:,} rows", cell.throughput) for cell in report.cells]
    few = [
        f"WARNING: only {report.setting['different_texts']} different texts of a length were available, so keys "
        "stay in the CPU's caches and searches look too fast. Give more texts with --data"
    ]
    return [*few * few_texts(report)] + [
        f"WARNING: {tokens} tokens, {rows}: several threads gave different answers from one thread"
        for tokens, rows, throughput in streams
        if not throughput.identical
    ]

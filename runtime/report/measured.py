"""The sections of the page about confidence, abstention, latency, size and provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..benchmark.bench import BenchReport
from ..evaluation.results import BLEND, STUDENT
from .contents import Report
from .markup import Column, Content, Markup, joined, table, tag
from .plots import Axis, axis_to, plot, stacked_bars
from .sections import percent

_RECIPE_CHARS = 20_000


def calibration(report: Report) -> Markup:
    """The reliability diagram, and its figures."""
    errors = {row.system: row.scores["ece"] for row in report.evaluation.rows}
    said = ", ".join(f"{name} {percent(errors[name], 2)}" for name in report.reliability)
    text = (
        f"Expected calibration error: {said}. Of answers with a probability of 80 %, 80 % should be right: the lines "
        "should follow the dashed one. Below it, answers are less often right than their probability says."
    )
    least = min((one.above for bins in report.reliability.values() for one in bins), default=0.0)
    lines = {name: [(one.confidence, one.accuracy) for one in bins] for name, bins in report.reliability.items()}
    drawn = plot(
        "Reliability diagram: share of right answers over their mean probability",
        Axis("mean probability of the answer", 0.0 if least < 0.5 else 0.5, 1.0),
        Axis("share of right answers", 0.0, 1.0),
        lines,
        diagonal=True,
        dots=True,
    )
    columns = [Column("system", None), Column("probability above"), Column("up to"), Column("rows")]
    columns += [Column("mean probability"), Column("right")]
    rows: list[list[Content]] = [
        [
            name,
            percent(one.above, 0),
            percent(one.up_to, 0),
            f"{one.rows:,}",
            percent(one.confidence),
            percent(one.accuracy),
        ]
        for name, bins in report.reliability.items()
        for one in bins
    ]
    return joined([tag("p", text), tag("figure", drawn), details("The figures of the diagram", table(columns, rows))])


def abstention(report: Report) -> Markup:
    """The error rate over coverage, and what the goals give on these rows."""
    points = {name: list(zip(curve.coverage, curve.error_rate, strict=True)) for name, curve in report.curves.items()}
    # The first few answers have error rates of a half or a third by chance; they would flatten the rest.
    seen = {name: [one for one in line if one[0] >= 0.05] or line for name, line in points.items()}
    highest = [risk for line in seen.values() for _, risk in line]
    marks = [(one.coverage, one.error_rate) for one in report.goals if one.error_rate is not None]
    drawn = plot(
        "Error rate of the answered rows over the share that is answered",
        Axis("share of rows answered", 0.0, 1.0),
        axis_to("error rate of the answers", highest),
        seen,
        marks,
    )
    text = (
        "With abstention, the least certain rows are left unanswered. The lines show the error rate of the rest, for "
        "two measures of uncertainty: the bundle's rejection score, and a low probability of the answer. "
        "Shares below 5 % are not drawn."
    )
    if not report.goals:
        return joined([tag("p", text, " The bundle has no thresholds for abstention."), tag("figure", drawn)])
    rows: list[list[Content]] = [
        [tag("code", one.goal), percent(one.coverage), percent(one.error_rate, 2)] for one in report.goals
    ]
    columns = [Column("goal", None), Column("answered here"), Column("error rate here")]
    goals = (
        "coverage=95% asks for 95 % of the texts to be answered, error=2% for at most 2 % wrong answers. The bundle's "
        "thresholds for such goals were fitted on other rows. The rings and the table show what they give here."
    )
    return joined([tag("p", text), tag("figure", drawn), tag("p", goals), table(columns, rows)])


def time_and_size(bench: BenchReport | None, sizes: Mapping[str, Any]) -> Markup:
    """Time by stage, new processes, throughput and size.

    Args:
        bench: None if nothing was measured.
        sizes: same as `bundle_bytes`.
    """
    parts: list[Content] = []
    if bench is None:
        parts.append(tag("p", "The time of an answer was not measured."))
    else:
        parts.append(_measured(bench))
    rows: list[list[Content]] = [
        [name.replace("_", " "), f"{sizes[name]:,}"] for name in ("student", "knowledge_base", "total")
    ]
    files: list[list[Content]] = [[name, f"{size:,}"] for name, size in sizes["files"].items()]
    parts += [tag("h3", "Size"), table([Column("part", None), Column("bytes")], rows)]
    parts.append(details("The files", table([Column("file", None), Column("bytes")], files, sortable=True)))
    return joined(parts)


def _measured(bench: BenchReport) -> Markup:
    setting = bench.setting
    parts: list[Content] = [
        tag(
            "p",
            f"{setting['samples']:,} measurements with {setting['texts']:,} texts of {bench.tokens['p50']:.0f} tokens "
            f"(p50), {setting['threads']} thread(s), {setting['knowledge_base_rows']:,} rows, k {setting['k']}, search "
            f"{setting['search'] or 'none'}, {bench.host['cpu']}. The systems take turns on every text.",
            class_="soft",
        )
    ]
    bars = {
        name: {stage: one.p50_us for stage, one in bench.latencies[name].stages.items()}
        for name in (STUDENT, BLEND)
        if name in bench.latencies and bench.latencies[name].stages
    }
    if bars:
        drawn = stacked_bars("Time of an answer by stage, p50", "µs", bars)
        parts.append(tag("figure", drawn, tag("figcaption", "p50 of each stage")))
    if bench.overhead is not None:
        low, high = bench.overhead.ci95_percent
        parts.append(
            tag(
                "p",
                f"Retrieval changes the p50 of the student by {bench.overhead.p50_us:+.0f} µs, "
                f"{bench.overhead.p50_percent:+.1f} % (95 % interval {low:+.1f} to {high:+.1f}).",
            )
        )
    if bench.graph_stages:
        stages = ", ".join(f"{name} {us:.0f}" for name, us in bench.graph_stages.items())
        parts.append(tag("p", f"The stage run, by profiler, mean in µs: {stages}."))
    rows: list[list[Content]] = []
    for name, one in bench.latencies.items():
        for label, quantiles in ((name, one.total), *((f"– {stage}", part) for stage, part in one.stages.items())):
            numbers = quantiles.p50_us, quantiles.p95_us, quantiles.p99_us
            rows.append([label, *(f"{value:,.1f}" for value in numbers)])
    parts.append(table([Column("microseconds", None), Column("p50"), Column("p95"), Column("p99")], rows))
    if bench.processes:
        columns = [Column("a new process", None), Column("import, ms"), Column("open, ms"), Column("first answer, ms")]
        started: list[list[Content]] = [
            [
                name,
                *(f"{ms:.1f}" for ms in (one.import_ms, one.open_ms, one.first_answer_ms)),
                "-" if one.rss_mb is None else f"{one.rss_mb:.1f}",
            ]
            for name, one in bench.processes.items()
        ]
        parts.append(table([*columns, Column("memory, MB")], started))
    rates: list[list[Content]] = [[name, f"{rate:,.0f}"] for name, rate in bench.throughput.items()]
    parts.append(table([Column("in a stream", None), Column("texts per second")], rates))
    return joined(parts)


def provenance(report: Report) -> Markup:
    """The bundle, the data, the versions, the command and the recipe."""
    facts = {"bundle": report.bundle, "command": report.command, "made": report.made, **report.provenance}
    parts = [facts_table(facts)]
    if report.recipe:
        text = json.dumps(report.recipe, indent=1, ensure_ascii=False)
        shown = text if len(text) <= _RECIPE_CHARS else f"{text[:_RECIPE_CHARS]}…"
        parts.append(details("The recipe of the training", tag("pre", shown)))
    return joined(parts)


def facts_table(facts: Mapping[str, str]) -> Markup:
    """Names and values."""
    rows: list[list[Content]] = [[name, value] for name, value in facts.items()]
    return table([Column("what", None), Column("value", "text")], rows)


def details(summary: str, content: Markup) -> Markup:
    """A part that opens."""
    return tag("details", tag("summary", summary), content)

"""Plot of the sweep, with matplotlib."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reaugkd.benchmarks.sweep.sweep import SweepCell, SweepReport
from reaugkd.errors import DependencyError, UsageError
from reaugkd.kb.storage.atomic import atomic_write, refuse_existing

# Reproducible files: the same figures give the same bytes.
_SETTINGS: Any = {"svg.hashsalt": "reaugkd", "svg.fonttype": "none", "font.size": 9}
_METADATA: dict[str, dict[str, None]] = {"svg": {"Date": None}, "png": {"Software": None}}
_INCHES = (9.5, 7.0)


@contextmanager
def plot_file(path: Path) -> Iterator[Callable[[SweepReport], None]]:
    """Yield a function that draws a report into the file; the file is written when the block ends.

    Errors are raised before the measurement, not after it.

    Args:
        path: ends in ``.svg`` or ``.png``.

    Raises:
        UsageError: another suffix.
        DependencyError: matplotlib is not installed.
        OutputExistsError: ``path`` is a folder.
        StorageError: the file cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _METADATA:
        raise UsageError("the plot has an unknown format", path=path, found=path.suffix, expected=".svg or .png")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise DependencyError(
            "the plot needs matplotlib",
            found=f"no module {error.name!r}",
            remedy="Install it: pip install 'reaugkd[plots]', or leave --plot out.",
        ) from error
    if not path.is_file():
        refuse_existing(path)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # hide its messages about fonts and caches
    with atomic_write(path, "wb") as file:

        def draw(report: SweepReport) -> None:
            with matplotlib.rc_context(_SETTINGS):
                figure = Figure(figsize=_INCHES, layout="constrained")
                _draw(figure, report)
                figure.savefig(file, format=kind, metadata=_METADATA[kind])

        yield draw


def _draw(figure: Any, report: SweepReport) -> None:
    (latency, overhead), (search, streams) = figure.subplots(2, 2)
    for axes in (latency, overhead, search, streams):
        axes.grid(color="#d8d8d8", linewidth=0.4)
        axes.set_xscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    _over_tokens(latency, report)
    _over_rows(overhead, search, report)
    _of_streams(streams, report)
    figure.suptitle(f"Cost of retrieval; k {report.setting['k']}, {report.host['cpu']}")


def _over_tokens(axes: Any, report: SweepReport) -> None:
    axes.set_yscale("log")
    axes.plot(*_points([(one.tokens, one.total.p50_us) for one in report.alone]), "o-", color="black", label="alone")
    for rows in report.built:
        cells = [cell for cell in report.cells if cell.rows == rows]
        axes.plot(*_points([(cell.tokens, cell.total.p50_us) for cell in cells]), "o-", label=f"{rows:,} rows")
    _described(
        axes, "latency of one text, p50, one thread", "tokens", "microseconds", [one.tokens for one in report.alone]
    )


def _over_rows(overhead: Any, search: Any, report: SweepReport) -> None:
    """Draw one line for each number of tokens: the overhead of retrieval, and the search time."""
    for alone in report.alone:
        cells = [cell for cell in report.cells if cell.tokens == alone.tokens]
        rows = [cell.rows for cell in cells]
        reach = list(zip(*(_reach(cell) for cell in cells), strict=True))
        values = [cell.overhead.p50_percent for cell in cells]
        label = f"{alone.tokens} tokens"
        line = overhead.errorbar(rows, values, yerr=reach, fmt="o-", capsize=2, label=label)[0]
        search.plot(rows, [cell.search.p50_us for cell in cells], "o-", color=line.get_color(), label=label)
        search.plot(rows, [cell.search.p95_us for cell in cells], "o:", color=line.get_color(), markersize=3)
    overhead.axhline(0, color="black", linewidth=0.6)
    search.set_yscale("log")
    _described(overhead, "overhead over the student alone, p50", "rows", "per cent")
    _described(search, "latency of the search, p50 and p95 (dotted)", "rows", "microseconds")


def _of_streams(axes: Any, report: SweepReport) -> None:
    most = max(report.built)
    for name, some in (("alone", report.alone), (f"{most:,} rows", [c for c in report.cells if c.rows == most])):
        for threads in some[0].throughput.per_s:
            points = [(one.tokens, one.throughput.per_s[threads]) for one in some]
            axes.plot(*_points(points), "o-", label=f"{name}, {threads} thread{'s' * (threads > 1)}")
    axes.set_ylim(bottom=0)
    _described(axes, "throughput of a stream", "tokens", "texts a second", [one.tokens for one in report.alone])


def _reach(cell: SweepCell) -> tuple[float, float]:
    """Return the distances of the interval's ends from the value; 0 if the interval does not contain the value."""
    value, (low, high) = cell.overhead.p50_percent, cell.overhead.ci95_percent
    return max(0.0, value - low), max(0.0, high - value)


def _points(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _described(axes: Any, title: str, x: str, y: str, ticks: list[int] | None = None) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if ticks is not None:
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
    axes.legend(fontsize=7)

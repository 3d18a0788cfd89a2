"""The sweep's plot, as far as a program can see it."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from reaugkd.benchmarks.sweep.plot import plot_file
from reaugkd.benchmarks.sweep.sweep import Alone, Cell, Growth, SweepReport
from reaugkd.benchmarks.sweep.thread_scaling import Throughput
from reaugkd.errors import DependencyError, StorageError, UsageError
from reaugkd.runtime.benchmark.latency import Overhead, Quantiles


def make_report(threads: int = 2) -> SweepReport:
    streams = Throughput({count: 1000.0 * count for count in {1, threads}}, 2.0, True)

    def cell(tokens: int, rows: int) -> Cell:
        search = Quantiles(rows / 100, rows / 50, rows / 50)
        # An interval that does not hold its value, as a percentile interval need not.
        overhead = Overhead(5.0, 6.0, 5.0, 10.0, 20.0, 10.0, (5.5, 7.0))
        return Cell(tokens, rows, Quantiles(tokens, tokens, tokens), search, overhead, Growth(1.0, (1.0, 1.0)), streams)

    alone = [Alone(tokens, Quantiles(tokens, tokens, tokens), streams) for tokens in (8, 16)]
    cells = [cell(tokens, rows) for tokens in (8, 16) for rows in (1000, 20_000)]
    built = {rows: {"seconds": 1.0, "bytes": 5.0} for rows in (1000, 20_000)}
    return SweepReport(alone, cells, built, {"k": 4}, {"cpu": "Fast 9000"})


def drawn(path: Path, threads: int = 2) -> bytes:
    with plot_file(path) as draw:
        draw(make_report(threads))
    return path.read_bytes()


def test_an_svg_says_what_it_shows(tmp_path: Path) -> None:
    tree = ElementTree.fromstring(drawn(tmp_path / "sweep.svg"))
    words = {"".join(text.itertext()).strip() for text in tree.iter("{http://www.w3.org/2000/svg}text")}
    assert words >= {"alone", "1,000 rows", "20,000 rows", "8 tokens", "16 tokens", "tokens", "rows", "per cent"}
    assert words >= {"alone, 1 thread", "alone, 2 threads", "20,000 rows, 2 threads", "texts a second", "microseconds"}
    assert any("Fast 9000" in word for word in words)


def test_the_same_figures_are_the_same_bytes(tmp_path: Path) -> None:
    assert drawn(tmp_path / "one.svg") == drawn(tmp_path / "two.svg")
    assert drawn(tmp_path / "one.svg", threads=1) != drawn(tmp_path / "two.svg")


def test_a_png(tmp_path: Path) -> None:
    assert drawn(tmp_path / "sweep.PNG").startswith(b"\x89PNG")


def test_what_hinders_is_told_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match), plot_file(path):
            pytest.fail("the block was entered")

    refuse(tmp_path / "sweep.pdf", UsageError, r"found \.pdf; expected \.svg or \.png")
    (tmp_path / "file").write_text("")
    refuse(tmp_path / "file" / "sweep.svg", StorageError, "sweep.svg")
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    refuse(tmp_path / "sweep.svg", DependencyError, r"pip install 'reaugkd\[plots\]'")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_nothing_half_drawn_is_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), plot_file(tmp_path / "sweep.svg"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []

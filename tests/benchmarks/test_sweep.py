"""The sweep on a tiny bundle: its systems, its comparisons, and its temporary files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_bundle import MAX_LENGTH, build_tiny_bundle

from reaugkd.benchmarks.sweep.__main__ import main
from reaugkd.benchmarks.sweep.report import format_sweep
from reaugkd.benchmarks.sweep.sweep import (
    SweepReport,
    SweepSettings,
    _cell,
    _measure,
    _System,
    _Times,
    sweep,
)
from reaugkd.benchmarks.sweep.thread_scaling import Throughput
from reaugkd.errors import UsageError
from reaugkd.runtime.benchmark.latency import Quantiles
from reaugkd.runtime.inference.prediction import Prediction, Timings

pytestmark = pytest.mark.slow

TOKENS, ROWS = (12, 5), (200, 32, 64)
SHORT = SweepSettings(tokens=TOKENS, rows=ROWS, threads=2, samples=8, warmup=1, inputs=4, passes=1)


@pytest.fixture(scope="module")
def report(edge_bundle: Path) -> SweepReport:
    return sweep(edge_bundle, settings=SHORT)


def test_every_combination_is_there_in_order(report: SweepReport) -> None:
    assert [one.tokens for one in report.alone] == [5, 12]
    assert [(cell.tokens, cell.rows) for cell in report.cells] == list(product((5, 12), (32, 64, 200)))
    assert list(report.built) == [32, 64, 200]
    for one in (*report.alone, *report.cells):
        assert 0 < one.total.p50_us <= one.total.p95_us
        assert set(one.throughput.per_s) == {1, 2} and one.throughput.identical
    for cell in report.cells:
        alone = next(one for one in report.alone if one.tokens == cell.tokens)
        assert cell.overhead.p50_us == pytest.approx(cell.total.p50_us - alone.total.p50_us)
        assert 0 < cell.search.p50_us < cell.total.p50_us
        smallest = next(one for one in report.cells if (one.tokens, one.rows) == (cell.tokens, 32))
        assert cell.growth.ratio == pytest.approx(cell.search.p50_us / smallest.search.p50_us)
    assert [cell.growth.ratio for cell in report.cells if cell.rows == 32] == [1.0, 1.0]


def test_a_cell_by_hand() -> None:
    """The search takes twice as long, and the prediction 1.5 times as long, on every visit."""
    base = np.arange(1.0, 102.0)
    times = _Times(
        {(8, 0): base, (8, 10): base, (8, 50): 1.5 * base}, {(8, 0): 0 * base, (8, 10): base, (8, 50): 2 * base}
    )
    found = _cell(times, (8, 50), 10, Throughput({1: 1.0}, None, True), seed=0)
    assert (found.growth.ratio, found.growth.ci95) == (2.0, pytest.approx((2, 2)))
    assert found.overhead.p50_percent == pytest.approx(50) and found.overhead.ci95_percent == pytest.approx((50, 50))
    assert found.search == Quantiles.of(2 * base) and found.total == Quantiles.of(1.5 * base)
    assert times.visit_us == pytest.approx(3.5 * 51)


def test_the_search_time_is_that_of_the_predictions() -> None:
    class Answers:
        def __init__(self, search_us: float) -> None:
            self.search_us = search_us

        def answer(self, text: object) -> Prediction:
            one = np.ones(1, np.float32)
            return Prediction("a", 1.0, one, one, one, None, 0.5, Timings(1.0, 2.0, self.search_us, 4.0), ("a",))

    field: Any = {(8, rows): _System(Answers(10.0 * rows), ["noon"]) for rows in (0, 7)}  # type: ignore[arg-type]
    times = _measure(field, 3, 0, lambda: 0)
    assert {place: set(us.tolist()) for place, us in times.search.items()} == {(8, 0): {0.0}, (8, 7): {70.0}}


def test_the_table_has_a_line_for_each(report: SweepReport) -> None:
    shown = format_sweep(report)
    lines = [line for line in shown.splitlines() if line[:6].strip() in ("", "5", "12") and line.strip()]
    assert [line.split()[1 if line[0] != " " else 0] for line in lines] == ["alone", "32", "64", "200"] * 2
    for line, one in zip(lines[1:4], report.cells[:3], strict=True):
        assert f"{one.overhead.p50_percent:+.1f} %" in line and line.split()[1] == f"{one.total.p50_us:.0f}"
        assert line.endswith(f"{one.throughput.speedup:.2f}") and f"  {one.growth.ratio:.2f}  " in line
    assert "64, then copies of these" in shown and "WARNING" not in shown


@pytest.mark.parametrize("stops", ["", "throughput"])
def test_nothing_is_left(edge_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: str) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stages: dict[str, list[tuple[int, int | None]]] = {}
    there: list[int] = []

    @contextmanager
    def progress(label: str, unit: str) -> Iterator[Any]:
        seen = stages.setdefault(label, [])

        def advance(done: int, total: int | None) -> None:
            there.append(len(list(tmp_path.iterdir())))
            seen.append((done, total))
            if label == stops:
                raise KeyboardInterrupt

        yield advance

    if stops:
        with pytest.raises(KeyboardInterrupt):
            sweep(edge_bundle, settings=SHORT, progress=progress)
    else:
        sweep(edge_bundle, settings=SHORT, progress=progress)
        assert {label: seen[-1] for label, seen in stages.items()} == {
            "building 32 rows": (32, 32),
            "building 64 rows": (64, 64),
            "building 200 rows": (200, 200),
            "latencies": (8, 8),
            "throughput": (8, 8),
        }
        assert stages["latencies"] == [(done, 8) for done in range(1, 9)]
    assert there and set(there) == {1}
    assert list(tmp_path.iterdir()) == []


def test_bundles_that_cannot_be_swept(edge_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no rows to copy"):
        sweep(build_tiny_bundle(tmp_path / "empty", rows=0))
    with pytest.raises(UsageError, match="max_length"):
        sweep(edge_bundle, settings=SweepSettings(tokens=(MAX_LENGTH + 1,)))


def test_the_command_writes_table_json_and_plot(
    edge_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, plot = tmp_path / "sweep.json", tmp_path / "sweep.svg"
    few = ["--tokens", "5,9", "--rows", "32,100", "--seconds", "0.01", "--threads", "1"]
    main([str(edge_bundle), *few, "--json", str(file), "--plot", str(plot)])
    found = json.loads(file.read_text())
    assert [(cell["tokens"], cell["rows"]) for cell in found["cells"]] == list(product((5, 9), (32, 100)))
    assert all(0.5 < built["recall"] <= 1 for built in found["built"].values())
    assert "overhead" in capsys.readouterr().out and "</svg>" in plot.read_text()
    with pytest.raises(SystemExit) as stop:
        main([str(edge_bundle), "--plot", str(tmp_path / "sweep.pdf")])
    assert stop.value.code == 2 and "found .pdf; expected .svg or .png" in capsys.readouterr().err

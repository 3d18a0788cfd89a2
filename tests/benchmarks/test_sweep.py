"""The sweep on a tiny bundle: who takes part, what is compared with what, and that nothing stays behind."""

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
from support.tiny_bundle import MAX_LENGTH, build_tiny_bundle, tiny_texts

from reaugkd.benchmarks.sweep import thread_scaling as speedup
from reaugkd.benchmarks.sweep.report import format_sweep
from reaugkd.benchmarks.sweep.sweep import (
    FEWEST_SAMPLES,
    MOST_SAMPLES,
    SweepReport,
    SweepSettings,
    _cell,
    _Contestant,
    _fitting,
    _Laps,
    _race,
    sweep,
)
from reaugkd.benchmarks.sweep.thread_scaling import Throughput
from reaugkd.errors import TextError, UsageError
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
    """Searches twice and an answer 1.5 times as long, on every visit."""
    base = np.arange(1.0, 102.0)
    laps = _Laps(
        {(8, 0): base, (8, 10): base, (8, 50): 1.5 * base}, {(8, 0): 0 * base, (8, 10): base, (8, 50): 2 * base}
    )
    found = _cell(laps, (8, 50), 10, Throughput({1: 1.0}, None, True), seed=0)
    assert (found.growth.ratio, found.growth.ci95) == (2.0, pytest.approx((2, 2)))
    assert found.overhead.p50_percent == pytest.approx(50) and found.overhead.ci95_percent == pytest.approx((50, 50))
    assert found.search == Quantiles.of(2 * base) and found.total == Quantiles.of(1.5 * base)
    assert laps.visit_us == pytest.approx(3.5 * 51)


def test_the_search_is_the_stage_that_the_answers_tell() -> None:
    class Answers:
        def __init__(self, search_us: float) -> None:
            self.search_us = search_us

        def answer(self, _student: object, text: object) -> Prediction:
            one = np.ones(1, np.float32)
            return Prediction("a", 1.0, one, one, one, None, 0.5, Timings(1.0, 2.0, self.search_us, 4.0), ("a",))

    field: Any = {(8, rows): _Contestant(Answers(10.0 * rows), None, ["noon"]) for rows in (0, 7)}  # type: ignore[arg-type]
    laps = _race(field, 3, 0, lambda: 0)
    assert {place: set(us.tolist()) for place, us in laps.search.items()} == {(8, 0): {0.0}, (8, 7): {70.0}}


def test_the_table_has_a_line_for_each(report: SweepReport) -> None:
    shown = format_sweep(report)
    lines = [line for line in shown.splitlines() if line[:6].strip() in ("", "5", "12") and line.strip()]
    assert [line.split()[1 if line[0] != " " else 0] for line in lines] == ["alone", "32", "64", "200"] * 2
    for line, one in zip(lines[1:4], report.cells[:3], strict=True):
        assert f"{one.overhead.p50_percent:+.1f} %" in line and line.split()[1] == f"{one.total.p50_us:.0f}"
        assert line.endswith(f"{one.throughput.speedup:.2f}") and f"  {one.growth.ratio:.2f}  " in line
    assert "64, beyond them copies of these" in shown and "WARNING" not in shown


def test_the_json_is_json(report: SweepReport) -> None:
    found = json.loads(json.dumps(report.to_json()))
    assert found["cells"][2]["rows"] == 200 and found["cells"][2]["throughput"]["per_s"]["2"] > 0
    assert found["built"]["200"]["bytes"] > found["built"]["32"]["bytes"]
    assert all(0.5 < built["recall"] <= 1 and built["seconds"] > 0 for built in found["built"].values())
    assert found["setting"]["index"]["dtype"] == "i8" and found["setting"]["own_rows"] == 64
    assert found["setting"]["source"] == "knowledge base" and found["setting"]["samples"] == 8


def test_one_thread_has_no_speedup(edge_bundle: Path) -> None:
    one = SweepSettings(tokens=(5,), rows=(32,), threads=1, samples=2, warmup=1, inputs=2, passes=1)
    found = sweep(edge_bundle, settings=one)
    assert found.cells[0].throughput.speedup is None
    assert "speed-up" not in format_sweep(found) and "texts/s, 1 thr." in format_sweep(found)


def test_few_different_texts_are_told(edge_bundle: Path) -> None:
    one = SweepSettings(tokens=(5,), rows=(32,), threads=1, samples=2, warmup=1, inputs=40, passes=1)
    few, enough = (sweep(edge_bundle, texts, settings=one) for texts in (tiny_texts(1), tiny_texts(200)))
    assert few.setting["different_texts"] == 1 and "WARNING: only 1 different texts" in format_sweep(few)
    assert enough.setting["different_texts"] >= 20 and "WARNING" not in format_sweep(enough)


def test_answers_that_depend_on_the_threads_are_told(edge_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = speedup.side_by_side
    monkeypatch.setattr(speedup, "side_by_side", lambda *given: reversed(list(real(*given))))
    two = SweepSettings(tokens=(5,), rows=(32,), threads=2, samples=2, warmup=1, inputs=4, passes=1)
    found = sweep(edge_bundle, settings=two)
    assert not found.cells[0].throughput.identical
    shown = format_sweep(found)
    assert "WARNING: 5 tokens, 32 rows: several threads" in shown and "WARNING: 5 tokens, alone" in shown


@pytest.mark.parametrize("stops", ["", "building 64 rows", "throughput"])
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


def test_all_take_turns_within_a_visit(edge_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each visit asks every contestant once, in an order of its own."""
    from reaugkd.benchmarks.sweep import sweep as module

    turns: list[tuple[int, int]] = []
    real = module._Contestant.answer

    def noted(self: Any, which: int) -> Any:
        turns.append((len(self.texts[which].split()) + 2, len(self.pipeline._kb) if self.pipeline._off is None else 0))
        return real(self, which)

    monkeypatch.setattr(module._Contestant, "answer", noted)
    sweep(edge_bundle, settings=SHORT)
    visits = [turns[start : start + 8] for start in range(8, len(turns), 8)]  # after one visit of warm-up
    everyone = sorted(product((5, 12), (0, 32, 64, 200)))
    assert len(visits) == 8 and all(sorted(visit) == everyone for visit in visits)
    assert len({tuple(visit) for visit in visits}) == 8


def test_pairs(pair_bundle: Path) -> None:
    settings = SweepSettings(tokens=(9,), rows=(32,), threads=1, samples=2, warmup=1, inputs=2, passes=1)
    assert sweep(pair_bundle, tiny_texts(5, pairs=True), settings=settings).setting["source"] == "given texts"
    with pytest.raises(TextError, match="pairs"):
        sweep(pair_bundle, ["noon alarm bread call music night"], settings=settings)
    mixed: Any = [*tiny_texts(3, pairs=True), 7]
    with pytest.raises(TextError):
        sweep(pair_bundle, mixed, settings=settings)


def test_what_cannot_be_swept(edge_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to grow"):
        sweep(build_tiny_bundle(tmp_path / "empty", rows=0))
    with pytest.raises(UsageError, match="max_length"):
        sweep(edge_bundle, settings=SweepSettings(tokens=(MAX_LENGTH + 1,)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": ()},
        {"rows": (0,)},
        {"rows": (5, 5)},
        {"rows": (10.5,)},
        {"rows": (10**25,)},
        {"samples": 1},
        {"samples": 10**25},
        {"seconds": -1.0},
        {"inputs": 0},
        {"passes": 0},
    ],
)
def test_settings_that_cannot_be_meant(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        SweepSettings(**wrong)


def test_the_time_given_decides_how_many_visits() -> None:
    assert _fitting(2.0, 10_000.0) == 200
    assert _fitting(0.0, 10_000.0) == FEWEST_SAMPLES
    assert _fitting(float("inf"), 1.0) == MOST_SAMPLES

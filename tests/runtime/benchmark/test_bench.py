"""The benchmark's report on a tiny bundle: its structure, and its statistics with a test clock."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.short_bench import TEXTS_PER_PASS, short_bench
from support.tiny_bundle import build_tiny_bundle, reseal, tiny_texts

from reaugkd.errors import BundleError, ReaugkdError, TextError, UsageError
from reaugkd.runtime.benchmark import bench as bench_module
from reaugkd.runtime.benchmark import cold_start
from reaugkd.runtime.benchmark.bench import FEWEST_SAMPLES, MOST_SAMPLES, BenchReport, BenchSettings, _fitting, bench
from reaugkd.runtime.benchmark.cold_start import Process, bundle_bytes, measure_process
from reaugkd.runtime.benchmark.environment import host_facts
from reaugkd.runtime.benchmark.interleaved import InterleavedTimer, choose_inputs
from reaugkd.runtime.benchmark.latency import SETTLING
from reaugkd.runtime.benchmark.report import format_bench
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.runtime import Runtime

SHORT = BenchSettings(samples=20, warmup=2, passes=1, processes=0)
SYSTEMS = ("session_run", "student", "student+retrieval", "student+usearch")


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    with short_bench():
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("bench") / "bundle")


@pytest.fixture(scope="module")
def report(bundle: Path) -> BenchReport:
    return bench(bundle, settings=BenchSettings(samples=40, warmup=5, passes=1, processes=1, answers=3))


def test_the_json_for_scripts(report: BenchReport) -> None:
    found = json.loads(json.dumps(report.to_json()))
    for name in SYSTEMS:
        system = found[name]
        assert 0 < system["p50_us"] <= system["p95_us"] <= system["p99_us"]
    assert set(found["student+usearch"]["stages"]) == {"tokenize", "run", "search", "blend", "rest"}
    for name in ("student", "student+retrieval"):
        assert set(found[name]["stages"]) == {"tokenize", "run", "blend", "rest"}
    assert "stages" not in found["session_run"]
    assert set(found["graph_stages"]) == {"student", "search", "blend"}
    for stage in found["student+usearch"]["stages"].values():
        assert 0 < stage["p50_us"] <= stage["p95_us"] <= stage["p99_us"]
    assert {"p50_percent", "p95_percent", "p50_us", "ci95_percent"} <= set(found["overhead"])
    low, high = found["overhead"]["ci95_percent"]
    assert low <= high
    p50 = {name: found[name]["p50_us"] for name in SYSTEMS}
    overhead = p50["student+retrieval"] - p50["student"]
    assert found["overhead"]["p50_us"] == pytest.approx(overhead)
    assert found["overhead"]["p50_percent"] == pytest.approx(100 * overhead / p50["student"])
    assert found["runtime_overhead"]["p50_us"] == pytest.approx(p50["student"] - p50["session_run"])
    assert set(found["throughput_per_s"]) == set(SYSTEMS[1:])
    assert found["setting"]["search"] == "graph"
    assert found["setting"]["samples"] == 40
    assert found["setting"]["knowledge_base_rows"] == 64
    assert found["host"]["versions"]["onnxruntime"]


@pytest.mark.slow
def test_a_gate_is_a_separate_system(tmp_path: Path) -> None:
    path, texts = build_tiny_bundle(tmp_path / "tiny"), tiny_texts(20, seed=3)
    with Runtime.open(path, retrieval="never") as runtime:
        middle = sorted(runtime.predict(text).probability for text in texts)[10]
    reseal(path, gate={"threshold": middle, "epsilon": 0.1, "delta": 0.1, "rows": 50, "losses": 0, "retrieved": 0.5})
    report = bench(path, texts, settings=BenchSettings(samples=40, warmup=5, passes=1, processes=1, answers=3))
    found = json.loads(json.dumps(report.to_json()))
    with Runtime.open(path, retrieval="gated") as runtime:
        retrieved = sum(runtime.predict(text).retrieved for text in texts)
    assert 0 < retrieved < 20  # or the test shows nothing
    assert found["setting"]["gate_retrieved"] == retrieved / 20
    assert found["gated_overhead"]["p50_us"] == pytest.approx(
        found["student+gated"]["p50_us"] - found["student"]["p50_us"]
    )
    assert "student+gated" in report.processes
    assert f"{retrieved / 20:.1%} of the answers retrieve" in format_bench(report)


@pytest.mark.parametrize("installed", [True, False])
def test_the_searches_of_new_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    """Each opens the bundle as its system does: a gate allows no search in the graph."""
    path, asked = build_tiny_bundle(tmp_path / "tiny"), []
    reseal(path, gate={"threshold": 0.9, "epsilon": 0.1, "delta": 0.1, "rows": 50, "losses": 0, "retrieved": 0.5})

    def ask(request: dict[str, Any]) -> dict[str, float | None]:
        if request["kind"] == "runtime":
            asked.append((request["retrieval"], request["search"]))
            if installed:
                Runtime.open(path, retrieval=request["retrieval"], search=request["search"]).close()
        return dict.fromkeys(("import_ms", "open_ms", "first_ms", "rss", "peak_rss"), 1.0)

    monkeypatch.setattr(cold_start, "measure_process", ask)
    monkeypatch.setattr(cold_start.Process, "of", staticmethod(lambda found: found))
    monkeypatch.setattr(cold_start, "available", lambda: installed)
    with Runtime.open(path, search="auto" if installed else "usearch") as runtime:
        timer = InterleavedTimer(runtime, ["noon"], 0, time.perf_counter_ns)
        cold_start.measure_processes(path, timer, 1, 1, lambda: None, cold_start.BundleChecks(None, False))
    graph = [("never", "graph"), ("always", "graph"), ("always", "usearch"), ("gated", "auto")]
    assert asked == (graph if installed else [("never", "auto"), ("always", "auto"), ("gated", "auto")])


def test_fresh_processes_are_measured(report: BenchReport) -> None:
    assert tuple(report.processes) == SYSTEMS
    whole, session = report.processes["student+retrieval"], report.processes["session_run"]
    found = report.to_json()
    assert found["cold_start_ms"] == whole.import_ms + whole.open_ms + whole.first_answer_ms > 0
    assert found["rss_mb"] == whole.rss_mb
    if whole.rss_mb is not None and session.rss_mb is not None:
        # The runtime has all that the bare session has, and tokenizers besides.
        assert 10 < session.rss_mb < whole.rss_mb < 1000


def test_bytes_are_those_on_the_disk(bundle: Path, report: BenchReport) -> None:
    sizes = {file.relative_to(bundle).as_posix(): file.stat().st_size for file in bundle.rglob("*") if file.is_file()}
    assert report.bytes["files"] == sizes
    assert report.bytes["total"] == sum(sizes.values())
    assert report.bytes["model"] == sizes["student/model.onnx"]
    assert report.bytes["student"] == sum(size for name, size in sizes.items() if name.startswith("student/"))
    assert report.bytes["knowledge_base"] == sum(size for name, size in sizes.items() if name.startswith("kb/"))
    assert bundle_bytes(Bundle.open(bundle)) == report.bytes


def test_the_table_shows_the_figures(report: BenchReport) -> None:
    text = format_bench(report)
    for name, latencies in report.latencies.items():
        assert any(
            line.startswith(name) and f"{latencies.total.p50_us:.1f}" in line.split() for line in text.splitlines()
        )
    assert report.overhead is not None
    assert f"{report.overhead.p50_percent:+.2f} %" in text
    assert f"{report.bytes['total']:,}" in text
    assert all(f"  {stage}" in text for stage in ("tokenize", "run", "search", "blend"))


def test_the_statistics_are_the_clocks_and_progress_ends_at_the_total(bundle: Path) -> None:
    """The clock advances a microsecond per reading, so every run takes exactly one."""

    class Ticking:
        now = 0

        def __call__(self) -> int:
            self.now += 1000
            return self.now

    seen: list[tuple[int, int]] = []
    report = bench(bundle, settings=SHORT, clock=Ticking(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 21) for done in range(1, 22)]
    found = report.to_json()
    for name in SYSTEMS:
        assert [found[name][quantile] for quantile in ("p50_us", "p95_us", "p99_us")] == [1.0, 1.0, 1.0]
    assert found["overhead"]["p50_percent"] == found["overhead"]["p50_us"] == 0.0
    assert found["overhead"]["ci95_percent"] == [0.0, 0.0]
    assert found["throughput_per_s"] == dict.fromkeys(SYSTEMS[1:], TEXTS_PER_PASS * 1e6)


@pytest.mark.slow
def test_the_time_given_decides_how_many_visits(bundle: Path) -> None:
    class Slow:
        """A millisecond a look: four runs of a millisecond a visit."""

        now = 0

        def __call__(self) -> int:
            self.now += 1_000_000
            return self.now

    def samples(seconds: float) -> int:
        settings = BenchSettings(seconds=seconds, warmup=3, passes=1, processes=0)
        return int(bench(bundle, settings=settings, clock=Slow()).setting["samples"])

    assert samples(0.12 * (SETTLING + 1)) == 30
    assert samples(0) == bench_module.FEWEST_SAMPLES < FEWEST_SAMPLES == 200  # a real p99 needs so many
    assert _fitting(float("inf"), 100.0) == MOST_SAMPLES


@pytest.mark.slow
def test_visits_are_warmed_up_for_however_many_there_are(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(InterleavedTimer, "warm_up", lambda self, count: asked.append(count) or 100.0)
    for settings in (SHORT, BenchSettings(seconds=0.01, warmup=7, passes=1, processes=0)):
        bench(bundle, settings=settings)
    assert asked == [SHORT.warmup, 7]


def test_two_threads_and_no_processes(bundle: Path) -> None:
    found = bench(bundle, settings=SHORT, threads=2)
    assert found.setting["threads"] == 2
    assert all(rate > 0 for rate in found.throughput.values())
    assert found.to_json()["cold_start_ms"] is None and found.to_json()["rss_mb"] is None
    assert "fresh process" not in format_bench(found)


def test_an_empty_knowledge_base_has_no_overhead(tmp_path: Path) -> None:
    path = build_tiny_bundle(tmp_path / "empty", rows=0)
    found = bench(path, settings=BenchSettings(samples=5, warmup=1, passes=1, processes=1, answers=1))
    assert tuple(found.latencies) == ("session_run", "student")
    assert found.overhead is None and found.to_json()["overhead"] is None
    assert found.to_json()["cold_start_ms"] == found.processes["student"].cold_start_ms
    assert "retrieval over" not in format_bench(found)


@pytest.mark.slow
def test_pairs_with_given_texts(tmp_path: Path) -> None:
    path = build_tiny_bundle(tmp_path / "pairs", pairs=True)
    texts = tiny_texts(4, pairs=True)
    found = bench(path, texts, settings=BenchSettings(samples=6, warmup=1, passes=1, processes=1, answers=2))
    assert (found.setting["texts"], found.setting["source"]) == (4, "given texts")
    assert found.processes["student+retrieval"].import_ms > 0


def test_where_the_texts_come_from(bundle: Path, tmp_path: Path) -> None:
    private = build_tiny_bundle(tmp_path / "private", texts=False)
    with Runtime.open(bundle) as runtime:
        texts, source = choose_inputs(runtime, None, 10, seed=0)
        stored = {runtime.knowledge_base.text(row) for row in range(64)}
        assert source == "knowledge base" and len(texts) == 10 and set(texts) <= stored
        assert choose_inputs(runtime, None, 10, seed=0)[0] == texts
        assert choose_inputs(runtime, None, 10, seed=1)[0] != texts
        assert choose_inputs(runtime, None, 1000, seed=0)[0] == [runtime.knowledge_base.text(row) for row in range(64)]
        assert choose_inputs(runtime, ["alarm"], 10, seed=0) == (["alarm"], "given texts")
        with pytest.raises(UsageError, match="no texts"):
            choose_inputs(runtime, [], 10, seed=0)
    with Runtime.open(private) as runtime:
        golden = [golden.text for golden in runtime.manifest.golden]
        assert choose_inputs(runtime, None, 10, seed=0) == (golden, "golden texts")
    reseal(private, golden=[])
    with pytest.raises(UsageError, match="--data"):
        bench(private, settings=SHORT)


def test_a_bad_text_shows_before_anything_is_timed(bundle: Path) -> None:
    seen: list[int] = []
    with pytest.raises(TextError, match="empty"):
        bench(bundle, ["alarm", " "], settings=SHORT, progress=lambda done, total: seen.append(done))
    assert seen == []


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        bench(tmp_path / "nothing")


@pytest.mark.parametrize("wrong", [{"samples": 1}, {"seconds": -1.0}, {"inputs": 0}, {"passes": 0}, {"processes": -1}])
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        BenchSettings(**wrong)  # type: ignore[arg-type]


def test_a_failed_process_reports_its_error(tmp_path: Path) -> None:
    request = {
        "kind": "runtime",
        "path": str(tmp_path / "gone"),
        "follow_links": False,
        "threads": 1,
        "retrieval": "always",
        "search": "auto",
        "texts": ["a"],
    }
    with pytest.raises(ReaugkdError, match="no bundle"):
        measure_process(request)


def test_the_median_process_counts() -> None:
    results = [
        {"import_ms": ms, "open_ms": 10 * ms, "first_answer_ms": 1.0, "rss_bytes": 1e6 * ms, "peak_rss_bytes": None}
        for ms in (3.0, 1.0, 100.0)
    ]
    assert Process.of(results) == Process(3.0, 30.0, 1.0, 3.0, None)  # type: ignore[arg-type]
    assert Process.of(results).cold_start_ms == 34.0  # type: ignore[arg-type]


def test_host_facts(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor: 0\nmodel name\t: Fast 9000\nflags\t: fpu avx2 avx512_vnni\n\nmodel name: other\n")
    facts = host_facts(cpuinfo)
    assert facts["cpu"] == "Fast 9000"
    assert facts["instruction_sets"] == ["avx2", "avx512_vnni"]
    assert facts["usable_cores"] >= 1
    elsewhere = host_facts(tmp_path / "none")
    assert elsewhere["cpu"] and elsewhere["instruction_sets"] == []

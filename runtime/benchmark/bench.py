"""Benchmark of a bundle: the cost of retrieval relative to the student, and of the student relative to ONNX Runtime.

Latencies come from one process in which the systems are interleaved (`interleaved`); cold start and memory come from
new processes (`cold_start`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from ...errors import UsageError
from ...kb.storage.ed25519 import PublicKey
from ..bundle.bundle import Bundle
from ..inference.retrieval_policy import SearchMethod
from ..inference.text.inputs import Text
from ..runtime import Runtime
from .cold_start import BundleChecks, Process, bundle_bytes, measure_processes
from .environment import host_facts
from .graph_stages import graph_stages
from .interleaved import BLEND, GATED, SESSION_RUN, STUDENT, USEARCH, InterleavedTimer, choose_inputs
from .latency import SETTLING, Clock, Overhead, Quantiles

Progress = Callable[[int, int], object]

FEWEST_SAMPLES = 200
MOST_SAMPLES = 20_000
PROFILED = 200  # texts of the second pass, with ONNX Runtime's profiler


@dataclass(frozen=True)
class BenchSettings:
    """Settings of a benchmark; the defaults take about 20 seconds for a student of 1 ms.

    Attributes:
        seconds: time for the latencies: 200 to 20,000 measurements.
        samples: number of measurements; overrides ``seconds``.
        warmup: measurements before these, not counted.
        inputs: the largest number of different texts, drawn at random.
        passes: passes over the texts for the throughput, systems interleaved; the median counts.
        processes: new processes for cold start and memory; the median counts. 0 skips both.
        answers: texts that a process predicts before its memory is measured.
        seed: seed of the choice and order of texts, and of the bootstrap.

    Raises:
        UsageError: a number is out of range.
    """

    seconds: float = 10.0
    samples: int | None = None
    warmup: int = 50
    inputs: int = 2000
    passes: int = 5
    processes: int = 5
    answers: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"seconds": 0.0, "samples": 2, "warmup": 1, "inputs": 1, "passes": 1, "processes": 0, "answers": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and not value >= bound:
                raise UsageError(f"the benchmark's {name} is unusable", found=value, expected=f"at least {bound}")


@dataclass(frozen=True)
class Latencies:
    """The latencies of one system, and of its stages if it has any."""

    total: Quantiles
    stages: dict[str, Quantiles]

    def to_json(self) -> dict[str, Any]:
        """Return the percentiles, and ``stages``."""
        stages = {name: asdict(stage) for name, stage in self.stages.items()}
        return {**asdict(self.total), **({"stages": stages} if stages else {})}


@dataclass(frozen=True)
class BenchReport:
    """The measurements of one bundle on one machine.

    Attributes:
        latencies: by system, in the order session_run, student, student+retrieval, student+usearch, student+gated. The
            last is missing without a gate, student+usearch unless student+retrieval searches in the run of the model,
            and all three with an empty knowledge base.
        overhead: student+retrieval relative to student; None without the former.
        usearch_overhead: student+usearch relative to student; None without the former.
        gated_overhead: student+gated relative to student; None without the former.
        runtime_overhead: student relative to session_run.
        retrieval_runtime_overhead: student+retrieval relative to session_run; None without the former.
        graph_stages: mean microseconds of the run of student+retrieval in its student, search and blend
            (`graph_stages`); empty if the run is the student's alone.
        throughput: texts per second of ``predict_many``, by system.
        processes: cold start and memory of new processes, by system; empty if none were started.
        bytes: size on disk, same as `bundle_bytes`.
        tokens: p50, p95 and largest number of tokens of the inputs.
        setting: threads, measurements, texts and their source, rows of the knowledge base and so on.
        host: the machine and the libraries.
    """

    latencies: dict[str, Latencies]
    overhead: Overhead | None
    usearch_overhead: Overhead | None
    gated_overhead: Overhead | None
    runtime_overhead: Overhead
    retrieval_runtime_overhead: Overhead | None
    graph_stages: dict[str, float]
    throughput: dict[str, float]
    processes: dict[str, Process]
    bytes: dict[str, Any]
    tokens: dict[str, float]
    setting: dict[str, Any]
    host: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        whole = self.processes.get(BLEND, self.processes.get(STUDENT))
        return {
            **{name: latencies.to_json() for name, latencies in self.latencies.items()},
            "overhead": _overhead_json(self.overhead),
            "usearch_overhead": _overhead_json(self.usearch_overhead),
            "gated_overhead": _overhead_json(self.gated_overhead),
            "runtime_overhead": _overhead_json(self.runtime_overhead),
            "retrieval_runtime_overhead": _overhead_json(self.retrieval_runtime_overhead),
            "graph_stages": self.graph_stages,
            "throughput_per_s": self.throughput,
            "cold_start_ms": None if whole is None else whole.cold_start_ms,
            "rss_mb": None if whole is None else whole.rss_mb,
            "processes": {
                name: {"cold_start_ms": process.cold_start_ms, **asdict(process)}
                for name, process in self.processes.items()
            },
            "bytes": self.bytes,
            "tokens": self.tokens,
            "setting": self.setting,
            "host": self.host,
        }


def bench(
    path: str | Path,
    texts: Sequence[Text] | None = None,
    *,
    threads: int | None = 1,
    search: SearchMethod = "auto",
    settings: BenchSettings | None = None,
    source: str | None = None,
    progress: Progress | None = None,
    clock: Clock = perf_counter_ns,
    require_signature: PublicKey | None = None,
    follow_links: bool = False,
) -> BenchReport:
    """Measure latency, throughput, cold start, memory and size of a bundle.

    Args:
        path: the bundle's folder.
        texts: texts to predict. Default: the texts of the knowledge base, or the golden texts if it keeps none.
        threads: threads of the runtime; None uses every core that this process may use.
        search: same as `Runtime.open`.
        settings: the settings. Default: ``BenchSettings()``.
        source: source of ``texts``, for the report.
        progress: called with (units done, units in total) after each measurement, pass and process.
        clock: clock in nanoseconds; another one for tests.
        require_signature: the key that must have signed the bundle.
        follow_links: same as `Runtime.open`.

    Raises:
        BundleError: the bundle cannot be used.
        TextError: a text cannot be predicted.
        UsageError: there are no texts, or an argument is invalid.
        ReaugkdError: a new process failed.
    """
    settings = settings or BenchSettings()
    with Runtime.open(
        path, threads=threads, require_signature=require_signature, follow_links=follow_links, search=search
    ) as runtime:
        inputs, origin = choose_inputs(runtime, texts, settings.inputs, settings.seed)
        timer = InterleavedTimer(runtime, inputs, settings.seed, clock)
        visit_us = timer.warm_up(settings.warmup)
        samples = settings.samples or _fitting(settings.seconds, visit_us)
        steps = _Steps(progress, samples + settings.passes + settings.processes * len(timer.systems))
        times = timer.run(samples, steps.done)
        stages_of_graph = graph_stages(runtime, timer.feeds[:PROFILED]) if runtime.search == "graph" else {}
        throughput = timer.throughput(settings.passes, steps.done)
        checks = BundleChecks(require_signature, follow_links)
        processes = measure_processes(
            Path(path).absolute(), timer, settings.processes, settings.answers, steps.done, checks
        )
        bundle = Bundle(Path(path).absolute(), runtime.manifest)
        setting = {
            "samples": samples,
            "texts": len(inputs),
            "source": source or origin,
            "threads": runtime.threads,
            "knowledge_base_rows": len(runtime.knowledge_base),
            "k": runtime.manifest.blend.k,
            "search": runtime.search,
            "gate_retrieved": times.retrieved,
            "gate_expected": None if runtime.gate is None else runtime.gate.retrieved,
            "seed": settings.seed,
            "passes": settings.passes,
            "processes": settings.processes,
        }
    stages = {name: {stage: Quantiles.of(us) for stage, us in split.items()} for name, split in times.stages.items()}
    total, seed = times.total, settings.seed

    def over(system: str, base: str) -> Overhead | None:
        return Overhead.of(total[system], total[base], seed) if system in total else None

    return BenchReport(
        latencies={name: Latencies(Quantiles.of(us), stages.get(name, {})) for name, us in total.items()},
        overhead=over(BLEND, STUDENT),
        usearch_overhead=over(USEARCH, STUDENT),
        gated_overhead=over(GATED, STUDENT),
        runtime_overhead=Overhead.of(total[STUDENT], total[SESSION_RUN], seed),
        retrieval_runtime_overhead=over(BLEND, SESSION_RUN),
        graph_stages=stages_of_graph,
        throughput=throughput,
        processes=processes,
        bytes=bundle_bytes(bundle),
        tokens=timer.tokens(),
        setting=setting,
        host=host_facts(),
    )


def _fitting(seconds: float, visit_us: float) -> int:
    """Return the number of measurements that fit in the time, with their unmeasured runs."""
    return max(FEWEST_SAMPLES, int(min(MOST_SAMPLES, seconds * 1e6 / ((SETTLING + 1) * visit_us))))


def _overhead_json(overhead: Overhead | None) -> dict[str, Any] | None:
    return None if overhead is None else {**asdict(overhead), "ci95_percent": list(overhead.ci95_percent)}


class _Steps:
    """Counts finished units and reports progress."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._count = 0

    def done(self) -> None:
        self._count += 1
        if self._progress is not None:
            self._progress(self._count, self._total)

"""Sweep: cost of retrieval by tokens of the text, rows of the knowledge base, and threads.

Every number of tokens is measured with every number of rows and with the student alone, all interleaved in one process
with one runtime session (`interleaved`). The knowledge bases are enlarged from the bundle's own (`synthetic_kb`); the
texts are real texts cut to length (`text_lengths`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reaugkd.benchmarks.sweep.synthetic_kb import DTYPE, EnlargedKb, SyntheticKb, recall
from reaugkd.benchmarks.sweep.text_lengths import texts_of_length, usual_lengths
from reaugkd.benchmarks.sweep.thread_scaling import Throughput, measure_streams
from reaugkd.errors import UsageError
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.kb.storage.ed25519 import PublicKey
from reaugkd.runtime.benchmark.environment import host_facts
from reaugkd.runtime.benchmark.interleaved import TEXTS_PER_PASS, choose_inputs
from reaugkd.runtime.benchmark.latency import Clock, Overhead, Quantiles, interleave, median_ratio_interval, visits
from reaugkd.runtime.evaluation.bootstrap import Interval
from reaugkd.runtime.evaluation.metrics import Floats
from reaugkd.runtime.inference.pipeline import Pipeline
from reaugkd.runtime.inference.prediction import Prediction
from reaugkd.runtime.inference.retrieval_policy import RetrievalPolicy
from reaugkd.runtime.inference.session.threads import checked_threads
from reaugkd.runtime.inference.text.inputs import Text, checked_input
from reaugkd.runtime.runtime import Runtime

Progress = Callable[[str, str], AbstractContextManager[Callable[[int, int | None], object]]]
Place = tuple[int, int]
"""Tokens of the texts, and rows of the knowledge base or ``ALONE``."""

ALONE = 0
"""The number of rows that stands for the student without retrieval."""

FEWEST_SAMPLES, MOST_SAMPLES = 100, 5000
_TEXTS_TO_CUT, _QUERIES = 2000, 50
_MOST = 100_000_000  # upper limit of every setting; an index of as many rows takes 30 GB
_FEW = 0.5  # share of the requested texts; with fewer different texts the keys stay in the CPU's caches


@dataclass(frozen=True)
class SweepSettings:
    """The settings of a sweep.

    Attributes:
        tokens: tokens per text, special tokens included. Default: 8, 16, 32, 64 and 128, up to the model's maximum.
        rows: rows of the knowledge bases.
        threads: number of threads to compare with one; None uses every core that this process may use.
        seconds: time for the latency measurement, which makes 100 to 5,000 visits.
        samples: number of visits; overrides ``seconds``.
        warmup: visits before the measurement, not counted.
        inputs: number of texts for each number of tokens.
        passes: passes over the texts for the throughput, by one and by several threads alternately; the median counts.
        seed: seed of the texts, the synthetic rows, the order of visits and the bootstrap.

    Raises:
        UsageError: a number is out of range.
    """

    tokens: Sequence[int] | None = None
    rows: Sequence[int] = (10_000, 100_000)
    threads: int | None = None
    seconds: float = 20.0
    samples: int | None = None
    warmup: int = 10
    inputs: int = 200
    passes: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, several in (("tokens", self.tokens), ("rows", self.rows)):
            if several is not None and not _different_numbers(several):
                raise UsageError(
                    f"the sweep's {name} are unusable",
                    found=",".join(map(str, several)) or "none",
                    expected=f"different whole numbers from 1 to {_MOST:,}",
                )
        least = {"seconds": 0.0, "samples": 2, "warmup": 1, "inputs": 1, "passes": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and not bound <= value <= _MOST:
                raise UsageError(f"the sweep's {name} is unusable", found=value, expected=f"{bound} to {_MOST:,}")


@dataclass(frozen=True)
class Alone:
    """The student without retrieval at one number of tokens."""

    tokens: int
    total: Quantiles
    throughput: Throughput


@dataclass(frozen=True)
class Growth:
    """The search p50 relative to the smallest knowledge base, with its 95 % bootstrap interval."""

    ratio: float
    ci95: Interval


@dataclass(frozen=True)
class SweepCell:
    """The student with retrieval, at one number of tokens and of rows.

    Attributes:
        tokens: tokens per text.
        rows: rows of the knowledge base.
        total: latency of a prediction, microseconds.
        search: latency of its search, right after the student's run, microseconds.
        overhead: latency relative to the student alone, on the same visits.
        growth: search latency relative to the smallest knowledge base.
        throughput: throughput of a stream.
    """

    tokens: int
    rows: int
    total: Quantiles
    search: Quantiles
    overhead: Overhead
    growth: Growth
    throughput: Throughput


@dataclass(frozen=True)
class SweepReport:
    """The measurements, sorted by tokens, then by rows.

    Attributes:
        alone: results of the student without retrieval.
        cells: results with retrieval.
        built: by number of rows, the ``seconds`` to build the index, the ``bytes`` of the files, and the ``recall``
            (share of the true k neighbours that a search finds).
        setting: the settings.
        host: the machine and the libraries.
    """

    alone: list[Alone]
    cells: list[SweepCell]
    built: dict[int, dict[str, float]]
    setting: dict[str, Any]
    host: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return asdict(self)


def sweep(
    path: str | Path,
    texts: Sequence[Text] | None = None,
    *,
    settings: SweepSettings | None = None,
    source: str | None = None,
    progress: Progress = lambda _label, _unit: nullcontext(lambda _done, _total: None),
    clock: Clock = perf_counter_ns,
    require_signature: PublicKey | None = None,
) -> SweepReport:
    """Measure a bundle by tokens, rows and threads. The synthetic knowledge bases are in a temporary folder.

    Args:
        path: the bundle's folder.
        texts: texts to cut to length. Default: the texts of the knowledge base, or the golden texts.
        settings: the settings. Default: ``SweepSettings()``.
        source: source of ``texts``, for the report.
        progress: called with (stage, unit) for each stage; the value of its context is called with (done, total).
        clock: clock in nanoseconds; another one for tests.
        require_signature: the key that must have signed the bundle.

    Raises:
        BundleError: the bundle cannot be used.
        StorageError: the temporary folder's disk is full.
        TextError: a text cannot be predicted.
        UsageError: the knowledge base has no rows, there are no texts, or a setting is invalid.
    """
    settings = settings or SweepSettings()
    threads, seed = checked_threads(settings.threads), settings.seed
    with (
        Runtime.open(path, require_signature=require_signature) as runtime,
        tempfile.TemporaryDirectory(prefix="reaugkd-sweep-") as folder,
    ):
        kb = runtime.knowledge_base
        if not isinstance(kb, KnowledgeBase):
            raise UsageError("the bundle has edits", path=path, remedy="Run `reaugkd kb compact` first.")
        if not len(kb):
            raise UsageError("the knowledge base has no rows to copy", path=path, found="0 rows")
        inputs, origin = choose_inputs(runtime, texts, _TEXTS_TO_CUT, seed)
        for text in inputs:
            checked_input(text, runtime.manifest.text_pair)
        lengths = sorted(settings.tokens or usual_lengths(runtime.manifest.max_length))
        cut = {n: texts_of_length(runtime.tokenizer, inputs, n, settings.inputs, seed) for n in lengths}
        synthetic = SyntheticKb(kb, seed)
        bases = _enlarge_all(synthetic, sorted(settings.rows), Path(folder), threads, progress)
        systems = _systems(runtime, bases, cut)
        visit_us = _measure(systems, settings.warmup, seed, clock).visit_us
        samples = settings.samples or _fitting(settings.seconds, visit_us)
        with progress("latencies", "visit") as advance:
            times = _measure(systems, samples, seed, clock, lambda done: advance(done, samples))
        with progress("throughput", "stream") as advance:
            streams = _streams(systems, threads, settings, clock, lambda done: advance(done, len(systems)))
        queries, k = _queries(runtime, cut), runtime.manifest.blend.k
        built = {
            rows: {"seconds": base.build_s, "bytes": base.bytes, "recall": recall(base.kb, queries, k)}
            for rows, base in bases.items()
        }
        setting = {
            "samples": samples,
            "texts": settings.inputs,
            "different_texts": min(len(set(of_length)) for of_length in cut.values()),
            "source": source or origin,
            "threads": threads,
            "own_rows": len(runtime.knowledge_base),
            "nearest": float(np.median(synthetic.nearest)),
            "k": k,
            "index": {**asdict(runtime.manifest.kb), "dtype": DTYPE},
            "passes": settings.passes,
            "seed": seed,
        }
    return SweepReport(
        alone=[Alone(n, Quantiles.of(times.total[n, ALONE]), streams[n, ALONE]) for n in lengths],
        cells=[_cell(times, (n, rows), min(bases), streams[n, rows], seed) for n in lengths for rows in bases],
        built=built,
        setting=setting,
        host=host_facts(),
    )


@dataclass(frozen=True)
class _System:
    pipeline: Pipeline
    texts: Sequence[Text]

    def answer(self, which: int) -> Prediction:
        return self.pipeline.answer(self.texts[which])


@dataclass(frozen=True)
class _Times:
    """Latencies [m] of each system's predictions and searches, in microseconds, in the order of visits."""

    total: dict[Place, Floats]
    search: dict[Place, Floats]

    @property
    def visit_us(self) -> float:
        """The median latency of a visit, all systems together."""
        return float(np.median(sum(self.total.values())))


def _enlarge_all(
    synthetic: SyntheticKb, sizes: Sequence[int], folder: Path, threads: int, progress: Progress
) -> dict[int, EnlargedKb]:
    bases = {}
    for rows in sizes:
        with progress(f"building {rows:,} rows", "row") as advance:
            bases[rows] = synthetic.enlarge(rows, folder / str(rows), threads, advance)
    return bases


def _queries(runtime: Runtime, texts: Mapping[int, Sequence[Text]]) -> NDArray[np.float32]:
    """Compute the embeddings of some texts of each length."""
    pair, each = runtime.manifest.text_pair, -(-_QUERIES // len(texts))
    some = [checked_input(text, pair) for of_length in texts.values() for text in of_length[:each]]
    return np.stack([runtime.student.run(runtime.tokenizer.encode(*text))[1] for text in some])


def _systems(
    runtime: Runtime, bases: Mapping[int, EnlargedKb], texts: Mapping[int, Sequence[Text]]
) -> dict[Place, _System]:
    manifest, tokenizer, own = runtime.manifest, runtime.tokenizer, runtime.knowledge_base
    student = runtime.student
    pipelines = {ALONE: Pipeline(manifest, tokenizer, student, own, RetrievalPolicy("never"))}
    pipelines |= {
        rows: Pipeline(manifest, tokenizer, student, base.kb, RetrievalPolicy()) for rows, base in bases.items()
    }
    return {(n, rows): _System(pipelines[rows], texts[n]) for n, rows in product(texts, pipelines)}


def _measure(
    systems: Mapping[Place, _System],
    samples: int,
    seed: int,
    clock: Clock,
    done: Callable[[int], object] = lambda _visits: None,
) -> _Times:
    """Visit ``samples`` inputs; ``done`` is called with the number of started visits."""
    search = np.empty((samples, len(systems)))

    def note(visit: int, task: int, result: object) -> None:
        assert isinstance(result, Prediction)
        search[visit, task] = result.timings.search_us
        if task == 0:
            done(visit + 1)

    inputs = len(next(iter(systems.values())).texts)
    tasks = [system.answer for system in systems.values()]
    total = interleave(tasks, visits(inputs, samples, seed), seed=seed, clock=clock, after=note)
    return _Times(
        {place: total[:, i] for i, place in enumerate(systems)},
        {place: search[:, i] for i, place in enumerate(systems)},
    )


def _streams(
    systems: Mapping[Place, _System],
    threads: int,
    settings: SweepSettings,
    clock: Clock,
    done: Callable[[int], object],
) -> dict[Place, Throughput]:
    found: dict[Place, Throughput] = {}
    for place, one in systems.items():
        texts = [one.texts[i] for i in visits(len(one.texts), TEXTS_PER_PASS, settings.seed)]
        found[place] = measure_streams(one.pipeline, texts, threads, settings.passes, clock)
        done(len(found))
    return found


def _cell(times: _Times, place: Place, smallest: int, throughput: Throughput, seed: int) -> SweepCell:
    tokens, rows = place
    total, search, base = times.total[place], times.search[place], times.search[tokens, smallest]
    low, high = median_ratio_interval(search, base, seed)
    return SweepCell(
        tokens=tokens,
        rows=rows,
        total=Quantiles.of(total),
        search=Quantiles.of(search),
        overhead=Overhead.of(total, times.total[tokens, ALONE], seed),
        growth=Growth(float(np.median(search) / np.median(base)), (1 + low / 100, 1 + high / 100)),
        throughput=throughput,
    )


def _different_numbers(several: Sequence[object]) -> bool:
    whole = [number for number in several if isinstance(number, int) and 1 <= number <= _MOST]
    return bool(whole) and len(set(whole)) == len(several)


def few_texts(report: SweepReport) -> bool:
    """Whether there were so few different texts that the keys stayed in the CPU's caches."""
    return bool(report.setting["different_texts"] < _FEW * report.setting["texts"])


def _fitting(seconds: float, visit_us: float) -> int:
    """Return the number of visits that fit in the time."""
    return max(FEWEST_SAMPLES, int(min(MOST_SAMPLES, seconds * 1e6 / visit_us)))

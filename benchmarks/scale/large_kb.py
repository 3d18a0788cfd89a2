"""Knowledge bases of up to many millions of rows, grown from the keys of real texts, for `reaugkd kb build`.

    python benchmarks/scale/large_kb.py grow BUNDLE TEXTS ROWS OUT [--shards 2]
    reaugkd kb build BUNDLE --data OUT.lake --out OUT --shards 2 --part-rows 100000
    python benchmarks/scale/large_kb.py measure OUT OUT.queries BUNDLE

TEXTS has one text a line; every tenth goes to OUT.queries. ``grow`` encodes the others, and makes ROWS keys of
them: the keys themselves, then keys between a key and four of its sixteen nearest ones, ``unit(a + sum of g (b - a))``
with g normal with deviation 0.5. So their directions are those in which near real texts differ. It writes the data and
the first stage of the work (`batch.build.rows`) as if the rows were encoded: the command then builds the index, with
the time that real rows take. Encoding itself is 0.8 ms a text. Soft labels are the student's.

``measure`` gives OUT the blend and the gate of BUNDLE, because the labels of grown rows are of no use and the student
would answer alone; and it tunes the search on 256 of the queries, because the held-out rows of BUNDLE are of its own
task only. It prints one JSON object: latency of student, retrieval and, where BUNDLE has a gate, gated retrieval in
turns, warm and after the page cache was emptied (root only), recall on other queries, memory, bytes.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from reaugkd import Runtime
from reaugkd.batch.build.rows import GOLD, HASH, KEY, LABEL, LINE, ROW, SHARD, binary, write_rows
from reaugkd.batch.build.settings import CENTRES_FILE, BuildOptions, Sampled
from reaugkd.batch.job.inputs import find_files
from reaugkd.batch.job.plan import Plan
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.index.exact_search import unit
from reaugkd.kb.index.grouping import SAMPLE_PER_CENTRE, centre_count, grouped
from reaugkd.kb.index.hnsw import VectorIndex
from reaugkd.kb.index.shard_tuning import exact_neighbours, tune
from reaugkd.kb.index.shards import ShardedIndex
from reaugkd.kb.index.stored_keys import stored_form
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.kb.soft_labels import LABEL_LOSS, top_within, with_top
from reaugkd.runtime.bundle.bundle import KB_FOLDER, Bundle
from reaugkd.runtime.bundle.manifest import seal

Floats = NDArray[np.float32]

NEAREST, TERMS, SPREAD = 16, 4, 0.5
PART = 100_000
QUERIES = 500


def read_texts(path: Path) -> list[str]:
    """The different texts of a file, one a line."""
    return list(dict.fromkeys(line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()))


def encoded(bundle: Path, texts: list[str]) -> tuple[Floats, Floats]:
    """The keys [n, d] and the student's probabilities [n, c]."""
    with Runtime.open(bundle, 1, "never") as runtime:
        answers = [runtime.student.answer(runtime.tokenizer.encode(text)) for text in texts]
    return unit(np.array([one.embedding for one in answers])), np.array([one.probabilities for one in answers])


def grown(keys: Floats, near: NDArray[np.int64], start: int, count: int) -> Floats:
    """Keys ``start`` to ``start + count`` of the grown ones."""
    rng = np.random.default_rng(start)
    parents = np.arange(start, start + count) % len(keys)
    found = keys[parents].copy()
    new = np.arange(start, start + count) >= len(keys)
    for _ in range(TERMS):
        other = keys[near[parents, rng.integers(1, NEAREST + 1, count)]]
        step = SPREAD * rng.standard_normal((count, 1), np.float32)
        found[new] += (step * (other - keys[parents]))[new]
    return unit(found)


def grow(bundle: Path, texts: Path, rows: int, out: Path, shards: int) -> None:
    """Write the data and the first stage of the work."""
    every = read_texts(texts)
    own = [text for number, text in enumerate(every) if number % 10]
    out.with_name(out.name + ".queries").write_text("\n".join(every[::10]), encoding="utf-8")
    keys, probabilities = encoded(bundle, own)
    manifest, seal = Bundle.open(bundle).manifest, Bundle.open(bundle).seal
    index = VectorIndex.build(keys, IndexConfig(keys.shape[1], expansion_search=128), threads=2)
    near = index.search_many(keys, NEAREST + 1, 2)[0]
    top = top_within(probabilities, LABEL_LOSS)
    labels, best = with_top(probabilities, top), probabilities.argmax(axis=1)
    lake, work = out.with_name(out.name + ".lake"), out.with_name(out.name + ".build")
    lake.mkdir(parents=True)
    work.mkdir()
    schema = pa.schema([("label", pa.string())])
    for number, start in enumerate(range(0, rows, PART)):
        places = np.arange(start, min(start + PART, rows))
        table = {
            "text": [f"{own[place % len(own)]} {place}" for place in places],
            "label": [manifest.labels[best[place % len(own)]] for place in places],
        }
        parquet.write_table(pa.table(table), lake / f"{number:05d}.parquet")
    files = find_files([str(lake)], work, print)
    counts = tuple((file, min(PART, rows - number * PART)) for number, file in enumerate(files))
    plan = Plan(BuildOptions(seal, shards, part_rows=PART), counts, "text", None, schema)
    plan.write(work)
    wanted = SAMPLE_PER_CENTRE * centre_count(shards)
    some = np.linspace(0, rows - 1, min(wanted, rows)).astype(np.int64)
    sample = np.concatenate([grown(keys, near, int(place), 1) for place in some])
    centres = grouped(sample, shards)
    Sampled(top, "00" * 32).write(work)
    for part in plan.parts:
        start = part.number * PART
        made, parents = grown(keys, near, start, part.rows), np.arange(start, start + part.rows) % len(own)
        texts_of = parquet.read_table(part.file.path, columns=["text"]).column(0).to_pylist()
        columns = {
            SHARD: centres.shards_of(made).astype(np.int16),
            ROW: np.arange(start, start + part.rows),
            GOLD: best[parents].astype(np.int32),
            HASH: binary(np.arange(start, start + part.rows).astype("<u8").repeat(2).view("V16")),
            KEY: binary(stored_form(made, manifest.kb.dtype)),
            LABEL: binary(labels[parents]),
            LINE: pa.array([json.dumps(text).encode() + b"\n" for text in texts_of], pa.large_binary()),
        }
        write_rows(work / part.name, pa.table(columns), Counter())
    centres.save(work / CENTRES_FILE)


def prepare(path: Path, queries: list[str], source: Path) -> None:
    """Give a bundle the blend and the gate of another one, and a search that is tuned on queries."""
    manifest = Bundle.open(path, verify=False).manifest
    kb = KnowledgeBase.open(path / KB_FOLDER, manifest.kb, len(manifest.labels))
    assert isinstance(kb.index, ShardedIndex)
    tune(kb.index, encoded(path, queries)[0], manifest.blend.k)
    config = kb.index.config
    del kb
    other = Bundle.open(source).manifest
    seal(path, replace(manifest, blend=other.blend, gate=other.gate, kb=config))


def measure(bundle: Path, texts: Path, source: Path) -> dict[str, Any]:
    """Measure a bundle."""
    queries = read_texts(texts)
    queries = queries[:: max(1, len(queries) // (QUERIES + 256))]
    prepare(bundle, queries[:256], source)
    queries = queries[256:][:QUERIES]
    began = time.perf_counter()
    runtime = Runtime.open(bundle, 1, verify=False)
    opened = time.perf_counter() - began
    began = time.perf_counter()
    runtime.predict(queries[0])
    first = time.perf_counter() - began
    alone = runtime.with_retrieval("never")
    gated = None if runtime.gate is None else runtime.with_retrieval("gated")
    cold = None
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
        cold = spread([timed(runtime, text) for text in queries[:100]])
    except OSError:
        pass
    for text in queries:
        runtime.predict(text)
    gc.disable()
    student, both = in_turns(alone, runtime, queries)
    # Apart: a search before it would leave the student's weights out of the caches.
    gated_times = None if gated is None else in_turns(alone, gated, queries)
    gc.enable()
    kb = runtime.knowledge_base
    keys = encoded(bundle, queries[:256])[0]
    k = runtime.manifest.blend.k
    shards = getattr(kb.index, "shards", (kb.index,))  # type: ignore[attr-defined]
    exact = exact_neighbours(kb.index, keys, k)[0]
    found = kb.search_many(keys, k)[0]
    recall = float(np.mean([np.isin(true, some).mean() for true, some in zip(exact, found, strict=True)]))
    searches = []
    for key in np.tile(keys, (4, 1)):
        began = time.perf_counter()
        kb.search(key, k)
        searches.append(time.perf_counter() - began)
    return {
        "rows": len(kb),
        "shards": len(shards),
        "bytes_per_row": sum(kb.nbytes().values()) / len(kb),
        "index_bytes_per_row": kb.nbytes()["index"] / len(kb),
        "k": k,
        "ef_search": kb.config.expansion_search,
        "probes": kb.config.probes,
        "recall": recall,
        "open_s": opened,
        "first_s": first,
        "student_us": spread(student),
        "retrieval_us": spread(both),
        "overhead": overhead(student, both),
        "gated_us": None if gated_times is None else spread(gated_times[1]),
        "gated_overhead": None if gated_times is None else overhead(*gated_times),
        "gated_share": None if gated is None else gated.stats()["retrieved"] / gated.stats()["predictions"],
        "search_us": spread(searches),
        "cold_us": cold,
        "max_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def in_turns(first: Runtime, second: Runtime, texts: list[str]) -> Any:
    """The seconds of both [2, 5 * n]."""
    return np.array([(timed(first, text), timed(second, text)) for _ in range(5) for text in texts]).T


def timed(runtime: Runtime, text: str) -> float:
    """Seconds of a prediction."""
    began = time.perf_counter()
    runtime.predict(text)
    return time.perf_counter() - began


def overhead(student: Any, other: Any) -> dict[str, float]:
    """What is added to the student's time, as a share of it."""
    return {
        "mean": float(other.mean() / student.mean() - 1),
        "p50": float(np.median(other) / np.median(student) - 1),
        "p95": float(np.percentile(other, 95) / np.percentile(student, 95) - 1),
    }


def spread(seconds: Any) -> dict[str, float]:
    """The median and the 95th percentile in microseconds."""
    return {"p50": float(np.median(seconds) * 1e6), "p95": float(np.percentile(seconds, 95) * 1e6)}


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("grow")
    for name in ("bundle", "texts"):
        first.add_argument(name, type=Path)
    first.add_argument("rows", type=int)
    first.add_argument("out", type=Path)
    first.add_argument("--shards", type=int, default=2)
    second = commands.add_parser("measure")
    for name in ("bundle", "texts", "source"):
        second.add_argument(name, type=Path)
    given = parser.parse_args()
    if given.command == "grow":
        grow(given.bundle, given.texts, given.rows, given.out, given.shards)
    else:
        print(json.dumps(measure(given.bundle, given.texts, given.source)))  # noqa: T201


if __name__ == "__main__":
    main()

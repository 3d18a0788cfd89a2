"""Compare faiss's HNSW with usearch's: the same keys, connectivity, expansion and k, in the same pipeline.

Searches are timed inside predictions, right after a run of the student, which evicts the index from the caches. In a
loop of searches alone both libraries would be several times as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from reaugkd import Runtime
from reaugkd.kb.index.exact_search import exact_search
from reaugkd.kb.index.shards import INDEX_FILE
from reaugkd.kb.knowledge_base import ROW_DTYPE, KnowledgeBase
from reaugkd.runtime.benchmark.latency import Quantiles, interleave, visits
from reaugkd.runtime.bundle.bundle import KB_FOLDER
from reaugkd.runtime.inference.pipeline import Pipeline
from reaugkd.runtime.inference.retrieval_policy import RetrievalPolicy

Floats = NDArray[np.float32]

FLOAT32_GRAPH, SAME_GRAPH = "float32", "same"
"""faiss with float32 keys, its default, and with keys stored in the type of the bundle's index."""

_STORED_AS = {"f16": "QT_fp16", "bf16": "QT_bf16", "i8": "QT_8bit"}


class FaissIndex:
    """An index of a knowledge base, searched by faiss."""

    def __init__(self, path: Path, breadth: int) -> None:
        faiss.omp_set_num_threads(1)
        self._index = faiss.read_index(str(path))
        self._index.hnsw.efSearch = breadth

    def search(self, query: Floats, k: int) -> tuple[NDArray[np.int64], Floats]:
        """Return the k rows with the largest cosine, best first, and their cosines."""
        similarities, rows = self._index.search(query[np.newaxis], k)
        return rows[0], similarities[0]


def write_graphs(runtime: Runtime, folder: Path) -> None:
    """Build faiss's graphs of a bundle's keys."""
    folder.mkdir()
    kb, config = runtime.knowledge_base, runtime.manifest.kb
    keys, metric = _keys(kb), faiss.METRIC_INNER_PRODUCT
    graphs = {FLOAT32_GRAPH: faiss.IndexHNSWFlat(config.ndim, config.connectivity, metric)}
    if config.dtype in _STORED_AS:
        kind = getattr(faiss.ScalarQuantizer, _STORED_AS[config.dtype])
        graphs[SAME_GRAPH] = faiss.IndexHNSWSQ(config.ndim, kind, config.connectivity, metric)
    for name, graph in graphs.items():
        graph.hnsw.efConstruction = config.expansion_add
        graph.train(keys)
        graph.add(keys)
        faiss.write_index(graph, str(folder / f"{name}.index"))


def on_faiss(runtime: Runtime, path: Path) -> KnowledgeBase:
    """Return the bundle's knowledge base with a faiss graph as its index."""
    own = runtime.knowledge_base
    index: Any = FaissIndex(path, runtime.manifest.kb.expansion_search)
    return KnowledgeBase(index, own.soft_labels, np.zeros(len(own), ROW_DTYPE), b"")


def pipeline_on(runtime: Runtime, kb: KnowledgeBase) -> Pipeline:
    """Return the bundle's pipeline with another knowledge base."""
    return Pipeline(runtime.manifest, runtime.tokenizer, runtime.student, kb, RetrievalPolicy())


def compare_graphs(built: Path, texts: Sequence[str], count: int) -> dict[str, Any]:
    """Measure recall, latency and bytes of each graph, interleaved on ``count`` texts."""
    runtime = Runtime.open(built / "bundle", threads=1)
    student, config, k = runtime.student, runtime.manifest.kb, runtime.manifest.blend.k
    files = {f"usearch, {config.dtype}": built / "bundle" / KB_FOLDER / INDEX_FILE}
    for path in sorted((built / "faiss").glob("*.index")):
        files[f"faiss, {config.dtype if path.stem == SAME_GRAPH else path.stem}"] = path
    own = runtime.knowledge_base
    bases = {name: on_faiss(runtime, path) if path.suffix == ".index" else own for name, path in files.items()}
    search_us = np.empty((count, len(bases)))

    def note(visit: int, task: int, prediction: Any) -> None:
        search_us[visit, task] = prediction.timings.search_us

    tasks = [_answers(pipeline_on(runtime, kb), texts) for kb in bases.values()]
    order = visits(len(texts), count, 0)
    interleave(tasks, order[: len(texts)])
    interleave(tasks, order, after=note)
    queries = np.stack([student.run(runtime.tokenizer.encode(text))[1] for text in texts])
    exact = exact_search(_keys(own), queries, k)[0]
    graphs = {}
    for i, (name, kb) in enumerate(bases.items()):
        times = Quantiles.of(search_us[:, i])
        graphs[name] = {
            "recall": _recall(exact, [kb.search(query, k).rows for query in queries]),
            "p50_us": times.p50_us,
            "p95_us": times.p95_us,
            "bytes": files[name].stat().st_size,
        }
    setting = {"rows": len(own), "ndim": config.ndim, "k": k, "edges": config.connectivity}
    return {"setting": {**setting, "width": config.expansion_search, "visits": count}, "graphs": graphs}


def _recall(exact: NDArray[np.int64], found: Sequence[NDArray[np.int64]]) -> float:
    """Compute the mean share of the true neighbours that are found."""
    return float(np.mean([np.isin(true, some).mean() for true, some in zip(exact, found, strict=True)]))


def _answers(pipeline: Pipeline, texts: Sequence[str]) -> Any:
    return lambda i: pipeline.answer(texts[i])


def _keys(kb: KnowledgeBase) -> Floats:
    """Return the stored keys, normalised to length 1."""
    keys = kb.keys()
    return keys / np.linalg.norm(keys, axis=1, keepdims=True)

"""The stages inside a run whose graph searches and blends, by ONNX Runtime's profiler."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..bundle.onnx_safety import read_onnx_file
from ..graph.retrieval import PREFIX, SEARCH_NODES
from ..inference.session.retrieval_session import RetrievalSession
from ..opening import base_of
from ..runtime import Runtime

WARMUP = 20


def graph_stages(runtime: Runtime, feeds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean microseconds of a run in the nodes of the student, of the search and of the blend.

    The profiler gives whole microseconds for each node, rounded down, and its own work slows the run: the stages show
    where the time goes, not how much a run takes.

    Args:
        runtime: an open bundle; another session with the profiler is opened.
        feeds: inputs of some texts.

    Raises:
        BundleError: the model cannot be loaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        manifest, path, kb = runtime.manifest, runtime.student.path, base_of(runtime.knowledge_base)
        model, prefix = read_onnx_file(path), Path(folder) / "profile"
        made = RetrievalSession(path, kb, manifest.blend, len(manifest.labels), runtime.threads, model, prefix)
        profiled = made.session
        for number in range(WARMUP + len(feeds)):
            profiled.run(None, dict(feeds[number % len(feeds)]))
        events = json.loads(Path(profiled.end_profiling()).read_text())
    runs = [event["ts"] for event in events if event["name"] == "model_run"]
    first = sorted(runs)[WARMUP]
    spent: Counter[str] = Counter(student=0, search=0, blend=0)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= first:
            spent[_stage(event["name"])] += event["dur"]
    return {stage: total / len(feeds) for stage, total in spent.items()}


def _stage(node: str) -> str:
    if not node.startswith(PREFIX):
        return "student"
    return "search" if node.startswith(SEARCH_NODES) else "blend"

"""The measured process of `cold_start`: opens a bundle, predicts, and reports times and memory.

Started as ``python -P -c COMMAND``. It reads a request from stdin and writes its results to stdout, each one JSON
object. The imports at the top count as import time, so they are from the standard library only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter_ns
from typing import Any

_IMPORT = "from reaugkd.runtime.benchmark.cold_start_process import main"
COMMAND = f"import time; start = time.perf_counter_ns(); {_IMPORT}; main(start)"
"""``start`` is taken before this package is imported."""


def main(start: int) -> None:
    """Run the measurement that is requested on stdin: ``{"kind": "runtime" | "session", ...}``.

    Args:
        start: ``perf_counter_ns()`` at the start of the program.
    """
    reading = perf_counter_ns()
    request = json.load(sys.stdin)
    start += perf_counter_ns() - reading  # exclude the wait for the request
    measured = _runtime(request, start) if request["kind"] == "runtime" else _session(request, start)
    json.dump({**measured, **memory()}, sys.stdout)


def memory() -> dict[str, int | None]:
    """Return the current and the peak resident memory of this process, in bytes; None on other systems than Linux.

    Not ``getrusage``: a process inherits ``ru_maxrss`` from its parent.
    """
    return {"rss_bytes": _status("VmRSS"), "peak_rss_bytes": _status("VmHWM")}


def _runtime(request: dict[str, Any], start: int) -> dict[str, float]:
    """Measure the runtime: open the bundle, and predict ``texts``, the first of them timed."""
    from ...kb.storage.ed25519 import PublicKey
    from ..inference.session.onnxruntime_setup import import_onnxruntime
    from ..runtime import Runtime

    import_onnxruntime()  # the runtime imports it when it opens a bundle; here it counts as an import

    imported = perf_counter_ns()
    signer = None if request.get("signer") is None else PublicKey(bytes.fromhex(request["signer"]))
    runtime = Runtime.open(
        request["path"],
        threads=request["threads"],
        retrieval=request["retrieval"],
        search=request["search"],
        require_signature=signer,
        follow_links=request["follow_links"],
    )
    opened = perf_counter_ns()
    texts = [tuple(text) if isinstance(text, list) else text for text in request["texts"]]
    runtime.predict(texts[0])
    answered = perf_counter_ns()
    for text in texts[1:]:
        runtime.predict(text)
    return _stages(start, imported, opened, answered)


def _session(request: dict[str, Any], start: int) -> dict[str, float]:
    """Measure ONNX Runtime alone, with token ids as ``feeds``."""
    import numpy as np

    from ..inference.session.onnxruntime_setup import import_onnxruntime

    onnxruntime = import_onnxruntime()
    imported = perf_counter_ns()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(request["path"], options, providers=["CPUExecutionProvider"])
    opened = perf_counter_ns()
    feeds = [{name: np.array(ids, np.int64) for name, ids in feed.items()} for feed in request["feeds"]]
    session.run(None, feeds[0])
    answered = perf_counter_ns()
    for feed in feeds[1:]:
        session.run(None, feed)
    return _stages(start, imported, opened, answered)


def _stages(start: int, imported: int, opened: int, answered: int) -> dict[str, float]:
    return {
        "import_ms": (imported - start) / 1e6,
        "open_ms": (opened - imported) / 1e6,
        "first_answer_ms": (answered - opened) / 1e6,
    }


def _status(field: str) -> int | None:
    """Return a size in /proc/self/status, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(sizes[0]) * 1024 if sizes else None

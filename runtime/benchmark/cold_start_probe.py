"""The measured side of ``footprint``: a fresh process that opens a bundle, answers, and says what that took.

Started as ``python -P -c COMMAND``. It reads its orders from stdin and writes its findings to stdout, both one
JSON object. What it imports at the top is what an import is charged with, so that is the standard library only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter_ns
from typing import Any

_IMPORT = "from reaugkd.runtime.benchmark.cold_start_probe import main"
COMMAND = f"import time; start = time.perf_counter_ns(); {_IMPORT}; main(start)"
"""``start`` is taken before anything of this package is imported."""


def main(start: int) -> None:
    """Follow the orders on stdin: ``{"kind": "runtime" | "session", ...}``.

    Args:
        start: ``perf_counter_ns()`` at the start of the program.
    """
    reading = perf_counter_ns()
    orders = json.load(sys.stdin)
    start += perf_counter_ns() - reading  # waiting for orders is not part of a start
    measured = _runtime(orders, start) if orders["kind"] == "runtime" else _session(orders, start)
    json.dump({**measured, **memory()}, sys.stdout)


def memory() -> dict[str, int | None]:
    """This process's resident memory now and at its highest, in bytes; None on other systems than Linux.

    Not ``getrusage``: a process inherits its ``ru_maxrss`` from the one that started it.
    """
    return {"rss_bytes": _status("VmRSS"), "peak_rss_bytes": _status("VmHWM")}


def _runtime(orders: dict[str, Any], start: int) -> dict[str, float]:
    """The whole runtime on ``texts``, the first of them timed."""
    from ...kb.index.usearch_import import compiled
    from ...kb.storage.ed25519 import PublicKey
    from ..inference.onnxruntime_setup import import_onnxruntime
    from ..runtime import Runtime

    # The engine imports these two only when it opens a bundle; here they count as imports. In this order: with
    # usearch 2.26 loaded first, importing onnxruntime 1.31 can crash the process.
    import_onnxruntime()
    compiled()

    imported = perf_counter_ns()
    signer = None if orders.get("signer") is None else PublicKey(bytes.fromhex(orders["signer"]))
    runtime = Runtime.open(
        orders["path"], threads=orders["threads"], retrieval=orders["retrieval"], require_signature=signer
    )
    opened = perf_counter_ns()
    texts = [tuple(text) if isinstance(text, list) else text for text in orders["texts"]]
    runtime.predict(texts[0])
    answered = perf_counter_ns()
    for text in texts[1:]:
        runtime.predict(text)
    return _stages(start, imported, opened, answered)


def _session(orders: dict[str, Any], start: int) -> dict[str, float]:
    """ONNX Runtime alone on ready ``feeds``: what any user of the model pays."""
    import numpy as np

    from ..inference.onnxruntime_setup import import_onnxruntime

    onnxruntime = import_onnxruntime()
    imported = perf_counter_ns()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = orders["threads"]
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(orders["path"], options, providers=["CPUExecutionProvider"])
    opened = perf_counter_ns()
    feeds = [{name: np.array(ids, np.int64) for name, ids in feed.items()} for feed in orders["feeds"]]
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
    """A size from Linux's account of this process, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(sizes[0]) * 1024 if sizes else None

"""Compare the latency of an int8 and a float32 student, interleaved.

python benchmarks/latency/int8.py BUNDLE FLOAT32_BUNDLE TEXTS
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from reaugkd import Runtime
from reaugkd.runtime.benchmark.latency import Task, interleave, visits

VISITS, WARM_UP = 2000, 100


def main(bundle: str, float32: str, path: str) -> None:
    """Print the latency of float32 divided by that of int8."""
    texts = Path(path).read_text(encoding="utf-8").splitlines()
    runtimes = [Runtime.open(one, retrieval="never") for one in (bundle, float32)]
    for name, tasks in (
        ("session.run", [_run(one, texts) for one in runtimes]),
        ("predict", _predict(runtimes, texts)),
    ):
        interleave(tasks, visits(len(texts), WARM_UP, 1))
        p50, p95 = np.percentile(interleave(tasks, visits(len(texts), VISITS, 0)), [50, 95], axis=0)
        sys.stdout.write(
            f"{name}: int8 {p50[0]:.0f} us, float32 {p50[1]:.0f} us, {p50[1] / p50[0]:.2f} times at the p50, "
            f"{p95[1] / p95[0]:.2f} at the p95\n"
        )


def _run(runtime: Runtime, texts: list[str]) -> Task:
    run = runtime.student.session.run
    feeds = [runtime.student.feeds(runtime.tokenizer.encode(text)) for text in texts]
    return lambda i: run(None, feeds[i])


def _predict(runtimes: list[Runtime], texts: list[str]) -> list[Task]:
    return [lambda i, runtime=runtime: runtime.predict(texts[i]) for runtime in runtimes]  # type: ignore[misc]


if __name__ == "__main__":
    main(*sys.argv[1:4])

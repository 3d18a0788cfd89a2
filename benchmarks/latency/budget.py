"""Measure how often retrieval exceeds a latency budget that the student alone meets, on an idle and on a busy machine.

    python benchmarks/latency/budget.py BUNDLE DATA [SPLIT]

Texts of all lengths (one to eight texts of DATA, joined) are predicted alternately with a search for every text and
with a budget. The load is one process per core that copies memory. "Late by retrieval": the student finished within the
budget, but search and blend exceeded it. "Late by the student": the student alone exceeded the budget, which no setting
of retrieval can prevent.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from reaugkd import Runtime
from reaugkd.runtime.benchmark.latency import interleave, visits
from reaugkd.runtime.data import Columns, choose_split, load_dataset
from reaugkd.runtime.inference.prediction import Prediction
from reaugkd.runtime.output.text_table import table

TEXTS, VISITS, JOINED = 400, 2000, 8
QUANTILES = (0.5, 0.75, 0.95)
"""Quantiles of the latency with a search for every text; each is tried as a budget."""


@dataclass(frozen=True)
class Answers:
    """One setting's answers: microseconds until the student and the answer were done, and which texts were searched."""

    student: Any
    total: Any
    searched: Any

    def late(self, limit_us: float) -> tuple[float, float]:
        """Return the shares of answers late by the student and late by retrieval."""
        by_student = self.student > limit_us
        return float(by_student.mean()), float((~by_student & (self.total > limit_us)).mean())


def main(path: str, data: str, split: str | None = None) -> None:
    """Print the table."""
    rows = choose_split(load_dataset(data, Columns()), split)[1].texts
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(rows, 1 + i % JOINED)) for i in range(TEXTS)]
    always = Runtime.open(path)
    idle = measured([always], texts)[0]
    budgets = [float(np.quantile(idle.total, share)) for share in QUANTILES]
    lines = []
    for name, processes in (("idle", 0), ("load", os.cpu_count() or 1)):
        with load(processes):
            for limit_us in budgets:
                bound = Runtime.open(path, budget_ms=limit_us / 1e3)
                for setting, found in zip(("always", "budget"), measured([always, bound], texts), strict=True):
                    student, retrieval = found.late(limit_us)
                    shares = [f"{share:.2%}" for share in (student, retrieval, float(found.searched.mean()))]
                    lines.append([name, f"{limit_us / 1e3:.2f}", setting, *shares])
    head = ["machine", "budget ms", "search", "late by the student", "late by retrieval", "searched"]
    sys.stdout.write(table(head, lines) + "\n")


def measured(runtimes: list[Runtime], texts: list[str]) -> list[Answers]:
    """Predict the same texts with each runtime, interleaved."""
    found = np.zeros((3, VISITS, len(runtimes)))

    def note(visit: int, task: int, answer: Any) -> None:
        assert isinstance(answer, Prediction)
        timings = answer.timings
        done = timings.tokenize_us + timings.run_us
        found[:, visit, task] = done, done + timings.search_us + timings.blend_us, answer.retrieved

    tasks = [lambda i, runtime=runtime: runtime.predict(texts[i]) for runtime in runtimes]
    interleave(tasks, visits(len(texts), 100, 1))
    interleave(tasks, visits(len(texts), VISITS, 0), after=note)
    return [Answers(*found[:, :, task]) for task in range(len(runtimes))]


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Run processes that copy memory until the block ends."""
    busy = [multiprocessing.get_context("spawn").Process(target=_copy, daemon=True) for _ in range(processes)]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.join()


def _copy() -> None:
    block = np.zeros(4_000_000)
    while True:
        block = block.copy()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Whether retrieval ever makes an answer late that the student alone would have given in time, idle and under load.

    python benchmarks/budget.py BUNDLE DATA [SPLIT]

Texts of all lengths (one to eight of DATA's, joined) are answered in turn with a search for every text and with a
budget. The load is a process a core that copies memory. Late by retrieval: the student was done within the budget, and
search and blend took the answer beyond it. Late by the student: it was beyond the budget already, which no setting of
retrieval can help.
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
"""Of the answers' time with a search for every text: the budgets that are tried."""


@dataclass(frozen=True)
class Answers:
    """Of one setting: microseconds at which the student was done and the answer was there, and who searched."""

    student: Any
    total: Any
    searched: Any

    def late(self, limit_us: float) -> tuple[float, float]:
        """The shares that were late by the student and by retrieval."""
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
    """The answers of each runtime to the same texts, taking turns."""
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
    """So many processes that copy memory meanwhile."""
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

"""The fastest quantization whose student still answers as the float32 one, on the machine that exports.

Which one that is depends on the processor and on the length of texts: static int8 saves the search for each tensor's
range, and pays with nodes that fuse less well. So they take turns on held-out rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from ...errors import QualityError
from ...kb.index.exact_search import exact_search
from ...runtime.benchmark.latency import Clock, Task, interleave, visits
from ...runtime.inference.student import StudentSession
from .export import Quantization
from .quality import Floors, StudentOutputs, report_of

CANDIDATES: tuple[Quantization, ...] = ("dynamic", "static", "none")
"""In the order in which they are preferred: a later one must be clearly faster than an earlier one."""

CLEARLY = 0.97
VISITS = 500
NEIGHBOURS = 8


@dataclass(frozen=True)
class Choice:
    """A quantization and how it was chosen.

    Args:
        kind: the choice.
        time: of each kind that passed the floors, the median of a run over that of ``kind``'s.
        refused: of each that did not, the floors it missed, or why it could not be made.
    """

    kind: Quantization
    time: dict[str, float]
    refused: dict[str, list[str]] = field(default_factory=dict)


def choose(
    float32: StudentSession,
    candidates: Mapping[Quantization, StudentSession],
    rows: Sequence[Encoding],
    gold: NDArray[np.int64],
    floors: Floors | None,
    clock: Clock = perf_counter_ns,
    advance: Callable[[int], object] = lambda _rows: None,
    refused: Mapping[str, list[str]] | None = None,
) -> Choice:
    """The fastest of the candidates that pass the floors.

    Args:
        float32: what they are compared with.
        candidates: the preferred first.
        rows: held-out rows.
        gold: [n], their labels' indices.
        floors: of the quality gate, with neighbours looked for among the held-out rows; None lets everything pass.
        clock: for tests.
        advance: called with the number of runs that were just done; `runs` are all.
        refused: kinds that are no candidates, and why.

    Raises:
        QualityError: none passes.
    """

    def answers(session: StudentSession) -> StudentOutputs:
        found = [session.run(row) for row in rows]
        advance(len(rows))
        return StudentOutputs(*(np.stack(part) for part in zip(*found, strict=True)))

    wanted = answers(float32)
    near = _other_rows(wanted.queries, wanted.queries)
    refused = dict(refused or {})
    for kind, session in candidates.items():
        got = answers(session)
        report = report_of(wanted, got, gold, near, _other_rows(wanted.queries, got.queries))
        if floors is not None and (missed := report.failures(floors)):
            refused[kind] = missed
    passed = [kind for kind in candidates if kind not in refused]
    if not passed:
        found = "; ".join(f"{kind}: {', '.join(missed)}" for kind, missed in refused.items())
        raise QualityError("no quantization keeps the student's answers", found=found)
    order = visits(len(rows), VISITS, seed=0)
    turns = interleave([_runs(candidates[kind], rows) for kind in passed], order, clock=clock)
    advance(turns.size)
    medians = dict(zip(passed, np.median(turns, axis=0).tolist(), strict=True))
    chosen = passed[0]
    for kind in passed[1:]:
        if medians[kind] < CLEARLY * medians[chosen]:
            chosen = kind
    return Choice(chosen, {kind: round(median / medians[chosen], 3) for kind, median in medians.items()}, refused)


def _other_rows(keys: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.int64]:
    """The nearest keys of each query, but for its own: every row is near to itself in any quantization."""
    rows = exact_search(keys, queries, NEIGHBOURS + 1)[0]
    own = rows == np.arange(len(rows))[:, np.newaxis]
    own[~own.any(axis=1), -1] = True
    others: NDArray[np.int64] = rows[~own].reshape(len(rows), -1)
    return others


def runs(rows: int) -> int:
    """How many runs a choice between all candidates takes."""
    return rows * (1 + len(CANDIDATES)) + VISITS * len(CANDIDATES)


def _runs(session: StudentSession, rows: Sequence[Encoding]) -> Task:
    return lambda row: session.run(rows[row])

"""Measure the time of an answer and of a correction, all systems in turns in one process, one thread.

    python timing.py DATA TASK SEED OUT    (writes OUT/timing.json)

Texts are those of the stream, encoded when they are asked for. A correction is the call that tells one row; work that
the system does in the background afterwards is measured apart. CPU time is that of the process: other work on the
machine changes it least.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from build import SYSTEMS, load, open_system, vectors_of
from systems import System

ANSWERS, CORRECTIONS = 40, 5


def main(data: Path, task: str, seed: int, out: Path) -> None:
    """Measure, and write the medians in milliseconds."""
    rows, stream = load(data, task, seed)
    known = vectors_of(out, list(rows))
    rng = np.random.default_rng(0)
    taken: dict[str, dict[str, list[float]]] = {name: {} for name in SYSTEMS}
    with tempfile.TemporaryDirectory() as scratch:
        systems = {}
        for name in SYSTEMS:
            (Path(scratch) / name).mkdir()
            systems[name] = open_system(name, out, Path(scratch) / name, rows, known)
        for event in stream.events[:ANSWERS]:
            for name in rng.permutation(list(SYSTEMS)):
                systems[name].answer(stream.events[-1].text)  # the other systems have emptied the caches
                _add(taken[name], "answer", lambda name=name, text=event.text: systems[name].answer(text))
        for event in stream.events[ANSWERS : ANSWERS + CORRECTIONS]:
            for name in rng.permutation(list(SYSTEMS)):
                _tell(taken[name], systems[name], event.text, event.label)
    medians = {name: {key: statistics.median(times) for key, times in found.items()} for name, found in taken.items()}
    (out / "timing.json").write_text(json.dumps(medians, indent=1))


def _tell(taken: dict[str, list[float]], system: System, text: str, label: str) -> None:
    _add(taken, "correction", lambda: system.tell([text], [label]))
    _add(taken, "background", system.wait)


def _add(taken: dict[str, list[float]], what: str, call: Callable[[], object]) -> None:
    """Add the milliseconds of a call, by the clock and of the CPU."""
    clock, cpu = time.perf_counter(), time.process_time()
    call()
    taken.setdefault(f"{what}_cpu_ms", []).append(1e3 * (time.process_time() - cpu))
    taken.setdefault(f"{what}_ms", []).append(1e3 * (time.perf_counter() - clock))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))

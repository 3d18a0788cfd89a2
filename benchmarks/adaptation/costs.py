"""Measure the time of an answer and of a correction, all systems in turns in one process, one thread; then starts.

    python costs.py DATA TASK SEED OUT    (writes OUT/costs.json)

Texts are those of the stream, encoded when they are asked for. A correction is the call that tells one row; work that
the system does in the background afterwards is measured apart. CPU time is that of the process: other work on the
machine changes it least. A start is a new process that opens what the system has saved.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from prepare import SYSTEMS, load, open_system, vectors_of
from systems import ADAPTIVE, REAUGKD, ROUTER, SETFIT, SKLEARN, STUDENT, System

ANSWERS, CORRECTIONS, STARTS = 100, 10, 3

ENCODER = ("encoder/model.safetensors", "encoder/tokenizer.json")
PLACES = {
    REAUGKD: ("bundle",),
    STUDENT: ("bundle/student", "bundle/manifest.json"),
    ADAPTIVE: ("adaptive",),
    ROUTER: (*ENCODER, "routes.json"),
    SETFIT: (*ENCODER, "setfit.joblib", "rows.npz"),
    SKLEARN: ("encoder/onnx/model.onnx", "encoder/tokenizer.json", "sklearn.joblib", "rows.npz"),
}
"""What a system needs to start and to go on learning."""


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
    costs = {name: {**found, **_start(name, out)} for name, found in medians.items()}
    (out / "costs.json").write_text(json.dumps(costs, indent=1))


def _start(name: str, out: Path) -> dict[str, float]:
    """Measure the bytes on disk, and the median of some new processes."""
    script = str(Path(__file__).with_name("start.py"))
    runs = []
    for _ in range(STARTS):
        done = subprocess.run([sys.executable, script, name, str(out)], check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    files = [file for place in PLACES[name] for file in _files(out / place)]
    return {
        "disk_mb": sum(file.stat().st_size for file in files) / 1e6,
        "start_ms": statistics.median(run["ms"] for run in runs),
        "rss_mb": statistics.median(run["rss_mb"] for run in runs),
    }


def _files(place: Path) -> list[Path]:
    return [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]


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

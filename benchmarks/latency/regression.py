"""Detect changes of speed: latency ratios on the demo's bundle, compared with those in benchmarks/latency/ratios.json.

    python benchmarks/latency/regression.py DEMO [--update]

DEMO is the demo's folder. It holds the bundle and, for one of the ratios, the same student in float32. `make bench`
creates both if they are missing; after a change of the export, run `make demo` first to write a new bundle.

A ratio compares two systems interleaved in one process, so that the load of the machine affects both; ratios still
differ between kinds of processors. Each ratio is measured in several rounds, each in a new process, because the memory
layout of a process causes half of the noise. A ratio has changed if all rounds of today are on one side of all stored
rounds and the medians differ by at least 3 %. By chance this happens to a ratio once in 1,700 runs if rounds are
independent. They are not: other load on the machine lasts longer than a round. Repeat the measurement after a change.

The exit code is 0 also if a ratio has changed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np

from reaugkd.benchmarks.sweep.synthetic_kb import DTYPE, SyntheticKb
from reaugkd.benchmarks.sweep.thread_scaling import measure_streams
from reaugkd.errors import ReaugkdError
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.kb.searchable import Searchable
from reaugkd.kb.storage.atomic import atomic_write
from reaugkd.runtime.benchmark.environment import host_facts
from reaugkd.runtime.benchmark.interleaved import InterleavedTimer, choose_inputs
from reaugkd.runtime.benchmark.latency import interleave, visits
from reaugkd.runtime.data import load_dataset
from reaugkd.runtime.inference.pipeline import Pipeline
from reaugkd.runtime.inference.prediction import Prediction
from reaugkd.runtime.inference.retrieval_policy import RetrievalPolicy
from reaugkd.runtime.inference.session.threads import default_threads
from reaugkd.runtime.output.progress import ProgressLine
from reaugkd.runtime.output.text_table import table
from reaugkd.runtime.runtime import Runtime

STORED = Path(__file__).with_name("ratios.json")
ROUNDS, VISITS, WARM_UP, INPUTS, PASSES = 7, 400, 40, 300, 5
LEAST = 0.03
"""Changes of the median below this are not reported."""

RETRIEVAL, GATED, PREDICT = "retrieval / student", "gated / student", "student / session.run"
INT8, STREAM, SEARCH = "int8 / float32", "stream: 2 threads / 1", "search: 10 x rows / 1 x"
MORE_IS_BETTER = frozenset({STREAM})


def main(demo: Path, update: bool) -> None:
    """Measure the ratios, print them with the stored ones, and store them if ``update``."""
    found = measure(demo)
    now = {"host": _host(), "ratios": {name: sorted(round(value, 4) for value in found[name]) for name in found}}
    stored = json.loads(STORED.read_text(encoding="utf-8")) if STORED.is_file() else None
    sys.stdout.write(report(stored, now))
    if update:
        with atomic_write(STORED) as file:
            file.write(as_text(now))
        sys.stdout.write(f"stored in {STORED}\n")


def measure(demo: Path, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Measure every ratio that this machine allows: one value per round."""
    with tempfile.TemporaryDirectory(prefix="reaugkd-bench-") as folder:
        enlarged = Path(folder)
        with Runtime.open(demo / "bundle") as runtime:
            own = runtime.knowledge_base
            synthetic = SyntheticKb(own)
            for times in (1, 10):
                # On one thread, so that every call builds the same graph.
                synthetic.enlarge(times * len(own), enlarged / str(times))
        found = []
        line = ProgressLine("bench", "round", sys.stderr)
        for number in range(rounds):
            line(number, rounds)
            command = [sys.executable, "-P", __file__, str(demo), "--round", folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found.append(json.loads(done.stdout))
        line.clear()
    return {name: [one[name] for one in found] for name in found[0]}


def measure_round(demo: Path, enlarged: Path) -> dict[str, float]:
    """Measure one value of each ratio."""
    with Runtime.open(demo / "bundle") as runtime:
        # Not the knowledge base's own rows, on which the student is too certain for the gate.
        texts = load_dataset(demo / "banking77").splits["test"].inputs()
        inputs, _ = choose_inputs(runtime, texts, INPUTS, seed=0)
        timer = InterleavedTimer(runtime, inputs, seed=0, clock=perf_counter_ns)
        own, tenfold = (_searching(runtime, enlarged / str(times)) for times in (1, 10))
        tasks: dict[str, Any] = dict(zip(timer.systems, timer.tasks(), strict=True))
        tasks |= {name: _answers(pipeline, inputs) for name, pipeline in (("own", own), ("tenfold", tenfold))}
        if (demo / "float32").is_dir():
            float32 = Runtime.open(demo / "float32", retrieval="never")
            tasks["float32"] = lambda i: float32.predict(inputs[i])
        p50, search = _medians(tasks, len(inputs))
        ratios = {PREDICT: p50["student"] / p50["session_run"], RETRIEVAL: p50["student+retrieval"] / p50["student"]}
        if "student+gated" in p50:
            ratios[GATED] = p50["student+gated"] / p50["student"]
        if "float32" in p50:
            ratios[INT8] = p50["student"] / p50["float32"]
        ratios[SEARCH] = search["tenfold"] / search["own"]
        if default_threads() > 1:
            always = _pipeline(runtime, runtime.knowledge_base)
            streams = measure_streams(always, inputs, 2, PASSES, perf_counter_ns)
            assert streams.speedup is not None
            ratios[STREAM] = streams.speedup
    return ratios


def _medians(tasks: dict[str, Any], inputs: int) -> tuple[dict[str, float], dict[str, float]]:
    """Measure the p50 of every task and of its search, in microseconds."""
    search = np.zeros((VISITS, len(tasks)))

    def note(visit: int, task: int, result: object) -> None:
        if isinstance(result, Prediction):
            search[visit, task] = result.timings.search_us

    interleave(list(tasks.values()), visits(inputs, WARM_UP, 1))
    taken = interleave(list(tasks.values()), visits(inputs, VISITS, 0), after=note)
    p50, searched = (dict(zip(tasks, np.median(of, axis=0).tolist(), strict=True)) for of in (taken, search))
    return p50, searched


def _searching(runtime: Runtime, folder: Path) -> Pipeline:
    config = replace(runtime.manifest.kb, dtype=DTYPE)
    kb = KnowledgeBase.open(folder, config, len(runtime.labels))
    return _pipeline(runtime, kb)


def _pipeline(runtime: Runtime, kb: Searchable) -> Pipeline:
    return Pipeline(runtime.manifest, runtime.tokenizer, runtime.student, kb, RetrievalPolicy())


def _answers(pipeline: Pipeline, inputs: Sequence[Any]) -> Any:
    return lambda i: pipeline.answer(inputs[i])


def report(stored: dict[str, Any] | None, now: dict[str, Any]) -> str:
    """Format today's ratios with the stored ones, and a line for each that has changed."""
    before = {} if stored is None else stored["ratios"]
    lines, changed = [], []
    for name, values in now["ratios"].items():
        old = before.get(name)
        result = verdict(name, old, values) if old else "new"
        lines.append([name, _spread(old) if old else "-", _spread(values), result])
        if result in ("better", "worse"):
            changed.append(f"{result.upper()}: {name} {median(old):.3f} -> {median(values):.3f}")
    lines += [[name, _spread(old), "-", "not measured"] for name, old in before.items() if name not in now["ratios"]]
    shown = [table(["p50 and range of the rounds", "stored", "now", ""], lines), ""]
    if stored is not None and stored["host"] != now["host"]:
        shown.append(f"stored with {_words(stored['host'])}; now {_words(now['host'])}")
    shown += changed or ["no ratio has changed" if stored else "no ratios are stored yet; --update stores these"]
    return "\n".join(shown) + "\n"


def as_text(now: dict[str, Any]) -> str:
    """Format the ratios as JSON, one a line."""
    ratios = ",\n".join(f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in now["ratios"].items())
    return f'{{\n "host": {json.dumps(now["host"])},\n "ratios": {{\n{ratios}\n }}\n}}\n'


def verdict(name: str, old: Sequence[float], new: Sequence[float]) -> str:
    """Return ``better``, ``worse``, or ``""`` if the ratio has not changed."""
    apart = max(old) < min(new) or max(new) < min(old)
    if not apart or abs(median(new) / median(old) - 1) < LEAST:
        return ""
    return "better" if (median(new) > median(old)) == (name in MORE_IS_BETTER) else "worse"


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.3f} ({min(values):.3f} - {max(values):.3f})"


def _host() -> dict[str, Any]:
    facts = host_facts()
    return {name: facts[name] for name in ("cpu", "usable_cores", "versions")}


def _words(host: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in host["versions"].items())
    return f"{host['cpu']}, {host['usable_cores']} cores, {versions}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare latency ratios of the demo's bundle with the stored ones.")
    parser.add_argument("demo", type=Path)
    parser.add_argument("--update", action="store_true", help=f"Store the ratios in {STORED.name}.")
    parser.add_argument("--round", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        if given.round is not None:
            sys.stdout.write(json.dumps(measure_round(given.demo, given.round)))
        else:
            main(given.demo, given.update)
    except (ReaugkdError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)

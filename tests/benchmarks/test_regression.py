"""`make bench`: the comparison of ratios, and one round on a tiny bundle."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support.paths import ROOT
from support.tiny_bundle import build_tiny_bundle, reseal

from reaugkd.benchmarks.sweep.synthetic_kb import SyntheticKb
from reaugkd.runtime.inference.session.threads import default_threads
from reaugkd.runtime.runtime import Runtime

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "benchmarks" / "latency" / "regression.py"

WORDS = [("noon", "a"), ("jazz", "b"), ("rain", "c"), ("wake", "a"), ("song", "b"), ("snow", "c")]


@pytest.fixture(scope="module")
def regression() -> ModuleType:
    spec = importlib.util.spec_from_file_location("regression", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def host(cpu: str = "Fast 9000") -> dict[str, object]:
    return {"cpu": cpu, "usable_cores": 2, "versions": {"numpy": "2"}}


@pytest.mark.parametrize(
    ("old", "new", "lower_is_better", "more_is_better"),
    [
        ([1.0, 1.1, 1.2], [1.3, 1.4, 1.5], "worse", "better"),
        ([1.3, 1.4, 1.5], [1.0, 1.1, 1.2], "better", "worse"),
        ([1.0, 1.1, 1.2], [1.2, 1.3, 1.4], "", ""),  # they touch
        ([1.0, 1.1, 1.2], [1.05, 1.5, 2.0], "", ""),
        ([1.0, 1.001], [1.02, 1.021], "", ""),  # apart, but by 2 %
    ],
)
def test_changed_ratios(
    regression: ModuleType, old: list[float], new: list[float], lower_is_better: str, more_is_better: str
) -> None:
    assert regression.verdict(regression.INT8, old, new) == lower_is_better
    assert regression.verdict(regression.STREAM, old, new) == more_is_better


def test_false_alarms_are_rare(regression: ModuleType) -> None:
    """Two sets of seven rounds of the same system differ by chance once in C(14, 7) / 2 = 1,716 times."""
    rng = np.random.default_rng(0)
    cries = sum(
        bool(regression.verdict(regression.INT8, *rng.lognormal(0, 0.1, (2, regression.ROUNDS)))) for _ in range(4000)
    )
    assert cries <= 9  # 2.3 are to be expected; more than 9 have a chance of 1 in 5,000
    slower = sum(
        regression.verdict(regression.INT8, *(rng.lognormal(0, 0.01, (2, 7)) * [[1], [1.06]])) == "worse"
        for _ in range(100)
    )
    assert slower >= 99


def test_the_report(regression: ModuleType) -> None:
    stored = {"host": host(), "ratios": {regression.RETRIEVAL: [1.1, 1.2, 1.3], regression.INT8: [0.4, 0.5]}}
    now = {"host": host("Slow 1"), "ratios": {regression.RETRIEVAL: [1.5, 1.6, 1.7], regression.STREAM: [1.9]}}
    shown = regression.report(stored, now).splitlines()
    assert "WORSE: retrieval / student 1.200 -> 1.600" in shown
    assert any(line.startswith(regression.INT8) and line.endswith("not measured") for line in shown)
    assert any(line.startswith(regression.STREAM) and line.endswith("new") for line in shown)
    assert any("stored with Fast 9000" in line and "now Slow 1" in line for line in shown)
    same = regression.report(stored, stored)
    assert "no ratio has changed\n" in same and "stored with" not in same
    assert "no ratios are stored yet; --update stores these" in regression.report(None, now)


def test_stored_ratios_are_read(regression: ModuleType) -> None:
    now = {"host": host(), "ratios": {regression.RETRIEVAL: [1.1, 1.2], regression.INT8: [0.4]}}
    text = regression.as_text(now)
    assert json.loads(text) == now and len(text.splitlines()) == 7


def write_data(demo: Path) -> None:
    """Write the demo's data set: texts that the tiny bundle's tokenizer knows."""
    rows = "".join(f"{word} {other},{label}\n" for word, label in WORDS for other, _ in WORDS)
    (demo / "banking77").mkdir()
    for split in ("train", "test"):
        (demo / "banking77" / f"{split}.csv").write_text(f"text,label\n{rows}", encoding="utf-8")


def test_one_round_takes_every_ratio(regression: ModuleType, tmp_path: Path) -> None:
    write_data(tmp_path)
    gate = {"threshold": 0.5, "epsilon": 0.1, "delta": 0.1, "rows": 50, "losses": 0, "retrieved": 0.5}
    for name in ("bundle", "float32"):
        reseal(build_tiny_bundle(tmp_path / name), gate=gate)
    with Runtime.open(tmp_path / "bundle") as runtime:
        synthetic = SyntheticKb(runtime.knowledge_base)
        for times in (1, 10):
            synthetic.enlarge(64 * times, tmp_path / "enlarged" / str(times))
    found = regression.measure_round(tmp_path, tmp_path / "enlarged")
    several = {regression.STREAM} if default_threads() > 1 else set()
    names = {regression.RETRIEVAL, regression.GATED, regression.PREDICT, regression.INT8, regression.SEARCH}
    assert set(found) == names | several
    assert all(value > 0 for value in found.values())
    assert found[regression.PREDICT] > 1 and found[regression.RETRIEVAL] > 1  # more work takes more time


def test_rounds_are_processes_of_their_own(regression: ModuleType, tmp_path: Path) -> None:
    write_data(tmp_path)
    build_tiny_bundle(tmp_path / "bundle")
    found = regression.measure(tmp_path, rounds=1)
    assert {regression.PREDICT, regression.RETRIEVAL, regression.SEARCH} <= set(found)
    assert all(len(values) == 1 and values[0] > 0 for values in found.values())


def test_without_a_bundle_it_fails() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "nosuch"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "there is no bundle here" in done.stderr

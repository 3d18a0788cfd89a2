"""Another processor: equal predictions within rounding, or a refusal with a remedy (see test_bundle.py).

Which kernels are used is decided by the libraries. What they let one switch: numpy by NPY_DISABLE_CPU_FEATURES,
OpenBLAS (inside numpy) by OPENBLAS_CORETYPE, ONNX Runtime only whether weights are repacked (the session's
disable_prepacking); usearch's NumKong nothing. So other_cpu.c makes a process believe that its processor has fewer
instruction sets, where Linux and the processor allow that: all four then choose other kernels.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from support.own_process import LIMIT
from support.paths import KEPT_BUNDLES
from support.tiny_bundle import build_tiny_bundle, tiny_texts
from support.workshop import Workshop

from reaugkd import Runtime
from reaugkd.runtime.bundle.bundle import MODEL_FILE, TOKENIZER_FILE
from reaugkd.runtime.inference.session.onnxruntime_setup import import_onnxruntime
from reaugkd.runtime.inference.session.student import StudentSession
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent
KEPT = KEPT_BUNDLES
LEVELS = ("avx2", "sse")
CANNOT = 77

# Prints the kernels in use, and the answers to the texts on stdin.
SCRIPT = """
import json, sys
import numpy as np
from reaugkd import ReaugkdError, Runtime
from reaugkd.kb.index.usearch_import import compiled
found = {"simd": np.show_config(mode="dicts")["SIMD Extensions"].get("found", []), "answers": []}
path, texts = json.load(sys.stdin)
try:
    with Runtime.open(path) as runtime:
        of = compiled("this test")
        found["usearch"] = of.hardware_acceleration(dtype=of.ScalarKind.I8, ndim=384, metric_kind=of.MetricKind.Cos)
        for text in texts:
            answer = runtime.predict(text if isinstance(text, str) else tuple(text))
            both = answer.probabilities.tolist(), answer.student_probabilities.tolist()
            found["answers"].append([answer.label, *both])
except ReaugkdError as error:
    found["error"] = str(error)
print(json.dumps(found))
"""


def answered(path: Path, texts: list[Any], **environment: str) -> dict[str, Any]:
    """Return the predictions of a new process in that environment, or its error."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT],
        input=json.dumps([str(path), texts]),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode == CANNOT:
        pytest.skip("this processor cannot hide what it has")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled other_cpu.c."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or os.uname().machine != "x86_64" or compiler is None:
        pytest.skip("no Linux on x86-64 with a C compiler")
    path = tmp_path_factory.mktemp("shim") / "other_cpu.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(path), str(HERE / "other_cpu.c")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode != 0:
        pytest.skip(f"the C compiler cannot: {done.stderr.splitlines()[:1]}")
    return path


def pretending(shim: Path, level: str) -> dict[str, str]:
    """Return the environment of a process with the instruction sets of a level."""
    return {"LD_PRELOAD": str(shim), "OTHER_CPU": level}


@functools.cache
def usual(path: Path, texts: tuple[Any, ...]) -> dict[str, Any]:
    """What `answered` gives with this processor as it is."""
    return answered(path, list(texts))


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[float]:
    """Return the largest difference of any probability, of blend and student, if all labels are equal."""
    assert "error" not in found and len(found["answers"]) == len(expected["answers"])
    worst = [0.0, 0.0]
    for (label, *ours), (other, *theirs) in zip(found["answers"], expected["answers"], strict=True):
        assert label == other
        worst = [max(w, float(np.abs(np.subtract(*pair)).max())) for w, *pair in zip(worst, ours, theirs, strict=True)]
    return worst


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_kept_bundles_answer_the_same_on_fewer_instructions(shim: Path, version: str, level: str) -> None:
    texts = [answer["text"] for answer in json.loads((KEPT / f"{version}.json").read_text())]
    found = answered(KEPT / version, texts, **pretending(shim, level))
    assert max(differences(found, usual(KEPT / version, tuple(texts)))) < 1e-6
    assert found["usearch"] == {"avx2": "haswell", "sse": "serial"}[level]  # the shim works
    assert not any("512" in name or name == "X86_V4" for name in found["simd"])


@pytest.mark.parametrize("level", LEVELS)
def test_a_trained_student_exported_for_avx2_answers_within_its_tolerance(
    shim: Path, workshop: Workshop, level: str
) -> None:
    texts = ["wake me at seven", "rain tomorrow", "play a song", "more thunder and some jazz " * 4]
    found = answered(workshop.bundle, texts, **pretending(shim, level))
    assert max(differences(found, usual(workshop.bundle, tuple(texts)))) < 1e-4


def test_int8_that_would_saturate_is_computed_exactly(tmp_path: Path) -> None:
    """Without VNNI, products of 8-bit weights overflow their 16-bit sums, unless the session asks for exact ones."""
    path = build_tiny_bundle(tmp_path / "tiny")
    session, tokenizer = StudentSession(path / MODEL_FILE), TextTokenizer(path / TOKENIZER_FILE, 24)
    reference = ReferenceEvaluator(str(path / MODEL_FILE))
    for text in tiny_texts(30):
        encoding = tokenizer.encode(str(text))
        (logits,) = reference.run(["logits"], session.feeds(encoding))
        np.testing.assert_allclose(session.run(encoding)[0], logits[0], atol=1e-4)


def test_exact_int8_is_the_same_without_vnni(shim: Path, tmp_path: Path) -> None:
    path, texts = build_tiny_bundle(tmp_path / "tiny"), tiny_texts(30)
    found = answered(path, texts, **pretending(shim, "avx2"))
    assert max(differences(found, answered(path, texts))) < 1e-5


def numpys_extensions() -> str:
    """Return numpy's instruction sets beyond its baseline on this processor."""
    config: Any = np.show_config(mode="dicts")
    return " ".join(config["SIMD Extensions"].get("found", []))


@pytest.mark.parametrize("switch", ["numpy", "openblas", "both"])
def test_numpys_own_switches_change_nothing_beyond_rounding(switch: str) -> None:
    texts = [answer["text"] for answer in json.loads((KEPT / "v1.json").read_text())]
    environment = {}
    if switch != "openblas":
        environment["NPY_DISABLE_CPU_FEATURES"] = numpys_extensions()
    if switch != "numpy":
        environment["OPENBLAS_CORETYPE"] = "Prescott"
    found = answered(KEPT / "v1", texts, **environment)
    if switch != "openblas":
        assert found["simd"] == []
    assert max(differences(found, usual(KEPT / "v1", tuple(texts)))) < 1e-6


def test_the_kernels_for_weights_that_are_not_repacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = import_onnxruntime()
    made: list[Any] = []
    usual = onnxruntime.SessionOptions

    def unpacked() -> Any:
        made.append(usual())
        made[-1].add_session_config_entry("session.disable_prepacking", "1")
        return made[-1]

    path, texts = build_tiny_bundle(tmp_path / "tiny"), tiny_texts(30, seed=3)
    with Runtime.open(path) as runtime:
        expected = list(runtime.predict_many(texts))
    monkeypatch.setattr(onnxruntime, "SessionOptions", unpacked)
    with Runtime.open(path) as runtime:
        found = list(runtime.predict_many(texts))
    assert made
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-6)

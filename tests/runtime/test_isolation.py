"""Imports and side effects of the runtime, measured in new processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny_bundle import build_tiny_bundle

FORBIDDEN = "torch transformers optimum onnx datasets pandas matplotlib sklearn scipy pyarrow accelerate".split()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def run(script: str, bundle: Path, home: Path) -> str:
    environment = {**os.environ, "HOME": str(home), "PYTHONWARNINGS": "error"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    done = subprocess.run(
        [sys.executable, "-c", script, str(bundle)],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_importing_loads_next_to_nothing(bundle: Path, tmp_path: Path) -> None:
    script = "import sys, reaugkd; print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in run(script, bundle, tmp_path).split()}
    assert "reaugkd" in loaded
    assert not loaded & {*FORBIDDEN, "numpy", "onnxruntime", "usearch", "tokenizers", "click"}


def test_predicting_loads_no_training_library_and_leaves_home_alone(bundle: Path, tmp_path: Path) -> None:
    script = """
import sys
from reaugkd import Runtime
with Runtime.open(sys.argv[1], threads=2) as runtime:
    answers = [runtime.predict("noon"), *runtime.predict_many(["alarm", "call"])]
    assert all(answer.neighbours for answer in answers)
print(*sys.modules)
"""
    modules = set(run(script, bundle, tmp_path).split())
    assert not modules & {
        "reaugkd.runtime.editing.editor",
        "reaugkd.runtime.editing.writer",
        "reaugkd.runtime.monitoring.prometheus",
        "difflib",
    }
    loaded = {name.partition(".")[0] for name in modules}
    assert {"numpy", "onnxruntime", "tokenizers"} <= loaded
    assert not loaded & set(FORBIDDEN)
    assert list(tmp_path.rglob("*")) == []


def test_nothing_reports_home(bundle: Path, tmp_path: Path) -> None:
    """ONNX Runtime's telemetry is off, and the user's own setting is kept."""
    show = "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    script = f"import os, sys; from reaugkd import Runtime; Runtime.open(sys.argv[1]); {show}"
    assert run(script, bundle, tmp_path).split() == ["1"]
    kept = "import os; os.environ['ORT_DISABLE_TELEMETRY'] = 'true'\n" + script
    assert run(kept, bundle, tmp_path).split() == ["true"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_forked_children_answer_the_same_and_end(bundle: Path, tmp_path: Path, threads: int) -> None:
    script = f"""
import gc, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: what is tested here
from reaugkd import Runtime
runtime = Runtime.open(sys.argv[1], threads={threads})
expected = [runtime.predict("alarm at noon"), *runtime.predict_many(["call", "jazz"])]

def child(how):
    if how == "predict":
        got = [runtime.predict("alarm at noon"), *runtime.predict_many(["call", "jazz"])]
        sys.exit(0 if got == expected else 3)
    if how == "drop":
        globals().pop("runtime").close()
        gc.collect()
    sys.exit(0)

for how in ("predict", "drop", "nothing"):
    pid = os.fork()
    if pid == 0:
        child(how)
    status = os.waitpid(pid, 0)[1]
    assert status == 0, (how, status)
assert [runtime.predict("alarm at noon"), *runtime.predict_many(["call", "jazz"])] == expected
print("done")
"""
    assert run(script, bundle, tmp_path) == "done\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_get_it_by_fork_or_by_pickle(bundle: Path, tmp_path: Path, method: str) -> None:
    script = f"""
import multiprocessing, sys, warnings
from concurrent.futures import ProcessPoolExecutor
from reaugkd import Runtime

if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)
    with Runtime.open(sys.argv[1], threads=2) as runtime:
        texts = ["noon", "alarm call", "jazz"]
        expected = list(runtime.predict_many(texts))
        context = multiprocessing.get_context({method!r})
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            assert list(pool.map(runtime.predict, texts)) == expected
    print("done")
"""
    file = tmp_path / "main.py"
    file.write_text(script)
    assert run(f"import runpy; runpy.run_path({str(file)!r}, run_name='__main__')", bundle, tmp_path) == "done\n"


def test_an_interrupt_ends_a_threaded_stream_at_once(bundle: Path, tmp_path: Path) -> None:
    script = """
import itertools, signal, sys, threading
from reaugkd import Runtime
signal.signal(signal.SIGINT, signal.default_int_handler)
runtime = Runtime.open(sys.argv[1], threads=2)
def texts():
    for number in itertools.count():
        if number == 100:
            signal.raise_signal(signal.SIGINT)
        yield "alarm at noon"
try:
    for answer in runtime.predict_many(texts()):
        pass
except KeyboardInterrupt:
    print("interrupted", threading.active_count())
"""
    assert run(script, bundle, tmp_path) == "interrupted 1\n"

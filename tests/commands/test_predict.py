from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import refused

SCRIPT = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print(os.environ.get("OPENBLAS_NUM_THREADS"))

sys.meta_path.insert(0, Watch())
from reaugkd.cli import cli
cli(sys.argv[1:], standalone_mode=False)
"""


@pytest.mark.parametrize(("given", "found"), [(None, "1"), ("3", "3")])
def test_predict_loads_numpy_without_threads_by_default(edge_bundle: Path, given: str | None, found: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    environment |= {} if given is None else {"OPENBLAS_NUM_THREADS": given}
    call = [sys.executable, "-c", SCRIPT, "predict", str(edge_bundle), "noon", "--format", "jsonl"]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=120, check=True)
    first, answer = done.stdout.splitlines()
    assert first == found and '"label"' in answer


def test_an_input_without_a_name_is_refused(edge_bundle: Path) -> None:
    for command in ("predict", "kb add"):
        assert "'--input': the name is empty" in refused(*command.split(), edge_bundle, "--input", "")

"""Import of usearch: for any import order."""

from __future__ import annotations

import subprocess
import sys

import pytest

SEARCH = """
import numpy as np
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.index.hnsw import VectorIndex
keys = np.eye(8, dtype=np.float32)
index = VectorIndex.build(keys, IndexConfig(8, dtype="f32"))
assert index.search(keys[3], 2)[0][0] == 3
"""
PACKAGE = """
import usearch, usearch.compiled
from usearch.index import Index
import numpy as np
theirs = Index(ndim=8, dtype="f32")
theirs.add(5, np.ones(8, np.float32))
assert int(theirs.search(np.ones(8, np.float32), 1).keys[0]) == 5
"""
SAME = """
from reaugkd.kb.index.usearch_import import compiled
assert compiled('this test').Index is usearch.compiled.Index
"""


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("order", [SEARCH + PACKAGE, PACKAGE + SEARCH])
@pytest.mark.parametrize("before", ["", "import tokenizers, onnxruntime"])
def test_the_package_can_be_used_before_and_after(order: str, before: str) -> None:
    run(f"{before or 'import tokenizers'}\n{order}\n{SAME}\n{SEARCH}")

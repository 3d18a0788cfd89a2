"""usearch's compiled module alone: the same as in its package, for any import order."""

from __future__ import annotations

import subprocess
import sys

import pytest

SEARCH = """
import numpy as np
from reaugkd.kb.index.hnsw import IndexConfig, VectorIndex
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
assert compiled().Index is usearch.compiled.Index
"""


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the package is imported")
def test_the_package_s_other_imports_are_left_out() -> None:
    said = run(f"{SEARCH}\nimport sys; print([n for n in ('usearch', 'tqdm', 'urllib.request') if n in sys.modules])")
    assert said == "[]\n"


@pytest.mark.parametrize("order", [SEARCH + PACKAGE, PACKAGE + SEARCH])
@pytest.mark.parametrize("before", ["", "import tokenizers, onnxruntime"])
def test_the_package_can_be_used_before_and_after(order: str, before: str) -> None:
    run(f"{before or 'import tokenizers'}\n{order}\n{SAME}\n{SEARCH}")


RACE = """
import sys, threading
import tokenizers, onnxruntime, numpy, urllib.request, ssl, tqdm, numkong._numkong  # so that both come to it at once
from reaugkd.kb.index.usearch_import import compiled
wrong, start = [], threading.Barrier(2)
sys.setswitchinterval(1e-5)

def package():
    import usearch.index
    return usearch.index.Index

def run(get):
    start.wait()
    try:
        get()
    except BaseException as error:
        wrong.append(repr(error))

threads = [threading.Thread(target=run, args=(get,)) for get in (package, compiled)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not wrong, wrong
import usearch, usearch.compiled
assert compiled().Index is usearch.compiled.Index
"""


def test_threads_that_load_it_at_once_do_not_meet() -> None:
    """Without importlib's lock, one of three such processes has a thread without usearch."""
    for _ in range(12):
        run(RACE)


def test_where_it_is_not_as_expected_the_package_is_imported() -> None:
    run(f"""
import sys
from importlib import util
from reaugkd.kb.index import usearch_import
real = util.find_spec
util.find_spec = lambda name, *rest: None if name == "usearch" else real(name, *rest)
assert usearch_import.compiled().Index
assert "usearch" in sys.modules
{SEARCH}
""")

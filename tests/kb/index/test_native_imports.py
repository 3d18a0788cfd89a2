"""The wheels of usearch and onnxruntime crash in the wrong import order; reaugkd works in any order."""

from __future__ import annotations

import subprocess
import sys

import pytest

SEARCH = """
import numpy as np
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.knowledge_base import KnowledgeBase
kb = KnowledgeBase.build(np.eye(4, dtype=np.float32), np.eye(4), config=IndexConfig(4))
assert kb.search(np.eye(4, dtype=np.float32)[2], 1).rows.tolist() == [2]
"""
RUNTIME = """
from reaugkd.runtime.inference.session.onnxruntime_setup import import_onnxruntime
import_onnxruntime().SessionOptions()
"""


@pytest.mark.parametrize("order", [(SEARCH, RUNTIME), (RUNTIME, SEARCH)], ids=["search first", "runtime first"])
def test_both_orders_work_in_a_fresh_process(order: tuple[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", "\n".join(order)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

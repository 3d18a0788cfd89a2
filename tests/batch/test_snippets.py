"""The blocks of docs/how-to/batch.md, each in a process of its own, as far as their engines are installed."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest
from support.batch_jobs import answers, texts, write_rows
from support.own_process import group
from support.paths import ROOT

from reaugkd.batch import Predictor  # noqa: F401  (needs the extra)

BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/how-to/batch.md").read_text("utf-8"), flags=re.M | re.S)
LIMIT = 200  # seconds; Spark takes twenty


def block_with(words: str) -> str:
    (found,) = [block for block in BLOCKS if words in block]
    return found


def run(script: str, edge_bundle: Path, folder: Path) -> str:
    """Run a block beside a bundle and texts."""
    shutil.copytree(edge_bundle, folder / "bundle")
    (folder / "main.py").write_text(script)
    # Without RAY_ADDRESS, Ray would join a cluster of another test that runs at the same time.
    settings = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "RAY_ADDRESS": "local"}
    with group([sys.executable, "-P", "main.py"], folder, **settings) as process:
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    return out


def test_the_first(edge_bundle: Path, tmp_path: Path) -> None:
    assert "the text is missing" in run(block_with("where is my card"), edge_bundle, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "daft", "pyspark"])
def test_the_engines(engine: str, edge_bundle: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    from pyarrow import parquet

    rows = texts(500)
    write_rows(tmp_path / "texts.parquet", rows, row_group_size=100)
    run(block_with(f"import {engine}" if engine != "pyspark" else "from pyspark"), edge_bundle, tmp_path)
    found = parquet.read_table(tmp_path / "out").to_pylist()
    assert sorted(found, key=lambda row: row["id"]) == answers(edge_bundle, rows)

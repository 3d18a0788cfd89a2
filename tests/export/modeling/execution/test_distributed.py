"""Two processes share a training on the CPU, started in the same way as with several GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import tiny_models as tinymodels

from reaugkd.export.bundle.write import ExportJob, export


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_two_processes_make_one_run(tmp_path: Path) -> None:
    teacher = tinymodels.write_bert(tmp_path / "teacher")
    rows = tinymodels.make_split(120, 0)
    lines = [f"{text}\t{label}" for text, label in zip(rows.texts, rows.labels or [], strict=True)]
    (tmp_path / "train.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "reaugkd.cli", "train"]
    arguments = {
        "--data": tmp_path / "train.tsv",
        "--teacher": teacher,
        "--out": tmp_path / "run",
        "--max-length": tinymodels.MAX_LENGTH,
        "--teacher-epochs": 1,
        "--student-epochs": 1,
    }
    done = subprocess.run(
        [*launch, *(str(part) for pair in arguments.items() for part in pair)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("student: done") == 1  # the main process keeps the results
    made = export(tmp_path / "run", tmp_path / "bundle", ExportJob("avx2", "none", allow_quality_loss=True))
    assert made.manifest.labels == tuple(tinymodels.LABELS)

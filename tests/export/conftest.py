"""Fixtures of the export's tests; expensive ones are made once per session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from support import tiny_models as tinymodels
from support.runs import QUICK, Finished

from reaugkd.export.bundle.write import Exported, ExportJob, export
from reaugkd.export.training.train import TrainJob, train
from reaugkd.export.tuning.tune import Tuning
from reaugkd.runtime.data import Dataset

# Also on a machine with a GPU: bitwise comparisons need the CPU.
os.environ["ACCELERATE_USE_CPU"] = "1"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """One thread: small models are slower on several threads, and tests share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random four-layer BERT and its tokenizer."""
    return tinymodels.write_bert(tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture(scope="session")
def tiny_dataset() -> Dataset:
    """240 train and 60 test rows of three classes, no dev split."""
    return tinymodels.make_dataset()


@pytest.fixture(scope="session")
def tiny_run(
    tiny_bert: Path, tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Tuning, TrainJob]:
    """A finished run (read-only), its tuning, and its job."""
    path = tmp_path_factory.mktemp("tiny") / "run"
    job = TrainJob(str(tiny_bert), tinymodels.tiny_recipe())
    return path, train(tiny_dataset, job, path), job


@pytest.fixture(scope="session")
def small_dataset() -> Dataset:
    """84 train and 9 test rows of three classes."""
    return tinymodels.make_dataset(rows=84, test=9)


@pytest.fixture(scope="session")
def quick_run(tiny_bert: Path, small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of a few steps; read-only."""
    path = tmp_path_factory.mktemp("quick") / "run"
    job = TrainJob(str(tiny_bert), QUICK)
    return path, train(small_dataset, job, path), job


@pytest.fixture(scope="session")
def tiny_bundle(
    tiny_run: tuple[Path, Tuning, TrainJob], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Exported]:
    """The run as a dynamically quantized bundle; read-only."""
    path = tmp_path_factory.mktemp("tiny") / "bundle"
    return path, export(tiny_run[0], path, ExportJob("avx2", allow_quality_loss=True))

"""Fixtures of all tests: real data and models, a tiny bundle, a tiny training."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from support.paths import SHARED, TESTS

if TYPE_CHECKING:
    from support.workshop import Workshop

# Scripts that tests run in processes of their own import `support` too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))

# As in the commands that train: threads that spin while they wait slow the suite down several times on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Small models run faster on one thread, and their results must not depend on the number of cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The default profile draws the same examples in every run. `pytest --hypothesis-profile explore` draws new ones.
# No test depends on the speed of the machine.
TIMELESS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, **TIMELESS)
settings.register_profile("explore", derandomize=False, **TIMELESS)
settings.load_profile("repeatable")


def pytest_collection_finish() -> None:
    """Keep what was imported and collected out of garbage collections: a full one would take a third of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data sets and models next to the checkout; skips the test if it does not exist."""
    if not (SHARED / "data").is_dir():
        pytest.skip("../shared is not here: tests on the real data sets and encoder were skipped")
    return SHARED


@pytest.fixture(scope="session")
def edge_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of single texts with the labels a, b and c; read-only."""
    from support.tiny_bundle import build_tiny_bundle

    return build_tiny_bundle(tmp_path_factory.mktemp("edge") / "bundle")


@pytest.fixture(scope="session")
def pair_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of pairs; read-only."""
    from support.tiny_bundle import build_tiny_bundle

    return build_tiny_bundle(tmp_path_factory.mktemp("edge") / "pairs", pairs=True)


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 120 rows with held-out rows, of which 90 are unrelated; read-only, tests copy it."""
    from support.heldout_bundle import build_heldout_bundle

    return build_heldout_bundle(tmp_path_factory.mktemp("export") / "bundle", rows=120, unrelated=90)


@pytest.fixture
def bundle(export: Path, tmp_path: Path) -> Path:
    """A copy of ``export`` that a test may change."""
    return Path(shutil.copytree(export, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A tiny teacher, 240 train and 60 test rows, the finished run and its bundle; read-only."""
    from support.workshop import build_workshop

    return build_workshop(tmp_path_factory.mktemp("workshop"))

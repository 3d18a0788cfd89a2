"""A job whose processes are killed goes on, and writes each row once."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.batch_jobs import answers, ends, leftovers, output, texts, watched, workers, write_rows
from support.command_line import finish, names, ok, spawn

pytestmark = pytest.mark.slow

ROWS, PART = 16_000, 500


@pytest.fixture(scope="module")
def rows() -> list[str]:
    return texts(ROWS)


@pytest.fixture(scope="module")
def expected(edge_bundle: Path, rows: list[str]) -> list[dict[str, Any]]:
    return answers(edge_bundle, rows)


@pytest.fixture
def arguments(edge_bundle: Path, tmp_path: Path, rows: list[str]) -> list[object]:
    source = write_rows(tmp_path / "a.parquet", rows, row_group_size=7000)
    return ["batch", edge_bundle, source, "--out", tmp_path / "out", "--part-rows", PART, "--workers", 2]


def kill_worker(driver: int) -> None:
    os.kill(random.choice(workers(driver)), signal.SIGKILL)


def kill_driver(driver: int) -> None:
    with ends(workers(driver)):
        os.kill(driver, signal.SIGKILL)


def kill_all(driver: int) -> None:
    os.killpg(driver, signal.SIGKILL)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_stops_it_cleanly(
    arguments: list[object], expected: list[dict[str, Any]], tmp_path: Path, name: str, code: int
) -> None:
    """Ctrl-C goes to all processes of the terminal, SIGTERM to the driver alone."""
    out = tmp_path / "out"
    with watched(out) as watch:
        process = spawn(*arguments, start_new_session=True)
        watch.wait_for_parts(3)
        with ends(workers(process.pid)):
            number = getattr(signal, name)
            (os.killpg if name == "SIGINT" else os.kill)(process.pid, number)
            done = finish(process)
    assert done.code == code and done.out == ""
    assert done.err.splitlines()[0] == "to resume, run the same command again", done.err
    assert "Traceback" not in done.err, done.err
    assert leftovers(out) == [] and "_SUCCESS" not in names(out)
    ok(*arguments)
    assert output(out) == expected


@pytest.mark.parametrize("kill", [kill_worker, kill_driver, kill_all])
def test_each_row_is_written_once(
    arguments: list[object],
    expected: list[dict[str, Any]],
    tmp_path: Path,
    kill: Callable[[int], None],
) -> None:
    """Killed after the first part and after ten more; a killed worker is replaced in the same run."""
    out = tmp_path / "out"
    with watched(out) as watch:
        process = spawn(*arguments, start_new_session=True)
        for parts in (1, 10):
            watch.wait_for_parts(parts)
            kill(process.pid)
            if kill is not kill_worker:
                assert finish(process).code == -signal.SIGKILL
                assert "_SUCCESS" not in names(out)
                process = spawn(*arguments, start_new_session=True)
        done = finish(process)
    assert done.code == 0 and done.out == f"{ROWS:,} rows: {ROWS:,} answered, in {ROWS // PART} files: {out}\n"
    assert output(out) == expected and leftovers(out) == []

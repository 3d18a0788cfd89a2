"""One cell in a process of its own: what it allocates is gone when it ends, and what kills it kills nothing else.

The parent hands the job over on stdin and keeps the pipe open; when the pipe ends, the parent is gone and so must be
the worker, or it would still be writing when the study is called again.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...errors import ReaugkdError
from .fingerprints import CELL_FORMAT
from .plan import Cell, Plan
from .results import CellNotes, CellResult, cell_file, write_cell


class CellFunction(Protocol):
    """Trains and measures one cell; a function of a module, so that a worker can import it."""

    def __call__(self, cell: Cell, plan: Plan, out: Path, data_dir: Path) -> CellResult:
        """The cell's results.

        Args:
            cell: what to train.
            plan: the study.
            out: the study's folder, of which ``cells`` and ``logs`` are taken.
            data_dir: where relative data paths count from.
        """


@dataclass(frozen=True)
class Job:
    """What a worker is asked to do.

    Args:
        cell: the cell.
        plan: the study.
        out: its folder.
        data_dir: where relative data paths count from.
        settings: the hash that the cell is kept under.
        inputs: the hash of data and models.
        run: what makes the results.
    """

    cell: Cell
    plan: Plan
    out: Path
    data_dir: Path
    settings: str
    inputs: str
    run: CellFunction


def do(job: Job) -> None:
    """Run a cell and keep what it found."""
    begun = time.monotonic()
    result = job.run(job.cell, job.plan, job.out, job.data_dir)
    notes = CellNotes(job.settings, job.inputs, round(time.monotonic() - begun, 3), CELL_FORMAT)
    write_cell(cell_file(job.out, job.cell), job.cell, result, notes)


def main() -> None:
    """Do the job that stands on stdin; its errors are the last line on stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent ends its workers
    signal.signal(signal.SIGTERM, _leave)
    job = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        do(job)
    except ReaugkdError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


def _leave(_number: int, _frame: object) -> None:
    """By way of every ``finally``, so that temporary files go."""
    raise SystemExit(128 + signal.SIGTERM)


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)

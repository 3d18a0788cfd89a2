"""Run the cells of a study in parallel, each in its own process.

Cells of the same task and seed share a teacher. The first of them trains it, and the others wait until it has
succeeded. Cells of other tasks and seeds run meanwhile. A cell that fails, or whose process is killed, does not affect
other cells.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from ...errors import ReaugkdError, one_line, shorten
from ...runtime.inference.session.threads import default_threads
from ...runtime.output.progress import duration
from .fingerprints import CELL_FORMAT
from .plan import Cell, Plan
from .results import CellNotes, CellResult, cell_file, write_cell

_PATIENCE_SECONDS = 10.0  # between SIGTERM and SIGKILL
_REASON = 300  # characters


class CellFunction(Protocol):
    """Trains and scores a cell. It must be a function of a module, so that another process can import it."""

    def __call__(self, cell: Cell, plan: Plan, out: Path, data_dir: Path) -> CellResult:
        """Return the cell's results.

        Args:
            cell: the task, recipe and seed.
            plan: the study.
            out: the study's folder; its ``cells`` and ``logs`` folders are reserved.
            data_dir: base folder of relative data paths.
        """


@dataclass(frozen=True)
class CellJob:
    """A cell to run.

    Args:
        cell: the cell.
        plan: the study.
        out: the study's folder.
        data_dir: base folder of relative data paths.
        settings: hash of the settings.
        inputs: hash of data and models.
        run: computes the results.
    """

    cell: Cell
    plan: Plan
    out: Path
    data_dir: Path
    settings: str
    inputs: str
    run: CellFunction

    @property
    def log(self) -> Path:
        """File with the output of the cell's process."""
        return self.out / "logs" / f"{self.cell.name}.log"


@dataclass(frozen=True)
class Failure:
    """A cell that failed.

    Args:
        cell: name of the cell.
        reason: the reason in one line.
        log: file with the output of its process.
    """

    cell: str
    reason: str
    log: Path


@dataclass(frozen=True)
class Workers:
    """Number of processes at once and their share of the machine.

    Args:
        processes: number of parallel processes.
        threads: threads of each process.
        gpus: ids of GPUs, assigned in turn; empty without a GPU.
    """

    processes: int
    threads: int
    gpus: tuple[str, ...] = ()

    @classmethod
    def of(cls, processes: int | None, cores: int, gpus: Sequence[str] = ()) -> Workers:
        """Share the cores among processes.

        Args:
            processes: number of processes; None for one per GPU, or one per core without a GPU.
            cores: number of cores.
            gpus: ids of GPUs.
        """
        count = processes or len(gpus) or cores
        return cls(count, max(1, cores // count), tuple(gpus))

    def environment(self, slot: int) -> dict[str, str]:
        """Return the environment variables of the process in a slot, in addition to this process's own."""
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")}
        gpu = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]} if self.gpus else {}
        # Waiting threads that spin take cores from other processes, which makes training ten times slower.
        return {"OMP_WAIT_POLICY": "PASSIVE", **threads, **gpu}


def available_workers(processes: int | None) -> Workers:
    """Return the workers for this machine; None for one process per GPU, or one per core without a GPU."""
    return Workers.of(processes, default_threads(), _gpus())


def _gpus() -> list[str]:
    import torch
    from accelerate.utils import parse_flag_from_env

    if parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available():
        return []
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return listed.split(",") if listed else [str(number) for number in range(torch.cuda.device_count())]


@dataclass(frozen=True)
class _Running:
    job: CellJob
    slot: int
    pool: ProcessPoolExecutor
    began: float


def run_jobs(jobs: Sequence[CellJob], have_teacher: Collection[tuple[str, int]], workers: Workers) -> list[Failure]:
    """Run all jobs; a failed job does not stop the others. An exception here (Ctrl-C) ends all processes.

    A line is written to stderr for each cell that ends; a terminal also shows a bar with the remaining time.

    Args:
        jobs: in running order.
        have_teacher: the pairs of task and seed whose teacher exists.
        workers: number of processes and their share of the machine.
    """
    waiting, ready = list(jobs), set(have_teacher)
    running: dict[Future[str | None], _Running] = {}
    failures: list[Failure] = []
    with tqdm(total=len(jobs), desc="study", unit="cell", leave=False, disable=None) as bar:
        try:
            while waiting or running:
                for slot in sorted(set(range(workers.processes)) - {one.slot for one in running.values()}):
                    job = next_job(waiting, ready, [one.job.cell.pair for one in running.values()])
                    if job is not None:
                        waiting.remove(job)
                        # One pool for each job, because a killed process breaks its whole pool.
                        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
                        with _environment(workers.environment(slot)):
                            running[pool.submit(run_job, job)] = _Running(job, slot, pool, time.monotonic())
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    one = running.pop(future)
                    name, reason = one.job.cell.name, _reason(future)
                    bar.update()
                    ended = len(jobs) - len(waiting) - len(running)
                    one.pool.shutdown()
                    if reason is None:
                        ready.add(one.job.cell.pair)
                        line = f"done in {duration(time.monotonic() - one.began)} ({ended} of {len(jobs)})"
                    else:
                        failures.append(Failure(name, reason, one.job.log))
                        line = f"failed: {reason}"
                    bar.write(f"{name}: {line}", file=sys.stderr)
        finally:
            if running:
                _end_processes()
                for one in running.values():
                    one.pool.shutdown()
    return failures


def next_job(
    waiting: Sequence[CellJob], ready: Collection[tuple[str, int]], running: Collection[tuple[str, int]]
) -> CellJob | None:
    """Return the first job that does not wait for another job to train its teacher.

    Args:
        waiting: in running order.
        ready: the pairs of task and seed whose teacher exists.
        running: the pairs of the running jobs.
    """
    return next((job for job in waiting if job.cell.pair in ready or job.cell.pair not in running), None)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables while a process starts and inherits them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _reason(future: Future[str | None]) -> str | None:
    """Return the reason why a cell failed; None if it succeeded."""
    try:
        return future.result()
    except BrokenProcessPool:
        return "the process was killed (out of memory?) or ended without a result"


def _end_processes() -> None:
    """End all child processes: with SIGTERM, so that they delete temporary files, then with SIGKILL."""
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        if child.is_alive():
            child.kill()
            child.join()


def run_job(job: CellJob) -> str | None:
    """Run a cell in this process and write its results; output goes to its log.

    Returns:
        None, or the reason why the cell failed, in one line.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the others
    signal.signal(signal.SIGTERM, _exit_on_signal)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("wb") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    began = time.monotonic()
    try:
        result = job.run(job.cell, job.plan, job.out, job.data_dir)
        notes = CellNotes(job.settings, job.inputs, round(time.monotonic() - began, 3), CELL_FORMAT)
        write_cell(cell_file(job.out, job.cell), job.cell, result, notes)
    except SystemExit:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + signal.SIGTERM)  # the pool would catch the exception and wait for the next job
    except Exception as error:
        traceback.print_exc()
        reason = str(error) if isinstance(error, ReaugkdError) else traceback.format_exception_only(error)[-1]
        return shorten(one_line(reason), _REASON)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return None


def _exit_on_signal(_number: int, _frame: object) -> None:
    """Exit through all ``finally`` blocks, so that temporary files are deleted.

    Raises:
        SystemExit: always.
    """
    raise SystemExit


def _end_with_parent() -> None:
    """End this process when its parent has ended, so that it does not write while the study runs again."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

"""The order of a study's cells and the workers that run them.

Cells of one task and one seed share a teacher. The first of them to succeed makes it, so until then no other of them
runs; cells of other tasks and seeds may run beside it.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...errors import one_line, shorten
from ...runtime.inference.threads import default_threads
from .watch import Watch
from .worker import Job

_COMMAND = [sys.executable, "-P", "-c", "from reaugkd.export.study.worker import main; main()"]
_POLL_SECONDS = 0.05
_SHOW_SECONDS = 0.5
_PATIENCE_SECONDS = 10.0
_REASON = 300


@dataclass(frozen=True)
class Workers:
    """How many workers run at once and on what.

    Args:
        processes: at once.
        threads: of each.
        gpus: ids, taken in turn; none where there is no GPU to use.
    """

    processes: int
    threads: int
    gpus: tuple[str, ...] = ()

    @classmethod
    def of(cls, processes: int | None, cores: int, gpus: Sequence[str] = ()) -> Workers:
        """``processes`` workers, by default one for each GPU, or else for each core, which they share."""
        count = processes or len(gpus) or cores
        return cls(count, max(1, cores // count), tuple(gpus))

    def environment(self, slot: int) -> dict[str, str]:
        """What the worker at a slot has beyond this process's environment."""
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")}
        gpu = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]} if self.gpus else {}
        # A waiting thread that spins takes the core from the worker beside it; training is then ten times slower.
        return {"OMP_WAIT_POLICY": "PASSIVE", **threads, **gpu}


def available_workers(processes: int | None) -> Workers:
    """The workers that suit this machine; ``processes`` None for one for each GPU or core."""
    return Workers.of(processes, default_threads(), _gpus())


def _gpus() -> list[str]:
    import torch
    from accelerate.utils import parse_flag_from_env

    if parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available():
        return []
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return listed.split(",") if listed else [str(number) for number in range(torch.cuda.device_count())]


@dataclass(frozen=True)
class Failure:
    """A cell that did not get done.

    Args:
        cell: its name.
        reason: the last thing its worker said, or the signal that ended it.
        log: all that it said.
    """

    cell: str
    reason: str
    log: Path


def run_jobs(
    jobs: Sequence[Job], have_teacher: Collection[tuple[str, int]], workers: Workers, watch: Watch
) -> list[Failure]:
    """Run every job, each in a process of its own; a failed one does not stop the others.

    Args:
        jobs: in the order of work.
        have_teacher: the pairs of task and seed whose teacher is there already.
        workers: how many at once and on what.
        watch: is told what happens.
    """
    waiting, ready = list(jobs), set(have_teacher)
    running: dict[int, _Worker] = {}
    failures: list[Failure] = []
    shown = time.monotonic()
    try:
        while waiting or running:
            for slot in sorted(set(range(workers.processes)) - running.keys()):
                job = next_job(waiting, ready, [worker.job.cell.pair for worker in running.values()])
                if job is not None:
                    waiting.remove(job)
                    running[slot] = _Worker(job, workers.environment(slot))
                    watch.started(job.cell.name)
            for slot in [slot for slot, worker in running.items() if worker.ended()]:
                worker = running.pop(slot)
                failure = worker.failure()
                if failure is None:
                    ready.add(worker.job.cell.pair)
                    watch.finished(worker.job.cell.name)
                else:
                    failures.append(failure)
                    watch.failed(failure.cell, failure.reason)
            time.sleep(_POLL_SECONDS)
            if time.monotonic() - shown >= _SHOW_SECONDS:
                shown = time.monotonic()
                watch.show()
    finally:
        _end(list(running.values()))
        watch.clear()
    return failures


def next_job(
    waiting: Sequence[Job], ready: Collection[tuple[str, int]], running: Collection[tuple[str, int]]
) -> Job | None:
    """The first job whose teacher is there, or is nobody's work yet.

    Args:
        waiting: in the order of work.
        ready: the pairs of task and seed whose teacher is there.
        running: the pairs under way.
    """
    return next((job for job in waiting if job.cell.pair in ready or job.cell.pair not in running), None)


class _Worker:
    """A process at work on a job; what it says goes to the cell's log."""

    def __init__(self, job: Job, environment: Mapping[str, str]) -> None:
        self.job = job
        self.log = job.out / "logs" / f"{job.cell.name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                _COMMAND, stdin=subprocess.PIPE, stdout=log, stderr=log, env={**os.environ, **environment}
            )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it died at once: the log has why
            self.process.stdin.write(pickle.dumps(job))
            self.process.stdin.flush()

    def ended(self) -> bool:
        """Whether it is over."""
        return self.process.poll() is not None

    def failure(self) -> Failure | None:
        """What went wrong with a worker that has ended; None if nothing did."""
        self.close()
        code = self.process.returncode
        if code == 0:
            return None
        said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = f"ended by {signal.Signals(-code).name}" if code < 0 else said[-1] if said else f"exit code {code}"
        return Failure(self.job.cell.name, shorten(one_line(reason), _REASON), self.log)

    def close(self) -> None:
        """Close this side's end of the pipe."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()


def _end(workers: Sequence[_Worker]) -> None:
    """End workers, at first politely, so that they leave no temporary files."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        worker.close()

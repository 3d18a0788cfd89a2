"""The Ray engine: every part is a task of Ray, which places it and runs it again if its machine or process is lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import DependencyError, ReaugkdError
from ..job.plan import PLAN_FILE
from .local import ATTEMPTS
from .task import Settings, Worker

_BASE_BYTES = 512 << 20  # Python, numpy, pyarrow and ONNX Runtime, with a part that is being written

_held: dict[tuple[object, ...], Worker] = {}
"""The open worker of this process, by its settings and the plan's file."""


def do_part(settings: Settings, number: int) -> ReaugkdError | None:
    """Do a part in a process of Ray, which keeps the bundle open for the next one; returns an error of the user's."""
    try:
        plan = Path(settings.out) / PLAN_FILE
        key = (settings, plan.stat().st_mtime_ns if plan.exists() else None)
        if key not in _held:
            for old in _held.values():
                old.close()
            _held.clear()
            _held[key] = settings.open()
        _held[key].do(number, lambda rows: None)
    except ReaugkdError as error:
        return error
    return None


def run_ray(
    settings: Settings,
    parts: Sequence[int],
    workers: int | None,
    advance: Callable[[int], object],
    rows_of: Callable[[int], int],
    address: str | None,
) -> dict[int, str]:
    """Do parts on a cluster of Ray, which has the inputs, the bundle and the output folder at the same paths.

    Args:
        settings: of the job.
        parts: their numbers.
        workers: tasks at a time, at most; None for as many as the cluster has cores for.
        advance: called with the number of rows that are answered.
        rows_of: the number of rows of a part.
        address: of the cluster; None for the environment variable RAY_ADDRESS, or else for Ray on this machine alone.

    Returns:
        The parts whose worker ended three times, with how.

    Raises:
        ReaugkdError: a part cannot be done for a reason that the user can correct, or Ray is missing.
    """
    with _connected(address) as ray:
        size = sum(file.stat().st_size for file in Path(settings.bundle).rglob("*") if file.is_file())
        found = ray.cluster_resources()
        gpus = settings.gpus if found.get("GPU", 0) >= settings.gpus else 0
        needed = {"num_cpus": settings.threads, "num_gpus": gpus, "memory": _BASE_BYTES + 2 * size}
        task = ray.remote(**needed, max_retries=ATTEMPTS - 1)(do_part)
        workers = workers or max(1, int(found["GPU"]) // gpus if gpus else int(found.get("CPU", 1)) // settings.threads)
        waiting, answered = list(reversed(parts)), 0
        running: dict[Any, int] = {}
        given_up: dict[int, str] = {}
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    number = waiting.pop()
                    running[task.remote(settings, number)] = number
                (done,), _ = ray.wait(list(running))
                number = running.pop(done)
                try:
                    error = ray.get(done)
                except ray.exceptions.RayTaskError:
                    raise
                except ray.exceptions.RayError as lost:
                    given_up[number] = type(lost).__name__
                    continue
                if error is not None:
                    raise error
                answered += rows_of(number)
                advance(answered)
        finally:
            for one in running:
                ray.cancel(one)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=15)
        return given_up


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, unless this process is connected already.

    Raises:
        DependencyError: Ray is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise DependencyError(
            "the engine ray needs the ray extra",
            found=f"no module {error.name!r}",
            remedy="Install it: pip install 'reaugkd[ray]'.",
        ) from error
    if ray.is_initialized():
        yield ray
        return
    # Without an address, ray.init would join a cluster that someone else has started on this machine.
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    ray.init(address=address, include_dashboard=False if address == "local" else None, logging_level="warning")
    try:
        yield ray
    finally:
        ray.shutdown()

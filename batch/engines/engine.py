"""The choice of the engine that does the parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from ...runtime.inference.session.threads import default_threads
from .local import run_local
from .task import Settings


def run_parts(
    settings: Settings,
    parts: Sequence[int],
    engine: Literal["local", "ray"],
    workers: int | None,
    address: str | None,
    advance: Callable[[int], object],
    rows_of: Callable[[int], int],
) -> dict[int, str]:
    """Do parts in an engine.

    Args:
        settings: of the job.
        parts: their numbers; nothing is started if there are none.
        engine: ``"local"`` or ``"ray"``.
        workers: processes, or tasks at a time; None for as many as there are cores for.
        address: of a cluster of Ray; for the engine ``"ray"``.
        advance: called with the number of rows that are done.
        rows_of: the number of rows of a part.

    Returns:
        The parts whose worker ended three times, with how.

    Raises: same as `run_local` and `run_ray`.
    """
    if not parts:
        return {}
    if engine == "ray":
        from .ray_tasks import run_ray

        return run_ray(settings, parts, workers, advance, rows_of, address)
    workers = workers or max(1, default_threads() // settings.threads)
    return run_local(settings, parts, workers, advance, rows_of)

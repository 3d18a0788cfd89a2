"""The number of threads that this process may use.

Libraries count the host's cores; a container or a pinned process may have far fewer.
"""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath

from ....errors import UsageError

MAX_THREADS = 1024


def default_threads(root: Path = Path("/")) -> int:
    """The smaller of the CPU affinity and the cgroup v2 quota; at least 1.

    Args:
        root: the folder that contains ``proc`` and ``sys``.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cores = os.cpu_count() or 1
    quota = cgroup_quota(root)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def checked_threads(threads: object) -> int:
    """The number of threads to use: the given number, or `default_threads` for None.

    Raises:
        UsageError: it is not a whole number from 1 to `MAX_THREADS`.
    """
    if threads is None:
        return default_threads()
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise UsageError(
            "the number of threads is unusable", found=threads, expected=f"a whole number from 1 to {MAX_THREADS}"
        )
    return threads


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """The cores that cgroup v2 grants this process, the smallest limit of all levels; None without a limit.

    Args:
        root: the folder that contains ``proc`` and ``sys``.
    """
    mount = root / "sys/fs/cgroup"
    groups = [line.removeprefix("0::") for line in _read(root / "proc/self/cgroup").splitlines() if line[:3] == "0::"]
    quotas = [_quota(folder) for group in groups for folder in _levels(mount, group)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _levels(mount: Path, group: str) -> list[Path]:
    """The folders of a group and of every group above it."""
    pure = PurePosixPath(group.lstrip("/"))
    if ".." in pure.parts:  # the group is outside of what this container can see
        return [mount]
    return [mount / part for part in (pure, *pure.parents)]


def _quota(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # no such file, or "max"
        return None
    return cores if cores > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""

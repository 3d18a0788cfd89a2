"""How many threads this process may use, as the operating system sees it.

Libraries count the host's cores; a container or a pinned process may have far fewer.
"""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath

from ...errors import UsageError

MAX_THREADS = 1024


def default_threads(root: Path = Path("/")) -> int:
    """The smallest of the CPU affinity, the cgroup v2 quota and the cgroup v1 quota; at least 1.

    Args:
        root: where ``proc`` and ``sys`` are looked for.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cores = os.cpu_count() or 1
    quota = cgroup_quota(root)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def checked_threads(threads: int | None) -> int:
    """``threads`` as given, or `default_threads` for None.

    Raises:
        UsageError: less than 1, or so many that the system would fall over them.
    """
    if threads is None:
        return default_threads()
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise UsageError(
            "the number of threads is unusable", found=threads, expected=f"a whole number from 1 to {MAX_THREADS}"
        )
    return threads


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """The cores that control groups grant, the tightest of all levels; None where there is no limit."""
    quotas = []
    for controllers, group in _groups(root / "proc/self/cgroup"):
        if controllers == "":
            quotas += [_v2(folder) for folder in _levels(root / "sys/fs/cgroup", group)]
        elif "cpu" in controllers.split(","):
            quotas += [_v1(folder) for folder in _levels(root / "sys/fs/cgroup/cpu", group)]
            quotas += [_v1(folder) for folder in _levels(root / "sys/fs/cgroup" / controllers, group)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _groups(path: Path) -> list[tuple[str, str]]:
    """The (controllers, group) pairs of ``/proc/self/cgroup``; version 2 has no controllers."""
    lines = (line.split(":", 2) for line in _read(path).splitlines())
    return [(parts[1], parts[2]) for parts in lines if len(parts) == 3]


def _levels(mount: Path, group: str) -> list[Path]:
    """The group's folder and all above it up to the mount: the tightest limit counts."""
    pure = PurePosixPath(group.lstrip("/"))
    if ".." in pure.parts:  # the group lies outside what this container sees
        return [mount]
    return [mount / part for part in (pure, *pure.parents)]


def _v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _v1(folder: Path) -> float | None:
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # no such file, or "max"
        return None
    return share if share > 0 else None  # version 1 says -1 for no limit


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""

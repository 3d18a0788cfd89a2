"""What a study shows while it runs: cells done, cells under way, time left."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from ...runtime.progress import duration
from .plan import Cell


class Watch:
    """On a terminal one line kept up to date; elsewhere one line a finished cell.

    Args:
        cells: all of the study.
        done: seconds of those that are done, by name.
        processes: how many run at once.
        out: where to.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        done: Mapping[str, float],
        processes: int,
        out: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks = {cell.name: cell.task.name for cell in cells}
        self._seconds = dict(done)
        self._failed: set[str] = set()
        self._running: dict[str, float] = {}
        self._processes, self._out, self._clock = processes, out, clock
        self._width = 0

    def started(self, name: str) -> None:
        """A cell's worker has begun."""
        self._running[name] = self._clock()

    def finished(self, name: str) -> None:
        """A cell is done."""
        self._seconds[name] = self._clock() - self._running.pop(name)
        if not self._out.isatty():
            self._say(f"{name}: done in {duration(self._seconds[name])} ({self._state()})")

    def failed(self, name: str, reason: str) -> None:
        """A cell has failed; the others go on."""
        self._running.pop(name)
        self._failed.add(name)
        self._say(f"{name}: failed: {reason}")

    def show(self) -> None:
        """Bring the line up to date."""
        if self._out.isatty():
            line = f"study: {self._state()}; now {', '.join(self._running) or 'nothing'}"
            line = line[: shutil.get_terminal_size().columns - 1]
            self._out.write("\r" + line.ljust(self._width))
            self._out.flush()
            self._width = len(line)

    def clear(self) -> None:
        """Remove the line."""
        if self._width:
            self._out.write("\r" + " " * self._width + "\r")
            self._out.flush()
            self._width = 0

    def seconds_left(self) -> float | None:
        """The rest at the pace of the finished cells of each task; None while there is none to go by."""
        by_task: dict[str, list[float]] = defaultdict(list)
        for name, seconds in self._seconds.items():
            by_task[self._tasks[name]].append(seconds)
        if not by_task:
            return None
        everything = [seconds for values in by_task.values() for seconds in values]
        rest = []
        for name in self._tasks.keys() - self._seconds.keys() - self._failed:
            known = by_task.get(self._tasks[name], everything)
            spent = self._clock() - self._running[name] if name in self._running else 0.0
            rest.append(max(0.0, sum(known) / len(known) - spent))
        return sum(rest) / max(1, min(self._processes, len(rest)))

    def _state(self) -> str:
        left = self.seconds_left()
        failed = f", {len(self._failed)} failed" if self._failed else ""
        told = "? left" if left is None else f"{duration(left)} left"
        return f"{len(self._seconds)}/{len(self._tasks)} cells{failed}, {told}"

    def _say(self, line: str) -> None:
        self.clear()
        self._out.write(line + "\n")
        self._out.flush()

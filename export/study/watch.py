"""What a study shows while it runs: cells done, cells under way, time left."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from ...runtime.output.progress import duration
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
        self._kinds = {cell.name: (cell.task.name, cell.recipe) for cell in cells}
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
        """The rest, each cell at the pace of the finished ones that are most like it; None while there are none."""
        if not self._seconds:
            return None
        known: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for name, seconds in self._seconds.items():
            for likeness in self._likeness(name):
                known[likeness].append(seconds)
        rest = []
        for name in self._kinds.keys() - self._seconds.keys() - self._failed:
            alike = next(known[likeness] for likeness in self._likeness(name) if likeness in known)
            spent = self._clock() - self._running[name] if name in self._running else 0.0
            rest.append(max(0.0, sum(alike) / len(alike) - spent))
        return sum(rest) / max(1, min(self._processes, len(rest)))

    def _likeness(self, name: str) -> tuple[tuple[str, ...], ...]:
        """What a cell shares with others, the likest first: task and recipe, the task, the study."""
        task, recipe = self._kinds[name]
        return (task, recipe), (task,), ()

    def _state(self) -> str:
        left = self.seconds_left()
        failed = f", {len(self._failed)} failed" if self._failed else ""
        told = "? left" if left is None else f"{duration(left)} left"
        return f"{len(self._seconds)}/{len(self._kinds)} cells{failed}, {told}"

    def _say(self, line: str) -> None:
        self.clear()
        self._out.write(line + "\n")
        self._out.flush()

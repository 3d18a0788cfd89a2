"""A progress line for the terminal, with the time left.

`click.progressbar` does not replace it: it shows itself at once instead of after two seconds, stays on the terminal
when it is done, prints its label into logs, and shows no rate for a stream of unknown length.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

_SHOW_AFTER = 2.0
_EVERY = 0.5


class ProgressLine:
    """A callable (done, total) that shows one line after two seconds, updates it, and removes it at the end.

    Args:
        label: the name of the task.
        unit: the unit that is counted, in the singular.
        out: the output; nothing is written unless it is a terminal, so that logs stay readable.
        columns: the width of the terminal; a longer line is cut, because a wrapped line cannot be removed.
        clock: the time in seconds, for tests.
        rate: whether the line has the units of a second where the total is known; otherwise it always has.
    """

    def __init__(
        self,
        label: str,
        unit: str,
        out: TextIO,
        columns: int = 80,
        clock: Callable[[], float] = time.monotonic,
        rate: bool = False,
    ) -> None:
        self._label, self._unit, self._out, self._columns, self._clock = label, unit, out, columns, clock
        self._rate = rate
        self._begun = clock()
        self._shown_at = self._begun + _SHOW_AFTER - _EVERY
        self._width = 0

    def __call__(self, done: int, total: int | None = None, before: int = 0) -> None:
        """Report that ``done`` of ``total`` units are done, ``before`` of them earlier; None for an unknown total."""
        if total is not None and done >= total:
            self.clear()
            return
        now = self._clock()
        if now - self._shown_at >= _EVERY and self._out.isatty():
            self._show(done, total, before, now)

    def clear(self) -> None:
        """Remove the line: at the end, and before other output."""
        if self._width:
            self._out.write("\r" + " " * self._width + "\r")
            self._out.flush()
            self._width = 0

    def _show(self, done: int, total: int | None, before: int, now: float) -> None:
        took, new = now - self._begun, done - before
        rate = f", {new / took:,.0f} a second"
        if total is None:
            line = f"{self._label}: {done:,} {self._unit}s{rate}"
        else:
            left = duration(took / new * (total - done)) if new else "?"
            line = f"{self._label}: {done:,}/{total:,} {self._unit}s{rate * self._rate}, {left} left"
        line = line[: self._columns - 1]
        self._out.write("\r" + line.ljust(self._width))
        self._out.flush()
        self._width, self._shown_at = len(line), now


def duration(seconds: float) -> str:
    """Seconds in words: ``42 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"

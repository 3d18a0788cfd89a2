"""Progress bars on stderr with the remaining time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from .distributed import processes


@contextmanager
def progress(label: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a progress bar after two seconds; yields a function that advances it by n.

    On a terminal the bar is redrawn in place; in a log file, a line is written every half minute. Of several processes
    only the main one shows it.

    Args:
        label: text before the bar.
        total: number of units.
        unit: name of a unit.
        done: number of units that are already done.
    """
    silent = not processes().is_main_process
    every = 0.2 if sys.stderr.isatty() else 30.0
    with tqdm(
        total=total,
        initial=done,
        desc=label,
        unit=unit,
        delay=2.0,
        mininterval=every,
        file=sys.stderr,
        disable=silent,
    ) as bar:

        def advance(count: int = 1) -> None:
            bar.update(count)

        yield advance

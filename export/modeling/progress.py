"""Progress bars on stderr with the time left, for work longer than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def progress(label: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar that shows itself after two seconds; the block gets a function that moves it on by n.

    On a terminal the bar is redrawn in place; elsewhere (a log file) a line is written every half minute.
    """
    every = 0.2 if sys.stderr.isatty() else 30.0
    with tqdm(total=total, initial=done, desc=label, unit=unit, delay=2.0, mininterval=every, file=sys.stderr) as bar:

        def advance(count: int = 1) -> None:
            bar.update(count)

        yield advance

"""What an engine runs: numbered parts, each written by a worker as a file or folder that appears when complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Worker(Protocol):
    """Does parts, one after the other, in one process."""

    def do(self, number: int, advance: Callable[[int], object]) -> None:
        """Do a part, unless it is there.

        Args:
            number: the part's.
            advance: called with the number of its rows that are done.
        """

    def close(self) -> None:
        """Close what is open."""


class Settings(Protocol):
    """A picklable, hashable description of a worker."""

    @property
    def out(self) -> str:
        """The folder of the plan and the parts."""

    @property
    def bundle(self) -> str:
        """The bundle's folder."""

    @property
    def threads(self) -> int:
        """Threads of a worker."""

    @property
    def gpus(self) -> int:
        """GPUs of a worker, where there are any."""

    def open(self) -> Worker:
        """The worker; called once in each process."""

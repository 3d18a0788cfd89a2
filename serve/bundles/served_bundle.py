"""A bundle that is served: the open one, and its replacement by a new one at the same path.

A new bundle is opened and checked beside the old one, which answers meanwhile. Requests that began with the old one end
with it. A new bundle that cannot be opened is refused with a line in the log, and tried again later: it may not have
been complete.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import ReaugkdError, one_line
from ...runtime.bundle.manifest import MANIFEST_FILE
from ...runtime.monitoring.prometheus import Metric
from ..metrics import counters, merged
from ..settings import ServerSettings
from .open_bundle import OpenBundle

POLL_SECONDS = 1.0
"""Seconds between two looks at the manifest's file."""

_LONGEST_PAUSE = 60.0  # seconds between two tries to open a bundle that cannot be opened

_log = logging.getLogger("reaugkd.serve")

_Identity = tuple[int, int, int, int]


class ServedBundle:
    """A name, a path, and the bundle that is open now.

    Args:
        name: in requests.
        path: the bundle's folder, or a link to it.
        settings: how to open it.

    Attributes:
        name: same as the argument.
        current: the open bundle, after `open`.
    """

    def __init__(self, name: str, path: Path, settings: ServerSettings) -> None:
        self.name, self._path, self._settings = name, path.absolute(), settings
        self.current: OpenBundle
        self._identity: _Identity | None = None
        self._refused: _Identity | None = None
        self._pause, self._again, self._said = POLL_SECONDS, 0.0, ""
        self._refreshing = threading.Lock()
        self._changing = threading.Lock()  # held for moments only: `metrics` runs in the event loop
        self._retired: list[OpenBundle] = []
        self._past: list[Metric] = []
        self._swaps = {"taken": 0, "refused": 0}

    def open(self) -> None:
        """Open the bundle for the first time.

        Raises: same as `Runtime.open`.
        """
        self._identity = self._find()
        self.current = OpenBundle.open(self.name, self._path, self._settings)

    @contextmanager
    def use(self) -> Iterator[OpenBundle]:
        """The bundle that is open now, which stays open within the block."""
        while not (opened := self.current).enter():
            pass  # it was retired a moment ago: there is another one
        try:
            yield opened
        finally:
            opened.leave()

    def changed(self) -> bool:
        """Whether there is another manifest at the path than that of the open bundle."""
        found = self._find()
        return found is not None and found != self._identity

    def refresh(self, force: bool = False) -> None:
        """Take in a new bundle at the path, if there is one that can be opened.

        Args:
            force: open the bundle again even if its manifest is the same file, and even if it was refused just now.
        """
        with self._refreshing:
            self._close_idle()
            found = self._find()
            if found is None or not (force or self._is_due(found)):
                return
            try:
                fresh = OpenBundle.open(self.name, self._path, self._settings)
            except ReaugkdError as error:
                self._refuse(found, error)
                return
            if self._find() != found:  # replaced meanwhile: the next look opens that one
                fresh.close()
                return
            old, news = self.current, f"{_described(fresh)} in place of {_described(self.current)}"
            with self._changing:
                self._identity, self._refused, self._said, self.current = found, None, "", fresh
                self._retired.append(old)
                self._swaps["taken"] += 1
            old.retire()
            _log.info("%s: %s", self.name, news)
            self._close_idle()

    def close(self) -> None:
        """Close all its bundles, at the end of the server; waits for running fits of new labels."""
        with self._refreshing:
            for opened in [*self._retired, self.current]:
                opened.close()

    def metrics(self) -> list[Metric]:
        """The counts of all answers under this name, since the server began."""
        with self._changing:
            swaps = [("", {"model": self.name, "result": result}, float(n)) for result, n in self._swaps.items()]
            return merged(
                [
                    self.current.metrics(),
                    *(counters(one.metrics()) for one in self._retired),
                    self._past,
                    [Metric("bundle_swaps_total", "counter", "New bundles, by whether they were taken in.", swaps)],
                ]
            )

    def _close_idle(self) -> None:
        """Close the retired bundles that nobody uses, and keep only their counts."""
        for idle in [one for one in self._retired if one.idle]:
            idle.close()
            with self._changing:
                self._retired.remove(idle)
                self._past = merged([self._past, counters(idle.metrics())])

    def _find(self) -> _Identity | None:
        try:
            found = (self._path / MANIFEST_FILE).stat()
        except OSError:  # between two renames, or for good
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _is_due(self, found: _Identity) -> bool:
        if found == self._identity:
            return False
        return found != self._refused or time.monotonic() >= self._again

    def _refuse(self, found: _Identity, error: ReaugkdError) -> None:
        self._pause = min(2 * self._pause, _LONGEST_PAUSE) if found == self._refused else POLL_SECONDS
        self._refused, self._again = found, time.monotonic() + self._pause
        if str(error) != self._said:  # once for each fault
            self._said = str(error)
            self._swaps["refused"] += 1
            said = one_line(self._said)
            _log.error("%s: the new bundle is refused, %s stays: %s", self.name, self.current.model, said)


def _described(bundle: OpenBundle) -> str:
    try:
        return f"{bundle.model} (edits: {bundle.main.kb.seq})"
    except ReaugkdError:  # edits that cannot be read
        return bundle.model

"""Fits the classifier of new labels in a thread of the process that edits, one fit at a time."""

from __future__ import annotations

import threading
import time
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ....kb.edits.journal import Entry
    from ..edit import WriteOptions
    from ..store import KnowledgeStore

_WAIT = 60.0  # seconds to wait until another edit ends


@dataclass(frozen=True)
class Fit:
    """A fit that was committed.

    Attributes:
        entry: its line of the journal.
        seconds: the time that it took.
    """

    entry: Entry
    seconds: float


class BackgroundFit:
    """The fits of an open bundle; its runtimes share it.

    The thread is not a daemon: Python waits for it at exit. Requests that come during a fit are answered by one more
    fit, of the newest state.

    Args:
        store: the store of the bundle.
    """

    def __init__(self, store: KnowledgeStore) -> None:
        self._store, self._changing = store, threading.Lock()
        self._thread: threading.Thread | None = None
        self._wanted: WriteOptions | None = None
        self._error: Exception | None = None
        self._last: Fit | None = None

    def request(self, options: WriteOptions) -> None:
        """Fit the newest state in the background, if new labels have rows; returns at once.

        Args:
            options: author and signature of the journal's entry.
        """
        with self._changing:
            self._wanted = options
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name="reaugkd-fit")
            try:
                thread.start()
            except RuntimeError as error:  # too many threads, or the interpreter ends: the edit is saved nevertheless
                self._wanted = None
                self._failed(error)
            else:
                self._thread = thread

    def join(self) -> None:
        """Wait until no fit is running or requested; its result stays for `wait`."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def wait(self) -> Fit | None:
        """Wait until no fit is running or requested.

        Returns:
            The last fit since the last call; None if there was none.

        Raises:
            Exception: of the last fit, if it failed; the edits are saved, and the neighbours answer new labels.
        """
        self.join()
        with self._changing:
            last, error = self._last, self._error
            self._last = self._error = None
        if error is not None:
            raise error
        return last

    def _run(self) -> None:
        try:
            while (options := self._next()) is not None:
                try:
                    self._fit(options)
                except Exception as error:  # whatever it is: `wait` raises it
                    self._failed(error)
        except BaseException:
            with self._changing:
                self._thread = None
            raise

    def _failed(self, error: Exception) -> None:
        if self._store.bundle.replaced():  # by another bundle or by nothing, so nobody misses the fit
            return
        self._error = error
        warnings.warn(f"the classifier of new labels was not fitted: {error}", RuntimeWarning, stacklevel=1)

    def _next(self) -> WriteOptions | None:
        """The next request; after None the thread ends."""
        with self._changing:
            options, self._wanted = self._wanted, None
            if options is None:
                self._thread = None
            return options

    def _fit(self, options: WriteOptions) -> None:
        from ..edit import WriteOptions
        from ..writer import KnowledgeWriter
        from .fit import fit_classifier  # here: most runtimes only answer

        began, view = time.perf_counter(), self._store.current()
        if self._store.edited(view).removed:  # the former fit may know rows that the next compaction erases
            view = replace(view, fitted=None)
        fitted = fit_classifier(self._store, view)
        if fitted is None:
            return
        options = WriteOptions(f"after edit {fitted.seq}", options.who, _WAIT, options.key, options.unsigned)
        entry = KnowledgeWriter(self._store).write_fit(fitted, view.snapshot.number, options)
        if entry is not None:
            self._last, self._error = Fit(entry, time.perf_counter() - began), None
        elif self._store.view.snapshot is not view.snapshot:  # a compaction: the rows have other numbers
            self.request(options)

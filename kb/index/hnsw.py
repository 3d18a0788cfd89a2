"""The vector index: usearch's HNSW graph with explicit settings and one result type.

usearch leaves these settings to the caller or the machine: the scalar type (its default depends on the CPU that
builds), the metric, the number of threads (0 means every core of the host), and the expansion, which the file does not
store and the manifest therefore does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError, BundleIntegrityError
from ..storage.atomic import atomic_write
from .config import IndexConfig
from .exact_search import ExactIndex
from .stored_keys import NEAR_ONE, checked_keys, checked_queries, stored_form
from .usearch_file import IndexFile, parse_index, read_index_file
from .usearch_import import available, compiled

MOST_COMPARED_BYTES = 8 * 2**20
"""Without usearch, a query is compared with every key of a file with at most so many bytes of keys."""

_MOST_COPIED_BYTES = 2 * 2**20  # of keys that exact searches keep a copy of, in float32
_BLOCK = 1024  # rows added between two progress reports
_AGAIN = "Export the bundle again."


class VectorIndex:
    """An index of vectors that is searched by cosine; the graph's keys are row numbers.

    Searches from several Python threads are safe: a lock lets one index run one search at a time, because all callers
    share one scratch slot of the graph.
    """

    def __init__(self, index: Any, config: IndexConfig, file: IndexFile | None = None) -> None:
        self.config = config
        self._built = index
        self._file = file
        self._size = len(index) if file is None else file.rows
        self._lock = threading.RLock()

    @property
    def _index(self) -> Any:
        """The index of usearch; that of a file is checked and opened at the first use."""
        if self._built is None:
            with self._lock:
                if self._built is None and self._file is not None:
                    self._built = _mapped(self._file, self.config)
        return self._built

    @cached_property
    def _compared(self) -> ExactIndex | None:
        """The keys of a small file for exact searches, which then need no import of usearch (67 ms)."""
        file = self._file
        return ExactIndex(file.keys()) if file is not None and file.key_bytes <= _MOST_COPIED_BYTES else None

    @classmethod
    def build(
        cls,
        keys: NDArray[np.float32],
        config: IndexConfig,
        *,
        progress: Callable[[int, int], object] | None = None,
        threads: int = 1,
    ) -> VectorIndex:
        """Index ``keys`` [n, d]. With ``threads=1`` the same keys give the same bytes on every run.

        Args:
            keys: finite rows of non-zero length.
            config: the index's parameters; ``config.ndim`` equals d.
            progress: called with (rows done, rows in total); returning False stops the build.
            threads: threads that insert; more than one makes the graph depend on their timing.

        Raises:
            UsageError: keys of another shape, not finite, or of zero length.
            DependencyError: usearch is not installed.
            RuntimeError: ``progress`` returned False.
        """  # noqa: DOC501
        keys = checked_keys(keys, config.ndim)
        stored = stored_form(keys, config.dtype)
        index = _empty_index(config, "building an index of keys")
        total = len(keys)
        for start in range(0, total, _BLOCK):
            stop = min(start + _BLOCK, total)
            try:
                index.add_many(np.arange(start, stop, dtype=np.uint64), stored[start:stop], threads=threads)
            except RuntimeError as error:
                raise _interrupt(error) from None
            if progress is not None and progress(stop, total) is False:
                raise RuntimeError("building the index was stopped by its progress callback")
        return cls(index, config)

    def append(self, keys: NDArray[np.float32], threads: int = 1) -> None:
        """Add rows after the last one; searches by other threads wait. An index opened by `view` is read-only.

        Args:
            keys: same as `build`.
            threads: same as `build`.

        Raises:
            UsageError: same as `build`.
        """
        stored = stored_form(checked_keys(keys, self.config.ndim), self.config.dtype)
        numbers = np.arange(self._size, self._size + len(stored), dtype=np.uint64)
        with self._lock:
            self._index.add_many(numbers, stored, threads=threads)
            self._size += len(stored)

    def save(self, path: Path) -> None:
        """Write the index to ``path`` atomically.

        Raises:
            StorageError: the file cannot be written.
        """
        with atomic_write(path, "wb") as file:
            file.write(self._index.save_index_to_buffer())

    @classmethod
    def view(cls, path: Path, config: IndexConfig) -> VectorIndex:
        """Map the index at ``path`` into memory; a search reads the keys that it needs.

        The first search imports usearch and checks the whole graph (`usearch_file`). The keys' values are not checked:
        check the file's hash for these, as `Bundle.open` does. Without usearch a small index is searched by comparison.

        Raises:
            BundleIntegrityError: the file is missing or no index.
            BundleError: the file's dimensions, dtype or edges are not those of ``config``.
        """
        file = read_index_file(path)
        found = (file.ndim, file.dtype, file.connectivity)
        expected = (config.ndim, config.dtype, config.connectivity)
        if found != expected:
            raise BundleError(
                "the index does not match the manifest",
                path=path,
                found=_words(*found),
                expected=_words(*expected),
            )
        return cls(None, config, file)

    def load(self) -> None:
        """Check and open an index from a file now, not at the first search.

        Raises:
            BundleIntegrityError: it is no index that usearch can search safely.
            DependencyError: usearch is not installed, and there are more than `MOST_COMPARED_BYTES` of keys.
        """
        _ = self._index

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        """Bytes of the index as a file."""
        return int(self._index.serialized_length) if self._file is None else self._file.nbytes

    def search(
        self, query: NDArray[np.float32], k: int, exact: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The ``min(k, len(self))`` rows most similar to ``query`` [d], best first.

        Args:
            query: the query.
            k: number of rows.
            exact: compare with every key, instead of a walk through the graph.

        Returns:
            rows int64 [k] and cosine similarities float32 [k].

        Raises:
            UsageError: the query has no direction: it has NaN or infinite values, or is all zero.
        """  # noqa: DOC501
        needed = k if k < self._size else self._size
        if not NEAR_ONE[0] < _square(query) < NEAR_ONE[1]:  # takes 1 us; a student's query has length 1
            query = checked_queries(query[np.newaxis])[0]
        if needed <= 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        query = self._form(query[np.newaxis])
        index = self._compared if exact and self._compared is not None else self._index
        try:
            with self._lock:
                keys, distances, counts, _, _ = index.search_many(query, needed, exact, 1)
                if counts[0] != needed:
                    keys, distances, counts, _, _ = index.search_many(query, needed, True, 1)
        except RuntimeError as error:
            raise _interrupt(error) from None
        return keys[0].view(np.int64), 1.0 - distances[0]

    def search_many(
        self, queries: NDArray[np.float32], k: int, threads: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """`search` for every row of ``queries`` [n, d], with the same results.

        Returns:
            rows int64 [n, min(k, len(self))] and cosine similarities float32 of the same shape.

        Raises:
            UsageError: same as `search`.
        """  # noqa: DOC501
        needed = min(k, self._size)
        queries = self._form(checked_queries(np.ascontiguousarray(queries, np.float32)))
        if needed <= 0 or len(queries) == 0:
            shape = (len(queries), max(needed, 0))
            return np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        try:
            with self._lock:
                keys, distances, counts, _, _ = self._index.search_many(queries, needed, False, threads)
                for row in np.flatnonzero(counts != needed):
                    # The graph walk ended early (possible when k is near the size): compare with every key.
                    exact = self._index.search_many(queries[row : row + 1], needed, True, 1)
                    keys[row], distances[row] = exact[0][0], exact[1][0]
        except RuntimeError as error:
            raise _interrupt(error) from None
        return keys.view(np.int64), 1.0 - distances

    def _form(self, queries: NDArray[np.float32]) -> NDArray[Any]:
        """Checked queries in the form for the search: int8 with the whole range, for keys of i8.

        usearch would use about 50 of 255 steps; the mean error of a cosine is then six times as large.
        """
        return stored_form(queries, "i8") if self.config.dtype == "i8" else queries

    def set_ef_search(self, expansion_search: int) -> None:
        """Set ``ef_search``, the search width of later searches.

        Raises:
            UsageError: out of range.
        """
        config = replace(self.config, expansion_search=expansion_search)
        with self._lock:
            self._index.expansion_search = expansion_search
            self.config = config

    def trial(self, queries: NDArray[np.float32], k: int, expansion_search: int) -> tuple[NDArray[np.int64], float]:
        """Search with another ``ef_search`` and count the comparisons; the index does not change.

        Returns:
            rows int64 [n, min(k, len(self))], -1 where the walk ended early, and the mean number of keys that a query
            was compared with.

        Raises:
            UsageError: same as `search`.
        """  # noqa: DOC501
        queries = self._form(checked_queries(queries))
        with self._lock:
            self._index.expansion_search = expansion_search
            try:
                keys, _, counts, _, compared = self._index.search_many(queries, min(k, self._size), False, 1)
            except RuntimeError as error:
                raise _interrupt(error) from None
            finally:
                self._index.expansion_search = self.config.expansion_search
        found = np.where(np.arange(keys.shape[1]) < counts[:, np.newaxis], keys.view(np.int64), -1)
        return found, compared / max(len(queries), 1)

    def stored_rows(self, rows: NDArray[np.integer]) -> NDArray[Any]:
        """The keys of some rows as stored, int8, float16 or float32 [m, d].

        Raises:
            BundleIntegrityError: same as `stored`.
        """
        found: NDArray[Any] = self.stored()[rows]
        return found

    def stored(self) -> NDArray[Any]:
        """The keys as stored, int8, float16 or float32 [n, d], in the order of rows; do not change them.

        usearch is not imported for an index from a file.

        Raises:
            BundleIntegrityError: rows are missing, or a key is not a number.
        """
        if self._file is not None:
            return self._file.keys()
        data = np.frombuffer(self._index.save_index_to_buffer(), np.uint8)
        return parse_index(Path("index.usearch"), data).keys()

    def vectors(self) -> NDArray[np.float32]:
        """A copy of the keys as float32 [n, d]; i8 keys are whole numbers from -127 to 127.

        Raises:
            BundleIntegrityError: rows are missing, or keys have no direction.
        """
        return float_keys(self.stored())


def float_keys(stored: NDArray[Any]) -> NDArray[np.float32]:
    """A copy of stored keys [n, d] as float32, see `VectorIndex.vectors`.

    Raises:
        BundleIntegrityError: keys have no direction.
    """
    found = stored.astype(np.float32)
    lengths = np.linalg.norm(found, axis=1)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise BundleIntegrityError(
            "the knowledge base's index is unusable", found="keys without a direction", remedy=_AGAIN
        )
    return found


@np.errstate(over="ignore")
def _square(query: NDArray[np.float32]) -> float:
    return query.dot(query)  # type: ignore[no-any-return]


def _mapped(file: IndexFile, config: IndexConfig) -> Any:
    """The index of a file for usearch, which gets the same bytes that were checked.

    Raises:
        BundleIntegrityError: it is no index that usearch can search safely.
        DependencyError: usearch is not installed, and the index has more than `MOST_COMPARED_BYTES` of keys.
    """
    file.check()
    if not available() and file.key_bytes <= MOST_COMPARED_BYTES:
        return ExactIndex(file.keys())
    index = _empty_index(config, f"searching {file.rows:,} rows")
    try:
        index.view_index_from_buffer(file.data)
    except (RuntimeError, ValueError) as error:
        raise BundleIntegrityError(
            "the index cannot be read", path=file.path, found=str(error), remedy=_AGAIN
        ) from error
    return index


def _empty_index(config: IndexConfig, what: str) -> Any:
    usearch = compiled(what)
    return usearch.Index(
        ndim=config.ndim,
        metric_kind=usearch.MetricKind.Cos,
        metric_signature=usearch.MetricSignature.ArrayArraySize,
        dtype=getattr(usearch.ScalarKind, config.dtype.upper()),
        connectivity=config.connectivity,
        expansion_add=config.expansion_add,
        expansion_search=config.expansion_search,
        multi=False,
        # Searches use the graph alone: without the hash table, opening is faster and takes less memory.
        enable_key_lookups=False,
    )


def _interrupt(error: RuntimeError) -> BaseException:
    """The error to raise: usearch turns an exception of a signal handler into a RuntimeError, here a Ctrl-C again."""
    return KeyboardInterrupt() if "terminated" in str(error) else error


def _words(ndim: int, dtype: str, connectivity: int) -> str:
    return f"{ndim} dimensions, {dtype}, {connectivity} edges"

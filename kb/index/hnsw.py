"""The vector index: usearch's HNSW graph with every choice made explicitly, and its result types made one.

What is settled here because usearch leaves it to the caller or to the machine: the scalar type (its default depends on
the CPU that builds), the metric, the number of threads (0 would mean every core of the host), and the expansion, which
is *not* stored in the file and so has to come from the manifest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError, BundleIntegrityError, UsageError
from ..storage.atomic import atomic_write
from .usearch_file import read_index_file
from .usearch_import import compiled

METRICS = ("cos",)
DTYPES = ("f32", "f16", "bf16", "i8")
_BLOCK = 1024  # rows added between two progress reports
_ROUNDING = 0.01  # by which the length of a key in 16 bits may miss 1
_MOST = 1_000_000  # of dimensions, edges and breadth: usearch allocates what it is told
_NEAR_ONE = (2.0**-10, 2.0**10)  # squared lengths of queries that every dtype holds as they are


@dataclass(frozen=True)
class IndexConfig:
    """How the index is built and searched; the defaults are those of every export.

    Attributes:
        ndim: dimensions of a key.
        metric: ``"cos"``; similarities are cosines. (usearch's i8 is right for cosine only.)
        dtype: how keys are stored: ``"f32"``, ``"f16"``, ``"bf16"`` or ``"i8"``, which answers as f16 does in two
            thirds of the bytes (docs/performance.md).
        connectivity: edges per node of the graph (HNSW's M), at least 2.
        expansion_add: breadth of the search at insertion (efConstruction).
        expansion_search: breadth of the search at a query (ef); larger finds more of the true neighbours, slower.

    Raises:
        UsageError: a value is outside its range.
    """

    ndim: int
    metric: str = "cos"
    dtype: str = "i8"
    connectivity: int = 16
    expansion_add: int = 128
    expansion_search: int = 64

    def __post_init__(self) -> None:
        for name in ("ndim", "connectivity", "expansion_add", "expansion_search"):
            value = getattr(self, name)
            least = 2 if name == "connectivity" else 1
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
                expected = f"a whole number from {least} to {_MOST:,}"
                raise UsageError(f"the index's {name} is unusable", found=value, expected=expected)
        if self.metric not in METRICS:
            raise UsageError("the index's metric is unknown", found=self.metric, expected=", ".join(METRICS))
        if self.dtype not in DTYPES:
            raise UsageError("the index's dtype is unknown", found=self.dtype, expected=", ".join(DTYPES))


class VectorIndex:
    """Rows of unit vectors, searched by cosine. Keys of the graph are row numbers.

    Searches from several Python threads are safe: one index searches one query at a time (a lock), because every
    caller uses the same scratch slot of the graph.
    """

    def __init__(self, index: Any, config: IndexConfig) -> None:
        self.config = config
        self._index = index  # owns the memory map; its end is the map's end
        self._search_many = index.search_many
        self._size = len(index)
        self._lock = threading.Lock()

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
            progress: called with (rows done, rows in all); returning False stops the build.
            threads: threads that insert; more than one makes the graph depend on their timing.

        Raises:
            UsageError: keys of another shape, not finite, or of zero length.
            RuntimeError: ``progress`` returned False.
        """
        keys = _checked_keys(keys, config)
        stored = _stored(keys, config)
        index = _empty_index(config)
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

    def append(self, keys: NDArray[np.float32]) -> None:
        """Add rows after the last one; searches by other threads wait. Not for an index that was opened by `view`.

        Args:
            keys: as of `build`.

        Raises:
            UsageError: as of `build`.
        """
        stored = _stored(_checked_keys(keys, self.config), self.config)
        numbers = np.arange(self._size, self._size + len(stored), dtype=np.uint64)
        with self._lock:
            self._index.add_many(numbers, stored, threads=1)
            self._size += len(stored)

    def save(self, path: Path) -> None:
        """Write the index to ``path`` atomically.

        Raises:
            StorageError: the disk refused.
        """
        with atomic_write(path, "wb") as file:
            file.write(self._index.save_index_to_buffer())

    @classmethod
    def view(cls, path: Path, config: IndexConfig) -> VectorIndex:
        """Map the index at ``path`` into memory, its keys unread until it is searched.

        The whole graph is checked first (`index_file`), but not the keys' values: verify the file's hash for these, as
        `Bundle.open` does.

        Raises:
            BundleIntegrityError: the file is missing or is no index.
            BundleError: the file's dimensions, metric or dtype are not those of ``config``.
        """
        file = read_index_file(path)
        found = (file.ndim, file.metric, file.dtype, file.connectivity)
        expected = (config.ndim, config.metric, config.dtype, config.connectivity)
        if found != expected:
            raise BundleError(
                "the index is not the one that the manifest describes",
                path=path,
                found=_words(*found),
                expected=_words(*expected),
            )
        index = _empty_index(config)
        try:
            index.view_index_from_path(str(path))
        except (RuntimeError, ValueError) as error:
            raise BundleIntegrityError(
                "the index cannot be read", path=path, found=str(error), remedy="Export the bundle again."
            ) from error
        return cls(index, config)

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        """Bytes of the index as a file."""
        return int(self._index.serialized_length)

    def search(self, query: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The ``min(k, len(self))`` rows most similar to ``query`` [d], best first.

        Returns:
            rows int64 [k] and cosine similarities float32 [k].

        Raises:
            UsageError: the query has no direction: NaN or an infinity is in it, or it is all zero.
        """
        wanted = k if k < self._size else self._size
        if not _NEAR_ONE[0] < _square(query) < _NEAR_ONE[1]:  # one microsecond; of a student it is 1
            query = _in_range(query[np.newaxis])[0]
        if wanted <= 0:
            return _no_rows(), _no_similarities()
        query = query[np.newaxis]
        try:
            with self._lock:
                keys, distances, counts, _, _ = self._search_many(query, wanted, False, 1)
                if counts[0] != wanted:
                    keys, distances, counts, _, _ = self._search_many(query, wanted, True, 1)
        except RuntimeError as error:
            raise _interrupt(error) from None
        return keys[0].view(np.int64), 1.0 - distances[0]

    def search_many(
        self, queries: NDArray[np.float32], k: int, threads: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """`search` for every row of ``queries`` [n, d], with the same answers.

        Returns:
            rows int64 [n, min(k, len(self))] and cosine similarities float32 of the same shape.

        Raises:
            UsageError: a query has no direction, as of `search`.
        """
        wanted = min(k, self._size)
        queries = _in_range(np.ascontiguousarray(queries, np.float32))
        if wanted <= 0 or len(queries) == 0:
            shape = (len(queries), max(wanted, 0))
            return np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        try:
            with self._lock:
                keys, distances, counts, _, _ = self._search_many(queries, wanted, False, threads)
                for row in np.flatnonzero(counts != wanted):
                    # The graph walk met a dead end (it can when k is near the size): look at every key instead.
                    exact = self._search_many(queries[row : row + 1], wanted, True, 1)
                    keys[row], distances[row] = exact[0][0], exact[1][0]
        except RuntimeError as error:
            raise _interrupt(error) from None
        return keys.view(np.int64), 1.0 - distances

    def set_ef_search(self, expansion_search: int) -> None:
        """Search with this breadth from now on.

        Raises:
            UsageError: out of range.
        """
        config = replace(self.config, expansion_search=expansion_search)
        with self._lock:
            self._index.expansion_search = expansion_search
            self.config = config

    def trial(self, queries: NDArray[np.float32], k: int, expansion_search: int) -> tuple[NDArray[np.int64], float]:
        """What a search of another breadth finds, and what it costs on any machine; the index stays as it is.

        Returns:
            rows int64 [n, min(k, len(self))], -1 where the walk met a dead end, and how many keys a query was compared
            with in the mean.

        Raises:
            UsageError: a query has no direction, as of `search`.
        """
        queries = _in_range(queries)
        with self._lock:
            self._index.expansion_search = expansion_search
            try:
                keys, _, counts, _, compared = self._search_many(queries, min(k, self._size), False, 1)
            except RuntimeError as error:
                raise _interrupt(error) from None
            finally:
                self._index.expansion_search = self.config.expansion_search
        found = np.where(np.arange(keys.shape[1]) < counts[:, np.newaxis], keys.view(np.int64), -1)
        return found, compared / max(len(queries), 1)

    def vectors(self) -> NDArray[np.float32]:
        """The keys as they are stored and compared, [n, d], row by row; of i8 the whole numbers from -127 to 127.

        It copies the whole index, with the look-up table that `view` does without: for making other things of the
        keys, not for answering.

        Raises:
            BundleIntegrityError: rows are missing, or keys have no direction.
        """
        copy = _empty_index(self.config, lookups=True)
        copy.load_index_from_buffer(self._index.save_index_to_buffer())
        kinds = compiled().ScalarKind
        kind = kinds.I8 if self.config.dtype == "i8" else kinds.F32  # of i8, float32 would be shares of 127
        try:
            found = np.array(copy.get_many(np.arange(self._size, dtype=np.uint64), kind), np.float32)
            found = found.reshape(self._size, self.config.ndim)
        except (TypeError, ValueError) as error:  # of a row that is not there it gives None
            raise _unusable(f"rows that are not 0 to {self._size - 1}") from error
        lengths = np.linalg.norm(found, axis=1)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            raise _unusable("keys without a direction")
        return found


def _checked_keys(keys: NDArray[np.float32], config: IndexConfig) -> NDArray[np.float32]:
    keys = np.ascontiguousarray(keys, np.float32)
    if keys.ndim != 2 or keys.shape[1] != config.ndim:
        raise UsageError("keys of the wrong shape", found=str(keys.shape), expected=f"(rows, {config.ndim})")
    if len(keys):
        norms = np.linalg.norm(keys.astype(np.float64), axis=1)
        bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
        if len(bad):
            raise UsageError(
                "a key has no direction",
                row=int(bad[0]) + 1,
                found=f"length {norms[bad[0]]}, in {len(bad)} of {len(keys)} keys",
                expected="finite values, not all zero",
            )
    return keys


def _stored(keys: NDArray[np.float32], config: IndexConfig) -> NDArray[np.generic]:
    """Checked keys as usearch gets them."""
    return _whole_numbers(keys) if config.dtype == "i8" else _of_length_one(keys)


@np.errstate(over="ignore")
def _square(query: NDArray[np.float32]) -> float:
    return query.dot(query)  # type: ignore[no-any-return]


def _in_range(queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Queries [n, d] that every dtype can hold, in the same directions.

    usearch casts a query to the keys' dtype, where float16 ends at 65,504 and vanishes at 6e-8, and answers NaN, or an
    arbitrary row with similarity 0, of what is left. Scaling by powers of two changes no bit of a cosine.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", queries, queries)
    odd = np.flatnonzero(~((squares > _NEAR_ONE[0]) & (squares < _NEAR_ONE[1])))
    if not len(odd):
        return queries
    largest = np.abs(queries[odd]).max(axis=1, initial=0)
    lost = odd[~(np.isfinite(largest) & (largest > 0))]
    if len(lost):
        raise UsageError(
            "a query has no direction",
            row=int(lost[0]) + 1,
            found=f"largest component {np.abs(queries[lost[0]]).max()}",
            expected="finite values, not all zero",
        )
    scaled: NDArray[np.float32] = queries.copy()
    scaled[odd] = np.ldexp(queries[odd], -np.frexp(largest)[1][:, np.newaxis])
    return scaled


def _whole_numbers(keys: NDArray[np.float32]) -> NDArray[np.int8]:
    """Keys in the whole range of int8, each to its own scale, which a cosine does not see.

    usearch itself scales a key to length 1 and cuts fractions off, which leaves 128 components some 50 of 255 steps. By
    this the mean error of a cosine falls from 0.0047 to 0.0030, the rest of it being the query's.
    """
    largest = np.abs(keys).max(axis=1, keepdims=True)
    whole: NDArray[np.int8] = np.rint(keys / largest * 127).astype(np.int8)
    return whole


def _of_length_one(keys: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same directions, which 16 bits hold whatever the keys' length was; what was stored before stays as it is."""
    largest = np.abs(keys).max(axis=1, keepdims=True, initial=0)
    scaled = keys / largest  # first, so that squares neither vanish nor overflow
    directions: NDArray[np.float32] = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    near = np.abs(np.linalg.norm(keys.astype(np.float64), axis=1, keepdims=True) - 1) < _ROUNDING
    return np.where(near, keys, directions)


def _empty_index(config: IndexConfig, lookups: bool = False) -> Any:
    usearch = compiled()
    return usearch.Index(
        ndim=config.ndim,
        metric_kind=getattr(usearch.MetricKind, config.metric.capitalize()),
        metric_signature=usearch.MetricSignature.ArrayArraySize,
        dtype=getattr(usearch.ScalarKind, config.dtype.upper()),
        connectivity=config.connectivity,
        expansion_add=config.expansion_add,
        expansion_search=config.expansion_search,
        multi=False,
        # Answers reach rows through the graph alone: without the hash table, opening costs neither time nor memory.
        enable_key_lookups=lookups,
    )


def _unusable(found: str) -> BundleIntegrityError:
    return BundleIntegrityError(
        "the knowledge base's index is unusable", found=found, remedy="Export the bundle again."
    )


def _interrupt(error: RuntimeError) -> BaseException:
    """Usearch turns what a signal's handler raises while it works into a RuntimeError: taken for a Ctrl-C."""
    return KeyboardInterrupt() if "terminated" in str(error) else error


def _words(ndim: int, metric: str, dtype: str, connectivity: int) -> str:
    return f"{ndim} dimensions, {metric}, {dtype}, {connectivity} edges"


def _no_rows() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


def _no_similarities() -> NDArray[np.float32]:
    return np.zeros(0, np.float32)

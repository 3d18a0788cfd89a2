"""A usearch index file: its keys, read without usearch, and the check of the whole file before usearch maps it.

The threat is a hostile bundle: usearch trusts the file, follows an edge to a row that does not exist, and reads memory
outside the map, which gives a wrong answer or kills the process. A hash or signature proves who made a file, not that
its graph is valid. This reads usearch's own format, so the package is limited to usearch 2 (pyproject.toml). The layout
(version 2, little-endian):

    rows, bytes of a key             uint32 each
    keys                             rows x bytes
    head, 64 bytes                   "usearch", version 3 x uint16, kinds of metric, scalar, key and slot uint8 each,
                                     rows present, rows deleted, dimensions uint64 each, multi uint8, zeros
    rows, M, 2 M, highest level,
    row where a search starts        uint64 each
    level of each row                int16
    nodes, in the order of rows      key uint64, level int16, then for each level from 0 the number of edges uint32
                                     and room for 2 M (level 0) or M edges, uint32 each
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleIntegrityError

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

_COSINE = 99
_SCALARS = {11: "f32", 12: "f16", 23: "i8"}
_STORED: dict[str, np.dtype[Any]] = {"f32": np.dtype("<f4"), "f16": np.dtype("<f2"), "i8": np.dtype("i1")}
_KEY_KIND, _SLOT_KIND = 14, 15  # uint64, uint32
_VERSION = 2
_HEAD = struct.Struct("<7s3H4B3QB")
_GRAPH = struct.Struct("<5Q")
_HEAD_BYTES = 64
_MOST_EDGES = 1_000_000
_MOST_LEVELS = 64  # levels are drawn at random, each with at most half the rows of the one below
_BLOCK = 8192  # nodes checked together, ...
_BLOCK_EDGES = 1_000_000  # ... with so many edges


@dataclass(frozen=True, eq=False)
class IndexFile:
    """An index file whose headers and size were checked, mapped into memory.

    Attributes:
        path: the file; for error messages.
        rows: number of rows.
        ndim: dimensions of a key.
        dtype: same as `IndexConfig`.
        connectivity: edges per node.
        data: the bytes of the file, a memory map.
    """

    path: Path
    rows: int
    ndim: int
    dtype: str
    connectivity: int
    data: Bytes
    _graph: int  # the byte where the levels of the nodes begin

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return len(self.data)

    @property
    def key_bytes(self) -> int:
        """Bytes of the keys."""
        return self.rows * self.ndim * _STORED[self.dtype].itemsize

    def keys(self) -> NDArray[Any]:
        """The keys as stored, int8, float16 or float32 [n, d], in the order of row numbers; do not change them.

        Raises:
            BundleIntegrityError: the nodes are not rows 0 to n - 1, or a key is not a number.
        """
        kind = _STORED[self.dtype]
        end = 8 + self.key_bytes
        stored: NDArray[Any] = self.data[8:end].view(kind).reshape(self.rows, self.ndim)
        if self.dtype != "i8" and not np.isfinite(stored).all():
            _refuse(self.path, "a key that is not a number")
        numbers = self._nodes().numbers()
        if (numbers == np.arange(self.rows)).all():
            return stored
        ordered: NDArray[Any] = stored[np.argsort(numbers)]
        return ordered

    def check(self) -> None:
        """Check everything but the values of the keys; takes 3 ms for 10,000 rows, in proportion to their number.

        Raises:
            BundleIntegrityError: this is no index that usearch can search safely.
        """
        self._nodes().check()

    def _nodes(self) -> _Nodes:
        return _Nodes.read(self.path, self.data, self._graph, self.rows, self.connectivity)


def read_index_file(path: Path) -> IndexFile:
    """Map an index file, and check its headers and its size.

    Raises:
        BundleIntegrityError: the file is missing, or no index.
    """
    try:
        data: Bytes = np.memmap(path, np.uint8, "r").view(np.ndarray)
    except FileNotFoundError as error:
        raise BundleIntegrityError("the file is missing", path=path, expected="a usearch index") from error
    except (OSError, ValueError) as error:  # ValueError: it is empty
        _refuse(path, str(error))
    return parse_index(path, data)


def parse_index(path: Path, data: Bytes) -> IndexFile:
    """Check the headers and the size of an index.

    Args:
        path: the file, for error messages.
        data: its bytes.

    Raises:
        BundleIntegrityError: this is no index.
    """
    try:
        return _checked(path, data)
    except struct.error:
        _refuse(path, f"{len(data)} bytes")


def _checked(path: Path, data: Bytes) -> IndexFile:
    view = data.data
    rows, key_bytes = struct.unpack_from("<2I", view)
    head = 8 + rows * key_bytes
    graph = head + _HEAD_BYTES
    if graph + _GRAPH.size > len(data):
        _refuse(path, f"{len(data)} bytes for {rows} keys of {key_bytes}")
    magic, version, _, _, metric, scalar, key_kind, slot_kind, present, deleted, ndim, multi = _HEAD.unpack_from(
        view, head
    )
    if magic != b"usearch":
        _refuse(path, "no usearch header")
    if version != _VERSION or key_kind != _KEY_KIND or slot_kind != _SLOT_KIND or multi or deleted:
        _refuse(path, f"format {version}, kinds {key_kind} and {slot_kind}, {deleted} rows deleted")
    if metric != _COSINE or scalar not in _SCALARS:
        _refuse(path, f"metric {metric}, scalars {scalar}")
    dtype = _SCALARS[scalar]
    if not ndim or key_bytes != ndim * _STORED[dtype].itemsize or present != rows:
        _refuse(path, f"{rows} keys of {key_bytes} bytes, {present} of {ndim} dimensions in its header")
    nodes, connectivity, base, highest, entry = _GRAPH.unpack_from(view, graph)
    if nodes != rows or not 0 < connectivity <= _MOST_EDGES or base != 2 * connectivity:
        _refuse(path, f"{nodes} nodes for {rows} keys, {connectivity} and {base} edges")
    file = IndexFile(path, rows, ndim, dtype, connectivity, data, graph + _GRAPH.size)
    levels = file._nodes().levels
    if rows and (levels.max() != highest or entry >= rows or levels[entry] != highest):
        _refuse(path, f"levels up to {levels.max()}, {highest} and row {entry} in its header")
    return file


@dataclass(frozen=True)
class _Nodes:
    """The nodes of a file: their levels, and the bytes where their lists of edges begin, both [n]."""

    path: Path
    data: Bytes
    rows: int
    connectivity: int
    levels: Ints
    starts: Ints

    @classmethod
    def read(cls, path: Path, data: Bytes, begin: int, rows: int, connectivity: int) -> _Nodes:
        """Read the levels, which start at the byte ``begin``, and check that the nodes fill the file.

        Raises:
            BundleIntegrityError: they do not.
        """
        body = begin + 2 * rows
        if body > len(data):
            _refuse(path, f"{len(data)} bytes")
        levels = data[begin:body].view("<i2").astype(np.int64)
        if rows == 0:
            if len(data) != body:
                _refuse(path, f"{len(data)} bytes where {body} are an empty index")
            return cls(path, data, rows, connectivity, levels, levels)
        if levels.min() < 0 or levels.max() > _MOST_LEVELS:
            _refuse(path, f"levels {levels.min()} to {levels.max()}")
        sizes = 10 + 4 * (1 + 2 * connectivity) + levels * 4 * (1 + connectivity)
        ends = body + np.cumsum(sizes)
        if sizes.max() > len(data) or ends[-1] != len(data):
            _refuse(path, f"{len(data)} bytes where its nodes take {ends[-1]}")
        return cls(path, data, rows, connectivity, levels, ends - sizes)

    def numbers(self) -> Ints:
        """The row number of each node [n].

        Raises:
            BundleIntegrityError: they are not 0 to n - 1, each once.
        """
        found = np.zeros(self.rows, np.int64)
        for start in range(0, self.rows, _BLOCK):
            block = slice(start, start + _BLOCK)
            names = self.data[self.starts[block, np.newaxis] + np.arange(10)]
            keys, again = names[:, :8].copy().view("<u8").ravel(), names[:, 8:].copy().view("<i2").ravel()
            if keys.max() >= self.rows:
                _refuse(self.path, f"rows that are not 0 to {self.rows - 1}, each once")
            if (again != self.levels[block]).any():
                _refuse(self.path, "nodes of other levels than its list of levels says")
            found[block] = keys
        if (np.bincount(found, minlength=self.rows) != 1).any():
            _refuse(self.path, f"rows that are not 0 to {self.rows - 1}, each once")
        return found

    def check(self) -> None:
        """Check that every edge leads to a node of its level.

        Raises:
            BundleIntegrityError: one does not.
        """
        if self.rows == 0:
            return
        self.numbers()
        self._check_lists(self.starts + 10, 2 * self.connectivity, 0)
        levels = self.levels
        for level in range(1, int(levels.max()) + 1):
            base = 10 + 4 * (1 + 2 * self.connectivity) + (level - 1) * 4 * (1 + self.connectivity)
            self._check_lists(self.starts[levels >= level] + base, self.connectivity, level)

    def _check_lists(self, places: Ints, room: int, level: int) -> None:
        # So many together that memory does not grow with the numbers in the file.
        together = max(1, min(_BLOCK, _BLOCK_EDGES // (1 + room)))
        for start in range(0, len(places), together):
            self._check_edges(places[start : start + together], room, level)

    def _check_edges(self, places: Ints, room: int, level: int) -> None:
        """Check the lists of edges at these bytes: not longer than their room, each edge to a row with the level."""
        for odd in range(4):  # nodes have any length, so a list may begin at any byte
            some = places[places % 4 == odd]
            words = self.data[odd : odd + (len(self.data) - odd) // 4 * 4].view("<u4")
            lists = words[(some[:, np.newaxis] - odd) // 4 + np.arange(1 + room)]
            if not len(lists):
                continue
            counts, edges = lists[:, :1], lists[:, 1:]
            used = edges
            if level or edges.max() >= self.rows:  # values beyond the count may be anything
                used = edges[np.arange(room) < counts]
            if counts.max() > room or used.max(initial=0) >= self.rows:
                _refuse(self.path, f"{counts.max()} edges with room for {room}, to row {used.max()} of {self.rows}")
            if level and (self.levels[used] < level).any():
                _refuse(self.path, f"an edge of level {level} to a row that has none")


def _refuse(path: Path, found: str) -> NoReturn:
    raise BundleIntegrityError(
        "the index cannot be read",
        path=path,
        found=found,
        expected="a usearch index",
        remedy="Export the bundle again.",
    )

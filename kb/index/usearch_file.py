"""Check of a whole usearch index file before usearch maps it.

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
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleIntegrityError

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

_COSINE = 99
_SCALARS = {11: ("f32", 4), 12: ("f16", 2), 23: ("i8", 1)}
_KEY_KIND, _SLOT_KIND = 14, 15  # uint64, uint32
_VERSION = 2
_HEAD = struct.Struct("<7s3H4B3QB")
_GRAPH = struct.Struct("<5Q")
_HEAD_BYTES = 64
_MOST_EDGES = 1_000_000
_MOST_LEVELS = 64  # levels are drawn at random, each with at most half the rows of the one below
_BLOCK = 8192  # nodes checked together, ...
_BLOCK_EDGES = 1_000_000  # ... with so many edges


@dataclass(frozen=True)
class IndexFile:
    """The parameters of a checked index file.

    Attributes:
        rows: number of rows.
        ndim: dimensions of a key.
        dtype: same as `IndexConfig`.
        connectivity: edges per node.
    """

    rows: int
    ndim: int
    dtype: str
    connectivity: int


def read_index_file(path: Path) -> IndexFile:
    """Check the whole file except the values of its keys; takes 3 ms for 10,000 rows, in proportion to their number.

    Raises:
        BundleIntegrityError: the file is missing, or no index that usearch can search safely.
    """
    try:
        data: Bytes = np.memmap(path, np.uint8, "r").view(np.ndarray)
    except FileNotFoundError as error:
        raise BundleIntegrityError("the file is missing", path=path, expected="a usearch index") from error
    except (OSError, ValueError) as error:  # ValueError: it is empty
        _refuse(path, str(error))
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
    dtype, width = _SCALARS[scalar]
    if not ndim or key_bytes != ndim * width or present != rows:
        _refuse(path, f"{rows} keys of {key_bytes} bytes, {present} of {ndim} dimensions in its header")
    nodes, connectivity, base, highest, entry = _GRAPH.unpack_from(view, graph)
    if nodes != rows or not 0 < connectivity <= _MOST_EDGES or base != 2 * connectivity:
        _refuse(path, f"{nodes} nodes for {rows} keys, {connectivity} and {base} edges")
    _Graph(path, data, graph + _GRAPH.size, rows, connectivity).check(highest, entry)
    return IndexFile(rows, ndim, dtype, connectivity)


@dataclass(frozen=True)
class _Graph:
    """The levels and nodes of a file, which begin at the byte ``begin``."""

    path: Path
    data: Bytes
    begin: int
    rows: int
    connectivity: int

    def check(self, highest: int, entry: int) -> None:
        """Check that the lists of edges fill the file, and that every edge leads to a node of its level."""
        body = self.begin + 2 * self.rows
        if body > len(self.data):
            _refuse(self.path, f"{len(self.data)} bytes")
        levels = self.data[self.begin : body].view("<i2").astype(np.int64)
        if self.rows == 0:
            if len(self.data) != body:
                _refuse(self.path, f"{len(self.data)} bytes where {body} are an empty index")
            return
        least, most = int(levels.min()), int(levels.max())
        agree = least >= 0 and most == highest <= _MOST_LEVELS
        if not agree or entry >= self.rows or levels[entry] != highest:
            _refuse(self.path, f"levels {least} to {most}, {highest} and row {entry} in its header")
        sizes = 10 + 4 * (1 + 2 * self.connectivity) + levels * 4 * (1 + self.connectivity)
        ends = body + np.cumsum(sizes)
        if sizes.max() > len(self.data) or ends[-1] != len(self.data):
            _refuse(self.path, f"{len(self.data)} bytes where its nodes take {ends[-1]}")
        starts, keys = ends - sizes, np.zeros(self.rows, np.int64)
        together = self._together(2 * self.connectivity)
        for start in range(0, self.rows, together):
            block = slice(start, start + together)
            keys[block] = self._keys(starts[block], levels[block])
            self._check_edges(starts[block] + 10, 2 * self.connectivity, 0, levels)
        if (np.bincount(keys, minlength=self.rows) != 1).any():
            _refuse(self.path, f"rows that are not 0 to {self.rows - 1}, each once")
        for level in range(1, highest + 1):
            self._check_level(level, starts[levels >= level], levels)

    def _check_level(self, level: int, starts: Ints, levels: Ints) -> None:
        """Check the edges on a level from 1 of the nodes that begin at these bytes."""
        there = starts + 10 + 4 * (1 + 2 * self.connectivity) + (level - 1) * 4 * (1 + self.connectivity)
        together = self._together(self.connectivity)
        for start in range(0, len(there), together):
            self._check_edges(there[start : start + together], self.connectivity, level, levels)

    def _together(self, room: int) -> int:
        """Number of nodes to check together, so that memory does not grow with the numbers in the file."""
        return max(1, min(_BLOCK, _BLOCK_EDGES // (1 + room)))

    def _keys(self, starts: Ints, levels: Ints) -> Ints:
        """The keys of nodes, which are row numbers; checks the level that each node repeats."""
        names = self.data[starts[:, np.newaxis] + np.arange(10)]
        keys, again = names[:, :8].copy().view("<u8").ravel(), names[:, 8:].copy().view("<i2").ravel()
        if keys.max() >= self.rows:
            _refuse(self.path, f"rows that are not 0 to {self.rows - 1}, each once")
        if (again != levels).any():
            _refuse(self.path, "nodes of other levels than its list of levels says")
        numbers: Ints = keys.astype(np.int64)
        return numbers

    def _check_edges(self, places: Ints, room: int, level: int, levels: Ints) -> None:
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
            if level and (levels[used] < level).any():
                _refuse(self.path, f"an edge of level {level} to a row that has none")


def _refuse(path: Path, found: str) -> NoReturn:
    raise BundleIntegrityError(
        "the index cannot be read",
        path=path,
        found=found,
        expected="a usearch index",
        remedy="Export the bundle again.",
    )

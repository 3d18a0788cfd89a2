"""Inverted lists: near keys together in lists of bounded length, so that a search compares a query with few of them.

A query is compared with the centre of every list, then with the keys of the nearest lists (`probes`). Search in the
student's graph (`runtime.graph.list_search`) does it. On disk `lists.npy` is int32 [lists + 1, room]: the first row has
the number of lists to search, then zeros; every other row has the rows of a list, then -1 for its empty places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..storage.npy import map_npy, misfit, save_npy
from .exact_search import exact_search, unit
from .shards import Index

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

LISTS_FILE = "lists.npy"

DTYPE = "i8"
"""The only type of keys with lists."""

FEWEST_ROWS, MOST_ROWS = 10_000, 200_000
"""Numbers of rows with lists: with fewer a scan of all keys is as fast, and the lists' keys are kept in memory."""

RECALL = 0.995
"""Least mean share of a query's k nearest rows that are in the searched lists.

The mean hides queries most of whose nearest rows are missed. Of what retrieval gains in NLL on banking77 (24,000 and
60,000 rows, k 16, 7,003 train texts that the run does not have), a recall of 0.990 lost 4 and 6 %, and 0.994 lost 1
and 2 %, each with a standard error of 2 to 3 %.
"""

_ROOM = 64  # places of a list
_FILL = 0.85  # share of them that are used
_CHOICES = 16  # lists that a row may come into
_MOST_PLACES = 4  # for each row; the keys take many bytes for each place
_MOST_SHARE = 0.25  # of the lists, searched for a query; above it they do not pay
_FAN = 64  # most means that are found by one k-means
_ITERATIONS = 8
_SAMPLE = 64  # rows for each mean
_BLOCK = 8192  # rows compared with means in one product


@dataclass(frozen=True, eq=False)
class Lists:
    """The rows of each list.

    Attributes:
        table: int32 [lists, room]: each row 0 to n - 1 once; -1 in empty places, which are the last of a list.
        probes: number of lists to search, at least 1.
    """

    table: NDArray[np.int32]
    probes: int

    @classmethod
    def build(cls, keys: NDArray[np.floating], room: int) -> Lists:
        """Make lists by k-means, one of them to be searched; the same keys give the same lists.

        Args:
            keys: [n, d], n at least 1, of any length but 0.
            room: the largest number of rows of a list.
        """
        directions = unit(keys)
        means = _tree(directions, -(-len(keys) // int(_FILL * room + 1)))
        shape = len(keys), min(_CHOICES, len(means))
        near, similarities = np.empty(shape, np.int64), np.empty(shape, np.float32)
        for start in range(0, len(keys), _BLOCK):
            block = slice(start, start + _BLOCK)
            near[block], similarities[block] = _nearest_few(directions[block], means)
        return cls(_filled(near, similarities, len(means), room), 1)

    @property
    def nbytes(self) -> int:
        """Bytes of the file without its header."""
        return int(4 * (len(self.table) + 1) * self.table.shape[1])

    def sizes(self) -> Ints:
        """The number of rows of each list."""
        found: Ints = (self.table >= 0).sum(axis=1, dtype=np.int64)
        return found

    def enough(self, k: int) -> int:
        """The number of lists to search so that k rows are always among them, or all rows."""
        smallest = np.sort(self.sizes()).cumsum()
        return min(max(self.probes, int(np.searchsorted(smallest, k)) + 1), len(self.table))

    def rebuilt(self, keys: NDArray[np.floating]) -> Lists:
        """Lists of other keys [n, d], of which the same share is searched."""
        made = Lists.build(keys, self.table.shape[1])
        return replace(made, probes=min(-(-self.probes * len(made.table) // len(self.table)), len(made.table)))

    def save(self, path: Path) -> None:
        """Write the file.

        Raises:
            StorageError: the file cannot be written.
        """
        first = np.zeros_like(self.table[:1])
        first[0, 0] = self.probes
        save_npy(path, np.concatenate([first, self.table]))


def centres(keys: Floats, table: NDArray[np.int32]) -> Floats:
    """The mean direction of each list, float32 [lists, d]; 0 where its keys cancel out.

    Args:
        keys: [n, d], of length 1.
        table: same as `Lists`.
    """
    sums = np.stack([keys[rows[rows >= 0]].sum(axis=0) for rows in table])
    return _directions(sums)


def chosen_lists(index: Index, queries: Floats, k: int) -> Lists | None:
    """The lists of the keys of an index, with the least number of them to search whose recall is `RECALL`.

    Args:
        index: the index.
        queries: [m, d], of length 1; none of them a key.
        k: number of neighbours.

    Returns:
        None where lists do not pay: for few rows or many, for keys other than int8, without queries, or if too many
        lists must be searched.
    """
    if (
        not (FEWEST_ROWS <= len(index) <= MOST_ROWS and index.config.dtype == DTYPE and len(queries))
        or index.config.probes
    ):
        return None
    keys = unit(index.vectors())
    lists = Lists.build(keys, _ROOM)
    probes = least_probes(lists, keys, queries, k)
    return replace(lists, probes=probes) if probes <= _MOST_SHARE * len(lists.table) else None


def least_probes(lists: Lists, keys: Floats, queries: Floats, k: int, recall: float = RECALL) -> int:
    """The least number of lists that have a share of the k nearest rows, on the mean of the queries.

    Args:
        lists: the lists of ``keys``.
        keys: [n, d], of length 1.
        queries: [m, d], of length 1, m at least 1.
        k: number of neighbours.
        recall: the share, above 0.
    """
    exact = exact_search(keys, queries, k)[0]
    order = np.argsort(-(queries @ centres(keys, lists.table).T), axis=1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(order.shape[1])[np.newaxis], axis=1)
    of_row = np.empty(len(keys), np.int64)
    used = lists.table >= 0
    of_row[lists.table[used]] = np.nonzero(used)[0]
    needed = np.sort(np.take_along_axis(place, of_row[exact], axis=1), axis=None)
    return int(needed[int(np.ceil(recall * len(needed))) - 1]) + 1


def open_lists(folder: Path, rows: int) -> Lists | None:
    """The lists in a knowledge base's folder; None if there is no file.

    Raises:
        BundleIntegrityError: the file cannot be read.
        BundleError: it is not a table in which each of the rows is once.
    """  # noqa: DOC501
    path = folder / LISTS_FILE
    if not path.exists():
        return None
    stored = map_npy(path, (np.dtype("<i4"),))
    if stored.ndim != 2 or len(stored) < 2 or not stored.shape[1] or stored.size > _MOST_PLACES * (rows + _ROOM):
        raise misfit(path, f"{stored.dtype} {stored.shape}", "int32 (lists + 1, room)")
    probes, table = int(stored[0, 0]), stored[1:]
    if not 1 <= probes <= len(table):
        raise misfit(path, f"{probes} lists to search", f"1 to {len(table)}")
    used = table >= 0
    numbers = table[used]
    if len(numbers) != rows or numbers.max(initial=-1) >= rows or len(np.unique(numbers)) != rows:
        raise misfit(path, "other rows", f"rows 0 to {rows - 1}, each once")
    if table.min() < -1 or not used[:, 0].all() or (used[:, 1:] > used[:, :-1]).any():
        raise misfit(path, "an empty list, or empty places that are not -1 at its end", "lists of rows, then -1")
    return Lists(table, probes)


def _filled(near: Ints, similarities: Floats, count: int, room: int) -> NDArray[np.int32]:
    """The table of the rows: each in the nearest of its lists that has room, the nearest rows first.

    Rows for which none has room come into more lists, with the others of their nearest list.
    """
    left, free = np.arange(len(near)), np.full(count, room)
    rows, lists = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for choice in range(near.shape[1]):
        wanted = near[left, choice]
        order = np.lexsort((-similarities[left, choice], wanted))
        left, wanted = left[order], wanted[order]
        fits = np.arange(len(left)) - np.searchsorted(wanted, wanted) < free[wanted]
        rows.append(left[fits])
        lists.append(wanted[fits])
        free -= np.bincount(wanted[fits], minlength=count)
        left = left[~fits]
    rows.append(left[np.argsort(near[left, 0], kind="stable")])
    lists.append(count + np.arange(len(left)) // room)
    row, of = np.concatenate(rows), np.concatenate(lists)
    order = np.lexsort((row, of))
    row, of = row[order], np.unique(of[order], return_inverse=True)[1]
    table = np.full((int(of.max()) + 1, room), -1, np.int32)
    table[of, np.arange(len(of)) - np.searchsorted(of, of)] = row
    return table


def _nearest_few(keys: Floats, means: Floats) -> tuple[Ints, Floats]:
    """The numbers of the `_CHOICES` nearest means of each key, nearest first, and their similarities; both [n, c]."""
    found = keys @ means.T
    some = np.argpartition(-found, min(_CHOICES, len(means)) - 1, axis=1)[:, :_CHOICES]
    nearness = np.take_along_axis(found, some, axis=1)
    order = np.argsort(-nearness, axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1), np.take_along_axis(nearness, order, axis=1)


def _tree(keys: Floats, count: int) -> Floats:
    """About ``count`` means of the keys: k-means of few means, then k-means of the keys nearest to each of them."""
    everything = np.arange(len(keys))
    if count <= _FAN:
        return means_of(keys, everything, count)
    clusters = nearest_mean(keys, everything, means_of(keys, everything, int(np.sqrt(count)) + 1))
    order = np.argsort(clusters, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1)
    return np.concatenate([means_of(keys, part, max(1, round(count * len(part) / len(keys)))) for part in parts])


def means_of(keys: Floats, rows: Ints, count: int) -> Floats:
    """Mean directions of ``count`` clusters of some keys, by spherical k-means on a sample."""
    rng = np.random.default_rng(0)
    some = keys[np.sort(rng.choice(rows, min(len(rows), _SAMPLE * count), replace=False))]
    means: Floats = some[rng.choice(len(some), count, replace=False)]
    for _ in range(_ITERATIONS):
        clusters = nearest_mean(some, np.arange(len(some)), means)
        order = np.argsort(clusters, kind="stable")
        used, first = np.unique(clusters[order], return_index=True)
        means[used] = _directions(np.add.reduceat(some[order], first, axis=0))
        empty = np.setdiff1d(np.arange(count), used)
        means[empty] = some[rng.choice(len(some), len(empty))]
    return means


def nearest_mean(keys: Floats, rows: Ints, means: Floats) -> Ints:
    """The number of the nearest mean of each of the rows."""
    blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
    return np.concatenate([(keys[block] @ means.T).argmax(axis=1) for block in blocks])


def _directions(sums: Floats) -> Floats:
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    found: Floats = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)
    return found

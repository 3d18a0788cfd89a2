"""The second stage: the rows of a shard, each text once, near ones together, as a folder with an index.

`shard-00000/` has the files of a knowledge base (`kb.knowledge_base`) and `shard.json`, a `ShardRecord`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from ...kb.index.exact_search import Floats
from ...kb.index.grouping import near_order
from ...kb.index.hnsw import VectorIndex
from ...kb.index.shard_tuning import exact_neighbours
from ...kb.index.shards import INDEX_FILE
from ...kb.knowledge_base import ROW_DTYPE, ROWS_FILE, SOFT_LABELS_FILE, TEXTS_FILE
from ...kb.storage.atomic import atomic_directory, atomic_write, sha256_file
from ...kb.storage.npy import save_npy
from ...kb.texts import DIGESTS_FILE
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.heldout_rows import HELDOUT_FILE, HeldOutRows
from ..job.plan import Plan
from .rows import DIGEST, GOLD, HASH, KEY, LABEL, LINE, ROW
from .settings import BuildOptions, BuildSettings, Sampled

SHARD_FILE = "shard.json"
QUERIES = 256
"""Most queries of a measurement of recall."""

_BLOCK = 65_536  # rows added to the index at once
_WIDTH = 4  # the search width of the measurement of recall, in multiples of k


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard.

    Attributes:
        rows: its rows.
        duplicates: rows that were left out because their text was there.
        conflicts: those of them that have another gold label than the row that was kept.
        recall: mean share of the k nearest rows of a query that its search finds; None without rows.
        sha256: the hash of each file.
    """

    rows: int
    duplicates: int
    conflicts: int
    recall: float | None
    sha256: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> ShardRecord:
        """Read the record in the folder of a shard."""
        return cls(**json.loads((folder / SHARD_FILE).read_text()))


class _Rows(NamedTuple):
    """The rows of a shard as arrays, each [n, ...]."""

    row: NDArray[np.int64]
    gold: NDArray[np.int32]
    hash: NDArray[np.void]
    key: NDArray[Any]
    label: NDArray[Any]
    line: Any
    digest: NDArray[np.uint8] | None


class ShardWorker:
    """Builds shards of the parts of a plan.

    Args:
        settings: where they are.
    """

    def __init__(self, settings: BuildSettings) -> None:
        self._work, self._threads = Path(settings.out), settings.threads
        self._plan, self._sampled = Plan.read(self._work, BuildOptions), Sampled.read(self._work)
        bundle = Bundle.open(settings.bundle, False, follow_links=settings.follow_links)
        self._manifest = bundle.manifest
        self._queries = heldout_queries(bundle)

    def do(self, number: int, advance: Callable[[int], object]) -> None:
        """Build a shard, unless its folder is there; see `Worker.do`.

        Raises:
            StorageError: a file cannot be written.
        """
        folder = self._work / shard_name(number)
        if folder.exists():
            return
        rows, duplicates, conflicts = _distinct(self._read(number))
        index = self._index(rows.key, advance)
        with atomic_directory(folder) as made:
            index.save(made / INDEX_FILE)
            save_npy(made / SOFT_LABELS_FILE, rows.label)
            table = np.zeros(len(rows.row), ROW_DTYPE)
            table["id"], table["label"] = rows.row, rows.gold
            if len(rows.row):
                table["text_end"] = _ends(rows.line)
            save_npy(made / ROWS_FILE, table)
            with atomic_write(made / TEXTS_FILE, "wb") as file:
                file.write(_bytes(rows.line))
            if rows.digest is not None:
                save_npy(made / DIGESTS_FILE, rows.digest)
            hashes = {path.name: sha256_file(path) for path in sorted(made.iterdir())}
            record = ShardRecord(len(table), duplicates, conflicts, self._recall(made / INDEX_FILE), hashes)
            with atomic_write(made / SHARD_FILE) as file:
                json.dump(asdict(record), file)

    def close(self) -> None:
        """Nothing is open."""

    def _read(self, number: int) -> _Rows:
        """The rows of a shard from all parts; each array is filled in place, so that there is one copy of it."""
        manifest, top = self._manifest, self._sampled.top
        kind = {"i8": np.int8, "f16": np.float16, "f32": np.float32}[manifest.kb.dtype]
        labels = np.float16 if top is None else np.uint8 if len(manifest.labels) <= 256 else np.uint16
        width = len(manifest.labels) if top is None else 2 * top
        parts = [self._work / part.name for part in self._plan.parts]
        size = sum(count for path in parts for _, count in _groups(path, number))
        digests = DIGEST in parquet.read_schema(parts[0]).names
        rows = _Rows(
            np.empty(size, np.int64),
            np.empty(size, np.int32),
            np.empty(size, "V16"),
            np.empty((size, manifest.kb.ndim), kind),
            np.empty((size, width), labels),
            [pa.array([], pa.large_binary())],
            np.empty((size, 32), np.uint8) if digests else None,
        )
        start = 0
        for path in parts:
            with parquet.ParquetFile(path) as file:
                for group, count in _groups(path, number):
                    table, some = file.read_row_group(group), slice(start, start + count)
                    rows.row[some] = table.column(ROW).to_numpy()
                    rows.gold[some] = table.column(GOLD).to_numpy()
                    for name, array in ((HASH, rows.hash), (KEY, rows.key), (LABEL, rows.label), (DIGEST, rows.digest)):
                        if array is not None:
                            array[some] = _values(table.column(name), array)
                    rows.line.extend(table.column(LINE).chunks)
                    start += count
        return rows._replace(line=pa.concat_arrays(rows.line))

    def _index(self, keys: NDArray[Any], advance: Callable[[int], object]) -> VectorIndex:
        """The graph of the keys, which become float32 block by block."""
        index = VectorIndex.build(np.zeros((0, self._manifest.kb.ndim), np.float32), self._manifest.kb)
        for start in range(0, len(keys), _BLOCK):
            index.append(keys[start : start + _BLOCK].astype(np.float32), self._threads)
            advance(min(start + _BLOCK, len(keys)))
        return index

    def _recall(self, path: Path) -> float | None:
        index, k = VectorIndex.view(path, self._manifest.kb), self._manifest.blend.k
        if not len(index) or not len(self._queries):
            return None
        exact = exact_neighbours(index, self._queries, k)[0]
        found, _ = index.trial(self._queries, k, _WIDTH * k)
        return float(np.mean([np.isin(true, some).mean() for true, some in zip(exact, found, strict=True)]))


def shard_name(number: int) -> str:
    """The folder of a shard in the work folder."""
    return f"shard-{number:05d}"


def heldout_queries(bundle: Bundle) -> Floats:
    """The queries of some held-out rows, [m, d]; none where the bundle has no held-out rows."""
    manifest = bundle.manifest
    if HELDOUT_FILE not in manifest.files:
        return np.zeros((0, manifest.kb.ndim), np.float32)
    rows = HeldOutRows.open(bundle.path, len(manifest.labels), manifest.kb.ndim, manifest.kb_rows)
    return rows.some(QUERIES).queries


def _groups(path: Path, number: int) -> Iterator[tuple[int, int]]:
    """The row groups of a shard in a part, and their rows."""
    metadata = parquet.read_metadata(path)
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group)
        if found.column(0).statistics.min == number:
            yield group, found.num_rows


def _distinct(rows: _Rows) -> tuple[_Rows, int, int]:
    """The first row of each text, near ones together; the number of others; how many of these have another label."""
    _, first, same = np.unique(rows.hash, return_index=True, return_inverse=True)
    conflicts = int((rows.gold != rows.gold[first[same]]).sum())
    kept = np.sort(first)
    kept = kept[near_order(rows.key[kept])]
    digest = None if rows.digest is None else rows.digest[kept]
    line = rows.line.take(pa.array(kept))
    some = _Rows(rows.row[kept], rows.gold[kept], rows.hash[kept], rows.key[kept], rows.label[kept], line, digest)
    return some, len(rows.row) - len(kept), conflicts


def _values(column: Any, like: NDArray[Any]) -> NDArray[Any]:
    """The byte strings of a column, all of one length, as rows of the same kind as those of an array."""
    strings = column.combine_chunks()
    width = strings.type.byte_width
    data = np.frombuffer(strings.buffers()[1], np.uint8)[
        strings.offset * width : (strings.offset + len(strings)) * width
    ]
    return data.view(like.dtype).reshape(len(strings), *like.shape[1:])


def _ends(lines: Any) -> NDArray[np.int64]:
    offsets = np.frombuffer(lines.buffers()[1], np.int64)[lines.offset : lines.offset + len(lines) + 1]
    ends: NDArray[np.int64] = offsets[1:] - offsets[0]
    return ends


def _bytes(lines: Any) -> Any:
    if not len(lines) or lines.buffers()[2] is None:
        return b""
    offsets = np.frombuffer(lines.buffers()[1], np.int64)[lines.offset : lines.offset + len(lines) + 1]
    return memoryview(lines.buffers()[2])[int(offsets[0]) : int(offsets[-1])]

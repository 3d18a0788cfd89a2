"""The first stage: the rows of a part of the data, encoded and sorted by shard.

A part is a Parquet file with one row group for each of its shards, so that a shard reads its own rows only:

    shard    int16, the same in a row group
    row      int64, the number of the row in all data, from 0; it is the row's id
    gold     int32, -1 for none
    hash     16 bytes, of the text
    key      bytes, the key as stored
    label    bytes, the soft label as stored
    line     bytes, the line of the text; empty where the bundle keeps no texts
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from ...kb.index.shards import Centres
from ...kb.knowledge_base import TEXTS_FILE
from ...kb.soft_labels import with_top
from ...kb.storage.atomic import atomic_write
from ...kb.texts import DIGESTS_FILE, digest_of
from ...runtime.bundle.bundle import KB_FOLDER
from ..job.plan import Plan
from ..job.rows import PartReader
from .encode import Encoded, Encoder
from .settings import CENTRES_FILE, BuildOptions, BuildSettings, Sampled

SHARD, ROW, GOLD, HASH, KEY, LABEL, LINE, DIGEST = "shard", "row", "gold", "hash", "key", "label", "line", "digest"
LEFT_OUT = b"reaugkd.left_out"


class RowWorker:
    """Opens the bundle once, and encodes parts.

    Args:
        settings: where they are.

    Raises:
        DataError: the plan cannot be read.
        BundleError: the bundle cannot be opened.
    """

    def __init__(self, settings: BuildSettings) -> None:
        self._work = Path(settings.out)
        self._plan = Plan.read(self._work, BuildOptions)
        self._encoder = Encoder(settings)
        manifest = self._encoder.manifest
        self._centres = Centres.open(self._work / CENTRES_FILE, manifest.kb.ndim)
        self._sampled = Sampled.read(self._work)
        self._keeps_texts = f"{KB_FOLDER}/{TEXTS_FILE}" in manifest.files
        self._salt = bytes.fromhex(self._sampled.salt) if f"{KB_FOLDER}/{DIGESTS_FILE}" in manifest.files else None
        self._reader = PartReader(self._plan)
        self._first = np.cumsum([0, *(part.rows for part in self._plan.parts)])

    def do(self, number: int, advance: Callable[[int], object]) -> None:
        """Encode a part, unless its file is there; see `Worker.do`.

        Raises:
            DataError: the input cannot be read, or has a label that is none of the bundle's.
            StorageError: the file cannot be written.
        """
        part = self._plan.parts[number]
        path = self._work / part.name
        if path.exists():
            return
        left_out: Counter[str] = Counter()
        tables, done = [], 0
        for chunk in self._reader.chunks(part):
            labels = chunk.kept.column(0).to_pylist() if chunk.kept.num_columns else None
            encoded = self._encoder.encode(chunk.texts, labels, left_out, part.file.path)
            tables.append(self._table(encoded, int(self._first[number]) + done))
            done += len(chunk.texts)
            advance(done)
        write_rows(path, pa.concat_tables(tables), left_out)

    def close(self) -> None:
        """Close the open input file."""
        self._reader.close()

    def _table(self, rows: Encoded, first: int) -> Any:
        labels = with_top(rows.probabilities, self._sampled.top)
        lines = rows.lines if self._keeps_texts else [b""] * len(rows.lines)
        columns = {
            SHARD: self._centres.shards_of(rows.keys).astype(np.int16),
            ROW: rows.places + first,
            GOLD: rows.gold,
            HASH: binary(rows.hashes()),
            KEY: binary(self._encoder.stored(rows.keys)),
            LABEL: binary(labels),
            LINE: pa.array(lines, pa.large_binary()),
        }
        if self._salt is not None:
            digests = [digest_of(self._salt, line[:-1]) for line in rows.lines]
            columns[DIGEST] = pa.array(digests, pa.binary(32))
        return pa.table(columns)


def write_rows(path: Path, table: Any, left_out: Counter[str]) -> None:
    """Write the rows of a part, sorted by shard, one row group for each shard.

    Raises:
        StorageError: the file cannot be written.
    """
    shards = table.column(SHARD).to_numpy()
    table = table.take(np.argsort(shards, kind="stable")).combine_chunks()
    counts = np.bincount(shards) if len(shards) else np.zeros(0, np.int64)
    schema = table.schema.with_metadata({LEFT_OUT: json.dumps(left_out).encode()})
    start = 0
    with atomic_write(path, "wb") as file, parquet.ParquetWriter(file, schema, use_dictionary=False) as writer:
        for count in counts[counts > 0].tolist():
            writer.write_table(table.slice(start, count).cast(schema), row_group_size=count)
            start += count


def binary(rows: NDArray[Any]) -> Any:
    """The rows of an array [n, ...] as an Arrow array of n byte strings of the same length."""
    flat = np.ascontiguousarray(rows)
    width = flat.dtype.itemsize * (flat.shape[1] if flat.ndim == 2 else 1)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(flat), [None, pa.py_buffer(flat)])

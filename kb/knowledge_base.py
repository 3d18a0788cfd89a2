"""A knowledge base in files: keys in an index, one soft label for each row, and the rows' ids, labels and texts.

On disk it is a folder of

    index.usearch     the keys (`VectorIndex`), or shards.npy and shards/ (`ShardedIndex`)
    soft_labels.npy   softmax(teacher logits / T_kb): float16 [n, c], or the m likeliest classes of each row, uint8 or
                      (above 256 classes) uint16 [n, 2 m] (`soft_labels.TopLabels`)
    rows.npy          a table [n] of ``id`` (u8), ``label`` (i4, the gold label, -1 for none) and ``text_end`` (u8)
    texts.jsonl       optional: one JSON value for each line, ``"text"`` or ``["text", "pair"]``; ``text_end`` is the
                      end of a row's line in bytes, and zero where texts are not kept
    pins.npy          only after a compaction of edits: which rows are pinned, bool [n]
    text_digests.npy  optional, instead of the texts (`texts.TextDigests`)
    lists.npy         optional, for search in the student's graph (`index.lists`)
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, UsageError
from .index.config import IndexConfig
from .index.hnsw import VectorIndex
from .index.lists import DTYPE, LISTS_FILE, Lists, open_lists
from .index.shards import Index, ShardedIndex, open_index, save_index
from .searchable import SearchResult
from .soft_labels import SOFT_LABEL_DTYPES, StoredLabels, TopLabels, decode, encode
from .storage.atomic import atomic_write
from .storage.npy import map_npy, misfit, save_npy
from .texts import DIGESTS_FILE, TextDigests, open_digests, open_texts, text_json

SOFT_LABELS_FILE = "soft_labels.npy"
ROWS_FILE = "rows.npy"
TEXTS_FILE = "texts.jsonl"
PINS_FILE = "pins.npy"
_LINE_END = 10
ROW_DTYPE = np.dtype([("id", "<u8"), ("label", "<i4"), ("text_end", "<u8")])


class KnowledgeBase:
    """Keys and soft labels of n rows over c labels (`Searchable`); `build` or `open` makes one, and it never changes.

    Attributes:
        index: the index of the keys.
        soft_labels: [n, c], the teacher's probabilities at temperature T_kb.
        lists: the rows in lists of near keys; None where there are none.
    """

    def __init__(
        self,
        index: Index,
        soft_labels: StoredLabels,
        rows: NDArray[np.void],
        texts: bytes | mmap.mmap,
        digests: TextDigests | None = None,
        pins: NDArray[np.bool_] | None = None,
        new_label_odds: float = 1.0,
        lists: Lists | None = None,
    ) -> None:
        self.lists = lists
        self.index = index
        self.soft_labels = soft_labels
        self._rows = rows
        self._texts = texts
        self._pins = pins
        self._new_label_odds = new_label_odds
        self._by_id: NDArray[np.int64] | None = None  # row numbers in the order of ids, computed on first use
        self._digests = digests

    @classmethod
    def build(
        cls,
        keys: NDArray[np.float32],
        soft_labels: NDArray[np.floating],
        *,
        config: IndexConfig,
        gold: NDArray[np.integer] | None = None,
        ids: NDArray[np.integer] | None = None,
        texts: Sequence[str | tuple[str, str]] | TextDigests | None = None,
        label_loss: float = 0.0,
        progress: Callable[[int, int], object] | None = None,
        threads: int = 1,
    ) -> KnowledgeBase:
        """Build a knowledge base in memory; with ``threads=1`` the same input gives the same bytes.

        Args:
            keys: float32 [n, d], finite, not zero, of any length (the similarity is the cosine).
            soft_labels: [n, c], rows that sum to 1 (within 1 %, for float16).
            config: the index's parameters.
            gold: [n] gold labels as indices into the labels, -1 for none. Default: none.
            ids: [n] unique numbers for the user. Default: 0 .. n-1.
            texts: [n] the rows' texts or pairs, or their digests. Default: none are kept.
            label_loss: limit on the change of the soft labels by compression (`soft_labels.encode`); 0 stores float16.
            progress: called with (rows done, rows in total); returning False stops the build.
            threads: threads that insert.

        Raises:
            UsageError: shapes that do not fit each other, or values out of range.
        """
        rows, soft = len(keys), np.asarray(soft_labels)
        if soft.ndim != 2 or len(soft) != rows:
            raise UsageError("soft labels of the wrong shape", found=str(soft.shape), expected=f"({rows}, labels)")
        check_distributions(soft)
        table = np.zeros(rows, ROW_DTYPE)
        table["id"] = _column("ids", np.arange(rows) if ids is None else ids, rows)
        table["label"] = _column("gold labels", np.full(rows, -1) if gold is None else gold, rows)
        _check_gold(table["label"], soft.shape[1])
        lines, digests = b"", None
        if isinstance(texts, TextDigests):
            _column("digests", texts.table[1:, 0], rows)
            digests = texts
        elif texts is not None:
            encoded = [text_line(text) for text in texts]
            table["text_end"] = np.cumsum(_column("texts", np.array([len(line) for line in encoded], np.int64), rows))
            lines = b"".join(encoded)
        index = VectorIndex.build(keys, config, progress=progress, threads=threads)
        return cls(index, encode(soft, label_loss), table, lines, digests)

    def save(self, folder: Path) -> None:
        """Write the files into ``folder``, each atomically; the folder is created if it does not exist.

        Raises:
            StorageError: the file cannot be written.
        """
        save_index(self.index, folder)
        save_npy(folder / SOFT_LABELS_FILE, self.soft_labels.stored)
        save_npy(folder / ROWS_FILE, self._rows)
        if self._has_texts():
            with atomic_write(folder / TEXTS_FILE, "wb") as file:
                file.write(self._texts)
        if self._pins is not None:
            save_npy(folder / PINS_FILE, self._pins)
        if self._digests is not None:
            save_npy(folder / DIGESTS_FILE, self._digests.table)
        if self.lists is not None:
            self.lists.save(folder / LISTS_FILE)

    @classmethod
    def open(
        cls,
        folder: Path,
        config: IndexConfig,
        num_labels: int | None = None,
        pins: bool = False,
        new_label_odds: float = 1.0,
    ) -> KnowledgeBase:
        """Map a saved knowledge base into memory; only the row table and `TopLabels` are read and checked at once.

        Args:
            folder: the folder of `save`.
            config: the index's parameters.
            num_labels: c; None takes it from float16 soft labels.
            pins: whether some rows are pinned.
            new_label_odds: factor on the odds of the labels that the student was not trained on.

        Raises:
            BundleIntegrityError: a file is missing or unreadable.
            BundleError: the files do not fit each other or ``config``.
        """  # noqa: DOC501
        stored = map_npy(folder / SOFT_LABELS_FILE, SOFT_LABEL_DTYPES)
        rows = map_npy(folder / ROWS_FILE, (ROW_DTYPE,))
        try:
            soft = decode(stored, num_labels)
        except ValueError as error:
            expected = f"soft labels of {'all' if num_labels is None else num_labels} classes"
            raise misfit(folder / SOFT_LABELS_FILE, str(error), expected) from error
        if rows.shape != (len(soft),):
            raise misfit(folder / ROWS_FILE, f"{rows.dtype} {rows.shape}", f"{ROW_DTYPE} ({len(soft)},)")
        if len(rows) and not (rows["label"].min() >= -1 and rows["label"].max() < soft.shape[1]):
            raise misfit(folder / ROWS_FILE, "gold labels out of range", f"-1 to {soft.shape[1] - 1}")
        index = open_index(folder, config)
        if len(index) != len(soft):
            raise misfit(folder, f"an index of {len(index)} rows", f"{len(soft)} as in {SOFT_LABELS_FILE}")
        pinned = map_npy(folder / PINS_FILE, (np.dtype(np.bool_),)) if pins else None
        if pinned is not None and pinned.shape != (len(soft),):
            raise misfit(folder / PINS_FILE, f"{pinned.dtype} {pinned.shape}", f"bool ({len(soft)},)")
        lists = open_lists(folder, len(soft))
        if lists is not None and config.dtype != DTYPE:
            raise misfit(folder / LISTS_FILE, f"keys of {config.dtype}", f"lists only of keys of {DTYPE}")
        text_bytes = int(rows["text_end"][-1]) if len(rows) else 0
        kept = open_texts(folder / TEXTS_FILE, text_bytes)
        return cls(index, soft, rows, kept, open_digests(folder, len(rows)), pinned, new_label_odds, lists)

    def search(self, query: NDArray[np.float32], k: int) -> SearchResult:
        """The ``min(k, n)`` rows whose keys are most similar to ``query`` float32 [d], best first."""
        return SearchResult(*self.index.search(query, k))

    def search_many(
        self, queries: NDArray[np.float32], k: int, threads: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """`search` for each of ``queries`` [n, d]: rows int64 and similarities float32, both [n, min(k, len(self))]."""
        return self.index.search_many(queries, k, threads)

    def merge_edits(self, found: SearchResult, query: NDArray[np.float32], k: int) -> SearchResult:
        """``found`` itself: there are no edits."""
        return found

    def with_soft_labels(self, soft_labels: NDArray[np.floating], label_loss: float = 0.0) -> KnowledgeBase:
        """The same rows with other soft labels [n, c], e.g. of another temperature; the index is shared.

        Args:
            soft_labels: same as `build`.
            label_loss: same as `build`.

        Raises:
            UsageError: another shape, or rows that are no distributions.
        """
        soft = np.asarray(soft_labels)
        if soft.shape != self.soft_labels.shape:
            raise UsageError(
                "soft labels of the wrong shape", found=str(soft.shape), expected=str(self.soft_labels.shape)
            )
        check_distributions(soft)
        labels = encode(soft, label_loss)
        return KnowledgeBase(self.index, labels, self._rows, self._texts, self._digests, lists=self.lists)

    def with_lists(self, lists: Lists | None) -> KnowledgeBase:
        """The same rows with other lists, or without."""
        parts = self.index, self.soft_labels, self._rows, self._texts, self._digests, self._pins, self._new_label_odds
        return KnowledgeBase(*parts, lists)

    def keys(self) -> NDArray[np.float32]:
        """A copy of the stored keys, float32 [n, d] (`VectorIndex.vectors`); slow, not for answering."""
        return self.index.vectors()

    @property
    def pins(self) -> NDArray[np.bool_] | None:
        """Which rows are pinned, bool [n]; None if no row is. A pinned row decides what its own text gets."""
        return self._pins

    @property
    def new_label_odds(self) -> float:
        """Factor on the odds of the labels that the student was not trained on."""
        return self._new_label_odds

    def rows_with_id(self, row_id: int) -> list[int]:
        """The numbers of the rows with this id; several only where ids are not unique."""
        if not 0 <= row_id < 2**64:
            return []
        if self._by_id is None:
            self._by_id = np.argsort(self._rows["id"], kind="stable")
        ids = self._rows["id"]
        first, last = (np.searchsorted(ids, np.uint64(row_id), side, sorter=self._by_id) for side in ("left", "right"))
        return [int(row) for row in self._by_id[first:last]]

    def next_id(self, least: int = 0) -> int:
        """The smallest id from ``least`` that is larger than all ids."""
        return max(least, int(self._rows["id"].max()) + 1) if len(self._rows) else least

    def label(self, row: int) -> int:
        """The row's gold label as an index into the labels, -1 for none."""
        return int(self._rows["label"][row])

    def gold(self) -> NDArray[np.int32]:
        """The gold labels of all rows, [n], -1 for none."""
        return self._rows["label"]

    def id(self, row: int) -> int:
        """The row's id, as given to `build`."""
        return int(self._rows["id"][row])

    def text(self, row: int) -> str | tuple[str, str] | None:
        """The row's text or pair; None if texts are not kept, or only their digests are.

        Raises:
            BundleError: the stored line is damaged (possible only without verification).
        """
        if not self._has_texts():
            return None
        ends = self._rows["text_end"]
        start = int(ends[row - 1]) if row > 0 else 0
        try:
            value = json.loads(self._texts[start : int(ends[row])])
        except (ValueError, RecursionError) as error:
            raise BundleError("a text cannot be read", path=TEXTS_FILE, row=row + 1, found=str(error)) from error
        if isinstance(value, str):
            return value
        if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
            return value[0], value[1]
        raise BundleError(
            "a text cannot be read", path=TEXTS_FILE, row=row + 1, found=value, expected="a text or a pair of texts"
        )

    def text_digest(self, row: int) -> str | None:
        """The digest of the row's text, 64 hexadecimal digits; None if digests are not kept."""
        return None if self._digests is None else self._digests[row]

    def rows_of(self, text: str | tuple[str, str]) -> list[int]:
        """The rows with exactly this text or pair, in order, by a search through all texts or digests.

        Raises:
            UsageError: neither is kept.
        """
        if self._digests is not None:
            return self._digests.rows_of(text)
        if not self._has_texts() and len(self):
            remedy = "Export the bundle with --kb-texts plain or hash."
            raise UsageError("the knowledge base keeps no texts, and no digests of them", remedy=remedy)
        line, found, place = text_line(text), [], 0
        while (place := self._texts.find(line, place)) >= 0:
            if place == 0 or self._texts[place - 1] == _LINE_END:
                found.append(int(np.searchsorted(self._rows["text_end"], place, "right")))
            place += len(line)
        return found

    @property
    def digests(self) -> TextDigests | None:
        """The digests of the texts, if they are kept instead of the texts."""
        return self._digests

    def __len__(self) -> int:
        return len(self.soft_labels)

    @property
    def config(self) -> IndexConfig:
        """The index's parameters."""
        return self.index.config

    @property
    def ndim(self) -> int:
        """Dimensions of a key."""
        return self.index.config.ndim

    @property
    def num_labels(self) -> int:
        """Number of labels, c."""
        return self.soft_labels.num_labels

    @property
    def format_version(self) -> int:
        """The oldest bundle format with such files: 3 for an index in shards, 2 for `TopLabels`, otherwise 1."""
        if isinstance(self.index, ShardedIndex):
            return 3
        return 2 if isinstance(self.soft_labels, TopLabels) else 1

    def nbytes(self) -> dict[str, int]:
        """Bytes of each part in the files: ``index``, ``soft_labels``, ``rows``, ``texts`` (or digests), ``lists``."""
        return {
            "index": self.index.nbytes,
            "soft_labels": self.soft_labels.nbytes,
            "rows": self._rows.nbytes,
            "texts": len(self._texts) + (0 if self._digests is None else self._digests.table.nbytes),
            "lists": 0 if self.lists is None else self.lists.nbytes,
        }

    @property
    def keeps_texts(self) -> bool:
        """Whether the rows' texts are kept."""
        return self._has_texts()

    def _has_texts(self) -> bool:
        return len(self._texts) > 0


def _column(name: str, values: NDArray[np.integer], rows: int) -> NDArray[np.integer]:
    values = np.asarray(values)
    if values.shape != (rows,):
        raise UsageError(f"{name} of the wrong shape", found=str(values.shape), expected=f"({rows},)")
    return values


def check_distributions(soft: NDArray[np.floating]) -> None:
    """Check that soft labels [n, c] are not negative and sum to 1 (within 1 %).

    Raises:
        UsageError: a row is no distribution; the error names the first such row.
    """
    sums = soft.sum(axis=1, dtype=np.float32)
    bad = np.flatnonzero(~((soft.min(axis=1, initial=0) >= 0) & (np.abs(sums - 1) < 0.01)))
    if len(bad):
        raise UsageError(
            "a soft label is no distribution",
            row=int(bad[0]) + 1,
            found=f"sum {sums[bad[0]]}",
            expected="probabilities from 0 that sum to 1",
        )


def _check_gold(gold: NDArray[np.int32], labels: int) -> None:
    bad = np.flatnonzero((gold < -1) | (gold >= labels))
    if len(bad):
        raise UsageError(
            "a gold label is out of range",
            row=int(bad[0]) + 1,
            found=int(gold[bad[0]]),
            expected=f"-1 (none) to {labels - 1}",
        )


def text_line(text: str | tuple[str, str]) -> bytes:
    """A row's line of `TEXTS_FILE`."""
    return text_json(text) + b"\n"

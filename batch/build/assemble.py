"""The last stage: a bundle with the shards, its search tuned."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import BundleIntegrityError
from ...kb.edits.merge import noisy_queries
from ...kb.index.exact_search import unit
from ...kb.index.shard_tuning import ShardSearch, tune
from ...kb.index.shards import INDEX_FILE, SHARDS_FILE, SHARDS_FOLDER, Centres, ShardedIndex, shard_path
from ...kb.knowledge_base import ROW_DTYPE, ROWS_FILE, SOFT_LABELS_FILE, TEXTS_FILE, KnowledgeBase
from ...kb.storage.atomic import atomic_directory, atomic_write
from ...kb.storage.npy import map_npy
from ...kb.texts import DIGESTS_FILE
from ...runtime.bundle.bundle import KB_FOLDER, Bundle
from ...runtime.bundle.heldout_rows import HELDOUT_FILE, HeldOutRows
from ...runtime.bundle.manifest import Manifest, seal
from ...runtime.hub.card import write_card
from .settings import CENTRES_FILE
from .shard import QUERIES, ShardRecord, heldout_queries, shard_name

TuneAgain = Callable[[Manifest, KnowledgeBase, HeldOutRows], Manifest]
"""From a manifest, another knowledge base and held-out rows, at least one: the manifest with a blend, its report
(`quality["tuning"]`), a gate and abstention thresholds for this knowledge base."""

_OF_OLD_ROWS = ("tuning", "condensation")
"""Parts of the quality report that were measured with the old knowledge base."""

_COPIED = 64 << 20  # bytes of an array written at once


def assemble(
    bundle: Bundle,
    work: Path,
    out: Path,
    salt: bytes,
    tune_again: TuneAgain | None,
    progress: Callable[[int, int], object],
) -> tuple[Manifest, ShardSearch]:
    """Write a bundle with the student of another one and the shards as its knowledge base.

    Without ``tune_again`` or held-out rows, gate and abstention thresholds are left out: they were fitted to the old
    knowledge base.

    Args:
        bundle: the old bundle.
        work: the folder with the shards.
        out: the new bundle's folder; must not exist.
        salt: of the digests of the texts.
        tune_again: tunes the decisions on the held-out rows; None for the blend of the old bundle.
        progress: called with (rows compared, rows in total) while the search is tuned.

    Raises:
        BundleIntegrityError: a shard was altered.
        StorageError: a file cannot be written.
    """
    old = bundle.manifest
    centres = Centres.open(work / CENTRES_FILE, old.kb.ndim)
    folders = [work / shard_name(number) for number in range(int(centres.shard.max()) + 1)]
    records = [ShardRecord.read(folder) for folder in folders]
    rows = sum(record.rows for record in records)
    with atomic_directory(out) as made:
        for name in old.files:
            if not name.startswith(f"{KB_FOLDER}/"):
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.path / name, made / name)
        kb = made / KB_FOLDER
        _write_kb(kb, folders, centres, salt if f"{KB_FOLDER}/{DIGESTS_FILE}" in old.files else None)
        config = replace(old.kb, probes=len(centres.shard))
        opened = KnowledgeBase.open(kb, config, len(old.labels))
        assert isinstance(opened.index, ShardedIndex)
        queries = heldout_queries(bundle)
        if not len(queries):
            some = opened.index.stored_rows(np.linspace(0, rows - 1, QUERIES).astype(np.int64))
            queries = noisy_queries(unit(some.astype(np.float32)))
        search = tune(opened.index, queries, old.blend.k, progress)
        quality = {name: value for name, value in old.quality.items() if name not in _OF_OLD_ROWS}
        tuned = replace(old, gate=None, abstention=None, quality=quality)
        if HELDOUT_FILE in old.files:
            held = HeldOutRows.open(bundle.path, len(old.labels), old.kb.ndim, old.kb_rows)
            held = replace(held, unrelated=rows)
            held.save(made)
            if tune_again is not None and len(held):
                tuned = tune_again(replace(old, quality=quality), opened, held)
        manifest = replace(
            tuned,
            kb=opened.index.config,
            kb_rows=rows,
            quality={**tuned.quality, "search": asdict(search), "shards": [asdict(record) for record in records]},
            format_version=opened.format_version,
        )
        del opened
        sealed = seal(made, manifest)
        for number, record in enumerate(records):
            name = f"{KB_FOLDER}/{SHARDS_FOLDER}/{number}.usearch"
            if sealed.files[name].sha256 != record.sha256[INDEX_FILE]:
                raise BundleIntegrityError(
                    "the shard was altered after it was built",
                    path=folders[number],
                    remedy="Remove the folder, and run the same command again: only this shard is built again.",
                )
        write_card(made, sealed)
    return sealed, search


def _write_kb(kb: Path, folders: Sequence[Path], centres: Centres, salt: bytes | None) -> None:
    """Write the files of the knowledge base; with a salt, the digests of the texts."""
    (kb / SHARDS_FOLDER).mkdir(parents=True)
    for number, folder in enumerate(folders):
        _link(folder / INDEX_FILE, shard_path(kb, number))
    centres.save(kb / SHARDS_FILE)
    _join(kb / SOFT_LABELS_FILE, [map_npy(folder / SOFT_LABELS_FILE, _KINDS) for folder in folders])
    _join(kb / ROWS_FILE, _shifted([map_npy(folder / ROWS_FILE, _KINDS) for folder in folders]))
    if any((folder / TEXTS_FILE).stat().st_size for folder in folders):
        with atomic_write(kb / TEXTS_FILE, "wb") as file:
            for folder in folders:
                with (folder / TEXTS_FILE).open("rb") as texts:
                    shutil.copyfileobj(texts, file, _COPIED)
    if salt is not None:
        first = np.frombuffer(salt, np.uint8).reshape(1, -1)
        _join(kb / DIGESTS_FILE, [first, *(map_npy(folder / DIGESTS_FILE, _KINDS) for folder in folders)])


_KINDS: tuple[np.dtype[Any], ...] = tuple(np.dtype(kind) for kind in (np.float16, np.uint8, np.uint16, ROW_DTYPE))


def _shifted(tables: Sequence[Any]) -> list[Any]:
    """The row tables of the shards, with the ends of the texts in one file."""
    before, found = 0, []
    for table in tables:
        moved = np.array(table)
        moved["text_end"] += np.uint64(before)
        before = int(moved["text_end"][-1]) if len(moved) else before
        found.append(moved)
    return found


def _join(path: Path, arrays: Sequence[Any]) -> None:
    """Write arrays one below the other as one array file, without a copy of all in memory."""
    head = np.lib.format.header_data_from_array_1_0(arrays[0])
    head["shape"] = (sum(len(one) for one in arrays), *arrays[0].shape[1:])
    with atomic_write(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, head)
        for one in arrays:
            _write(file, one)


def _write(file: IO[bytes], array: Any) -> None:
    step = max(1, _COPIED // max(array[:1].nbytes, 1))
    for start in range(0, len(array), step):
        file.write(np.ascontiguousarray(array[start : start + step]).tobytes())


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

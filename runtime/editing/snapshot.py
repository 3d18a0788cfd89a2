"""A generation: the knowledge base's files that a bundle's edits begin from.

Generation 0 is the sealed export, in `kb/`. Each `fold` makes the next one, a folder of its own below `generations/`:

    HEAD                     which generation is in force, and how far its journal goes (`kb.head`)
    N/generation.json        its table of contents, sealed as the manifest is; generation 0 has none
    N/index.usearch ...      the knowledge base (`kb.knowledge_base`), and pins.npy
    N/history.jsonl          every edit before it, rows that are gone without their texts and keys
    N/journal.jsonl          every edit since
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import BundleIntegrityError
from ...kb.edits.head import GENERATIONS, JournalHead
from ...kb.index.hnsw import IndexConfig
from ...kb.knowledge_base import TEXTS_FILE
from ...kb.storage.atomic import atomic_write
from ...kb.storage.json_fields import JsonReader
from ...kb.storage.strict_json import read_json
from ...kb.texts import DIGESTS_FILE
from ..bundle.bundle import plain_size
from ..bundle.manifest import FileRecord, Manifest, read_files, seal_entry, sealed

GENERATION_FILE = "generation.json"
JOURNAL_FILE = "journal.jsonl"
HISTORY_FILE = "history.jsonl"
FORMAT = 1
TEXTS = ("plain", "hash", "none")

_MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class Generation:
    """What a knowledge base is before the edits of its journal.

    Attributes:
        number: 0 for the export.
        folder: where its files are.
        labels: all labels' names, the student's first.
        kb: the index's parameters.
        kb_rows: rows.
        pins: whether there are pinned rows.
        next_id: the id of the next row that is added; no row has had it, or a larger one.
        related: the rows from the first number up to the second are the bundle's held-out rows; None for not known.
        seq: the number of the last edit before it.
        after: that edit's hash, or the manifest's seal.
        recall: of the search, as it was measured.
        odds: what the odds of labels are multiplied by that the student was not taught.
        texts: what is kept of the rows' texts: ``"plain"``, ``"hash"`` or ``"none"``.
        files: name to record, without those of generation 0, which the manifest has.
    """

    number: int
    folder: Path
    labels: tuple[str, ...]
    kb: IndexConfig
    kb_rows: int
    seq: int
    after: str
    pins: bool = False
    next_id: int | None = None
    related: tuple[int, int] | None = None
    recall: float | None = None
    odds: float = 1.0
    texts: str = "none"
    files: dict[str, FileRecord] = dataclasses.field(default_factory=dict)

    @property
    def begin(self) -> JournalHead:
        """The state before its first edit."""
        return JournalHead(self.number, self.seq, 0, self.after)

    @property
    def journal(self) -> Path:
        """The file of the edits since."""
        root = self.folder.parent / GENERATIONS / "0" if self.number == 0 else self.folder
        return root / JOURNAL_FILE

    @classmethod
    def export(cls, folder: Path, manifest: Manifest, seal: str) -> Generation:
        """Generation 0.

        Args:
            folder: `kb/` of the bundle.
            manifest: the bundle's.
            seal: the manifest's own hash, where the chain of edits begins.
        """
        listed = {name.rpartition("/")[2] for name in manifest.files}
        texts = "plain" if TEXTS_FILE in listed else "hash" if DIGESTS_FILE in listed else "none"
        return cls(0, folder, manifest.labels, manifest.kb, manifest.kb_rows, 0, seal, texts=texts)

    @classmethod
    def open(cls, bundle: Path, head: JournalHead, manifest: Manifest, seal: str) -> Generation:
        """The generation in force, from its table of contents; its files are not looked at.

        Raises:
            FileNotFoundError: it is not there (any more).
            BundleIntegrityError: its table is damaged, or that of another bundle.
            BundleError: a field is missing or unusable.
        """
        folder = bundle / GENERATIONS / str(head.generation)
        path = folder / GENERATION_FILE
        size = plain_size(bundle, f"{GENERATIONS}/{head.generation}/{GENERATION_FILE}", "a generation's table")
        if size > _MOST_BYTES:
            raise _refused(path, f"{size:,} bytes")
        raw = path.read_bytes()
        try:
            obj = read_json(raw)
        except ValueError as error:
            raise _refused(path, str(error)) from error
        fields = JsonReader(obj, path)
        if not sealed(raw):
            raise _refused(path, "other content than its seal stands for")
        number, of = fields.get("generation", int), fields.get("bundle", str)
        if fields.get("format", int) != FORMAT or number != head.generation or of != seal:
            raise _refused(path, f"generation {number} of the bundle {of[:12]}")
        made = cls(
            number,
            folder,
            (*manifest.labels, *fields.items("labels", str)),
            fields.section("kb").make(IndexConfig, ndim=int),
            fields.get("kb_rows", int),
            fields.get("seq", int),
            fields.get("after", str),
            fields.get("pins", bool),
            fields.get("next_id", int),
            _related(fields),
            fields.get("recall", float),
            fields.get("odds", float),
            fields.get("texts", str),
            read_files(fields.section("files")),
        )
        made._check(fields, manifest)
        return made

    def _check(self, fields: JsonReader, manifest: Manifest) -> None:
        """That the numbers are possible, whoever sealed them."""
        if len(set(self.labels)) != len(self.labels):
            raise fields.error("labels", self.labels[len(manifest.labels) :], "names that no other label has")
        if self.kb.ndim != manifest.kb.ndim:
            raise fields.error("kb.ndim", self.kb.ndim, f"{manifest.kb.ndim}, as the student's embeddings have")
        if self.related is not None and self.related[1] > self.kb_rows:
            raise fields.error("related", self.related, f"rows of {self.kb_rows}")
        if not 0 < self.odds < math.inf:
            raise fields.error("odds", self.odds, "a positive number")
        if self.texts not in TEXTS:
            raise fields.error("texts", self.texts, " or ".join(TEXTS))

    def digest(self) -> str:
        """SHA-256 of what the table says but for hashes: part of the entry of the fold that made it, and so signed."""
        from ...kb.edits.change import canonical

        names = ("number", "labels", "kb_rows", "pins", "next_id", "related", "recall", "odds", "texts")
        told = {name: getattr(self, name) for name in names}
        return hashlib.sha256(canonical({**told, "kb": dataclasses.asdict(self.kb)})).hexdigest()

    def save(self, folder: Path, manifest: Manifest, seal: str) -> None:
        """Write the table of contents into the generation's folder.

        Raises:
            StorageError: the disk refused.
        """
        table: dict[str, Any] = {
            "format": FORMAT,
            "generation": self.number,
            "bundle": seal,
            "labels": self.labels[len(manifest.labels) :],
            "kb": dataclasses.asdict(self.kb),
            "files": {name: dataclasses.asdict(record) for name, record in self.files.items()},
            **{
                name: getattr(self, name)
                for name in ("kb_rows", "seq", "after", "pins", "next_id", "related", "recall", "odds", "texts")
            },
        }
        text = json.dumps(table, indent=2, allow_nan=False)
        head = (text.removesuffix("\n}") + ",\n  ").encode()
        with atomic_write(folder / GENERATION_FILE, "wb") as out:
            out.write(head + seal_entry(head))


def _related(fields: JsonReader) -> tuple[int, int] | None:
    if fields.obj.get("related") is None:
        return None
    rows = fields.items("related", int)
    if len(rows) != 2 or rows[0] > rows[1]:
        raise fields.error("related", rows, "two row numbers")
    return rows[0], rows[1]


def _refused(path: Path, found: str) -> BundleIntegrityError:
    return BundleIntegrityError(
        "the generation's table of contents is damaged",
        path=path,
        found=found,
        expected="the one that was written",
        remedy="Restore it from a copy of the bundle.",
    )

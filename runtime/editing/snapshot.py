"""A snapshot: a numbered set of knowledge-base files that later edits build on.

Snapshot 0 is the sealed export in `kb/`. Each compaction writes the next one into its own folder below `generations/`
(names on the disk, and the keys of the JSON files, are those of format 1, which calls a snapshot a generation):

    HEAD                     the current snapshot, and the length of its journal (`kb.edits.head`)
    N/generation.json        its table of contents, sealed like the manifest; snapshot 0 has none
    N/index.usearch ...      the knowledge base (`kb.knowledge_base`), and pins.npy
    N/classifier-S.npy       the classifier of new labels, fitted after edit S (`kb.edits.classifier_file`)
    N/history.jsonl          every edit before it, without the texts and keys of erased rows
    N/journal.jsonl          every edit after it
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import BundleError, BundleIntegrityError
from ...kb.edits.head import SNAPSHOTS, JournalHead
from ...kb.index.config import IndexConfig
from ...kb.index.lists import LISTS_FILE
from ...kb.knowledge_base import TEXTS_FILE, KnowledgeBase
from ...kb.storage.atomic import atomic_write
from ...kb.storage.json_fields import JsonReader
from ...kb.storage.strict_json import parse_json
from ...kb.texts import DIGESTS_FILE
from ..bundle.files import find_file
from ..bundle.manifest import FileRecord, Manifest, read_files, seal_entry, sealed

if TYPE_CHECKING:
    from ...kb.edits.change import NewRow
    from ...kb.edits.classifier_file import FittedClassifier

SNAPSHOT_FILE = "generation.json"
JOURNAL_FILE = "journal.jsonl"
HISTORY_FILE = "history.jsonl"
FORMAT = 1
CLASSIFIER = "classifier-"  # first part of the name of the file of `kb.edits.classifier_file`
TEXTS = ("plain", "hash", "none")

_MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class Snapshot:
    """The knowledge base before the edits of a journal.

    Attributes:
        number: 0 for the export.
        folder: the folder of its files.
        labels: all labels' names, the student's first.
        kb: the index's parameters.
        kb_rows: number of rows.
        pins: whether there are pinned rows.
        next_id: the id of the next added row, larger than all ids so far.
        related: first row and end of the bundle's held-out rows; None if they are unknown.
        seq: number of the last edit before it.
        after: that edit's hash, or the manifest's seal.
        recall: measured recall of the search.
        new_label_odds: factor on the odds of the labels that the student was not trained on.
        texts: how the rows' texts are kept: ``"plain"``, ``"hash"`` or ``"none"``.
        files: name to record; empty for snapshot 0, whose files the manifest lists.
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
    new_label_odds: float = 1.0
    texts: str = "none"
    files: dict[str, FileRecord] = dataclasses.field(default_factory=dict)

    @property
    def begin(self) -> JournalHead:
        """The state before its first edit."""
        return JournalHead(self.number, self.seq, 0, self.after)

    @property
    def journal(self) -> Path:
        """The journal of the edits after it."""
        root = self.folder.parent / SNAPSHOTS / "0" if self.number == 0 else self.folder
        return root / JOURNAL_FILE

    @property
    def fit(self) -> Mapping[str, str]:
        """The name and the SHA-256 of its classifier of new labels; empty if it has none."""
        return {name: record.sha256 for name, record in self.files.items() if name.startswith(CLASSIFIER)}

    @classmethod
    def export(cls, folder: Path, manifest: Manifest, seal: str) -> Snapshot:
        """Snapshot 0.

        Args:
            folder: `kb/` of the bundle.
            manifest: the manifest of the bundle.
            seal: the manifest's hash, with which the chain of edits begins.
        """
        listed = {name.rpartition("/")[2] for name in manifest.files}
        texts = "plain" if TEXTS_FILE in listed else "hash" if DIGESTS_FILE in listed else "none"
        return cls(0, folder, manifest.labels, manifest.kb, manifest.kb_rows, 0, seal, texts=texts)

    @classmethod
    def open(cls, bundle: Path, head: JournalHead, manifest: Manifest, seal: str) -> Snapshot:
        """The current snapshot, from its table of contents; its files are not read.

        Raises:
            FileNotFoundError: its folder is missing.
            BundleIntegrityError: its table is damaged, or belongs to another bundle.
            BundleError: a field is missing or unusable.
        """  # noqa: DOC501
        folder = bundle / SNAPSHOTS / str(head.snapshot)
        path = folder / SNAPSHOT_FILE
        size = find_file(bundle, f"{SNAPSHOTS}/{head.snapshot}/{SNAPSHOT_FILE}", "a snapshot's table").size
        if size > _MOST_BYTES:
            raise _refused(path, f"{size:,} bytes")
        raw = path.read_bytes()
        try:
            obj = parse_json(raw)
        except ValueError as error:
            raise _refused(path, str(error)) from error
        fields = JsonReader(obj, path)
        if not sealed(raw):
            raise _refused(path, "content that does not match its seal")
        number, of = fields.get("generation", int), fields.get("bundle", str)
        if fields.get("format", int) != FORMAT or number != head.snapshot or of != seal:
            raise _refused(path, f"snapshot {number} of the bundle {of[:12]}")
        made = cls(
            number,
            folder,
            (*manifest.labels, *fields.items("labels", str)),
            IndexConfig.read(fields.section("kb")),
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
        """Check that the values are possible: a seal does not prove who wrote them."""
        if len(set(self.labels)) != len(self.labels):
            raise fields.error("labels", self.labels[len(manifest.labels) :], "unique names")
        if self.kb.ndim != manifest.kb.ndim:
            raise fields.error("kb.ndim", self.kb.ndim, f"{manifest.kb.ndim}, as the student's embeddings have")
        if self.related is not None and self.related[1] > self.kb_rows:
            raise fields.error("related", self.related, f"rows of {self.kb_rows}")
        if not 0 < self.new_label_odds < math.inf:
            raise fields.error("odds", self.new_label_odds, "a positive number")
        if self.texts not in TEXTS:
            raise fields.error("texts", self.texts, " or ".join(TEXTS))

    def keeps(self, row: NewRow) -> bool:
        """Whether a row of the journal has its payload, with the text or digest that this knowledge base keeps."""
        payload, texts = row.payload, self.texts
        if payload is None:  # only a history may lack it
            return False
        return (payload.text is None) == (texts != "plain") and (payload.text_digest is None) == (texts != "hash")

    def digest(self) -> str:
        """SHA-256 of the table without hashes; the compaction's entry has it, so its signature covers the table."""
        from ...kb.edits.change import canonical  # not at the top: only edited bundles need it, and it takes 15 ms

        table = {"number": self.number, "labels": self.labels, "kb": self.kb.as_record(), **self._described()}
        return hashlib.sha256(canonical(table)).hexdigest()

    def _described(self) -> dict[str, Any]:
        """The fields that the table and its digest share, under their names on the disk."""
        names = ("kb_rows", "pins", "next_id", "related", "recall", "texts")
        return {**{name: getattr(self, name) for name in names}, "odds": self.new_label_odds}

    def save(self, folder: Path, manifest: Manifest, seal: str) -> None:
        """Write the table of contents into the snapshot's folder.

        Raises:
            StorageError: the file cannot be written.
        """
        table: dict[str, Any] = {
            "format": FORMAT,
            "generation": self.number,
            "bundle": seal,
            "labels": self.labels[len(manifest.labels) :],
            "kb": self.kb.as_record(),
            "files": {name: dataclasses.asdict(record) for name, record in self.files.items()},
            "seq": self.seq,
            "after": self.after,
            **self._described(),
        }
        text = json.dumps(table, indent=2, allow_nan=False)
        head = (text.removesuffix("\n}") + ",\n  ").encode()
        with atomic_write(folder / SNAPSHOT_FILE, "wb") as out:
            out.write(head + seal_entry(head))


def read_fitted(bundle: Path, snapshot: Snapshot, fit: Mapping[str, str], labels: int) -> FittedClassifier:
    """Read a classifier of new labels.

    Args:
        bundle: the bundle's folder.
        snapshot: the snapshot, whose journal is in the classifier's folder.
        fit: the name and the SHA-256 of its file.
        labels: number of labels after the last edit.

    Raises:
        BundleIntegrityError: it is missing or damaged.
        BundleError: a link leads to it.
    """
    from ...kb.edits.classifier_file import read_classifier

    (name, digest), *_ = fit.items()
    path = snapshot.journal.parent / name
    find_file(bundle, path.relative_to(bundle).as_posix(), "a classifier of new labels")
    return read_classifier(path, digest, labels, snapshot.kb.ndim)


def _related(fields: JsonReader) -> tuple[int, int] | None:
    if fields.obj.get("related") is None:
        return None
    rows = fields.items("related", int)
    if len(rows) != 2 or rows[0] > rows[1]:
        raise fields.error("related", rows, "two row numbers")
    return rows[0], rows[1]


def _refused(path: Path, found: str) -> BundleIntegrityError:
    return BundleIntegrityError(
        "the snapshot's table of contents is damaged",
        path=path,
        found=found,
        expected="the one that was written",
        remedy="Restore it from a copy of the bundle.",
    )


def refuse_unlisted(snapshot: Snapshot) -> None:
    """Refuse an optional file that the table of contents does not list, because it would be read unchecked.

    Raises:
        BundleIntegrityError: there is such a file.
    """
    for name in (TEXTS_FILE, DIGESTS_FILE, LISTS_FILE):
        path = snapshot.folder / name
        if name not in snapshot.files and os.path.lexists(path):
            raise BundleIntegrityError(
                "the snapshot's table of contents does not list the file",
                path=path,
                found="an extra file",
                remedy="Remove it.",
            )


def check_rows(kb: KnowledgeBase, snapshot: Snapshot) -> None:
    """Check that a knowledge base has the rows and labels of its table of contents.

    Raises:
        BundleError: it has others.
    """
    for name, found, expected in (
        ("rows", len(kb), snapshot.kb_rows),
        ("labels", kb.num_labels, len(snapshot.labels)),
    ):
        if found != expected:
            raise BundleError(
                f"the knowledge base has another number of {name} than the manifest",
                path=snapshot.folder,
                found=found,
                expected=str(expected),
                remedy="Export the bundle again.",
            )

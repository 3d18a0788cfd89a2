"""The bundle's table of contents: what it is, how to run it, and the hash of every file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import BundleVersionError
from ...kb.index.hnsw import IndexConfig
from ...kb.storage.atomic import atomic_write, sha256_file
from ...kb.storage.json_fields import JsonReader
from ..decision.abstention import Abstention, read_abstention, write_thresholds
from ..decision.blend_config import BlendConfig, read_blend
from ..decision.gating import Gate, read_gate

FORMAT_VERSION = 2
"""The newest that is read; written is the oldest that will do. 1: soft labels of all classes, 2: or the likeliest."""

MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.sig"

# Far more than any bundle has, and few enough that reading them takes no time and no memory to speak of.
_MOST_GOLDEN = 100
_MOST_FILES = 1_000
_MOST_TOKENS = 1_000_000
_LONGEST_LABEL = _LONGEST_GOLDEN = 10_000


@dataclass(frozen=True)
class Golden:
    """One example of what the exporting machine computed, run again wherever the bundle is opened.

    Attributes:
        text: the text, or the pair.
        token_ids: its token ids; must come out the same.
        logits: its logits [c]; must come out within ``tolerance``.
        tolerance: the largest absolute difference accepted of a logit.
    """

    text: str | tuple[str, str]
    token_ids: tuple[int, ...]
    logits: tuple[float, ...]
    tolerance: float


@dataclass(frozen=True)
class FileRecord:
    """A file's size in bytes and its SHA-256 (64 hexadecimal digits)."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything a bundle says about itself.

    Attributes:
        labels: names in the order of the logits.
        max_length: tokens a text is cut to, special tokens counted.
        pooling: how the student's embedding is pooled (a record: it is inside the model).
        text_pair: whether an input is a pair of texts.
        blend: how student and neighbours are mixed.
        kb: the index's parameters (its expansion is in no other file).
        kb_rows: rows of the knowledge base.
        gate: where the student answers alone; None where no threshold could be certified.
        abstention: when not to answer, and prediction sets; None where the export has fitted none.
        golden: what the exporting machine computed.
        quantization: kind, target instruction set, quantized nodes and so on.
        quality: the export gate's report.
        versions: of the libraries that exported.
        created_from: teacher, data, recipe.
        files: path below the bundle (with ``/``) to its record; filled in by `seal`.
        format_version: of the bundle's layout; `KnowledgeBase.format_version` says which it takes.
    """

    labels: tuple[str, ...]
    max_length: int
    pooling: str
    text_pair: bool
    blend: BlendConfig
    kb: IndexConfig
    kb_rows: int
    gate: Gate | None = None
    abstention: Abstention | None = None
    golden: tuple[Golden, ...] = ()
    quantization: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    created_from: dict[str, Any] = field(default_factory=dict)
    files: dict[str, FileRecord] = field(default_factory=dict)
    format_version: int = 1

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON values; ``from_json(to_json())`` gives an equal manifest."""
        plain = {"format_version": self.format_version, **dataclasses.asdict(self), "kb": self.kb.as_record()}
        obj: dict[str, Any] = json.loads(json.dumps(plain, default=_plain))
        if self.abstention is not None:
            write_thresholds(obj["abstention"])
        return obj

    @classmethod
    def from_json(cls, obj: object, path: Path) -> Manifest:
        """Read a manifest from JSON values; fields that are not known are ignored.

        Args:
            obj: what ``json.loads`` gave.
            path: the file, for messages.

        Raises:
            BundleVersionError: the format is newer than this program.
            BundleError: a field is missing or unusable.
        """
        fields = JsonReader(obj, path)
        return cls(
            format_version=_checked_version(fields),
            labels=_labels(fields),
            max_length=_max_length(fields),
            pooling=fields.get("pooling", str),
            text_pair=fields.get("text_pair", bool),
            blend=read_blend(fields.section("blend")),
            kb=IndexConfig.read(fields.section("kb")),
            kb_rows=fields.get("kb_rows", int),
            gate=read_gate(fields),
            abstention=read_abstention(fields),
            golden=tuple(_golden(section) for section in fields.sections("golden", _MOST_GOLDEN)),
            quantization=fields.get("quantization", dict),
            quality=fields.get("quality", dict),
            versions=fields.get("versions", dict),
            created_from=fields.get("created_from", dict),
            files=read_files(fields.section("files")),
        )


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Hash every file below ``folder`` and write ``manifest.json`` there, atomically.

    The manifest's own last entry, ``seal``, is the SHA-256 of all its bytes before that entry, so that it too cannot
    be altered unnoticed. A signature of the manifest (`signing`) cannot be in it, and does not hold afterwards.

    Returns:
        The manifest with ``files`` filled in.

    Raises:
        StorageError: the disk refused.
    """
    files = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name not in (MANIFEST_FILE, SIGNATURE_FILE):
            files[name] = file_record(file)
    manifest = dataclasses.replace(manifest, files=files)
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    head = (text.removesuffix("\n}") + ",\n  ").encode()
    with atomic_write(folder / MANIFEST_FILE, "wb") as out:
        out.write(head + seal_entry(head))
    return manifest


def seal_entry(head: bytes) -> bytes:
    """The end of a manifest file that begins with ``head``."""
    return f'"seal": "{hashlib.sha256(head).hexdigest()}"\n}}\n'.encode()


def sealed(raw: bytes) -> bool:
    """Whether a file that ends with a seal is as it was when it got it."""
    size = len(seal_entry(b""))
    return raw[-size:] == seal_entry(raw[:-size])


def seal_of(raw: bytes) -> str:
    """The seal of a sealed file: 64 hexadecimal digits."""
    return hashlib.sha256(raw[: -len(seal_entry(b""))]).hexdigest()


def file_record(path: Path) -> FileRecord:
    """The record of a file as it is now."""
    return FileRecord(bytes=path.stat().st_size, sha256=sha256_file(path))


def _plain(value: object) -> object:
    """NumPy's scalars, and paths, as JSON values."""
    if isinstance(value, Path):
        return str(value)
    item: Callable[[], object] | None = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"a manifest cannot hold {value!r}")
    return item()


def _checked_version(fields: JsonReader) -> int:
    version = fields.get("format_version", int)
    if version > FORMAT_VERSION:
        # Of what a newer format holds only this is relied on: which reaugkd wrote it, and so reads it.
        versions = fields.obj.get("versions")
        writer = versions.get("reaugkd") if isinstance(versions, dict) else None
        told = isinstance(writer, str) and writer.isprintable()
        raise BundleVersionError(
            "the bundle was written by a newer reaugkd",
            path=fields.path,
            found=f"format version {version}" + (f", written by reaugkd {writer}" if told else ""),
            expected=f"format version {FORMAT_VERSION} or older",
            remedy=f"Upgrade reaugkd to {f'{writer} or newer' if told else 'a version that reads it'}, or export the "
            "bundle again with this version.",
        )
    if version < 1:
        raise fields.error("format_version", version, "a whole number from 1")
    return version


def _labels(fields: JsonReader) -> tuple[str, ...]:
    labels = fields.items("labels", str, at_least=1)
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            raise fields.error("labels", label, "every label once")
        if not label or len(label) > _LONGEST_LABEL or not _is_unicode(label):
            raise fields.error("labels", ascii(label), f"valid Unicode of 1 to {_LONGEST_LABEL:,} characters")
        seen.add(label)
    return tuple(labels)


def _max_length(fields: JsonReader) -> int:
    length = fields.get("max_length", int)
    if not 1 <= length <= _MOST_TOKENS:
        raise fields.error("max_length", length, f"a whole number from 1 to {_MOST_TOKENS:,}")
    return length


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _golden(section: JsonReader) -> Golden:
    text = section.obj.get("text")
    if isinstance(text, list | tuple) and len(text) == 2 and all(isinstance(part, str) for part in text):
        text = (text[0], text[1])
    elif not isinstance(text, str):
        raise section.error("text", text, "a text or a pair of texts")
    return Golden(
        text=_short(section, text),
        token_ids=tuple(section.items("token_ids", int)),
        logits=tuple(section.items("logits", float)),
        tolerance=section.get("tolerance", float),
    )


def _short(section: JsonReader, text: str | tuple[str, str]) -> str | tuple[str, str]:
    """A golden text, which every opening runs."""
    size = max(map(len, (text,) if isinstance(text, str) else text))
    if size > _LONGEST_GOLDEN:
        raise section.error("text", f"{size:,} characters", f"at most {_LONGEST_GOLDEN:,}")
    return text


def read_files(section: JsonReader) -> dict[str, FileRecord]:
    """The records of files, by their paths.

    Raises:
        BundleError: a record is unusable, or a path leads out of the bundle.
    """
    files = {}
    if len(section.obj) > _MOST_FILES:
        raise JsonReader({}, section.path).error("files", f"{len(section.obj):,} files", f"at most {_MOST_FILES:,}")
    for name in section.obj:
        pure = PurePosixPath(name)
        # Written in one way only: a file by two names would be two files.
        outside = pure.is_absolute() or ".." in pure.parts or "\\" in name or not pure.parts
        if outside or str(pure) != name or name == MANIFEST_FILE:
            raise section.error(name, name, "a path below the bundle")
        record = section.section(name)
        files[name] = FileRecord(bytes=record.get("bytes", int), sha256=record.get("sha256", str))
    return files

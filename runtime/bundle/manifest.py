"""The manifest of a bundle: its settings, and the size and hash of every file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import BundleVersionError
from ...kb.index.config import IndexConfig
from ...kb.storage.atomic import atomic_write, sha256_file
from ...kb.storage.json_fields import JsonReader
from ..decision.abstention_thresholds import Abstention, read_abstention, write_thresholds
from ..decision.blend_config import BlendConfig, read_blend
from ..decision.gating import Gate, read_gate

FORMAT_VERSION = 3
"""The newest format that can be read. 1: soft labels of all classes; 2: also of the most probable classes only; 3: also
an index in shards.

The export writes the oldest format that can hold the bundle (`KnowledgeBase.format_version`).
"""

MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.sig"
CARD_FILE, CONFIG_FILE = "README.md", "config.json"
UNSEALED_FILES = (CARD_FILE, CONFIG_FILE)
"""Files for the Hugging Face Hub and its readers, which anyone may edit: the runtime reads none of them."""

# Limits against hostile manifests: far above any real bundle, and cheap to read.
_MOST_GOLDEN = 100
_MOST_FILES = 1_000
_MOST_TOKENS = 1_000_000
_LONGEST_LABEL = _LONGEST_GOLDEN = 10_000


@dataclass(frozen=True)
class Golden:
    """A golden output: one text with the exporting machine's results, which are checked when the bundle is opened.

    Attributes:
        text: the text, or the pair.
        token_ids: its token ids; they must be equal.
        logits: its logits [c]; they must be equal within ``tolerance``.
        tolerance: the largest accepted absolute difference of a logit.
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
    """The settings, records and file hashes of a bundle.

    Attributes:
        labels: names in the order of the logits.
        max_length: texts are truncated to this number of tokens, special tokens included.
        pooling: the pooling of the student's embedding; informative only, since it is part of the model.
        text_pair: whether an input is a pair of texts.
        blend: settings of the blend.
        kb: parameters of the index; no other file has its ef_search.
        kb_rows: rows of the knowledge base.
        gate: the gate; None if no threshold could be certified.
        abstention: abstention thresholds and prediction sets; None if none were fitted.
        golden: golden outputs of the exporting machine.
        quantization: kind, target instruction set, number of quantized nodes and so on.
        quality: the report of the export's quality gate.
        versions: library versions of the export.
        created_from: teacher, data, recipe.
        files: path below the bundle (with ``/``) to its record; set by `seal`.
        format_version: version of the bundle's format, at least that of its knowledge base.
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
        """Read a manifest from JSON values; unknown fields are ignored.

        Args:
            obj: the result of ``json.loads``.
            path: the file, for error messages.

        Raises:
            BundleVersionError: a newer reaugkd wrote the format.
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
    """Hash every file below ``folder`` but `UNSEALED_FILES`, and write ``manifest.json`` there, atomically.

    The last entry of the manifest, ``seal``, is the SHA-256 of all bytes before that entry, so that a change of the
    manifest is detected. A signature (`signature`) is a separate file; it is invalid after a new seal.

    Returns:
        The manifest with ``files`` set.

    Raises:
        StorageError: the file cannot be written.
    """
    files = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name not in (MANIFEST_FILE, SIGNATURE_FILE, *UNSEALED_FILES):
            files[name] = file_record(file)
    manifest = dataclasses.replace(manifest, files=files)
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    head = (text.removesuffix("\n}") + ",\n  ").encode()
    with atomic_write(folder / MANIFEST_FILE, "wb") as out:
        out.write(head + seal_entry(head))
    return manifest


def seal_entry(head: bytes) -> bytes:
    """The end of a manifest file whose first bytes are ``head``."""
    return f'"seal": "{hashlib.sha256(head).hexdigest()}"\n}}\n'.encode()


def sealed(raw: bytes) -> bool:
    """Whether the content of a sealed file matches its seal."""
    size = len(seal_entry(b""))
    return raw[-size:] == seal_entry(raw[:-size])


def seal_of(raw: bytes) -> str:
    """The seal of a sealed file: 64 hexadecimal digits."""
    return hashlib.sha256(raw[: -len(seal_entry(b""))]).hexdigest()


def file_record(path: Path) -> FileRecord:
    """The record of a file in its current state."""
    return FileRecord(bytes=path.stat().st_size, sha256=sha256_file(path))


def _plain(value: object) -> object:
    """Convert NumPy scalars and paths to JSON values.

    Raises:
        TypeError: a value of another type.
    """
    if isinstance(value, Path):
        return str(value)
    item: Callable[[], object] | None = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"a manifest cannot hold {value!r}")
    return item()


def _checked_version(fields: JsonReader) -> int:
    version = fields.get("format_version", int)
    if version > FORMAT_VERSION:
        # Only this part of a newer format is used: the version of reaugkd that wrote it and can read it.
        versions = fields.obj.get("versions")
        writer = versions.get("reaugkd") if isinstance(versions, dict) else None
        known = isinstance(writer, str) and writer.isprintable()
        raise BundleVersionError(
            "the bundle was written by a newer reaugkd",
            path=fields.path,
            found=f"format version {version}" + (f", written by reaugkd {writer}" if known else ""),
            expected=f"format version {FORMAT_VERSION} or older",
            remedy=f"Upgrade reaugkd to {f'{writer} or newer' if known else 'a version that reads it'}, or export the "
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
    """A golden text of an acceptable length: every opening runs it."""
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
        # Each path has one spelling, so that a file cannot have two records.
        outside = pure.is_absolute() or ".." in pure.parts or "\\" in name or not pure.parts
        if outside or str(pure) != name or name == MANIFEST_FILE:
            raise section.error(name, name, "a path below the bundle")
        record = section.section(name)
        files[name] = FileRecord(bytes=record.get("bytes", int), sha256=record.get("sha256", str))
    return files

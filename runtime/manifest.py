"""The bundle's table of contents: what it is, how to run it, and the hash of every file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import BundleVersionError, UsageError
from ..kb.files import atomic_write, sha256_file
from ..kb.index import IndexConfig
from .abstention import Abstention, read_abstention
from .fields import Fields
from .gate import Gate, read_gate
from .weight import ExampleWeight, read_weight

FORMAT_VERSION = 2
"""The newest that is read; written is the oldest that will do. 1: soft labels of all classes, 2: or the likeliest."""

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class BlendConfig:
    """How student and neighbours are mixed (`blend.blend`).

    Attributes:
        k: neighbours looked up.
        tau: temperature of the softmax over their cosine similarities.
        student_weight: the student's share w of the mixture, 0 to 1.
        student_temperature: the student's logits are divided by it.
        label_temperature: the teacher's logits were divided by it when the soft labels were made; kept as a record.
        gold_share: the gold labels' part in the soft labels of the rows that have one; kept as a record.
        weight: the student's share as a function of the text, in place of ``student_weight``; None for a constant one.

    Raises:
        UsageError: a value is outside its range.
    """

    k: int
    tau: float
    student_weight: float
    student_temperature: float = 1.0
    label_temperature: float = 1.0
    gold_share: float = 0.0
    weight: ExampleWeight | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError("the blend's k is unusable", found=self.k, expected="a whole number from 1")
        if not 0.0 <= self.student_weight <= 1.0:
            raise UsageError("the blend's student_weight is unusable", found=self.student_weight, expected="0 to 1")
        if not 0.0 <= self.gold_share <= 1.0:
            raise UsageError("the blend's gold_share is unusable", found=self.gold_share, expected="0 to 1")
        for name in ("tau", "student_temperature", "label_temperature"):
            if not 1e-6 <= getattr(self, name) <= 1e6:  # beyond, float32 ends
                raise UsageError(f"the blend's {name} is unusable", found=getattr(self, name), expected="1e-6 to 1e6")


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
        plain = {"format_version": self.format_version, **dataclasses.asdict(self)}
        obj: dict[str, Any] = json.loads(json.dumps(plain, default=_plain))
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
        fields = Fields(obj, path)
        return cls(
            format_version=_checked_version(fields),
            labels=tuple(fields.items("labels", str, at_least=1)),
            max_length=fields.get("max_length", int),
            pooling=fields.get("pooling", str),
            text_pair=fields.get("text_pair", bool),
            blend=read_blend(fields.section("blend")),
            kb=fields.section("kb").make(IndexConfig, ndim=int),
            kb_rows=fields.get("kb_rows", int),
            gate=read_gate(fields),
            abstention=read_abstention(fields),
            golden=tuple(_golden(section) for section in fields.sections("golden")),
            quantization=fields.get("quantization", dict),
            quality=fields.get("quality", dict),
            versions=fields.get("versions", dict),
            created_from=fields.get("created_from", dict),
            files=_files(fields.section("files")),
        )


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Hash every file below ``folder`` and write ``manifest.json`` there, atomically.

    The manifest's own last entry, ``seal``, is the SHA-256 of all its bytes before that entry, so that it too cannot
    be altered unnoticed.

    Returns:
        The manifest with ``files`` filled in.

    Raises:
        StorageError: the disk refused.
    """
    files = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name != MANIFEST_FILE:
            files[name] = FileRecord(bytes=file.stat().st_size, sha256=sha256_file(file))
    manifest = dataclasses.replace(manifest, files=files)
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    head = (text.removesuffix("\n}") + ",\n  ").encode()
    with atomic_write(folder / MANIFEST_FILE, "wb") as out:
        out.write(head + seal_entry(head))
    return manifest


def seal_entry(head: bytes) -> bytes:
    """The end of a manifest file that begins with ``head``."""
    return f'"seal": "{hashlib.sha256(head).hexdigest()}"\n}}\n'.encode()


def _plain(value: object) -> object:
    """NumPy's scalars, and paths, as JSON values."""
    if isinstance(value, Path):
        return str(value)
    item: Callable[[], object] | None = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"a manifest cannot hold {value!r}")
    return item()


def _checked_version(fields: Fields) -> int:
    version = fields.get("format_version", int)
    if version > FORMAT_VERSION:
        raise BundleVersionError(
            "the bundle was written by a newer reaugkd",
            path=fields.path,
            found=f"format version {version}",
            expected=f"format version {FORMAT_VERSION} or older",
            remedy="Upgrade reaugkd, or export the bundle again with this version.",
        )
    if version < 1:
        raise fields.error("format_version", version, "a whole number from 1")
    return version


def read_blend(section: Fields) -> BlendConfig:
    """A blend from the JSON values of one.

    Raises:
        BundleError: a field is missing or unusable.
    """
    return section.make(BlendConfig, {"weight": read_weight(section)}, k=int, tau=float, student_weight=float)


def _golden(section: Fields) -> Golden:
    text = section.obj.get("text")
    if isinstance(text, list | tuple) and len(text) == 2 and all(isinstance(part, str) for part in text):
        text = (text[0], text[1])
    elif not isinstance(text, str):
        raise section.error("text", text, "a text or a pair of texts")
    return Golden(
        text=text,
        token_ids=tuple(section.items("token_ids", int)),
        logits=tuple(section.items("logits", float)),
        tolerance=section.get("tolerance", float),
    )


def _files(section: Fields) -> dict[str, FileRecord]:
    files = {}
    for name in section.obj:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or not pure.parts:
            raise section.error(name, name, "a path below the bundle")
        record = section.section(name)
        files[name] = FileRecord(bytes=record.get("bytes", int), sha256=record.get("sha256", str))
    return files

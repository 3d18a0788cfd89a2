"""A bundle with a compact knowledge base: the same student, fewer rows, smaller keys, fewer edges.

The blend stays as it was tuned on the full knowledge base: on banking77 and SST-2 tuning it anew to the prototypes
gained nothing at the sizes that keep most of the gain (docs/performance.md). The gate, a promise about answers that are
others now, is certified anew. How the index is built and searched is tuned to the prototypes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..kb.compaction import Compaction, Prototypes
from ..kb.files import atomic_directory, refuse_existing
from ..kb.index import IndexConfig
from ..kb.knowledge_base import KnowledgeBase
from ..kb.recall import FLOOR, Setting, tune_index
from ..runtime.bundle import KB_FOLDER, Bundle
from ..runtime.gate import Gate
from ..runtime.heldout import HELDOUT_FILE, HeldOutRows
from ..runtime.manifest import Manifest, seal
from .gate import Certificate, certify
from .quality import Answers
from .retrieval import Blends, blend_many
from .size_choice import cross_validated, smallest_within
from .sizes import Answered, Measure, Size, counts_of

Progress = Callable[[str, str], AbstractContextManager[Callable[[int, int | None], object]]]

_HEADERS = 256  # bytes, of soft_labels.npy and rows.npy
_A_LITTLE_LESS = 0.995  # rows differ in what their texts and edges take


@dataclass(frozen=True)
class Limit:
    """What bounds the compact knowledge base: exactly one of these.

    Attributes:
        rows: the most rows.
        bytes: the most bytes of the whole of it.
        loss: the largest share of retrieval's gain that may be lost (`smallest_within`).

    Raises:
        UsageError: none of them, several, or one out of range.
    """

    rows: int | None = None
    bytes: int | None = None
    loss: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("rows", "bytes", "loss") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(f"--max-{name}" for name in given) or "none"
            raise UsageError(
                "a compact knowledge base takes one limit",
                found=found,
                expected="--max-rows, --max-bytes or --max-loss",
            )
        if self.loss is not None and not 0 <= self.loss <= 1:
            raise UsageError("the loss allowed is no share", found=self.loss, expected="0 to 1")


@dataclass(frozen=True)
class Frontier:
    """What a bundle's knowledge base is worth at each size.

    Attributes:
        sizes: the largest, of all rows, first.
        student: the student alone.
        rows: held-out rows measured on.
        bytes: of the knowledge base as it is.
    """

    sizes: tuple[Size, ...]
    student: Answered
    rows: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "heldout_rows": self.rows,
            "bytes_now": self.bytes,
            "student": {"accuracy": float(self.student.right.mean()), "nll": float(self.student.nll.mean())},
            "sizes": [size.as_dict() for size in self.sizes],
        }


@dataclass(frozen=True)
class Compacted:
    """What a compaction came to.

    Attributes:
        manifest: as sealed.
        size: measured with the index that is in the bundle, its bytes as they are.
        rows_before: of the full knowledge base.
        bytes_before: of the full knowledge base.
        setting: of the index.
        heldout_rows: measured on.
        cross_validated: the share of the log-likelihood's gain that is kept on rows that the size was not chosen on;
            None where the limit was not a loss.
    """

    manifest: Manifest
    size: Size
    rows_before: int
    bytes_before: int
    setting: Setting
    heldout_rows: int
    cross_validated: float | None


def frontier(path: Path, progress: Progress, keep_texts: bool = True) -> Frontier:
    """Measure a bundle's knowledge base at every size.

    Args:
        path: the bundle.
        progress: (label, unit) to a context that gives a function of the units done and in all.
        keep_texts: count the texts' bytes.

    Raises:
        BundleError: the bundle cannot be used, or holds no held-out rows.
        UsageError: an empty knowledge base.
    """
    work = _Workbench.open(path, keep_texts, progress)
    counts, answers = work.measured()
    sizes = tuple(work.measure.size(count, one, work.usual) for count, one in zip(counts, answers, strict=True))
    return Frontier(sizes, work.measure.student, len(work.heldout), _bytes(work.kb))


def compact(
    path: Path, out: Path, limit: Limit, progress: Progress, *, keep_texts: bool = True, recall: float = FLOOR
) -> Compacted:
    """Write the bundle ``out``: the one at ``path`` with a compact knowledge base.

    Args:
        path: the bundle.
        out: the bundle to make; must not exist.
        limit: how small.
        progress: as of `frontier`.
        keep_texts: keep the text of each prototype's row, where there are texts.
        recall: the share of the true neighbours that the index must find.

    Raises:
        BundleError: the bundle cannot be used, or holds no held-out rows.
        OutputExistsError: ``out`` exists.
        UsageError: an empty knowledge base, or a limit that cannot be kept to.
        StorageError: the disk refused.
    """
    refuse_existing(out)
    work = _Workbench.open(path, keep_texts, progress)
    count, validated = work.count_within(limit)
    prototypes, kb, setting = work.within_bytes(count, limit.bytes, recall)
    measured = work.answers_of(prototypes, kb)
    answered = Answered.of(measured.blend, work.heldout.gold)
    size = replace(work.measure.size(len(kb), answered, kb.config), bytes=_bytes(kb))
    before = work.bundle.manifest
    report = {
        "rows_before": len(work.kb),
        "bytes_before": _bytes(work.kb),
        **size.as_dict(),
        "recall": setting.recall,
        "lost": setting.lost,
        "compared": setting.compared,
        "heldout_rows": len(work.heldout),
        "kept_nll_cross_validated": validated,
    }
    manifest = replace(
        before,
        kb=kb.config,
        kb_rows=len(kb),
        gate=None if before.gate is None else _certified(before.gate, measured, work.heldout),
        quality={**before.quality, "compaction": report},
        format_version=kb.format_version,
    )
    with atomic_directory(out) as folder:
        for name in before.files:
            if not name.startswith(f"{KB_FOLDER}/") and name != HELDOUT_FILE:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(work.bundle.path / name, folder / name)
        kb.save(folder / KB_FOLDER)
        replace(work.heldout, unrelated=prototypes.apart).save(folder)
        manifest = seal(folder, manifest)
    return Compacted(manifest, size, len(work.kb), _bytes(work.kb), setting, len(work.heldout), validated)


@dataclass(frozen=True)
class _Workbench:
    """A bundle that is being compacted."""

    bundle: Bundle
    kb: KnowledgeBase
    heldout: HeldOutRows
    compaction: Compaction
    measure: Measure
    keep_texts: bool
    progress: Progress

    @classmethod
    def open(cls, path: Path, keep_texts: bool, progress: Progress) -> _Workbench:
        bundle = Bundle.open(path)
        manifest = bundle.manifest
        kb = KnowledgeBase.open(bundle.kb_folder, manifest.kb, len(manifest.labels))
        heldout = HeldOutRows.open(bundle.path, len(manifest.labels), manifest.kb.ndim)
        if not (heldout.unrelated and len(heldout)):
            found = f"{len(kb)} rows, and {len(heldout)} held out"
            raise UsageError("there is nothing to compact, or to measure it on", path=path, found=found)
        with progress("merge", "row") as advance:
            compaction = Compaction.of(kb, heldout.unrelated, lambda done: advance(done, len(kb)))
        measure = Measure(compaction, heldout, manifest.blend, keep_texts)
        return cls(bundle, kb, heldout, compaction, measure, keep_texts, progress)

    @property
    def usual(self) -> IndexConfig:
        """The index that tuning mostly ends with."""
        return IndexConfig(self.kb.ndim, dtype="i8", connectivity=8)

    def measured(self) -> tuple[list[int], list[Answered]]:
        """Each size of the frontier, and its answers."""
        counts, answers = counts_of(self.compaction), []
        with self.progress("measure", "size") as advance:
            for number, count in enumerate(counts):
                answers.append(self.measure.answered(count))
                advance(number + 1, len(counts))
        return counts, answers

    def count_within(self, limit: Limit) -> tuple[int, float | None]:
        """The rows that a limit allows, of bytes about; for a loss, what is kept of the gain on other rows, too."""
        if limit.loss is not None:
            counts, answers = self.measured()
            full, student = self.measure.full, self.measure.student
            count = counts[smallest_within(limit.loss, full, student, answers)]
            return count, cross_validated(limit.loss, full, student, answers, self.heldout.groups)
        count = limit.rows or int((limit.bytes or 0) / self.measure.row_bytes(self.usual))
        return min(self.possible(count), len(self.kb)), None

    def within_bytes(self, count: int, most: int | None, recall: float) -> tuple[Prototypes, KnowledgeBase, Setting]:
        """The knowledge base of ``count`` rows, or of fewer where it would have more bytes than ``most``."""
        prototypes = self.compaction.prototypes(count)
        with self.progress("tune the index", "try") as advance:
            k, keys = self.bundle.manifest.blend.k, prototypes.first().keys
            setting = tune_index(keys, self.heldout.queries, k, recall, lambda tried: advance(tried, None))
        kb = self._built(prototypes, setting.config)
        while most is not None and _bytes(kb) > most:
            count = self.possible(int(count * most / _bytes(kb) * _A_LITTLE_LESS))
            prototypes = self.compaction.prototypes(count)
            kb = self._built(prototypes, setting.config)
        return prototypes, kb, setting

    def possible(self, count: int) -> int:
        """``count``, if the rows can be merged to so few.

        Raises:
            UsageError: there are more classes.
        """
        fewest = self.compaction.merges.fewest
        if count >= fewest:
            return count
        raise UsageError(
            "the knowledge base cannot be made so small",
            path=self.bundle.path,
            found=f"room for {count:,} rows",
            expected=f"at least {fewest:,}: one for each label, and another for those of the held-out rows",
        )

    def answers_of(self, prototypes: Prototypes, kb: KnowledgeBase) -> Blends:
        """What the compact knowledge base says of the held-out rows, without the prototypes that know them."""
        first = prototypes.first()
        known = kb if len(first) == len(kb) else self._built(first, kb.config)
        return blend_many(known, self.bundle.manifest.blend, Answers(self.heldout.logits, self.heldout.queries))

    def _built(self, prototypes: Prototypes, config: IndexConfig) -> KnowledgeBase:
        with self.progress("knowledge base", "row") as advance:
            return self.compaction.build(prototypes, config, self.keep_texts, progress=advance)


def _certified(old: Gate, measured: Blends, heldout: HeldOutRows) -> Gate | None:
    """The gate for these answers, as strict as the old one."""
    certificate = Certificate(old.epsilon, old.delta)
    return certify(measured.student, measured.blend, heldout.gold, heldout.groups, certificate)


def _bytes(kb: KnowledgeBase) -> int:
    """Of its files."""
    return sum(kb.nbytes().values()) + _HEADERS

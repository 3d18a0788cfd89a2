"""Condense a bundle's knowledge base: smaller keys, fewer edges, near rows merged into prototypes.

The student and the blend stay the same. If the blend were tuned again for each size on the rows that measure the size,
small sizes would look better than they are. The gate is certified again and the abstention thresholds are fitted again,
because the answers change. The held-out rows are left out, because only the choice of a size needs them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError, UsageError
from ...kb.index.config import IndexConfig
from ...kb.index.exact_search import EfSearchChoice, least_ef_search
from ...kb.index.lists import Lists, chosen_lists
from ...kb.knowledge_base import SOFT_LABELS_FILE, KnowledgeBase, check_distributions
from ...kb.soft_labels import LABEL_LOSS, encode
from ...kb.storage.atomic import atomic_directory, refuse_existing
from ...runtime.bundle.bundle import KB_FOLDER, Bundle
from ...runtime.bundle.heldout_rows import HELDOUT_FILE, HeldOutRows
from ...runtime.bundle.manifest import Manifest, seal
from ...runtime.decision.gating import Gate
from ...runtime.editing.store import KnowledgeStore
from ...runtime.hub.card import edited_card, write_card
from ..onnx.quality import StudentOutputs
from ..tuning.build_kb import Blends, blend_many
from ..tuning.fit_again import fit_again
from .condensation_curve import CurveInputs, Reference, Size, blends_of
from .prototypes import Condensation, Prototypes, build

Progress = Callable[[str, str], AbstractContextManager[Callable[[int, int | None], object]]]

DTYPE, CONNECTIVITY = IndexConfig.dtype, 8
"""Key type and edges per node of a condensed index. On banking77 i8 loses 1 % of the gain; fewer edges lose recall."""

STEP = 2**-0.5
"""Ratio of each size of a frontier to the previous one."""

SMALLEST = 0.01
"""Smallest share of the rows in a frontier."""

_HEADERS = 320  # bytes of the headers of soft_labels.npy and rows.npy
_HEADER = 128  # of text_digests.npy and lists.npy
_MARGIN = 0.995  # because rows differ in the bytes of their texts and edges


@dataclass(frozen=True)
class Limit:
    """The limit of a condensed knowledge base; exactly one attribute is set.

    Attributes:
        rows: the largest number of rows.
        bytes: the largest size of all its files together.
        loss: the largest share of retrieval's gain to lose (`Reference.smallest_within`).

    Raises:
        UsageError: no attribute is set, several are, or the share is not in [0, 1].
    """

    rows: int | None = None
    bytes: int | None = None
    loss: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("rows", "bytes", "loss") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError(
                "a condensed knowledge base needs exactly one limit",
                found=" and ".join(f"--max-{name}" for name in given) or "none",
                expected="--max-rows, --max-bytes or --max-loss",
            )
        if self.loss is not None and not 0 <= self.loss <= 1:
            raise UsageError("--max-loss is out of range", found=self.loss, expected="a share from 0 to 1")


@dataclass(frozen=True)
class Frontier:
    """The quality of a bundle's knowledge base at each size.

    Attributes:
        sizes: the sizes, the largest first; their bytes are estimates with an error of about 1 %.
        reference: the student alone and the full knowledge base.
        bytes: size of the full knowledge base.
    """

    sizes: tuple[Size, ...]
    reference: Reference
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        student = self.reference.student
        return {
            "heldout_rows": len(student.nll),
            "bytes_now": self.bytes,
            "student": {"accuracy": float(student.right.mean()), "nll": float(student.nll.mean())},
            "sizes": [size.as_dict() for size in self.sizes],
        }


@dataclass(frozen=True)
class Condensed:
    """The result of `condense`.

    Attributes:
        manifest: the manifest of the new bundle.
        size: its quality, measured with the index in the new bundle; its bytes are exact.
        rows_before: rows of the full knowledge base.
        bytes_before: bytes of the full knowledge base.
        gate_before: gate of the full knowledge base.
        reference: the student alone and the full knowledge base on the same rows.
    """

    manifest: Manifest
    size: Size
    rows_before: int
    bytes_before: int
    gate_before: Gate | None
    reference: Reference


def frontier(path: Path, progress: Progress, keep_texts: bool = True, follow_links: bool = False) -> Frontier:
    """Measure a bundle's knowledge base at every size.

    Args:
        path: the bundle.
        progress: makes a progress line from (label, unit).
        keep_texts: include the texts in the bytes.
        follow_links: same as `Bundle.open`.

    Raises:
        BundleError: the bundle cannot be used, or has no held-out rows.
        UsageError: the bundle was edited, or its knowledge base is empty.
    """
    work = _Workbench.open(path, keep_texts, progress, follow_links)
    measured = zip(work.counts(), work.measured(), strict=True)
    sizes = tuple(work.reference.size(count, round(count * work.row_bytes), answered) for count, answered in measured)
    return Frontier(sizes, work.reference, _bytes(work.kb))


def condense(
    path: Path, out: Path, limit: Limit, progress: Progress, keep_texts: bool = True, follow_links: bool = False
) -> Condensed:
    """Write a copy of a bundle with a condensed knowledge base.

    Args:
        path: the bundle.
        out: folder of the new bundle; must not exist.
        limit: the limit of the new knowledge base.
        progress: makes a progress line from (label, unit).
        keep_texts: keep the text of each prototype's row, if the bundle stores texts.
        follow_links: same as `Bundle.open`; the copy has no links.

    Raises:
        BundleError: the bundle cannot be used, or has no held-out rows.
        OutputExistsError: ``out`` exists.
        UsageError: the bundle was edited, its knowledge base is empty, or the limit cannot be met.
        StorageError: a file cannot be written.
    """
    refuse_existing(out)
    work = _Workbench.open(path, keep_texts, progress, follow_links)
    kb = work.built(work.everything.prototypes(work.count_within(limit)))
    while limit.bytes is not None and _bytes(kb) > limit.bytes:
        count = work.possible(int(len(kb) * limit.bytes / _bytes(kb) * _MARGIN))
        kb = work.built(work.everything.prototypes(count))
    ef_search, lists, blends, fitted = work.searched(len(kb))
    kb.index.set_ef_search(ef_search.expansion_search)
    if lists is not None:
        listed = kb.with_lists(lists.rebuilt(kb.keys()))
        kb = listed if limit.bytes is None or _bytes(listed) <= limit.bytes else kb
    size = work.reference.size(len(kb), _bytes(kb), CurveInputs.of(blends.blend, work.heldout.gold))
    old, before = work.bundle.manifest, {"rows_before": len(work.kb), "bytes_before": _bytes(work.kb)}
    measured = {**before, **size.as_dict(), "heldout_rows": len(work.heldout)}
    manifest = replace(
        fitted,
        kb=kb.config,
        kb_rows=len(kb),
        quality={**old.quality, "search": asdict(ef_search), "condensation": measured},
        format_version=kb.format_version,
    )
    with atomic_directory(out) as folder:
        for name in old.files:
            if not name.startswith(f"{KB_FOLDER}/") and name != HELDOUT_FILE:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(work.bundle.path / name, folder / name)
        work.bundle.check_links()
        kb.save(folder / KB_FOLDER)
        sealed = seal(folder, manifest)
        write_card(folder, sealed, edited_card(work.bundle, follow_links))
    return Condensed(sealed, size, len(work.kb), _bytes(work.kb), old.gate, work.reference)


@dataclass(frozen=True)
class _Workbench:
    """A bundle that is being condensed.

    ``everything`` is its knowledge base. ``known`` is the part that is not related to the held-out rows: sizes are
    measured on the same share of that part. ``row_bytes`` is the size of a prototype in bytes, to about 1 %.
    """

    bundle: Bundle
    kb: KnowledgeBase
    heldout: HeldOutRows
    everything: Condensation
    known: Condensation
    reference: Reference
    row_bytes: float
    keep_texts: bool
    progress: Progress

    @classmethod
    def open(cls, path: Path, keep_texts: bool, progress: Progress, follow_links: bool) -> _Workbench:
        bundle = Bundle.open(path, follow_links=follow_links)
        KnowledgeStore(bundle).refuse_edits("condense")
        manifest = bundle.manifest
        kb = KnowledgeBase.open(bundle.kb_folder, manifest.kb, len(manifest.labels))
        heldout = HeldOutRows.open(bundle.path, len(manifest.labels), manifest.kb.ndim, len(kb))
        if not (heldout.unrelated and len(heldout)):
            found = f"{heldout.unrelated:,} rows and {len(heldout):,} held-out rows"
            raise UsageError("condensing needs rows in the knowledge base and held-out rows", path=path, found=found)
        keys, labels, some = kb.keys(), _distributions(bundle, kb), heldout.unrelated
        with progress("merge", "row") as advance:
            known = Condensation.of(keys[:some], labels[:some], lambda done: advance(done, some + len(kb)))
            everything = Condensation.of(keys, labels, lambda done: advance(some + done, some + len(kb)))
        full = blends_of(known.keys, kb.soft_labels, manifest.blend, heldout)
        student, best = (CurveInputs.of(system, heldout.gold) for system in (full.student, full.blend))
        reference = Reference(student, best, heldout.groups)
        row_bytes = _row_bytes(kb, labels, keep_texts)
        return cls(bundle, kb, heldout, everything, known, reference, row_bytes, keep_texts, progress)

    def counts(self) -> list[int]:
        """Return the numbers of rows of a frontier, descending from all rows."""
        shares = STEP ** np.arange(1 + np.log(SMALLEST) // np.log(STEP))
        counts = dict.fromkeys(round(len(self.kb) * share) for share in shares)
        return [count for count in counts if count >= self.fewest]

    @property
    def fewest(self) -> int:
        """Smallest number of rows that merging reaches in both `everything` and `known`."""
        return max(self.everything.fewest, -(-self.known.fewest * len(self.kb) // len(self.known)))

    def measured(self) -> list[CurveInputs]:
        """Measure the results at each size of the frontier."""
        counts, answers = self.counts(), []
        with self.progress("measure", "size") as advance:
            for number, count in enumerate(counts, start=1):
                some = self._measurable(count)
                labels = encode(some.soft_labels, LABEL_LOSS)
                blends = blends_of(some.keys, labels, self.bundle.manifest.blend, self.heldout)
                answers.append(CurveInputs.of(blends.blend, self.heldout.gold))
                advance(number, len(counts))
        return answers

    def count_within(self, limit: Limit) -> int:
        """Return the number of rows that a limit allows; for bytes, an estimate."""
        if limit.loss is not None:
            return self.counts()[self.reference.smallest_within(limit.loss, self.measured())]
        if limit.rows is not None:
            return self.possible(limit.rows)
        return self.possible(int((limit.bytes or 0) / self.row_bytes))

    def possible(self, count: int) -> int:
        """Return ``count``, or the number of all rows if it is smaller.

        Raises:
            UsageError: merging does not reach this number of rows.
        """
        if count < self.fewest:
            raise UsageError(
                "the knowledge base cannot be condensed to this limit",
                path=self.bundle.path,
                found=f"room for {count:,} rows",
                expected=f"at least {self.fewest:,}, because rows with different labels are not merged",
            )
        return min(count, len(self.kb))

    def built(self, prototypes: Prototypes) -> KnowledgeBase:
        """Build the knowledge base of prototypes."""
        config = IndexConfig(self.kb.ndim, dtype=DTYPE, connectivity=CONNECTIVITY)
        with self.progress("knowledge base", "row") as advance:
            return build(self.kb, prototypes, config, self.keep_texts, advance)

    def searched(self, count: int) -> tuple[EfSearchChoice, Lists | None, Blends, Manifest]:
        """Measure a knowledge base of ``count`` rows on the held-out rows, from the rows not related to them.

        Returns:
            The choice of ef_search, the lists, the answers to the held-out rows, and a manifest with gate and
            abstention for them.
        """
        some, old, heldout = self._measurable(count), self.bundle.manifest, self.heldout
        blend = old.blend
        kb = self.built(some)
        ef_search = least_ef_search(kb.index, some.keys, heldout.queries, blend.k)
        kb.index.set_ef_search(ef_search.expansion_search)
        blends = blend_many(kb, blend, StudentOutputs(heldout.logits, heldout.queries))
        lists = chosen_lists(kb.index, heldout.queries, blend.k)
        return ef_search, lists, blends, fit_again(old, kb, replace(heldout, unrelated=len(kb)), blends)

    def _measurable(self, count: int) -> Prototypes:
        """Merge the rows that are not related to the held-out rows, to the same share."""
        return self.known.prototypes(max(round(count * len(self.known) / len(self.kb)), self.known.fewest))


def _row_bytes(kb: KnowledgeBase, labels: NDArray[np.float32], keep_texts: bool) -> float:
    """Compute the mean bytes of a condensed row, including its part of the graph."""
    # A node in usearch's file: key number, level (twice), 2 M edges, and M edges per level above, each with a count.
    graph = 16 + 8 * CONNECTIVITY + (4 + 4 * CONNECTIVITY) / (CONNECTIVITY - 1)
    others = encode(labels, LABEL_LOSS).nbytes + kb.nbytes()["rows"] + keep_texts * kb.nbytes()["texts"]
    return kb.ndim + graph + others / len(kb)


def _distributions(bundle: Bundle, kb: KnowledgeBase) -> NDArray[np.float32]:
    """Return the soft labels, float32 [n, c].

    Raises:
        BundleError: the soft labels of a row are not a distribution.
    """
    labels: NDArray[np.float32] = np.asarray(kb.soft_labels)
    try:
        check_distributions(labels)
    except UsageError as error:
        path = bundle.kb_folder / SOFT_LABELS_FILE
        raise BundleError(str(error), path=path, remedy="Export the bundle again.") from error
    return labels


def _bytes(kb: KnowledgeBase) -> int:
    """Compute the bytes of all files of a knowledge base."""
    optional = sum(part is not None for part in (kb.digests, kb.lists))
    return sum(kb.nbytes().values()) + _HEADERS + optional * _HEADER

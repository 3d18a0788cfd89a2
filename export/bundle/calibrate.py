"""Re-fit a bundle's gate, abstention thresholds and prediction sets on labelled rows similar to the texts in use.

An export fits them on held-out train rows. If the texts in use are harder, coverage is lower than promised: on
clinc150's test rows, prediction sets for 90 % contained the label of 85 %. The new rows are answered with the whole
knowledge base and the search in use (`in_use`); rows whose text is in the knowledge base are left out. If they are so
few that no gate can be certified on them, the gate stays.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import DataError, UsageError
from ...kb.knowledge_base import KnowledgeBase
from ...kb.storage.atomic import atomic_directory, refuse_existing
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.heldout_rows import HeldOutRows
from ...runtime.bundle.manifest import Manifest, seal
from ...runtime.data import Split, label_indices
from ...runtime.editing.store import KnowledgeStore
from ...runtime.hub.card import edited_card, write_card
from ...runtime.inference.session.student import StudentSession
from ...runtime.inference.session.threads import default_threads
from ...runtime.inference.text.tokenizer import TextTokenizer
from ..tuning.abstention import LEAST_ROWS, abstention_of
from ..tuning.build_kb import Neighbours, blend_found
from ..tuning.fit_again import in_use
from ..tuning.gating import Certificate, certify
from ..tuning.groups import related_inputs
from .student import ask


def calibrate(path: Path, out: Path, rows: Split, follow_links: bool = False) -> Manifest:
    """Write a copy of a bundle with gate, abstention thresholds and prediction sets fitted on other rows.

    The gate has the bounds of the old one, or the default ones (`Certificate`) if there was none.

    Args:
        path: the bundle.
        out: folder of the new bundle; must not exist.
        rows: labelled rows, without rows that the bundle was trained on or is evaluated on afterwards.
        follow_links: same as `Bundle.open`; the copy has no links.

    Returns:
        The manifest of the new bundle.

    Raises:
        BundleError: the bundle cannot be used.
        DataError: the bundle does not have a label, or too few rows are left.
        UsageError: the bundle was edited, or stores neither texts nor digests.
        OutputExistsError: ``out`` exists.
        StorageError: a file cannot be written.
    """
    refuse_existing(out)
    bundle = Bundle.open(path, follow_links=follow_links)
    KnowledgeStore(bundle).refuse_edits("calibrate")
    manifest = bundle.manifest
    gold = label_indices(rows, manifest.labels)
    kb = KnowledgeBase.open(bundle.kb_folder, manifest.kb, len(manifest.labels))
    new = np.array(unknown_rows(kb, rows.inputs(), path), np.int64)
    inputs = rows.take(new).inputs()
    too_few = _too_few(rows, len(inputs), len(kb))
    if len(inputs) < LEAST_ROWS or not len(kb):
        raise too_few
    tokenizer = TextTokenizer(bundle.tokenizer_path, manifest.max_length)
    answers = ask(StudentSession(bundle.model_path), tokenizer, inputs, "calibrate")
    heldout = HeldOutRows(answers.logits, answers.queries, gold[new], related_inputs(inputs), len(kb))
    neighbours = Neighbours(*kb.search_many(answers.queries, manifest.blend.k, default_threads()))
    gate, bounds = manifest.gate, Certificate.of(manifest.gate)
    if bounds.possible(len(np.unique(heldout.groups))):
        blends = blend_found(*neighbours, kb.soft_labels, manifest.blend, answers.logits)
        gate = certify(blends.student, blends.blend, heldout.gold, heldout.groups, bounds)
    fitted = abstention_of(kb, heldout, manifest.blend, gate, in_use(kb, neighbours))
    if fitted is None:
        raise too_few
    manifest = replace(manifest, gate=gate, abstention=fitted)
    with atomic_directory(out) as folder:
        for name in manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / name, folder / name)
        bundle.check_links()
        sealed = seal(folder, manifest)
        write_card(folder, sealed, edited_card(bundle, follow_links))
        return sealed


def unknown_rows(kb: KnowledgeBase, texts: Sequence[str | tuple[str, str]], path: Path) -> list[int]:
    """Find the texts that are not in a knowledge base.

    Args:
        kb: the knowledge base.
        texts: texts or pairs.
        path: the bundle, for the error.

    Returns:
        Their indices in ``texts``.

    Raises:
        UsageError: the knowledge base stores neither texts nor digests.
    """
    if kb.digests is not None:
        digests = kb.digests
        given = [digests.of_text(text) for text in texts]
        held = set(given).intersection(digests[row] for row in range(len(kb)))  # all rows may be too many for memory
        return [place for place, digest in enumerate(given) if digest not in held]
    if not kb.keeps_texts and len(kb):
        raise UsageError(
            "the bundle cannot be calibrated: rows that it already contains cannot be recognised",
            path=path,
            found="neither texts nor digests of them",
            remedy="Calibrate a bundle exported with --kb-texts plain or hash.",
        )
    known = set(texts).intersection(kb.text(row) for row in range(len(kb)))
    return [place for place, text in enumerate(texts) if text not in known]


def _too_few(rows: Split, found: int, held: int) -> DataError:
    return DataError(
        "too few rows to calibrate on",
        path=rows.source,
        found=f"{found} that are not in the knowledge base of {held:,} rows",
        expected=f"{LEAST_ROWS} or more that are not related to each other",
        remedy="Use all rows of a file with --split all.",
    )

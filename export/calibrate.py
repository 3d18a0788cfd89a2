"""A bundle that knows when to abstain by other rows than its held-out ones: rows that look like those to come.

The held-out rows are a tenth of the train rows. Where texts in use are harder than these, every promise made on them is
too good: of clinc150's test rows, sets for 90 % held the label of 85 %. Labelled rows of the right kind put that right.
They are asked of the whole knowledge base, as it is deployed; rows whose text is in it are left out.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..kb.files import atomic_directory, refuse_existing
from ..kb.knowledge_base import KnowledgeBase
from ..runtime.bundle import Bundle
from ..runtime.data import Split, label_indices
from ..runtime.heldout import HeldOutRows
from ..runtime.manifest import Manifest, seal
from ..runtime.student import StudentSession
from ..runtime.tokenizer import TextTokenizer
from .abstention import LEAST_ROWS, abstention_of
from .bundle import ask
from .groups import related_inputs


def calibrate(path: Path, out: Path, rows: Split) -> Manifest:
    """Write the bundle ``out``: the one at ``path`` with abstention and prediction sets fitted on ``rows``.

    Args:
        path: the bundle.
        out: the bundle to make; must not exist.
        rows: labelled rows; none that the bundle was trained on or that it is scored on afterwards.

    Returns:
        The new manifest, as sealed.

    Raises:
        BundleError: the bundle cannot be used.
        DataError: a label is none of the bundle's, or too few rows are left.
        OutputExistsError: ``out`` exists.
        StorageError: the disk refused.
    """
    refuse_existing(out)
    bundle = Bundle.open(path)
    bundle.refuse_edits("calibrate")
    manifest = bundle.manifest
    gold = label_indices(rows, manifest.labels)
    kb = KnowledgeBase.open(bundle.kb_folder, manifest.kb, len(manifest.labels))
    known = {kb.text(row) for row in range(len(kb))}
    new = np.array([position for position, item in enumerate(rows.inputs()) if item not in known], np.int64)
    inputs = rows.take(new).inputs()
    tokenizer = TextTokenizer(bundle.tokenizer_path, manifest.max_length)
    answers = ask(StudentSession(bundle.model_path), tokenizer, inputs, "calibrate")
    asked = HeldOutRows(answers.logits, answers.queries, gold[new], related_inputs(inputs), len(kb))
    fitted = abstention_of(kb, asked, manifest.blend, manifest.gate)
    if fitted is None:
        raise DataError(
            "too few rows to calibrate on",
            path=rows.source,
            found=f"{len(new)} that the knowledge base of {len(kb):,} rows does not hold",
            expected=f"{LEAST_ROWS} or more, not related to each other",
        )
    manifest = replace(manifest, abstention=fitted)
    with atomic_directory(out) as folder:
        for name in manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / name, folder / name)
        return seal(folder, manifest)

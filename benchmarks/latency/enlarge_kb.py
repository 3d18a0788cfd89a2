"""Write a copy of a bundle with a larger, synthetic knowledge base, to measure latency; its predictions are useless.

python benchmarks/latency/enlarge_kb.py BUNDLE ROWS OUT
reaugkd bench OUT --data TEXTS

The search width of usearch and the number of lists are chosen with the bundle's held-out rows, so the rows of the
knowledge base that are related to these are left out. (Keys with noise as queries ask for three times as many lists.)
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from reaugkd.benchmarks.sweep.synthetic_kb import DTYPE, SyntheticKb
from reaugkd.kb.edits.merge import add_lists, tune_ef_search
from reaugkd.kb.index.lists import LISTS_FILE
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.kb.storage.atomic import atomic_directory, refuse_existing
from reaugkd.runtime.bundle.bundle import KB_FOLDER, Bundle
from reaugkd.runtime.bundle.heldout_rows import HeldOutRows
from reaugkd.runtime.bundle.manifest import seal
from reaugkd.runtime.inference.session.threads import default_threads


def main(path: Path, rows: int, out: Path) -> None:
    """Write the copy."""
    refuse_existing(out)
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    kb = KnowledgeBase.open(bundle.kb_folder, manifest.kb, len(manifest.labels))
    heldout = HeldOutRows.open(path, len(manifest.labels), kb.ndim, len(kb))
    with atomic_directory(out) as folder:
        shutil.copytree(path / "student", folder / "student")
        SyntheticKb(kb, rows=heldout.unrelated or None).enlarge(rows, folder / KB_FOLDER, default_threads())
        config = replace(manifest.kb, dtype=DTYPE)
        made = KnowledgeBase.open(folder / KB_FOLDER, config, len(manifest.labels))
        tune_ef_search(made, heldout.queries, manifest.blend.k)
        config = made.index.config
        lists = add_lists(made, heldout.queries, manifest.blend.k).lists
        if lists is not None:
            lists.save(folder / KB_FOLDER / LISTS_FILE)
        seal(folder, replace(manifest, kb=config, kb_rows=rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))

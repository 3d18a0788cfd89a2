"""A knowledge base's soft labels, row table and texts: they are read, to the last row, or an error says why not.

An input is the three files, the lengths of the first two before them.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

import numpy as np

from reaugkd.errors import ReaugkdError
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.knowledge_base import ROWS_FILE, SOFT_LABELS_FILE, TEXTS_FILE, KnowledgeBase
from reaugkd.kb.soft_labels import TopLabels

from .common import rewrite, scratch

ROWS = 6
CONFIG = IndexConfig(ndim=4)
CLASSES = {False: 3, True: 20}
FILES = (SOFT_LABELS_FILE, ROWS_FILE, TEXTS_FILE)
_SIZES = struct.Struct("<?HH")


@cache
def _folder(top: bool) -> Path:
    rng = np.random.default_rng(0)
    folder = scratch()
    soft = rng.dirichlet(np.full(CLASSES[top], 0.05 if top else 1), ROWS)
    keys = rng.standard_normal((ROWS, 4)).astype(np.float32)
    texts = ["a", ("b", "c"), "é\U0001f600", "d", "e", "f"]
    kb = KnowledgeBase.build(keys, soft, config=CONFIG, texts=texts, label_loss=0.1 if top else 0)
    assert isinstance(kb.soft_labels, TopLabels) == top
    kb.save(folder)
    return folder


@cache
def seeds() -> list[bytes]:
    """Return dense labels, and labels of the likeliest classes."""
    found = []
    for top in (False, True):
        soft, rows, texts = ((_folder(top) / name).read_bytes() for name in FILES)
        found.append(_SIZES.pack(top, len(soft), len(rows)) + soft + rows + texts)
    return found


def check(data: bytes) -> None:
    """Raise an error if the input breaks a promise."""
    if len(data) < _SIZES.size:
        return
    top, soft, rows = _SIZES.unpack_from(data)
    rest = data[_SIZES.size :]
    folder = _folder(top)
    for name, content in zip(FILES, (rest[:soft], rest[soft : soft + rows], rest[soft + rows :]), strict=True):
        rewrite(folder / name, content)
    try:
        kb = KnowledgeBase.open(folder, CONFIG, CLASSES[top])
    except ReaugkdError:
        return
    assert len(kb) == ROWS
    assert kb.soft_labels.take(np.arange(ROWS)).shape == (ROWS, CLASSES[top])
    for row in range(ROWS):
        assert kb.id(row) >= 0 and -1 <= kb.label(row) < CLASSES[top]
        try:
            text = kb.text(row)
        except ReaugkdError:
            continue
        parts = text if isinstance(text, tuple) else (text,)
        assert text is None or (len(parts) <= 2 and all(isinstance(part, str) for part in parts))

"""Answers of an imagined LLM to the tiny rows: five votes a row, a tenth of them wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reaugkd.runtime.data import Split
from support.tiny_models import LABELS, OWN_WORDS

VOTES = 5


def answer_rows(split: Split, gold: Sequence[int] = (), embeddings: bool = False) -> list[dict[str, Any]]:
    """Return a row with votes for each text of a split.

    Args:
        split: labelled texts.
        gold: the rows that get a gold label.
        embeddings: whether rows have an embedding: the counts of each class's words in the text, and a constant.
    """
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for number, (text, label) in enumerate(zip(split.texts, split.labels or (), strict=True)):
        votes = [label if rng.random() < 0.9 else str(rng.choice(LABELS)) for _ in range(VOTES)]
        row: dict[str, Any] = {"text": text, "labels": votes}
        if number in gold:
            row["gold"] = label
        if embeddings:
            row["embedding"] = [float(sum(word in OWN_WORDS[name] for word in text.split())) for name in LABELS] + [1.0]
        rows.append(row)
    return rows


def write_answers(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path

"""Rows for `reaugkd kb build`."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from support.tiny_bundle import Text, tiny_texts

LABELS = ("a", "b", "c")


def distinct(count: int, pairs: bool = False, seed: int = 5) -> list[Text]:
    found = dict.fromkeys(tiny_texts(3 * count, seed=seed, pairs=pairs))
    return list(found)[:count]


def write_lake(folder: Path, texts: Sequence[Text], labels: Sequence[str]) -> Path:
    """The rows in two files of different kinds."""
    folder.mkdir()
    half = len(texts) // 2
    with (folder / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        pair = isinstance(texts[0], tuple)
        writer.writerow(["text", "text_pair", "label"] if pair else ["text", "label"])
        writer.writerows(
            [*text, label] if isinstance(text, tuple) else [text, label]
            for text, label in zip(texts[:half], labels, strict=False)
        )
    with (folder / "b.jsonl").open("w", encoding="utf-8") as file:
        for text, label in zip(texts[half:], labels[half:], strict=True):
            cells = dict(zip(("text", "text_pair"), text, strict=True)) if isinstance(text, tuple) else {"text": text}
            file.write(json.dumps({**cells, "label": label}) + "\n")
    return folder

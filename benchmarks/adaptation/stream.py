"""The stream of texts, the same for every system, and the label that a system gets after a wrong answer.

    python stream.py DATA TASK SEED OUT    (writes OUT/train.csv, OUT/test.csv, for clinc150 also OUT/dev.csv)

A fifth of the classes is new: none of their rows is in the written files. The stream has texts of the other classes
from the test split, and texts of the new classes from their train rows; so nobody was trained on a text of it.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reaugkd.runtime.evaluation.typos import add_typos

Pairs = list[tuple[str, str]]
Splits = dict[str, Pairs]

NEW_CLASSES = {"banking77": 15, "clinc150": 30}

LENGTH = 2000
NEW_SHARE = 0.4  # of the texts
NEWEST_SHARE = 0.5  # of these: texts of the classes that came last
WAVES = 6  # groups of new classes; one begins every LENGTH / 8 texts
MISTYPED = 0.5  # share of mistyped texts at the end; it rises from 0
WRONG = 0.05  # share of given labels that are wrong
CORRECTED_AFTER = 300  # texts
RUN, FOUR = 5, 4  # a class is learned when four of its last five texts were right
KEPT = 600  # test rows of old and of new classes that are scored after the stream


@dataclass(frozen=True)
class Event:
    """A text of the stream."""

    text: str
    label: str
    given: str
    """The label that a system gets after a wrong answer; 5 % of these labels are wrong."""
    new: bool
    """Whether the label is one of the new classes."""


@dataclass(frozen=True)
class Stream:
    """The stream, and test rows that are not in it."""

    events: list[Event]
    old: Pairs
    new: Pairs


def read_task(data: Path, task: str) -> Splits:
    """Read the splits of a task as distributed: train, test, for clinc150 also dev."""
    if task == "clinc150":
        full = json.loads((data / task / "data_full.json").read_text(encoding="utf-8"))
        names = {"train": "train", "dev": "val", "test": "test"}
        return {split: [(text, label) for text, label in full[name]] for split, name in names.items()}
    splits = {}
    for split in ("train", "test"):
        with (data / task / f"{split}.csv").open(newline="", encoding="utf-8") as file:
            splits[split] = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    return splits


def new_classes(train: Pairs, count: int, seed: int) -> set[str]:
    """Draw the classes that are left out of training."""
    return set(random.Random(seed).sample(sorted({label for _, label in train}), count))


def prepare(splits: Splits, new: set[str], out: Path) -> None:
    """Write the splits without the new classes."""
    out.mkdir(parents=True)
    for split, rows in splits.items():
        with (out / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *[row for row in rows if row[1] not in new]])


def build_stream(splits: Splits, new: set[str], seed: int, length: int = LENGTH) -> Stream:
    """Build the stream.

    Four texts in ten are of new classes that have begun, half of them of those that began last. Everything is drawn
    from the seed. A text that is also a train row of an old class, or occurs twice, is left out.
    """
    rng = random.Random(seed)
    seen = {text.casefold() for text, label in splits["train"] if label not in new}
    old_rows = list(_unseen((row for row in splits["test"] if row[1] not in new), seen))
    new_rows = list(_unseen((row for row in splits["train"] if row[1] in new), seen))
    new_test = list(_unseen((row for row in splits["test"] if row[1] in new), seen))
    rng.shuffle(old_rows)
    rng.shuffle(new_rows)
    texts: dict[str, list[str]] = {}
    for text, label in new_rows:
        texts.setdefault(label, []).append(text)
    order = rng.sample(sorted(texts), len(texts))
    waves = [order[wave::WAVES] for wave in range(WAVES)]
    known = sorted({label for _, label in splits["train"]} - new)
    events = []
    for position in range(length):
        begun = waves[: 1 + min(position * 8 // length, WAVES - 1)]
        label = _new_label(begun, texts, rng) if rng.random() < NEW_SHARE else None
        text, label = old_rows.pop() if label is None else (texts[label].pop(), label)
        if rng.random() < MISTYPED * position / length:
            text = add_typos([text], seed)[0]
        others = [name for name in [*known, *(name for wave in begun for name in wave)] if name != label]
        given = rng.choice(others) if rng.random() < WRONG else label
        events.append(Event(text, label, given, label in new))
    return Stream(events, old_rows[:KEPT], rng.sample(new_test, min(KEPT, len(new_test))))


def rows_until_learned(events: Sequence[Event], right: Sequence[int]) -> list[float]:
    """Return for each new class how many of its rows were told before it was learned; infinity if it never was.

    It is learned when four of five successive texts of the class are answered right.
    """
    answers: dict[str, list[int]] = {}
    learned: dict[str, float] = {}
    for event, hit in zip(events, right, strict=True):
        if event.new:
            seen = answers.setdefault(event.label, [])
            seen.append(hit)
            if event.label not in learned and len(seen) >= RUN and sum(seen[-RUN:]) >= FOUR:
                learned[event.label] = float(len(seen) - sum(seen))
    return [learned.get(label, float("inf")) for label, seen in answers.items() if len(seen) >= RUN]


def _new_label(begun: list[list[str]], texts: dict[str, list[str]], rng: random.Random) -> str | None:
    """Draw one of the new classes that have texts left; None if there is none."""
    groups = [begun[-1] if rng.random() < NEWEST_SHARE else [], [label for wave in begun for label in wave]]
    for labels in groups:
        left = [label for label in labels if texts[label]]
        if left:
            return rng.choice(left)
    return None


def _unseen(rows: Iterable[tuple[str, str]], seen: set[str]) -> Iterator[tuple[str, str]]:
    """Yield rows whose text was not seen before."""
    for text, label in rows:
        if text.casefold() not in seen:
            seen.add(text.casefold())
            yield text, label


def main(data: Path, task: str, seed: int, out: Path) -> None:
    """Write the data without the new classes."""
    splits = read_task(data, task)
    prepare(splits, new_classes(splits["train"], NEW_CLASSES[task], seed), out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))

"""benchmarks/adaptation: the stream that every system answers."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from reaugkd.benchmarks.adaptation.stream import (
    Event,
    Splits,
    Stream,
    build_stream,
    new_classes,
    prepare,
    rows_until_learned,
)

LABELS = [f"class {number}" for number in range(20)]
LENGTH = 800
TRAIN, TEST = 100, 60  # rows of a class


@pytest.fixture(scope="module")
def splits() -> Splits:
    def rows(split: str, count: int) -> list[tuple[str, str]]:
        return [(f"{split} sentence {row} about {label}", label) for label in LABELS for row in range(count)]

    found = {"train": rows("train", TRAIN), "test": rows("test", TEST)}
    found["test"].append(("TRAIN sentence 0 about class 0", "class 0"))  # stored by everyone: never asked
    found["test"].append(found["test"][0])
    return found


@pytest.fixture(scope="module")
def new(splits: Splits) -> set[str]:
    return new_classes(splits["train"], 6, seed=0)


@pytest.fixture(scope="module")
def stream(splits: Splits, new: set[str]) -> Stream:
    return build_stream(splits, new, seed=0, length=LENGTH)


def original(event: Event) -> bool:
    return event.text.startswith(("train sentence", "test sentence")) and event.text.endswith(event.label)


def test_the_written_files_have_no_new_class(splits: Splits, new: set[str], tmp_path: Path) -> None:
    prepare(splits, new, tmp_path / "data")
    with (tmp_path / "data" / "train.csv").open(newline="") as file:
        kept = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    assert kept == [row for row in splits["train"] if row[1] not in new]
    assert len(kept) == TRAIN * (len(LABELS) - len(new))


def test_no_text_is_stored_or_asked_twice(splits: Splits, new: set[str], stream: Stream) -> None:
    stored = {text.casefold() for text, label in splits["train"] if label not in new}
    asked = [event.text.casefold() for event in stream.events]
    kept = [text.casefold() for text, _ in (*stream.old, *stream.new)]
    assert not stored & {*asked, *kept}
    assert len({*asked, *kept}) == len(asked) + len(kept)
    assert all(event.text.startswith("test") for event in stream.events if original(event) and not event.new)
    assert {label for _, label in stream.new} == new


def test_new_classes_come_one_after_the_other(new: set[str], stream: Stream) -> None:
    first: dict[str, int] = {}
    for position, event in enumerate(stream.events):
        assert event.new == (event.label in new)
        if event.new:
            first.setdefault(event.label, position)
    assert set(first) == new
    begins = sorted(first.values())
    assert all(wave * LENGTH // 8 <= begin for wave, begin in enumerate(begins))
    assert begins[1] >= LENGTH // 8  # six waves of one class each
    share = sum(event.new for event in stream.events) / LENGTH
    assert share == pytest.approx(0.4, abs=0.06)


def test_typing_errors_rise_and_labels_are_wrong(stream: Stream) -> None:
    mistyped = [not original(event) for event in stream.events]
    parts = [sum(mistyped[at : at + LENGTH // 4]) / (LENGTH // 4) for at in range(0, LENGTH, LENGTH // 4)]
    assert parts == sorted(parts) and parts[0] < 0.15 and parts[-1] > 0.3
    wrong = [event for event in stream.events if event.given != event.label]
    assert 0.03 < len(wrong) / LENGTH < 0.075
    for event in stream.events:
        assert event.given in LABELS


def test_the_seed_decides(splits: Splits, new: set[str], stream: Stream) -> None:
    assert build_stream(splits, new, seed=0, length=LENGTH) == stream
    assert build_stream(splits, new, seed=1, length=LENGTH) != stream


def test_rows_until_a_class_is_learned() -> None:
    answers = {"a": [0, 0, 1, 1, 0, 1, 1], "b": [0, 1, 0, 1, 0], "c": [1, 1, 1, 1, 1], "old": [0] * 9, "few": [1, 1]}
    events, right = [], []
    for label, hits in answers.items():
        events += [Event("text", label, label, label != "old")] * len(hits)
        right += hits
    # a: texts 3 to 7 are 1 1 0 1 1, after three wrong answers, each of which told a row
    assert rows_until_learned(events, right) == [3, float("inf"), 0]

"""Replay the stream to one system, and write every answer.

    python replay.py DATA TASK SEED OUT SYSTEM GROUP

The system answers each text. After a wrong answer it gets the given label. A wrong label is replaced 300 texts later,
or at the end of the stream. Then the test rows that are not in the stream are scored. Systems that train before a
change returns get rows in groups of GROUP (1: each row at once).
Vectors of the pretrained encoder are those of prepare.py: they change no answer.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from prepare import load, open_system, vectors_of
from stream import CORRECTED_AFTER, Event, Stream
from systems import OWN_MODEL, SLOW, System


def main(data: Path, task: str, seed: int, out: Path, name: str, group: int) -> None:
    """Replay, and write OUT/replay/SYSTEM.json."""
    path = out / "replay" / f"{name}.json"
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    rows, stream = load(data, task, seed)
    with tempfile.TemporaryDirectory() as scratch:
        known = {} if name in OWN_MODEL else vectors_of(out)
        system = open_system(name, out, Path(scratch), rows, known)
        report = _replayed(system, stream, group if name in SLOW else 1)
        for which, kept in (("old", stream.old), ("new", stream.new)):
            report[which] = sum(system.answer(text) == label for text, label in kept) / len(kept)
    path.write_text(json.dumps(report))


class _Annotator:
    """Tells a system labels, in groups, and corrects the wrong ones."""

    def __init__(self, system: System, group: int) -> None:
        self._system, self._group = system, group
        self._waiting: list[Event] = []
        self._wrong: list[tuple[int, Event]] = []
        self.corrected: list[int] = []
        """Whether each text whose label was wrong is answered right after its correction."""

    def tell(self, position: int, event: Event) -> None:
        """Tell the label, once the group is complete."""
        self._waiting.append(event)
        if event.given != event.label:
            self._wrong.append((position, event))
        if len(self._waiting) >= self._group:
            self._flush()

    def correct(self, before: int) -> None:
        """Correct the wrong labels of the texts before a position."""
        while self._wrong and self._wrong[0][0] < before:
            self._flush()
            event = self._wrong.pop(0)[1]
            self._system.correct(event.text, event.given, event.label)
            self._system.wait()
            self.corrected.append(int(self._system.answer(event.text) == event.label))

    def _flush(self) -> None:
        if self._waiting:
            texts, labels = [event.text for event in self._waiting], [event.given for event in self._waiting]
            self._waiting.clear()
            self._system.tell(texts, labels)
            self._system.wait()


def _replayed(system: System, stream: Stream, group: int) -> dict[str, Any]:
    """Replay the events."""
    began = time.perf_counter()
    annotator = _Annotator(system, group)
    right: list[int] = []
    for position, event in enumerate(stream.events):
        annotator.correct(position - CORRECTED_AFTER + 1)
        right.append(int(system.answer(event.text) == event.label))
        if not right[-1]:
            annotator.tell(position, event)
        if position % 200 == 0:
            sys.stderr.write(f"{position} texts, {sum(right)} right, {time.perf_counter() - began:.0f} s\n")
    annotator.correct(len(stream.events))
    return {"group": group, "right": right, "corrected": annotator.corrected}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5], int(sys.argv[6]))

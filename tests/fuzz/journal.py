"""Fuzz the bytes of a journal: its edits are written in the same way again, or an error of the package is raised."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from reaugkd.errors import BundleIntegrityError
from reaugkd.kb.edits.change import Change, Labelling, NewRow, Payload, Relabelling
from reaugkd.kb.edits.journal import Entry, read_journal

FILE = Path("journal.jsonl")
START = "0" * 64
NDIM = 4


@cache
def seeds() -> list[bytes]:
    """Return one edit of each kind."""
    key = np.array([1, -2, 3, 4], np.float32)
    row = NewRow.of(7, Labelling("a", {"a": 0.25, "b": 0.75}), Payload(key.astype(np.int8), "a text", "00"))
    changes = {
        "add": Change(labels=("a", "b"), add=(row,), new_label_odds=1.5),
        "remove": Change(remove=(1, 2)),
        "relabel": Change(relabel=(Relabelling(3, Labelling("a", None, True), Labelling(None, {"b": 1.0})),)),
        "undo": Change(restore=(1, 2)),
    }
    lines = [
        Entry(1, "2026-11-21T19:06:29Z", "anna", "why", op, change, START).sealed().line()
        for op, change in changes.items()
    ]
    fold = Entry(1, "2026-11-21T19:06:29Z", "anna", "", "compact", Change(), START, snapshot=1, files={"f": START})
    return [*lines, fold.sealed().line()]


def check(data: bytes) -> None:
    """Raise an error if the input breaks a promise."""
    try:
        entries = list(read_journal(data, FILE, "i8", NDIM, 0, START))
    except BundleIntegrityError as error:
        assert error.path == str(FILE)
        return
    assert b"".join(entry.line() for entry in entries) == data

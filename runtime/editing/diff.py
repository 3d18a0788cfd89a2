"""Difference between two edits: rows that were added, removed or relabelled, each listed once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...errors import UsageError
from ...kb.edits.change import Labelling, Text
from ...kb.edits.journal import Entry
from .store import KnowledgeStore


@dataclass(frozen=True)
class Difference:
    """A row that differs.

    Attributes:
        id: the row's id.
        kind: ``"added"``, ``"removed"`` or ``"relabelled"``.
        old: its labelling before; None for an added row, or where the files no longer hold it.
        new: its labelling after; None for a removed row.
        text: its text; None if it is not kept, or was erased.
    """

    id: int
    kind: Literal["added", "removed", "relabelled"]
    old: Labelling | None
    new: Labelling | None
    text: Text | None = None

    def as_record(self) -> dict[str, Any]:
        """The difference as JSON values."""
        labels = {name: None if part is None else dict(part.shares) for name, part in self._labels()}
        return {"id": self.id, "kind": self.kind, **labels, "text": self.text}

    def _labels(self) -> Iterable[tuple[str, Labelling | None]]:
        return ("old", self.old), ("new", self.new)


@dataclass(frozen=True)
class _History:
    """A row before and after some edits: whether it exists, and its labelling."""

    was: bool
    old: Labelling | None
    now: bool
    new: Labelling | None


def differences(store: KnowledgeStore, first: int = 0, last: int | None = None) -> tuple[Difference, ...]:
    """The rows that differ between the states after two edits, in the order of their ids.

    Args:
        store: the store of the bundle.
        first: number of the earlier edit; 0 is the export.
        last: number of the later edit. Default: the last one.

    Raises:
        UsageError: there are no such edits, or the numbers are no whole numbers.
        BundleIntegrityError: the journal is damaged.
    """
    entries = store.log()
    end = len(entries) if last is None else last
    numbers = (first, end)
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    if not whole or not 0 <= first <= end <= len(entries):
        raise UsageError(
            "there are no such edits", found=f"{first} to {end}", expected=f"0 to {len(entries)}, in order"
        )
    rows: dict[int, _History] = {}
    for entry in entries[first:end]:
        _follow(rows, entry)
    found = (_difference(row_id, way) for row_id, way in sorted(rows.items()))
    later: dict[int, Labelling] = {}
    for entry in entries[end:]:
        for row in entry.change.relabel:
            later.setdefault(row.id, row.old)
    return tuple(_with_text(store, difference, later) for difference in found if difference is not None)


def _follow(rows: dict[int, _History], entry: Entry) -> None:
    change = entry.change
    for row in change.add:
        rows[row.id] = _History(False, None, True, row.labelling)
    for relabelling in change.relabel:
        way = rows.get(relabelling.id, _History(True, relabelling.old, True, relabelling.old))
        rows[relabelling.id] = replace(
            way, old=way.old if not way.was else way.old or relabelling.old, new=relabelling.new
        )
    for ids, now in ((change.remove, False), (change.restore, True)):
        for row_id in ids:
            rows[row_id] = replace(rows.get(row_id, _History(not now, None, now, None)), now=now)


def _difference(row_id: int, way: _History) -> Difference | None:
    if way.was and way.now:
        return None if way.old == way.new else Difference(row_id, "relabelled", way.old, way.new)
    if way.was:
        return Difference(row_id, "removed", way.old, None)
    return Difference(row_id, "added", None, way.new) if way.now else None


def _with_text(store: KnowledgeStore, difference: Difference, later: Mapping[int, Labelling]) -> Difference:
    """The difference with the row's text; ``later`` has the labellings that edits after the last one replaced."""
    kb = store.edited()
    row = kb.find(difference.id)
    if row is None:
        row = kb.find(difference.id, alive=False)
    if row is None:
        return difference
    old = difference.old
    if difference.kind == "removed" and old is None:
        old = later.get(difference.id) or kb.labelling(row)
    return replace(difference, old=old, text=kb.text(row))

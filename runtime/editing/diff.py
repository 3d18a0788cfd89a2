"""What lies between two edits: which rows came, went, or have another label, each told once."""

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
    """A row that is not as it was.

    Attributes:
        id: its identity.
        kind: ``"added"``, ``"removed"`` or ``"relabelled"``.
        old: its labelling before; None for an added row, or where it is not known any more.
        new: its labelling after; None for a removed one.
        text: its text; None where it is not kept, or gone.
    """

    id: int
    kind: Literal["added", "removed", "relabelled"]
    old: Labelling | None
    new: Labelling | None
    text: Text | None = None

    def as_record(self) -> dict[str, Any]:
        """As JSON values."""
        labels = {name: None if part is None else dict(part.shares) for name, part in self._labels()}
        return {"id": self.id, "kind": self.kind, **labels, "text": self.text}

    def _labels(self) -> Iterable[tuple[str, Labelling | None]]:
        return ("old", self.old), ("new", self.new)


@dataclass(frozen=True)
class _Passed:
    """A row's way through the edits."""

    was: bool
    old: Labelling | None
    now: bool
    new: Labelling | None


def differences(store: KnowledgeStore, first: int = 0, last: int | None = None) -> tuple[Difference, ...]:
    """The rows that differ between the state after one edit and the state after another, in the order of their ids.

    Args:
        store: of the bundle.
        first: number of the earlier edit; 0 is the export.
        last: number of the later one; None is the last.

    Raises:
        UsageError: there are no such edits.
        BundleIntegrityError: the journal is damaged.
    """
    entries = store.log()
    end = len(entries) if last is None else last
    if not 0 <= first <= end <= len(entries):
        raise UsageError(
            "there are no such edits", found=f"{first} to {end}", expected=f"0 to {len(entries)}, in order"
        )
    rows: dict[int, _Passed] = {}
    for entry in entries[first:end]:
        _follow(rows, entry)
    found = (_told(row_id, way) for row_id, way in sorted(rows.items()))
    later: dict[int, Labelling] = {}
    for entry in entries[end:]:
        for row in entry.change.relabel:
            later.setdefault(row.id, row.old)
    return tuple(_with_text(store, difference, later) for difference in found if difference is not None)


def _follow(rows: dict[int, _Passed], entry: Entry) -> None:
    change = entry.change
    for row in change.add:
        rows[row.id] = _Passed(False, None, True, row.labelling)
    for relabelling in change.relabel:
        way = rows.get(relabelling.id, _Passed(True, relabelling.old, True, relabelling.old))
        rows[relabelling.id] = replace(
            way, old=way.old if not way.was else way.old or relabelling.old, new=relabelling.new
        )
    for ids, now in ((change.remove, False), (change.restore, True)):
        for row_id in ids:
            rows[row_id] = replace(rows.get(row_id, _Passed(not now, None, now, None)), now=now)


def _told(row_id: int, way: _Passed) -> Difference | None:
    if way.was and way.now:
        return None if way.old == way.new else Difference(row_id, "relabelled", way.old, way.new)
    if way.was:
        return Difference(row_id, "removed", way.old, None)
    return Difference(row_id, "added", None, way.new) if way.now else None


def _with_text(store: KnowledgeStore, difference: Difference, later: Mapping[int, Labelling]) -> Difference:
    """With what the knowledge base still knows of the row; ``later`` is what rows said before edits that came later."""
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

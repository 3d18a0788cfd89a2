"""Undo: find the edit to take back, check that it can be, and keep compactions from making it impossible too soon."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from ...errors import UsageError
from ...kb.edits.change import Change
from ...kb.edits.journal import Entry
from ...kb.edits.overlay import OverlayKnowledgeBase
from .store import View

_COMPACT_SHARE = 0.2  # automatic compaction when more than this share of the rows was edited,
_COMPACT_ROWS = 256  # and more than so many


def entry_to_undo(entries: Sequence[Entry], seq: int | None) -> Entry:
    """Find the entry that an undo takes back.

    Args:
        entries: every edit since the export.
        seq: the edit's number; None for the last edit in force that changed rows and is no undo.

    Raises:
        UsageError: there is no such edit, it changed no rows, or it is taken back already.
    """
    in_force = {entry.seq: entry.edits_rows for entry in entries}
    by_seq = {entry.seq: entry for entry in entries}
    for entry in entries:
        turned: Entry | None = entry
        while turned is not None and turned.undoes is not None:  # an undo of an undo brings the first edit back
            in_force[turned.undoes] = not in_force[turned.undoes]
            turned = by_seq.get(turned.undoes)
    if seq is None:
        candidates = [entry for entry in entries if in_force[entry.seq] and entry.undoes is None]
        if not candidates:
            raise UsageError("there is no edit to take back")
        return candidates[-1]
    if not isinstance(seq, int) or isinstance(seq, bool):
        raise UsageError("the edit's number is unusable", found=repr(seq), expected="a whole number, or None")
    found = by_seq.get(seq)
    if found is None or not found.edits_rows:
        names = {"compact": "compaction", "fit": "fit"}
        raise UsageError(
            "there is no such edit to take back" if found is None else f"a {names[found.op]} cannot be taken back",
            found=seq,
            expected="the number of an edit; `reaugkd kb log` lists them",
        )
    if not in_force[seq]:
        raise UsageError("the edit is taken back already", found=seq, remedy="Undo the undo to restore the edit.")
    return found


def check_undo(kb: OverlayKnowledgeBase, entry: Entry, inverse: Change, entries: Sequence[Entry]) -> None:
    """Check that no later edit touched the rows of an edit.

    Args:
        kb: the current rows.
        entry: the edit to take back.
        inverse: its inverse.
        entries: every edit since the export.

    Raises:
        UsageError: a later edit changed or removed a row, or a compaction erased one.
    """
    for row_id in inverse.restore:
        if kb.find(row_id, alive=False) is None:
            raise UsageError(
                "the rows cannot be brought back",
                found=f"row {row_id}",
                expected="a removed row that no compaction has erased",
                remedy="`kb compact` erases removed rows: add them again.",
            )
    for row_id in inverse.remove:
        if kb.find(row_id) is None:
            raise UsageError(
                "a later edit removed a row of this one", found=row_id, remedy="Undo the later edit first."
            )
    made = {row.id: row.new for row in entry.change.relabel} | {row.id: row.labelling for row in entry.change.add}
    later = chain.from_iterable(one.change.relabel for one in entries if one.seq > entry.seq)
    # Of a restored row, the next edit noted the labelling that it found.
    found = {row.id: row.old for row in reversed(list(later)) if row.id in entry.change.restore}
    for row_id, labelling in (made | found).items():
        number = kb.find(row_id)
        if number is None or not kb.labelling(number).like(labelling):
            raise UsageError(
                "a later edit changed a row of this one", found=f"row {row_id}", remedy="Undo the later edit first."
            )


def compaction_due(view: View) -> bool:
    """Whether so many rows were edited since the last compaction that an automatic one pays.

    None pays where all edits were undone: the files are right as they are, and a compaction would end the gate.

    It waits while it would erase a row that one of the last ten edits removed, because `undo` may restore the row. A
    program that removes rows for ever must not prevent it for ever: it waits no longer once the edits before these ten
    have more rows than the knowledge base.

    Args:
        view: the state after the last edit.
    """
    kb = view.kb
    if not isinstance(kb, OverlayKnowledgeBase) or kb.config.probes:  # an index in shards is not compacted
        return False
    if not view.edited:
        return False
    edited, least = kb.added + kb.removed, max(_COMPACT_ROWS, _COMPACT_SHARE * len(kb))
    removed = chain.from_iterable(change.remove for change in view.recent)
    if edited > least and any(kb.find(row_id, alive=False) is not None for row_id in removed):
        edited -= sum(len(change.add) + len(change.remove) for change in view.recent)
        least = max(_COMPACT_ROWS, len(kb))
    return edited > least

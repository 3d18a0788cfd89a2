"""Report an edit of a knowledge base on stderr and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from ...errors import ReaugkdError

if TYPE_CHECKING:
    from ...runtime.editing.edit import Edit, EditKeywords, Row
    from ...runtime.editing.preview import Preview

_SHOWN = 20  # rows in a list on the terminal
_LABELS = 6  # names in one line


def report_edit(runtime: Any, done: Edit, write: Callable[[object], None]) -> None:
    """Report an edit as one line on stderr, and as JSON."""
    from ...runtime.labels import near_equal_to

    change, found = done.change, done.preview
    counted = ", ".join(f"{count:,} {name}" for name, count in done.counts().items() if count) or "no change"
    number = "not saved" if done.entry is None else f"edit {done.entry.seq}"
    more = f" and {len(change.labels) - _LABELS:,} more" if len(change.labels) > _LABELS else ""
    labels = f"; new labels: {', '.join(change.labels[:_LABELS])}{more}" if change.labels else ""
    click.echo(f"{number}: {counted}{labels}; {len(runtime.knowledge_base):,} rows", err=True)
    for group in near_equal_to(change.labels, runtime.labels):
        click.echo(f"note: labels that are nearly equal: {', '.join(map(repr, group))}", err=True)
    if found is not None:
        _report_preview(found)
    if done.not_compacted is not None:
        click.echo(f"the edit is saved, but the automatic compaction failed: {done.not_compacted}", err=True)
    if done.compacted is not None:
        click.echo(f"edit {done.compacted.seq}: automatic compaction, snapshot {done.compacted.snapshot}", err=True)
    write(done.as_record())


def report_fit(runtime: Any, options: EditKeywords) -> None:
    """Wait for the fit of the classifier of new labels that the edit started, and report it in one line on stderr."""
    if options.get("preview"):  # writes nothing
        return
    try:
        done = runtime.kb.wait(who=options.get("who"), key=options.get("key"), unsigned=options.get("unsigned", False))
    except ReaugkdError as error:
        click.echo(f"the edit is saved, but the classifier of new labels could not be fitted: {error}", err=True)
        return
    if done is not None:
        click.echo(f"edit {done.entry.seq}: classifier of new labels fitted in {done.seconds:.1f} s", err=True)


def report_not_answered(runtime: Any, rows: list[Row]) -> None:
    """Report the first added texts whose predicted label is not their label."""
    from ...runtime.labels import LabelNames

    known = LabelNames(runtime.labels)
    hard = [row for row in rows if row.label is not None and row.soft is None]
    answers = ((row, runtime.predict(row.text).label) for row in hard)
    wrong = ((row, found) for row, found in answers if found != known.read(row.label or ""))
    for row, found in islice(wrong, _SHOWN):
        click.echo(f"still predicted as {found}: {row.text} ({row.label})", err=True)


def _report_preview(found: Preview) -> None:
    click.echo(
        f"{len(found.flips)} of {found.rows} held-out rows get another label: {found.better} become right, "
        f"{found.worse} wrong",
        err=True,
    )
    for flip in found.flips[:_SHOWN]:
        click.echo(f"  row {flip.row}: {flip.before} -> {flip.after} (is {flip.gold})", err=True)

"""`reaugkd kb`: the knowledge base of a bundle, edited in the field."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ReaugkdError, UsageError, one_line
from .console import Commands, json_report, progress
from .options import PATH, with_columns, with_json, with_signature, without_blas_threads

if TYPE_CHECKING:
    from ..kb.edits.journal import Entry
    from ..kb.storage.ed25519 import PrivateKey
    from ..runtime.data import Columns
    from ..runtime.editing.edit import Edit, How, Row
    from ..runtime.editing.preview import Preview

_SHOWN = 20  # rows of a list on a terminal
_LABELS = 6  # names on a line


def _share(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        share = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{value!r} is no share such as 0.5% or 0.005")
    return share


_SIGN_KEY = click.option(
    "--sign-key", type=PATH, metavar="KEY.pem", help="Sign the edit, for --require-signature (`reaugkd sign`)."
)


def _private_key(path: Path | None) -> PrivateKey | None:
    from ..kb.storage.ed25519 import read_private_key

    return None if path is None else read_private_key(path)


def _with_how(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every edit, and hand them over as one ``how``."""

    @functools.wraps(command)
    def wrapped(
        *args: Any,
        why: str,
        who: str | None,
        preview: bool,
        guard: float | None,
        fold: bool,
        sign_key: Path | None,
        unsigned: bool,
        **more: Any,
    ) -> None:
        from ..runtime.editing.edit import How

        key = _private_key(sign_key)
        new = {"new_labels": more.pop("new_labels")} if "new_labels" in more else {}
        command(
            *args,
            how=How(why, who, preview=preview, guard=guard, compact=fold, key=key, unsigned=unsigned, **new),
            **more,
        )

    for option in (
        click.option("--unsigned", is_flag=True, help="Edit a signed bundle without signing the edit."),
        _SIGN_KEY,
        click.option("--no-fold", "fold", flag_value=False, default=True, help="Do not fold edits in by itself."),
        click.option(
            "--guard", callback=_share, metavar="SHARE", help="Refuse if more of the held-out rows get another label."
        ),
        click.option("--preview", is_flag=True, help="Only show which held-out rows would get another label."),
        click.option("--who", metavar="NAME", help="For the journal.  [default: user@host]"),
        click.option("--why", default="", metavar="TEXT", help="The reason, for the journal."),
    ):
        wrapped = option(wrapped)
    return wrapped


@click.group(cls=Commands, short_help="Edit a bundle's knowledge base: add, remove, relabel, undo.")
def kb() -> None:
    """Edit the knowledge base of a bundle, without training and without its teacher.

    Every edit is a line of a journal, takes effect at once in every process that has the bundle open, and can be taken
    back by another edit.
    """


@kb.command(short_help="Add texts with a label, or the labelled rows of a file.")
@click.argument("bundle", type=PATH)
@click.argument("text", nargs=-1)
@click.option("--label", metavar="NAME", help="The label of the TEXTs.")
@click.option(
    "--input", "source", metavar="FILE|-", help="Labelled rows: CSV, TSV, JSON lines or Parquet; stdin: JSON lines."
)
@click.option("--new-labels", is_flag=True, help="Take labels that the bundle does not know as new ones.")
@_with_how
@with_json
@without_blas_threads
@with_columns
def add(
    bundle: Path,
    text: tuple[str, ...],
    label: str | None,
    source: str | None,
    how: How,
    json_path: str | None,
    columns: Columns,
) -> None:
    """Add each TEXT with --label, or the rows of --input; a text that is there already gets the new label.

    A text is answered with the label it was added with from then on. With a label that is new to the bundle, texts like
    the added ones are answered with it, through retrieval alone. Labels may be soft in JSON lines: {"text": "...",
    "label": {"a": 0.7, "b": 0.3}}.
    """
    from ..runtime.runtime import Runtime

    if bool(text) == (source is not None) or (label is None) == bool(text):
        raise UsageError("give either TEXTs with --label, or --input")
    runtime = Runtime.open(bundle)
    rows, numbers = _rows(text, label, source, columns, runtime.manifest.text_pair)
    with json_report(json_path) as write:
        try:
            done = runtime.kb.add(rows, how=how)
        except ReaugkdError as error:
            if source is None or error.row is None:
                raise
            raise error.at(path=source, row=numbers[error.row - 1]) from error
        _told(runtime, done, write)
        wrong = [] if how.preview else _not_answered(runtime, rows)
    for row, found in wrong[:_SHOWN]:
        click.echo(f"still answered {found}: {row.text} ({row.label})", err=True)


@kb.command(short_help="Remove rows by text, id or label.")
@click.argument("bundle", type=PATH)
@click.argument("text", nargs=-1)
@click.option("--id", "ids", type=int, multiple=True, metavar="ID", help="Of a row; may be given more than once.")
@click.option("--of-label", "labels", multiple=True, metavar="NAME", help="All rows with this gold label.")
@_with_how
@with_json
@without_blas_threads
def remove(
    bundle: Path, text: tuple[str, ...], ids: tuple[int, ...], labels: tuple[str, ...], how: How, json_path: str | None
) -> None:
    """Remove the rows with these TEXTs, ids or labels. After `kb compact` they are gone from the files too."""
    from ..runtime.runtime import Runtime

    if not (text or ids or labels):
        raise UsageError("say which rows", expected="TEXTs, --id or --of-label")
    runtime = Runtime.open(bundle)
    with json_report(json_path) as write:
        _told(runtime, runtime.kb.remove(ids, _texts(text, runtime.manifest.text_pair), labels, how), write)


@kb.command(short_help="Give rows another label.")
@click.argument("bundle", type=PATH)
@click.argument("text", nargs=-1)
@click.option("--id", "ids", type=int, multiple=True, metavar="ID", help="Of a row; may be given more than once.")
@click.option("--label", required=True, metavar="NAME", help="Their label from now on.")
@click.option("--new-labels", is_flag=True, help="Take a label that the bundle does not know as a new one.")
@_with_how
@with_json
@without_blas_threads
def relabel(
    bundle: Path, text: tuple[str, ...], ids: tuple[int, ...], label: str, how: How, json_path: str | None
) -> None:
    """Give the rows with these TEXTs or ids another label."""
    from ..runtime.editing.edit import Row
    from ..runtime.runtime import Runtime

    if not (text or ids):
        raise UsageError("say which rows", expected="TEXTs or --id")
    runtime = Runtime.open(bundle)
    rows: dict[Any, str] = dict.fromkeys([*ids, *_texts(text, runtime.manifest.text_pair)], label)
    with json_report(json_path) as write:
        _told(runtime, runtime.kb.relabel(rows, how), write)
        asked = [] if how.preview else [Row(one, label) for one in rows if not isinstance(one, int)]
        wrong = _not_answered(runtime, asked)
    for row, found in wrong[:_SHOWN]:
        click.echo(f"still answered {found}: {row.text} ({row.label})", err=True)


@kb.command(short_help="Take an edit back.")
@click.argument("bundle", type=PATH)
@click.argument("number", type=int, required=False)
@_with_how
@with_json
@without_blas_threads
def undo(bundle: Path, number: int | None, how: How, json_path: str | None) -> None:
    """Take edit NUMBER back, by default the last one."""
    from ..runtime.runtime import Runtime

    runtime = Runtime.open(bundle)
    with json_report(json_path) as write:
        _told(runtime, runtime.kb.undo(number, how), write)


@kb.command(short_help="Show every edit.")
@click.argument("bundle", type=PATH)
@with_json
def log(bundle: Path, json_path: str | None) -> None:
    """Show every edit: number, time, who, what, why."""
    from ..runtime.bundle.bundle import Bundle
    from ..runtime.editing.store import KnowledgeStore

    entries = list(KnowledgeStore(Bundle.open(bundle)).log())
    with json_report(json_path) as write:
        write([_without_keys(entry) for entry in entries])
    if json_path != "-":
        for entry in entries:
            what = f"{entry.op} {entry.undoes}" if entry.undoes is not None else entry.op
            rows = f"{entry.change.rows:,} row{'s' * (entry.change.rows != 1)}"
            made = f"{entry.seq:>5}  {entry.time}  {what:<10} {rows:<12} {entry.after[:12]}"
            click.echo(f"{made}  {one_line(entry.who)}  {one_line(entry.why)}")


@kb.command(short_help="Show the rows that differ between two edits.")
@click.argument("bundle", type=PATH)
@click.argument("first", type=int, default=0)
@click.argument("last", type=int, required=False)
@with_json
def diff(bundle: Path, first: int, last: int | None, json_path: str | None) -> None:
    """Show the rows that differ between edit FIRST (0: the export) and edit LAST (by default the last one)."""
    from ..runtime.bundle.bundle import Bundle
    from ..runtime.editing.diff import differences
    from ..runtime.editing.store import KnowledgeStore

    found = differences(KnowledgeStore(Bundle.open(bundle)), first, last)
    with json_report(json_path) as write:
        write([difference.as_record() for difference in found])
    if json_path != "-":
        signs = {"added": "+", "removed": "-", "relabelled": "~"}
        for row in found:
            labels = " -> ".join(_best(part.shares) for part in (row.old, row.new) if part is not None)
            click.echo(f"{signs[row.kind]} {row.id:>8}  {labels:<40}  {row.text if row.text is not None else ''}")


@kb.command(short_help="Fold all edits into new files, and erase what was removed.")
@click.argument("bundle", type=PATH)
@click.option("--why", default="", metavar="TEXT", help="The reason, for the journal.")
@click.option("--who", metavar="NAME", help="For the journal.  [default: user@host]")
@_SIGN_KEY
def compact(bundle: Path, why: str, who: str | None, sign_key: Path | None) -> None:
    """Fold all edits into new files, and erase what was removed.

    The journal stays, but texts and keys of removed rows are gone from it as well. Edits before this one can be taken
    back only as far as their rows are still there.
    """
    from ..runtime.editing.edit import How
    from ..runtime.runtime import Runtime

    runtime = Runtime.open(bundle)
    with progress("fold", "row") as advance:
        entry = runtime.kb.compact(How(why, who, key=_private_key(sign_key)), advance)
    rows, recall = len(runtime.knowledge_base), runtime.kb.recall
    found = "" if recall is None else f"; a search finds {recall:.2%} of the true neighbours"
    click.echo(f"edit {entry.seq}: generation {entry.generation} has {rows:,} rows{found}", err=True)


@kb.command(short_help="Check every file and the chain of edits.")
@click.argument("bundle", type=PATH)
@click.option(
    "--export",
    type=PATH,
    metavar="BUNDLE",
    help="A copy from before the first edit: make all edits again, and compare.",
)
@with_signature
def verify(bundle: Path, export: Path | None, require_signature: Path | None) -> None:
    """Check every file, and the chain of edits from the export to now."""
    from ..kb.storage.ed25519 import read_public_key
    from ..runtime.bundle.bundle import Bundle
    from ..runtime.editing.store import KnowledgeStore
    from ..runtime.editing.verify import verify as run_verify

    signer = None if require_signature is None else read_public_key(require_signature)
    found = run_verify(KnowledgeStore(Bundle.open(bundle, require_signature=signer), signer=signer), export)
    click.echo(
        f"{found.edits:,} edits follow one from the other; generation {found.generation}, {found.rows:,} rows, "
        f"{found.removed:,} removed and not folded away"
    )
    if found.replayed == 0:
        click.echo("no fold yet: there is no file to compare")
    elif found.replayed is not None:
        click.echo(f"{found.replayed:,} edits, made once more on the export, lead to the same files byte for byte")


def _rows(
    text: tuple[str, ...], label: str | None, source: str | None, columns: Columns, pair: bool
) -> tuple[list[Row], list[int]]:
    """Rows to add, and their numbers in the source."""
    from ..runtime.data import read_labelled_rows
    from ..runtime.editing.edit import Row

    if source is None:
        return [Row(one, label) for one in _texts(text, pair)], []
    rows = read_labelled_rows(sys.stdin.buffer if source == "-" else Path(source), None, columns, pair)
    return [Row(row.text, row.label, row.soft) for row in rows], [row.row for row in rows]


def _texts(text: tuple[str, ...], pair: bool) -> list[Any]:
    from ..runtime.output.prediction_stream import records_of_arguments

    return [record.text for record in records_of_arguments(text, pair)]


def _not_answered(runtime: Any, rows: list[Row]) -> list[tuple[Row, str]]:
    """Added texts that get another answer than their label."""
    hard = [row for row in rows if row.label is not None and row.soft is None]
    answers = ((row, runtime.predict(row.text).label) for row in hard)
    return [(row, label) for row, label in answers if label != row.label]


def _told(runtime: Any, done: Edit, write: Callable[[object], None]) -> None:
    """An edit as one line on stderr, and as JSON."""
    change, found = done.change, done.preview
    counts = {
        "added": len(change.add),
        "removed": len(change.remove),
        "restored": len(change.restore),
        "relabelled": len(change.relabel),
        "unchanged": done.unchanged,
    }
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing to change"
    number = "not made" if done.entry is None else f"edit {done.entry.seq}"
    more = f" and {len(change.labels) - _LABELS:,} more" if len(change.labels) > _LABELS else ""
    labels = f"; new labels: {', '.join(change.labels[:_LABELS])}{more}" if change.labels else ""
    click.echo(f"{number}: {said}{labels}; {len(runtime.knowledge_base):,} rows", err=True)
    if found is not None:
        _told_preview(found)
    if done.not_compacted is not None:
        click.echo(f"the edit is made, but could not be folded in: {done.not_compacted}", err=True)
    if done.compacted is not None:
        click.echo(f"edit {done.compacted.seq}: folded in by itself, generation {done.compacted.generation}", err=True)
    flips = None if found is None else [vars(flip) for flip in found.flips]
    write({"seq": done.entry and done.entry.seq, **counts, "ids": list(done.ids), "flips": flips})


def _told_preview(found: Preview) -> None:
    click.echo(
        f"{len(found.flips)} of {found.rows} held-out rows get another label: {found.better} become right, "
        f"{found.worse} wrong",
        err=True,
    )
    for flip in found.flips[:_SHOWN]:
        click.echo(f"  row {flip.row}: {flip.before} -> {flip.after} (is {flip.gold})", err=True)


def _without_keys(entry: Entry) -> dict[str, Any]:
    record = entry.as_json()
    for row in record["add"]:
        if row["payload"] is not None:
            row["payload"] = {"text": row["payload"]["text"]}
    found: dict[str, Any] = json.loads(json.dumps(record))
    return found


def _best(shares: Any) -> str:
    name, share = max(shares.items(), key=lambda item: item[1])
    return str(name) if share == 1 else f"{name} {share:.0%}"

"""`reaugkd kb`: edits of a bundle's knowledge base."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import ReaugkdError, UsageError, one_line
from ..console import Commands, json_report, progress, tell
from ..options import (
    BUNDLE,
    OWN_BUNDLE,
    PATH,
    not_empty,
    share_of,
    with_columns,
    with_json,
    with_signature,
    without_blas_threads,
)
from .build import build
from .edit_report import report_edit, report_fit, report_not_answered
from .review import review

if TYPE_CHECKING:
    from ...runtime.data import Columns
    from ...runtime.editing.edit import EditKeywords, Row


_WHY = click.option("--why", default="", metavar="TEXT", help="Reason for the edit, kept in the log.")
_WHO = click.option("--who", metavar="NAME", help="Author of the edit, kept in the log.  [default: user@host]")
_SIGN_KEY = click.option(
    "--sign-key",
    type=PATH,
    metavar="KEY.pem",
    help="Private key that signs the edit; needed where bundles are opened with --require-signature.",
)
_UNSIGNED = click.option("--unsigned", is_flag=True, help="Edit a signed bundle without a signature.")
_IDS = click.option("--id", "ids", type=int, multiple=True, metavar="ID", help="Id of a row; can be given repeatedly.")


def _with_edit_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every edit, and pass them on as one ``options``, the keywords of `runtime.kb`."""

    @functools.wraps(command)
    def wrapped(
        *args: Any,
        why: str,
        who: str | None,
        preview: bool,
        guard: float | None,
        auto_compact: bool,
        sign_key: Path | None,
        unsigned: bool,
        **more: Any,
    ) -> None:
        options: EditKeywords = {
            "why": why,
            "who": who,
            "preview": preview,
            "guard": guard,
            "auto_compact": auto_compact,
            "key": sign_key,
            "unsigned": unsigned,
        }
        command(*args, options=options, **more)

    for option in (
        _UNSIGNED,
        _SIGN_KEY,
        click.option(
            "--no-auto-compact",
            "auto_compact",
            flag_value=False,
            default=True,
            help="Do not compact the edit log automatically (after edits of more than 20 % of the rows and 256 rows, "
            "and only if no row is erased that one of the last ten edits removed).",
        ),
        click.option(
            "--guard",
            callback=share_of,
            metavar="SHARE",
            help="Refuse the edit if it changes more than this share of the held-out predictions, such as 0.5%.",
        ),
        click.option("--preview", is_flag=True, help="Show which held-out predictions change, and write nothing."),
        _WHO,
        _WHY,
    ):
        wrapped = option(wrapped)
    return wrapped


@click.group(cls=Commands, short_help="Edit a bundle's knowledge base: add, remove, relabel, undo.")
def kb() -> None:
    """Edit the knowledge base of a bundle, without training and without its teacher.

    Every edit is logged and takes effect at once in every process that has the bundle open. `undo` takes an edit back.
    """


@kb.command(short_help="Add texts with a label, or the labelled rows of a file.")
@click.argument("bundle", type=OWN_BUNDLE)
@click.argument("text", nargs=-1)
@click.option("--label", metavar="NAME", help="Label of the TEXTs.")
@click.option(
    "--input",
    "source",
    callback=not_empty,
    metavar="FILE|-",
    help="File of labelled rows in any format that `train` reads; - for JSON lines or a JSON array on stdin.",
)
@click.option("--new-labels", is_flag=True, help="Add labels that the bundle does not know.")
@_with_edit_options
@with_json
@without_blas_threads
@with_columns
def add(
    bundle: Path,
    text: tuple[str, ...],
    label: str | None,
    source: str | None,
    new_labels: bool,
    options: EditKeywords,
    json_path: str | None,
    columns: Columns,
) -> None:
    """Add each TEXT with --label, or the rows of --input; a text that is stored already gets the new label.

    An added text gets its label in every later prediction. A label that is new to the bundle is answered by a
    classifier of all stored rows, which this command fits after the edit. JSON lines may have soft labels:
    {"text": "...", "label": {"a": 0.7, "b": 0.3}}.
    """
    from ...runtime.runtime import Runtime

    if bool(text) == (source is not None) or (label is None) == bool(text):
        raise UsageError("give either TEXTs with --label, or --input")
    runtime = Runtime.open(bundle)
    rows, numbers = _rows(text, label, source, columns, runtime.manifest.text_pair)
    with json_report(json_path) as write:
        try:
            done = runtime.kb.add(rows, new_labels=new_labels, **options)
        except ReaugkdError as error:
            if source is None or error.row is None:
                raise
            raise error.at(path=source, row=numbers[error.row - 1]) from error
        report_edit(runtime, done, write)
        if not options["preview"]:
            report_fit(runtime, options)
            report_not_answered(runtime, rows)


@kb.command(short_help="Remove rows by text, id or label.")
@click.argument("bundle", type=OWN_BUNDLE)
@click.argument("text", nargs=-1)
@_IDS
@click.option(
    "--of-label", "labels", multiple=True, metavar="NAME", help="Gold label of rows to remove; can be given repeatedly."
)
@_with_edit_options
@with_json
@without_blas_threads
def remove(
    bundle: Path,
    text: tuple[str, ...],
    ids: tuple[int, ...],
    labels: tuple[str, ...],
    options: EditKeywords,
    json_path: str | None,
) -> None:
    """Remove the rows with these TEXTs, ids or labels. `kb compact` erases them from the files too."""
    from ...runtime.runtime import Runtime

    if not (text or ids or labels):
        raise UsageError("no rows are given", expected="TEXTs, --id or --of-label")
    runtime = Runtime.open(bundle)
    with json_report(json_path) as write:
        texts = _texts(text, runtime.manifest.text_pair)
        report_edit(runtime, runtime.kb.remove(ids, texts=texts, labels=labels, **options), write)
        report_fit(runtime, options)


@kb.command(short_help="Change the label of rows.")
@click.argument("bundle", type=OWN_BUNDLE)
@click.argument("text", nargs=-1)
@_IDS
@click.option("--label", required=True, metavar="NAME", help="New label of the rows.")
@click.option("--new-labels", is_flag=True, help="Add the label if the bundle does not know it.")
@_with_edit_options
@with_json
@without_blas_threads
def relabel(
    bundle: Path,
    text: tuple[str, ...],
    ids: tuple[int, ...],
    label: str,
    new_labels: bool,
    options: EditKeywords,
    json_path: str | None,
) -> None:
    """Change the label of the rows with these TEXTs or ids."""
    from ...runtime.editing.edit import Row
    from ...runtime.runtime import Runtime

    if not (text or ids):
        raise UsageError("no rows are given", expected="TEXTs or --id")
    runtime = Runtime.open(bundle)
    rows: dict[Any, str] = dict.fromkeys([*ids, *_texts(text, runtime.manifest.text_pair)], label)
    with json_report(json_path) as write:
        report_edit(runtime, runtime.kb.relabel(rows, new_labels=new_labels, **options), write)
        if not options["preview"]:
            report_fit(runtime, options)
            report_not_answered(runtime, [Row(one, label) for one in rows if not isinstance(one, int)])


@kb.command(short_help="Take an edit back.")
@click.argument("bundle", type=OWN_BUNDLE)
@click.argument("number", type=int, required=False)
@_with_edit_options
@with_json
@without_blas_threads
def undo(bundle: Path, number: int | None, options: EditKeywords, json_path: str | None) -> None:
    """Take edit NUMBER back. Default: the last edit in force that changed rows and is no undo."""
    from ...runtime.runtime import Runtime

    runtime = Runtime.open(bundle)
    with json_report(json_path) as write:
        report_edit(runtime, runtime.kb.undo(number, **options), write)
        report_fit(runtime, options)


@kb.command(short_help="List every edit.")
@click.argument("bundle", type=BUNDLE)
@with_json
def log(bundle: Path, json_path: str | None) -> None:
    """List every edit: number, time, operation, rows, hash, author and reason."""
    from ...runtime.bundle.bundle import Bundle
    from ...runtime.editing.store import KnowledgeStore

    entries = list(KnowledgeStore(Bundle.open(bundle)).log())
    with json_report(json_path) as write:
        write([entry.as_record() for entry in entries])
    if json_path != "-":
        for entry in entries:
            what = f"{entry.op} {entry.undoes}" if entry.undoes is not None else entry.op
            rows = f"{entry.change.rows:,} row{'s' * (entry.change.rows != 1)}"
            made = f"{entry.seq:>5}  {entry.time}  {what:<10} {rows:<12} {entry.after[:12]}"
            click.echo(f"{made}  {one_line(entry.who)}  {one_line(entry.why)}")


@kb.command(short_help="Show the rows that differ between two edits.")
@click.argument("bundle", type=BUNDLE)
@click.argument("first", type=int, default=0)
@click.argument("last", type=int, required=False)
@with_json
def diff(bundle: Path, first: int, last: int | None, json_path: str | None) -> None:
    """Show the rows that differ between edit FIRST (default 0, the export) and edit LAST (default: the last edit)."""
    from ...runtime.bundle.bundle import Bundle
    from ...runtime.editing.diff import differences
    from ...runtime.editing.store import KnowledgeStore

    found = differences(KnowledgeStore(Bundle.open(bundle)), first, last)
    with json_report(json_path) as write:
        write([difference.as_record() for difference in found])
    if json_path != "-":
        signs = {"added": "+", "removed": "-", "relabelled": "~"}
        for row in found:
            labels = " -> ".join(_best(part.shares) for part in (row.old, row.new) if part is not None)
            click.echo(f"{signs[row.kind]} {row.id:>8}  {labels:<40}  {row.text if row.text is not None else ''}")


kb.add_command(build)
kb.add_command(review)


@kb.command(short_help="Compact the edits into new files and erase removed rows.")
@click.argument("bundle", type=OWN_BUNDLE)
@_WHY
@_WHO
@_SIGN_KEY
@_UNSIGNED
def compact(bundle: Path, why: str, who: str | None, sign_key: Path | None, unsigned: bool) -> None:
    """Compact all edits into new files and erase removed rows.

    The log stays, but without the texts and keys of removed rows. `undo` cannot restore erased rows. A bundle whose
    edits are all undone counts as unedited; after a compaction it does not.
    """
    from ...runtime.runtime import Runtime

    runtime = Runtime.open(bundle)
    view = runtime._current().view
    if view.head.seq and not view.edited:
        note = "all edits are undone, so the bundle answers as exported. A compacted bundle counts as edited"
        click.echo(f"note: {note}: it has no gate, and calibrate, condense and fuse refuse it", err=True)
    with progress("compact", "row") as advance:
        entry = runtime.kb.compact(why=why, who=who, key=sign_key, unsigned=unsigned, progress=advance)
    rows, recall = len(runtime.knowledge_base), runtime.kb.recall
    found = "" if recall is None else f"; a search finds {recall:.2%} of the true neighbours"
    click.echo(f"edit {entry.seq}: snapshot {entry.snapshot} has {rows:,} rows{found}", err=True)
    report_fit(runtime, {"who": who, "key": sign_key, "unsigned": unsigned})


@kb.command(short_help="Check every file and the chain of edits.")
@click.argument("bundle", type=BUNDLE)
@click.option(
    "--export",
    type=BUNDLE,
    metavar="BUNDLE",
    help="Copy of the bundle from before the first edit; all edits are repeated on it and the files compared.",
)
@with_signature
def verify(bundle: Path, export: Path | None, require_signature: Path | None) -> None:
    """Check every file and the chain of edits since the export."""
    from ...kb.storage.ed25519 import read_public_key
    from ...runtime.bundle.bundle import Bundle
    from ...runtime.editing.store import KnowledgeStore
    from ...runtime.editing.verify import verify_history

    signer = None if require_signature is None else read_public_key(require_signature)
    found = verify_history(KnowledgeStore(Bundle.open(bundle, require_signature=signer), signer=signer), export)
    click.echo(
        f"{found.edits:,} edits, chain of hashes complete; snapshot {found.snapshot}, {found.rows:,} rows, "
        f"{found.removed:,} removed and not yet erased"
    )
    if found.replayed == 0:
        click.echo("no compaction yet: there are no files to compare")
    elif found.replayed is not None:
        click.echo(f"{found.replayed:,} edits, repeated on the export, give the same files byte for byte")


def _rows(
    text: tuple[str, ...], label: str | None, source: str | None, columns: Columns, pair: bool
) -> tuple[list[Row], list[int]]:
    """Return the rows to add, and their numbers in the source."""
    from ...runtime.data import read_labelled_rows
    from ...runtime.editing.edit import Row

    if source is None:
        return [Row(one, label) for one in _texts(text, pair)], []
    rows = read_labelled_rows(sys.stdin.buffer if source == "-" else Path(source), None, columns, pair, tell)
    return [Row(row.text, row.label, row.soft) for row in rows], [row.row for row in rows]


def _texts(text: tuple[str, ...], pair: bool) -> list[Any]:
    from ...runtime.output.prediction_stream import records_of_arguments

    return [record.text for record in records_of_arguments(text, pair)]


def _best(shares: Any) -> str:
    name, share = max(shares.items(), key=lambda item: item[1])
    return str(name) if share == 1 else f"{name} {share:.0%}"

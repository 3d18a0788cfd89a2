"""The tasks known by name: GLUE's, with the columns of their TSV files, clinc150 and banking77."""

from __future__ import annotations

from ...errors import UsageError
from .dataset import Columns

# Wang et al., GLUE (ICLR 2019): the headers of its TSV files.
_GLUE_COLUMNS = {
    "cola": Columns("sentence", None, "label"),
    "mnli": Columns("sentence1", "sentence2", "gold_label"),
    "mrpc": Columns("#1 String", "#2 String", "Quality"),
    "qnli": Columns("question", "sentence", "label"),
    "qqp": Columns("question1", "question2", "is_duplicate"),
    "rte": Columns("sentence1", "sentence2", "label"),
    "sst2": Columns("sentence", None, "label"),
    "wnli": Columns("sentence1", "sentence2", "label"),
}
_COLA_HEADER = ("source", "label", "mark", "sentence")

CLINC = "clinc150"
CLINC_OOS = "clinc150_oos"
TASKS = (*_GLUE_COLUMNS, "banking77", CLINC, CLINC_OOS)


def known_task(name: str) -> str | None:
    """The task a name means, whatever its case, hyphens and underscores (``SST-2`` is ``sst2``), or None."""
    return {_squeeze(task): task for task in TASKS}.get(_squeeze(name))


def require_task(name: str | None) -> str | None:
    """``known_task`` of a name the user gave.

    Raises:
        UsageError: no such task is known.
    """
    if name is None:
        return None
    task = known_task(name)
    if task is None:
        raise UsageError(
            "unknown task",
            found=repr(name),
            expected=f"one of {', '.join(TASKS)}",
            remedy="Leave --task out for data of your own: its columns are found, or named with --text-column.",
        )
    return task


def task_columns(task: str | None, columns: Columns) -> Columns:
    """The user's columns, completed by those of a GLUE task's TSV files."""
    known = _GLUE_COLUMNS.get(task or "")
    if known is None:
        return columns
    label = columns.label or known.label
    if columns.text is not None or columns.pair is not None:
        return Columns(columns.text, columns.pair, label)
    return Columns(known.text, known.pair, label)


def told_header(first_row: tuple[str, ...]) -> tuple[str, ...] | None:
    """The column names of a TSV file that has no header line, told by its first row; None where that is the header.

    Only CoLA's: source, label 0 or 1, the linguists' mark (``*`` or nothing), sentence.
    """
    if len(first_row) == 4 and first_row[1] in ("0", "1") and first_row[2] in ("", "*"):
        return _COLA_HEADER
    return None


def _squeeze(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")

"""Tasks that are known by name: GLUE's tasks, with the columns of their TSV files, CLINC150 and BANKING77."""

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

CLINC = "clinc150"
CLINC_OOS = "clinc150_oos"
TASKS = (*_GLUE_COLUMNS, "banking77", CLINC, CLINC_OOS)


def known_task(name: str) -> str | None:
    """Return the task of this name, or None. Case, hyphens and underscores are ignored (``SST-2`` is ``sst2``)."""
    return {_normalised(task): task for task in TASKS}.get(_normalised(name))


def require_task(name: str | None) -> str | None:
    """Return the task of a name that the user gave; None for None.

    Raises:
        UsageError: the task is unknown.
    """
    if name is None:
        return None
    task = known_task(name)
    if task is None:
        raise UsageError(
            "unknown task",
            found=repr(name),
            expected=f"one of {', '.join(TASKS)}",
            remedy="Leave --task out for your own data: its columns are detected, or named with --text-column.",
        )
    return task


def task_columns(task: str | None, columns: Columns) -> Columns:
    """Return the user's columns, completed with those of a GLUE task's TSV files."""
    known = _GLUE_COLUMNS.get(task or "")
    if known is None:
        return columns
    label = columns.label or known.label
    if columns.text is not None or columns.pair is not None:
        return Columns(columns.text, columns.pair, label)
    return Columns(known.text, known.pair, label)


def _normalised(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")

"""Read ``--data``: a local file or folder with the runtime, or a Hugging Face data set with `datasets`."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import UsageError
from .console import tell, train_extra

if TYPE_CHECKING:
    from ..runtime.data import Columns, Dataset, Split
    from ..runtime.runtime import Runtime

_PATH_STARTS = ("/", "./", "../", "~", ".\\", "..\\")
_HUB = "https://huggingface.co"
_MAX_TEXTS = 100_000


def load(
    data: str,
    task: str | None,
    columns: Columns,
    label_names: Sequence[str] | None = None,
    models: Sequence[str] = (),
) -> Dataset:
    """Load the data set at a path, or if there is none, the data set of this id on the hub, and show its notes.

    Hugging Face libraries go offline if the hub cannot be reached and ``data`` or one of ``models`` would be loaded
    from it; this must happen before such a library is imported.

    Raises:
        DataError: same as `load_dataset` and `load_hub_dataset`.
        DependencyError: the data set is on the hub, and `datasets` is not installed.
    """
    go_offline_if_unreachable(data, *models)
    dataset = _load(data, task, columns, label_names)
    for note in dataset.notes:
        tell(note)
    return dataset


def _load(data: str, task: str | None, columns: Columns, label_names: Sequence[str] | None) -> Dataset:
    from ..runtime.data import load_dataset

    if is_local(data) and not _is_saved_by_datasets(Path(data)):
        return load_dataset(Path(data), columns, task, label_names, tell)
    with train_extra("reading data sets of the Hugging Face hub"):
        from ..export.training.hub import load_hub_dataset
    return load_hub_dataset(data, columns, task, label_names)


def rows_to_score(
    runtime: Runtime, data: str, task: str | None, columns: Columns, split: str | None
) -> tuple[str, Split, str]:
    """Load the rows of a split to score.

    Args:
        runtime: the open bundle.
        data: the data set.
        task: same as `load`.
        columns: same as `load`.
        split: train, dev, test or all; None for test if it has labels, else dev.

    Returns:
        the split's name, its rows, and a note, shown too, if they are the rows that the training holds out; else "".

    Raises:
        DataError: same as `load`, or there is no such split.
        UsageError: the bundle's training holds no rows out.
    """
    from ..runtime.data import choose_split, is_held_out

    dataset = load(data, task, columns, runtime.labels)
    name, rows = choose_split(dataset, split)
    note = ""
    if is_held_out(dataset, name):
        if "teacher_file" in runtime.manifest.created_from:
            raise UsageError(
                "the data has neither dev nor test rows, and a training with --teacher-outputs holds no dev rows out",
                path=rows.source,
                remedy="Score rows that were not used in the training: --split all.",
            )
        held = f"the {len(rows):,} rows that the training holds out of its {len(dataset.splits['train']):,}"
        tell(f"{rows.source} has no dev split: scoring {held}; use --split all to score every row")
        note = f"The data has no dev split. The evaluated rows are {held}; it uses them for scores only."
    return name, rows, note


def load_texts(data: str, task: str | None, columns: Columns, pair: bool) -> tuple[list[str | tuple[str, str]], str]:
    """Load texts without labels, and the name of their source; from a file, the usable ones of the first 100,000 rows.

    Raises:
        DataError: nothing can be read.
    """
    from ..runtime.data import TextRow, read_text_rows, unlabelled_split
    from ..runtime.data.formats import format_of

    path = Path(data)
    file_format = format_of(path)
    if path.is_file() and file_format is not None and not file_format.splits:
        rows = list(islice(read_text_rows(path, None, columns, pair, tell), _MAX_TEXTS))
        texts = [row.text for row in rows if isinstance(row, TextRow)]
        if bad := len(rows) - len(texts):
            tell(f"{data}: {bad:,} of {len(rows):,} rows left out, which have no usable text")
        return texts, data
    go_offline_if_unreachable(data)
    split = unlabelled_split(_load(data, task, columns, None))
    return split.inputs(), split.source


def load_rows(path: str, columns: Columns, pair: bool) -> Split:
    """Load all texts of a file, without labels.

    Raises:
        DataError: the file cannot be read, or a row has no text.
    """
    from ..runtime.data import BadRow, Split, read_text_rows

    texts: list[str] = []
    pairs: list[str] = []
    rows: list[int] = []
    for row in read_text_rows(Path(path), None, columns, pair, tell):
        if isinstance(row, BadRow):
            raise row.error
        first, second = (row.text, None) if isinstance(row.text, str) else row.text
        texts.append(first)
        rows.append(row.row)
        if second is not None:
            pairs.append(second)
    return Split(texts, pairs if pair else None, None, path, rows)


def is_local(name: str) -> bool:
    """Whether the name of a data set or model is a path: it exists, or it cannot be an id of the hub."""
    from ..runtime.data.formats import format_of

    path = Path(name)
    # An id of the hub has at most one slash.
    return name.startswith(_PATH_STARTS) or name.count("/") > 1 or format_of(path) is not None or path.exists()


def _is_saved_by_datasets(path: Path) -> bool:
    """Whether `datasets` wrote the folder (save_to_disk): it has no split files of its own, whatever else is in it."""
    from ..runtime.data.files import named_splits

    saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
    return saved and not named_splits(path)


def go_offline_if_unreachable(*names: str) -> None:
    """Use only cached files if the hub's host name cannot be resolved, instead of trying for half a minute.

    Call this before a Hugging Face library is imported, because it reads the setting at import.

    Args:
        names: data sets and models; if all are paths, nothing is looked up.
    """
    behind_proxy = any(name.lower() in ("https_proxy", "all_proxy") for name in os.environ)
    if "HF_HUB_OFFLINE" in os.environ or behind_proxy or all(map(is_local, names)):
        return
    host = urlsplit(os.environ.get("HF_ENDPOINT") or _HUB).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"

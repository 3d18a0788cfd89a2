"""What ``--data`` means: a file or folder that the edge reads itself, or a Hugging Face data set through `datasets`."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .console import train_extra

if TYPE_CHECKING:
    from ..runtime.data import Columns, Dataset, Split

# A path by its looks, not the id of a data set or model on the hub, where at most one slash is allowed.
_PATH_STARTS = ("/", "./", "../", "~", ".\\", "..\\")
_FILE_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet"})
_HUB = "https://huggingface.co"
_MOST_TEXTS = 100_000


def load(
    data: str,
    task: str | None,
    columns: Columns,
    label_names: Sequence[str] | None = None,
    models: Sequence[str] = (),
) -> Dataset:
    """The data set at a path, or, where there is none, that of this id on the hub.

    Hugging Face libraries go offline if the hub cannot be reached and ``data`` or one of ``models`` would be loaded
    from it; this must happen before such a library is imported.

    Raises:
        DataError: see ``load_dataset`` and ``load_hub_dataset``.
        DependencyError: it takes `datasets`, which is not installed.
    """
    from ..runtime.data import load_dataset

    go_offline_if_unreachable(data, *models)
    if is_local(data) and not _is_hub_folder(Path(data)):
        return load_dataset(Path(data), columns, task, label_names)
    with train_extra("reading data sets of the Hugging Face hub"):
        from ..export.training.hub import load_hub_dataset
    return load_hub_dataset(data, columns, task, label_names)


def load_texts(data: str, task: str | None, columns: Columns, pair: bool) -> tuple[list[str | tuple[str, str]], str]:
    """Texts to measure on, which need no labels, and where they came from: of a file its first 100,000 usable rows.

    Raises:
        DataError: nothing can be read.
    """
    from ..runtime.data import Record, read_records, unlabelled_split

    path = Path(data)
    if path.is_file() and path.suffix.lower() in _FILE_SUFFIXES - {".json"}:
        records = (record for record in read_records(path, None, columns, pair) if isinstance(record, Record))
        return [record.text for record in islice(records, _MOST_TEXTS)], data
    split = unlabelled_split(load(data, task, columns))
    return split.inputs(), split.source


def load_rows(path: str, columns: Columns, pair: bool) -> Split:
    """All texts of a file, without labels.

    Raises:
        DataError: the file cannot be read, or a row of it holds no text.
    """
    from ..runtime.data import Record, Split, read_records

    texts: list[str] = []
    pairs: list[str] = []
    rows: list[int] = []
    for record in read_records(Path(path), None, columns, pair):
        if not isinstance(record, Record):
            raise record.error
        first, second = (record.text, None) if isinstance(record.text, str) else record.text
        texts.append(first)
        rows.append(record.row)
        if second is not None:
            pairs.append(second)
    return Split(texts, pairs if pair else None, None, path, rows)


def is_local(name: str) -> bool:
    """Whether a data set or model is meant as a path: something is there, or it looks like one."""
    looks = name.startswith(_PATH_STARTS) or name.count("/") > 1 or Path(name).suffix.lower() in _FILE_SUFFIXES
    return looks or Path(name).exists()


def _is_hub_folder(path: Path) -> bool:
    """Whether the folder was written by `datasets` (save_to_disk), or is a copy of a hub data set's repository."""
    if not path.is_dir():
        return False
    saved = any((path / name).is_file() for name in ("dataset_dict.json", "dataset_info.json", "state.json"))
    return saved or any(path.glob("data/*.*")) or any(path.glob("*-of-*.parquet"))


def go_offline_if_unreachable(*names: str) -> None:
    """Where the hub's name cannot be resolved, use what is cached at once, instead of trying for half a minute.

    Must be called before a Hugging Face library is imported, which reads the setting.

    Args:
        names: data sets and models; with nothing but paths the network is not asked.
    """
    behind_proxy = any(name.lower() in ("https_proxy", "all_proxy") for name in os.environ)
    if "HF_HUB_OFFLINE" in os.environ or behind_proxy or all(map(is_local, names)):
        return
    host = urlsplit(os.environ.get("HF_ENDPOINT") or _HUB).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"

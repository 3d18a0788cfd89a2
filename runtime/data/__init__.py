"""Reading data sets and streams of texts, with nothing but the standard library and numpy (pyarrow for Parquet)."""

from __future__ import annotations

from .assemble import dataset_from_rows
from .dataset import Columns, Dataset, Split, label_indices
from .dedupe import drop_duplicates_of, normalise
from .dev_split import carve, choose_split, is_carved, unlabelled_split, with_dev_split
from .labelled_rows import LabelledRow, read_labelled
from .load import load_dataset
from .records import BadRecord, Record, read_records
from .stratified_split import stratified_split

__all__ = [
    "BadRecord",
    "Columns",
    "Dataset",
    "LabelledRow",
    "Record",
    "Split",
    "carve",
    "choose_split",
    "dataset_from_rows",
    "drop_duplicates_of",
    "is_carved",
    "label_indices",
    "load_dataset",
    "normalise",
    "read_labelled",
    "read_records",
    "stratified_split",
    "unlabelled_split",
    "with_dev_split",
]

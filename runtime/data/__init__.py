"""Read data sets, texts to predict and rows to add, with the standard library and numpy alone (pyarrow for Parquet).

``formats/`` has one reader a file format; ``load``, ``text_rows`` and ``labelled_rows`` read files in any of them.
"""

from __future__ import annotations

from .assemble import dataset_from_rows
from .dataset import Columns, Dataset, Split, label_indices
from .formats.rows import BadRow
from .labelled_rows import LabelledRow, read_labelled_rows
from .load import load_dataset
from .splits import (
    choose_split,
    drop_duplicates_of,
    hold_out,
    is_held_out,
    normalise,
    stratified_split,
    unlabelled_split,
    with_dev_split,
)
from .text_rows import TextRow, read_text_rows

__all__ = [
    "BadRow",
    "Columns",
    "Dataset",
    "LabelledRow",
    "Split",
    "TextRow",
    "choose_split",
    "dataset_from_rows",
    "drop_duplicates_of",
    "hold_out",
    "is_held_out",
    "label_indices",
    "load_dataset",
    "normalise",
    "read_labelled_rows",
    "read_text_rows",
    "stratified_split",
    "unlabelled_split",
    "with_dev_split",
]

"""Results of a study's cells, and their Parquet files.

OUT/cells/TASK.RECIPE.SEED.parquet   one cell: predictions; metrics and hashes in the schema's metadata
OUT/results.parquet                  every system's metrics: task, recipe, seed, system, variant, then the metrics
OUT/rows.parquet                     every prediction: task to variant, row, gold, predicted and two probabilities

Each file is written atomically.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from ...errors import DataError
from ...kb.storage.atomic import atomic_write
from ...runtime.evaluation.metrics import METRICS, ScoredRows, check
from ...runtime.evaluation.results import CLEAN
from .plan import Cell

Value = str | int | float | None

_METADATA = b"reaugkd"
_REMEDY = "Delete it and run the study again."
_NAMES = pa.dictionary(pa.int16(), pa.string())
_KEYS = {"task": _NAMES, "recipe": _NAMES, "seed": pa.int64(), "system": _NAMES, "variant": _NAMES}
_ANSWERS = {
    "row": pa.int32(),
    "gold": pa.int16(),
    "predicted": pa.int16(),
    "gold_probability": pa.float32(),
    "confidence": pa.float32(),
}


@dataclass(frozen=True)
class SystemResult:
    """Result of a system of a cell on n rows. All systems of a task have the same rows in the same order.

    Args:
        system: ``"teacher"``, ``"student_fp32"``, ``"student"``, ``"retrieval"``, ``"student+retrieval"``, or another.
        variant: the retrieval variant; empty for the recipe's own retrieval.
        metrics: values by name: ``n``, every metric of ``runtime.evaluation.metrics.METRICS``, and further values.
        gold: [n], class indices.
        predicted: [n], the most probable class of each row.
        gold_probability: [n], the probability of the gold class.
        confidence: [n], the probability of the predicted class.
    """

    system: str
    variant: str
    metrics: Mapping[str, Value]
    gold: NDArray[np.int16]
    predicted: NDArray[np.int16]
    gold_probability: NDArray[np.float32]
    confidence: NDArray[np.float32]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each row's predicted class is the gold class, [n]."""
        return np.asarray(self.predicted == self.gold)

    def scored_rows(self, teacher: SystemResult | None) -> ScoredRows:
        """Return the predictions as the metrics read them; without KL, which needs all probabilities."""
        return ScoredRows(
            self.gold.astype(np.int64),
            self.predicted.astype(np.int64),
            self.gold_probability.astype(np.float64),
            self.confidence.astype(np.float64),
            None if teacher is None or len(teacher.gold) != len(self.gold) else teacher.predicted.astype(np.int64),
        )

    def metric(self, name: str) -> float | None:
        """Return a metric; None if the cell did not measure it."""
        value = self.metrics.get(name)
        return float(value) if isinstance(value, int | float) else None


def metric_on(kind: str, metric: str) -> str:
    """Return the name of a metric on a kind of rows; on clean rows it is the metric's own name."""
    return metric if kind == CLEAN else f"{kind}_{metric}"


def system_result(
    system: str,
    probabilities: ArrayLike,
    gold: ArrayLike,
    teacher: ArrayLike | None = None,
    variant: str = "",
    **more: Value,
) -> SystemResult:
    """Score a system and keep its predictions.

    Args:
        system: its name.
        probabilities: [n, c].
        gold: [n], class indices.
        teacher: [n, c], for agreement and KL; without it both are None.
        variant: the retrieval variant.
        more: further values (k, bytes, seconds).

    Raises:
        ValueError: same as ``runtime.evaluation.metrics.score``.
    """
    p, y = check(probabilities, gold)
    rows = ScoredRows.of(p, y, None if teacher is None else check(teacher, gold)[0])
    return SystemResult(
        system,
        variant,
        {"n": len(y), **{name: metric.value(rows) for name, metric in METRICS.items()}, **more},
        y.astype(np.int16),
        rows.predicted.astype(np.int16),
        rows.gold_probability.astype(np.float32),
        rows.confidence.astype(np.float32),
    )


@dataclass(frozen=True)
class CellResult:
    """Results of all systems of a cell."""

    systems: tuple[SystemResult, ...]

    def find(self, system: str, variant: str = "") -> SystemResult | None:
        """Return the result of a system; None if it was not measured."""
        return next((item for item in self.systems if (item.system, item.variant) == (system, variant)), None)


Found = Mapping[tuple[str, str, int], CellResult]
"""Results of the finished cells by task, recipe and seed."""


@dataclass(frozen=True)
class CellNotes:
    """Hashes and duration of a finished cell, from its file.

    Args:
        settings: hash of the settings.
        inputs: hash of data and models.
        seconds: duration.
        format: version of the computation, the ``fingerprints.CELL_FORMAT`` of its run.
    """

    settings: str
    inputs: str
    seconds: float
    format: int


def cell_file(out: Path, cell: Cell) -> Path:
    """Return the path of a finished cell's file."""
    return out / "cells" / f"{cell.name}.parquet"


def write_cell(path: Path, cell: Cell, result: CellResult, notes: CellNotes) -> None:
    """Write a finished cell atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    metrics = [{"system": one.system, "variant": one.variant, "metrics": dict(one.metrics)} for one in result.systems]
    about = json.dumps({"notes": vars(notes), "systems": metrics}, default=lambda number: number.item())
    _write(path, _rows(cell, result).replace_schema_metadata({_METADATA: about}))


def read_notes(path: Path) -> CellNotes | None:
    """Read the notes of a cell's file; None if the file is missing or damaged."""
    try:
        file = pq.read_metadata(path)
        about = json.loads(file.metadata[_METADATA])
        notes = CellNotes(**about["notes"])
        return notes if file.num_rows == sum(_lengths(about)) else None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def read_cell(path: Path) -> CellResult:
    """Read a finished cell.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[_METADATA])
        columns = {name: table[name].to_numpy() for name in list(_ANSWERS)[1:]}
        lengths = _lengths(about)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError("the cell cannot be read", path=path, found=str(error), remedy=_REMEDY) from error
    if len(table) != sum(lengths):
        found = f"{len(table)} rows, and systems with {sum(lengths)} rows"
        raise DataError("the cell cannot be read", path=path, found=found, remedy=_REMEDY)
    return CellResult(
        tuple(
            SystemResult(**one, **{name: column[end - length : end] for name, column in columns.items()})
            for one, length, end in zip(about["systems"], lengths, np.cumsum(lengths).tolist(), strict=True)
        )
    )


def _lengths(about: Mapping[str, Any]) -> list[int]:
    """Return the number of rows of each system in a file."""
    return [int(one["metrics"]["n"]) for one in about["systems"]]


def write_results(out: Path, found: Iterable[tuple[Cell, CellResult]]) -> None:
    """Write results.parquet and rows.parquet of the finished cells, in their order.

    Raises:
        StorageError: a file cannot be written; the old one is then unchanged.
    """
    cells = list(found)
    records: list[dict[str, Any]] = [
        {**_key(cell), "system": one.system, "variant": one.variant, **one.metrics}
        for cell, result in cells
        for one in result.systems
    ]
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: pa.array([record.get(name) for record in records], _KEYS.get(name)) for name in names}
    _write(out / "results.parquet", pa.table(columns))
    tables = [_rows(cell, result) for cell, result in cells]
    _write(out / "rows.parquet", pa.concat_tables(tables).unify_dictionaries())


def _key(cell: Cell) -> dict[str, Value]:
    return {"task": cell.task.name, "recipe": cell.recipe, "seed": cell.seed}


def _rows(cell: Cell, result: CellResult) -> Any:
    """Return the predictions of a cell as an Arrow table, system after system."""
    lengths = [len(one.gold) for one in result.systems]
    keys = _key(cell)
    columns: dict[str, Any] = {name: _repeated([value], [sum(lengths)], _KEYS[name]) for name, value in keys.items()}
    for name in ("system", "variant"):
        columns[name] = _repeated([getattr(one, name) for one in result.systems], lengths, _KEYS[name])
    columns["row"] = pa.array(np.concatenate([np.arange(n) for n in lengths]), _ANSWERS["row"])
    for name in list(_ANSWERS)[1:]:
        values = np.concatenate([getattr(one, name) for one in result.systems])
        columns[name] = pa.array(values, _ANSWERS[name])
    return pa.table(columns)


def _repeated(values: Sequence[Value], lengths: Sequence[int], kind: Any) -> Any:
    """Repeat each value; ``lengths`` holds how often."""
    if not pa.types.is_dictionary(kind):
        return pa.array(np.repeat(values, lengths), kind)  # type: ignore[arg-type]
    codes = np.repeat(np.arange(len(values), dtype=np.int16), lengths)
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(values))


def _write(path: Path, table: Any) -> None:
    with atomic_write(path, "wb") as file:
        pq.write_table(table, file, compression="zstd")

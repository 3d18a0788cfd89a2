"""What the cells of a study found, row by row, and the Parquet files it is kept in.

OUT/cells/TASK.RECIPE.SEED.parquet   one cell: its rows, and in the schema's metadata its metrics and keys
OUT/results.parquet                  every system's metrics: task, recipe, seed, system, variant, then the metrics
OUT/rows.parquet                     every answer: the same, then row, gold, predicted, gold_probability, confidence

Each is written whole or not at all.
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
from ...runtime.evaluation.metrics import check, score
from ...runtime.evaluation.results import CLEAN
from .plan import Cell

Value = str | int | float | None

_METADATA = b"reaugkd"
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
    """One system of a cell on n rows, which are the same, in the same order, for all systems of the task.

    Args:
        system: ``"teacher"``, ``"student_fp32"``, ``"student"``, ``"retrieval"``, ``"student+retrieval"``, or another.
        variant: the way to retrieve; empty for the recipe's own.
        metrics: by name; at least ``n``, ``accuracy``, ``macro_f1``, ``mcc``, ``nll``, ``ece``, ``teacher_agreement``
            and ``teacher_kl``, in the units of ``runtime.metrics.Scores``.
        gold: [n], class indices.
        predicted: [n], the most probable class of each row.
        gold_probability: [n], what the system gives the gold class.
        confidence: [n], what it gives the predicted one.
    """

    system: str
    variant: str
    metrics: Mapping[str, Value]
    gold: NDArray[np.int16]
    predicted: NDArray[np.int16]
    gold_probability: NDArray[np.float32]
    confidence: NDArray[np.float32]

    @property
    def right(self) -> NDArray[np.bool_]:
        """[n], the rows whose label was found."""
        return np.asarray(self.predicted == self.gold)

    def metric(self, name: str) -> float | None:
        """A figure; None where the cell did not measure it."""
        value = self.metrics.get(name)
        return float(value) if isinstance(value, int | float) else None


def metric_on(kind: str, metric: str) -> str:
    """The name of a metric on the rows of a kind (`runtime.fidelity`): that of clean rows is the metric's own."""
    return metric if kind == CLEAN else f"{kind}_{metric}"


def system_result(
    system: str,
    probabilities: ArrayLike,
    gold: ArrayLike,
    teacher: ArrayLike | None = None,
    variant: str = "",
    **more: Value,
) -> SystemResult:
    """Score a system and keep its answers.

    Args:
        system: its name.
        probabilities: [n, c].
        gold: [n], class indices.
        teacher: [n, c], for agreement and KL; None leaves the two None.
        variant: the way to retrieve.
        more: metrics of the cell's own, or what it wants to tell (k, bytes, seconds).

    Raises:
        ValueError: as ``runtime.metrics.score``.
    """
    p, y = check(probabilities, gold)
    predicted, rows = p.argmax(axis=1), np.arange(len(y))
    return SystemResult(
        system,
        variant,
        {"n": len(y), **score(p, y, teacher).as_dict(), **more},
        y.astype(np.int16),
        predicted.astype(np.int16),
        p[rows, y].astype(np.float32),
        p[rows, predicted].astype(np.float32),
    )


@dataclass(frozen=True)
class CellResult:
    """All systems of one cell."""

    systems: tuple[SystemResult, ...]

    def find(self, system: str, variant: str = "") -> SystemResult | None:
        """One of the systems; None if it was not measured."""
        return next((item for item in self.systems if (item.system, item.variant) == (system, variant)), None)


Found = Mapping[tuple[str, str, int], CellResult]
"""The finished cells by task, recipe and seed."""


@dataclass(frozen=True)
class CellNotes:
    """What a cell's file says beside the results.

    Args:
        settings: the hash of the settings it was made with.
        inputs: the hash of data and models it was made from.
        seconds: it took.
        format: the version of what a cell computes, ``keys.CELL_FORMAT`` at the time.
    """

    settings: str
    inputs: str
    seconds: float
    format: int


def cell_file(out: Path, cell: Cell) -> Path:
    """Where a finished cell is kept."""
    return out / "cells" / f"{cell.name}.parquet"


def write_cell(path: Path, cell: Cell, result: CellResult, notes: CellNotes) -> None:
    """Keep a finished cell, whole or not at all.

    Raises:
        StorageError: the disk refused.
    """
    metrics = [{"system": one.system, "variant": one.variant, "metrics": dict(one.metrics)} for one in result.systems]
    about = json.dumps({"notes": vars(notes), "systems": metrics}, default=lambda number: number.item())
    _write(path, _rows(cell, result).replace_schema_metadata({_METADATA: about}))


def read_notes(path: Path) -> CellNotes | None:
    """The notes of a cell's file; None where there is none that can be read whole."""
    try:
        file = pq.read_metadata(path)
        about = json.loads(file.metadata[_METADATA])
        notes = CellNotes(**about["notes"])
        return notes if file.num_rows == sum(_lengths(about)) else None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def read_cell(path: Path) -> CellResult:
    """A finished cell.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[_METADATA])
        columns = {name: table[name].to_numpy() for name in list(_ANSWERS)[1:]}
        lengths = _lengths(about)
        if len(table) != sum(lengths):
            raise ValueError(f"{len(table)} rows, of systems with {sum(lengths)}")
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        remedy = "Remove it and call the study again."
        raise DataError("the cell cannot be read", path=path, found=str(error), remedy=remedy) from error
    return CellResult(
        tuple(
            SystemResult(**one, **{name: column[end - length : end] for name, column in columns.items()})
            for one, length, end in zip(about["systems"], lengths, np.cumsum(lengths).tolist(), strict=True)
        )
    )


def _lengths(about: Mapping[str, Any]) -> list[int]:
    """How many rows of the file each system has."""
    return [int(one["metrics"]["n"]) for one in about["systems"]]


def write_results(out: Path, found: Iterable[tuple[Cell, CellResult]]) -> None:
    """Write results.parquet and rows.parquet of the finished cells, in their order.

    Raises:
        StorageError: the disk refused; the files are then as they were.
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
    """The answers of a cell as an Arrow table, system after system."""
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
    """Each value as often as its length says."""
    if not pa.types.is_dictionary(kind):
        return pa.array(np.repeat(values, lengths), kind)  # type: ignore[arg-type]
    codes = np.repeat(np.arange(len(values), dtype=np.int16), lengths)
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(values))


def _write(path: Path, table: Any) -> None:
    with atomic_write(path, "wb") as file:
        pq.write_table(table, file, compression="zstd")

"""A study of two tasks with fake cells, importable by workers."""

from __future__ import annotations

import json
import os
import signal
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reaugkd.errors import DataError
from reaugkd.export.study.plan import Cell, Plan
from reaugkd.export.study.results import CellResult, SystemResult, system_result

CLASSES = 3
ROWS = {"one": 40, "two": 25}
STUDY = """
teacher = "teacher"
seeds = [0, 1, 2]
recipes = ["kd", "better"]

[[tasks]]
name = "one"
data = "one.csv"

[[tasks]]
name = "two"
data = "two.csv"
seeds = [5]
metric = "mcc"

[[variants]]
name = "k8"
keys = "student"
"""


def write_study(folder: Path, text: str = STUDY) -> Path:
    """Write the study's file with its recipes, data and teacher."""
    (folder / "recipes").mkdir(parents=True)
    (folder / "teacher").mkdir()
    (folder / "teacher" / "config.json").write_text("{}")
    (folder / "recipes" / "kd.toml").write_text("[[objectives]]\nname = 'soft_labels'\n")
    (folder / "better.toml").write_text("max_length = 32\n")
    for name in ROWS:
        (folder / f"{name}.csv").write_text("text,label\na,b\n")
    study = folder / "study.toml"
    study.write_text(text)
    return study


def probabilities(rows: int, seed: int) -> NDArray[np.float64]:
    """Return distributions, [rows, CLASSES]."""
    return np.random.default_rng(seed).dirichlet(np.ones(CLASSES), size=rows)


def system(
    name: str, gold: NDArray[np.int64], seed: int, teacher: int | None = None, variant: str = ""
) -> SystemResult:
    """A system that answers at random."""
    asked = None if teacher is None else probabilities(len(gold), teacher)
    return system_result(name, probabilities(len(gold), seed), gold, asked, variant)


def gold_of(task: str) -> NDArray[np.int64]:
    """Return gold labels [rows], the same for every cell of the task."""
    return np.random.default_rng(zlib.crc32(task.encode())).integers(0, CLASSES, ROWS[task])


def make_result(task: str, recipe: str, seed: int, variants: tuple[str, ...] = ("k8",)) -> CellResult:
    """Return random results, the same for the same cell."""
    first, gold = zlib.crc32(f"{task}.{recipe}.{seed}".encode()), gold_of(task)
    teacher = zlib.crc32(f"{task}.{seed}".encode())
    return CellResult(
        (
            system("teacher", gold, teacher, teacher),
            system("student", gold, first, teacher),
            *(
                system("student+retrieval", gold, first + 1 + n, teacher, name)
                for n, name in enumerate(("", *variants))
            ),
        )
    )


def calm(cell: Cell, plan: Plan, out: Path, data_dir: Path) -> CellResult:
    """A cell that writes a line to OUT/events at its start and end."""
    assert Path(cell.task.located(data_dir)).is_file() and Path(plan.located(plan.teacher)).is_dir()
    note(out, f"begin {cell.name}")
    result = make_result(cell.task.name, cell.recipe, cell.seed, tuple(variant.name for variant in plan.variants))
    note(out, f"end {cell.name}")
    return result


def note(out: Path, line: str) -> None:
    """Append a whole line, even with concurrent writers."""
    with (out / "events").open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


def events(out: Path) -> list[str]:
    """Return the lines so far."""
    return (out / "events").read_text().splitlines() if (out / "events").exists() else []


def write_orders(study: Path, what: dict[str, str]) -> None:
    """Write the behaviour of the named cells."""
    (study.parent / "orders.json").write_text(json.dumps(what))


def orders(data_dir: Path) -> dict[str, str]:
    """Read orders.json next to the data: name of a cell -> its behaviour."""
    file = data_dir / "orders.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def troubled(cell: Cell, plan: Plan, out: Path, data_dir: Path) -> CellResult:
    """A cell that fails as orders.json says."""
    how = orders(data_dir).get(cell.name)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raises":
        raise ValueError("a bug")
    if how == "refuses":
        raise DataError("unusable rows", path="x.csv", row=3)
    if how == "leaves":
        os._exit(7)
    return calm(cell, plan, out, data_dir)


def stuck(cell: Cell, plan: Plan, out: Path, data_dir: Path) -> CellResult:
    """A cell that opens the pipe that orders.json names, and waits forever."""
    if cell.name in orders(data_dir):
        pipe = Path(orders(data_dir)[cell.name]).open("wb", buffering=0)  # noqa: SIM115  (open until the process ends)
        pipe.write(b"here")
        signal.pause()
    return calm(cell, plan, out, data_dir)

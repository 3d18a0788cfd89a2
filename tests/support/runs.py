"""Short runs, and the content of their folders."""

from __future__ import annotations

import json
from pathlib import Path

from reaugkd.export.recipe import StudentRecipe, TeacherRecipe
from reaugkd.export.training.train import TrainJob
from reaugkd.export.tuning.tune import Tuning
from support import tiny_models as tinymodels

STAGES = ["data", "projection", "query", "student", "teacher", "teacher_outputs", "tuning"]
QUICK = tinymodels.tiny_recipe(
    teacher=TeacherRecipe(fit=tinymodels.fast_fit(1)),
    student=StudentRecipe(layers=(0, 3), fit=tinymodels.fast_fit(1)),
)
QUICK_STEPS = 4  # of each fit: 60 rows in batches of 16

Finished = tuple[Path, Tuning, TrainJob]


class KilledError(Exception):
    """Simulates a signal; the code must not handle it."""


def contents(folder: Path, timed: bool = True) -> dict[str, bytes]:
    """Return every file; ``timed`` False omits the durations of the stages."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if not timed:
        for name in found:
            if name.endswith("stage.json"):
                found[name] = json.loads(found[name])["made_from"].encode()
    return found


def times(folder: Path) -> dict[str, int]:
    """Return the modification time of each file."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def redone(before: dict[str, int], after: dict[str, int]) -> set[str]:
    """Return the stages with a changed file."""
    files = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return {name.split("/")[0] for name in files if "/" in name}

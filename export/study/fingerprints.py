"""What a cell was made of, as two hashes: of its settings, and of the data and models it starts from.

The settings' hash knows no absolute path, so that a study carried to another machine is still the same study; there its
data may be missing, and its tables can be made all the same, also those of cells that an earlier version made.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ...kb.storage.atomic import sha256_file
from ..training.run_folder import made_from
from .plan import Cell, Plan, located
from .results import CellNotes, cell_file, read_notes

CELL_FORMAT = 4
"""To be raised when a cell begins to compute something else from the same settings: in training, export or measuring.

3: i8 keys, soft labels of fewer bits, the search width by its recall, the fewest neighbours that keep the gain, and
caution that looks at them; witnesses; the held-out rows of a limit are rows that no run without one trains on.
4: fidelity to the teacher on rows of the distillation too, and KL on rows with typing errors.
"""

# What a task says that changes no number in a cell.
_ONLY_SHOWN = ("name", "metric", "seeds")


def settings_key(plan: Plan, cell: Cell) -> str:
    """The hash of all that the study, its recipe and its variants say about a cell."""
    task = {name: value for name, value in asdict(cell.task).items() if name not in _ONLY_SHOWN}
    if not cell.task.kb_rest:
        del task["kb_rest"]  # a key that came later counts only where it is set: older cells stay good
    recipe = {**plan.recipes[cell.recipe].as_dict(), "seed": cell.seed}
    variants = [asdict(variant) for variant in plan.variants]
    return made_from(plan.teacher, task, recipe, variants, plan.options)


class Inputs:
    """The hashes of data and models, each file read once.

    Args:
        plan: the study.
        data_dir: where relative data paths count from.
    """

    def __init__(self, plan: Plan, data_dir: Path) -> None:
        self._plan, self._data_dir = plan, data_dir
        self._known: dict[str, str] = {}

    def key(self, cell: Cell) -> str:
        """The hash of what a cell starts from."""
        models = (self._plan.model, cell.settings.student.model)
        other = located(str(self._plan.options.get("out_of_domain", "")), self._data_dir)
        return made_from([self._fingerprint(name) for name in (cell.task.located(self._data_dir), *models, other)])

    def _fingerprint(self, name: str) -> str:
        if name not in self._known:
            self._known[name] = fingerprint(name)
        return self._known[name]


def fingerprint(name: str) -> str:
    """The hash of a file, or of all files of a folder; the name itself where there is neither (a hub id)."""
    path = Path(name)
    if not name or not path.exists():
        return name
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return made_from({file.relative_to(path).as_posix(): sha256_file(file) for file in files})


def finished(plan: Plan, out: Path, inputs: Inputs | None = None) -> dict[str, CellNotes]:
    """The notes of the cells that are done, by the cell's name.

    Args:
        plan: the study.
        out: its folder.
        inputs: also ask whether data and models are those it was made from, and by this version; None asks for the
            settings alone.
    """
    done = {}
    for cell in plan.cells():
        notes = read_notes(cell_file(out, cell))
        if notes is None or notes.settings != settings_key(plan, cell):
            continue
        if inputs is None or (notes.format, notes.inputs) == (CELL_FORMAT, inputs.key(cell)):
            done[cell.name] = notes
    return done

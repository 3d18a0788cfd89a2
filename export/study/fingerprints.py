"""Hashes that decide whether a finished cell is valid: one of its settings, one of its data and models.

The hash of the settings does not include absolute paths. So a study can be copied to another machine, and tables can be
made there without the data, also from cells of an earlier version.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ...kb.storage.atomic import sha256_file
from ..training.run_folder import made_from
from .plan import Cell, Plan, located
from .results import CellNotes, cell_file, read_notes

CELL_FORMAT = 6
"""Version of a cell's computation, increased when training, export or evaluation change for the same settings.

3: i8 keys, soft labels of fewer bits, ef_search chosen by recall, the fewest neighbours that keep the gain, the
one-standard-error rule, pseudo-labelled validation rows.
4: fidelity to the teacher on rows of the distillation too, and KL on rows with typing errors.
5: metrics on rows with typing errors are named ``typos_...``.
6: the blend is tuned with a prior on the weight, on labelled rows alone, with at least 8 neighbours, labels at
temperature 1 and one weight for all texts.
"""

# Keys of a task that do not change a cell's figures.
_ONLY_SHOWN = ("name", "metric", "seeds")


def settings_key(plan: Plan, cell: Cell) -> str:
    """Hash the settings of a cell: study, recipe and variants."""
    task = {name: value for name, value in asdict(cell.task).items() if name not in _ONLY_SHOWN}
    if not cell.task.kb_rest:
        del task["kb_rest"]  # a later key is hashed only if it is set, so that older cells stay valid
    recipe = {**plan.recipes[cell.recipe].as_dict(), "seed": cell.seed}
    variants = [asdict(variant) for variant in plan.variants]
    return made_from(plan.teacher, task, recipe, variants, plan.options)


class Inputs:
    """Hashes of data and models; each file is read once.

    Args:
        plan: the study.
        data_dir: base folder of relative data paths.
    """

    def __init__(self, plan: Plan, data_dir: Path) -> None:
        self._plan, self._data_dir = plan, data_dir
        self._known: dict[str, str] = {}

    def key(self, cell: Cell) -> str:
        """Hash the data and models of a cell."""
        models = (self._plan.model, cell.settings.student.model)
        other = located(str(self._plan.options.get("out_of_domain", "")), self._data_dir)
        return made_from([self._fingerprint(name) for name in (cell.task.located(self._data_dir), *models, other)])

    def _fingerprint(self, name: str) -> str:
        if name not in self._known:
            self._known[name] = fingerprint(name)
        return self._known[name]


def fingerprint(name: str) -> str:
    """Hash a file or all files of a folder; for a hub id return the name itself."""
    path = Path(name)
    if not name or not path.exists():
        return name
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return made_from({file.relative_to(path).as_posix(): sha256_file(file) for file in files})


def finished(plan: Plan, out: Path, inputs: Inputs | None = None) -> dict[str, CellNotes]:
    """Read the notes of the finished cells, by the cell's name.

    Args:
        plan: the study.
        out: its folder.
        inputs: hashes of data and models; if given, a cell must also have the same data, models and ``CELL_FORMAT``.
    """
    done = {}
    for cell in plan.cells():
        notes = read_notes(cell_file(out, cell))
        if notes is None or notes.settings != settings_key(plan, cell):
            continue
        if inputs is None or (notes.format, notes.inputs) == (CELL_FORMAT, inputs.key(cell)):
            done[cell.name] = notes
    return done

"""Plan of a study, read from TOML: recipes, tasks and seeds.

    teacher = "models/all-MiniLM-L6-v2"     # hub id or folder
    seeds = [0, 1, 2]
    recipes = ["kd", "reaugkd"]             # recipes/NAME.toml beside the study, NAME.toml, or a path
    baseline = "kd"                         # recipe that the others are compared with; default: the first one

    [student]                               # for all recipes; default: each recipe's own
    layers = [0, 2, 5]

    [[tasks]]
    name = "CoLA"
    data = "data/CoLA"                      # relative to the study, or to --data
    metric = "mcc"                          # default: accuracy
    seeds = [0, 1, 2, 3, 4]                 # default: the study's

    [[variants]]                            # retrieval variants, evaluated on every trained student
    name = "teacher-keys"                   # all other keys replace those of the recipe's [retrieval]
    query = "distilled"
    keys = "teacher"

    [options]
    typos = true                            # also score rows with typing errors; default
    out_of_domain = "clinc150"              # a data set to classify by nearest embeddings; default: none

A cell of the study has one task, one recipe and one seed. Relative paths start from the study's folder. A name that is
not an existing path is an id on the hub.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import RecipeError
from ..recipe import Recipe
from ..recipe_file import load_recipe, override, retrieval_from_dict, with_start
from .toml_checks import (
    REMEDY,
    TomlTable,
    a_limit,
    a_metric,
    a_name,
    a_split,
    a_switch,
    a_table,
    a_text,
    require,
    some_layers,
    some_seeds,
    some_tables,
    some_texts,
)

KB_REST = "kb_rest"
"""Name of the variant that a task's ``kb_rest`` adds."""


@dataclass(frozen=True)
class Options:
    """Optional measurements of every cell.

    Args:
        typos: also score the rows with typing errors.
        out_of_domain: a data set to classify by nearest embeddings; empty for none.
    """

    typos: bool = True
    out_of_domain: str = ""

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Options:
        """Check and read the ``[options]`` table.

        Raises:
            RecipeError: an unknown key, or a value of the wrong type.
        """
        given = TomlTable("options.", table, "typos out_of_domain")
        return cls(given.take("typos", a_switch, True), given.take("out_of_domain", a_text, ""))


@dataclass(frozen=True)
class Task:
    """A data set of a study.

    Args:
        name: name in files and tables.
        data: path or hub id as written in the study; see ``located``.
        seeds: seeds of its cells.
        metric: name of its main metric.
        task: GLUE task, clinc150, or hub subset, same as ``reaugkd train --task``.
        limit: largest number of train rows, a stratified sample; None for all.
        split: split to score, ``dev`` or ``test``; None for test if it has labels, else dev.
        text_column: column of the texts; None for the usual names, also for the next two.
        text_pair_column: column of the second texts.
        label_column: column of the labels.
        kb_rest: also measure the variant ``kb_rest``, whose knowledge base includes the train rows beyond the limit,
            labelled by the teacher.
    """

    name: str
    data: str
    seeds: tuple[int, ...]
    metric: str = "accuracy"
    task: str | None = None
    limit: int | None = None
    split: str | None = None
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    kb_rest: bool = False

    def located(self, data_dir: Path) -> str:
        """Return the path of the data if it exists, else the name as written, which is a hub id."""
        return located(self.data, data_dir)


@dataclass(frozen=True)
class Variant:
    """A retrieval variant: a name, and keys of a ``[retrieval]`` table that replace the recipe's."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One training run of a study with its measurements.

    Args:
        task: the data set.
        recipe: name of the recipe.
        seed: seed of the run.
        settings: the recipe with this seed and the study's student.
    """

    task: Task
    recipe: str
    seed: int
    settings: Recipe

    @property
    def name(self) -> str:
        """``TASK.RECIPE.SEED``, which is also the name of its files."""
        return f"{self.task.name}.{self.recipe}.{self.seed}"

    @property
    def pair(self) -> tuple[str, int]:
        """Task and seed; cells with the same pair share a teacher."""
        return self.task.name, self.seed


@dataclass(frozen=True)
class Plan:
    """A study.

    Args:
        folder: folder of the study's file, the base of relative paths.
        teacher: hub id or folder as written in the study; see ``model``.
        tasks: the data sets, in the order of the tables.
        recipes: the recipes by name, in the order of the tables, with the study's student.
        baseline: the recipe that the others are compared with.
        variants: retrieval variants.
        options: the ``[options]`` table; ``Options.read`` reads it.
        here: the teacher's hub id or folder on this machine; None for ``teacher``.
    """

    folder: Path
    teacher: str
    tasks: tuple[Task, ...]
    recipes: Mapping[str, Recipe]
    baseline: str
    variants: tuple[Variant, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    here: str | None = None

    @property
    def model(self) -> str:
        """Hub id or path of the teacher to load."""
        return self.here or self.located(self.teacher)

    def located(self, model: str) -> str:
        """Return the path of a model if it exists, else the name as written, which is a hub id."""
        return located(model, self.folder)

    def cells(self) -> list[Cell]:
        """Return all cells in running order: the first seed of each task, then the second of each, and so on."""
        ranked = [
            (rank, Cell(task, name, seed, self._settings(recipe, seed)))
            for task in self.tasks
            for rank, seed in enumerate(task.seeds)
            for name, recipe in self.recipes.items()
        ]
        return [cell for _, cell in sorted(ranked, key=lambda pair: pair[0])]

    def _settings(self, recipe: Recipe, seed: int) -> Recipe:
        student = replace(recipe.student, model=self.located(recipe.student.model))
        return override(recipe, seed=seed, student=student)


def located(name: str, folder: Path) -> str:
    """Return ``name`` as a path in ``folder`` if it exists, else ``name`` unchanged."""
    path = folder / Path(name).expanduser() if name else folder
    return str(path) if name and path.exists() else name


def load_plan(path: Path) -> Plan:
    """Read a study.

    Raises:
        RecipeError: the file or one of its recipes is missing or is not TOML, or a key or value is invalid.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError("the study cannot be read", path=path, found=error.strerror) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError("the study is not valid TOML", path=path, found=str(error)) from error
    try:
        return _plan(tables, path.absolute().parent)
    except RecipeError as error:
        raise error if error.path else error.at(path=path) from None


def _plan(tables: Mapping[str, Any], folder: Path) -> Plan:
    study = TomlTable("", tables, "teacher seeds recipes baseline student tasks variants options")
    seeds = study.take("seeds", some_seeds, (0, 1, 2))
    start = TomlTable("student.", study.take("student", a_table, {}), "layers model")
    layers = start.take("layers", some_layers, None)
    model = start.take("model", a_text, None)
    recipes = {}
    for entry in study.take("recipes", some_texts):
        name, file = _recipe_file(entry, folder)
        require(name not in recipes, "recipes", name, "each recipe's name once")
        recipe = load_recipe(file)
        recipes[name] = replace(recipe, student=with_start(recipe.student, layers, model))
    baseline = study.take("baseline", a_text, next(iter(recipes)))
    require(baseline in recipes, "baseline", baseline, f"one of {', '.join(recipes)}")
    tasks = tuple(_task(table, seeds) for table in study.take("tasks", some_tables))
    variants = tuple(_variant(table) for table in study.take("variants", some_tables, ()))
    for what, named in (("tasks", tasks), ("variants", variants)):
        names = [item.name for item in named]
        require(len(set(names)) == len(names), what, names, "each name once")
    for variant in variants:
        for recipe in recipes.values():
            _check_variant(variant, recipe)
    options = study.take("options", a_table, {})
    Options.read(options)
    return Plan(folder, study.take("teacher", a_text), tasks, recipes, baseline, variants, options)


def _recipe_file(entry: str, folder: Path) -> tuple[str, Path]:
    """Return a recipe's name and file; a bare name is looked up in recipes/ beside the study, then in its folder.

    Raises:
        RecipeError: the file does not exist.
    """
    bare = "/" not in entry and not entry.endswith(".toml")
    places = [folder / "recipes" / f"{entry}.toml", folder / f"{entry}.toml"] if bare else [folder / entry]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        expected = " or ".join(map(str, places))
        raise RecipeError("the recipe does not exist", found=entry, expected=expected, remedy=REMEDY)
    return a_name(found.stem, "recipes"), found


def _check_variant(variant: Variant, recipe: Recipe) -> None:
    """Check that a recipe's student can use a variant.

    Raises:
        RecipeError: it cannot.
    """
    require(variant.name != KB_REST, "variants.name", KB_REST, "another name: the kb_rest option of a task uses it")
    try:
        retrieval_from_dict({**asdict(recipe.retrieval), **variant.settings})
    except RecipeError as error:
        raise RecipeError(f"variant {variant.name!r}: {error}") from None


def _task(table: Mapping[str, Any], seeds: tuple[int, ...]) -> Task:
    texts = ("task", "text_column", "text_pair_column", "label_column")
    given = TomlTable("tasks.", table, "name data seeds metric limit split kb_rest", *texts)
    rest = given.take("kb_rest", a_switch, False)
    require(not rest or "limit" in table, "tasks.kb_rest", rest, "a limit: without one, no rows are left over")
    return Task(
        given.take("name", a_name),
        given.take("data", a_text),
        given.take("seeds", some_seeds, seeds),
        given.take("metric", a_metric, "accuracy"),
        limit=given.take("limit", a_limit, None),
        split=given.take("split", a_split, None),
        kb_rest=rest,
        **{name: given.take(name, a_text, None) for name in texts},
    )


def _variant(table: Mapping[str, Any]) -> Variant:
    settings = {name: value for name, value in table.items() if name != "name"}
    named = {name: value for name, value in table.items() if name == "name"}
    return Variant(TomlTable("variants.", named, "name").take("name", a_name), settings)

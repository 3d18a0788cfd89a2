from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaugkd.errors import RecipeError
from reaugkd.export.objectives import registry
from reaugkd.export.recipe import (
    REAUGKD,
    FitRecipe,
    ObjectiveRecipe,
    ProjectionRecipe,
    Recipe,
    RetrievalRecipe,
    StudentRecipe,
    TeacherRecipe,
)
from reaugkd.export.recipe_file import load_recipe, override, recipe_from_dict, retrieval_from_dict, with_start

rates = st.floats(1e-6, 1.0)
shares = st.floats(0, 0.9)
fits = st.builds(
    FitRecipe,
    epochs=st.integers(0, 9),
    batch_size=st.integers(2, 512),
    learning_rate=rates,
    head_learning_rate=rates,
    warmup=shares,
    weight_decay=shares,
    clip=rates,
    freeze_word_embeddings=st.booleans(),
)
poolings = st.sampled_from(["mean", "cls"])
layers = st.sets(st.integers(0, 11), min_size=1).map(sorted).map(tuple)
students = st.builds(StudentRecipe, layers=layers, pooling=poolings, dropout=shares, fit=fits) | st.builds(
    StudentRecipe, model=st.sampled_from(["", "models/some"]), pooling=poolings, dropout=shares, fit=fits
)
objectives = st.builds(
    ObjectiveRecipe,
    name=st.sampled_from(["soft_labels", "relation"]),
    weight=st.floats(0, 10),
    settings=st.dictionaries(st.sampled_from(["temperature", "include_self"]), rates | st.booleans(), max_size=2),
)
recipes = st.builds(
    Recipe,
    seed=st.integers(0, 2**63 - 1),
    max_length=st.integers(8, 512),
    heldout_share=st.floats(0.01, 0.49),
    heldout_max=st.integers(1, 10**6),
    precision=st.sampled_from(["auto", "fp32", "bf16"]),
    teacher=st.builds(TeacherRecipe, pooling=poolings, dropout=shares, fit=fits),
    projection=st.builds(
        ProjectionRecipe, embedding_dim=st.integers(2, 768), temperature=rates, epochs=st.integers(0, 50)
    ),
    student=students,
    objectives=st.lists(objectives, min_size=1, max_size=3).map(tuple),
    retrieval=st.builds(
        RetrievalRecipe,
        query=st.just("distilled"),
        keys=st.sampled_from(["student", "teacher"]),
        gold_shares=st.lists(shares, min_size=1, max_size=3).map(tuple),
        keep_heldout=st.booleans(),
    )
    | st.builds(RetrievalRecipe, keep_heldout=st.booleans()),
)


@given(recipes)
@settings(max_examples=60, deadline=None)
def test_round_trip(recipe: Recipe) -> None:
    assert recipe_from_dict(asdict(recipe)) == recipe
    assert recipe_from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, "")) == Recipe()
    assert Recipe().objectives == REAUGKD


def test_a_whole_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(
            tmp_path,
            """
            seed = 7
            max_length = 64
            heldout_share = 0.2
            precision = "bf16"
            [teacher]
            pooling = "cls"
            fit.epochs = 2
            [projection]
            embedding_dim = 32
            temperature = 1          # a whole number where a share is meant
            [student]
            layers = [0, 2, 5]
            [student.fit]
            batch_size = 64
            freeze_word_embeddings = false
            [[objectives]]
            name = "soft_labels"
            temperature = 2.0
            [[objectives]]
            name = "relation"
            weight = 3
            include_self = true
            [retrieval]
            query = "distilled"
            keys = "teacher"
            gold_shares = [0, 0.5]           # whole numbers are numbers too
            keep_heldout = false
            """,
        )
    )
    defaults = Recipe()
    assert recipe == Recipe(
        seed=7,
        max_length=64,
        heldout_share=0.2,
        precision="bf16",
        teacher=TeacherRecipe(pooling="cls", fit=replace(defaults.teacher.fit, epochs=2)),
        projection=ProjectionRecipe(embedding_dim=32, temperature=1.0),
        # What the student's fit does not name keeps the student's defaults, not the teacher's.
        student=StudentRecipe(
            layers=(0, 2, 5), fit=replace(defaults.student.fit, batch_size=64, freeze_word_embeddings=False)
        ),
        objectives=(
            ObjectiveRecipe("soft_labels", 1.0, {"temperature": 2.0}),
            ObjectiveRecipe("relation", 3.0, {"include_self": True}),
        ),
        retrieval=RetrievalRecipe("distilled", "teacher", gold_shares=(0.0, 0.5), keep_heldout=False),
    )
    assert [type(value) for value in recipe.retrieval.gold_shares] == [float, float]
    assert defaults.student.fit != defaults.teacher.fit


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ("sed = 1", "sed"),
        ("[techer]\npooling = 'cls'", "techer"),
        ("[student]\nlayer = [0]", "student.layer"),
        ("[student.fit]\nepoch = 3", "student.fit.epoch"),
        ("[teacher.fit]\nlr = 0.1", "teacher.fit.lr"),
        ("[retrieval]\nkey = 'student'", "retrieval.key"),
    ],
)
def test_unknown_keys_are_refused_by_name(tmp_path: Path, toml: str, key: str) -> None:
    path = write(tmp_path, toml)
    with pytest.raises(RecipeError, match=f"unknown key '{key}'") as caught:
        load_recipe(path)
    assert caught.value.path == str(path)
    assert caught.value.expected is not None and caught.value.expected.startswith("one of ")


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ("seed = -1", "seed"),
        ("seed = 'one'", "seed"),
        ("seed = 1.5", "seed"),
        ("seed = true", "seed"),
        ("heldout_share = 'a tenth'", "heldout_share"),
        ("precision = 'fp16'", "precision"),
        ("precision = 32", "precision"),
        ("teacher = 3", "teacher"),
        ("[teacher]\nfit = 'fast'", "teacher.fit"),
        ("[teacher]\npooling = 'max'", "teacher.pooling"),
        ("[student]\nlayers = '0,2'", "student.layers"),
        ("[student]\nlayers = [0, 1.0]", "student.layers"),
        ("[student]\nlayers = [true]", "student.layers"),
        ("[student]\nmodel = 5", "student.model"),
        ("[student.fit]\nfreeze_word_embeddings = 1", "student.fit.freeze_word_embeddings"),
        ("[student.fit]\nlearning_rate = '1e-4'", "student.fit.learning_rate"),
        ("[retrieval]\nkeys = 'mine'", "retrieval.keys"),
        ("[retrieval]\nquery = true", "retrieval.query"),
        ("[retrieval]\ngold_shares = 0.5", "retrieval.gold_shares"),
        ("[retrieval]\ngold_shares = ['0.5']", "retrieval.gold_shares"),
        ("[retrieval]\ngold_shares = [true]", "retrieval.gold_shares"),
        ("[retrieval]\nkeep_heldout = 'no'", "retrieval.keep_heldout"),
        ("objectives = 'relation'", "objectives"),
        ("objectives = ['relation']", "objectives"),
        ("[[objectives]]\nweight = 1", "objectives"),
        ("[[objectives]]\nname = 'relation'\nweight = -1", "objectives.weight"),
        ("[[objectives]]\nname = 'relation'\nweight = true", "objectives.weight"),
        ("[[objectives]]\nname = 'relation'\nweight = nan", "objectives.weight"),
    ],
)
def test_wrong_types_are_refused_by_name(tmp_path: Path, toml: str, key: str) -> None:
    path = write(tmp_path, toml)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.message == f"{key} is out of range"
    assert caught.value.path == str(path)
    assert caught.value.found is not None and caught.value.expected is not None


OUT_OF_RANGE: list[tuple[str, dict[str, Any]]] = [
    ("max_length", {"max_length": 7}),
    ("heldout_share", {"heldout_share": 0.0}),
    ("heldout_share", {"heldout_share": 0.5}),
    ("heldout_share", {"heldout_share": float("nan")}),
    ("heldout_max", {"heldout_max": 0}),
    ("objectives", {"objectives": []}),
    ("dropout", {"teacher": {"dropout": 1.0}}),
    ("dropout", {"student": {"dropout": -0.1}}),
    ("epochs", {"teacher": {"fit": {"epochs": -1}}}),
    ("batch_size", {"student": {"fit": {"batch_size": 1}}}),
    ("learning_rate", {"student": {"fit": {"learning_rate": 0.0}}}),
    ("head_learning_rate", {"student": {"fit": {"head_learning_rate": float("nan")}}}),
    ("warmup", {"student": {"fit": {"warmup": 1.0}}}),
    ("weight_decay", {"student": {"fit": {"weight_decay": -1.0}}}),
    ("clip", {"student": {"fit": {"clip": 0.0}}}),
    ("embedding_dim", {"projection": {"embedding_dim": 1}}),
    ("gold_shares", {"retrieval": {"gold_shares": []}}),
    ("gold_shares", {"retrieval": {"gold_shares": [0.0, 1.5]}}),
    ("gold_shares", {"retrieval": {"gold_shares": [float("nan")]}}),
    ("temperature", {"projection": {"temperature": 0.0}}),
    ("batch_size", {"projection": {"batch_size": 0}}),
    ("epochs", {"projection": {"epochs": -1}}),
    ("learning_rate", {"projection": {"learning_rate": -1.0}}),
    ("layers", {"student": {"layers": [2, 1]}}),
    ("layers", {"student": {"layers": [1, 1]}}),
    ("layers", {"student": {"layers": [-1, 1]}}),
]


@pytest.mark.parametrize(("key", "tables"), OUT_OF_RANGE, ids=[f"{key}-{tables}" for key, tables in OUT_OF_RANGE])
def test_values_out_of_range_are_refused_by_name(key: str, tables: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=f"{key} is out of range") as caught:
        recipe_from_dict(tables)
    assert caught.value.expected is not None


def test_no_toml_and_no_file(tmp_path: Path) -> None:
    for text in ("seed = ", "[a\n", "seed = 1\nseed = 2"):
        with pytest.raises(RecipeError, match="not valid TOML"):
            load_recipe(write(tmp_path, text))
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(RecipeError, match="not valid TOML"):
        load_recipe(tmp_path / "latin.toml")
    with pytest.raises(RecipeError, match=r"nothing\.toml: the recipe cannot be read"):
        load_recipe(tmp_path / "nothing.toml")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path)


def test_a_query_by_layers_finds_the_students_keys_only() -> None:
    with pytest.raises(RecipeError, match="another space") as caught:
        RetrievalRecipe("layers", "teacher")
    assert caught.value.expected == "keys 'student', or query 'distilled'"
    assert "'teacher'" in str(caught.value.found)
    assert RetrievalRecipe("distilled", "teacher").keys == "teacher"


def test_a_retrieval_table_alone() -> None:
    given = {"query": "distilled", "keys": "teacher", "gold_shares": [0, 0.5]}
    assert retrieval_from_dict(given) == RetrievalRecipe("distilled", "teacher", gold_shares=(0.0, 0.5))
    assert retrieval_from_dict({}) == Recipe().retrieval
    with pytest.raises(RecipeError, match=r"unknown key 'retrieval\.k'"):
        retrieval_from_dict({"k": 8})


def test_layers_and_a_model_exclude_each_other() -> None:
    with pytest.raises(RecipeError, match="not both"):
        StudentRecipe(layers=(0, 1), model="some")
    with pytest.raises(RecipeError, match="not both"):
        with_start(StudentRecipe(), (0, 1), "some")


def test_the_command_lines_start_replaces_the_files() -> None:
    from_layers, from_model = StudentRecipe(layers=(0, 2), dropout=0.3), StudentRecipe(model="some", dropout=0.3)
    assert with_start(from_layers, None, None) is from_layers
    assert with_start(from_layers, None, "other") == StudentRecipe(model="other", dropout=0.3)
    assert with_start(from_model, (1, 3), None) == StudentRecipe(layers=(1, 3), dropout=0.3)


@given(recipes, st.integers(0, 9), st.integers(2, 64))
@settings(max_examples=30, deadline=None)
def test_override_changes_the_named_field_only(recipe: Recipe, epochs: int, dim: int) -> None:
    changed = override(
        recipe, seed=5, student__fit__epochs=epochs, projection__embedding_dim=dim, teacher__fit__epochs=None
    )
    expected = asdict(recipe)
    expected["seed"] = 5
    expected["student"]["fit"]["epochs"] = epochs
    expected["projection"]["embedding_dim"] = dim
    assert asdict(changed) == expected
    assert override(recipe) == recipe
    assert override(recipe, seed=None) == recipe


def test_override_checks_ranges() -> None:
    with pytest.raises(RecipeError, match="epochs"):
        override(Recipe(), student__fit__epochs=-1)


FLOATS = [
    *(
        f"{fit}__{name}"
        for fit in ("teacher__fit", "student__fit")
        for name in ("learning_rate", "head_learning_rate", "warmup", "weight_decay", "clip")
    ),
    *("projection__temperature", "projection__learning_rate"),
    *("teacher__dropout", "student__dropout", "heldout_share"),
    *("retrieval__gold_shares", "objectives__weight"),
]


def floats_of(table: Mapping[str, Any], where: str = "") -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from floats_of(value, f"{where}{name}__")
        elif name == "objectives":
            yield "objectives__weight"
        elif isinstance(value, float) or (isinstance(value, tuple) and any(isinstance(item, float) for item in value)):
            yield where + name


def test_the_floats_of_a_recipe_are_all_known_here() -> None:
    assert sorted(FLOATS) == sorted(floats_of(asdict(Recipe())))


def test_values_that_are_not_finite_are_refused_by_name() -> None:
    for path, value in product(FLOATS, [float("inf"), float("-inf"), float("nan")]):
        *parents, name = path.split("__")
        of_a_list = name == "gold_shares"
        tables: Any = {name: [value] if of_a_list else value}
        for parent in reversed(parents):
            tables = {parent: [{"name": "relation", **tables}] if parent == "objectives" else tables}
        with pytest.raises(RecipeError, match=f"{name} is out of range"):
            recipe_from_dict(tables)


@pytest.mark.parametrize("value", [float("inf"), float("nan")], ids=str)
def test_objective_settings_that_are_not_finite_are_refused(value: float) -> None:
    known = 0
    for name in registry.names():
        for setting, parameter in inspect.signature(registry._REGISTRY[name]).parameters.items():
            if isinstance(parameter.default, float):
                known += 1
                with pytest.raises(RecipeError, match=f"{name}: {setting} is out of range"):
                    registry.build([ObjectiveRecipe(name, 1.0, {setting: value})])
    assert known > 10


@pytest.mark.parametrize(
    "removed",
    [
        {"cautious": False},
        {"one_se_rule": True, "weight": "auto", "label_temperatures": [1.0, 2.0]},
        {"folds": 3, "labels": "teacher"},
    ],
)
def test_removed_keys_are_ignored_in_a_finished_run_and_refused_in_a_file(
    removed: dict[str, Any], tmp_path: Path
) -> None:
    stored = {"retrieval": {**asdict(RetrievalRecipe(keep_heldout=False)), **removed}}
    assert recipe_from_dict(stored).retrieval == RetrievalRecipe(keep_heldout=False)
    name, value = next(iter(removed.items()))
    file = tmp_path / "old.toml"
    file.write_text(f"[retrieval]\n{name} = {str(value).lower()}\n")
    for read in (lambda: load_recipe(file), lambda: retrieval_from_dict(removed)):
        with pytest.raises(RecipeError, match=f"'retrieval.{name}' was removed") as caught:
            read()
        assert "Delete the key" in str(caught.value)
    with pytest.raises(RecipeError, match="unknown key 'weight'"):  # of another table
        recipe_from_dict({"weight": "auto"})


@pytest.mark.parametrize(("name", "value"), [("labels", "cross_fitted"), ("keys", "both")])
def test_removed_values_are_refused_with_the_value_to_write_instead(name: str, value: str) -> None:
    """In a finished run too; with that value the run is read."""
    stored = asdict(RetrievalRecipe("distilled", "teacher")) | {"labels": "teacher", "folds": 3}
    with pytest.raises(RecipeError, match=f"'{value}' of 'retrieval.{name}' was removed") as caught:
        recipe_from_dict({"retrieval": stored | {name: value}})
    assert "Write 'teacher'" in str(caught.value) and "run.json" in str(caught.value)
    assert recipe_from_dict({"retrieval": stored | {name: "teacher"}}).retrieval.keys == "teacher"

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from support.paths import ROOT
from support.study_cells import STUDY, write_study

from reaugkd.errors import RecipeError
from reaugkd.export.recipe import FitRecipe, ObjectiveRecipe
from reaugkd.export.study.fingerprints import Inputs, fingerprint, settings_key
from reaugkd.export.study.plan import Options, Plan, Task, load_plan
from reaugkd.export.training.run_folder import made_from

LEAST = 'teacher = "bert"\nrecipes = ["kd"]\n[[tasks]]\nname = "one"\ndata = "one.csv"\n'


STUDIES = ROOT / "docs" / "reference" / "studies.md"


def plan_of(folder: Path, text: str) -> Plan:
    return load_plan(write_study(folder / "study", text))


class TestLoading:
    def test_missing_keys_have_defaults(self, tmp_path: Path) -> None:
        plan = plan_of(tmp_path, LEAST)
        (task,) = plan.tasks
        assert (task.name, task.data, task.seeds, task.metric) == ("one", "one.csv", (0, 1, 2), "accuracy")
        assert {task.task, task.limit, task.split, task.text_column, task.text_pair_column, task.label_column} == {None}
        assert (plan.teacher, plan.baseline, plan.variants, dict(plan.options)) == ("bert", "kd", (), {})
        assert list(plan.recipes) == ["kd"] and plan.folder == tmp_path / "study"

    def test_every_key(self, tmp_path: Path) -> None:
        text = """
        teacher = "teacher"
        seeds = [3]
        recipes = ["better", "recipes/kd.toml"]
        baseline = "kd"
        student.layers = [0, 2]
        options = { out_of_domain = "clinc150" }
        [[tasks]]
        name = "SST-2"
        data = "glue/SST-2"
        task = "sst2"
        seeds = [1, 0]
        limit = 16000
        split = "dev"
        metric = "mcc"
        text_column = "a"
        text_pair_column = "b"
        label_column = "c"
        [[variants]]
        name = "student-keys"
        keys = "student"
        query = "distilled"
        """
        plan = plan_of(tmp_path, text)
        (task,) = plan.tasks
        assert (task.task, task.seeds, task.limit, task.split, task.metric) == ("sst2", (1, 0), 16000, "dev", "mcc")
        assert (task.text_column, task.text_pair_column, task.label_column) == ("a", "b", "c")
        assert list(plan.recipes) == ["better", "kd"] and plan.baseline == "kd"
        assert [recipe.student.layers for recipe in plan.recipes.values()] == [(0, 2), (0, 2)]
        assert plan.recipes["kd"].objectives == (ObjectiveRecipe("soft_labels"),)
        (variant,) = plan.variants
        assert (variant.name, variant.settings) == ("student-keys", {"keys": "student", "query": "distilled"})
        assert plan.options == {"out_of_domain": "clinc150"}

    def test_a_bare_name_means_the_recipes_folder_first(self, tmp_path: Path) -> None:
        study = write_study(tmp_path / "study")
        (study.parent / "recipes" / "better.toml").write_text("max_length = 64\n")
        assert load_plan(study).recipes["better"].max_length == 64

    def test_the_student_replaces_each_recipes_own(self, tmp_path: Path) -> None:
        study = write_study(tmp_path / "study", LEAST + '[student]\nmodel = "small"\n')
        (study.parent / "recipes" / "kd.toml").write_text("[student]\nlayers = [1]\nfit = { epochs = 9 }\n")
        student = load_plan(study).recipes["kd"].student
        assert (student.model, student.layers, student.fit) == ("small", (), FitRecipe(epochs=9, learning_rate=2e-4))

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (LEAST.replace("teacher", "techer"), ["'techer'", "expected one of", "teacher", "recipes"]),
            (LEAST + 'colour = "red"\n', ["'tasks.colour'", "text_pair_column"]),
            (LEAST + "[student]\nlayer = [1]\n", ["'student.layer'", "layers, model"]),
            (LEAST.partition("\n")[2], ["'teacher' is missing"]),
            (LEAST.replace('name = "one"\n', ""), ["'tasks.name' is missing"]),
            (LEAST.partition("[[tasks]]")[0], ["'tasks' is missing"]),
            (LEAST.replace('"kd"', '"nothing"'), ["recipe does not exist", "nothing", "recipes/nothing.toml"]),
            (LEAST.replace('"kd"', '"kd", "recipes/kd.toml"'), ["recipes", "kd", "once"]),
            (LEAST.replace('["kd"]', "[]"), ["recipes", "at least one"]),
            (LEAST.replace('["kd"]', '"kd"'), ["recipes", "a list"]),
            ('baseline = "better"\n' + LEAST, ["baseline", "better", "kd"]),
            ("seeds = [1, 1]\n" + LEAST, ["seeds", "[1, 1]", "different"]),
            ("seeds = [-1]\n" + LEAST, ["seeds", "[-1]"]),
            ("seeds = [true]\n" + LEAST, ["seeds", "[True]"]),
            (LEAST + "seeds = []\n", ["tasks.seeds", "at least one"]),
            (LEAST + 'metric = "f1"\n', ["tasks.metric", "f1", "accuracy, macro_f1, mcc"]),
            (LEAST + "metric = [1]\n", ["tasks.metric", "[1]"]),
            (LEAST + "limit = 1\n", ["tasks.limit", "2 or more"]),
            (LEAST.replace('"one"', '"a.b"'), ["tasks.name", "a.b", "part of file names"]),
            (LEAST.replace('"one"', '"../x"'), ["tasks.name", "../x"]),
            (LEAST.replace('"one"', '"average"'), ["tasks.name", "average"]),
            (LEAST + '[[tasks]]\nname = "one"\ndata = "x"\n', ["tasks", "once"]),
            (LEAST + "[[variants]]\nk = 8\n", ["'variants.name' is missing"]),
            (LEAST + '[[variants]]\nname = "a"\n' * 2, ["variants", "once"]),
            (LEAST + "[variants]\nk = 8\n", ["variants", "[[variants]] tables"]),
            (LEAST + '[[variants]]\nname = "k8"\nk = 8\n', ["variant 'k8'", "'retrieval.k'"]),
            (LEAST + '[[variants]]\nname = "x"\nkeys = "teacher"\n', ["variant 'x'", "distilled"]),
            (
                LEAST + '[[variants]]\nname = "x"\nlabels = "cross_fitted"\n',
                ["variant 'x'", "'retrieval.labels' was removed"],
            ),
            (LEAST + '[[variants]]\nname = "kb_rest"\n', ["variants.name", "kb_rest", "another name"]),
            (LEAST + "kb_rest = true\n", ["tasks.kb_rest", "a limit"]),
            (LEAST + 'split = "train"\n', ["tasks.split", "train", "dev or test"]),
            (LEAST + '[student]\nlayers = [1]\nmodel = "x"\n', ["not both"]),
            (LEAST + '[student]\nlayers = ["1"]\n', ["student.layers", "a list of numbers"]),
            ("options = 1\n" + LEAST, ["options", "a table"]),
            ("options = { colour = 1 }\n" + LEAST, ["'options.colour'", "out_of_domain, typos"]),
            ("seeds = [", ["not valid TOML"]),
        ],
    )
    def test_invalid_values_are_refused(self, tmp_path: Path, text: str, words: list[str]) -> None:
        study = write_study(tmp_path / "study", text)
        with pytest.raises(RecipeError) as caught:
            load_plan(study)
        message = str(caught.value)
        assert [word for word in words if word not in message] == []
        assert message.startswith(str(study))

    def test_an_error_in_a_recipe_names_the_recipes_file(self, tmp_path: Path) -> None:
        study = write_study(tmp_path / "study")
        recipe = study.parent / "recipes" / "kd.toml"
        recipe.write_text("colour = 1\n")
        with pytest.raises(RecipeError, match="colour") as caught:
            load_plan(study)
        assert str(caught.value).startswith(str(recipe))

    def test_a_missing_study(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="cannot be read"):
            load_plan(tmp_path / "none.toml")


class TestCells:
    def test_every_task_has_its_first_seed_before_any_has_its_second(self, tmp_path: Path) -> None:
        plan = plan_of(tmp_path, STUDY)
        names = ["one.0", "two.5", "one.1", "one.2"]
        names = [
            f"{task}.{recipe}.{seed}" for task, seed in (n.split(".") for n in names) for recipe in ("kd", "better")
        ]
        assert [cell.name for cell in plan.cells()] == names
        assert [cell.settings.seed for cell in plan.cells()] == [0, 0, 5, 5, 1, 1, 2, 2]
        assert {cell.settings.max_length for cell in plan.cells() if cell.recipe == "better"} == {32}

    def test_paths_count_from_the_study_and_ids_stay(self, tmp_path: Path) -> None:
        plan = plan_of(tmp_path, STUDY.replace('name = "two"', 'name = "two"\nlabel_column = "y"'))
        assert plan.model == str(tmp_path / "study" / "teacher")
        assert replace(plan, here="elsewhere").model == "elsewhere"
        assert plan.located("org/model") == "org/model" and plan.located("") == ""
        task = plan.tasks[0]
        assert task.located(plan.folder) == str(tmp_path / "study" / "one.csv")
        assert task.located(tmp_path) == "one.csv"
        assert replace(task, data=str(tmp_path)).located(plan.folder) == str(tmp_path)

    def test_the_cells_student_is_found_beside_the_study(self, tmp_path: Path) -> None:
        plan = plan_of(tmp_path, LEAST + '[student]\nmodel = "teacher"\n')
        assert plan.cells()[0].settings.student.model == str(tmp_path / "study" / "teacher")
        assert plan.recipes["kd"].student.model == "teacher"


class TestKeys:
    def keys(self, plan: Plan) -> dict[str, str]:
        return {cell.name: settings_key(plan, cell) for cell in plan.cells()}

    def test_every_cell_has_its_own_and_a_carried_study_has_the_same(self, tmp_path: Path) -> None:
        keys = self.keys(plan_of(tmp_path / "a", STUDY))
        assert len(set(keys.values())) == len(keys) == 8
        assert self.keys(plan_of(tmp_path / "elsewhere" / "b", STUDY)) == keys

    @pytest.mark.parametrize(
        ("old", "new", "changed"),
        [
            ('keys = "student"', "keep_heldout = false", "one.kd one.better two.kd two.better"),
            ('teacher = "teacher"', 'teacher = "other"', "one.kd one.better two.kd two.better"),
            ('data = "two.csv"', 'data = "two.csv"\nlimit = 9', "two.kd two.better"),
            ('data = "two.csv"', 'data = "one.csv"', "two.kd two.better"),
            ("[[variants]]", "[options]\ntypos = false\n[[variants]]", "one.kd one.better two.kd two.better"),
            ('metric = "mcc"', "", ""),
            ("seeds = [0, 1, 2]", "seeds = [2, 1, 0]", ""),
            ('["kd", "better"]', '["better", "kd"]', ""),
        ],
    )
    def test_changes_affect_the_keys_of_their_cells(self, tmp_path: Path, old: str, new: str, changed: str) -> None:
        before, after = (
            self.keys(plan_of(tmp_path / "a", STUDY)),
            self.keys(plan_of(tmp_path / "b", STUDY.replace(old, new))),
        )
        assert before.keys() == after.keys()
        differ = {name.rpartition(".")[0] for name in before if before[name] != after[name]}
        assert differ == set(changed.split())

    def test_a_recipe_concerns_its_own_cells(self, tmp_path: Path) -> None:
        study = write_study(tmp_path / "study")
        before = self.keys(load_plan(study))
        (study.parent / "better.toml").write_text("max_length = 33\n")
        after = self.keys(load_plan(study))
        assert {name.split(".")[1] for name in before if before[name] != after[name]} == {"better"}

    def test_data_and_models_are_compared_by_content(self, tmp_path: Path) -> None:
        study = write_study(tmp_path / "study")
        plan = load_plan(study)

        def keys() -> dict[str, str]:
            inputs = Inputs(plan, plan.folder)
            return {cell.name: inputs.key(cell) for cell in plan.cells()}

        first = keys()
        (study.parent / "two.csv").write_text("text,label\nc,d\n")
        second = keys()
        assert {name for name in first if first[name] != second[name]} == {"two.kd.5", "two.better.5"}
        (study.parent / "teacher" / "config.json").write_text("{ }")
        assert not set(keys().values()) & set(second.values())

    def test_fingerprints(self, tmp_path: Path) -> None:
        assert fingerprint("org/model") == "org/model" and fingerprint("") == ""
        for name, place in (("a", "x"), ("b", "x"), ("c", "y")):
            (tmp_path / name / "deep").mkdir(parents=True)
            (tmp_path / name / "deep" / place).write_text("same")
        prints = [fingerprint(str(tmp_path / name)) for name in "abc"]
        assert prints[0] == prints[1] != prints[2]
        assert len(prints[0]) == 64

    def test_the_order_of_keys_is_not_part_of_it(self) -> None:
        assert made_from(1, {"b": 1, "a": 2}) == made_from(1, {"a": 2, "b": 1})


class TestShipped:
    def test_the_study_in_the_documentation(self, tmp_path: Path) -> None:
        (block,) = re.findall(
            r"```toml\n(.*?)```",
            (ROOT / "docs" / "how-to" / "compare-recipes.md").read_text(encoding="utf-8"),
            re.DOTALL,
        )
        (tmp_path / "study.toml").write_text(block, encoding="utf-8")
        (tmp_path / "recipes").symlink_to(ROOT / "recipes")
        plan = load_plan(tmp_path / "study.toml")
        assert list(plan.recipes) == ["kd", "reaugkd"] and plan.cells()[0].name == "CoLA.kd.0"

    @pytest.mark.parametrize("file", sorted((ROOT / "benchmarks" / "study").glob("*.toml")), ids=lambda file: file.stem)
    def test_the_studies_of_the_benchmarks(self, file: Path) -> None:
        assert load_plan(file).cells()


def test_the_documentation_has_every_key() -> None:
    documented = STUDIES.read_text(encoding="utf-8")
    of_file = {field.name for field in fields(Plan)} - {"folder", "here"} | {"seeds", "student"}
    for name in {*of_file, *(field.name for kind in (Task, Options) for field in fields(kind))}:
        assert any(mark in documented for mark in (f"`{name}`", f"`[{name}]`", f"`[[{name}]]`")), name

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaugkd.errors import DataError, OutputExistsError
from reaugkd.export.training.run_folder import (
    RunFolder,
    flatten,
    forget_checkpoint_of_other_inputs,
    made_from,
    read_rows,
    read_run_json,
    remove_folder,
    write_rows,
)
from reaugkd.runtime.data import Split

DESCRIPTION: dict[str, Any] = {
    "run_format": 1,
    "teacher": "bert",
    "recipe": {"seed": 0, "student": {"layers": (0, 2), "fit": {"epochs": 3}}, "objectives": ({"name": "relation"},)},
    "labels": ["a", "b"],
}


def changed(**changes: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(DESCRIPTION))
    for path, value in changes.items():
        *parents, name = path.split("__")
        target = copy
        for parent in parents:
            target = target[parent]
        target[name] = value
    return copy


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_run_is_described(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "deep" / "run")
    run.begin(DESCRIPTION, redo=False)
    assert run.describe() == changed()
    run.begin(DESCRIPTION, redo=False)  # the same again goes on
    assert list(files_of(run.path)) == ["run.json"]


@pytest.mark.parametrize(
    ("changes", "key", "there", "wanted"),
    [
        ({"teacher": "roberta"}, "teacher", "'bert'", "'roberta'"),
        ({"recipe__seed": 1}, "recipe.seed", "0", "1"),
        ({"recipe__student__fit__epochs": 4}, "recipe.student.fit.epochs", "3", "4"),
        ({"recipe__student__layers": [0, 1]}, "recipe.student.layers", "[0, 2]", "[0, 1]"),
        ({"labels": ["a"]}, "labels", "['a', 'b']", "['a']"),
        ({"limit": 5}, "limit", "None", "5"),
    ],
)
def test_other_settings_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], key: str, there: str, wanted: str
) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin(DESCRIPTION, redo=False)
    pretend_work(run)
    before = files_of(run.path)
    with pytest.raises(OutputExistsError) as caught:
        run.begin(changed(**changes), redo=False)
    assert caught.value.message == f"the output is a run with other settings: {key}"
    assert (caught.value.found, caught.value.expected) == (f"{key} = {there}", f"{key} = {wanted}")
    assert caught.value.path == str(run.path)
    assert "--redo" in str(caught.value)
    assert files_of(run.path) == before
    run.begin(changed(**changes), redo=True)
    assert run.describe() == changed(**changes)


def pretend_work(run: RunFolder) -> None:
    run.teacher.mkdir()
    (run.teacher / "stage.json").write_text("{}")


def test_other_settings_replace_those_of_a_run_that_trained_nothing_yet(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin(DESCRIPTION, redo=False)
    run.begin(changed(teacher="roberta"), redo=False)
    assert run.describe() == changed(teacher="roberta")


def test_other_library_versions_are_no_other_settings(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin({**DESCRIPTION, "versions": {"torch": "1"}}, redo=False)
    pretend_work(run)
    run.begin({**DESCRIPTION, "versions": {"torch": "2"}}, redo=False)
    assert run.describe()["versions"] == {"torch": "2"}


def test_many_changes_are_counted(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin(DESCRIPTION, redo=False)
    pretend_work(run)
    others = {f"setting{number}": "x" * 50 for number in range(7)}
    with pytest.raises(OutputExistsError, match="setting0, setting1, setting2, setting3, setting4 and 2 more"):
        run.begin(changed(**others), redo=False)


def test_other_folders_are_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for name in ("full", "file"):
        for redo in (False, True):
            with pytest.raises(OutputExistsError, match="not a run folder"):
                RunFolder(tmp_path / name).begin(DESCRIPTION, redo)
    assert files_of(tmp_path) == {"full/thesis.txt": b"years of work", "file": b"a file"}
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty").begin(DESCRIPTION, redo=False)


def test_a_run_resumes_after_a_kill_during_the_write_of_run_json(tmp_path: Path) -> None:
    (tmp_path / ".run.json.0123abcd.tmp").write_text("{")
    RunFolder(tmp_path).begin(DESCRIPTION, redo=False)
    assert list(files_of(tmp_path)) == ["run.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_damaged_run_json_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    for call in (lambda run: run.describe(), lambda run: run.begin(DESCRIPTION, False)):
        with pytest.raises(DataError, match="cannot be read") as caught:
            call(RunFolder(tmp_path))
        assert caught.value.path == str(tmp_path / "run.json")


def test_a_folder_without_a_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run\.json is missing; expected a run folder"):
        RunFolder(tmp_path).describe()
    with pytest.raises(DataError, match=r"missing"):
        RunFolder(tmp_path / "nothing").describe()
    (tmp_path / "file").write_text("a file")
    with pytest.raises(DataError):
        RunFolder(tmp_path / "file").describe()
    with pytest.raises(DataError, match="the run is not finished"):
        RunFolder(tmp_path).require_finished()


def do_stage(run: RunFolder, inputs: str, content: str = "x") -> bool:
    with run.stage(run.teacher, inputs) as folder:
        if folder:
            (folder / "weights").write_text(content)
        return folder is not None


def test_a_stage_is_done_once_for_its_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path)
    assert do_stage(run, "one", "first")
    assert json.loads((run.teacher / "stage.json").read_text())["made_from"] == "one"
    before = (run.teacher / "weights").stat().st_mtime_ns
    assert not do_stage(run, "one", "again")
    assert (run.teacher / "weights").read_text() == "first"
    assert (run.teacher / "weights").stat().st_mtime_ns == before
    assert do_stage(run, "two", "second")
    assert (run.teacher / "weights").read_text() == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teacher"]
    reported = capsys.readouterr()
    assert reported.out == "" and reported.err.count("teacher: done") == 2


def test_a_stage_that_fails_leaves_nothing_and_is_done_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt), run.stage(run.teacher, "one") as folder:
        assert folder is not None
        (folder / "weights").write_text("half")
        raise KeyboardInterrupt
    assert not run.teacher.exists()
    assert [path for path in tmp_path.rglob("*") if ".tmp" in path.name] == []
    assert do_stage(run, "one")


def test_a_repeated_stage_replaces_nothing_before_it_starts(tmp_path: Path) -> None:
    """An old result is removed when its inputs change, so that it cannot count as the new one."""
    run = RunFolder(tmp_path)
    do_stage(run, "one", "first")
    with pytest.raises(KeyboardInterrupt), run.stage(run.teacher, "two"):
        raise KeyboardInterrupt
    assert not run.teacher.exists()


def test_a_checkpoint_belongs_to_its_inputs(tmp_path: Path) -> None:
    checkpoint = RunFolder(tmp_path).checkpoint("teacher")
    forget_checkpoint_of_other_inputs(checkpoint, "one")
    checkpoint.write_text("state")
    forget_checkpoint_of_other_inputs(checkpoint, "one")
    assert checkpoint.read_text() == "state"
    forget_checkpoint_of_other_inputs(checkpoint, "two")
    assert not checkpoint.exists()
    checkpoint.write_text("state of two")
    forget_checkpoint_of_other_inputs(checkpoint, "one")
    assert not checkpoint.exists()
    # A checkpoint of unknown origin is not used.
    checkpoint.write_text("state")
    checkpoint.with_suffix(".from").unlink()
    forget_checkpoint_of_other_inputs(checkpoint, "one")
    assert not checkpoint.exists()


def test_a_stages_checkpoint_outlives_a_kill_and_not_the_stage(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt), run.stage(run.teacher, "one"):
        run.checkpoint("teacher").write_text("state")
        raise KeyboardInterrupt
    with run.stage(run.teacher, "one") as folder:
        assert folder is not None
        assert run.checkpoint("teacher").read_text() == "state"
    assert not run.checkpoint("teacher").parent.exists()


def test_folders_are_removed_whole(tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    remove_folder(folder)  # nothing there
    for _ in range(2):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "file").write_text("x")
        (tmp_path / ".teacher.old").mkdir()  # left by a kill half-way through an earlier removal
        (tmp_path / ".teacher.old" / "file").write_text("x")
        remove_folder(folder)
        assert list(tmp_path.iterdir()) == []


def test_the_hash_is_of_the_values() -> None:
    assert made_from("a", {"x": 1, "y": (1, 2)}) == made_from("a", {"y": [1, 2], "x": 1})
    different = [("a",), ("b",), ("a", "b"), ("b", "a"), ("ab",), ({"x": 1},), ({"x": 2},), ({"x": 1.5},), ()]
    assert len({made_from(*parts) for parts in different}) == len(different)
    assert made_from("a") != made_from(["a"])
    assert len(made_from()) == 64


leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
names = st.text("abc", min_size=1, max_size=2)
trees = st.dictionaries(names, leaves | st.dictionaries(names, leaves, min_size=1, max_size=3), max_size=4)


@given(trees)
@settings(max_examples=50, deadline=None)
def test_flatten_keeps_every_leaf_under_its_path(tree: Mapping[str, Any]) -> None:
    flat = flatten(tree)
    for path, leaf in flat.items():
        value: Any = tree
        for name in path.split("."):
            value = value[name]
        assert value == leaf
    assert len(flat) == sum(len(value) if isinstance(value, dict) else 1 for value in tree.values())


# Everything a JSON string can hold, the line ends that str.splitlines breaks at among them.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=5), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_rows_survive_writing(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], pairs: bool, labels: bool
) -> None:
    first, second, third = ([row[column] for row in rows] for column in range(3))
    split = Split(first, second if pairs else None, third if labels else None, "s", list(range(len(rows))))
    path = tmp_path_factory.mktemp("rows") / "train.jsonl"
    write_rows(split, path)
    again = read_rows(path)
    assert (again.texts, again.pairs, again.labels) == (split.texts, split.pairs, split.labels)
    assert again.rows == list(range(1, len(rows) + 1)) and again.source == str(path)


def test_line_separators_inside_a_text(tmp_path: Path) -> None:
    """U+2028 and its like end a line for Python's splitlines, and not for JSON lines."""
    texts = ["a\u2028b", "c\x85d", "e\nf", "g\x0bh", "i\r\nj"]
    write_rows(Split(texts, None, None, "s", list(range(5))), tmp_path / "train.jsonl")
    assert read_rows(tmp_path / "train.jsonl").texts == texts


def test_no_rows_survive_writing(tmp_path: Path) -> None:
    write_rows(Split([], None, [], "s", []), tmp_path / "none.jsonl")
    assert len(read_rows(tmp_path / "none.jsonl")) == 0


def test_the_error_for_missing_json_describes_the_expected_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.json is missing; expected the thing"):
        read_run_json(tmp_path / "x.json", "the thing")

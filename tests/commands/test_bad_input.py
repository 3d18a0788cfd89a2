"""Invalid input gives one line with the place, what was found and expected, and a remedy; no file is lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.command_line import call, finish, names, ok, refused, spawn
from support.workshop import Workshop

from reaugkd.runtime.data.formats import FORMATS

ROWS = "text,label\n" + "".join(f"noon {row},{'ab'[row % 2]}\n" for row in range(30))


def spoilt(row: int, line: bytes) -> bytes:
    """The rows with one line replaced; the header is row 1."""
    lines = ROWS.encode().splitlines()
    lines[row - 1] = line
    return b"\n".join(lines) + b"\n"


# name -> (file name, content, what the message must hold besides the path)
BAD_DATA: dict[str, tuple[str, bytes, list[str]]] = {
    "no text column": ("d.csv", b"foo,label\nx,a\ny,b\n", ["'foo', 'label'", "--text-column", "expected"]),
    "no label column": ("d.csv", b"text,foo\nx,a\ny,b\n", ["'text', 'foo'", "--label-column", "expected"]),
    "a column twice": ("d.csv", b"text,text,label\nx,x,a\ny,y,b\n", ["'text'"]),
    "a row too short": ("d.csv", spoilt(4, b"noon"), ["row 4", "found 1 cells", "expected 2 cells"]),
    "an empty text": ("d.csv", spoilt(5, b",a"), ["row 5", "column 'text'", "empty", "Fill the cell"]),
    "a blank text": ("d.csv", spoilt(5, b"  ,a"), ["row 5", "column 'text'", "empty"]),
    "a NaN text": ("d.csv", spoilt(5, b"nan,a"), ["row 5", "column 'text'", "missing", "nan"]),
    "no label": ("d.csv", b"text,label\nx,\ny,NaN\n", ["column 'label'", "no row has a label", "2 rows"]),
    "a null in JSON": ("d.jsonl", b'{"text": null, "label": "a"}\n', ["row 1", "column 'text'", "null"]),
    "a NaN in JSON": ("d.jsonl", b'{"text": NaN, "label": "a"}\n', ["row 1", "column 'text'"]),
    "a number as text": ("d.jsonl", b'{"text": 3, "label": "a"}\n', ["row 1", "column 'text'", "int 3"]),
    "a list as label": (
        "d.jsonl",
        b'{"text": "x", "label": [1, 2]}\n',
        ["row 1", "column 'label'", "[1, 2]", "one label"],
    ),
    "no JSON": ("d.jsonl", b'{"text": "x", "label": "a"}\n{"text"\n', ["row 2", "malformed JSON", "Correct the line"]),
    "a text of 10 MB": ("d.csv", spoilt(7, b"x" * 10_000_000 + b",a"), ["row 7", "10,000,000 characters", "1,000,000"]),
    "no UTF-8": ("d.csv", spoilt(8, b"caf\xe9,a"), ["row 8", "0xe9", "expected UTF-8"]),
    "UTF-16": ("d.csv", ROWS.encode("utf-16-le"), ["UTF-16", "expected UTF-8", "--encoding utf-16-le"]),
    "one class only": (
        "d.csv",
        b"text,label\nx,a\ny,a\n",
        ["only one class", "'a' in all 2 rows", "at least 2 classes"],
    ),
    "no row": ("d.csv", b"text,label\n", ["empty", "0 rows"]),
    "nothing at all": ("d.csv", b"", ["empty", "0 rows"]),
    "one row": ("d.csv", b"text,label\nx,a\n", ["too few rows", "1 row", "at least 2"]),
    "two rows": ("d.csv", b"text,label\nx,a\ny,b\n", ["too few rows to hold any out", "2 rows of 2 classes"]),
    "no Parquet": ("d.parquet", b"PAR1 and not much more", ["Parquet", "expected a complete Parquet file"]),
    "an unknown suffix": ("d.docx", b"PK", ["found .docx", "expected one of .csv"]),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_that_cannot_be_trained_on(tmp_path: Path, case: str) -> None:
    if case == "no Parquet":
        pytest.importorskip("pyarrow")
    name, content, parts = BAD_DATA[case]
    file, run = tmp_path / name, tmp_path / "run"
    file.write_bytes(content)
    message = refused("train", "--data", file, "--teacher", tmp_path / "teacher", "--out", run)
    assert [part for part in [str(file), *parts] if part not in message] == []
    assert names(tmp_path) == [name]


def test_no_data_at_all(tmp_path: Path) -> None:
    for data in ("nosuch.csv", str(tmp_path / "nosuch"), "./nosuch", "a/b/c"):
        message = refused("train", "--data", data, "--teacher", "x", "--out", tmp_path / "run")
        assert message.startswith(f"error: {Path(data)}: no such file or folder"), message
    (tmp_path / "empty").mkdir()
    message = refused("train", "--data", tmp_path / "empty", "--teacher", "x", "--out", tmp_path / "run")
    assert "found an empty folder" in message
    assert names(tmp_path) == ["empty"]


def test_an_unknown_data_set_of_the_hub_fails_at_once_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    message = refused("train", "--data", "nosuch-org/nosuch", "--teacher", "x", "--out", tmp_path / "run")
    assert "nosuch-org/nosuch: the data set cannot be loaded" in message and "without a network" in message


class TestLabelsOutsideTheSet:
    def test_of_the_train_split(self, tmp_path: Path) -> None:
        (tmp_path / "train.csv").write_text(ROWS)
        (tmp_path / "dev.csv").write_text("text,label\nx,0\ny,0\n")
        message = refused("train", "--data", tmp_path, "--teacher", "x", "--out", tmp_path / "run")
        for part in (f"{tmp_path / 'dev.csv'}, column 'label'", "found '0' (2 rows)", "expected one of 'a', 'b'"):
            assert part in message

    def test_of_the_bundle(self, edge_bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "d.csv").write_text("text,label\nnoon,other\nnoon,other\n")
        message = refused("eval", edge_bundle, "--data", tmp_path / "d.csv", "--split", "all")
        for part in (f"{tmp_path / 'd.csv'}, column 'label'", "found 'other'", "expected one of 'a', 'b', 'c'"):
            assert part in message
        (tmp_path / "d.csv").write_text("text,label\nnoon,a \nnoon,B\n")
        done = ok("eval", edge_bundle, "--data", tmp_path / "d.csv", "--split", "all")
        assert "note: " in done.err and "1 of 2 rows" in done.err and "'B' (1 row, nearly 'b')" in done.err
        assert "1 of them have a label that the bundle does not have" in done.out


class TestUnreadableModels:
    @pytest.mark.parametrize("content", [{}, {"config.json": "{"}, {"config.json": '{"model_type": "nosuch"}'}])
    def test_as_a_teacher(self, tmp_path: Path, content: dict[str, str]) -> None:
        teacher = tmp_path / "teacher"
        teacher.mkdir()
        for name, text in content.items():
            (teacher / name).write_text(text)
        (tmp_path / "d.csv").write_text(ROWS)
        message = refused("train", "--data", tmp_path / "d.csv", "--teacher", teacher, "--out", tmp_path / "run")
        assert message.startswith(f"error: {teacher}: the model cannot be loaded; found ")
        assert names(tmp_path) == ["d.csv", "teacher"]

    @pytest.mark.parametrize("harm", ["weights cut", "no weights", "no tokenizer"])
    def test_that_is_damaged(self, workshop: Workshop, tmp_path: Path, harm: str) -> None:
        teacher = Path(shutil.copytree(workshop.teacher, tmp_path / "teacher"))
        weights = teacher / "model.safetensors"
        if harm == "weights cut":
            weights.write_bytes(weights.read_bytes()[:1000])
        else:
            (weights if harm == "no weights" else teacher / "tokenizer.json").unlink()
        arguments = workshop.train_arguments(tmp_path / "run")
        arguments[arguments.index(workshop.teacher)] = teacher
        message = refused(*arguments, remarks=3)
        assert message.startswith(f"error: {teacher}: ") and "found" in message
        assert names(tmp_path) == ["teacher"]  # it is noticed before there is a run

    def test_layers_that_are_not_there(self, workshop: Workshop, tmp_path: Path) -> None:
        arguments = [*workshop.train_arguments(tmp_path / "run")[:-1], "0,9"]
        message = refused(*arguments, remarks=20)
        assert "no such layer; found 0,9; expected numbers from 0 to 3" in message


def no_temporaries(folder: Path) -> bool:
    return [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".old")) or path.match(".*")] == []


class TestOptions:
    @pytest.mark.parametrize(
        ("arguments", "part"),
        [
            (["nosuch"], "No such command 'nosuch'"),
            (["predict"], "Missing argument 'BUNDLE'"),
            (["predict", "B", "--nosuch"], "--nosuch"),
            (["predict", "B"], "give either TEXTs or --input; found neither"),
            (["predict", "B", "x", "--input", "-"], "give either TEXTs or --input; found 1 texts and --input -"),
            (["predict", "B", "x", "--format", "xml"], "'xml' is not one of 'table', 'jsonl', 'csv'"),
            (["predict", "B", "x", "--threads", "0"], "0 is not in the range"),
            (["predict", "B", "x", "--threads", "100000"], "found 100000; expected a whole number from 1 to 1024"),
            (["predict", "B", "--input", "nosuch.csv"], "nosuch.csv: no such file"),
            (["predict", "B", "--input", "B"], "the folder holds no split files"),
            (["predict", "nosuch", "x"], "there is no bundle here"),
            (["eval", "B"], "Missing option '--data'"),
            (["eval", "B", "--data", "nosuch.csv"], "nosuch.csv: no such file or folder"),
            (["bench", "B", "--data", "nosuch.csv"], "nosuch.csv"),
            (["bench", "B", "--seconds", "0"], "--seconds"),
            (["bench", "nosuch"], "there is no bundle here"),
            (["inspect", "nosuch"], "there is no bundle here"),
            (["train", "--data", "x", "--teacher", "x"], "Missing option '--out'"),
            (["train", "--student-layers", "0,x"], "'0,x' is not a list of whole numbers such as 0,2,5"),
            (["train", "--data", "x.csv", "--teacher", "x", "--out", "o", "--student-layers", "2,1"], "ascending"),
            (
                ["train", "--data", "x.csv", "--teacher", "x", "--out", "o", "--recipe", "no.toml"],
                "no.toml: the recipe",
            ),
            (["train", "--data", "x.csv", "--teacher", "x", "--out", "o", "--embedding-dim", "1"], "found 1"),
            (["export", "nosuch", "--out", "o"], "nosuch: run.json is missing; expected a run folder"),
            (["export", "nosuch", "--out", "o", "--target", "z80"], "'z80' is not one of"),
        ],
        ids=lambda part: part if isinstance(part, str) else " ".join(part),
    )
    def test_invalid_options(
        self, edge_bundle: Path, tmp_path: Path, arguments: list[str], part: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        message = refused(*(str(edge_bundle) if one == "B" else one for one in arguments))
        assert part in message
        assert names(tmp_path) == []

    def test_a_task_that_is_unknown(self, edge_bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "d.csv").write_text(ROWS)
        message = refused("eval", edge_bundle, "--data", tmp_path / "d.csv", "--task", "nosuch")
        assert "unknown task" in message and "sst2" in message

    def test_a_split_that_is_not_there(self, edge_bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "d.csv").write_text(ROWS)
        message = refused("eval", edge_bundle, "--data", tmp_path / "d.csv", "--split", "test")
        assert "there is no split 'test'; expected one of train, all" in message

    def test_a_run_that_is_not_finished_or_of_other_labels(
        self, workshop: Workshop, edge_bundle: Path, tmp_path: Path
    ) -> None:
        half = Path(shutil.copytree(workshop.run, tmp_path / "half"))
        shutil.rmtree(half / "tuning")
        assert "not finished" in refused("export", half, "--out", tmp_path / "out")
        (tmp_path / "d.csv").write_text(ROWS)
        message = refused("eval", edge_bundle, "--data", tmp_path / "d.csv", "--split", "all", "--run", workshop.run)
        assert "found alarm, music, weather; expected a, b, c" in message
        assert names(tmp_path) == ["d.csv", "half"]


class TestTexts:
    @pytest.mark.parametrize("text", ["", "  \n", "x" * 1_000_001])
    def test_as_arguments_are_named(self, edge_bundle: Path, text: str) -> None:
        done = call("predict", edge_bundle, "noon", text, "alarm", "--format", "jsonl")
        assert done.code == 2
        assert done.err.startswith("error: TEXT 2: the text is ") and done.err.count("\n") == 1
        assert len(done.out.splitlines()) == 1

    def test_that_are_no_unicode(self, edge_bundle: Path) -> None:
        done = finish(spawn("predict", edge_bundle, os.fsdecode(b"caf\xe9")))
        assert done.code == 2 and done.err.startswith("error: TEXT 1: ") and "Unicode" in done.err

    def test_of_pairs_come_two_by_two(self, pair_bundle: Path) -> None:
        message = refused("predict", pair_bundle, "noon", "alarm", "call")
        assert "found 3 texts; expected an even number, two by two" in message

    @pytest.mark.parametrize(
        ("name", "content", "bad"),
        [
            ("d.txt", b"noon\n\n" + b"x" * 10_000_000 + b"\n\xff\nalarm", {2: "empty", 3: "too long", 4: "UTF-8"}),
            ("d.csv", b'text\nnoon\nnan\n"a\nalarm\n', {3: "missing", 4: "never closes"}),
            ("d.tsv", b"id\ttext\n1\tnoon\n2\n3\t \n4\talarm\n", {3: "cells", 4: "empty"}),
            (
                "d.jsonl",
                b'"noon"\n{\n{"text": null}\n["a", "b"]\n"alarm"',
                {2: "JSON", 3: "missing", 4: "single texts"},
            ),
            ("e.jsonl", b'"noon"\n{"text": "\\ud800"}\n"alarm"\n', {2: "surrogate"}),
        ],
    )
    def test_of_files_give_records_and_the_rest_goes_on(
        self, edge_bundle: Path, tmp_path: Path, name: str, content: bytes, bad: dict[int, str]
    ) -> None:
        (tmp_path / name).write_bytes(content)
        for kind in ("jsonl", "csv", "table"):
            done = call("predict", edge_bundle, "--input", tmp_path / name, "--format", kind)
            said = f"{len(bad) + 2} rows: 2 answered, {len(bad)} failed (see the error records)\n"
            assert (done.code, done.err) == (3, said)
            assert done.out.count("\n") == len(done.out.splitlines())
        found = [json.loads(line) for line in call("predict", edge_bundle, "--input", tmp_path / name).out.splitlines()]
        assert [record["row"] for record in found] == sorted(record["row"] for record in found)
        errors = {record["row"]: record["error"] for record in found if "error" in record}
        assert list(errors) == list(bad)
        for row, error in errors.items():
            assert error["row"] == row and error["path"] == str(tmp_path / name)
            assert bad[row] in error["message"] + error["expected"]
        assert len(found) == len(bad) + 2

    @pytest.mark.parametrize("content", [b"", b"foo,bar\n1,2\n", "text\nnoon\n".encode("utf-16-le")])
    def test_files_that_give_nothing_are_refused(self, edge_bundle: Path, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "d.csv").write_bytes(content)
        target = tmp_path / "out.jsonl"
        message = refused("predict", edge_bundle, "--input", tmp_path / "d.csv", "--output", target)
        assert str(tmp_path / "d.csv") in message
        assert names(tmp_path) == ["d.csv"]

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(content=st.binary(max_size=200), kind=st.sampled_from([one.name for one in FORMATS]))
    def test_random_bytes_give_no_traceback(self, edge_bundle: Path, content: bytes, kind: str) -> None:
        done = call("predict", edge_bundle, "--input", "-", "--input-format", kind, stdin=content)
        assert done.code in (0, 1, 2, 3)
        assert all(isinstance(json.loads(line), dict) for line in done.out.splitlines())
        lines = [line for line in done.err.splitlines() if not line.startswith("note: <stdin>: ")]
        assert len(lines) == (1 if lines else 0)


class TestBundles:
    @pytest.mark.parametrize(
        ("command", "harm"),
        [
            ("predict B noon", "missing"),
            ("eval B --data d.csv", "truncated"),
            ("bench B", "altered"),
            ("inspect B", "newer"),
            ("predict B noon", "no manifest"),
        ],
    )
    def test_that_are_harmed(self, edge_bundle: Path, tmp_path: Path, command: str, harm: str) -> None:
        bundle = Path(shutil.copytree(edge_bundle, tmp_path / "bundle"))
        file = bundle / "kb" / "index.usearch"
        content = file.read_bytes()
        if harm == "missing":
            file.unlink()
        elif harm == "truncated":
            file.write_bytes(content[:-7])
        elif harm == "altered":
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        else:
            file = bundle / "manifest.json"
            newer = file.read_text().replace('"format_version": 1', '"format_version": 4')
            file.write_text(newer) if harm == "newer" else file.unlink()
        message = refused(*(str(bundle) if part == "B" else part for part in command.split()))
        assert str(file) in message
        expected = {
            "truncated": f"found {len(content) - 7} bytes; expected {len(content)}",
            "newer": "Upgrade",
            "altered": "sha256",
            "no manifest": "expected",
        }
        assert expected.get(harm, harm).lower() in message.replace("SHA-256", "sha256").lower()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limit every file to ``size`` bytes, like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FULL = "writing failed, no part of the output was left"


class TestFullDisks:
    def test_while_predicting_to_a_file(self, edge_bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "in.txt").write_text("noon\n" * 300)
        for kind in ("jsonl", "csv", "table"):
            target = tmp_path / f"out.{kind}"
            with largest_file(4000):
                message = refused(
                    *("predict", edge_bundle, "--input", tmp_path / "in.txt", "--output", target, "--format", kind),
                    code=1,
                )
            assert f"{target}: {FULL}; found File too large" in message
            assert names(tmp_path) == ["in.txt"]

    @pytest.mark.parametrize("command", [["predict", "B", "noon"], ["inspect", "B"], ["--help"]])
    def test_behind_stdout(self, edge_bundle: Path, command: list[str]) -> None:
        with Path("/dev/full").open("wb") as full:
            arguments = [str(edge_bundle) if part == "B" else part for part in command]
            done = finish(spawn(*arguments, stdout=full))
        assert done.code == 1 and done.err == "error: stdout: No space left on device\n"

    def test_while_reporting(self, edge_bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "d.csv").write_text(ROWS)
        report = tmp_path / "report.json"
        with largest_file(1000):
            done = call("eval", edge_bundle, "--data", tmp_path / "d.csv", "--split", "all", "--json", report)
        assert done.code == 1 and done.err.startswith(f"error: {report}: {FULL}")
        assert "student+retrieval" in done.out  # the figures are not lost
        assert names(tmp_path) == ["d.csv"]

    # The limits lie between the sizes of the files, so that each is stopped by another writer.
    @pytest.mark.parametrize("size", [100, 2_000, 6_000, 20_000, 60_000])
    def test_while_exporting(self, workshop: Workshop, tmp_path: Path, size: int) -> None:
        out = tmp_path / "bundle"
        with largest_file(size):
            message = refused("export", workshop.run, "--out", out, "--target", "avx2", code=1, remarks=3)
        assert f"{out}: {FULL}" in message
        assert names(tmp_path) == []

    @pytest.mark.parametrize("size", [10, 300, 2_000, 20_000, 60_000])
    def test_while_training(
        self, workshop: Workshop, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arguments = workshop.train_arguments(tmp_path / "run")
        monkeypatch.setattr("reaugkd.export.training.model_checks._exportable", set())
        with largest_file(size):  # the check of the models writes to the folder for temporary files
            assert f"error: {tempfile.gettempdir()}/" in refused(*arguments, code=1, remarks=20)
        monkeypatch.setattr("reaugkd.export.training.train.check_models", lambda *_: None)
        with largest_file(size):
            message = refused(*arguments, code=1, remarks=20)
        assert FULL in message and str(tmp_path / "run") in message
        assert no_temporaries(tmp_path)


class TestPlacesThatCannotBeWritten:
    @pytest.mark.parametrize("place", ["file/out", "/proc/nosuch/out", "x" * 250])
    def test_are_named(self, edge_bundle: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("file").write_text("mine")
        Path("d.csv").write_text(ROWS)
        message = refused("predict", edge_bundle, "noon", "--output", place, code=1)
        assert message.startswith(f"error: {place}: {FULL}; found ")
        done = call("eval", edge_bundle, "--data", "d.csv", "--split", "all", "--json", place)
        assert done.code == 1 and done.out == ""  # reported before anything is measured
        assert done.err.startswith(f"error: {place}: {FULL}")
        assert Path("file").read_text() == "mine" and names(tmp_path) == ["d.csv", "file"]

    def test_folders_without_permission(
        self, edge_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def denied(self: Path, *_arguments: object, **_options: object) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "touch", denied)
        message = refused("predict", edge_bundle, "noon", "--output", tmp_path / "out", code=1)
        assert f"{tmp_path / 'out'}: {FULL}; found Permission denied" in message

    @pytest.mark.parametrize("command", ["train", "export"])
    def test_for_training_and_exporting(self, workshop: Workshop, tmp_path: Path, command: str) -> None:
        (tmp_path / "file").write_text("mine")
        out = tmp_path / "file" / "out"
        arguments = workshop.train_arguments(out) if command == "train" else ["export", workshop.run, "--out", out]
        message = refused(*arguments, code=1)
        assert f"{FULL}; found" in message and str(out) in message
        assert names(tmp_path) == ["file"]


class TestExistingOutputs:
    def test_of_train(self, workshop: Workshop, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "file").write_text("mine")
        for place in (tmp_path / "folder", tmp_path / "folder" / "file"):
            message = refused(*workshop.train_arguments(place))
            assert f"{place}: the output exists already and is not a run folder" in message
        assert (tmp_path / "folder" / "file").read_text() == "mine" and names(tmp_path) == ["folder"]

    @pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
    def test_of_export_and_predict(self, workshop: Workshop, edge_bundle: Path, tmp_path: Path, kind: str) -> None:
        out = tmp_path / "out"
        if kind == "folder":
            out.mkdir()
        elif kind == "file":
            out.write_text("mine")
        else:
            out.symlink_to(tmp_path / "nowhere")
        for arguments in (["export", workshop.run, "--out", out], ["predict", edge_bundle, "noon", "--output", out]):
            assert f"{out}: the output exists already" in refused(*arguments)
        assert names(tmp_path) == ["out"]

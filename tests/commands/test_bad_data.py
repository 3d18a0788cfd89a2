"""Data, labels and models that cannot be used: one line with the place, what was found and expected, and a remedy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.command_line import ROWS, names, ok, refused
from support.workshop import Workshop


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

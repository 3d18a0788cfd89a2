"""JSON files in all their forms: what is no table is refused, and what is not JSON lines is not read as such."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from reaugkd import DataError
from reaugkd.runtime.data import BadRow, Columns, TextRow, load_dataset, read_labelled_rows, read_text_rows

ROWS = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]


def test_what_pandas_writes(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", "b\n", 'c"'], "label": [1, 0, 1]}, index=[3, 5, 8])
    for orient in ("columns", "index", "split", "table", "records"):
        path = tmp_path / f"{orient}.json"
        frame.to_json(path, orient=orient)
        train = load_dataset(path).splits["train"]
        assert (train.texts, train.labels) == (["a", "b\n", 'c"'], ["1", "0", "1"]), orient
    frame.to_json(tmp_path / "lines.json", orient="records", lines=True)
    assert load_dataset(tmp_path / "lines.json").splits["train"].texts == ["a", "b\n", 'c"']
    frame.to_json(tmp_path / "values.json", orient="values")
    with pytest.raises(DataError, match="row 1: the row has no named columns"):
        load_dataset(tmp_path / "values.json")


def test_splits_of_objects_take_the_named_columns(tmp_path: Path) -> None:
    rows = [{"text": "no", "note": "a", "label": "x"}, {"text": "no", "note": "b", "label": "y"}]
    path = tmp_path / "all.json"
    path.write_text(json.dumps({"train": rows, "test": {"data": rows[:1]}, "version": "1"}))
    told: list[str] = []
    dataset = load_dataset(path, Columns(text="note"), tell=told.append)
    assert {name: split.texts for name, split in dataset.splits.items()} == {"train": ["a", "b"], "test": ["a"]}
    assert dataset.splits["test"].source == f"{path}[test]"
    assert told == [f"{path}: not read: 'version'", f"{path}: the rows are those of 'data'"]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "value",
    [
        *({"a": [1], "b": []}, {"text": {"x": "a"}}, {"data": [["a", "x"]]}, {"data": ROWS, "rows": ROWS}),
        *({"0": "a", "1": {"text": "b"}}, {"intents": [{"tag": "x"}], "more": [1]}, {"train": [], "fold": ROWS}),
    ],
)
def test_what_is_no_table(tmp_path: Path, value: object, indent: int | None) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value, indent=indent))
    with pytest.raises(DataError, match=r"no rows|other keys beside its splits|no text column"):
        load_dataset(path)


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("value", [ROWS, {"data": ROWS}, {"train": ROWS}, ["a", "b", "c"]])
def test_a_file_of_json_is_not_taken_for_lines(value: Any, indent: int | None) -> None:
    content = json.dumps(value, indent=indent).encode()
    with pytest.raises(DataError, match=r"the file is not JSON lines; .* --input-format json,"):
        list(read_text_rows(io.BytesIO(content), "jsonl"))


def test_lines_that_look_like_one() -> None:
    for pair, lines, texts in (
        (False, ['{"text": "a", "label": {"x": 0.5, "y": 0.5}}'], ["a"]),
        (False, ['{"text": "a", "entities": [{"name": "b"}]}'], ["a"]),
        (True, ['["a", "b"]', '["c", "d"]'], [("a", "b"), ("c", "d")]),
    ):
        content = "\n".join(lines).encode()
        for kind in ("jsonl", "json") if not pair else ("jsonl",):
            found = list(read_text_rows(io.BytesIO(content), kind, pair=pair))
            assert [row.text for row in found if isinstance(row, TextRow)] == texts


def test_one_bad_line_at_the_beginning_is_a_bad_row() -> None:
    found = list(read_text_rows(io.BytesIO(b'{"text": "a"\n{"text": "b"}\n'), "jsonl"))
    assert isinstance(found[0], BadRow) and found[1:] == [TextRow(2, "b")]


def test_rows_to_add_come_from_stdin_in_both_forms() -> None:
    for content in (json.dumps(ROWS), "\n".join(map(json.dumps, ROWS))):
        rows = read_labelled_rows(io.BytesIO(content.encode()))
        assert [(row.row, row.text, row.label) for row in rows] == [(1, "a", "x"), (2, "b", "y")]


def test_texts_that_look_like_json_are_said() -> None:
    told: list[str] = []
    for content in (json.dumps(ROWS), json.dumps(ROWS, indent=1), "\n".join(map(json.dumps, ROWS))):
        list(read_text_rows(io.BytesIO(content.encode()), tell=told.append))
    assert len(told) == 3 and all("look like JSON, but each is read as a text" in remark for remark in told)
    told.clear()
    list(read_text_rows(io.BytesIO(b"[laughs] hello\n{sic}\n"), tell=told.append))
    assert told == []

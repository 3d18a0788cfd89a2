from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from support.tiny_bundle import build_tiny_bundle, reseal

from reaugkd import Prediction, Runtime, TextError, UsageError
from reaugkd.runtime.output.prediction_formats import FORMATS, row_writer

ERROR = TextError("the text is empty", path="in.txt", row=2, found="''", remedy="Fill\nit.")


@pytest.fixture(scope="module")
def prediction(edge_bundle: Path) -> Prediction:
    with Runtime.open(edge_bundle) as runtime:
        return runtime.predict("noon")


@pytest.fixture(scope="module")
def alone(edge_bundle: Path) -> Prediction:
    with Runtime.open(edge_bundle, retrieval="never") as runtime:
        return runtime.predict("noon")


def written(kind: str, *rows: tuple[object, ...], explain: bool = False, labels: tuple[str, ...] = ("a", "b")) -> str:
    out = io.StringIO()
    write = row_writer(kind, out, explain, labels)
    for row in rows:
        write(*row)  # type: ignore[arg-type]
    return out.getvalue()


def test_jsonl_is_one_object_a_row_whatever_is_in_it(prediction: Prediction) -> None:
    lines = written("jsonl", (1, "noon\n", prediction), (2, None, ERROR), (3, ("é", "木"), prediction)).split("\n")
    first, second, third, end = lines
    assert end == "" and json.loads(first) == {**json.loads(third), "row": 1}
    assert json.loads(first) == {"row": 1, **prediction.as_record()}
    assert json.loads(second) == {"row": 2, "error": ERROR.as_record()}
    assert set(json.loads(second)["error"]) == {"type", "message", "path", "row", "found", "remedy"}


def test_jsonl_explains(prediction: Prediction, alone: Prediction) -> None:
    explained, bare = written("jsonl", (1, "x", prediction), (2, "x", alone), explain=True).splitlines()
    assert json.loads(explained)["neighbours"] == [near.as_record() for near in prediction.neighbours]
    assert json.loads(bare)["neighbours"] == [] and json.loads(bare)["retrieval_probabilities"] is None


@pytest.mark.parametrize("explain", [False, True])
def test_csv_has_the_same_columns_in_every_row(prediction: Prediction, explain: bool) -> None:
    out = written("csv", (1, "a,b", prediction), (2, None, ERROR), explain=explain)
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["row", "label", "probability", "retrieved", "error", "truncated"] + ["neighbours"] * explain
    assert {len(row) for row in rows} == {6 + explain} and len(rows) == 3
    assert rows[1][:6] == ["1", prediction.label, f"{prediction.probability:.6f}", "true", "", "false"]
    assert rows[2][:6] == ["2", "", "", "", " ".join(str(ERROR).split()), ""]
    if explain:
        assert len(json.loads(rows[1][6])) == 8 and rows[2][6] == ""
    assert out.count("\n") == 3


def test_table_lines_up(prediction: Prediction) -> None:
    out = written("table", (1, "noon", prediction), (2, None, ERROR), (3, ("a", "b"), prediction), labels=("b", "long"))
    header, first, error, last = out.splitlines()
    for line in (first, last):
        assert line.index(prediction.label) == header.index("label")
        assert line.index("%") == header.index("prob.") + 5 - 1
    assert first.endswith("  noon") and last.endswith("  a | b")
    assert error == f"    2  error: {' '.join(str(ERROR).split())}"


def test_table_explains(prediction: Prediction, alone: Prediction) -> None:
    lines = written("table", (1, "noon", prediction), (2, "noon", alone), explain=True).splitlines()
    header, subheader, first, student, neighbours, decided, *rest = lines
    assert decided.endswith(f"= decided by: {prediction.decided_by}") and prediction.decided_by == "student"
    assert "cosine and text of each neighbour" in subheader and header.split()[0] == "row"
    assert student.endswith("= student alone") and neighbours.endswith("= neighbours alone")
    for line, near in zip(rest[:8], prediction.neighbours, strict=True):
        assert f"{near.weight:.1%}  {near.similarity:.3f} " in line and line.split()[0] == near.label
    assert [line.split()[0] for line in rest[8:]] == ["2", alone.label]  # nothing was retrieved
    assert first.startswith("    1  ")


def test_table_shows_the_first_of_many_neighbours(edge_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(edge_bundle, tmp_path / "bundle"))
    blend = json.loads((bundle / "manifest.json").read_text())["blend"]
    reseal(bundle, blend={**blend, "k": 16})
    with Runtime.open(bundle) as runtime:
        answer = runtime.predict("noon")
    *_, tenth, more = written("table", (1, "noon", answer), explain=True).splitlines()
    assert f"{answer.neighbours[9].similarity:.3f}" in tenth
    assert more.split() == ["...", f"{sum(near.weight for near in answer.neighbours[10:]):.1%}", "6", "more"]


def test_the_table_shows_that_no_texts_are_kept(tmp_path: Path) -> None:
    with Runtime.open(build_tiny_bundle(tmp_path / "tiny", texts=False)) as runtime:
        out = written("table", (1, "noon", runtime.predict("noon")), explain=True)
    assert out.count("(the bundle stores no texts)") == 8


@pytest.mark.parametrize(
    "text", ["two\nlines\tand\r\ntabs", "bell\a and \x1b[31mred\x1b[0m", "w " * 500, "\x9b31m\x7f"]
)
def test_table_keeps_a_row_on_one_line_that_a_terminal_does_not_act_on(prediction: Prediction, text: str) -> None:
    out = written("table", (1, text, prediction), (2, (text, text), prediction))
    assert len(out.splitlines()) == 3
    assert all(mark == "\n" or mark.isprintable() for mark in out)
    assert max(map(len, out.splitlines())) <= 120


def test_table_cuts_labels_that_would_push_everything_aside(prediction: Prediction) -> None:
    lines = written("table", (1, "noon", prediction), labels=("x" * 300, "b")).splitlines()
    assert len(lines[0]) < 60


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_gives_no_rows(kind: str) -> None:
    assert len(written(kind).splitlines()) == (1 if kind == "csv" else 0)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match="found 'xml'; expected one of table, jsonl, csv"):
        row_writer("xml", io.StringIO(), explain=False)

"""Files of all kinds through the command line: notes go to stderr, and what cannot be read ends with 2."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from support.command_line import call, ok, refused

ROWS = [{"text": "noon", "label": "a"}, {"text": "alarm", "label": "b"}, {"text": "noon alarm", "label": "a"}]
TEXTS = [row["text"] for row in ROWS]


def answers(out: str) -> list[object]:
    """The answers without their row numbers: these show which text was read."""
    return [{**json.loads(line), "row": None} for line in out.splitlines()]


def answers_to(bundle: Path, *texts: str) -> list[object]:
    return answers(ok("predict", bundle, *texts, "--format", "jsonl").out)


def test_a_table_in_another_dialect_and_encoding(edge_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("text;label\r\nnoon für 5 €;a\r\n".encode("cp1252"))
    note = f"note: {path}: the cells are separated by a semicolon\n"
    done = ok("predict", edge_bundle, "--input", path, "--encoding", "cp1252")
    assert answers(done.out) == answers_to(edge_bundle, "noon für 5 €") and done.err == f"{note}1 row: 1 answered\n"
    assert call("predict", edge_bundle, "--input", path).out.count("such as --encoding cp1252") == 1
    assert note in ok("eval", edge_bundle, "--data", path, "--split", "all", "--encoding", "cp1252").err
    assert "--encoding cp1252" in refused("eval", edge_bundle, "--data", path, "--split", "all", remarks=1)
    message = refused("predict", edge_bundle, "--input", path, "--encoding", "klingon")
    assert "unknown encoding; found 'klingon'" in message


def test_an_array_is_read_as_json_and_refused_as_lines(edge_bundle: Path, tmp_path: Path) -> None:
    content = json.dumps(ROWS).encode()
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    expected = answers_to(edge_bundle, *TEXTS)
    assert answers(ok("predict", edge_bundle, "--input", path).out) == expected
    assert answers(
        ok("predict", edge_bundle, "--input", "-", "--input-format", "json", stdin=content).out
    ) == answers_to(edge_bundle, *TEXTS)
    message = refused("predict", edge_bundle, "--input", path, "--input-format", "jsonl")
    assert "not JSON lines" in message and "--input-format json" in message


def test_compressed_rows_on_stdin_and_parts_in_a_folder(edge_bundle: Path, tmp_path: Path) -> None:
    lines = [json.dumps(row).encode() + b"\n" for row in ROWS]
    packed = gzip.compress(b"".join(lines))
    expected = answers_to(edge_bundle, *TEXTS)
    done = ok("predict", edge_bundle, "--input", "-", "--input-format", "jsonl", stdin=packed)
    assert answers(done.out) == expected
    for number, line in enumerate(lines):
        (tmp_path / f"part-{number}.jsonl.gz").write_bytes(gzip.compress(line))
    done = ok("predict", edge_bundle, "--input", tmp_path)
    assert answers(done.out) == answers_to(edge_bundle, *TEXTS) and [
        json.loads(line)["row"] for line in done.out.splitlines()
    ] == [1, 2, 3]
    note = f"note: {tmp_path / 'part-*.jsonl.gz'}: the rows of 3 files are read as one table"
    assert done.err.splitlines() == [note, "3 rows: 3 answered"]


def test_rows_to_add_are_of_any_kind(bundle: Path, tmp_path: Path) -> None:
    labels = json.loads((bundle / "manifest.json").read_text())["labels"]
    rows = [{"text": f"a new text {number}", "label": labels[0]} for number in range(2)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"data": rows}))
    done = ok("kb", "add", bundle, "--input", path)
    assert f"note: {path}: the rows are those of 'data'\n" in done.err and "2 added" in done.err
    assert "2 unchanged" in ok("kb", "add", bundle, "--input", "-", stdin=json.dumps(rows).encode()).err


@pytest.mark.parametrize("name", ["rows.txt", "rows.docx"])
def test_files_without_labels_are_not_added(bundle: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("noon\n")
    message = refused("kb", "add", bundle, "--input", tmp_path / name)
    assert ("with --label" if name == "rows.txt" else "the suffix of its format") in message

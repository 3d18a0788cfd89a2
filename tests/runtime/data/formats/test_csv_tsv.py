"""Tables of text: what csv and pandas write is read back equal, and unquoted tables keep their quotes."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from support.file_kinds import Pipe

from reaugkd import ColumnError, DataError
from reaugkd.runtime.data import BadRow, TextRow, load_dataset, read_text_rows
from reaugkd.runtime.data.formats import csv_tsv

# No NUL: csv of Python 3.11 refuses it.
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
TEXT = CELL.filter(lambda text: bool(text.strip()) and text.strip().lower() not in ("nan", "<na>"))
TRICKY = st.text('"\t\n,;| ab', min_size=1, max_size=8).filter(lambda text: bool(text.strip()))
ROWS = st.lists(st.tuples(TEXT | TRICKY, TEXT | TRICKY), min_size=1, max_size=6)


def read(content: str, kind: str, told: list[str] | None = None, size: int = 1 << 16) -> list[TextRow | BadRow]:
    told = [] if told is None else told
    return list(read_text_rows(Pipe(content.encode(), size), kind, tell=told.append))  # type: ignore[arg-type]


def texts(rows: list[TextRow | BadRow]) -> list[object]:
    return [row.text if isinstance(row, TextRow) else str(row.error) for row in rows]


@settings(max_examples=100, deadline=None)
@given(
    rows=ROWS,
    delimiter=st.sampled_from(",;\t|"),
    ending=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    size=st.sampled_from([1, 7, 1 << 16]),
)
@example(rows=[('"', "a")], delimiter="\t", ending="\n", quoting=csv.QUOTE_MINIMAL, size=7)
@example(rows=[("a\tb\nc", 'a"\r')], delimiter="\t", ending="\r\n", quoting=csv.QUOTE_MINIMAL, size=7)
def test_quoted_tables_are_read_as_they_were_written(
    rows: list[tuple[str, str]], delimiter: str, ending: str, quoting: int, size: int
) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=ending, quoting=quoting)  # type: ignore[arg-type]
    writer.writerows([("text", "note"), *rows])
    # Without a doubled quote, lines that are whole rows on their own are taken as such.
    assume(delimiter != "\t" or '""' in out.getvalue() or not any("\t" in c and "\n" in c for row in rows for c in row))
    for kind in ("csv", "tsv"):
        found = read(out.getvalue(), kind, size=size)
        assert texts(found) == [text for text, _ in rows]
        assert [row.row for row in found] == list(range(2, len(rows) + 2))


UNQUOTED = st.text('" ab.', min_size=1, max_size=8).map(lambda text: f"{text}.")


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(UNQUOTED, UNQUOTED), min_size=1, max_size=8))
@example(rows=[('"abc', "0"), ('def"', "1")])  # the quotes close, but each line is a row without them
@example(rows=[('say "hi"', "0"), ('"abc"', "1")])
@example(rows=[('"abc"', "0"), ('"a" b', "1")])
def test_unquoted_tables_keep_their_quotes(rows: list[tuple[str, str]]) -> None:
    told: list[str] = []
    found = read("text\tnote\n" + "".join(f"{text}\t{note}\n" for text, note in rows), "tsv", told)
    assert texts(found) == [text for text, _ in rows]
    assert told == []


@pytest.mark.parametrize("late", [1, 50])
def test_the_first_quote_decides_however_late_it_comes(monkeypatch: pytest.MonkeyPatch, late: int) -> None:
    monkeypatch.setattr(csv_tsv, "_LOOK_AHEAD_CHARS", 200)
    plain = "".join(f"row {number}\t{number}\n" for number in range(late))
    quoted = plain + '"he said ""hi""\tto\nme"\t0\n' + plain
    found = read("text\tnote\n" + quoted, "tsv")
    assert [row.row for row in found] == list(range(2, 2 * late + 3))
    assert texts(found)[late] == 'he said "hi"\tto\nme'
    bare = plain + '"he said\t0\n' + plain
    assert texts(read("text\tnote\n" + bare, "tsv"))[late] == '"he said'


def test_what_cannot_be_told_is_said() -> None:
    told: list[str] = []
    assert texts(read('text\n"one\ntwo"\nthree\n', "tsv", told)) == ["one\ntwo", "three"]
    assert texts(read('text\tnote\n"whole"\t1\n', "tsv", told)) == ["whole"]
    assert len(told) == 2
    assert all(remark.startswith("<stdin>: line 2: quotes around whole cells are taken as quoting") for remark in told)


def test_other_dialects_are_told() -> None:
    for content, remark in (
        ("text;note\na, b;1,5\n", "the cells are separated by a semicolon"),
        ("text|note\na, b|1\n", "the cells are separated by a vertical bar"),
        ('text, note\n"a, b", 1\n', "a blank after a comma is no part of the cell"),
        ('sep=;\ntext;note\n"a, b";1\n', "the cells are separated by a semicolon"),
        ('text,note\r"a, b",1\r', "lines end with CR alone"),
    ):
        told: list[str] = []
        assert texts(read(content, "csv", told)) == ["a, b"]
        assert told == [f"<stdin>: {remark}"]
    # A separator in quotes, or fewer of them than commas, changes nothing.
    told = []
    assert texts(read('"a;b",text\nx,y\n', "csv", told) + read("a;b,text,c\nx,y,z\n", "csv", told)) == ["y", "y"]
    assert told == []


def test_carriage_returns_within_texts_are_no_line_ends() -> None:
    told: list[str] = []
    assert texts(read("one\rstill one\ntwo\r\n", "txt", told)) == ["one\rstill one", "two"]
    assert texts(read('text,note\r\n"a\rb",1\r\n', "csv", told)) == ["a\rb"]
    assert told == []
    assert texts(read("one\rtwo\rthree", "txt", told)) == ["one", "two", "three"]
    assert texts(read('"one"\r"two"\r', "jsonl", told)) == ["one", "two"]
    assert told == ["<stdin>: lines end with CR alone"] * 2


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ('text;note\n"a \\"b\\" c";1\n', 'Write a quote inside a cell as "", not as \\".'),
        ('text;note\n"a;1\n', "Double the quotes inside the cell, or write JSON lines."),
        ("text;note\na;b;1\n", "Quote every cell that holds a semicolon or a line break."),
        ('text\tnote\n"x ""y"""\t1\na\tb\t1\n', "Quote every cell that holds a tab or a line break."),
    ],
)
def test_remedies_fit_the_file(content: str, error: str) -> None:
    assert str(texts(read(content, "csv"))[-1]).endswith(error)


def test_excel_german(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes("id;text;label;score\r\n0;für 5 €;an;0,5\r\n1;grün;aus;1,5\r\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"row 2: the bytes are not UTF-8; found byte 0xfc .*--encoding cp1252"):
        load_dataset(path)


def test_a_header_alone_names_what_was_found() -> None:
    with pytest.raises(ColumnError, match="no text column; columns found: 'id', 'body of it'"):
        read("id;body of it\n1;a\n", "csv")
    with pytest.raises(ColumnError, match=r"columns found: 'text;label'; .* The header may be in quotes as a whole"):
        read('"text;label"\n"a;x"\n', "csv")


@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "jsonl"])
def test_each_row_of_a_live_pipe_is_read_as_soon_as_it_is_there(kind: str) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as pipe:
        rows = read_text_rows(stream, kind)
        pipe.write(b"" if kind in ("txt", "jsonl") else b"text\n")
        for text in ("one", "two", "three"):
            pipe.write(f'"{text}"\n'.encode() if kind == "jsonl" else f"{text}\n".encode())
            assert texts([next(rows)]) == [text]

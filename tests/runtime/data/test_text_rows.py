"""Texts to predict: every row is returned in order, as a TextRow or a BadRow."""

from __future__ import annotations

import codecs
import io
import json
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reaugkd import ColumnError, DataError, TextError, UsageError
from reaugkd.runtime.data import BadRow, Columns, TextRow, load_dataset, read_text_rows
from reaugkd.runtime.data.formats import csv_records
from reaugkd.runtime.data.formats.decoding import lines

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def read(content: bytes | str, kind: str | None = None, **settings: object) -> list[TextRow | BadRow]:
    data = content.encode("utf-8") if isinstance(content, str) else content
    return list(read_text_rows(io.BytesIO(data), kind, **settings))  # type: ignore[arg-type]


def texts(records: list[TextRow | BadRow]) -> list[object]:
    """Return the texts, and for a bad record its row and the error message."""
    return [one.text if isinstance(one, TextRow) else (one.row, one.error.message) for one in records]


def test_a_stream_is_plain_text_by_default() -> None:
    assert read('one\ntwo words\r\n{"text": "three"}\nnan') == [
        TextRow(1, "one"),
        TextRow(2, "two words"),
        TextRow(3, '{"text": "three"}'),
        TextRow(4, "nan"),
    ]
    assert read("") == []


def test_an_empty_line_is_a_bad_record_in_its_place() -> None:
    records = read("one\n\n  \nfour\n")
    assert texts(records) == ["one", (2, "the text is empty"), (3, "the text is empty"), "four"]
    assert isinstance(records[1], BadRow)
    assert isinstance(records[1].error, TextError)


def test_text_pairs_of_lines_are_set_apart_by_a_tab() -> None:
    records = read("a\tb\nalone\nc\td\te\n", pair=True)
    assert texts(records) == [
        ("a", "b"),
        (2, "this model reads pairs of texts"),
        (3, "this model reads pairs of texts"),
    ]


@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "jsonl"])
def test_bytes_that_are_no_utf8_spoil_their_own_row_only(kind: str) -> None:
    rows = [b"good", b"bad \xff byte", b"good again"]
    if kind == "jsonl":
        rows = [b'"' + row + b'"' for row in rows]
    if kind in ("csv", "tsv"):
        rows = [b"text", *rows]
    first, bad, last = read(b"\n".join(rows), kind)
    shift = 1 if kind in ("csv", "tsv") else 0
    offset = b"\n".join(rows).index(b"\xff")
    assert texts([first, last]) == ["good", "good again"]
    assert isinstance(bad, BadRow)
    assert bad.row == bad.error.row == 2 + shift
    assert f"byte 0xff at byte offset {offset}" in str(bad.error)


def test_a_bad_byte_inside_quotes_does_not_upset_the_rows_after_it() -> None:
    records = read(b'text,id\n"one\n\xfe, two",1\nthree,2\n', "csv")
    assert texts(records) == [(2, "the bytes are not UTF-8"), "three"]
    assert isinstance(records[0], BadRow)
    assert "(line 3)" in str(records[0].error)


def test_ragged_rows_name_row_and_counts() -> None:
    for kind, content in (("csv", "text,id\na,1\nb\nc,2,3\n\nd,4\n"), ("tsv", "text\tid\na\t1\nb\nc\t2\t3\n\nd\t4\n")):
        records = read(content, kind)
        assert [one.row for one in records] == [2, 3, 4, 6]
        assert [isinstance(one, BadRow) for one in records] == [False, True, True, False]
        assert "row 4: the row does not have as many cells as the header; found 3 cells; expected 2 cells" in str(
            records[2].error if isinstance(records[2], BadRow) else ""
        )


def test_a_quote_that_never_closes_costs_its_own_line_only() -> None:
    records = read('text,id\na,1\n"b,2\nc,3\n"d\nd",4\n', "csv")
    # The stray quote is closed by the one that opens "d"; what lies between are rows of their own all the same.
    assert texts(records) == ["a", (3, "malformed CSV (a quote that never closes)"), "c", "d\nd"]
    assert [one.row for one in records] == [2, 3, 4, 5]
    records = read('text,id\na,1\n"b,2\nc,3\nd,4\n', "csv")
    assert texts(records) == ["a", (3, "malformed CSV (a quote that never closes)"), "c", "d"]
    assert [one.row for one in records] == [2, 3, 4, 5]


def test_stray_quotes_in_a_long_file_do_not_eat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_records, "MAX_RECORD_CHARS", 50)
    content = "text,id\n" + "".join(f"row {n},{n}\n" for n in range(9)) + '"stray,9\n'
    content += "".join(f"row {n},{n}\n" for n in range(10, 40))
    found = texts(read(content, "csv"))
    assert len(found) == 40
    assert [one for one in found if isinstance(one, tuple)] == [(11, "malformed CSV (a quote that never closes)")]


def test_malformed_json_lines() -> None:
    content = (
        '{"text": "a"}\n{"text": \n\n[1]\n7\n{"text": null}\n{"text": NaN}\n{"id": 1}\n"bare"\n{"text": "\\ud800"}\n'
    )
    assert texts(read(content, "jsonl")) == [
        "a",
        (2, "malformed JSON"),
        (4, "this model reads single texts"),
        (5, "the text is not a string"),
        (6, "the text is missing"),
        (7, "the text is missing"),
        (8, "the text is missing"),
        "bare",
        (10, "the text holds an unpaired surrogate"),
    ]
    assert texts(read("[" * 100_000 + "\n" + "9" * 5000, "jsonl")) == [(1, "malformed JSON"), (2, "malformed JSON")]


def test_json_lines_of_pairs_and_columns_of_the_first_good_object() -> None:
    content = '{"id": 1}\n{"premise": "a", "hypothesis": "b"}\n["c", "d"]\n["e"]\n"f"\n{"premise": "g"}\n'
    records = read(content, "jsonl", pair=True)
    assert texts(records) == [
        (1, "no pair of text columns; columns found: 'id'"),
        ("a", "b"),
        ("c", "d"),
        (4, "this model reads pairs of texts"),
        (5, "this model reads pairs of texts"),
        (6, "the text is missing"),
    ]
    assert isinstance(records[0], BadRow)
    assert "row 1" in str(records[0].error)


def test_columns_of_a_stream() -> None:
    content = "note,text,label,category\nn,t,l,c\n"
    assert texts(read(content, "csv")) == ["t"]
    assert texts(read(content, "csv", columns=Columns(text="note", label="gone"))) == ["n"]
    assert texts(read(content, "csv", columns=Columns("note", "text"), pair=True)) == [("n", "t")]
    with pytest.raises(ColumnError, match="no such column; columns found: 'note', 'text', 'label', 'category'"):
        read(content, "csv", columns=Columns(text="body"))
    with pytest.raises(ColumnError, match="pairs of texts"):
        read(content, "csv", columns=Columns(text="note"), pair=True)
    with pytest.raises(UsageError, match="this model reads single texts"):
        read(content, "csv", columns=Columns("note", "text"))


def test_a_single_text_is_not_taken_from_a_pair_by_guess() -> None:
    with pytest.raises(ColumnError, match="no text column; columns found: 'sentence1', 'sentence2'"):
        read("sentence1\tsentence2\na\tb\n", "tsv")


def test_missing_cells_of_a_table() -> None:
    assert texts(read("text,id\n,1\nNaN,2\n  ,3\nok,4\n", "csv")) == [
        (2, "the text is empty"),
        (3, "the text is missing"),
        (4, "the text is empty"),
        "ok",
    ]


def test_a_ten_megabyte_text_is_a_bad_record() -> None:
    long = "x" * 10_000_000
    assert texts(read(f"{long}\nshort\n")) == [(1, "the text is too long"), "short"]
    assert texts(read(f'text,id\n"{long}",1\nshort,2\n', "csv")) == [(2, "the text is too long"), "short"]
    assert texts(read(json.dumps({"text": long}) + '\n"short"\n', "jsonl")) == [(1, "the text is too long"), "short"]
    [bad, *_] = read(f"{long}\n")
    assert isinstance(bad, BadRow)
    assert "found 10,000,000 characters; expected at most 1,000,000" in str(bad.error)


@pytest.mark.parametrize("end", ["", "\nshort"])
def test_a_line_beyond_the_limit_is_passed_over(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    records = read("x" * 100 + "\n" + "y" * 101 + "\n" + "z" * 300_000 + end)
    assert texts(records)[:3] == ["x" * 100, (2, "the line is too long"), (3, "the line is too long")]
    assert texts(records)[3:] == end.split()
    assert isinstance(records[2], BadRow)
    assert "300,00" in str(records[2].error)


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-32-le", codecs.BOM_UTF32_LE),
        ("utf-32-be", codecs.BOM_UTF32_BE),
    ],
)
@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "jsonl"])
def test_other_encodings_are_known_by_their_mark_or_named(encoding: str, mark: bytes, kind: str) -> None:
    content = {"txt": "für 5 €\r\n", "jsonl": '"für 5 €"\n'}.get(kind, "text\nfür 5 €\n")
    told: list[str] = []
    assert texts(read(mark + content.encode(encoding), kind, tell=told.append)) == ["für 5 €"]
    assert told == [f"<stream>: read as {encoding[:6].upper()}, which its byte order mark names"]
    assert texts(read(content.encode(encoding), kind, columns=Columns(encoding=encoding))) == ["für 5 €"]
    if encoding.startswith("utf-16"):
        with pytest.raises(TextError, match=f"zero bytes, as in UTF-16; .*--encoding {encoding}"):
            read(content.encode(encoding), kind)


def test_bytes_that_a_named_encoding_lacks_spoil_their_own_row_only() -> None:
    rows = b"text\nf\xfcr 5 \x80\nno \x81 there\nlast\n"
    first, bad, last = read(rows, "csv", columns=Columns(encoding="cp1252"))
    assert texts([first, last]) == ["für 5 €", "last"]
    assert isinstance(bad, BadRow)
    assert "row 3: the bytes are not CP1252; found byte 0x81" in str(bad.error)
    assert isinstance(found := read(rows, "csv")[0], BadRow)
    assert "such as --encoding cp1252" in str(found.error)
    odd = "a\nb\n".encode("utf-16-le") + b"\x00\xdc\n\x00" + "c\n".encode("utf-16-le") + b"d"
    assert texts(read(odd, columns=Columns(encoding="utf-16-le"))) == [
        *("a", "b"),
        *((3, "the bytes are not UTF-16-LE"), "c", (5, "the bytes are not UTF-16-LE")),
    ]
    for wrong in ("nosuch", "hex", "idna", "undefined"):
        with pytest.raises(UsageError, match=f"unknown encoding; found '{wrong}'"):
            read(rows, columns=Columns(encoding=wrong))


def test_a_byte_order_mark_is_no_text() -> None:
    for kind, content in (("txt", "\ufeffa\n"), ("csv", "\ufefftext,id\na,1\n"), ("jsonl", '\ufeff"a"\n')):
        assert texts(read(content, kind)) == ["a"]
    assert read("\ufeff") == []


def test_the_suffix_gives_the_format_and_files_are_checked_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text('"a"\n')
    assert list(read_text_rows(tmp_path / "a.ndjson")) == [TextRow(1, "a")]
    assert list(read_text_rows(str(tmp_path / "a.ndjson"), "txt")) == [TextRow(1, '"a"')]
    with pytest.raises(DataError, match="no such file"):
        read_text_rows(tmp_path / "b.txt")
    (tmp_path / "a.docx").touch()
    with pytest.raises(UsageError, match="unknown input format; found 'docx'"):
        read_text_rows(tmp_path / "a.docx")
    with pytest.raises(UsageError, match="unknown input format; found 'xml'"):
        read_text_rows(io.BytesIO(), "xml")
    with pytest.raises(DataError, match="the folder holds no split files"):
        read_text_rows(tmp_path)
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    with pytest.raises(DataError, match="no such file"):
        read_text_rows(tmp_path / "loop.txt")


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "b.csv"])
def test_a_file_without_rows_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("text,id\n" if name == "b.csv" else "")
    with pytest.raises(DataError, match="the file is empty; found 0 rows"):
        list(read_text_rows(tmp_path / name))


def test_parquet_streams_its_batches(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [f"text {n}" for n in range(1000)]
    rows[700] = ""
    parquet.write_table(pyarrow.table({"text": rows}), tmp_path / "a.parquet", row_group_size=300)
    found = list(read_text_rows(tmp_path / "a.parquet"))
    assert len(found) == 1000
    assert texts(found[699:702]) == ["text 699", (701, "the text is empty"), "text 701"]
    with pytest.raises(UsageError, match="cannot be read from a pipe"):
        list(read_text_rows(_Endless(b""), "parquet"))  # type: ignore[arg-type]


def test_parquet_strings_that_are_no_utf8(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = pyarrow.array([b"good", b"\xff", b"fine"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    assert texts(list(read_text_rows(tmp_path / "a.parquet"))) == ["good", (2, "the bytes are not UTF-8"), "fine"]


class _Endless(io.RawIOBase):
    """A pipe that returns the same line forever."""

    def __init__(self, line: bytes) -> None:
        self._line = line

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer: WriteableBuffer) -> int:
        whole = self._line * (len(memoryview(buffer)) // len(self._line))
        memoryview(buffer)[: len(whole)] = whole
        return len(whole)


@pytest.mark.parametrize(
    ("kind", "line"), [("txt", b"a b\n"), ("csv", b"text\n"), ("tsv", b"text\n"), ("jsonl", b'"a"\n')]
)
def test_an_endless_stream_is_read_lazily_in_constant_memory(kind: str, line: bytes) -> None:
    records: Iterator[TextRow | BadRow] = read_text_rows(_Endless(line), kind)  # type: ignore[arg-type]
    for _ in islice(records, 100):
        pass
    tracemalloc.start()
    try:
        for _ in islice(records, 20_000):
            pass
        assert tracemalloc.get_traced_memory()[1] < 600_000
    finally:
        tracemalloc.stop()


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=120), kind=st.sampled_from(["csv", "tsv", "jsonl"]))
@example(content=b'"\r\n"a\n\r"\n', kind="csv")
@example(content=b'a\rb\n"', kind="csv")
def test_no_bytes_make_a_reader_crash_or_skip_rows(content: bytes, kind: str) -> None:
    head = b'"text"\n' if kind == "jsonl" else b"text\n"
    records = read(head + content, kind)
    rows = [one.row for one in records]
    assert rows == sorted(set(rows))
    assert all(isinstance(one, (TextRow, BadRow)) for one in records)
    assert len(rows) <= (head + content).count(b"\n") + 1


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=120))
def test_every_line_of_plain_text_gets_one_record(content: bytes) -> None:
    expected = content.split(b"\n")
    rows = read(b"head\n" + content)
    assert len(rows) == 1 + len(expected) - (expected[-1] == b"")
    assert [one.row for one in rows] == list(range(1, len(rows) + 1))


def test_loading_raises_the_errors_of_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\na,x\n\xff,y\n")
    with pytest.raises(TextError) as caught:
        load_dataset(path)
    assert (caught.value.path, caught.value.row) == (str(path), 3)

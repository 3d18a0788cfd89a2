"""Workbooks of Excel."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import pytest

from reaugkd import DataError, DependencyError
from reaugkd.runtime.data import load_dataset, read_text_rows
from reaugkd.runtime.data.formats.decoding import compression

openpyxl = pytest.importorskip("openpyxl")


def workbook(path: Path, *rows: tuple[object, ...], more: int = 0) -> Path:
    book = openpyxl.Workbook()
    book.active.title = "first"
    for row in rows:
        book.active.append(row)
    for _ in range(more):
        book.create_sheet()
    book.save(path)
    return path


def test_the_first_sheet_is_read_and_the_others_are_told(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "a.xlsx", (), ("text", "label", None), ("a", 1), (None,), ("b", 0, "note"), ("c",), more=2
    )
    told: list[str] = []
    assert "the first is row 6" in load_dataset(path).notes[0]
    rows = list(read_text_rows(path, tell=told.append))
    assert [(row.row, row.text) for row in rows] == [(3, "a"), (5, "b"), (6, "c")]  # type: ignore[union-attr]
    assert told == [f"{path}: only the first of 3 sheets is read: 'first'"]


def test_a_wrong_size_in_the_file_is_not_believed(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", ("text", "label"), ("a", "x"), ("b", "y"))
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert b'ref="A1:B3"' in files["xl/worksheets/sheet1.xml"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content.replace(b'ref="A1:B3"', b'ref="A1"'))
    assert load_dataset(path).splits["train"].texts == ["a", "b"]


def test_numbers_are_labels(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsm", ("text", "label"), ("a", 1), ("b", 0))
    assert load_dataset(path).splits["train"].labels == ["1", "0"]


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.xlsx"
    with pytest.raises(DataError, match="the file is empty"):
        load_dataset(workbook(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "no")
    with pytest.raises(DataError, match=r"the workbook cannot be read; .* Save it again as .xlsx, or as CSV UTF-8"):
        load_dataset(path)
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match="the workbook cannot be read; found File is not a zip file"):
        load_dataset(path)
    monkeypatch.setattr(compression, "_FREE_BYTES", 10_000)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b"0" * 1_000_000)
    path.write_bytes(file.getvalue())
    with pytest.raises(DataError, match="suspiciously large"):
        load_dataset(path)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DependencyError, match=r"pip install 'reaugkd\[excel\]'"):
        load_dataset(path)

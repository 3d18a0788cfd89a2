"""Folders: split files, parts of splits, parts of one table, and what lies beside them."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest

from reaugkd import ColumnError, DataError, TextError, UsageError
from reaugkd.runtime.data import BadRow, load_dataset, read_labelled_rows, read_text_rows

NUMBERED = [f"{number}" for number in range(12)]


def write(folder: Path, *names: str, header: str = "text,label") -> None:
    """Write two rows to each file, whose texts begin with the file's number."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = f"{header}\n{number} a,x\n{number} b,y\n".encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def texts_of(count: int) -> list[str]:
    return [f"{number} {letter}" for number in range(count) for letter in "ab"]


@pytest.mark.parametrize(
    "names",
    [
        [f"train-{number:05}-of-00003.csv" for number in range(3)],
        [f"train-{number:05}-of-00003-0123456789abcdef.csv" for number in range(3)],
        [f"train_{number}.csv.gz" for number in range(12)],  # 2 comes before 10
        [f"data/train-{number:05}-of-00002.csv" for number in range(2)],
        [f"train/{number:04}.csv" for number in range(3)],
        [f"part-{number:05}-1a2b3c4d-0000-4000-8000-0123456789ab-c000.csv" for number in range(3)],
        [f"{number}.csv" for number in range(3)],
    ],
)
def test_parts_are_read_in_order_by_every_reader(tmp_path: Path, names: list[str]) -> None:
    write(tmp_path, *names)
    (tmp_path / "_SUCCESS").touch()
    told: list[str] = []
    train = load_dataset(tmp_path, tell=told.append).splits["train"]
    assert train.texts == texts_of(len(names)) and len(set(train.rows)) == len(train)
    assert len(told) == 1 and told[0].endswith(f": the rows of {len(names)} files are read as one table")
    rows = list(read_text_rows(tmp_path))
    assert [row.text for row in rows] == train.texts  # type: ignore[union-attr]
    assert [row.row for row in rows] == train.rows
    assert [(row.row, row.text) for row in read_labelled_rows(tmp_path)] == list(
        zip(train.rows, train.texts, strict=True)
    )


def test_what_lies_beside_split_files_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, "train.csv")
    alone = load_dataset(tmp_path)
    write(tmp_path, "other.csv", "data/train-00000-of-00001.csv", "train/1.csv", "part-0.csv", "more/test.csv")
    (tmp_path / "train.zip").write_bytes(b"no archive")
    assert load_dataset(tmp_path).splits == alone.splits


def test_errors_name_the_part_and_its_own_row(tmp_path: Path) -> None:
    write(tmp_path, "part-0.csv", "part-1.csv", "part-2.csv")
    (tmp_path / "part-1.csv").write_bytes(b"text,label\n,x\n1 b,y\n")
    with pytest.raises(TextError) as caught:
        load_dataset(tmp_path)
    assert (caught.value.path, caught.value.row) == (str(tmp_path / "part-1.csv"), 2)
    rows = list(read_text_rows(tmp_path))
    bad = rows[2]
    assert isinstance(bad, BadRow) and (bad.row, bad.error.path, bad.error.row) == (5, str(tmp_path / "part-1.csv"), 2)
    assert [row.row for row in rows] == [2, 3, 5, 6, 8, 9]


def test_parts_that_do_not_fit(tmp_path: Path) -> None:
    write(tmp_path, "train-00000-of-00003.csv", "train-00002-of-00003.csv")
    for read in (load_dataset, read_text_rows, read_labelled_rows):
        with pytest.raises(DataError, match=r"parts of the table are missing; found 2 files .*; expected 3"):
            read(tmp_path)  # type: ignore[operator]
    write(tmp_path, "train-00001-of-00003.csv", header="text,class")
    with pytest.raises(ColumnError, match=r"other columns than the first part; found .* 'class'; expected 'label'"):
        load_dataset(tmp_path)
    (tmp_path / "train-00001-of-00003.csv").rename(tmp_path / "train-00001-of-00003.tsv")
    with pytest.raises(DataError, match=r"several formats; found \.csv, \.tsv"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("more", ["train.jsonl", "train.csv.gz", "train-1.csv", "train.CSV"])
def test_one_of_several_files_is_not_guessed(tmp_path: Path, more: str) -> None:
    write(tmp_path, "train.csv", more)
    with pytest.raises(DataError, match="several files could be the train split"):
        load_dataset(tmp_path)


def test_folders_of_other_files_are_no_table(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "b.csv")
    for read in (load_dataset, read_text_rows, read_labelled_rows):
        with pytest.raises(DataError, match=r"no split files; found a\.csv, b\.csv; .*Name the files after"):
            read(tmp_path)  # type: ignore[operator]
    write(tmp_path, "train.csv", "test.csv")
    for read in (read_text_rows, read_labelled_rows):
        with pytest.raises(DataError, match=r"several splits; found train, test; .* Give the file of one split"):
            read(tmp_path)  # type: ignore[operator]


def test_a_named_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "in"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"text\na\nb\n",))
    writer.start()
    assert [row.text for row in read_text_rows(pipe, "csv")] == ["a", "b"]  # type: ignore[union-attr]
    writer.join()
    with pytest.raises(UsageError, match="unknown input format; found no suffix"):
        read_text_rows(pipe)

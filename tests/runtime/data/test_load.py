"""Data sets are the same from folders and files of every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.file_kinds import write_csv

from reaugkd import ColumnError, DataError
from reaugkd.runtime.data import Columns, TextRow, label_indices, load_dataset, read_labelled_rows, read_text_rows

TRAIN = [("turn it on", "on"), ("turn it off, please", "off"), ('say "hi"\nto me', "on")]


def write_jsonl(path: Path, rows: list[object]) -> Path:
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return path


def write_tsv(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8"))
    return path


def objects(rows: list[tuple[str, str]]) -> list[object]:
    return [{"text": text, "label": label} for text, label in rows]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_every_format_reads_the_same_rows(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    if kind == "csv":
        write_csv(path, TRAIN)
    elif kind == "jsonl":
        write_jsonl(path, objects(TRAIN))
    elif kind == "json":
        path.write_text(json.dumps(objects(TRAIN), indent=1))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        texts, labels = zip(*TRAIN, strict=True)
        parquet.write_table(pyarrow.table({"text": list(texts), "label": list(labels)}), path, row_group_size=2)
    dataset = load_dataset(path)
    assert list(dataset.splits) == ["train"]
    assert dataset.name == "rows"
    assert dataset.label_names == ("off", "on")
    train = dataset.splits["train"]
    assert list(zip(train.texts, train.labels or [], strict=True)) == TRAIN
    assert train.rows == ([2, 3, 4] if kind == "csv" else [1, 2, 3])
    assert train.source == str(path)
    assert [row.text for row in read_text_rows(path) if isinstance(row, TextRow)] == train.texts
    assert [(row.text, row.label) for row in read_labelled_rows(path)] == TRAIN


def test_a_file_of_splits_is_not_a_file_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"train": [["a", "x"], ["b", "y"]], "val": [["c", "x"]]}))
    for read in (lambda: load_dataset(tmp_path), lambda: list(read_text_rows(path)), lambda: read_labelled_rows(path)):
        with pytest.raises(DataError, match=r"train\.json: the file holds several splits; found train, dev"):
            read()
    path.write_text(json.dumps({"train": [["a", "x"], ["b", "y"]]}))
    assert load_dataset(tmp_path).splits["train"].texts == ["a", "b"]
    assert [row.row for row in read_text_rows(path)] == [1, 2]


@pytest.mark.parametrize("dev", ["dev", "val", "valid", "validation"])
def test_a_folder_of_split_files_in_a_fixed_order(tmp_path: Path, dev: str) -> None:
    write_csv(tmp_path / "test.csv", [("c", "on")])
    write_jsonl(tmp_path / f"{dev}.jsonl", objects([("b", "off")]))
    write_csv(tmp_path / "train.csv", TRAIN)
    (tmp_path / "notes.txt").write_text("not a split")
    dataset = load_dataset(tmp_path)
    assert [(name, len(split)) for name, split in dataset.splits.items()] == [("train", 3), ("dev", 1), ("test", 1)]
    assert dataset.name == tmp_path.name


def test_labels_of_all_kinds_become_strings(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": value} for value in (True, 10, 2.0, "on")]
    train = load_dataset(write_jsonl(tmp_path / "a.jsonl", rows)).splits["train"]
    assert train.labels == ["True", "10", "2.0", "on"]  # as pandas writes such a column to CSV


def test_whole_number_labels_sort_as_numbers(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": value} for value in (10, 9, -1)]
    assert load_dataset(write_jsonl(tmp_path / "a.jsonl", rows)).label_names == ("-1", "9", "10")


def test_categories_file_gives_the_order_of_the_classes(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", TRAIN, ("text", "category"))
    (tmp_path / "categories.json").write_text('["on", "unused", "off"]')
    dataset = load_dataset(tmp_path)
    assert dataset.label_names == ("on", "unused", "off")
    assert label_indices(dataset.splits["train"], dataset.label_names).tolist() == [0, 2, 0]


def test_glue_tsv_has_no_quoting_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    text += '1\t7\t8\t" open quote\ta\u2028b\r c \n0\t9\t10\tx\t"y"\n'
    write_tsv(tmp_path / "train.tsv", text)
    write_tsv(tmp_path / "test.tsv", "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tfirst\tsecond\n")
    dataset = load_dataset(tmp_path, task="MRPC")
    assert dataset.name == "mrpc"
    assert dataset.text_pair
    assert dataset.splits["train"].inputs() == [('" open quote', "a\u2028b\r c "), ("x", '"y"')]
    assert dataset.splits["train"].labels == ["1", "0"]
    assert dataset.splits["test"].labels is None
    assert dataset.splits["test"].inputs() == [("first", "second")]


def test_cola_has_no_header(tmp_path: Path) -> None:
    write_tsv(tmp_path / "train.tsv", "gj04\t1\t\tThey sailed.\nks08\t0\t*\tThey sail clear rocks the.")
    train = load_dataset(tmp_path).splits["train"]
    assert (train.texts, train.labels, train.rows) == (
        ["They sailed.", "They sail clear rocks the."],
        ["1", "0"],
        [1, 2],
    )


@pytest.mark.parametrize(
    ("task", "header", "row", "text", "label"),
    [
        ("sst2", "sentence label", "good 1", "good", "1"),
        ("rte", "index sentence1 sentence2 label", "0 a b entailment", ("a", "b"), "entailment"),
        ("wnli", "index sentence1 sentence2 label", "0 a b 1", ("a", "b"), "1"),
        ("qnli", "index question sentence label", "0 a b entailment", ("a", "b"), "entailment"),
        ("qqp", "id qid1 qid2 question1 question2 is_duplicate", "0 1 2 a b 0", ("a", "b"), "0"),
        (
            "mnli",
            "index promptID pairID genre sentence1_parse sentence2_parse sentence1 sentence2 label1 gold_label",
            "0 1 2 fiction (a) (b) a b entailment neutral",
            ("a", "b"),
            "neutral",
        ),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_glue_headers(
    tmp_path: Path, task: str, header: str, row: str, text: str | tuple[str, str], label: str, named: bool
) -> None:
    cells = row.split()
    other = [*cells[:-1], "other"]
    lines = "\n".join("\t".join(line) for line in (header.split(), cells, other)) + "\n"
    write_tsv(tmp_path / "train.tsv", lines)
    write_tsv(tmp_path / "dev_matched.tsv", lines)
    write_tsv(tmp_path / "dev_mismatched.tsv", "not read")
    dataset = load_dataset(tmp_path, task=task if named else None)
    assert dataset.splits["train"].inputs()[0] == text
    assert (dataset.splits["dev"].labels or [])[0] == label


def test_windows_line_ends_of_a_tsv_are_no_part_of_the_label(tmp_path: Path) -> None:
    write_tsv(tmp_path / "train.tsv", "sentence\tlabel\r\na\t1\r\nb\t0\r\n")
    assert load_dataset(tmp_path).label_names == ("0", "1")


def test_a_task_chooses_its_folder_within_glue(tmp_path: Path) -> None:
    for name in ("SST-2", "CoLA"):
        (tmp_path / name).mkdir()
    write_tsv(tmp_path / "SST-2" / "train.tsv", "sentence\tlabel\na\t1\nb\t0\n")
    assert load_dataset(tmp_path, task="SST2").name == "sst2"
    with pytest.raises(DataError, match=r"no split files.*found CoLA, SST-2"):
        load_dataset(tmp_path)


CLINC = {
    "train": [["a", "x"], ["b", "y"]],
    "val": [["c", "x"]],
    "test": [["d", "y"]],
    "oos_train": [["e", "oos"]],
    "oos_val": [["f", "oos"]],
    "oos_test": [["g", "oos"], ["h", "oos"]],
}


@pytest.mark.parametrize("indent", [None, 4])
def test_clinc_with_and_without_out_of_scope(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "data_full.json"
    path.write_text(json.dumps(CLINC, indent=indent))
    plain = load_dataset(tmp_path)
    assert (plain.name, plain.label_names) == ("clinc150", ("x", "y"))
    assert [len(split) for split in plain.splits.values()] == [2, 1, 1]
    for whole in (load_dataset(path, task="clinc150_oos"), load_dataset(path, label_names=("x", "y", "oos"))):
        assert set(whole.label_names) == {"x", "y", "oos"}
        assert [len(split) for split in whole.splits.values()] == [3, 2, 3]
    assert len(load_dataset(path, task="clinc150", label_names=("x", "y", "oos")).splits["test"]) == 1


def test_explicit_columns_win_over_found_ones(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "a.csv", [("1", "2", "3", "on"), ("4", "5", "6", "off")], ("text", "label", "note", "mood")
    )
    train = load_dataset(path, Columns(text="note", label="mood")).splits["train"]
    assert (train.texts, train.labels, train.pairs) == (["3", "6"], ["on", "off"], None)
    train = load_dataset(path, Columns("note", "text", "mood")).splits["train"]
    assert train.inputs() == [("3", "1"), ("6", "4")]


def test_a_partner_is_found_for_a_named_second_text(tmp_path: Path) -> None:
    rows = [("a", "b", "c", "on"), ("d", "e", "f", "off")]
    path = write_csv(tmp_path / "a.csv", rows, ("premise", "hypothesis", "text", "label"))
    with pytest.raises(ColumnError, match="several columns could be the text"):
        load_dataset(path)
    train = load_dataset(path, Columns(pair="hypothesis")).splits["train"]
    assert train.inputs() == [("a", "b"), ("d", "e")]

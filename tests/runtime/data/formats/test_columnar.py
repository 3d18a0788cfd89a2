"""Parquet and Arrow: bytes, dictionaries, names of classes, and damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from reaugkd import DataError, TextError, UsageError
from reaugkd.runtime.data import BadRow, load_dataset, read_text_rows

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
ipc = pytest.importorskip("pyarrow.ipc")


def test_names_of_classes_are_the_labels_in_their_order(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["on", "off", "none"]))
    for name, labels in (("train", [1, 0, 1]), ("validation", [0, 0, 1]), ("test", [-1, -1, -1])):
        rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": labels}, features=features)
        rows.to_parquet(tmp_path / f"{name}-00000-of-00001.parquet")
    dataset = load_dataset(tmp_path)
    assert dataset.label_names == ("on", "off", "none")
    assert dataset.splits["train"].labels == ["off", "on", "off"]
    assert dataset.splits["test"].labels is None


def test_bytes_that_are_no_text_spoil_only_what_is_used(tmp_path: Path) -> None:
    images = [b"\x89PNG\xff", b"\xff\xd8", b"\xff"]
    pq.write_table(pa.table({"image": images, "text": [b"a", "für".encode(), b"f\xfcr"]}), tmp_path / "a.parquet")
    good, also_good, bad = read_text_rows(tmp_path / "a.parquet")
    assert [good.text, also_good.text] == ["a", "für"]  # type: ignore[union-attr]
    assert isinstance(bad, BadRow) and isinstance(bad.error, TextError)
    assert "row 3, column 'text': the bytes are not UTF-8; found bytes b'f\\xfcr'" in str(bad.error)


def test_dictionaries_of_bytes(tmp_path: Path) -> None:
    column = pa.array([b"on", b"off", None]).dictionary_encode()
    pq.write_table(pa.table({"text": ["a", "b", "c"], "label": column}).slice(0, 2), tmp_path / "a.parquet")
    assert load_dataset(tmp_path / "a.parquet").splits["train"].labels == ["on", "off"]


@pytest.mark.parametrize(
    "metadata", [b"{", b"[]", b'{"info": 1}', b'{"info": {"features": {"label": {"names": [1]}}}}']
)
def test_odd_metadata_is_passed_over(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"text": ["a", "b"], "label": [0, 1]}).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")
    assert load_dataset(tmp_path / "a.parquet").label_names == ("0", "1")


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_in_large_and_damaged_batches(tmp_path: Path, stream: bool) -> None:
    path = tmp_path / "a.arrow"
    table = pa.table({"text": [f"text {number}" for number in range(1000)]})
    with (ipc.new_stream if stream else ipc.new_file)(path, table.schema) as writer:
        writer.write_table(table)
    assert [row.row for row in read_text_rows(path)] == list(range(1, 1001))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"the Arrow file cannot be read; found .*; expected a complete Arrow file"):
        list(read_text_rows(path))
    path.write_bytes(b"ARROW1 and nothing more")
    with pytest.raises(DataError, match="the Arrow file cannot be read"):
        list(read_text_rows(path))
    with path.open("rb") as file, pytest.raises(UsageError, match="cannot be read from a pipe"):
        file.seekable = lambda: False  # type: ignore[method-assign]
        list(read_text_rows(file, "arrow"))

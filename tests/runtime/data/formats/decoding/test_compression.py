"""Compressed files are read like others, and damaged or hostile ones are refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.file_kinds import Pipe

from reaugkd import DataError, DependencyError, UsageError
from reaugkd.runtime.data import TextRow, load_dataset, read_text_rows
from reaugkd.runtime.data.formats.decoding import compression

TEXTS = [f"text number {number * 7919 % 10_007}" for number in range(5_000)]
CONTENT = "".join(f"{text}\n" for text in TEXTS).encode()


def zstd(data: bytes) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/in.txt", data)
    return file.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
    ".zip": zipped,
}
in_every_way = pytest.mark.parametrize("suffix", PACKERS)


def test_every_compression_has_a_packer() -> None:
    assert tuple(PACKERS) == compression.SUFFIXES


@in_every_way
def test_all_rows_come_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in.txt{suffix}"
    path.write_bytes(PACKERS[suffix](CONTENT))
    assert [row.text for row in read_text_rows(path)] == TEXTS  # type: ignore[union-attr]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_pipes_and_files_of_several_members(suffix: str) -> None:
    half = CONTENT.index(b"\n", len(CONTENT) // 2) + 1
    packed = PACKERS[suffix](CONTENT[:half]) + PACKERS[suffix](CONTENT[half:])
    rows = list(read_text_rows(Pipe(packed, 1000), "txt"))  # type: ignore[arg-type]
    assert [row.text for row in rows] == TEXTS  # type: ignore[union-attr]


@in_every_way
@pytest.mark.parametrize("harm", ["cut", "altered"])
def test_damage_is_reported(tmp_path: Path, suffix: str, harm: str) -> None:
    whole = PACKERS[suffix](CONTENT)
    half = len(whole) // 2
    path = tmp_path / f"in.txt{suffix}"
    path.write_bytes(whole[:half] if harm == "cut" else whole[:half] + bytes(64) + whole[half + 64 :])
    with pytest.raises(DataError, match="the compressed file cannot be read; found"):
        list(read_text_rows(path))


@in_every_way
def test_a_bomb_is_refused_before_it_is_read(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_FREE_BYTES", 100_000)
    path = tmp_path / f"in.txt{suffix}"
    path.write_bytes(PACKERS[suffix]((b"a" * 9_999 + b"\n") * 2_000))
    rows = read_text_rows(path)
    with pytest.raises(DataError, match=r"suspiciously large; found .* bytes that become"):
        for count, _ in enumerate(rows):  # noqa: B007
            pass
    assert count < 1_000


def test_archives_of_other_than_one_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.zip"
    for names, found in (([], "none"), (["a.csv", "b.csv"], "a.csv, b.csv")):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "text\n")
        with pytest.raises(DataError, match=f"does not hold exactly one file; found {found}"):
            load_dataset(path)
    path.write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(DataError, match="the compressed file cannot be read"):
        load_dataset(path)
    with pytest.raises(UsageError, match="cannot be read from a pipe"):
        list(read_text_rows(Pipe(zipped(CONTENT)), "txt"))  # type: ignore[arg-type]


def test_formats_with_their_own_compression_are_not_read_from_another(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(gzip.compress(b"PAR1"))
    with pytest.raises(DataError, match=r"while it is compressed.*Decompress it first"):
        load_dataset(path)


def test_zstandard_without_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt.zst"
    path.write_bytes(zstd(CONTENT))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    with pytest.raises(DependencyError, match=r"pip install pyarrow, or decompress"):
        list(read_text_rows(path))


def test_the_bytes_and_not_the_name_tell_the_compression(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(gzip.compress(b"a\nb\n"))
    assert list(read_text_rows(path)) == [TextRow(1, "a"), TextRow(2, "b")]
    (tmp_path / "in.txt.gz").write_bytes(b"a\nb\n")
    assert list(read_text_rows(tmp_path / "in.txt.gz")) == [TextRow(1, "a"), TextRow(2, "b")]

"""One small file of each kind that can be read, and the table of docs/reference/data-files.md that is made from them.

``python -m support.file_kinds`` (in the folder ``tests``) writes the table anew.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reaugkd import ReaugkdError
from reaugkd.runtime.data import Columns, TextRow, load_dataset, read_labelled_rows, read_text_rows
from reaugkd.runtime.data.formats import format_of

Rows = Sequence[tuple[str, str]]

ROWS = [("turn it on", "on"), ('say "hi", please', "off"), ("zwei\nZeilen für 5 €", "on")]
ONE_LINE = [("turn it on", "on"), ('" open quote', "off"), ('say "hi", für 5 €', "on")]
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "data-files.md"
BEGIN, END = "<!-- made by tests/support/file_kinds.py -->\n", "<!-- end -->\n"


class Kind(NamedTuple):
    """A kind of file: its description, the name of the sample, and the function that writes it."""

    what: str
    name: str
    write: Callable[[Path], object]
    rows: Rows = ROWS
    options: str = ""


def write_csv(path: Path, rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")) -> Path:
    """Write a CSV file with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def _csv(text_rows: Rows = ROWS, **settings: Any) -> str:
    out = io.StringIO()
    csv.writer(out, **settings).writerows([("text", "label"), *text_rows])
    return out.getvalue()


def _text(content: str, encoding: str = "utf-8") -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content.encode(encoding))


def _json(value: object, **settings: Any) -> Callable[[Path], object]:
    return _text(json.dumps(value, **settings))


def _packed(pack: Callable[[bytes], bytes], content: str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(pack(content.encode()))


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.csv", _csv())
        archive.writestr("__MACOSX/._rows.csv", b"\0")


def _zstd(path: Path) -> None:
    import pyarrow

    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.CompressedOutputStream(file, "zstd") as stream:
        stream.write(_csv().encode())


def _excel(path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    for row in [("text", "label"), *ROWS]:
        book.active.append(row)
    book.save(path)


def _columns(rows: Rows = ROWS) -> dict[str, Any]:
    texts, labels = zip(*rows, strict=True)
    return {"text": list(texts), "label": list(labels)}


def _table(kind: str = "strings", rows: Rows = ROWS) -> Any:
    import pyarrow

    columns = _columns(rows)
    if kind == "bytes":
        return pyarrow.table({name: [cell.encode() for cell in cells] for name, cells in columns.items()})
    if kind == "dictionary":
        return pyarrow.table({name: pyarrow.array(cells).dictionary_encode() for name, cells in columns.items()})
    if kind == "ClassLabel":
        names = ["on", "off"]
        features = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": names, "_type": "ClassLabel"}}
        columns["label"] = [names.index(label) for label in columns["label"]]
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        return pyarrow.table(columns).replace_schema_metadata(metadata)
    return pyarrow.table(columns)


def _parquet(kind: str = "strings") -> Callable[[Path], object]:
    def write(path: Path) -> None:
        from pyarrow import parquet

        parquet.write_table(_table(kind), path)

    return write


def _arrow(stream: bool) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        from pyarrow import ipc

        table = _table()
        with (ipc.new_stream if stream else ipc.new_file)(str(path), table.schema) as writer:
            writer.write_table(table)

    return write


def _feather(path: Path) -> None:
    from pyarrow import feather

    feather.write_feather(_table(), str(path), compression="zstd")


def _folder(*names: str) -> Callable[[Path], object]:
    """Write the rows to the files of a folder, one row more to the last."""

    def write(path: Path) -> None:
        from pyarrow import parquet

        path.mkdir()
        parts = [ROWS[number : number + 1] for number in range(len(names) - 1)] + [ROWS[len(names) - 1 :]]
        for name, rows in zip(names, parts, strict=True):
            if name.endswith(".parquet"):
                parquet.write_table(_table(rows=rows), path / name)
            else:
                (path / name).write_bytes(gzip.compress(_lines(rows).encode()))

    return write


def _splits(path: Path) -> None:
    path.mkdir()
    for name in ("train", "dev", "test"):
        (path / f"{name}.csv").write_text(_csv(), encoding="utf-8", newline="")


def _objects(rows: Rows = ROWS) -> list[dict[str, str]]:
    return [{"text": text, "label": label} for text, label in rows]


def _lines(rows: Rows = ROWS) -> str:
    return "".join(json.dumps(row) + "\n" for row in _objects(rows))


_BY_ROW = {name: {str(row): cell for row, cell in enumerate(cells)} for name, cells in _columns().items()}
_AS_LISTS = {"columns": ["text", "label"], "index": [0, 1, 2], "data": [list(row) for row in ROWS]}
_TSV = "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *ONE_LINE])
_WHOLE_CELLS = [("turn it on", "on"), ("off with it", "off")]

KINDS = (
    Kind("CSV", "rows.csv", _text(_csv())),
    Kind("CSV with semicolons (Excel in most of Europe)", "rows.csv", _text(_csv(delimiter=";"))),
    Kind("CSV with tabs", "rows.csv", _text(_csv(delimiter="\t"))),
    Kind("CSV with vertical bars", "rows.csv", _text(_csv(delimiter="|"))),
    Kind("CSV with a blank after each comma", "rows.csv", _text(_csv(quoting=csv.QUOTE_ALL).replace('","', '", "'))),
    Kind("CSV that begins with `sep=;`", "rows.csv", _text("sep=;\r\n" + _csv(delimiter=";"))),
    Kind("CSV whose lines end with CR (Mac)", "rows.csv", _text(_csv().replace("\r\n", "\r"))),
    Kind("CSV, UTF-8 with a byte order mark", "rows.csv", _text(_csv(), "utf-8-sig")),
    Kind("CSV, UTF-16 with a byte order mark", "rows.csv", _text(_csv(), "utf-16")),
    Kind("CSV, Windows-1252", "rows.csv", _text(_csv(), "cp1252"), options="cp1252"),
    Kind("TSV, quoted (pandas, Excel)", "rows.tsv", _text(_csv(delimiter="\t", lineterminator="\n"))),
    Kind("TSV, not quoted (GLUE)", "rows.tsv", _text(_TSV), ONE_LINE),
    Kind(
        "TSV in which nothing shows whether quotes are quoting",
        "rows.tsv",
        _text('text\tlabel\n"turn it on"\ton\noff with it\toff\n'),
        _WHOLE_CELLS,
    ),
    Kind("JSON lines", "rows.jsonl", _text(_lines())),
    Kind("JSON array", "rows.json", _json(_objects(), indent=1)),
    Kind('JSON object `{"data": [...]}`', "rows.json", _json({"data": _objects(), "version": 1})),
    Kind(
        'JSON object of splits `{"train": [...], "test": [...]}`',
        "rows.json",
        _json({"train": _objects(), "test": _objects()}),
    ),
    Kind("JSON of pandas, default orient", "rows.json", _json(_BY_ROW)),
    Kind("JSON of pandas, orient=index", "rows.json", _json(dict(enumerate(_objects())))),
    Kind("JSON of pandas, orient=split", "rows.json", _json(_AS_LISTS)),
    Kind("JSON of pandas, orient=table", "rows.json", _json({"schema": {"fields": []}, "data": _objects()})),
    Kind('JSON object of columns `{"text": [...], "label": [...]}`', "rows.json", _json(_columns())),
    Kind("Parquet", "rows.parquet", _parquet()),
    Kind("Parquet with columns of bytes", "rows.parquet", _parquet("bytes")),
    Kind("Parquet with dictionary columns", "rows.parquet", _parquet("dictionary")),
    Kind("Parquet with class numbers, written by `datasets`", "rows.parquet", _parquet("ClassLabel")),
    Kind("Arrow file", "rows.arrow", _arrow(stream=False)),
    Kind("Arrow stream", "rows.arrow", _arrow(stream=True)),
    Kind("Feather (version 2)", "rows.feather", _feather),
    Kind("Excel", "rows.xlsx", _excel),
    Kind("gzip", "rows.csv.gz", _packed(gzip.compress, _csv())),
    Kind("bzip2", "rows.jsonl.bz2", _packed(bz2.compress, _lines())),
    Kind("xz", "rows.csv.xz", _packed(lzma.compress, _csv())),
    Kind("zstandard", "rows.csv.zst", _zstd),
    Kind("zip with one file", "rows.zip", _zip),
    Kind("folder of `train`, `dev` and `test`", "rows", _splits),
    Kind(
        "folder of parts of the splits", "rows", _folder("train-00000-of-00002.parquet", "train-00001-of-00002.parquet")
    ),
    Kind("folder of parts of one table", "rows", _folder("part-00000.parquet", "part-00001.parquet")),
    Kind("folder of compressed parts", "rows", _folder("0.jsonl.gz", "1.jsonl.gz", "2.jsonl.gz")),
)


class Pipe(io.RawIOBase):
    """A stream that cannot seek and gives some bytes at a time."""

    name = "<stdin>"

    def __init__(self, data: bytes, size: int = 3) -> None:
        self._data, self._size = io.BytesIO(data), size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(memoryview(buffer)[: self._size])


class Found(NamedTuple):
    """What was found for a kind: whether each command reads its rows exactly, and what it tells."""

    train: str
    predict: str
    kb_add: str
    pipe: str
    told: str


def look_at(kind: Kind, folder: Path) -> Found:
    """Write the sample of a kind and read it in all ways."""
    path = folder / kind.name
    kind.write(path)
    columns = Columns(encoding=kind.options or None)
    told: list[str] = []
    texts = [text for text, _ in kind.rows]

    def train() -> bool:
        split = load_dataset(path, columns, tell=told.append).splits["train"]
        return list(zip(split.texts, split.labels or [], strict=True)) == list(kind.rows)

    def predict() -> bool:
        return [row.text for row in read_text_rows(path, None, columns) if isinstance(row, TextRow)] == texts

    def kb_add() -> bool:
        return [(row.text, row.label) for row in read_labelled_rows(path, None, columns)] == list(kind.rows)

    def pipe() -> bool:
        file_format = format_of(path)
        if file_format is None:
            return False
        found = read_text_rows(Pipe(path.read_bytes()), file_format.name, columns)  # type: ignore[arg-type]
        return [row.text for row in found if isinstance(row, TextRow)] == texts

    states = [_state(read) for read in (train, predict, kb_add, pipe)]
    remarks = "; ".join(remark.replace(str(path), "").lstrip(": /") for remark in told)
    return Found(*states, remarks)


def _state(read: Callable[[], bool]) -> str:
    try:
        return "yes" if read() else "no"
    except ReaugkdError:
        return "no"


def head_of_table() -> list[str]:
    """Return the first two lines of the table."""
    names = ("kind", "sample", "`train`, `eval`", "`predict`", "`kb add`", "from a pipe", "message on standard error")
    return [f"| {' | '.join(names)} |\n", "|---" * len(names) + "|\n"]


def line_of_table(kind: Kind, found: Found) -> str:
    """Return the line of a kind, as Markdown."""
    option = f" `--encoding {kind.options}`" if kind.options else ""
    return f"| {kind.what} | `{kind.name}`{option} | {' | '.join(found)} |\n"


if __name__ == "__main__":
    lines = head_of_table()
    for one in KINDS:
        with tempfile.TemporaryDirectory() as scratch:
            lines.append(line_of_table(one, look_at(one, Path(scratch))))
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(before + BEGIN + "".join(lines) + END + rest.split(END)[1], encoding="utf-8")

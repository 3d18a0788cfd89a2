"""The plan of a job: its inputs, options and parts. It is written to the output folder before any part.

A part is a range of rows of one input file, and one file of the output. The plan is the same whenever it is made from
the same inputs and options, so a job that was ended goes on from the parts that are there.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import pyarrow as pa

from ... import __version__
from ...errors import DataError, OutputExistsError, UsageError
from ...kb.storage.atomic import atomic_write
from ...runtime.data.formats.decoding.source import Tell
from .inputs import InputFile

PLAN_FILE = "_plan.json"

_WORDS = {
    "reaugkd": "the version of reaugkd",
    "seal": "the bundle",
    "edits": "the edits of the bundle's knowledge base",
    "part_rows": "the size of a part",
}


class JobOptions(Protocol):
    """What decides the output of a job; a dataclass of JSON values.

    Attributes:
        command: the command that writes such plans.
    """

    command: ClassVar[str]

    @property
    def anew(self) -> str:
        """How the user begins the job anew, in words."""

    @property
    def seal(self) -> str:
        """The bundle's seal."""

    @property
    def encoding(self) -> str | None:
        """Encoding of text files."""

    @property
    def part_rows(self) -> int:
        """Rows of a part, at most."""

    @property
    def reaugkd(self) -> str:
        """The version."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `asdict` has written."""


Kind = TypeVar("Kind", bound=JobOptions)


@dataclass(frozen=True)
class Options:
    """What decides the answers and the columns.

    Attributes:
        seal: the bundle's seal.
        edits: the number of the last edit of its knowledge base.
        part_rows: rows of a part, at most.
        text: the column of the text, as the user named it; None = detected.
        text_pair: the column of the second text.
        columns: the input columns to keep; None for all.
        prefix: same as `Predictor`.
        top_k: same as `Predictor`.
        abstain: the goal, in words.
        retrieval: same as `Predictor`.
        on_error: same as `Predictor`.
        encoding: of text files.
        reaugkd: the version.
    """

    seal: str
    edits: int
    part_rows: int
    text: str | None = None
    text_pair: str | None = None
    columns: tuple[str, ...] | None = None
    prefix: str = ""
    top_k: int | None = None
    abstain: str | None = None
    retrieval: Any = "always"
    on_error: Any = "record"
    encoding: str | None = None
    reaugkd: str = __version__
    command: ClassVar[str] = "reaugkd batch"
    anew: ClassVar[str] = "Begin the job anew with --overwrite"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Options:
        """Read what `asdict` has written."""
        columns = values["columns"]
        return cls(**{**values, "columns": None if columns is None else tuple(columns)})


@dataclass(frozen=True)
class Part:
    """Rows of one file.

    Attributes:
        number: from 0, over all files.
        file: the input file.
        start: its first row, from 0.
        rows: the number of rows.
    """

    number: int
    file: InputFile
    start: int
    rows: int

    @property
    def name(self) -> str:
        """The name of its file in the output."""
        return f"part-{self.number:05d}.parquet"

    @property
    def place(self) -> str:
        """Its rows in words, from 1."""
        return f"rows {self.start + 1:,} to {self.start + self.rows:,}"


@dataclass(frozen=True)
class Plan(Generic[Kind]):
    """A whole job.

    Attributes:
        options: what decides the answers and the columns.
        files: the input files, with their rows.
        text: the chosen column of the text.
        text_pair: the chosen column of the second text; None for single texts.
        schema: the Arrow schema of the kept columns.
        parts: derived from the files.
    """

    options: Kind
    files: tuple[tuple[InputFile, int], ...]
    text: str
    text_pair: str | None
    schema: Any
    parts: tuple[Part, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self._cut()))

    def _cut(self) -> Iterator[Part]:
        number, size = 0, self.options.part_rows
        for file, rows in self.files:
            for start in range(0, rows, size):
                yield Part(number, file, start, min(size, rows - start))
                number += 1

    @property
    def rows(self) -> int:
        """The rows of all files."""
        return sum(rows for _, rows in self.files)

    def tell_empty(self, tell: Tell) -> None:
        """Name the files that have no rows: they are left out."""
        for file, rows in self.files:
            if not rows:
                tell(f"{file.path}: left out, it has no rows ({file.size:,} bytes)")

    def write(self, out: Path) -> None:
        """Write the plan into the output folder.

        Raises:
            StorageError: it cannot be written.
        """
        obj = {
            "command": self.options.command,
            "options": asdict(self.options),  # type: ignore[call-overload]
            "text": self.text,
            "text_pair": self.text_pair,
            "schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode(),
            "inputs": [{**asdict(file), "rows": rows} for file, rows in self.files],
        }
        with atomic_write(out / PLAN_FILE) as stream:
            json.dump({**obj, "sha256": _sha256(obj)}, stream, indent=1)

    @classmethod
    def read(cls, out: Path, kind: type[Kind]) -> Plan[Kind]:
        """Read the plan of an output folder, with options of this kind.

        Raises:
            DataError: it is not there, or not one.
            UsageError: it is of another command.
        """  # noqa: DOC501
        obj = read_content(out, kind)
        try:
            if obj.pop("sha256") != _sha256(obj):
                raise ValueError("another SHA-256 than the file names: it was changed or is damaged")
            files = [(InputFile(one["path"], one["size"], one["modified"]), one["rows"]) for one in obj["inputs"]]
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(obj["schema"])))
            return cls(kind.from_json(obj["options"]), tuple(files), obj["text"], obj["text_pair"], schema)
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(out, error) from error

    def require_same(self, options: Kind, files: list[InputFile], out: Path) -> None:
        """Check that a restart is of the same job.

        Raises:
            OutputExistsError: something has changed; it says what.
        """
        changes = list(self._changes(options, files))
        if changes:
            raise OutputExistsError(
                f"the folder holds another job: {'; '.join(changes[:3])}"
                + (f"; and {len(changes) - 3:,} more changes" if len(changes) > 3 else ""),
                path=out,
                expected="the same inputs, bundle and options",
                remedy=f"{self.options.anew}, or choose another output folder.",
            )

    def _changes(self, options: Kind, files: list[InputFile]) -> Iterator[str]:
        before, now = asdict(self.options), asdict(options)  # type: ignore[call-overload]
        for name in before:
            if before[name] != now[name]:
                shown = [str(one[name])[:12] if name == "seal" else repr(one[name]) for one in (before, now)]
                yield f"{_WORDS.get(name, name)} was {shown[0]}, is {shown[1]}"
        known, given = {file.path: file for file, _ in self.files}, {file.path: file for file in files}
        yield from (f"{path} is not an input now" for path in known if path not in given)
        yield from (f"{path} is a new input" for path in given if path not in known)
        for path, file in given.items():
            if path in known and file.size != known[path].size:
                yield f"{path} had {known[path].size:,} bytes, has {file.size:,}"
            elif path in known and file.modified != known[path].modified:
                yield f"{path} was written again"
        if list(known) != list(given) and set(known) == set(given):
            yield "the inputs are in another order"


def read_content(out: Path, kind: type[JobOptions]) -> dict[str, Any]:
    """Read the JSON object of a plan, and check which command has written it.

    Raises:
        DataError: it is not there, or no JSON object.
        UsageError: another command has written it.
    """  # noqa: DOC501
    path = out / PLAN_FILE
    try:
        obj: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        command = obj["command"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(out, error) from error
    if command != kind.command:
        raise UsageError(
            "the folder holds the work of another command",
            path=path,
            found=f"a plan of `{command}`",
            expected=f"a new or empty folder, or a plan of `{kind.command}`",
            remedy="Choose another output folder. Nothing was changed.",
        )
    return obj


def _sha256(obj: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(obj, sort_keys=True).encode()).hexdigest()


def _unreadable(out: Path, error: Exception) -> DataError:
    return DataError(
        "the plan of the job cannot be read",
        path=out / PLAN_FILE,
        found=f"no entry {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__,
        expected="the file that the job writes first, visible on every machine of the job",
        remedy="Choose another output folder, or remove this one.",
    )

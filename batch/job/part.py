"""The work of a worker: answer the rows of one part and write them as one Parquet file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from ... import __version__
from ...errors import BundleError, ReaugkdError, UsageError
from ...kb.storage.atomic import atomic_write
from ...runtime.inference.prediction import Prediction
from ..answers import AnswerColumns
from ..predictor import Predictor
from .plan import Options, Part, Plan
from .rows import PartReader

_ROW_GROUP_BYTES = 16 << 20  # of cells in memory before they are written


@dataclass(frozen=True)
class Settings:
    """What a worker needs besides the plan.

    Attributes:
        out: the output folder, which holds the plan.
        bundle: the bundle's folder.
        threads: same as `Predictor`.
        require_signature: the file of the key, same as `Predictor`.
        follow_links: same as `Predictor`.
    """

    out: str
    bundle: str
    threads: int = 1
    require_signature: str | None = None
    follow_links: bool = False

    @property
    def gpus(self) -> int:
        """None: a student is made for the processor."""
        return 0

    def open(self) -> PartWorker:
        """The worker of a process."""
        return PartWorker(self)


class PartWorker:
    """Opens the plan and the bundle once, and does parts.

    Args:
        settings: where they are.

    Raises:
        DataError: the plan cannot be read.
        BundleError: the bundle cannot be opened, or is not the one of the plan.
        UsageError: this is another version of reaugkd than the one that made the plan.
    """

    def __init__(self, settings: Settings) -> None:
        self._out, self._bundle = Path(settings.out), settings.bundle
        self.plan = plan = Plan.read(self._out, Options)
        options = plan.options
        if options.reaugkd != __version__:
            raise UsageError(
                "the workers of a job have different versions of reaugkd",
                found=__version__,
                expected=options.reaugkd,
                remedy="Install one version on every machine.",
            )
        self._predictor = Predictor(
            settings.bundle,
            text=plan.text,
            text_pair=plan.text_pair,
            prefix=options.prefix,
            top_k=options.top_k,
            abstain=options.abstain,
            retrieval=options.retrieval,
            threads=settings.threads,
            require_signature=settings.require_signature,
            follow_links=settings.follow_links,
        )
        self._columns = self._predictor.columns
        self._reader = PartReader(plan)
        self._require_state()

    def do(self, number: int, advance: Callable[[int], object]) -> None:
        """Do a part, unless its file is there. The file appears when it is complete.

        Args:
            number: the part's.
            advance: called with the number of rows answered so far.

        Raises:
            DataError: the input cannot be read; with ``on_error="raise"``, of the first row that cannot be answered.
            BundleError: the knowledge base was edited since the job began.
            StorageError: the file cannot be written.
        """
        part = self.plan.parts[number]
        path = self._out / part.name
        if path.exists():
            return
        schema = part_schema(self.plan)
        with atomic_write(path, "wb") as file:
            with parquet.ParquetWriter(file, schema) as writer:
                for table in _groups(self._answered(number, schema, advance)):
                    writer.write_table(table)
            self._require_state()

    def close(self) -> None:
        """Close the bundle and the open input file."""
        self._reader.close()
        self._predictor.runtime.close()

    def _answered(self, number: int, schema: Any, advance: Callable[[int], object]) -> Iterator[Any]:
        done = 0
        part = self.plan.parts[number]
        for kept, texts in self._reader.chunks(part):
            answers = zip(self._predictor.answers(text for _, text in texts), texts, strict=True)
            placed = (self._placed(answer, part, row) for answer, (row, _) in answers)
            yield pa.Table.from_arrays([*kept.columns, *self._columns.arrays(placed)], schema=schema)
            done += len(texts)
            advance(done)

    def _placed(self, answer: Prediction | ReaugkdError, part: Part, row: int) -> Prediction | ReaugkdError:
        """The answer, or the error with its file and row.

        Raises:
            ReaugkdError: the error, if the job stops at one.
        """
        if not isinstance(answer, ReaugkdError):
            return answer
        if answer.row is None:
            answer = answer.at(path=part.file.path, row=row)
        if self.plan.options.on_error == "raise":
            raise answer
        return answer

    def _require_state(self) -> None:
        """Check that the answers are those of the plan's bundle and edits.

        Raises:
            BundleError: they are of others.
        """
        kb, options = self._predictor.runtime.kb, self.plan.options
        if kb.seal != options.seal or kb.seq != options.edits:
            raise BundleError(
                "the bundle has changed since the job began",
                path=self._bundle,
                found=f"seal {kb.seal[:12]}, {kb.seq} edits",
                expected=f"seal {options.seal[:12]}, {options.edits} edits",
                remedy="Give the job a copy of the bundle that nobody edits, or start again with --overwrite.",
            )


def part_schema(plan: Plan[Options]) -> Any:
    """The schema of the output: the kept columns, the answers, and where they come from as metadata."""
    added = AnswerColumns(plan.options.prefix, plan.options.top_k)
    fields = [*plan.schema, *(pa.field(name, kind) for name, kind in added.fields)]
    origin = {"reaugkd.version": plan.options.reaugkd, "reaugkd.seal": plan.options.seal}
    return pa.schema(fields, {**origin, "reaugkd.edits": str(plan.options.edits)})


def _groups(tables: Iterator[Any]) -> Iterator[Any]:
    """Put tables together to some megabytes, so that a file has few row groups."""
    waiting: list[Any] = []
    size = 0
    for table in tables:
        waiting.append(table)
        size += table.nbytes
        if size >= _ROW_GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting)

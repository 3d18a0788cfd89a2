"""The stream of `reaugkd predict`: records of the arguments or the input to written answers, row by row."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import ReaugkdError, UsageError
from ..data import BadRow, Columns, TextRow, read_text_rows
from ..data.formats.decoding.source import Tell, silent
from ..decision.abstention_goal import Abstain
from ..inference.prediction import Prediction
from ..runtime import Runtime
from .prediction_formats import Output, Shown, row_writer

STDIN = "-"

OnError = Literal["record", "skip", "raise"]


@dataclass(frozen=True)
class PredictOptions:
    """Options of the answers.

    Attributes:
        kind: the output format, one of `prediction_formats.FORMATS`.
        explain: add the neighbours.
        source: the file that the records come from, for error messages; None for command-line arguments.
        on_error: what becomes of a row that cannot be answered: ``"record"`` writes its error in its place, ``"skip"``
            leaves it out, ``"raise"`` ends the stream with its error.
        abstain: the abstention goal; None to answer every text.
        top_k: show so many labels, most probable first; None for the format's default.
    """

    kind: str
    explain: bool = False
    source: str | None = None
    on_error: OnError = "record"
    abstain: Abstain | None = None
    top_k: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of the rows of a stream.

    Attributes:
        rows: the number of rows read.
        failed: of these, rows that could not be answered.
        truncated: of these, rows of which only the first tokens were read.
    """

    rows: int = 0
    failed: int = 0
    truncated: int = 0

    @property
    def exit_code(self) -> int:
        """0 if every row was answered, 3 if some were, 1 if none was."""
        return 0 if not self.failed else 1 if self.failed == self.rows else 3

    def summary(self, on_error: OnError, max_length: int) -> str:
        """One line for people."""
        where = "left out" if on_error == "skip" else "see the error records"
        return (
            f"{self.rows:,} row{'s' * (self.rows != 1)}: {self.rows - self.failed:,} answered"
            + (f", {self.failed:,} failed ({where})" if self.failed else "")
            + (f", {self.truncated:,} truncated to {max_length:,} tokens" if self.truncated else "")
        )


def records_of_arguments(texts: tuple[str, ...], pair: bool) -> Iterator[TextRow]:
    """Records of texts given on the command line, two by two for a model that reads pairs.

    Raises:
        UsageError: the model reads pairs, and the number of texts is odd.
    """
    if not pair:
        return (TextRow(row, text) for row, text in enumerate(texts, start=1))
    if len(texts) % 2:
        raise UsageError(
            "this bundle reads pairs of texts",
            found=f"{len(texts)} text" + "s" * (len(texts) > 1),
            expected="an even number, two by two",
            remedy="Quote each text as one argument.",
        )
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return (TextRow(row, both) for row, both in enumerate(pairs, start=1))


def records_of_source(
    source: str, kind: str | None, columns: Columns, pair: bool, tell: Tell = silent
) -> Iterator[TextRow | BadRow]:
    """Records of a file or a folder of its parts, or of stdin for ``-``; ``tell`` receives remarks on the files."""
    return read_text_rows(sys.stdin.buffer if source == STDIN else Path(source), kind, columns, pair, tell)


def answer_stream(
    runtime: Runtime,
    records: Iterable[TextRow | BadRow],
    options: PredictOptions,
    out: Output,
    progress: Callable[[int], object] | None = None,
) -> Outcome:
    """Answer every record and write the answers in order, in constant memory.

    Args:
        runtime: answers the texts.
        records: read as answers are written.
        options: options of the answers.
        out: the output.
        progress: called after each row with the number of rows read.

    Raises:
        ReaugkdError: with ``on_error="raise"``, the error of the first row that cannot be answered.
    """
    shown = Shown(options.explain, runtime.labels, options.abstain is not None, options.top_k)
    write = row_writer(options.kind, out, shown)
    keyed = ((record, record.text if isinstance(record, TextRow) else record.error) for record in records)
    count = failed = truncated = 0
    for count, (record, answer) in enumerate(runtime.predict_keyed(keyed, options.abstain), start=1):
        found = _placed(answer, record.row, options.source)
        if isinstance(found, ReaugkdError):
            if options.on_error == "raise":
                raise found
            failed += 1
        else:
            truncated += found.truncated
        if not (isinstance(found, ReaugkdError) and options.on_error == "skip"):
            write(record.row, record.text if isinstance(record, TextRow) else None, found)
        if progress is not None:
            progress(count)
    return Outcome(count, failed, truncated)


def _placed(answer: Prediction | ReaugkdError, row: int, source: str | None) -> Prediction | ReaugkdError:
    """The answer, or the error with its file and row."""
    if not isinstance(answer, ReaugkdError) or answer.row is not None:
        return answer
    if source is None:
        return answer.at(path=f"TEXT {row}")
    return answer.at(path="<stdin>" if source == STDIN else source, row=row)

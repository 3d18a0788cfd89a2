"""The stream of `reaugkd predict`: records of the arguments or the input to written answers, row by row."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import ReaugkdError, UsageError
from ..data import BadRow, Columns, TextRow, read_text_rows
from ..data.formats.source import Tell, silent
from ..decision.abstention_goal import Abstain
from ..inference.prediction import Prediction
from ..runtime import Runtime
from .prediction_formats import Output, row_writer

STDIN = "-"


@dataclass(frozen=True)
class PredictOptions:
    """Options of the answers.

    Attributes:
        kind: the output format, one of `prediction_formats.FORMATS`.
        explain: add the neighbours.
        source: the file that the records come from, for error messages. None for command-line arguments: then the first
            bad text raises its error; with a source, its error record is written and the stream continues.
        abstain: the abstention goal; None to answer every text.
    """

    kind: str
    explain: bool = False
    source: str | None = None
    abstain: Abstain | None = None


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
) -> int:
    """Answer every record and write the answers in order, in constant memory.

    Args:
        runtime: answers the texts.
        records: read as answers are written.
        options: options of the answers.
        out: the output.
        progress: called after each row with the number of rows written.

    Returns:
        The number of rows that could not be answered.

    Raises:
        ReaugkdError: the error of the first bad text, without a source.
    """
    write = row_writer(options.kind, out, options.explain, runtime.labels, options.abstain is not None)
    keyed = ((record, record.text if isinstance(record, TextRow) else record.error) for record in records)
    failed = 0
    for count, (record, answer) in enumerate(runtime.predict_keyed(keyed, options.abstain), start=1):
        found = _placed(answer, record.row, options.source)
        if isinstance(found, ReaugkdError):
            if options.source is None:
                raise found
            failed += 1
        write(record.row, record.text if isinstance(record, TextRow) else None, found)
        if progress is not None:
            progress(count)
    return failed


def _placed(answer: Prediction | ReaugkdError, row: int, source: str | None) -> Prediction | ReaugkdError:
    """The answer, or the error with its file and row."""
    if not isinstance(answer, ReaugkdError) or answer.row is not None:
        return answer
    if source is None:
        return answer.at(path=f"TEXT {row}")
    return answer.at(path="<stdin>" if source == STDIN else source, row=row)

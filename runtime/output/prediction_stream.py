"""From records to answers: what `predict` does with its arguments or its input, row by row."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import ReaugkdError, UsageError
from ..data import BadRow, Columns, TextRow, read_text_rows
from ..decision.abstention_goal import Abstain
from ..inference.inputs import Text
from ..inference.prediction import Prediction
from ..runtime import Runtime
from .prediction_formats import Format, Output, row_writer

STDIN = "-"


@dataclass(frozen=True)
class PredictOptions:
    """How answers are given.

    Attributes:
        kind: table, jsonl or csv.
        explain: with the neighbours.
        source: the file the records come from, for messages. None = arguments: then a text that cannot be answered
            ends the call with its error, instead of leaving a record of it and going on.
        abstain: when not to answer; None for always answering.
    """

    kind: Format
    explain: bool = False
    source: str | None = None
    abstain: Abstain | None = None


def records_of_arguments(texts: tuple[str, ...], pair: bool) -> Iterator[TextRow]:
    """Records of texts given on the command line, two by two for a model that reads pairs.

    Raises:
        UsageError: an odd number of texts for pairs.
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


def records_of_source(source: str, kind: str | None, columns: Columns, pair: bool) -> Iterator[TextRow | BadRow]:
    """Records of a file, or of stdin for ``-``."""
    return read_text_rows(sys.stdin.buffer if source == STDIN else Path(source), kind, columns, pair)


def answer_stream(
    runtime: Runtime,
    records: Iterable[TextRow | BadRow],
    answers: PredictOptions,
    out: Output,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Answer every record and write the answers in order; memory does not grow with the stream.

    Args:
        runtime: answers.
        records: read as answers are written.
        answers: how.
        out: where to.
        progress: called with the number of rows written, after each.

    Returns:
        The number of rows that could not be answered.

    Raises:
        ReaugkdError: of arguments, the first bad text's error.
    """
    write = row_writer(answers.kind, out, answers.explain, runtime.labels, answers.abstain is not None)
    # predict_many reads ahead of what it hands out: the records in between wait here.
    waiting: deque[TextRow | BadRow] = deque()

    def texts() -> Iterator[Text]:
        for record in records:
            waiting.append(record)
            # A bad row takes its turn as an empty text, so that the look-ahead counts it too: a million of them in
            # a row must neither pile up here nor keep the answers before them waiting.
            yield record.text if isinstance(record, TextRow) else ""

    failed = 0
    for count, answer in enumerate(runtime.predict_many(texts(), "return", answers.abstain), start=1):
        record = waiting.popleft()
        found = _found(record, answer, answers.source)
        if isinstance(found, ReaugkdError):
            if answers.source is None:
                raise found
            failed += 1
        write(record.row, record.text if isinstance(record, TextRow) else None, found)
        if progress is not None:
            progress(count)
    return failed


def _found(
    record: TextRow | BadRow, answer: Prediction | ReaugkdError, source: str | None
) -> Prediction | ReaugkdError:
    """The answer, or the error with its place."""
    if isinstance(record, BadRow):
        return record.error
    if not isinstance(answer, ReaugkdError) or answer.row is not None:
        return answer
    if source is None:
        return answer.at(path=f"TEXT {record.row}")
    return answer.at(path="<stdin>" if source == STDIN else source, row=record.row)

"""Choose the columns of the text, the second text and the label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...errors import ColumnError, UsageError
from .dataset import Columns

TEXT_NAMES = (
    *("text", "sentence", "utterance", "query", "content", "review", "question"),
    *("comment", "message", "tweet", "document", "phrase", "body"),
)
PAIR_NAMES = (
    *(("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b")),
    *(("premise", "hypothesis"), ("question", "sentence"), ("question1", "question2"), ("#1 string", "#2 string")),
    *(("text", "text_pair"), ("text1", "text2"), ("text_1", "text_2"), ("text_a", "text_b")),
)
LABEL_NAMES = (
    *("label", "labels", "gold_label", "category", "intent", "class", "target", "quality", "is_duplicate"),
    *("sentiment", "topic", "emotion"),
)
_TEXT_REMEDY = "Name it with --text-column (and --text-pair-column for pairs); the first row must be a header."


class ChosenColumns(NamedTuple):
    """The names of the chosen columns, as in the source; None for a column that is not used."""

    text: str
    pair: str | None
    label: str | None


def choose_columns(
    header: Sequence[str], columns: Columns, source: str, *, pair: bool | None = None, label: bool | None = None
) -> ChosenColumns:
    """Choose the columns of a source: those that the user names, and the others by their usual names in any case.

    Args:
        header: the column names found.
        columns: the names the user gave.
        source: the file's name, for messages.
        pair: whether the rows are pairs; None = decided by the columns.
        label: True = a label column is required; False = it is optional; None = it is ignored.

    Raises:
        ColumnError: a column is missing, repeated or ambiguous; it lists the columns found.
        UsageError: a column of second texts is named, but the model reads single texts.
    """
    if pair is False and columns.pair is not None:
        raise UsageError(
            "this model reads single texts",
            found=f"a second text column {columns.pair!r}",
            expected="--text-column alone",
            remedy="Leave --text-pair-column out.",
        )
    finder = _Finder(header, source)
    text, second = _texts(finder, columns, pair)
    return ChosenColumns(text, second, None if label is None else _label(finder, columns, (text, second), label))


class _Finder:
    """Finds columns in one header."""

    def __init__(self, header: Sequence[str], source: str) -> None:
        self.source = source
        self.header = header
        self.by_name: dict[str, str] = {}
        for name in header:
            self.by_name.setdefault(name.strip().lower(), name)

    def named(self, name: str) -> str:
        """Return the column that the user or the task names."""
        if name not in self.header:
            raise self.error("there is no such column", column=name, expected=f"a column {name!r}")
        return self.once(name)

    def once(self, name: str) -> str:
        if list(self.header).count(name) > 1:
            raise self.error("the column appears twice", column=name, expected="one column of that name")
        return name

    def candidates(self, names: Sequence[str], without: Sequence[str | None] = ()) -> list[str]:
        found = [self.by_name[name] for name in names if name in self.by_name]
        return [name for name in found if name not in without]

    def pairs(self) -> list[tuple[str, str]]:
        return [(self.by_name[a], self.by_name[b]) for a, b in PAIR_NAMES if a in self.by_name and b in self.by_name]

    def error(
        self, message: str, *, expected: str, column: str | None = None, remedy: str | None = None
    ) -> ColumnError:
        found = ", ".join(repr(name) for name in self.header) or "none"
        if len(self.header) == 1 and any(mark in self.header[0] for mark in ",;\t|"):
            remedy = "The header may be in quotes as a whole: put them around each name, or leave them out."
        # A real header is shown in full; what is longer than this is a row of text.
        return ColumnError(
            f"{message}; columns found: {found if len(found) <= 500 else found[:500] + '…'}",
            path=self.source,
            column=column,
            expected=expected,
            remedy=remedy,
        )


def _texts(finder: _Finder, columns: Columns, pair: bool | None) -> tuple[str, str | None]:
    if columns.text is not None:
        second = None if columns.pair is None else finder.named(columns.pair)
        if pair and second is None:
            raise finder.error(
                "this model reads pairs of texts",
                expected="two text columns",
                remedy="Also use --text-pair-column.",
            )
        return finder.named(columns.text), second
    if columns.pair is not None:
        second = finder.named(columns.pair)
        partners = [first for first, other in finder.pairs() if other == second]
        return _only(finder, partners or finder.candidates(TEXT_NAMES, [second, columns.label])), second
    pairs = [] if pair is False else finder.pairs()
    singles = finder.candidates(TEXT_NAMES, [columns.label, *(name for both in pairs for name in both)])
    if len(pairs) > 1 or (pairs and singles and pair is None):
        shown = [*(f"{a!r} with {b!r}" for a, b in pairs), *map(repr, singles)]
        raise finder.error(
            f"several columns could be the text: {', '.join(shown)}", expected="one choice", remedy=_TEXT_REMEDY
        )
    if pairs:
        return finder.once(pairs[0][0]), finder.once(pairs[0][1])
    if pair:
        raise finder.error(
            "no pair of text columns", expected="two columns such as sentence1 and sentence2", remedy=_TEXT_REMEDY
        )
    return _only(finder, singles), None


def _only(finder: _Finder, candidates: list[str]) -> str:
    if len(candidates) == 1:
        return finder.once(candidates[0])
    if candidates:
        message = f"several columns could be the text: {', '.join(map(repr, candidates))}"
        raise finder.error(message, expected="one choice", remedy=_TEXT_REMEDY)
    raise finder.error("no text column", expected=f"a column such as {', '.join(TEXT_NAMES[:6])}", remedy=_TEXT_REMEDY)


def _label(finder: _Finder, columns: Columns, texts: tuple[str | None, ...], required: bool) -> str | None:
    if columns.label is not None:
        if not required and columns.label not in finder.header:
            return None
        return finder.named(columns.label)
    candidates = finder.candidates(LABEL_NAMES, texts)
    if len(candidates) > 1:
        raise finder.error(
            f"several columns could be the label: {', '.join(map(repr, candidates))}",
            expected="one choice",
            remedy="Name it with --label-column.",
        )
    if not candidates and required:
        raise finder.error(
            "no label column",
            expected=f"a column such as {', '.join(LABEL_NAMES[:6])}",
            remedy="Name it with --label-column.",
        )
    return finder.once(candidates[0]) if candidates else None

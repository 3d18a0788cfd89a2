"""A teacher that is no model: the answers of an LLM or of annotators, in a file (docs/how-to/train.md).

The answers to one text are added. They are evidence for a distribution over the c labels, with a symmetric Dirichlet
prior; its posterior mean is the soft label, (evidence + prior / c) / (total evidence + prior). So no probability is 0,
and a loss with a temperature can take its logarithm.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....errors import DataError, LabelError
from ....runtime.data import Columns, Split
from ....runtime.data.cells import check_text, is_missing
from ....runtime.data.columns import choose_columns
from ....runtime.data.dataset import sort_labels
from ....runtime.data.files import SUFFIXES, require_label_format
from ....runtime.data.formats.decoding.opening import open_file
from ....runtime.data.formats.rows import BadRow, Table, empty_file
from ....runtime.labels import LabelNames
from ...types import Floats
from .answer_forms import EMBEDDING, FORMS, GOLD, READERS, Answer, Cell, read_answer, read_embedding

VOTE_PRIOR = 0.1
"""Prior beside votes, in votes: a single vote gets 0.91 + 0.09 / c, about as much as with the usual label smoothing."""

SHARE_PRIOR = 1e-3
"""Prior beside given probabilities, as a share of them: they stay as they are, but none is 0."""

_SHOWN = 5  # labels in a remark


@dataclass(frozen=True)
class TeacherFile:
    """The answers of a teacher to n texts.

    Args:
        name: the name of the file.
        split: the texts; a label is the gold label, or else the teacher's most probable one.
        logits: float32 [n, c], the logarithms of the soft labels.
        embeddings: float32 [n, hidden]; hidden is 0 if the file has none.
        gold: int64 [n], gold labels, -1 for none.
        label_names: the c labels in order.
        remarks: lines about the file for its user.
    """

    name: str
    split: Split
    logits: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    gold: NDArray[np.int64]
    label_names: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def has_embeddings(self) -> bool:
        """Whether the file has embeddings."""
        return bool(self.embeddings.shape[1])

    @property
    def fingerprint(self) -> str:
        """The hash of texts and answers."""
        found = hashlib.sha256(repr((self.split.texts, self.split.pairs, self.label_names)).encode())
        for values in (self.logits, self.embeddings, self.gold):
            found.update(repr(values.shape).encode() + values.tobytes())
        return found.hexdigest()

    def places(self, split: Split) -> NDArray[np.int64]:
        """Return the indices of rows that were taken from ``self.split``."""
        place = {row: number for number, row in enumerate(self.split.rows)}
        return np.array([place[row] for row in split.rows], np.int64)


def read_teacher_file(
    path: Path,
    columns: Columns = Columns(),  # noqa: B008  (frozen)
    label_names: Sequence[str] | None = None,
) -> TeacherFile:
    """Read the answers of a teacher.

    Args:
        path: a file with named columns: JSON lines, Parquet.
        columns: the columns of the texts; its label column is not used.
        label_names: the labels allowed, in order; None for those of the file.

    Raises:
        DataError: the file or a row of it cannot be used (also as ColumnError, LabelError or TextError).
    """
    if not path.is_file():
        raise DataError(
            "no such file", path=path, expected=f"a file of {', '.join(SUFFIXES)}", remedy="Correct the path."
        )
    file_format = require_label_format(path)
    told: list[str] = []
    answers = _Answers(str(path), None if label_names is None else LabelNames(label_names))
    with open_file(path) as stream:
        answers.read(file_format.read_rows(stream, str(path), columns.encoding, told.append), columns)
    if label_names is None:
        answers.give_labels_one_spelling()
    made = answers.assembled(path.name, tuple(label_names or sort_labels(answers.labels)))
    return replace(made, remarks=(*told, *made.remarks))


@dataclass
class _Text:
    """The answers to a text: the number of its first row, evidence, gold label, embedding."""

    row: int
    evidence: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    has_votes: bool = False
    gold: str | None = None
    embedding: NDArray[np.float32] | None = None

    def add(self, answer: Answer) -> None:
        self.has_votes |= answer.total is None
        for label, share in answer.evidence.items():
            self.evidence[label] += share

    def rename(self, names: LabelNames) -> None:
        evidence, self.evidence = self.evidence, defaultdict(float)
        for label, share in evidence.items():
            self.evidence[names.read(label)] += share
        self.gold = None if self.gold is None else names.read(self.gold)

    def soft_label(self, names: Sequence[str]) -> Floats:
        """Return the posterior mean, [c]."""
        evidence = np.array([self.evidence.get(name, 0.0) for name in names])
        prior = VOTE_PRIOR if self.has_votes else SHARE_PRIOR * evidence.sum()
        found: Floats = (evidence + prior / len(names)) / (evidence.sum() + prior)
        return found


@dataclass
class _Answers:
    """The rows of a file, in which the answers to the same text are added."""

    source: str
    allowed: LabelNames | None
    texts: dict[tuple[str, str | None], _Text] = field(default_factory=dict)
    labels: frozenset[str] = frozenset()
    rows: int = 0
    unused: set[str] = field(default_factory=set)
    rescaled: list[float] = field(default_factory=list)

    def read(self, table: Table, columns: Columns) -> None:
        for row, first, second, cells in _rows_of(table, columns):
            self.rows += 1
            text = self.texts.setdefault((first, second), _Text(row))
            answer = read_answer(cells, self.source, row, self.allowed)
            text.add(answer)
            self.labels |= answer.evidence.keys()
            if answer.total is not None and abs(answer.total - 1) > 1e-6:
                self.rescaled.append(answer.total)
            self._add_gold(text, Cell(cells.get(GOLD), self.source, row, GOLD, self.allowed))
            if not is_missing(cells.get(EMBEDDING)):
                text.embedding = read_embedding(Cell(cells[EMBEDDING], self.source, row, EMBEDDING, None))
            self.unused |= cells.keys() - {GOLD, EMBEDDING, *READERS}
        if not self.rows:
            raise empty_file(self.source)

    def _add_gold(self, text: _Text, cell: Cell) -> None:
        if is_missing(cell.value):
            return
        label = cell.label(cell.value)
        if text.gold not in (None, label):
            raise cell.wrong(f"{text.gold!r}, the gold label of the same text in an earlier row")
        text.gold = label
        self.labels |= {label}

    def give_labels_one_spelling(self) -> None:
        names = LabelNames.of_texts(self.labels)
        self.labels = names.names
        for text in self.texts.values():
            text.rename(names)

    def assembled(self, name: str, names: tuple[str, ...]) -> TeacherFile:
        entries = list(self.texts.values())
        number = {label: place for place, label in enumerate(names)}
        soft = np.stack([entry.soft_label(names) for entry in entries])
        gold = np.array([-1 if entry.gold is None else number[entry.gold] for entry in entries], np.int64)
        firsts, seconds = [text for text, _ in self.texts], [pair for _, pair in self.texts if pair is not None]
        labels = [names[place] for place in np.where(gold < 0, soft.argmax(axis=1), gold)]
        split = Split(firsts, seconds or None, labels, self.source, [entry.row for entry in entries])
        tied = ((soft == soft.max(axis=1, keepdims=True)).sum(axis=1) > 1) & (gold < 0)
        return TeacherFile(
            name=name,
            split=split,
            logits=np.log(soft).astype(np.float32),
            embeddings=self._embeddings(),
            gold=gold,
            label_names=names,
            remarks=tuple(self._remarks(labels, int((gold >= 0).sum()), int(tied.sum()))),
        )

    def _embeddings(self) -> NDArray[np.float32]:
        size = next((len(text.embedding) for text in self.texts.values() if text.embedding is not None), 0)
        for text in self.texts.values():
            found = 0 if text.embedding is None else len(text.embedding)
            if found != size:
                raise DataError(
                    "the embeddings differ in length",
                    path=self.source,
                    row=text.row,
                    column=EMBEDDING,
                    found=f"{found} numbers",
                    expected=f"{size} numbers, as in the first embedding",
                    remedy=f"Give every text an embedding by the same model, or leave out the column {EMBEDDING!r}.",
                )
        empty = np.zeros(0, np.float32)
        return np.stack([empty if text.embedding is None else text.embedding for text in self.texts.values()])

    def _remarks(self, labels: Sequence[str], known: int, tied: int) -> Iterator[str]:
        yield (
            f"{self.source}: {self.rows:,} answers to {len(labels):,} texts, {len(self.labels):,} labels; gold labels: "
            f"{f'{known:,} texts' if known else 'none'}"
        )
        if self.rescaled:
            mean = sum(self.rescaled) / len(self.rescaled)
            yield (
                f"answers with probabilities that do not sum to 1, which were normalised: {len(self.rescaled):,}; "
                f"their sum: mean {mean:.3f}, least {min(self.rescaled):.3f}"
            )
        if tied:
            yield f"texts with several most probable labels, of which the first in order counts: {tied:,}"
        single = sorted(label for label, count in Counter(labels).items() if count == 1)
        if single:
            more = f" and {len(single) - _SHOWN:,} more" if len(single) > _SHOWN else ""
            yield f"labels of a single text: {', '.join(map(repr, single[:_SHOWN]))}{more}"
        if self.unused:
            yield f"columns not used: {', '.join(sorted(self.unused))}"


def _rows_of(table: Table, columns: Columns) -> Iterator[tuple[int, str, str | None, Mapping[str, object]]]:
    """Yield the number of each row, its text or pair, and its other cells; the first row decides the text columns.

    Raises:
        LabelError: a row has no named cells.
    """
    chosen = None
    for row in table.rows:
        if isinstance(row, BadRow):
            raise row.error
        if not isinstance(row.value, dict):
            raise LabelError("the row is not an object", path=table.source, row=row.row, expected=FORMS)
        if chosen is None:
            names = Columns(columns.text, columns.pair)
            chosen = choose_columns(table.header or tuple(row.value), names, table.source)
        first = check_text(row.value.get(chosen.text), table.source, row.row, chosen.text)
        second = chosen.pair and check_text(row.value.get(chosen.pair), table.source, row.row, chosen.pair)
        yield row.row, first, second, {name: cell for name, cell in row.value.items() if name not in chosen}

"""A student without what its task has no use for: word pieces, and positions behind its longest text.

The tables of word pieces and positions are most of a small student. Only rows of them are left out here, and every
text that the run knows gets the same answer as before.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import click

from ...errors import ModelError, QualityError, shorten
from ...runtime.data import Split, label_indices
from ...runtime.evaluation.typos import add_typos
from ...runtime.inference.tokenizer import TextTokenizer
from ..modeling.encoder import EncoderClassifier
from ..modeling.tokens import token_rows
from ..modeling.training_loop import outputs_of
from ..onnx.quality import Floors
from ..training.finished_run import FinishedRun
from .embedding_tables import fewer_pieces, fewer_positions, require_unchanged_answers, special_ids, word_table
from .likely_pieces import likeliest_first, most_frequent_first
from .prune import Pruned, Vocabulary
from .tokenizer_pieces import KEEP_WHOLE

VocabularySize = Literal["auto", "full", "task"] | int

TASK_PIECES = 10_000
"""What ``task`` stands for. On banking77 so many answer as well as all 30,522; 8,000 lose 0.1 points of the blend."""

_DRAWS = 4  # of typing errors, none of them the one that `runtime.fidelity` scores on; more find few pieces more


@dataclass(frozen=True)
class Unseen:
    """What fewer pieces do to texts that had no say in which: to the held-out rows.

    Args:
        rows: held-out rows.
        changed: of them, those that are split otherwise.
        other_label: of them, those that get another label from the float32 student.
        lost: the rows that it answers right with every piece, less those with fewer.
    """

    rows: int
    changed: int
    other_label: int
    lost: int

    def require(self, floors: Floors) -> None:
        """Raise QualityError where they lose more accuracy than quantization may."""
        share = self.lost / max(self.rows, 1)
        if self.lost > floors.accuracy_loss_rows and share > floors.accuracy_loss:
            raise QualityError(
                "with so few word pieces, texts that need others lose too much accuracy",
                found=f"{share:.4f} on {self.rows} held-out rows",
                expected=f"at most {floors.accuracy_loss}",
                remedy=(
                    "Keep more: a larger number for --vocabulary, or full; --allow-quality-loss writes the bundle all "
                    "the same."
                ),
            )


@dataclass(frozen=True)
class Slim:
    """A student whose tokenizer lies in the folder it was asked into.

    Args:
        student: maybe with smaller tables.
        kept: rows of its table of pieces.
        of: rows that the run's student has.
        unseen: what that costs; None where nothing was to be left out.
    """

    student: EncoderClassifier
    kept: int
    of: int
    unseen: Unseen | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, for the manifest."""
        unseen = {} if self.unseen is None else {"unseen": asdict(self.unseen)}
        return {"vocabulary": {"kept": self.kept, "of": self.of, **unseen}}


def slim(
    source: FinishedRun,
    student: EncoderClassifier,
    size: VocabularySize,
    folder: Path,
    extra: Split | None = None,
    floors: Floors | None = None,
) -> Slim:
    """Leave out what is not needed, and prove that the rest answers as before.

    Args:
        source: the run.
        student: the run's; left as it is.
        size: ``full``; the least number of pieces to keep; ``task``, `TASK_PIECES` of them; ``auto``, the same, or full
            where that cannot be done safely, costs too much, or there are no more.
        folder: where to write tokenizer.json.
        extra: rows beside the run's whose pieces are kept too.
        floors: what fewer pieces may cost, as quantization may; None: whatever they do, but for ``auto``, which then
            goes by the usual ones.

    Raises:
        ModelError: pieces of this tokenizer, or rows of this model, cannot be left out safely.
        QualityError: texts with other pieces lose more accuracy than the floors allow.
    """
    if size == "full" or (size == "auto" and word_table(student)[1].num_embeddings <= TASK_PIECES):
        return _whole(source, student, folder)
    if size == "auto" and floors is None:
        floors = Floors()
    try:
        return _pruned(source, student, size if isinstance(size, int) else TASK_PIECES, folder, extra, floors)
    except (ModelError, QualityError) as error:
        if size != "auto":
            raise
        click.echo(f"the vocabulary stays whole: {error}", err=True)
        return _whole(source, student, folder)


def _whole(source: FinishedRun, student: EncoderClassifier, folder: Path) -> Slim:
    shutil.copyfile(source.run.student / "tokenizer.json", folder / "tokenizer.json")
    rows = word_table(student)[1].num_embeddings
    shorter = fewer_positions(student, source.recipe.max_length)
    if shorter is not student:
        require_unchanged_answers(student, shorter, range(rows), source.recipe.max_length)
    return Slim(shorter, rows, rows)


def _pruned(
    source: FinishedRun,
    student: EncoderClassifier,
    at_least: int,
    folder: Path,
    extra: Split | None,
    floors: Floors | None,
) -> Slim:
    full, max_length = source.run.student / "tokenizer.json", source.recipe.max_length
    vocabulary = Vocabulary(full)
    used = frozenset(special_ids(student)).union(*vocabulary.ids_of(source.train.inputs(), "pieces of train"))
    heldout = vocabulary.ids_of(source.heldout.inputs(), "pieces of the held-out rows")
    more = vocabulary.ids_of(extra.inputs(), "pieces of the extra rows") if extra is not None else []
    mistyped = _mistyped(vocabulary, source.train.inputs(), used)
    table = word_table(student)[1].weight.detach().numpy()
    known = [piece for piece in vocabulary.candidates() if piece < len(table)]
    kept = used.union(*more)
    # The held-out rows have no say: what is measured on them would look better than what new texts get.
    pruned = vocabulary.pruned(kept, at_least, (*mistyped, *likeliest_first(known, kept, table)))
    unseen = _unseen(source, student, pruned, heldout, folder)
    if floors is not None:
        unseen.require(floors)
    smaller = fewer_positions(fewer_pieces(student, pruned), max_length)
    _write(folder, pruned.tokenizer)
    require_unchanged_answers(student, smaller, pruned.old_ids, max_length)
    tokenizers = (TextTokenizer(path, max_length) for path in (full, folder / "tokenizer.json"))
    whole = [item for item, ids in zip(source.heldout.inputs(), heldout, strict=True) if ids <= set(pruned.old_ids)]
    require_unchanged_tokens(whole, pruned.old_ids, *tokenizers)
    return Slim(smaller, len(pruned.old_ids), word_table(student)[1].num_embeddings, unseen)


def _mistyped(vocabulary: Vocabulary, inputs: Sequence[str | tuple[str, str]], used: frozenset[int]) -> tuple[int, ...]:
    """The ids that texts take with typing errors in them, the most frequent first, but for those used without."""
    rows = (vocabulary.ids_of(add_typos(inputs, seed), "pieces of mistyped rows") for seed in range(1, _DRAWS + 1))
    return most_frequent_first(chain.from_iterable(rows), used)


def _unseen(
    source: FinishedRun, student: EncoderClassifier, pruned: Pruned, heldout: Sequence[frozenset[int]], folder: Path
) -> Unseen:
    """Ask both students about the rows with a piece that is gone; the others are split as before."""
    kept = frozenset(pruned.old_ids)
    rows = source.heldout.take([row for row, ids in enumerate(heldout) if not ids <= kept])
    if not len(rows):
        return Unseen(len(heldout), 0, 0, 0)
    _write(folder, pruned.tokenizer)
    labels = []
    for model, tokenizer in ((student, source.run.student), (fewer_pieces(student, pruned), folder)):
        tokens = token_rows(tokenizer, rows, model.encoder.config, source.recipe.max_length)
        labels.append(outputs_of(model, tokens, "rows with other pieces").logits.argmax(dim=1).numpy())
    before, after = labels
    gold = label_indices(rows, source.labels)
    lost = int((before == gold).sum() - (after == gold).sum())
    return Unseen(len(heldout), len(rows), int((before != after).sum()), lost)


def require_unchanged_tokens(
    inputs: Sequence[str | tuple[str, str]], old_ids: Sequence[int], full: TextTokenizer, pruned: TextTokenizer
) -> None:
    """Prove that the pruned tokenizer splits texts all of whose pieces were kept as the full one does.

    Args:
        inputs: the texts or pairs.
        old_ids: what the pruned tokenizer's ids are in the full one.
        full: the tokenizer with every piece.
        pruned: the other.

    Raises:
        ModelError: a text is split otherwise.
    """
    for item in inputs:
        wanted, found = (one.encode(*((item,) if isinstance(item, str) else item)) for one in (full, pruned))
        if wanted.ids != [old_ids[new] for new in found.ids]:
            raise ModelError(
                "the pruned tokenizer splits a text otherwise",
                found=" ".join(found.tokens),
                expected=shorten(" ".join(wanted.tokens)),
                remedy=KEEP_WHOLE,
            )


def _write(folder: Path, tokenizer: str) -> None:
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")

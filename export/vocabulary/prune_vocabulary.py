"""Vocabulary pruning: remove the subwords and positions that a student's task does not need.

The tables of subwords and positions hold most of a small student's bytes. Only table rows are removed, and every train
row gets the same outputs as before. `plan_pruning` chooses the rows and checks that; `PruningPlan.apply` removes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import click

from ...errors import ModelError, QualityError, shorten
from ...runtime.data import Split, label_indices
from ...runtime.evaluation.typos import add_typos
from ...runtime.inference.text.tokenizer import TextTokenizer
from ..modeling.encoder import EncoderClassifier
from ..modeling.tokens import token_rows
from ..modeling.training_loop import outputs_of
from ..onnx.quality import Floors
from ..training.finished_run import FinishedRun
from .embedding_tables import positions_needed, prune_tables, require_unchanged_answers, special_ids, word_table
from .prune import Pruned, Vocabulary
from .subword_ranking import likeliest_first, most_frequent_first
from .subwords import KEEP_ALL

VocabularySize = Literal["auto", "full", "task"] | int

TASK_SUBWORDS = 10_000
"""The size of ``task``. On banking77, 10,000 subwords answer as well as all 30,522; 8,000 lose 0.1 points."""

_DRAWS = 4  # seeds of typing errors, other than the one for fidelity; more seeds find few more subwords


@dataclass(frozen=True)
class HeldOutEffect:
    """The effect of a pruned vocabulary on the held-out rows, which are not used to choose subwords.

    Args:
        rows: number of held-out rows.
        changed: number of rows that are tokenized differently.
        other_label: number of rows that get another label from the float32 student.
        lost: number of correct labels with the full vocabulary minus that with the pruned one.
    """

    rows: int
    changed: int
    other_label: int
    lost: int

    def require(self, floors: Floors) -> None:
        """Check the loss of accuracy.

        Raises:
            QualityError: the loss is larger than the floors allow.
        """
        share = self.lost / max(self.rows, 1)
        if self.lost > floors.accuracy_loss_rows and share > floors.accuracy_loss:
            raise QualityError(
                "the pruned vocabulary costs too much accuracy",
                found=f"a loss of {share:.4f} on {self.rows} held-out rows",
                expected=f"at most {floors.accuracy_loss}",
                remedy=(
                    "Keep more subwords: a larger number for --vocabulary, or full; --allow-quality-loss writes the "
                    "bundle anyway."
                ),
            )


@dataclass(frozen=True)
class PruningPlan:
    """The rows of a student's embedding tables to keep.

    Args:
        tokenizer: the contents of tokenizer.json.
        subwords: the pruned tokenizer and its ids in the full one; None keeps all subwords.
        positions: number of rows of the position table to keep; None keeps all.
        of: number of rows of the run's table of subwords.
        unseen: the effect on held-out rows; None if all subwords are kept.
    """

    tokenizer: bytes
    subwords: Pruned | None
    positions: int | None
    of: int
    unseen: HeldOutEffect | None = None

    @property
    def kept_ids(self) -> Sequence[int]:
        """The kept ids of the full tokenizer."""
        return range(self.of) if self.subwords is None else self.subwords.old_ids

    @property
    def kept(self) -> int:
        """The number of kept subwords."""
        return len(self.kept_ids)

    def apply(self, student: EncoderClassifier) -> EncoderClassifier:
        """Make a student with the kept table rows only; the same object if all are kept."""
        return prune_tables(student, self.subwords, self.positions)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, for the manifest."""
        unseen = {} if self.unseen is None else {"unseen": asdict(self.unseen)}
        return {"kept": self.kept, "of": self.of, **unseen}


def plan_pruning(
    source: FinishedRun,
    student: EncoderClassifier,
    size: VocabularySize,
    scratch: Path,
    extra: Split | None = None,
    floors: Floors | None = None,
) -> PruningPlan:
    """Choose the subwords and positions to keep.

    Args:
        source: the run.
        student: the run's student; not changed.
        size: ``full`` keeps all subwords; a number is the smallest number of subwords to keep; ``task`` stands for
            `TASK_SUBWORDS`; ``auto`` is ``task``, or ``full`` if pruning is not safe or costs too much accuracy, or if
            there are no more subwords than that.
        scratch: an existing folder for a trial tokenizer.json.
        extra: further rows whose subwords are kept.
        floors: the accuracy that pruning may cost; None for no limit, except for ``auto``, which then uses the default
            floors.

    Raises:
        ModelError: this tokenizer or this model cannot be pruned safely.
        QualityError: the pruned vocabulary costs more accuracy than the floors allow.
    """
    if size == "full" or (size == "auto" and word_table(student)[1].num_embeddings <= TASK_SUBWORDS):
        return _whole(source, student)
    if size == "auto" and floors is None:
        floors = Floors()
    try:
        return _pruned(source, student, size if isinstance(size, int) else TASK_SUBWORDS, scratch, extra, floors)
    except (ModelError, QualityError) as error:
        if size != "auto":
            raise
        click.echo(f"the vocabulary is not pruned: {error}", err=True)
        return _whole(source, student)


def _whole(source: FinishedRun, student: EncoderClassifier) -> PruningPlan:
    tokenizer = (source.run.student / "tokenizer.json").read_bytes()
    max_length, rows = source.recipe.max_length, word_table(student)[1].num_embeddings
    plan = PruningPlan(tokenizer, None, positions_needed(student, max_length), rows)
    require_unchanged_answers(student, plan.apply(student), plan.kept_ids, max_length)
    return plan


def _pruned(
    source: FinishedRun,
    student: EncoderClassifier,
    at_least: int,
    scratch: Path,
    extra: Split | None,
    floors: Floors | None,
) -> PruningPlan:
    full, max_length = source.run.student / "tokenizer.json", source.recipe.max_length
    vocabulary = Vocabulary(full)
    used = frozenset(special_ids(student)).union(*vocabulary.ids_of(source.train.inputs(), "subwords of train"))
    heldout = vocabulary.ids_of(source.heldout.inputs(), "subwords of the held-out rows")
    more = vocabulary.ids_of(extra.inputs(), "subwords of the extra rows") if extra is not None else []
    mistyped = _mistyped(vocabulary, source.train.inputs(), used)
    table = word_table(student)[1].weight.detach().numpy()
    known = [subword for subword in vocabulary.candidates() if subword < len(table)]
    kept = used.union(*more)
    # Held-out rows are not used for the choice: otherwise results on them would be better than on new texts.
    pruned = vocabulary.pruned(kept, at_least, (*mistyped, *likeliest_first(known, kept, table)))
    (scratch / "tokenizer.json").write_text(pruned.tokenizer, encoding="utf-8")
    positions = positions_needed(student, max_length)
    smaller = prune_tables(student, pruned, positions)
    unseen = _effect_on_heldout(source, (student, smaller), pruned, heldout, scratch)
    if floors is not None:
        unseen.require(floors)
    require_unchanged_answers(student, smaller, pruned.old_ids, max_length)
    tokenizers = (TextTokenizer(path, max_length) for path in (full, scratch / "tokenizer.json"))
    whole = [item for item, ids in zip(source.heldout.inputs(), heldout, strict=True) if ids <= set(pruned.old_ids)]
    require_unchanged_tokens(whole, pruned.old_ids, *tokenizers)
    return PruningPlan(pruned.tokenizer.encode(), pruned, positions, len(table), unseen)


def _mistyped(vocabulary: Vocabulary, inputs: Sequence[str | tuple[str, str]], used: frozenset[int]) -> tuple[int, ...]:
    """Return the ids in texts with typing errors, the most frequent first, without those in the texts themselves."""
    rows = (vocabulary.ids_of(add_typos(inputs, seed), "subwords of mistyped rows") for seed in range(1, _DRAWS + 1))
    return most_frequent_first(chain.from_iterable(rows), used)


def _effect_on_heldout(
    source: FinishedRun,
    students: tuple[EncoderClassifier, EncoderClassifier],
    pruned: Pruned,
    heldout: Sequence[frozenset[int]],
    folder: Path,
) -> HeldOutEffect:
    """Compare the full and the pruned student on the rows with a removed subword.

    All other rows are tokenized as before.
    """
    kept = frozenset(pruned.old_ids)
    rows = source.heldout.take([row for row, ids in enumerate(heldout) if not ids <= kept])
    if not len(rows):
        return HeldOutEffect(len(heldout), 0, 0, 0)
    labels = []
    for model, tokenizer in zip(students, (source.run.student, folder), strict=True):
        tokens = token_rows(tokenizer, rows, model.encoder.config, source.recipe.max_length)
        labels.append(outputs_of(model, tokens, "rows with other subwords").logits.argmax(dim=1).numpy())
    before, after = labels
    gold = label_indices(rows, source.labels)
    lost = int((before == gold).sum() - (after == gold).sum())
    return HeldOutEffect(len(heldout), len(rows), int((before != after).sum()), lost)


def require_unchanged_tokens(
    inputs: Sequence[str | tuple[str, str]], old_ids: Sequence[int], full: TextTokenizer, pruned: TextTokenizer
) -> None:
    """Check that the pruned tokenizer and the full one tokenize texts alike if all their subwords are kept.

    Args:
        inputs: the texts or pairs.
        old_ids: the pruned tokenizer's ids in the full one.
        full: the tokenizer with all subwords.
        pruned: the pruned tokenizer.

    Raises:
        ModelError: a text is tokenized differently.
    """
    for item in inputs:
        expected, found = (one.encode(*((item,) if isinstance(item, str) else item)) for one in (full, pruned))
        if expected.ids != [old_ids[new] for new in found.ids]:
            raise ModelError(
                "the pruned tokenizer tokenizes a text differently",
                found=" ".join(found.tokens),
                expected=shorten(" ".join(expected.tokens)),
                remedy=KEEP_ALL,
            )

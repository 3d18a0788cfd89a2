"""Vocabulary pruning: remove the tokens that a student's task does not need, and the positions that no text reaches.

Only table rows are removed, and every train row gets the same outputs as before. Other texts may be split into other
tokens, so tokens are removed only on request. `plan_pruning` chooses the rows and measures what that changes;
`PruningPlan.apply` removes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError, QualityError, shorten
from ...runtime.data import Split
from ...runtime.evaluation.typos import add_typos
from ...runtime.inference.text.tokenizer import TextTokenizer
from ..modeling.encoder import EncoderClassifier
from ..modeling.execution.inference import outputs_of
from ..modeling.execution.tokens import token_rows
from ..onnx.quality import Floors
from ..training.finished_run import FinishedRun
from .embedding_tables import positions_needed, prune_tables, require_unchanged_answers, special_ids, token_table
from .model_tokens import KEEP_ALL
from .prune import Pruned, Vocabulary
from .token_ranking import likeliest_first, most_frequent_first

VocabularySize = Literal["full"] | int

DRAWS = 10
"""The number of draws of the train rows by which the effect on other texts is measured."""

_LEFT_OUT = 0.1  # share of the train rows that a draw leaves out
_TYPOS = 4  # seeds of typing errors, other than the one for fidelity; more seeds find few more tokens


@dataclass(frozen=True)
class UnseenEffect:
    """The effect of a pruned vocabulary on texts that are not used to choose tokens.

    Args:
        split_otherwise: share of texts that are tokenized differently; mean of the draws, each of which leaves out a
            tenth of the train rows and chooses tokens by the others.
        split_otherwise_most: the largest share of a draw.
        rows: number of held-out rows.
        other_label: number of held-out rows that get another label from the float32 student.
    """

    split_otherwise: float
    split_otherwise_most: float
    rows: int
    other_label: int

    def require(self, floors: Floors) -> None:
        """Check the share of texts that are tokenized differently.

        Raises:
            QualityError: the share is larger than the floors allow.
        """
        if self.split_otherwise > floors.split_otherwise:
            raise QualityError(
                "with the smaller vocabulary too many unseen texts are split into other tokens",
                found=f"{self.split_otherwise:.1%} on average over {DRAWS} draws",
                expected=f"at most {floors.split_otherwise:.0%}",
                remedy=(
                    "Keep more tokens with a larger number, or all of them without --vocabulary; "
                    "--allow-quality-loss writes the bundle anyway."
                ),
            )


@dataclass(frozen=True)
class PruningPlan:
    """The rows of a student's embedding tables to keep.

    Args:
        tokenizer: the contents of tokenizer.json.
        tokens: the pruned tokenizer and its ids in the full one; None keeps all tokens.
        positions: number of rows of the position table to keep; None keeps all.
        of: number of rows of the run's token table.
        unseen: the effect on other texts; None if all tokens are kept.
    """

    tokenizer: bytes
    tokens: Pruned | None
    positions: int | None
    of: int
    unseen: UnseenEffect | None = None

    @property
    def kept_ids(self) -> Sequence[int]:
        """The kept ids of the full tokenizer."""
        return range(self.of) if self.tokens is None else self.tokens.old_ids

    @property
    def kept(self) -> int:
        """The number of kept tokens."""
        return len(self.kept_ids)

    def apply(self, student: EncoderClassifier) -> EncoderClassifier:
        """Make a student with the kept table rows only; the same object if all are kept."""
        return prune_tables(student, self.tokens, self.positions)

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
    """Choose the tokens and positions to keep.

    Args:
        source: the run.
        student: the run's student; not changed.
        size: ``full`` keeps all tokens; a number is the smallest number of tokens to keep.
        scratch: an existing folder for a trial tokenizer.json.
        extra: further rows whose tokens are kept.
        floors: the share of unseen texts that may be split into other tokens; None for no limit.

    Raises:
        ModelError: this tokenizer or this model cannot be pruned safely.
        QualityError: too many unseen texts are split into other tokens.
    """
    if size == "full":
        return _whole(source, student)
    return _pruned(source, student, size, scratch, extra, floors)


def _whole(source: FinishedRun, student: EncoderClassifier) -> PruningPlan:
    tokenizer = (source.run.student / "tokenizer.json").read_bytes()
    max_length, rows = source.recipe.max_length, token_table(student)[1].num_embeddings
    plan = PruningPlan(tokenizer, None, positions_needed(student, max_length), rows)
    require_unchanged_answers(student, plan.apply(student), plan.kept_ids, max_length)
    return plan


@dataclass(frozen=True)
class _Choice:
    """What tokens are chosen by.

    Args:
        vocabulary: the run's vocabulary.
        rows: the ids in each of n train rows.
        mistyped: for each seed, the ids in each of the train rows with typing errors.
        always: ids that are always kept.
        known: ids that may be added, by descending frequency.
        table: [vocabulary size, d], the embedding of each id.
        at_least: the number of tokens to keep, if no more are used.
    """

    vocabulary: Vocabulary
    rows: Sequence[frozenset[int]]
    mistyped: Sequence[Sequence[frozenset[int]]]
    always: frozenset[int]
    known: Sequence[int]
    table: NDArray[np.float32]
    at_least: int

    def by(self, rows: Sequence[int]) -> tuple[frozenset[int], int, Iterable[int]]:
        """Choose by some of the train rows: ids to keep, the smallest number to keep, and ids to add, best first."""
        used = self.always.union(*(self.rows[row] for row in rows))
        errors = chain.from_iterable((draw[row] for row in rows) for draw in self.mistyped)
        likeliest = likeliest_first(self.known, used, self.table)
        return used, self.at_least, (*most_frequent_first(errors, used), *likeliest)

    def split_otherwise(self) -> list[float]:
        """Return the share of the left-out train rows that are tokenized differently, for each draw."""
        count, shares = len(self.rows), []
        left_out = max(1, round(_LEFT_OUT * count))
        for seed in range(DRAWS):
            order = np.random.default_rng(seed).permutation(count).tolist()
            kept = self.vocabulary.kept_ids(*self.by(order[left_out:]))
            shares.append(sum(not self.rows[row] <= kept for row in order[:left_out]) / left_out)
        return shares


def _pruned(
    source: FinishedRun,
    student: EncoderClassifier,
    at_least: int,
    scratch: Path,
    extra: Split | None,
    floors: Floors | None,
) -> PruningPlan:
    full, max_length = source.run.student / "tokenizer.json", source.recipe.max_length
    vocabulary, inputs = Vocabulary(full), source.train.inputs()
    table = token_table(student)[1].weight.detach().numpy()
    more = vocabulary.ids_of(extra.inputs(), "tokens of the extra rows") if extra is not None else []
    choice = _Choice(
        vocabulary,
        vocabulary.ids_of(inputs, "tokens of train"),
        [vocabulary.ids_of(add_typos(inputs, seed), "tokens of mistyped rows") for seed in range(1, _TYPOS + 1)],
        frozenset(special_ids(student)).union(*more),
        [token for token in vocabulary.candidates() if token < len(table)],
        table,
        at_least,
    )
    # Held-out rows are not used for the choice: otherwise results on them would be better than on new texts.
    pruned = vocabulary.pruned(*choice.by(range(len(inputs))))
    (scratch / "tokenizer.json").write_text(pruned.tokenizer, encoding="utf-8")
    positions = positions_needed(student, max_length)
    smaller = prune_tables(student, pruned, positions)
    ids = vocabulary.ids_of(source.heldout.inputs(), "tokens of the held-out rows")
    whole = [row for row, found in enumerate(ids) if found <= set(pruned.old_ids)]
    others = sorted(set(range(len(ids))) - set(whole))
    shares = choice.split_otherwise()
    changed = _other_labels(source, (student, smaller), others, scratch)
    unseen = UnseenEffect(float(np.mean(shares)), max(shares), len(ids), changed)
    if floors is not None:
        unseen.require(floors)
    require_unchanged_answers(student, smaller, pruned.old_ids, max_length)
    tokenizers = (TextTokenizer(path, max_length) for path in (full, scratch / "tokenizer.json"))
    require_unchanged_tokens(source.heldout.take(whole).inputs(), pruned.old_ids, *tokenizers)
    return PruningPlan(pruned.tokenizer.encode(), pruned, positions, len(table), unseen)


def _other_labels(
    source: FinishedRun, students: tuple[EncoderClassifier, EncoderClassifier], rows: Sequence[int], folder: Path
) -> int:
    """Count the held-out rows, of some, that get another label from the pruned student than from the full one."""
    texts, labels = source.heldout.take(rows), []
    if not len(texts):
        return 0
    for model, tokenizer in zip(students, (source.run.student, folder), strict=True):
        tokens = token_rows(tokenizer, texts, model.encoder.config, source.recipe.max_length)
        labels.append(outputs_of(model, tokens, "rows with other tokens").logits.argmax(dim=1))
    return int((labels[0] != labels[1]).sum())


def require_unchanged_tokens(
    inputs: Sequence[str | tuple[str, str]], old_ids: Sequence[int], full: TextTokenizer, pruned: TextTokenizer
) -> None:
    """Check that the pruned tokenizer and the full one tokenize texts alike if all their tokens are kept.

    Args:
        inputs: the texts or pairs.
        old_ids: the pruned tokenizer's ids in the full one.
        full: the tokenizer with all tokens.
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

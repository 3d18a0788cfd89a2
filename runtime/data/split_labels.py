"""Give the labels of all splits one spelling, compare them with the classes, and note what the user must know."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ...errors import LabelError
from ..labels import LabelNames, near_equal, near_equal_to
from .dataset import Split, label_indices, one_of

_FRACTION = re.compile(r"-?[0-9]+\.[0-9]+")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_SHOWN = 8
_NO_LABEL = "-1"  # in GLUE's test sets on the Hugging Face hub


class SplitLabels:
    """The labels of all splits, read as names.

    Args:
        splits: split name -> its rows, with the labels as in the source.
        known: the names of the classes.
        training: whether the data is to train on, and not to use with a bundle, which has its own classes.

    Attributes:
        splits: the same splits, with one spelling of each label; a test split without a usable label has none.
        notes: what the user must know, each in one sentence.

    Raises:
        LabelError: a label of train is not one of the classes, or no label of dev is (only for ``training``).
    """

    def __init__(self, splits: Mapping[str, Split], known: LabelNames, *, training: bool) -> None:
        self.notes: list[str] = []
        self._known, self._training = known, training
        self.splits = self._with_one_spelling(splits)
        if training:
            self._compare_names()
        self.splits = {name: self._compared(name, split) for name, split in self.splits.items()}

    def _with_one_spelling(self, splits: Mapping[str, Split]) -> dict[str, Split]:
        written: Counter[tuple[str, str]] = Counter()
        merged = False
        read = {}
        for name, split in splits.items():
            if split.labels is not None:
                pairs = Counter((label, self._known.read(label)) for label in split.labels)
                merged |= len({label for _, label in pairs}) < len(pairs)
                written += Counter({pair: count for pair, count in pairs.items() if pair[0] != pair[1]})
                split = replace(split, labels=[self._known.read(label) for label in split.labels])
            read[name] = split
        if written:
            changes = [f"{was!r} as {now!r} ({_rows(count)})" for (was, now), count in written.most_common()]
            apart = "; to keep two spellings apart, write them as words, such as 'v1.0'" if merged else ""
            self.notes.append(f"labels are read by their value: {_first(changes)}{apart}")
        return read

    def _compare_names(self) -> None:
        of = [self.splits["train"]] if "train" in self.splits else self.splits.values()
        counts = Counter(label for split in of for label in split.labels or ())
        groups = [", ".join(f"{name!r} ({_rows(counts[name])})" for name in group) for group in near_equal(counts)]
        if groups:
            self.notes.append(
                "labels that differ only in case, blanks, punctuation or Unicode form are different classes: "
                f"{_first(groups, '; ')}; write them alike if they mean the same"
            )
        if any(map(_FRACTION.fullmatch, counts)) and all(map(_NUMBER.fullmatch, counts)):
            self.notes.append(
                f"the labels are numbers with fractions: each of the {len(counts):,} is a class of its own"
            )

    def _compared(self, name: str, split: Split) -> Split:
        """Return a split after its labels are compared with the classes.

        Raises:
            LabelError: see the class.
        """  # noqa: DOC501
        if split.labels is None:
            self.notes.append(f"{split.source} has no labels: it is not scored")
            return split
        unseen = Counter(label for label in split.labels if label not in self._known.names)
        if not unseen:
            return split
        if name == "train" and self._training:
            self._require_known(split)
        if unseen.total() < len(split):
            self.notes.append(
                f"{split.source}: {unseen.total():,} of {len(split):,} rows have a label that "
                f"{'train does not have' if self._training else 'the model does not know'}, and count as wrong: "
                f"{_first(self._shown(unseen))}"
            )
            return split
        if name == "test" and (self._training or set(unseen) == {_NO_LABEL}):
            self.notes.append(
                f"{split.source} is not scored, because none of its labels is one of the classes: "
                f"{_first(self._shown(unseen))}"
            )
            return replace(split, labels=None, label_column=None)
        if self._training:
            raise no_known_label(split, sorted(self._known.names))
        return split

    def _require_known(self, split: Split) -> None:
        try:
            label_indices(split, sorted(self._known.names))
        except LabelError as error:
            remedy = "Correct the row, or add the class to the data's class names (categories.json)."
            raise error.at(remedy=remedy) from error

    def _shown(self, unseen: Counter[str]) -> list[str]:
        """Return unknown labels with their rows, and the class that each nearly equals."""
        shown = []
        for label, count in unseen.most_common(_SHOWN):
            alike = [name for group in near_equal_to([label], self._known.names) for name in group if name != label]
            shown.append(f"{label!r} ({_rows(count)}{f', nearly {alike[0]!r}' if alike else ''})")
        return shown + [""] * (len(unseen) - len(shown))


def no_known_label(split: Split, names: Sequence[str]) -> LabelError:
    """Return the error for a split of which no label is one of the classes."""
    counts = Counter(split.labels or ())
    return LabelError(
        "none of the labels is one of the classes",
        path=split.source,
        column=split.label_column,
        found=_first([f"{label!r} ({_rows(count)})" for label, count in counts.most_common()]),
        expected=one_of(names),
        remedy="Name the column of the labels with --label-column, or write the labels as the classes are named.",
    )


def _first(parts: Iterable[str], separator: str = ", ") -> str:
    shown = list(parts)
    more = f" and {len(shown) - _SHOWN:,} more" if len(shown) > _SHOWN else ""
    return separator.join(shown[:_SHOWN]) + more


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"

"""Splits of a run: train, heldout (to tune the blend), dev and test (to evaluate)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...runtime.data import Dataset, Split, drop_duplicates_of, hold_out, with_dev_split
from ...runtime.data.splits import Indices
from ..recipe import Recipe
from ..tuning.groups import related_rows

ENOUGH_GOLD = 50
"""Smallest number of held-out rows that all have a gold label; if there are fewer, other rows are held out too."""

_HELDOUT_SEED, _LIMIT_SEED = 1, 2


@dataclass(frozen=True)
class RunSplits:
    """The rows of a run.

    Args:
        train: rows of the teacher's fit, the distillation and the knowledge base; no row of another split is in it.
        heldout: labelled rows split off the data's train split, to tune the blend and check the int8 student.
        scored: the ``dev`` and ``test`` splits, used for scores only.
        beyond: the train rows that a limit leaves out; no row of another split is in it.
        label_names: the labels in order.
        name: name of the data.
    """

    train: Split
    heldout: Split
    scored: dict[str, Split]
    beyond: Split
    label_names: tuple[str, ...]
    name: str

    @property
    def fitted(self) -> dict[str, Split]:
        """The splits that the run is made from: ``train`` and ``heldout``."""
        return {"train": self.train, "heldout": self.heldout}


def assign(dataset: Dataset, recipe: Recipe, limit: int | None, has_gold: NDArray[np.bool_] | None = None) -> RunSplits:
    """Assign rows to splits and remove duplicates.

    The splits have fixed seeds: runs with different seeds train on the same rows. If the data has no dev split, one is
    split off train, stratified. The held-out rows are split off train too, so that dev and test serve for scores only.
    Related rows (``related_rows``) are held out together, so the number of held-out rows only approximates the share.
    With a limit, the held-out rows are a subset of those without a limit, so that a teacher of all train rows (with the
    same held-out share) was not fitted on them. Duplicates are dropped: train rows that are in another split, and
    held-out rows that are in a scored split.

    Args:
        dataset: as read; its ``train`` must exist and have labels.
        recipe: the held-out share.
        limit: largest number of train rows, including the held-out ones, stratified; None for all.
        has_gold: [n], whether a train row has a gold label, if the other rows have the label of a teacher in a file.
            Then no dev split is split off, and rows with a gold label are held out, if `ENOUGH_GOLD` can be.

    Raises:
        DataError: there is no train split, there are too few rows to hold any out, or the limit leaves no rows to train
            on.
    """
    if "train" not in dataset.splits:
        found = ", ".join(dataset.splits) or "no split"
        raise DataError("the data has no train split", path=dataset.name, found=found)
    if has_gold is None:
        dataset = with_dev_split(dataset)
    rows, names = dataset.splits["train"], dataset.label_names
    scored = {name: split for name, split in dataset.splits.items() if name != "train"}
    held, kept = _hold_out(rows, names, _heldout_count(len(rows), recipe), has_gold)
    if limit is not None and limit < len(rows):
        held = held[_fewer(rows.take(held), _heldout_count(limit, recipe))]
        _require_room(limit, len(held), dataset)
        kept = kept[hold_out(rows.take(kept), names, limit - len(held), _LIMIT_SEED)[1]]
    heldout, train = rows.take(held), rows.take(kept)
    beyond = rows.take(np.setdiff1d(np.arange(len(rows)), [*held, *kept]))
    heldout = heldout.take(drop_duplicates_of(heldout, scored.values()))
    train = train.take(drop_duplicates_of(train, [heldout, *scored.values()]))
    _require_classes(train, dataset)
    if not len(heldout):
        raise DataError("every held-out row repeats a row of dev or test", path=dataset.name, found="0 rows left")
    beyond = beyond.take(drop_duplicates_of(beyond, [train, heldout, *scored.values()]))
    return RunSplits(train, heldout, scored, beyond, dataset.label_names, dataset.name)


def _heldout_count(rows: int, recipe: Recipe) -> int:
    """Return the number of rows to hold out."""
    return min(round(rows * recipe.heldout_share), recipe.heldout_max)


def _hold_out(
    rows: Split, label_names: tuple[str, ...], count: int, has_gold: NDArray[np.bool_] | None
) -> tuple[Indices, Indices]:
    """Return the indices of about ``count`` held-out rows and of the rest; for ``has_gold`` see `assign`.

    Whole groups of related rows are held out, stratified by the label of each group's first row. A group of more than
    a quarter of ``count`` rows is not held out, because it would dominate the held-out rows.
    """
    groups = related_rows(rows)
    firsts, sizes = np.unique(groups, return_counts=True)
    small = sizes <= max(1, count // 4)
    if has_gold is not None:
        of_gold = small & ~np.isin(firsts, groups[~has_gold])
        labels = {(rows.labels or ())[row] for row in firsts[of_gold]}
        if of_gold.sum() - len(labels) >= ENOUGH_GOLD:  # every class keeps a row
            small = of_gold
    firsts, sizes = firsts[small], sizes[small]
    group_count = max(1, round(count / sizes.mean())) if len(sizes) else 1
    _, held = hold_out(rows.take(firsts), label_names, group_count, _HELDOUT_SEED)
    is_held = np.isin(groups, firsts[held])
    return np.flatnonzero(is_held), np.flatnonzero(~is_held)


def _fewer(heldout: Split, count: int) -> Indices:
    """Return the indices of about ``count`` of the held-out rows, at least one, in whole groups as in ``_hold_out``.

    Groups are taken in random order, stratified by the label of each group's first row as far as possible.
    """
    groups = related_rows(heldout)
    firsts, sizes = np.unique(groups, return_counts=True)
    small = sizes <= max(1, count // 4, sizes.min())
    drawn = np.random.default_rng(_HELDOUT_SEED).permutation(np.flatnonzero(small))
    labels = [(heldout.labels or ())[row] for row in firsts[drawn]]
    of_class, seen = Counter(labels), Counter[str]()
    place = []  # position of each group within its class, from 0 to 1
    for label in labels:
        place.append((seen[label] + 0.5) / of_class[label])
        seen[label] += 1
    order = drawn[np.argsort(place, kind="stable")]
    fits = int((np.cumsum(sizes[order]) <= count).sum())
    return np.flatnonzero(np.isin(groups, firsts[order[: max(1, fits)]]))


def _require_room(limit: int, held: int, dataset: Dataset) -> None:
    if limit <= held:
        raise DataError(
            "the limit leaves no rows to train on",
            path=dataset.name,
            found=f"a limit of {limit} rows",
            expected=f"more than the {held} rows that are held out",
            remedy="Raise the limit.",
        )


def _require_classes(train: Split, dataset: Dataset) -> None:
    if len(set(train.labels or ())) < 2:
        raise DataError(
            "fewer than two classes are left to train on after duplicates of rows of other splits are dropped",
            path=train.source,
            found=f"{len(train)} rows",
            expected=f"rows of at least 2 of {len(dataset.label_names)} classes",
        )

"""Splits of a run: train, heldout (to tune the blend), dev and test (to evaluate)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ...errors import DataError
from ...runtime.data import Dataset, Split, drop_duplicates_of, hold_out, with_dev_split
from ...runtime.data.splits import Indices
from ..recipe import Recipe
from ..tuning.groups import related_rows

_HELDOUT_SEED, _LIMIT_SEED = 1, 2


@dataclass(frozen=True)
class RunSplits:
    """The rows of a run.

    Args:
        train: what the teacher is fitted on, the student distilled on, and the knowledge base made of; no row of the
            other splits is in it.
        heldout: labelled rows carved out of the data's train split, on which the blend is tuned and int8 is judged.
        scored: the ``dev`` and ``test`` splits, looked at for a score only.
        beyond: the train rows that a limit leaves out; none of the other splits' rows is among them.
        label_names: the labels in order.
        name: the data's name.
    """

    train: Split
    heldout: Split
    scored: dict[str, Split]
    beyond: Split
    label_names: tuple[str, ...]
    name: str


def assign(dataset: Dataset, recipe: Recipe, limit: int | None) -> RunSplits:
    """Assign rows to splits and remove duplicates.

    The seeds are fixed: two runs of different seeds differ in their training, not in their rows. Where the data has no
    dev split, one is carved out of train, stratified. The held-out rows are always a carve of their own, so that
    neither dev nor test is looked at before its score; related rows (``related_rows``) are held out together, so that
    their number is near the share, not exact. The held-out rows of a limit are some of those that are held out without
    it, so that a teacher of all train rows (with the same held-out share) knows none of them. Rows that repeat one
    that they must not know are dropped: train rows of any other split, held-out rows of a scored split.

    Args:
        dataset: as read; ``train`` must be there and labelled.
        recipe: the held-out share.
        limit: at most so many train rows, the held-out ones among them, stratified; None for all.

    Raises:
        DataError: no train split, too few rows to hold any out, or a limit that leaves none to train on.
    """
    if "train" not in dataset.splits:
        raise DataError("there is no train split", path=dataset.name, found=", ".join(dataset.splits) or "no split")
    dataset = with_dev_split(dataset)
    rows, names = dataset.splits["train"], dataset.label_names
    scored = {name: split for name, split in dataset.splits.items() if name != "train"}
    held, kept = _hold_out(rows, names, _wanted(len(rows), recipe))
    if limit is not None and limit < len(rows):
        held = held[_fewer(rows.take(held), _wanted(limit, recipe))]
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


def _wanted(rows: int, recipe: Recipe) -> int:
    """The number of rows to hold out."""
    return min(round(rows * recipe.heldout_share), recipe.heldout_max)


def _hold_out(rows: Split, label_names: tuple[str, ...], count: int) -> tuple[Indices, Indices]:
    """The numbers of about ``count`` held-out rows and of the rest.

    Whole groups of related rows, stratified by the label of each group's first row. A group of more than a quarter of
    ``count`` is never held out: it would decide everything.
    """
    groups = related_rows(rows)
    firsts, sizes = np.unique(groups, return_counts=True)
    small = sizes <= max(1, count // 4)
    firsts, sizes = firsts[small], sizes[small]
    groups_wanted = max(1, round(count / sizes.mean())) if len(sizes) else 1
    _, held = hold_out(rows.take(firsts), label_names, groups_wanted, _HELDOUT_SEED)
    is_held = np.isin(groups, firsts[held])
    return np.flatnonzero(is_held), np.flatnonzero(~is_held)


def _fewer(heldout: Split, count: int) -> Indices:
    """The numbers of about ``count`` of the held-out rows, at least one, by groups that are small as in ``_hold_out``.

    Stratified by each group's first label as far as so few rows go, and in an order that is drawn.
    """
    groups = related_rows(heldout)
    firsts, sizes = np.unique(groups, return_counts=True)
    small = sizes <= max(1, count // 4, sizes.min())
    drawn = np.random.default_rng(_HELDOUT_SEED).permutation(np.flatnonzero(small))
    labels = [(heldout.labels or ())[row] for row in firsts[drawn]]
    of_class, seen = Counter(labels), Counter[str]()
    place = []  # of each group in its class, from 0 to 1
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
            expected=f"more than the {held} that are held out of them",
            remedy="Raise the limit.",
        )


def _require_classes(train: Split, dataset: Dataset) -> None:
    if len(set(train.labels or ())) < 2:
        raise DataError(
            "fewer than two classes are left to train on, once rows that other splits hold too are dropped",
            path=train.source,
            found=f"{len(train)} rows",
            expected=f"rows of at least 2 of {len(dataset.label_names)} classes",
        )

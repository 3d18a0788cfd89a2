"""Grid search over retrieval settings (k, tau, label temperature, share of gold)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...runtime.decision.blending import interpolate
from ..types import Floats
from .groups import grouped_folds, mean_and_error

FOLDS = 5
PARTITIONS = 4
FEWEST_ROWS = 20
_FOLD_SEED = 40
_HALVINGS = 20  # bisection steps on [0, 1]: the weight to 1e-6
_TINY = 1e-12


class Setting(NamedTuple):
    """One point of the grid; for the fields see `BlendConfig`."""

    k: int
    tau: float
    label_temperature: float
    gold_share: float


class Best(NamedTuple):
    """A setting with its best mixture weight.

    ``number`` is the setting's index, ``weight`` the student's; ``nll`` and ``retrieval_nll`` are the mean negative
    log-likelihoods of the blend and of its neighbours alone.
    """

    number: int
    weight: float
    nll: float
    retrieval_nll: float


@dataclass(frozen=True)
class Candidates:
    """m settings evaluated on n held-out rows.

    Args:
        settings: the m settings.
        of_gold: [m, n], the retrieved probability of each row's gold label at each setting.
    """

    settings: Sequence[Setting]
    of_gold: Floats

    def best(self, student: Floats) -> Best:
        """Find the setting whose blend has the lowest NLL; ties go to the lowest NLL of the neighbours alone.

        Args:
            student: [n], the student's probability of each row's gold label.
        """
        weights = fit_weights(student, self.of_gold)
        nlls = _nlls(interpolate(student, self.of_gold, weights[:, None]))
        alone = _nlls(self.of_gold)
        number = int(np.lexsort((alone, nlls))[0])
        return Best(number, float(weights[number]), float(nlls[number]), float(alone[number]))

    def best_by_k(self, student: Floats) -> dict[int, Best]:
        """Find the best setting at each k, the smallest k first; see ``best``."""
        found = {}
        for k in sorted({setting.k for setting in self.settings}):
            numbers = [number for number, setting in enumerate(self.settings) if setting.k == k]
            best = Candidates([self.settings[number] for number in numbers], self.of_gold[numbers]).best(student)
            found[k] = best._replace(number=numbers[best.number])
        return found

    def chosen(self, student: Floats, k_loss: float) -> Best:
        """Find the best setting of the smallest k that keeps ``1 - k_loss`` of the best k's gain, if there is a gain.

        Args:
            student: [n], see ``best``.
            k_loss: share of the gain over the student that fewer neighbours may lose.
        """
        return fewest_neighbours(self.best_by_k(student), float(_nlls(student)), k_loss)

    def pays(self, student: Floats, groups: NDArray[np.integer] | None = None, k_loss: float = 0.0) -> bool:
        """Whether the chosen blend beats the student on unseen rows by more than a standard error.

        The choice of setting and constant weight is cross-validated (five folds, four partitions), because the best of
        hundreds of settings on a few hundred rows always has some gain. False below ``FEWEST_ROWS`` rows.

        Args:
            student: [n], see ``best``.
            groups: [n], groups of related rows (`related_rows`); a group is in one fold and counts once. Default: no
                rows are related.
            k_loss: see ``chosen``.
        """
        if len(student) < FEWEST_ROWS:
            return False
        groups = np.arange(len(student)) if groups is None else groups
        partitions = [self._unseen_gains(student, groups, k_loss, _FOLD_SEED + number) for number in range(PARTITIONS)]
        gain, error = mean_and_error(np.mean(partitions, axis=0), groups)
        return gain > error

    def _unseen_gains(self, student: Floats, groups: NDArray[np.integer], k_loss: float, seed: int) -> Floats:
        """Compute each row's gain in log-likelihood over the student, [n], with the blend chosen on the other folds."""
        folds = grouped_folds(groups, FOLDS, seed)
        gains = np.zeros(len(student))
        for fold in np.unique(folds):
            known, unknown = folds != fold, folds == fold
            if not known.any():
                continue  # all rows are related
            best = Candidates(self.settings, self.of_gold[:, known]).chosen(student[known], k_loss)
            mixed = interpolate(student[unknown], self.of_gold[best.number, unknown], best.weight)
            gains[unknown] = np.log(np.maximum(mixed, _TINY)) - np.log(np.maximum(student[unknown], _TINY))
        return gains


def fewest_neighbours(by_k: Mapping[int, Best], student_nll: float, k_loss: float) -> Best:
    """Choose between the best settings of each k; see ``Candidates.chosen``.

    Args:
        by_k: the best setting at each k, the smallest k first.
        student_nll: the student's NLL.
        k_loss: see ``Candidates.chosen``.
    """
    best = min(by_k.values(), key=lambda of_k: (of_k.nll, of_k.retrieval_nll))
    gain = student_nll - best.nll
    if gain <= 0:
        return best
    return next(of_k for of_k in by_k.values() if student_nll - of_k.nll >= (1 - k_loss) * gain)


def fit_weights(student: Floats, retrieved: Floats) -> Floats:
    """Find the w in [0, 1] that minimises mean -log(w student + (1 - w) retrieved), which is convex in w.

    Args:
        student: [n], the student's probability of each gold label.
        retrieved: [m, n], the neighbours' probability at m settings.

    Returns:
        The weight of each setting, [m], to four digits.
    """
    gap = student - retrieved

    def slopes(weights: Floats) -> Floats:
        found: Floats = -(gap / np.maximum(retrieved + weights[:, None] * gap, _TINY)).mean(axis=1)
        return found

    low, high = np.zeros(len(retrieved)), np.ones(len(retrieved))
    at_zero, at_one = slopes(low) >= 0, slopes(high) <= 0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        rising = slopes(middle) > 0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    return np.where(at_zero, 0.0, np.where(at_one, 1.0, np.round((low + high) / 2, 4)))


def _nlls(of_gold: Floats) -> Floats:
    found: Floats = -np.log(np.maximum(of_gold, _TINY)).mean(axis=-1)
    return found

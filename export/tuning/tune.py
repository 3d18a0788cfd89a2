"""Choose tau, the share of gold and the mixture weight by the negative log-likelihood (NLL) of held-out rows.

The teacher must not have been fitted on these rows, and the knowledge base must not contain them: on its training rows
the teacher is over-confident, and a stored row would retrieve itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...kb.soft_labels import with_gold
from ...kb.storage.json_fields import JsonReader
from ...runtime.bundle.heldout_rows import HeldOutRows
from ...runtime.decision.blend_config import BlendConfig, read_blend
from ...runtime.decision.blending import BlendedBatch, blend_batch, interpolate, softmax_many
from ..types import Floats, Floats32

K = 32
"""Number of neighbours. A k chosen on some hundred held-out rows is no better (docs/explanation/lab-book.md)."""

TAU_GRID = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

PRIOR_ROWS = 5.0
"""Strength of the prior on the weight: it acts like so many more held-out rows (`fit_weights`)."""

LEAST_GAIN = 0.01
"""A blend that has fewer held-out rows right than the student must lower the NLL by this share (`tune_blend`)."""

_HALVINGS = 30  # bisection steps
_BLOCK = 256  # rows at once: their soft labels [256, k, c] in float64 take 20 MB with 150 classes
_TINY = 1e-12


@dataclass(frozen=True)
class HeldOut:
    """The data of n held-out rows with k neighbours each.

    Args:
        student_logits: [n, c].
        similarities: [n, k], descending.
        neighbour_logits: [n, k, c], the teacher's logits.
        gold: [n], int64, class indices.
        neighbour_gold: [n, k], the neighbours' gold labels, -1 for none; None if no neighbour has one.
    """

    student_logits: NDArray[np.float32]
    similarities: NDArray[np.float32]
    neighbour_logits: NDArray[np.float32]
    gold: NDArray[np.int64]
    neighbour_gold: NDArray[np.int64] | None = None

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> HeldOut:
        """Select rows by index or by mask."""
        return HeldOut(
            self.student_logits[rows],
            self.similarities[rows],
            self.neighbour_logits[rows],
            self.gold[rows],
            None if self.neighbour_gold is None else self.neighbour_gold[rows],
        )

    def student(self, temperature: float) -> Floats:
        """Compute the student's probabilities, [n, c]."""
        return _softmax(self.student_logits, temperature)

    def answers(self, blend: BlendConfig) -> BlendedBatch:
        """Compute the probabilities of neighbours and blend, [n, c]."""
        blocks = [
            blend_batch(
                block.student(blend.student_temperature), block.similarities, block.soft_labels(blend.gold_share), blend
            )
            for block in self.blocks()
        ]
        return BlendedBatch(*map(np.concatenate, zip(*blocks, strict=True)))

    def soft_labels(self, gold_share: float) -> Floats:
        """Compute the neighbours' soft labels, [n, k, c]."""
        return soft_labels(self.neighbour_logits, self.neighbour_gold, gold_share)

    def labels_of_gold(self, gold_share: float) -> Floats:
        """Compute the probability of each row's gold label in its neighbours' soft labels, [n, k]."""
        found: Floats = np.take_along_axis(self.soft_labels(gold_share), self.gold[:, None, None], axis=2)[:, :, 0]
        return found

    def blocks(self) -> Iterator[HeldOut]:
        """Yield the rows in order, ``_BLOCK`` at a time."""
        for start in range(0, len(self.gold), _BLOCK):
            yield self.take(np.arange(start, min(start + _BLOCK, len(self.gold))))


@dataclass(frozen=True)
class Tuning:
    """The chosen blend and a report of the choice.

    Args:
        blend: the chosen blend.
        rows: number of held-out rows.
        nll: mean negative log-likelihood of ``student`` (with its fitted temperature), ``retrieval`` (at the chosen
            settings; missing if the knowledge base is empty) and ``blend``.
        accuracy: share of right answers of the same.
    """

    blend: BlendConfig
    rows: int
    nll: dict[str, float]
    accuracy: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> Tuning:
        """Read the values of ``as_dict`` from a JSON file."""
        table = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**table, "blend": read_blend(JsonReader(table["blend"], path))})

    def describe(self) -> str:
        """Describe the choice in two sentences."""
        if self.blend.student_weight == 1:
            return (
                f"On {self.rows:,} held-out rows no blend with the neighbours is better than the student (by negative "
                "log-likelihood and accuracy). So the student answers alone; texts added later change only their own "
                "answers, or bring new labels."
            )
        weight, nll, accuracy = self.blend.student_weight, self.nll, self.accuracy
        return (
            f"The blend takes {weight:.0%} of an answer from the student and {1 - weight:.0%} from the "
            f"{self.blend.k} nearest rows. On {self.rows:,} held-out rows this changes the negative log-likelihood "
            f"from {nll['student']:.3f} to {nll['blend']:.3f} and accuracy from {accuracy['student']:.2%} to "
            f"{accuracy['blend']:.2%}."
        )


class Setting(NamedTuple):
    """One point of the grid; for the fields see `BlendConfig`."""

    tau: float
    gold_share: float


def soft_labels(logits: NDArray[np.floating], gold: NDArray[np.integer] | None, gold_share: float) -> Floats:
    """Compute soft labels: (1 - g) softmax(logits) + g onehot(gold), with g = 0 for rows without a gold label.

    Args:
        logits: [..., c], the teacher's logits.
        gold: [...], gold labels, -1 for none; None if no row has one.
        gold_share: g, the share of the gold label.
    """
    labels = _softmax(logits)
    if gold is None or gold_share == 0:
        return labels
    return with_gold(labels, gold, gold_share).astype(np.float64, copy=False)


def tune_blend(
    rows: HeldOut,
    gold_shares: Sequence[float] = (0.0,),
    prior_rows: float = PRIOR_ROWS,
    temperature: float | None = None,
) -> Tuning:
    """Choose the blend with the lowest held-out NLL over the grid, with a prior on the weight (`fit_weights`).

    p = w softmax(l_S / T_S) + (1 - w) sum_j softmax_j(s_j / tau) y_j, with y_j from `soft_labels`; T_S is fitted
    first, on the student alone. w is 1 (the student answers alone) if the lowest NLL is not below the student's; also
    if the blend has fewer rows right and lowers the NLL by less than ``LEAST_GAIN``, which helps on two-class tasks and
    costs nothing with many classes (docs/explanation/lab-book.md).

    Args:
        rows: the held-out rows.
        gold_shares: shares of the gold label in the soft labels to try.
        prior_rows: strength of the prior, see `fit_weights`.
        temperature: T_S; None to fit it.
    """
    if temperature is None:
        temperature = fit_temperature(rows.student_logits, rows.gold)
    student = rows.student(temperature)
    of_student = student[np.arange(len(rows.gold)), rows.gold]
    nll, accuracy = {"student": _nll(of_student)}, {"student": _accuracy(student, rows.gold)}
    if not rows.similarities.shape[1]:  # an empty knowledge base
        alone = BlendConfig(1, TAU_GRID[0], 1.0, temperature)
        return Tuning(alone, len(rows.gold), *({**found, "blend": found["student"]} for found in (nll, accuracy)))
    settings, of_gold = _candidates(rows, gold_shares)
    weights = fit_weights(of_student, of_gold, prior_rows)
    best = int(_costs(of_student, of_gold, weights, prior_rows).argmin())
    setting, weight = settings[best], float(weights[best])
    nll |= {"retrieval": _nll(of_gold[best]), "blend": _nll(interpolate(of_student, of_gold[best], weight))}
    blend = BlendConfig(rows.similarities.shape[1], setting.tau, weight, temperature, gold_share=setting.gold_share)
    answers = rows.answers(blend)
    accuracy["retrieval"] = _accuracy(answers.retrieval_probabilities, rows.gold)
    accuracy["blend"] = _accuracy(answers.probabilities, rows.gold)
    least_gain = LEAST_GAIN if accuracy["blend"] < accuracy["student"] else 0.0
    if nll["blend"] >= (1 - least_gain) * nll["student"]:
        nll["blend"], accuracy["blend"], blend = nll["student"], accuracy["student"], replace(blend, student_weight=1.0)
    return Tuning(blend, len(rows.gold), nll, accuracy)


def tune_blend_again(blend: BlendConfig, heldout: HeldOutRows, similarities: Floats32, labels: Floats32) -> Tuning:
    """Choose tau and the weight of a bundle's blend anew for another knowledge base; the rest of the blend stays.

    Args:
        blend: the bundle's.
        heldout: n held-out rows.
        similarities: [n, k], of their neighbours, descending.
        labels: [n, k, c], the neighbours' soft labels.
    """
    rows = HeldOut(heldout.logits, similarities, np.log(labels.clip(_TINY)), heldout.gold)
    found = tune_blend(rows, temperature=blend.student_temperature)
    chosen = replace(blend, tau=found.blend.tau, student_weight=found.blend.student_weight, weight=None)
    return replace(found, blend=chosen)


def _candidates(rows: HeldOut, gold_shares: Sequence[float]) -> tuple[list[Setting], Floats]:
    """Compute the retrieved probability of each row's gold label at every point of the grid, [m, n]."""
    settings, of_gold = [], []
    for gold_share in gold_shares:
        for_gold = np.concatenate([block.labels_of_gold(gold_share) for block in rows.blocks()])
        for tau in TAU_GRID:
            weights = np.exp((rows.similarities - rows.similarities[:, :1]).astype(np.float64) / tau)
            settings.append(Setting(tau, gold_share))
            of_gold.append((weights * for_gold).sum(axis=1) / weights.sum(axis=1))
    return settings, np.array(of_gold)


def fit_weights(student: Floats, retrieved: Floats, prior_rows: float) -> Floats:
    """Find the weight w in [0, 1] that minimises ``_costs``, which is convex in w.

    The prior on w is the distribution Beta(m / 2 + 1, m / 2 + 1). It acts like m more rows, half of which only the
    student has right and half only the neighbours.

    Args:
        student: [n], the student's probability of each gold label.
        retrieved: [m, n], the neighbours' probability at m settings.
        prior_rows: m, the strength of the prior.

    Returns:
        The weight of each setting, [m], to four digits.
    """
    gap = student - retrieved

    def slopes(weights: Floats) -> Floats:
        of_rows = -(gap / np.maximum(retrieved + weights[:, None] * gap, _TINY)).sum(axis=1)
        of_prior = prior_rows / 2 * (1 / np.maximum(1 - weights, _TINY) - 1 / np.maximum(weights, _TINY))
        found: Floats = of_rows + of_prior
        return found

    return np.round(_roots(slopes, np.zeros(len(retrieved)), np.ones(len(retrieved))), 4)


def _costs(student: Floats, retrieved: Floats, weights: Floats, prior_rows: float) -> Floats:
    """Compute sum_i -log(w p_i + (1 - w) r_i) - m / 2 (log w + log(1 - w)) at each setting's weight, [m]."""
    rows = -np.log(np.maximum(interpolate(student, retrieved, weights[:, None]), _TINY)).sum(axis=1)
    both = np.maximum(weights, _TINY), np.maximum(1 - weights, _TINY)
    found: Floats = rows - prior_rows / 2 * (np.log(both[0]) + np.log(both[1]))
    return found


def fit_temperature(logits: NDArray[np.float32], gold: NDArray[np.int64]) -> float:
    """Fit the temperature T in [0.25, 20] that minimises the NLL of softmax(logits / T), to three digits.

    Temperature scaling (Guo et al. 2017). The NLL is convex in 1 / T, so T is found by bisection of the derivative.
    If every row is right, the NLL falls with T down to the limit and says nothing about how sure the answers should be
    (few rows of an easy task); then T is 1.

    Args:
        logits: [n, c].
        gold: [n], class indices.
    """
    scores = logits.astype(np.float64)
    if (scores.argmax(axis=1) == gold).all():
        return 1.0
    of_gold = scores[np.arange(len(gold)), gold].mean()

    def slopes(inverse: Floats) -> Floats:
        found: Floats = (_softmax(scores, 1 / inverse.item()) * scores).sum(axis=1).mean(keepdims=True) - of_gold
        return found

    return round(1.0 / _roots(slopes, np.array([1 / 20]), np.array([4.0])).item(), 3)


def _roots(functions: Callable[[Floats], Floats], low: Floats, high: Floats) -> Floats:
    """Find the roots [m] of m increasing functions in [low, high] by bisection, or the ends nearest to them.

    Args:
        functions: computes the value of each function, [m], at a point of its own, [m].
        low: [m].
        high: [m].
    """
    below, above = functions(low) >= 0, functions(high) <= 0
    first, last = low, high
    for _ in range(_HALVINGS):
        middle = (first + last) / 2
        rising = functions(middle) > 0
        first, last = np.where(rising, first, middle), np.where(rising, middle, last)
    return np.where(below, low, np.where(above, high, (first + last) / 2))


def _softmax(scores: NDArray[Any], temperature: float = 1.0) -> Floats:
    return softmax_many(scores.astype(np.float64), temperature).astype(np.float64, copy=False)


def _nll(of_gold: Floats) -> float:
    """Compute the mean NLL of the gold labels' probabilities."""
    return float(-np.log(np.maximum(of_gold, _TINY)).mean())


def _accuracy(probabilities: Floats, gold: NDArray[np.int64]) -> float:
    return float((probabilities.argmax(axis=1) == gold).mean())

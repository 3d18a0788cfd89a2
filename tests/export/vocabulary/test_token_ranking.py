from __future__ import annotations

import numpy as np
import pytest

from reaugkd.export.vocabulary.token_ranking import likeliest_first, most_frequent_first


def clustered(pieces: int = 400, seed: int = 0) -> np.ndarray:
    """Embeddings of even ids are near one point, those of odd ids near another."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(2, 16)) * 3
    return (centres[np.arange(pieces) % 2] + rng.normal(size=(pieces, 16))).astype(np.float32)


def test_pieces_like_the_used_ones_come_first() -> None:
    used = set(range(0, 400, 8))
    order = likeliest_first(range(400), used, clustered())
    assert sorted(order) == list(range(400))
    assert all(piece % 2 == 0 for piece in order[:190])


def test_frequency_decides_if_embeddings_carry_no_information() -> None:
    table = np.ones((300, 4), np.float32)
    order = likeliest_first(range(300), range(50), table)
    assert order == tuple(range(300))
    assert likeliest_first(range(300), set(), clustered(300)) == tuple(range(300))  # nothing to learn from


def test_it_is_ridge_regression_on_standardised_features() -> None:
    """Against the normal equations' other form: least squares with the penalty as rows of its own, in float64."""
    rng = np.random.default_rng(1)
    table = rng.normal(size=(150, 6)).astype(np.float32) * [1, 2, 3, 4, 5, 0.1]
    candidates = rng.permutation(150)[:120].tolist()
    used = set(rng.choice(candidates, 40, replace=False).tolist()) | {candidates[0] + 1000}
    features = np.column_stack([table[candidates].astype(np.float64), np.log(100 + np.arange(120))])
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    target = np.array([piece in used for piece in candidates], float)
    penalised = np.vstack([features, np.sqrt(120) * np.eye(7)])
    weights = np.linalg.lstsq(penalised, np.concatenate([target - target.mean(), np.zeros(7)]))[0]
    scores = dict(zip(candidates, features @ weights, strict=True))
    found = likeliest_first(candidates, used, table.astype(np.float32))
    assert [scores[piece] for piece in found] == pytest.approx(sorted(scores.values(), reverse=True), abs=1e-5)


def test_no_rows_give_no_ids() -> None:
    assert likeliest_first([], {1, 2}, clustered(4)) == ()


def test_by_the_number_of_rows_that_have_them() -> None:
    rows = [{5, 1, 9}, {9, 1, 2}, {1, 9, 3}, {3}]
    assert most_frequent_first(iter(rows), {1}) == (9, 3, 2, 5)
    assert most_frequent_first([], {1}) == ()

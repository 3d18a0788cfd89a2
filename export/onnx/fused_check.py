"""Check that a fused model gives the same answers as its bundle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError
from ...runtime.decision.blend_config import BlendConfig
from ...runtime.decision.blending import softmax
from ...runtime.decision.mixture_weight import LogisticWeight
from ...runtime.inference.inputs import Text, checked_input
from ...runtime.inference.prediction import Prediction
from ...runtime.inference.student import StudentSession
from ...runtime.runtime import Runtime

CHECKED_ROWS = 32
_TOLERANCE = 1e-5
_ROUNDING = 2.0**-22  # rounding error of a few float32 operations on numbers near 1

Outputs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class FusedAgreement:
    """Agreement of the fused file with the bundle on some texts.

    Attributes:
        texts: number of texts.
        difference: largest difference of a probability from `Runtime.predict`, for texts with the same neighbours.
        other_neighbours: number of texts with other neighbours: the bundle's search is approximate, and equally near
            rows may have another order.
        others_difference: largest difference for these texts.
    """

    texts: int
    difference: float
    other_neighbours: int
    others_difference: float


def compare(model: Path, runtime: Runtime) -> FusedAgreement:
    """Compare a fused model with its bundle on the golden texts and, if the knowledge base stores texts, 32 of them.

    Args:
        model: path of the fused model.
        runtime: the bundle, opened with retrieval ``"always"``.

    Raises:
        BundleError: the model cannot be loaded.
        ModelError: the model cannot run, or a step of its answers differs from the bundle's.
    """
    # Same session options as for the bundle's student: other optimizations round differently, which int8 amplifies.
    session = StudentSession(model).session
    same: list[float] = []
    others: list[float] = []
    for text in _texts(runtime):
        encoding = runtime.tokenizer.encode(*checked_input(text, runtime.manifest.text_pair))
        fused = _run(session, runtime.student.feeds(encoding))
        answer = runtime.predict(text)
        _require_same_steps(text, fused, answer, runtime)
        found_alike = {near.row for near in answer.neighbours} == set(fused["neighbour_rows"].tolist())
        (same if found_alike else others).append(_apart(fused["probabilities"], answer.probabilities))
    return FusedAgreement(len(same) + len(others), max(same, default=0.0), len(others), max(others, default=0.0))


def tolerance(config: BlendConfig) -> float:
    """Return the largest float32 difference between two computations of the same blend."""
    weight = config.weight
    scale = 1.0 / config.tau
    if isinstance(weight, LogisticWeight):
        scale += abs(weight.intercept) + 2 * sum(map(abs, weight.coefficients))
    return _TOLERANCE + _ROUNDING * scale


def _texts(runtime: Runtime) -> Iterator[Text]:
    yield from (golden.text for golden in runtime.manifest.golden)
    kb = runtime.knowledge_base
    for row in np.linspace(0, len(kb) - 1, min(CHECKED_ROWS, len(kb))).astype(int):
        text = kb.text(int(row))
        if text is not None:
            yield text


def _require_same_steps(text: Text, fused: Outputs, answer: Prediction, runtime: Runtime) -> None:
    """Check each step of the fused answer with the bundle's computation from the fused result of the previous step.

    The final answers alone cannot be compared, because they differ for texts with other neighbours.

    Raises:
        ModelError: a step differs.
    """
    config = runtime.manifest.blend
    own, retrieved = fused["student_probabilities"], fused["retrieval_probabilities"]
    rows, similarities = fused["neighbour_rows"], fused["neighbour_similarities"]
    theirs = np.array([near.similarity for near in answer.neighbours])
    of_rows = dict(zip(rows.tolist(), similarities.tolist(), strict=True))
    shared = [abs(of_rows[near.row] - near.similarity) for near in answer.neighbours if near.row in of_rows]
    weights = softmax(similarities, config.tau)
    mixed = weights @ runtime.knowledge_base.soft_labels.take(rows)
    weight = config.weight
    share = config.student_weight if weight is None else weight.weight(own, retrieved, similarities)
    best = runtime.labels[int(fused["probabilities"].argmax())]
    apart = {
        "the student's probabilities": _apart(own, answer.student_probabilities),
        "a similarity": max(shared, default=0.0),
        "a neighbour's nearness": float((theirs - similarities).max()),
        "the neighbours' weights": _apart(fused["neighbour_weights"], weights),
        "the neighbours' probabilities": _apart(retrieved, mixed / mixed.sum()),
        "the student's weight": abs(float(fused["student_weight"]) - share),
        "the blend": _apart(fused["probabilities"], share * own + (1 - share) * retrieved),
        "the label": float(fused["label"] != best),
    }
    allowed = tolerance(config)
    wrong = [f"{name} by {difference:.2g}" for name, difference in apart.items() if not difference <= allowed]
    if wrong:
        raise ModelError(
            "the fused model gives other answers than the bundle",
            found=f"{', '.join(wrong)} for {text!r}",
            expected=f"a difference of at most {allowed:.2g}",
            remedy="Use the bundle as it is, and report the versions of onnx and onnxruntime.",
        )


def _apart(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(found - expected).max())


def _run(session: Any, feeds: dict[str, NDArray[np.int64]]) -> Outputs:
    """Compute all outputs for one text, without the batch axis.

    Raises:
        ModelError: the model cannot run.
    """
    names = [output.name for output in session.get_outputs()]
    try:
        found = session.run(names, feeds)
    except Exception as error:  # ONNX Runtime's exceptions have no other common base class
        raise ModelError("the fused model cannot run", found=str(error)) from error
    return {name: values[0] for name, values in zip(names, found, strict=True)}

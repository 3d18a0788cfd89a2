"""Check that the fused model gives the answers of its bundle."""

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
_ROUNDING = 2.0**-22  # of a few float32 operations on numbers near 1

Outputs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class FusedAgreement:
    """Agreement of the fused file with the bundle on some texts.

    Attributes:
        texts: how many.
        difference: the largest difference of a probability to `Runtime.predict`'s, where both find the same rows.
        other_neighbours: texts for which they do not: the bundle's search is approximate, and of rows that are equally
            near either may come last.
        others_difference: the largest difference for those.
    """

    texts: int
    difference: float
    other_neighbours: int
    others_difference: float


def compare(model: Path, runtime: Runtime) -> FusedAgreement:
    """Compare both forms on the golden texts and, if the knowledge base stores texts, 32 of them.

    Args:
        model: the fused one.
        runtime: the bundle, open with retrieval ``"always"``.

    Raises:
        BundleError: the model cannot be loaded.
        ModelError: it cannot run, or a step of its answers is not the bundle's.
    """
    # Opened as the bundle's student is: other optimizations round otherwise, and int8 makes thousandths of it.
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
    """Largest float32 difference between two computations of one blend."""
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
    """Each step of the fused answer as the bundle would take it from where the step before ended.

    Not only the two ends: where the neighbours differ for a good reason, so does all that follows.
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
            "the fused model does not answer as the bundle does",
            found=f"{', '.join(wrong)} for {text!r}",
            expected=f"at most {allowed:.2g} apart",
            remedy="Use the bundle as it is, and report the versions of onnx and onnxruntime.",
        )


def _apart(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    return float(np.abs(found - wanted).max())


def _run(session: Any, feeds: dict[str, NDArray[np.int64]]) -> Outputs:
    """Every output for one text, without the batch's axis."""
    names = [output.name for output in session.get_outputs()]
    try:
        found = session.run(names, feeds)
    except Exception as error:  # the only base class that ONNX Runtime's exceptions share
        raise ModelError("the fused model cannot run", found=str(error)) from error
    return {name: values[0] for name, values in zip(names, found, strict=True)}

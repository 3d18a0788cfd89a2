"""Check that a fused model gives the same answers as its bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError
from ...kb.index.exact_search import exact_search, unit
from ...kb.knowledge_base import KnowledgeBase
from ...kb.searchable import SearchResult
from ...runtime.decision.blend_config import BlendConfig
from ...runtime.decision.mixture_weight import LogisticWeight
from ...runtime.graph.list_search import inverse_lengths
from ...runtime.inference.neighbours import Neighbours
from ...runtime.inference.pipeline import mixed
from ...runtime.inference.session.student import StudentSession
from ...runtime.inference.text.inputs import Text, checked_input
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
        difference: largest difference of a probability from `Runtime.predict`.
    """

    texts: int
    difference: float


class _Answer(NamedTuple):
    """What a bundle answers; without neighbours where the runtime does not search because they have no weight."""

    label: str
    probabilities: NDArray[Any]
    student_probabilities: NDArray[Any]
    student_weight: float
    retrieval_probabilities: NDArray[Any] | None
    neighbours: Neighbours | None


def compare(model: Path, runtime: Runtime, integer: bool = True) -> FusedAgreement:
    """Compare a fused model with its bundle on the golden texts and, if the knowledge base stores texts, 32 of them.

    Args:
        model: path of the fused model.
        runtime: the bundle, opened with search ``"graph"``.
        integer: whether the model multiplies int8 keys as integers, as the runtime does. Otherwise it does not round
            the query, and is compared with an exact search and the runtime's blend in numpy.

    Raises:
        BundleError: the model cannot be loaded.
        ModelError: the model cannot run, or its answers differ from the bundle's.
    """
    # Same session options as for the bundle's student: other optimizations round differently, which int8 amplifies.
    session = StudentSession(model).session
    allowed, answer = tolerance(runtime.manifest.blend), _predicted(runtime) if integer else _computed(runtime)
    apart = [0.0]
    for text in _texts(runtime):
        encoding = runtime.tokenizer.encode(*checked_input(text, runtime.manifest.text_pair))
        apart.append(_require_same(text, _run(session, runtime.student.feeds(encoding)), answer(text), allowed))
    return FusedAgreement(len(apart) - 1, max(apart))


def _predicted(runtime: Runtime) -> Callable[[Text], _Answer]:
    """The runtime's own answers."""

    def answer(text: Text) -> _Answer:
        found = runtime.predict(text)
        return _Answer(
            found.label,
            found.probabilities,
            found.student_probabilities,
            found.student_weight,
            found.retrieval_probabilities,
            found.neighbours if found.retrieved else None,
        )

    return answer


def _computed(runtime: Runtime) -> Callable[[Text], _Answer]:
    """The answers with an exact search in float32."""
    kb, config, pair = runtime.knowledge_base, runtime.manifest.blend, runtime.manifest.text_pair
    assert isinstance(kb, KnowledgeBase)  # a bundle with edits is not fused
    stored = kb.index.stored()
    keys = stored.astype(np.float32) * inverse_lengths(stored)[:, np.newaxis]

    def answer(text: Text) -> _Answer:
        _, query, own = runtime.student.everything(runtime.tokenizer.encode(*checked_input(text, pair)))
        rows, similarities = exact_search(keys, unit(query[np.newaxis]), config.k)
        found = SearchResult(rows[0], similarities[0])
        mix, near = mixed(kb, own, found, config), Neighbours(kb, found, config.tau, runtime.labels)
        label = runtime.labels[int(mix.probabilities.argmax())]
        return _Answer(label, mix.probabilities, own, mix.student_weight, mix.retrieval_probabilities, near)

    return answer


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


def _require_same(text: Text, fused: Outputs, answer: _Answer, allowed: float) -> float:
    """Check the outputs for one text; returns the largest difference of a probability.

    Raises:
        ModelError: an output differs.
    """
    pairs: dict[str, tuple[Any, Any]] = {
        "student_probabilities": (fused["student_probabilities"], answer.student_probabilities),
        "student_weight": (fused["student_weight"], answer.student_weight),
        "probabilities": (fused["probabilities"], answer.probabilities),
        "label": (fused["label"] != answer.label, False),
    }
    near = answer.neighbours
    if near is not None:
        pairs |= {
            "neighbour_similarities": (fused["neighbour_similarities"], near.similarities),
            "neighbour_weights": (fused["neighbour_weights"], near.weights),
            "retrieval_probabilities": (fused["retrieval_probabilities"], answer.retrieval_probabilities),
            "neighbour_rows": (fused["neighbour_rows"] != near.rows, False),
        }
    apart = {name: float(np.abs(np.subtract(*pair, dtype=np.float64)).max()) for name, pair in pairs.items()}
    wrong = [f"{name} by {difference:.2g}" for name, difference in apart.items() if not difference <= allowed]
    if wrong:
        raise ModelError(
            "the fused model gives other answers than the bundle",
            found=f"{', '.join(wrong)} for {text!r}",
            expected=f"a difference of at most {allowed:.2g}",
            remedy="Use the bundle as it is, and report the versions of onnx and onnxruntime.",
        )
    return apart["probabilities"]


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

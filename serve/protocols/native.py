"""`POST /v1/predict`: everything that this package knows about an answer."""

from __future__ import annotations

from typing import Any, get_args

from ...errors import ReaugkdError
from ...runtime.decision.abstention_goal import Abstain
from ...runtime.inference.prediction import Prediction
from ...runtime.inference.retrieval_policy import RetrievalMode
from ..http.errors import invalid, of_error
from ..http.messages import Request, Response
from ..service import Service
from .shapes import answered, check_fields, number_of, scores, texts_of

_FIELDS = ("inputs", "model", "top_k", "explain", "abstain", "retrieval", "on_error")


async def predict(service: Service, request: Request) -> Response:
    """Answer the inputs of a request.

    Raises:
        HttpError: a value cannot be used, or the texts cannot be answered now.
    """
    body = await request.json()
    check_fields(body, _FIELDS)
    texts = texts_of(body.get("inputs"))
    top_k, explain = number_of(body, "top_k", 1, 1), number_of(body, "explain", 0, 0) or 0
    bundle = service.bundle(body.get("model"))
    recorded = _on_error(body.get("on_error"))
    answers = await service.predict(bundle, texts, _goal(body.get("abstain")), _retrieval(body.get("retrieval")))
    predictions = [one for one in answers.all if isinstance(one, Prediction)] if recorded else answers.predictions()
    records = [
        of_error(one).record() if isinstance(one, ReaugkdError) else record_of(one, top_k, explain)
        for one in answers.all
    ]
    return answered({"model": answers.bundle.model, "predictions": records}, answers, predictions)


def record_of(answer: Prediction, top_k: int | None, explain: int) -> dict[str, Any]:
    """An answer as JSON values.

    Args:
        answer: the answer.
        top_k: number of labels in ``scores``; None for all.
        explain: number of neighbours; above 0 also what decided, and what the student and the neighbours say alone.
    """
    known = answer.prediction_set
    record: dict[str, Any] = {
        "label": answer.label,
        "score": answer.probability,
        "scores": scores(answer, top_k),
        "retrieved": answer.retrieved,
        "reason": answer.reason,
        "abstained": answer.abstained,
        "abstention": answer.abstention,
        "rejection_score": answer.rejection_score,
        "prediction_set": None if known is None else list(known),
        "truncated": answer.truncated,
        "tokens": answer.tokens,
        "timings_us": answer.timings._asdict(),
    }
    if explain:
        explained = answer.as_record(explain=True)
        record |= {"decided_by": explained["decided_by"], "student_weight": answer.student_weight}
        for name in ("student_probabilities", "retrieval_probabilities"):
            record[name.replace("probabilities", "scores")] = _best(explained[name], top_k)
        record["neighbours"] = explained["neighbours"][:explain]
    return record


def _best(named: dict[str, float] | None, top_k: int | None) -> list[dict[str, Any]] | None:
    if named is None:
        return None
    best = sorted(named.items(), key=lambda item: -item[1])[:top_k]
    return [{"score": score, "label": label} for label, score in best]


def _goal(value: Any) -> Abstain | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise invalid('`abstain` must be a goal such as "coverage=95%"')
    try:
        return Abstain.parse(value)
    except ReaugkdError as error:
        raise of_error(error) from error


def _retrieval(value: Any) -> RetrievalMode | None:
    modes: tuple[RetrievalMode, ...] = get_args(RetrievalMode)
    for mode in modes:
        if value == mode:
            return mode
    if value is None:
        return None
    raise invalid(f"`retrieval` must be one of {', '.join(modes)}, found {value!r:.80}")


def _on_error(value: Any) -> bool:
    """Whether a bad text gets an error record in its place; otherwise the whole request fails."""
    if value not in (None, "raise", "record"):
        raise invalid(f"`on_error` must be raise or record, found {value!r:.80}")
    return bool(value == "record")

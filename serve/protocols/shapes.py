"""What the protocols share: fields of a request, scores of an answer, headers about the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from ...runtime.inference.prediction import Prediction, Timings
from ...runtime.inference.text.inputs import Text
from ..http.errors import empty, invalid
from ..http.messages import Response, json_response
from ..service import Answers


def scores(answer: Prediction, top_k: int | None = None) -> list[dict[str, Any]]:
    """The probabilities with their labels, best first; None for all."""
    # Not by numpy, which lets other threads run while it sorts: with a busy processor this takes milliseconds.
    named = zip(answer.probabilities.tolist(), answer.labels, strict=True)
    best = sorted(named, key=itemgetter(0), reverse=True)[:top_k]
    return [{"score": score, "label": label} for score, label in best]


def text_of(value: object, place: str) -> Text:
    """A text, or a pair: ``{"text": ..., "text_pair": ...}``.

    Raises:
        HttpError: it is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        second = value.get("text_pair")
        if second is None:
            return str(value["text"])
        if isinstance(second, str):
            return value["text"], second
    raise invalid(f'{place} must be a text or {{"text": ..., "text_pair": ...}}')


def texts_of(value: object, place: str = "inputs") -> list[Text]:
    """A text or pair, or a list of them.

    Raises:
        HttpError: it is something else, or an empty list.
    """
    if not isinstance(value, list):
        return [text_of(value, place)]
    if not value:
        raise empty(place)
    return [text_of(one, f"{place}[{number}]") for number, one in enumerate(value)]


def check_fields(value: Mapping[str, Any], expected: Sequence[str], place: str = "the body") -> None:
    """Check that an object of this package's own protocols has no other fields: a misspelt one must not be ignored.

    Raises:
        HttpError: it has one.
    """
    for name in value:
        if name not in expected:
            raise invalid(f"{place} has the unknown field {name!r:.80}, expected {', '.join(expected)}")


def number_of(body: Mapping[str, Any], name: str, default: int | None, least: int) -> int | None:
    """A whole number of the body; the default where it is missing or null.

    Raises:
        HttpError: it is something else, or too small.
    """
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise invalid(f"`{name}` must be a whole number from {least}, found {value!r:.80}")
    return value


def flag_of(body: Mapping[str, Any], name: str, default: bool) -> bool:
    """True or false of the body; the default where it is missing or null.

    Raises:
        HttpError: it is something else.
    """
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise invalid(f"`{name}` must be true or false, found {value!r:.80}")
    return value


def mean_timings(predictions: Sequence[Prediction]) -> Timings:
    """The means of the answers' timings; at least one answer."""
    count = len(predictions)
    return Timings(*(sum(stage) / count for stage in zip(*(one.timings for one in predictions), strict=True)))


def answered(value: object, answers: Answers, predictions: Sequence[Prediction]) -> Response:
    """A response with headers about the work: ``server-timing`` (milliseconds, means of a text) and ``x-truncated``."""
    response = json_response(value)
    timing = f"queue;dur={1e3 * answers.waited:.3f}"
    if predictions:
        stages = zip(("tokenize", "run", "search", "blend"), mean_timings(predictions), strict=True)
        timing += "".join(f", {name};dur={micros / 1e3:.3f}" for name, micros in stages)
    response.headers.append((b"server-timing", timing.encode()))
    truncated = sum(one.truncated for one in predictions)
    if truncated:
        response.headers.append((b"x-truncated", str(truncated).encode()))
    return response

"""`POST /predict` as text-embeddings-inference answers it (https://github.com/huggingface/text-embeddings-inference).

One text gets a flat list of labels, a batch a list of lists. Two strings in a list are one pair.
"""

from __future__ import annotations

import time
from typing import Any

from ...runtime.inference.text.inputs import Text
from ..http.errors import empty, invalid
from ..http.messages import Request, Response
from ..service import Service
from .shapes import answered, flag_of, mean_timings, number_of, scores


async def predict(service: Service, request: Request) -> Response:
    """Answer the inputs of a request.

    Raises:
        HttpError: a value cannot be used, or the texts cannot be answered now.
    """
    began, body = time.perf_counter(), await request.json()
    texts, batch = _inputs(body.get("inputs"))
    truncate, top_k = flag_of(body, "truncate", True), number_of(body, "top_k", None, 1)
    _refuse_other_answers(body)
    bundle = service.bundle()
    answers = await service.predict(bundle, texts)
    predictions = answers.predictions()
    if not truncate and any(one.truncated for one in predictions):
        longest = answers.bundle.main.manifest.max_length
        raise invalid(f"`inputs` must have less than {longest + 1} tokens. Given: more than {longest}")
    found = [scores(one, top_k) for one in predictions]
    response = answered(found if batch else found[0], answers, predictions)
    characters = sum(len(text) if isinstance(text, str) else len(text[0]) + len(text[1]) for text in texts)
    timings, total = mean_timings(predictions), 1e3 * (time.perf_counter() - began)
    numbers = {
        b"x-compute-time": total,
        b"x-compute-characters": characters,
        b"x-compute-tokens": sum(one.tokens for one in predictions),
        b"x-total-time": total,
        b"x-tokenization-time": timings.tokenize_us / 1e3,
        b"x-queue-time": 1e3 * answers.waited,
        b"x-inference-time": sum(timings[1:]) / 1e3,
    }
    response.headers.append((b"x-compute-type", b"cpu"))
    response.headers += [(name, str(int(number)).encode()) for name, number in numbers.items()]
    return response


def _inputs(value: object) -> tuple[list[Text], bool]:
    """The texts and pairs, and whether they are a batch.

    Raises:
        HttpError: they are neither a text, nor a pair, nor a batch.
    """
    if isinstance(value, str):
        return [value], False
    if isinstance(value, list):
        if not value:
            raise empty()
        if all(isinstance(one, str) for one in value) and len(value) <= 2:
            return [_single_or_pair(value)], False
        if all(_is_single_or_pair(one) for one in value):
            return [_single_or_pair(one) for one in value], True
    raise invalid('`inputs` must be "text", ["text", "text"] for a pair, or [["text"], ["text", "text"]] for a batch')


def _is_single_or_pair(value: object) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= 2 and all(isinstance(one, str) for one in value)


def _single_or_pair(value: list[Any]) -> Text:
    return str(value[0]) if len(value) == 1 else (value[0], value[1])


def _refuse_other_answers(body: dict[str, Any]) -> None:
    """Refuse what this route would have to ignore.

    Raises:
        HttpError: the request asks for it.
    """
    if flag_of(body, "raw_scores", False):
        raise invalid("`raw_scores` cannot be true: the answer blends probabilities, so there are no logits")
    if str(body.get("truncation_direction") or "Right").lower() != "right":
        raise invalid("`truncation_direction` must be Right: the model reads the beginning of a text")
    for name in ("explain", "abstain"):
        if body.get(name) is not None:
            raise invalid(f"`{name}` is a field of POST /v1/predict")

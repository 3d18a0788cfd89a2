"""`POST /classify` and `/v1/classify` as vLLM and SGLang answer them: probabilities in the order of the labels."""

from __future__ import annotations

import time
import uuid

from ...runtime.inference.text.inputs import Text
from ..http.errors import empty, invalid
from ..http.messages import Request, Response
from ..service import Service
from .shapes import answered


async def classify(service: Service, request: Request) -> Response:
    """Answer the input of a request.

    Raises:
        HttpError: a value cannot be used, or the texts cannot be answered now.
    """
    body = await request.json()
    texts = _texts(body.get("input"))
    bundle = service.bundle(body.get("model"))
    answers = await service.predict(bundle, texts)
    predictions = answers.predictions()
    tokens = sum(one.tokens for one in predictions)
    data = [
        {
            "index": index,
            "label": one.label,
            "probs": one.probabilities.tolist(),
            "num_classes": len(one.labels),
        }
        for index, one in enumerate(predictions)
    ]
    usage = {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
    }
    value = {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": bundle.name,
        "data": data,
        "usage": usage,
    }
    return answered(value, answers, predictions)


def _texts(value: object) -> list[Text]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        if not value:
            raise empty()
        return list(value)
    raise invalid("`input` must be a text or a list of texts")

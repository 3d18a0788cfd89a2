"""`POST /` and `POST /models/NAME` as the clients of Hugging Face expect text classification.

Every text has a list of labels of its own, also a single one. A list of strings is a batch, as in the pipelines of
transformers.
"""

from __future__ import annotations

from typing import Any

from ..http.errors import invalid
from ..http.messages import Request, Response
from ..service import Service
from .shapes import answered, number_of, scores, texts_of


async def classify(service: Service, request: Request, name: str | None = None) -> Response:
    """Answer the inputs of a request.

    Raises:
        HttpError: a value cannot be used, or the texts cannot be answered now.
    """
    body = await request.json()
    texts, top_k = texts_of(body.get("inputs")), _top_k(body.get("parameters"))
    answers = await service.predict(service.bundle(name), texts)
    predictions = answers.predictions()
    return answered([scores(one, top_k) for one in predictions], answers, predictions)


def _top_k(parameters: Any) -> int | None:
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise invalid("`parameters` must be an object")
    function = parameters.get("function_to_apply")
    if function not in (None, "softmax"):
        raise invalid(
            "`function_to_apply` must be softmax: the answer blends probabilities that sum to 1, so there are no logits"
        )
    return number_of(parameters, "top_k", None, 1)

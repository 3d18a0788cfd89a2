"""A function for AWS Lambda, behind a function URL or an HTTP API.

Install reaugkd into the function's image (docs/how-to/install-less.md), put the bundle into it, and name the handler
aws_lambda.handler. The bundle is opened once for each process, and not in the time of a request.
"""

from __future__ import annotations

import base64
import json
import os
from typing import Any

from reaugkd import ReaugkdError, Runtime

runtime = Runtime.open(os.environ.get("BUNDLE", "/opt/bundle"))


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Answer a POST request with the body ``{"text": "...", "top_k": 3}``."""
    body = event.get("body") or ""
    try:
        question = json.loads(base64.b64decode(body) if event.get("isBase64Encoded") else body)
        answer = runtime.predict(question["text"])
        return _response(200, answer.as_record(top_k=question.get("top_k", 1)))
    except ReaugkdError as error:
        return _response(422, {"error": str(error)})
    except (ValueError, KeyError, TypeError):
        return _response(400, {"error": 'expected the body {"text": "..."}'})


def _response(status: int, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json"},
        "body": json.dumps(content, ensure_ascii=False),
    }

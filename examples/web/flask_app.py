"""A web service with Flask.

    pip install reaugkd flask gunicorn
    BUNDLE=demo/bundle gunicorn --preload --workers 2 --chdir examples/web 'flask_app:create_app()'
    curl localhost:8000/predict --json '{"text": "where is my card", "top_k": 3}'

With --preload the bundle is checked before the workers start, so that a bad one ends gunicorn at once. Each worker
opens it again at its first request: a session of ONNX Runtime does not survive a fork. Start one worker for each core.
"""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, abort, request

from reaugkd import ReaugkdError, Runtime


def create_app(bundle: str | None = None) -> Flask:
    """Make the application, with the bundle at ``bundle`` or in the environment variable BUNDLE."""
    app, runtime = Flask(__name__), Runtime.open(bundle or os.environ["BUNDLE"])

    @app.post("/predict")
    def predict() -> dict[str, Any]:
        question = request.get_json()
        if not isinstance(question, dict):
            abort(400, "expected a JSON object")
        return runtime.predict(question.get("text")).as_record(top_k=question.get("top_k", 1))

    @app.errorhandler(ReaugkdError)
    def refuse(error: ReaugkdError) -> tuple[dict[str, Any], int]:
        return {"error": str(error)}, 422

    return app

"""A web service with FastAPI, whose event loop never waits for the model.

    pip install reaugkd fastapi uvicorn
    BUNDLE=demo/bundle uvicorn --app-dir examples/web fastapi_app:app
    curl localhost:8000/predict --json '{"text": "where is my card", "top_k": 3}'

`threads` is the number of texts that are answered at a time. A request that finds `MOST_WAITING` others is refused: a
queue without a limit would make every request late.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, Field

from reaugkd import Runtime, TextError

MOST_WAITING = 64


class Question(BaseModel):
    """A text to classify."""

    text: str
    top_k: int = Field(default=1, ge=1)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the bundle before the first request, and close it after the last."""
    with Runtime.open(os.environ["BUNDLE"], threads=None) as runtime:
        app.state.runtime, app.state.waiting = runtime, 0
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(question: Question, request: Request) -> dict[str, Any]:
    """Answer one text."""
    state = request.app.state
    if state.waiting >= MOST_WAITING:
        raise HTTPException(429, "too many texts are waiting", headers={"Retry-After": "1"})
    state.waiting += 1
    try:
        answer = await state.runtime.apredict(question.text)
    except TextError as error:
        raise HTTPException(422, str(error)) from error
    finally:
        state.waiting -= 1
    return answer.as_record(top_k=question.top_k)

"""Every refusal: its code, its JSON, and that nothing of this machine is in it."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.http_client import Client, serving

from reaugkd import BundleError, ModelError, Runtime, UsageError
from reaugkd.serve import create_app
from reaugkd.serve.http import messages

JSON = {"content-type": "application/json"}


def text(inputs: object, **more: object) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "kind"),
    [
        ("GET", "/nothing", b"", {}, 404, "Validation"),
        ("GET", "/models/nothing", b"", {}, 404, "Validation"),
        ("GET", "/predict", b"", {}, 405, "Validation"),
        ("DELETE", "/", b"", {}, 405, "Validation"),
        ("POST", "/predict", text("noon"), {}, 415, "Validation"),
        ("POST", "/predict", text("noon"), {"content-type": "text/plain"}, 415, "Validation"),
        ("POST", "/predict", b"{", JSON, 400, "Validation"),
        ("POST", "/predict", b"\xff", JSON, 400, "Validation"),
        ("POST", "/predict", b"[" * 100_000, JSON, 400, "Validation"),
        ("POST", "/predict", b"[]", JSON, 422, "Validation"),
        ("POST", "/predict", b"{}", JSON, 422, "Validation"),
        ("POST", "/predict", text(""), JSON, 400, "Empty"),
        ("POST", "/predict", text([]), JSON, 400, "Empty"),
        ("POST", "/predict", text(["a", "b"]), JSON, 422, "Validation"),  # a pair, for single texts
        ("POST", "/predict", text(["a", "b", "c"]), JSON, 422, "Validation"),
        ("POST", "/predict", text([["a"], 3]), JSON, 422, "Validation"),
        ("POST", "/predict", text([["noon"]] * 33), JSON, 422, "Validation"),
        ("POST", "/predict", text("noon", top_k=0), JSON, 422, "Validation"),
        ("POST", "/predict", text("noon", truncate=1), JSON, 422, "Validation"),
        ("POST", "/predict", text("noon", raw_scores=True), JSON, 422, "Validation"),
        ("POST", "/predict", text("noon", truncation_direction="Left"), JSON, 422, "Validation"),
        ("POST", "/predict", text("noon", explain=3), JSON, 422, "Validation"),
        ("POST", "/predict", text("\ud800"), JSON, 422, "Validation"),
        ("POST", "/predict", text("x" * 1_000_001), JSON, 422, "Validation"),
        ("POST", "/predict", text("x" * 2_000_000), JSON, 413, "Validation"),
        ("POST", "/", text({"text": 3}), JSON, 422, "Validation"),
        ("POST", "/", text("noon", parameters=[]), JSON, 422, "Validation"),
        ("POST", "/classify", b'{"input": [1, 2]}', JSON, 422, "Validation"),
        ("POST", "/classify", b'{"input": "noon", "model": "other"}', JSON, 404, "Validation"),
        ("POST", "/classify", b'{"input": "noon", "model": {}}', JSON, 404, "Validation"),
        ("POST", "/v1/predict", text("noon", abstain="coverage=0"), JSON, 422, "Validation"),
        ("POST", "/v1/predict", text("noon", abstain=3), JSON, 422, "Validation"),
        ("POST", "/v1/predict", text("noon", retrieval="gated"), JSON, 422, "Validation"),  # it has no gate
        ("POST", "/v1/predict", text("noon", retrieval="often"), JSON, 422, "Validation"),
        ("POST", "/v1/predict", text("noon", on_error="skip"), JSON, 422, "Validation"),
        ("POST", "/v1/predict", text("noon", truncate=False), JSON, 422, "Validation"),
        ("POST", "/v1/predict", text("noon", model="pairs"), JSON, 422, "Validation"),
        ("POST", "/v2/models/known/infer", text([]), JSON, 422, "Validation"),
        ("POST", "/v2/models/known/infer", text([{"name": "text", "datatype": "FP32"}]), JSON, 422, "Validation"),
        ("POST", "/kb/add", b"{}", JSON, 403, "Unauthorized"),
        ("GET", "/kb/log", b"", {}, 403, "Unauthorized"),
    ],
)
def test_refusals(
    client: Client, method: str, path: str, body: bytes, headers: dict[str, str], status: int, kind: str
) -> None:
    reply = client.send(method, path, body, headers)
    assert (reply.status, reply.value["error_type"]) == (status, kind), reply.value
    assert set(reply.value) == {"error", "error_type"} and reply.headers["content-type"] == "application/json"
    assert "Traceback" not in reply.value["error"] and "/tmp" not in reply.value["error"]
    assert len(reply.body) < 1000
    assert (status == 405) == ("allow" in reply.headers)


def test_a_large_body_is_refused_with_both_sizes(client: Client) -> None:
    reply = client.send("POST", "/predict", b"", {**JSON, "content-length": "2000001"})
    assert reply.status == 413 and "2000001" in reply.value["error"] and "2000000" in reply.value["error"]
    assert reply.headers["connection"] == "close"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["text", "text_pair", "inputs", "x"]), inner, max_size=3)
        ),
        max_leaves=9,
    )
)
def test_no_json_leads_to_an_internal_error(client: Client, value: Any) -> None:
    for path in ("/predict", "/", "/v1/predict", "/classify", "/v2/models/known/infer"):
        options = ("top_k", "abstain") if path == "/v1/predict" else ("input", "parameters")
        for body in (value, {"inputs": value}, {"inputs": value, **dict.fromkeys(options, value)}):
            reply = client.post(path, body)
            assert reply.status in (200, 400, 422), (path, body, reply)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ModelError("the student cannot run", path="/secret/model.onnx"), 424, "Backend"),
        (BundleError("a file is damaged", path="/secret"), 424, "Backend"),
        (UsageError("the runtime is closed", path="/secret"), 422, "Validation"),
        (RuntimeError("/secret"), 500, "Backend"),
    ],
)
def test_faults_of_the_server_tell_no_paths(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    kind: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Runtime, "predict", fail)
    with caplog.at_level(logging.CRITICAL if status != 500 else logging.ERROR):
        reply = client.post("/predict", {"inputs": "noon"})
    assert (reply.status, reply.value["error_type"]) == (status, kind)
    assert "secret" not in reply.value["error"]
    assert (status == 500) == any(record.exc_info for record in caplog.records)
    monkeypatch.undo()
    assert client.post("/predict", {"inputs": "noon"}).status == 200  # the thread goes on


def test_the_id_of_a_request_comes_back(client: Client) -> None:
    assert client.get("/health", x_request_id="abc-1").headers["x-request-id"] == "abc-1"
    for unusable in ("", "a" * 201, "a\x7f", "\xe9"):
        assert "x-request-id" not in client.get("/health", x_request_id=unusable).headers


def test_a_body_that_does_not_arrive(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client sends its headers and half of a body, and then nothing."""
    monkeypatch.setattr(messages, "READ_SECONDS", 0.01)
    sent: list[Any] = []
    parts = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Any:
        return parts.pop() if parts else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    asyncio.run(client.app(scope, receive, send))
    assert sent[0]["status"] == 408 and (b"connection", b"close") in sent[0]["headers"]


def test_a_bundle_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(create_app(tmp_path / "nothing")({"type": "lifespan"}, receive, send))
    assert sent[0]["type"] == "lifespan.startup.failed" and "nothing" in sent[0]["message"]


def test_settings_that_do_not_fit() -> None:
    for options, message in (
        ({"queue": 8}, "shorter than a request"),
        ({"deadline": float("nan")}, "deadline"),
        ({"deadline": float("inf")}, "deadline"),
        ({"allow_edits": True}, "need a key"),
        ({"threads": 0}, "threads"),
        ({"retrieval": "often"}, "retrieval"),
    ):
        with pytest.raises(UsageError, match=message):
            create_app("bundle", **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="part of a URL"):
        create_app({"a b": "bundle"})


def test_the_lifespan_of_an_asgi_server(known_bundle: Path) -> None:
    app = create_app(known_bundle)
    seen: list[Any] = []

    async def receive() -> Any:
        if seen:
            assert (await Client(app).send_async("GET", "/health", b"", {})).status == 200
        return {"type": f"lifespan.{'shutdown' if seen else 'startup'}"}

    async def send(message: Any) -> None:
        seen.append(message["type"])

    asyncio.run(app({"type": "lifespan"}, receive, send))
    assert seen == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_serving_closes_what_it_opens(known_bundle: Path) -> None:
    with serving(known_bundle) as client:
        pass
    assert not client.service._watcher.is_alive()

"""Clients of others, unchanged: Hugging Face's in Python and JavaScript, and curl."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from support.paths import ROOT
from support.server_process import LIMIT, Server, server

from reaugkd import Runtime

EXAMPLES = ROOT / "examples" / "serve"
KEY = "hf_key"


@pytest.fixture(scope="module")
def one(edge_bundle: Path) -> Iterator[Server]:
    with server(edge_bundle, "--max-batch", "2", "--queue", "2", REAUGKD_API_KEY=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def expected(edge_bundle: Path) -> list[dict[str, Any]]:
    with Runtime.open(edge_bundle) as runtime:
        answer = runtime.predict("jazz at noon")
    pairs = sorted(zip(answer.probabilities.tolist(), answer.labels, strict=True), reverse=True)
    return [{"score": score, "label": label} for score, label in pairs]


def test_hugging_face_in_python(one: Server, expected: list[dict[str, Any]]) -> None:
    for client in (InferenceClient(one.url, token=KEY), InferenceClient(base_url=one.url, api_key=KEY)):
        found = client.text_classification("jazz at noon")
        assert [(each.label, each.score) for each in found] == [(each["label"], each["score"]) for each in expected]
    (best,) = client.text_classification("jazz at noon", top_k=1, function_to_apply="softmax")
    assert best.label == expected[0]["label"]
    client = InferenceClient(f"{one.url}/models/bundle", token=KEY)
    assert client.text_classification("jazz at noon")[0].label == expected[0]["label"]
    for call, message in (
        (lambda: InferenceClient(one.url, token=KEY).text_classification(""), "cannot be empty"),
        (lambda: InferenceClient(one.url, token="wrong").text_classification("noon"), "another key"),
        (lambda: client.text_classification("noon", function_to_apply="sigmoid"), "must be softmax"),
    ):
        with pytest.raises(HfHubHTTPError, match=message):
            call()


def test_hugging_face_s_questions_about_an_endpoint(one: Server) -> None:
    client = InferenceClient(one.url, provider="hf-inference", token=KEY)
    assert client.health_check()
    assert client.get_endpoint_info()["served_model_name"] == "bundle"


def test_hugging_face_in_javascript(one: Server, expected: list[dict[str, Any]]) -> None:
    if shutil.which("node") is None or not (EXAMPLES / "node_modules" / "@huggingface" / "inference").is_dir():
        pytest.skip("node is not here, or `npm install` was not run in examples/serve")
    command = ["node", "client.mjs", one.url, "jazz at noon", "jazz at noon"]
    environment = {"PATH": str(Path(shutil.which("node") or "").parent), "REAUGKD_API_KEY": KEY}
    done = subprocess.run(command, cwd=EXAMPLES, env=environment, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [expected, expected]


def test_curl(one: Server, expected: list[dict[str, Any]], tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")

    def curl(*arguments: str) -> str:
        command = ["curl", "--silent", "--show-error", "--max-time", "60", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True).stdout

    key, kind = ("--header", f"Authorization: Bearer {KEY}"), ("--header", "Content-Type: application/json")
    data = ("--data", '{"inputs": "jazz at noon"}')
    assert json.loads(curl(*key, *kind, *data, f"{one.url}/predict")) == expected
    assert json.loads(curl(*key, "--json", '{"inputs": "jazz at noon"}', f"{one.url}/predict")) == expected
    assert curl("--write-out", "%{http_code}", f"{one.url}/health") == "200"
    assert json.loads(curl(*key, *data, f"{one.url}/predict"))["error"].startswith("expected the header Content-Type")
    large = tmp_path / "large.json"
    large.write_text(json.dumps({"inputs": "x" * 3_000_000}))
    # curl waits for the permission to send a large body, and so reads the refusal.
    refusal = json.loads(curl(*key, *kind, "--data", f"@{large}", f"{one.url}/predict"))
    assert "3000014 bytes" in refusal["error"] and "2000000 bytes" in refusal["error"]

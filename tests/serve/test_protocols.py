"""Requests and answers of every protocol, compared with the runtime's own answers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.http_client import Client, Reply

from reaugkd import Prediction, Runtime
from reaugkd.serve.http import messages
from reaugkd.serve.http.messages import json_response

TEXTS = ["noon", "jazz music at night", "cheap green lamp"]


@pytest.fixture(scope="module")
def runtime(known_bundle: Path) -> Iterator[Runtime]:
    with Runtime.open(known_bundle) as one:
        yield one


def ok(reply: Reply) -> Any:
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/json"
    return reply.value


def ranked(answer: Prediction, top_k: int | None = None) -> list[dict[str, Any]]:
    pairs = sorted(zip(answer.probabilities.tolist(), answer.labels, strict=True), reverse=True)
    return [{"score": score, "label": label} for score, label in pairs][:top_k]


class TestTextEmbeddingsInference:
    def test_one_text_gets_a_flat_list_and_a_batch_a_list_of_lists(self, client: Client, runtime: Runtime) -> None:
        expected = [ranked(runtime.predict(text)) for text in TEXTS]
        assert ok(client.post("/predict", {"inputs": TEXTS[0]})) == expected[0]
        assert ok(client.post("/predict", {"inputs": [TEXTS[0]], "parameters": {}, "truncate": None})) == expected[0]
        assert ok(client.post("/predict", {"inputs": [[text] for text in TEXTS]})) == expected
        assert ok(client.post("/predict", {"inputs": TEXTS[1], "top_k": 2})) == expected[1][:2]

    def test_two_strings_are_a_pair(self, pair_bundle: Path, known_bundle: Path) -> None:
        from support.http_client import serving

        pair = ("noon", "jazz")
        with Runtime.open(pair_bundle) as runtime, serving(pair_bundle) as client:
            expected = ranked(runtime.predict(pair))
            assert ok(client.post("/predict", {"inputs": list(pair)})) == expected
            assert ok(client.post("/predict", {"inputs": [list(pair), list(pair)]})) == [expected, expected]

    def test_its_headers_are_whole_numbers(self, client: Client, runtime: Runtime) -> None:
        long = " ".join(["noon"] * 100)
        headers = client.post("/predict", {"inputs": [[long], [TEXTS[0]]]}).headers
        for name in ("compute-time", "total-time", "tokenization-time", "queue-time", "inference-time"):
            assert headers[f"x-{name}"].isdecimal()
        assert headers["x-compute-characters"] == str(len(long) + len(TEXTS[0]))
        assert headers["x-compute-tokens"] == str(runtime.manifest.max_length + 3)  # [CLS] noon [SEP]
        assert headers["x-truncated"] == "1"
        times = dict(part.split(";dur=") for part in headers["server-timing"].split(", "))
        assert set(times) == {"queue", "tokenize", "run", "search", "blend"}
        assert all(float(time) >= 0 for time in times.values())
        assert "x-truncated" not in client.post("/predict", {"inputs": TEXTS[0]}).headers

    def test_a_long_text_is_an_error_if_it_must_not_be_truncated(self, client: Client) -> None:
        reply = client.post("/predict", {"inputs": " ".join(["noon"] * 100), "truncate": False})
        assert reply.status == 422 and "`inputs` must have less than 25 tokens" in reply.value["error"]
        assert client.post("/predict", {"inputs": "noon", "truncate": False}).status == 200


class TestHuggingFace:
    @pytest.mark.parametrize("path", ["/", "/models/known"])
    def test_every_text_has_a_list_of_its_own(self, client: Client, runtime: Runtime, path: str) -> None:
        expected = [ranked(runtime.predict(text)) for text in TEXTS]
        assert ok(client.post(path, {"inputs": TEXTS[0]})) == expected[:1]
        assert ok(client.post(path, {"inputs": TEXTS})) == expected
        assert ok(client.post(path, {"inputs": TEXTS[:2]})) == expected[:2]  # no pair
        parameters = {"top_k": 1, "function_to_apply": "softmax"}
        found = ok(client.post(path, {"inputs": {"text": TEXTS[0]}, "parameters": parameters}))
        assert found == [expected[0][:1]]

    def test_pairs_are_objects(self, client: Client, pair_bundle: Path) -> None:
        pairs = [("noon", "jazz"), ("late light", "oven")]
        with Runtime.open(pair_bundle) as runtime:
            expected = [ranked(runtime.predict(pair)) for pair in pairs]
        inputs = [{"text": first, "text_pair": second} for first, second in pairs]
        assert ok(client.post("/models/pairs", {"inputs": inputs})) == expected

    @pytest.mark.parametrize("function", ["sigmoid", "none"])
    def test_another_function_is_refused(self, client: Client, function: str) -> None:
        reply = client.post("/", {"inputs": "noon", "parameters": {"function_to_apply": function}})
        assert reply.status == 422 and "function_to_apply" in reply.value["error"]


class TestVllm:
    @pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
    def test_probabilities_are_in_the_order_of_the_labels(self, client: Client, runtime: Runtime, path: str) -> None:
        answers = [runtime.predict(text) for text in TEXTS]
        found = ok(client.post(path, {"model": "known", "input": TEXTS}))
        assert list(found) == ["id", "object", "created", "model", "data", "usage"]
        assert found["object"] == "list" and found["model"] == "known" and found["id"].startswith("classify-")
        assert found["data"] == [
            {"index": index, "label": one.label, "probs": one.probabilities.tolist(), "num_classes": len(one.labels)}
            for index, one in enumerate(answers)
        ]
        tokens = sum(len(runtime.tokenizer.encode(text)) for text in TEXTS)
        assert found["usage"] == {
            "prompt_tokens": tokens,
            "total_tokens": tokens,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
        }
        assert len(ok(client.post(path, {"input": TEXTS[0]}))["data"]) == 1


class TestOpenInference:
    def infer(self, client: Client, name: str, *tensors: dict[str, Any], **more: Any) -> Any:
        return ok(client.post(f"/v2/models/{name}/infer", {"inputs": list(tensors), **more}))

    def tensor(self, data: list[str], name: str = "text") -> dict[str, Any]:
        return {"name": name, "shape": [len(data)], "datatype": "BYTES", "data": data}

    def test_metadata_and_health(self, client: Client) -> None:
        assert ok(client.get("/v2"))["name"] == "reaugkd"
        assert ok(client.get("/v2/health/live")) == {"live": True}
        assert ok(client.get("/v2/health/ready")) == {"ready": True}
        assert ok(client.get("/v2/models/pairs/ready")) == {"name": "pairs", "ready": True}
        assert [one["name"] for one in ok(client.get("/v2/models/pairs"))["inputs"]] == ["text", "text_pair"]

    def test_tensors(self, client: Client, runtime: Runtime, pair_bundle: Path) -> None:
        answers = [runtime.predict(text) for text in TEXTS]
        found = self.infer(client, "known", self.tensor(TEXTS), id="7")
        assert found["model_name"] == "known" and found["id"] == "7"
        outputs = {one["name"]: one for one in found["outputs"]}
        assert outputs["label"]["data"] == [one.label for one in answers]
        assert outputs["score"]["data"] == [one.probability for one in answers]
        assert outputs["probabilities"]["shape"] == [3, len(runtime.labels)]
        assert outputs["probabilities"]["data"] == [float(p) for one in answers for p in one.probabilities]
        column = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [["noon"]]}
        (only,) = self.infer(client, "known", column, outputs=[{"name": "label"}])["outputs"]
        assert only == {"name": "label", "shape": [1], "datatype": "BYTES", "data": [answers[0].label]}
        with Runtime.open(pair_bundle) as pairs:
            expected = pairs.predict(("noon", "jazz")).label
        tensors = (self.tensor(["noon"]), self.tensor(["jazz"], "text_pair"))
        assert self.infer(client, "pairs", *tensors)["outputs"][0]["data"] == [expected]


class TestNative:
    def test_everything_that_is_known(self, client: Client, runtime: Runtime) -> None:
        answer = runtime.predict(TEXTS[1], "coverage=50%")
        request = {"inputs": TEXTS[1], "top_k": 2, "explain": 3, "abstain": "coverage=50%"}
        found = ok(client.post("/v1/predict", request))
        assert found["model"] == f"known@{runtime.kb.seal[:12]}"
        (record,) = found["predictions"]
        many = ok(client.post("/v1/predict", {**request, "top_k": 10**30}))["predictions"][0]
        assert {len(many[name]) for name in ("scores", "student_scores", "retrieval_scores")} == {3}
        timings = record.pop("timings_us")
        assert set(timings) == {"tokenize_us", "run_us", "search_us", "blend_us"}
        assert record == {
            "label": answer.label,
            "score": answer.probability,
            "scores": ranked(answer, 2),
            "retrieved": True,
            "reason": None,
            "abstained": answer.abstained,
            "abstention": answer.abstention,
            "rejection_score": answer.rejection_score,
            "prediction_set": list(answer.prediction_set or ()),
            "truncated": False,
            "tokens": len(runtime.tokenizer.encode(TEXTS[1])),
            "decided_by": answer.decided_by,
            "student_weight": answer.student_weight,
            "student_scores": record["student_scores"],
            "retrieval_scores": record["retrieval_scores"],
            "neighbours": [near.as_record() for near in answer.neighbours[:3]],
        }
        assert record["student_scores"][0]["score"] == float(answer.student_probabilities.max())
        assert len(record["retrieval_scores"]) == 2

    def test_without_extras_it_is_short(self, client: Client) -> None:
        (record,) = ok(client.post("/v1/predict", {"inputs": "noon", "model": "known"}))["predictions"]
        assert "neighbours" not in record and len(record["scores"]) == 1 and record["rejection_score"] is None

    def test_without_retrieval(self, client: Client, runtime: Runtime) -> None:
        (record,) = ok(client.post("/v1/predict", {"inputs": "noon", "retrieval": "never"}))["predictions"]
        assert record["reason"] == "never" and not record["retrieved"]
        assert math.isclose(record["score"], float(runtime.predict("noon").student_probabilities.max()), abs_tol=1e-6)

    def test_a_bad_text_fails_the_request_or_has_its_own_record(self, client: Client) -> None:
        inputs = ["noon", " ", "jazz"]
        reply = client.post("/v1/predict", {"inputs": inputs})
        assert reply.status == 400 and "inputs[1]" in reply.value["error"] and reply.value["error_type"] == "Empty"
        found = ok(client.post("/v1/predict", {"inputs": inputs, "on_error": "record"}))["predictions"]
        assert ["label" in one for one in found] == [True, False, True]
        assert set(found[1]) == {"error", "error_type"}


class TestState:
    def test_health_has_no_body_and_info_the_keys_of_tei(self, client: Client, runtime: Runtime) -> None:
        for path in ("/health", "/ping", "/livez", "/"):
            assert client.get(path)[0::2] == (200, b"")
            assert client.send("HEAD", path).status == 200
        info = ok(client.get("/info"))
        assert info["model_type"]["classifier"]["id2label"]["0"] == runtime.labels[0]
        assert info["max_input_length"] == runtime.manifest.max_length and info["auto_truncate"] is True
        assert info["reaugkd"]["rows"] == len(runtime.knowledge_base) and info["reaugkd"]["edits"] == 0
        assert ok(client.get("/info?model=pairs"))["reaugkd"]["text_pair"] is True

    def test_while_it_loads_and_drains_it_is_not_ready(self, known_bundle: Path) -> None:
        from reaugkd.serve import create_app

        client = Client(create_app(known_bundle))
        for method, path in (("GET", "/health"), ("GET", "/v2/health/ready"), ("GET", "/info")):
            assert client.send(method, path).status == 503
        reply = client.post("/predict", {"inputs": "noon"})
        assert (reply.status, reply.value["error_type"]) == (503, "Unhealthy")
        assert client.get("/livez").status == 200 and client.get("/metrics").status == 200
        client.service.start()
        try:
            assert client.get("/health").status == 200 and "connection" not in client.get("/health").headers
            client.service.drain()
            assert client.get("/health").status == 503
            reply = client.post("/predict", {"inputs": "noon"})
            assert reply.status == 200 and reply.headers["connection"] == "close"
        finally:
            client.service.close()


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=())),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=9,
    )
)
def test_every_value_is_written_exactly_with_and_without_orjson(value: Any) -> None:
    """Half surrogate pairs and whole numbers above 64 bits too."""
    assert messages.orjson is not None
    assert json.loads(json_response(value).body) == value
    with mock.patch.object(messages, "orjson", None):
        assert json.loads(json_response(value).body) == value

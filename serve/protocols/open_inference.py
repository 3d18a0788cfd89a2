"""The Open Inference Protocol, version 2 (https://github.com/kserve/open-inference-protocol), over JSON.

Input ``text`` (BYTES [n]; for pairs also ``text_pair``); outputs ``label`` (BYTES [n]), ``score`` (FP32 [n]) and
``probabilities`` (FP32 [n, c], in the order of the labels).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ... import __version__
from ...runtime.inference.prediction import Prediction
from ...runtime.inference.text.inputs import Text
from ..http.errors import empty, invalid, unhealthy
from ..http.messages import Request, Response, json_response
from ..service import Service
from .shapes import answered

_OUTPUTS = ("label", "score", "probabilities")


async def server(_service: Service, _request: Request) -> Response:
    """The server's metadata."""
    return json_response({"name": "reaugkd", "version": __version__, "extensions": []})


async def live(_service: Service, _request: Request) -> Response:
    """Whether the server runs."""
    return json_response({"live": True})


async def ready(service: Service, _request: Request) -> Response:
    """Whether the server answers texts, and is not about to end.

    Raises:
        HttpError: it does not.
    """
    if service.state != "ready":
        raise unhealthy(service.state)
    return json_response({"ready": True})


async def model(service: Service, _request: Request, name: str) -> Response:
    """The metadata of a model."""
    with service.bundle(name).use() as opened:
        runtime = opened.main
        inputs = ["text", "text_pair"] if runtime.manifest.text_pair else ["text"]
        classes = len(runtime.labels)
        value = {
            "name": name,
            "versions": [opened.seal[:12]],
            "platform": "reaugkd",
            "inputs": [{"name": one, "datatype": "BYTES", "shape": [-1]} for one in inputs],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "score", "datatype": "FP32", "shape": [-1]},
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]},
            ],
            "labels": list(runtime.labels),
        }
    return json_response(value)


async def model_ready(service: Service, _request: Request, name: str) -> Response:
    """Whether a model answers texts.

    Raises:
        HttpError: it does not.
    """
    if service.state != "ready":
        raise unhealthy(service.state)
    return json_response({"name": name, "ready": True})


async def infer(service: Service, request: Request, name: str) -> Response:
    """Answer the tensors of a request.

    Raises:
        HttpError: a value cannot be used, or the texts cannot be answered now.
    """
    body = await request.json()
    texts, wanted = _texts(body.get("inputs")), _wanted(body.get("outputs"))
    answers = await service.predict(service.bundle(name), texts)
    predictions = answers.predictions()
    value: dict[str, Any] = {
        "model_name": name,
        "model_version": answers.bundle.seal[:12],
        "outputs": [_output(one, predictions) for one in wanted],
    }
    if isinstance(body.get("id"), str):
        value["id"] = body["id"]
    return answered(value, answers, predictions)


def _texts(inputs: Any) -> list[Text]:
    if not isinstance(inputs, list):
        raise invalid("`inputs` must be a list of tensors")
    found: dict[str, list[str]] = {}
    for tensor in inputs:
        if not isinstance(tensor, dict) or tensor.get("name") not in ("text", "text_pair"):
            raise invalid("the tensors of `inputs` must have the name text or text_pair")
        found[tensor["name"]] = _strings(tensor)
    if "text" not in found:
        raise invalid("the tensor `text` is missing")
    if not found["text"]:
        raise empty()
    if "text_pair" not in found:
        return list(found["text"])
    if len(found["text"]) != len(found["text_pair"]):
        raise invalid("the tensors `text` and `text_pair` must have the same length")
    return list(zip(found["text"], found["text_pair"], strict=True))


def _strings(tensor: dict[str, Any]) -> list[str]:
    name, data, shape = tensor["name"], tensor.get("data"), tensor.get("shape")
    if tensor.get("datatype") != "BYTES":
        raise invalid(f"the tensor `{name}` must have the datatype BYTES")
    if isinstance(data, list) and all(isinstance(row, list) and len(row) == 1 for row in data):
        data = [row[0] for row in data]
    if not isinstance(data, list) or not all(isinstance(one, str) for one in data):
        raise invalid(f"the data of the tensor `{name}` must be a list of strings")
    if shape not in ([len(data)], [len(data), 1]):
        raise invalid(f"the shape of the tensor `{name}` must be [{len(data)}], found {shape!r:.80}")
    return data


def _wanted(outputs: Any) -> list[str]:
    if outputs is None:
        return list(_OUTPUTS)
    names = [one.get("name") if isinstance(one, dict) else None for one in outputs] if isinstance(outputs, list) else []
    if not names or any(name not in _OUTPUTS for name in names):
        raise invalid(f"`outputs` must name tensors: {', '.join(_OUTPUTS)}")
    return [str(name) for name in names]


def _output(name: str, predictions: Sequence[Prediction]) -> dict[str, Any]:
    count = len(predictions)
    if name == "label":
        return _tensor(name, "BYTES", [count], [one.label for one in predictions])
    if name == "score":
        return _tensor(name, "FP32", [count], [one.probability for one in predictions])
    width = max(len(one.labels) for one in predictions)  # an edit between two texts can change their number
    data = [number for one in predictions for number in one.probabilities.tolist() + [0.0] * (width - len(one.labels))]
    return _tensor(name, "FP32", [count, width], data)


def _tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}

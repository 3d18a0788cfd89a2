"""The description of the routes: valid, complete, and true of answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from support.http_client import Client, serving
from support.paths import ROOT

from reaugkd.serve.page.files import FILES
from reaugkd.serve.routes import routes_of
from reaugkd.serve.settings import ServerSettings

DESCRIPTION: dict[str, Any] = json.loads((ROOT / "serve" / "openapi.json").read_text(encoding="utf-8"))


def test_it_is_a_valid_description() -> None:
    validate(DESCRIPTION)


def test_it_has_every_route_and_no_other() -> None:
    settings = ServerSettings({"known": Path("bundle")})
    routes = {path: of_path for path, of_path in routes_of(settings).items() if path not in FILES}
    served = {(route.name, method.lower()) for of_path in routes.values() for method, route in of_path.items()}
    assert served == {(path, method) for path, methods in DESCRIPTION["paths"].items() for method in methods}
    for of_path in routes.values():
        for method, route in of_path.items():
            described = DESCRIPTION["paths"][route.name][method.lower()]
            assert (route.access == "public") == (described.get("security") == []), route.name
            assert (route.access == "edits") == (described["tags"] == ["edit"])
            query = tuple(one["name"] for one in described.get("parameters", ()) if one["in"] == "query")
            own = route.access == "edits" or route.name == "/v1/predict"
            assert route.query == (query if own else None), route.name
            assert not own or "422" in described["responses"], route.name


def schema_of(content: dict[str, Any]) -> Draft202012Validator:
    schema = {**content["application/json"]["schema"], "components": DESCRIPTION["components"]}
    return Draft202012Validator(schema)


def operations() -> list[tuple[str, str]]:
    return [(path, method) for path, methods in DESCRIPTION["paths"].items() for method in methods]


@pytest.fixture(scope="module")
def editable(known_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    import shutil

    copy = shutil.copytree(known_bundle, tmp_path_factory.mktemp("edited") / "known")
    with serving(copy, key="key", allow_edits=True) as client:
        yield client


def test_the_examples_are_valid_and_their_answers_as_described(editable: Client) -> None:
    labels = editable.get("/info").value["model_type"]["classifier"]["label2id"]
    answered = 0
    for path, method in operations():
        described = DESCRIPTION["paths"][path][method]
        place = path.format(name="known")
        if method == "post":
            content = described["requestBody"]["content"]
            example = content["application/json"]["example"]
            schema_of(content).validate(example)
            if "label" in example:
                example = {**example, "label": next(iter(labels))}
            if "ids" in example:
                example = {**example, "ids": [1001 if path == "/kb/remove" else 1002]}
            reply = editable.post(place, example)
        else:
            reply = editable.get(place)
        assert reply.status == 200, (path, reply)
        content = described["responses"]["200"].get("content")
        if content is None:
            assert reply.body == b""
        elif "application/json" in content:
            schema_of(content).validate(reply.value)
            answered += 1
        known = described["responses"]["200"].get("headers", {})
        assert {name for name in reply.headers if name.startswith(("x-", "server-"))} <= set(known)
    assert answered > 15


def test_errors_are_as_described(editable: Client) -> None:
    schema = schema_of(DESCRIPTION["components"]["responses"]["Invalid"]["content"])
    stranger = Client(editable.app)
    for client, path, value in (
        (editable, "/predict", {}),
        (editable, "/predict", {"inputs": ""}),
        (editable, "/v1/predict", {"inputs": "noon", "model": "other"}),
        (stranger, "/predict", {"inputs": "noon"}),
        (editable, "/kb/undo", {"seq": 99}),
        (editable, "/kb/add", {"texts": "noon", "label": "a", "guard": 0.0, "new_labels": "yes"}),
    ):
        reply = client.post(path, value)
        schema.validate(reply.value)
        described = DESCRIPTION["paths"][path]["post"]["responses"]
        assert str(reply.status) in described, (path, reply)


def test_the_server_returns_it(editable: Client) -> None:
    assert Client(editable.app).get("/openapi.json").value == DESCRIPTION

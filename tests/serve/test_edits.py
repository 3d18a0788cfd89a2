"""Edits over HTTP: the same as `Runtime.kb`, and refused where they must be."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.http_client import LIMIT, Client, Deadlines, Reply, serving

from reaugkd import Runtime, StorageError
from reaugkd.runtime.editing.editor import KnowledgeEditor
from reaugkd.serve import service
from reaugkd.serve.protocols import edits


@pytest.fixture
def place(known_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(known_bundle, tmp_path / "known"))


@pytest.fixture
def client(place: Path) -> Iterator[Client]:
    with serving(place, key="key", allow_edits=True) as one:
        yield one


def label(client: Client, text: str) -> str:
    return str(client.post("/v1/predict", {"inputs": text}).value["predictions"][0]["label"])


def ok(client: Client, path: str, value: Any) -> Any:
    reply = client.post(path, value)
    assert reply.status == 200, reply
    return reply.value


def test_add_relabel_remove_and_undo(client: Client, place: Path) -> None:
    done = ok(client, "/kb/add", {"texts": ["jazz oven", "late lamp"], "label": "a", "why": "a test", "who": "anna"})
    assert (done["seq"], done["added"], done["flips"], done["model"]) == (1, 2, None, "known")
    assert [label(client, text) for text in ("jazz oven", "late lamp")] == ["a", "a"]
    assert ok(client, "/kb/relabel", {"ids": done["ids"][:1], "label": "b"})["relabelled"] == 1
    assert ok(client, "/kb/relabel", {"texts": "late lamp", "label": "c"})["seq"] == 3
    assert label(client, "late lamp") == "c"
    assert ok(client, "/kb/remove", {"texts": ["late lamp"]})["removed"] == 1
    assert ok(client, "/kb/undo", {})["restored"] == 1 and label(client, "late lamp") == "c"
    assert ok(client, "/kb/undo", {"seq": 3})["seq"] == 6
    new = {"rows": [{"text": "green oven", "soft": {"a": 0.6, "b": 0.4}}, {"text": "new words", "label": "new"}]}
    assert client.post("/kb/add", new).status == 422
    assert ok(client, "/kb/add", {**new, "new_labels": True})["added"] == 2
    assert label(client, "new words") == "new"
    client.service.bundles["known"].current.main.kb.wait()
    log = client.get("/kb/log").value["edits"]
    assert [entry["op"] for entry in log] == ["add", "relabel", "relabel", "remove", "undo", "undo", "add", "fit"]
    assert (log[0]["who"], log[0]["why"], log[0]["add"][0]["payload"]) == ("anna", "a test", {"text": "jazz oven"})
    assert [entry["seq"] for entry in client.get("/kb/log?last=2").value["edits"]] == [7, 8]
    assert client.get("/kb/log?last=0").value["edits"] == []
    with Runtime.open(place) as runtime:
        assert len(runtime.kb.log()) == runtime.kb.seq == 8 and runtime.predict("new words").label == "new"


def test_preview_and_guard_write_nothing(client: Client, place: Path) -> None:
    many = {"texts": [f"noon {word}" for word in ("jazz", "late", "oven", "milk")], "label": "a"}
    done = ok(client, "/kb/add", {**many, "preview": True})
    assert done["seq"] is None and isinstance(done["flips"], list)
    with Runtime.open(place) as runtime:
        held = runtime.kb.add([], "a", preview=True)
        assert held.preview is None or held.preview.rows >= 0
        texts = [runtime.knowledge_base.text(row) for row in range(60)]
        gold = [runtime.labels[runtime.knowledge_base.label(row)] for row in range(60)]
    turned = [{"text": text, "label": "abc".replace(one, "")[0]} for text, one in zip(texts, gold, strict=True)]
    reply = client.post("/kb/add", {"rows": turned, "guard": 0})
    assert reply.status == 409 and "guard" in reply.value["error"]
    assert client.get("/kb/log").value["edits"] == []


def test_review_is_that_of_the_package(client: Client, place: Path) -> None:
    from reaugkd import review

    with Runtime.open(place) as runtime:
        expected = review(runtime, 0.5)
    found = client.get("/kb/review?below=0.5").value
    assert (found["checked"], [issue["id"] for issue in found["issues"]]) == (
        expected.checked,
        [issue.id for issue in expected.issues],
    )


def test_suggestions_are_those_of_the_package(client: Client, place: Path) -> None:
    from reaugkd import suggest

    with Runtime.open(place) as runtime:
        stored = str(runtime.knowledge_base.text(0))
        words = ("jazz", "late", "oven")
        texts = [*(f"{word} {other}" for word in words for other in ("milk", "lamp", "noon")), stored]
        expected = suggest(runtime, texts, 5)
    found = ok(client, "/kb/suggest", {"inputs": texts, "count": 5})["suggestions"]
    assert [(one["place"], one["text"], one["reason"]) for one in found] == [
        (one.place, one.text, one.reason) for one in expected
    ]
    ok(client, "/kb/add", {"texts": found[0]["text"], "label": found[0]["second"]})
    again = ok(client, "/kb/suggest", {"inputs": texts})["suggestions"]
    assert found[0]["text"] not in {one["text"] for one in again}, "it is stored now"
    assert ok(client, "/kb/suggest", {"inputs": stored})["suggestions"] == []


@pytest.mark.parametrize("name", ["suggest", "review", "find_rows"])
def test_what_only_reads_does_not_hold_edits(client: Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers from the state in which it began, and takes no edit's place in the queue."""
    monkeypatch.setattr(service, "_MOST_CALLS", 1)
    begun, go_on, reading = threading.Event(), threading.Event(), getattr(edits, name)

    def held(runtime: Runtime, *arguments: Any, **options: Any) -> Any:
        found = reading(runtime, *arguments, **options)
        begun.set()
        assert go_on.wait(LIMIT)
        return found

    def ask() -> Reply:
        if name == "suggest":
            return client.post("/kb/suggest", {"inputs": "jazz oven"})
        return client.get("/kb/review" if name == "review" else "/kb/rows")

    monkeypatch.setattr(edits, name, held)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        try:
            assert begun.wait(LIMIT)
            assert ok(client, "/kb/add", {"texts": "jazz oven", "label": "a"})["seq"] == 1
            if name != "find_rows":  # rows and log wait for no long read
                assert client.get("/kb/rows").value["of"] == 121
                assert client.get("/kb/log").value["edits"] and not asked.done()
            assert not asked.done()
        finally:
            go_on.set()
        assert asked.result(LIMIT).status == 200


def test_rows_and_log_do_not_wait_for_an_edit(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    adding = KnowledgeEditor.add

    def held(*arguments: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(LIMIT)
        return adding(*arguments, **options)

    monkeypatch.setattr(KnowledgeEditor, "add", held)
    with ThreadPoolExecutor(2) as pool:
        edit = pool.submit(ok, client, "/kb/add", {"texts": "jazz oven", "label": "a"})
        try:
            assert begun.wait(LIMIT)
            assert pool.submit(client.get, "/kb/rows").result(LIMIT).value["of"] == 120
            assert pool.submit(client.get, "/kb/log").result(LIMIT).value["edits"] == [] and not edit.done()
        finally:
            go_on.set()
        assert edit.result(LIMIT)["seq"] == 1
    assert client.get("/kb/rows").value["of"] == 121


def test_long_reads_end_at_the_deadline_and_with_the_server(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reaugkd.runtime.labelling.review._BLOCK", 50)
    monkeypatch.setattr(edits, "time", SimpleNamespace(monotonic=itertools.count(0, 11).__next__))
    with serving(place, key="key", allow_edits=True, deadline=10) as client:
        reply = client.post("/kb/suggest", {"inputs": ["jazz oven", "late lamp"]})
        assert reply.status == 504 and "1 of 2 texts" in reply.value["error"]
        reply = client.get("/kb/review")
        assert reply.status == 504 and "50 of 105 rows" in reply.value["error"]
        assert client.get("/kb/log").status == 200
        client.service.drain()
        assert client.post("/kb/suggest", {"inputs": "jazz oven"}).status == 503
        assert client.get("/kb/review").status == 503


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/kb/suggest", {"inputs": "noon", "count": 0}),
        ("/kb/suggest", {"inputs": "noon", "count": 2001}),
        ("/kb/suggest", {"inputs": ["noon", {"text": "noon", "text_pair": "jazz"}]}),
        ("/kb/suggest", {"inputs": "noon", "texts": "noon"}),
        ("/kb/add", {"texts": "noon"}),
        ("/kb/add", {"label": "a"}),
        ("/kb/add", {"texts": "noon", "label": "a", "rows": [{"text": "noon", "label": "a"}]}),
        ("/kb/add", {"texts": "noon", "label": 3}),
        ("/kb/add", {"texts": "noon", "label": "unknown"}),
        ("/kb/add", {"texts": "noon", "soft": {"a": "much"}}),
        ("/kb/add", {"texts": "noon", "soft": {"a": 0.1}}),
        ("/kb/add", {"texts": {"text": "noon", "text_pair": "jazz"}, "label": "a"}),
        ("/kb/add", {"texts": "noon", "label": "a", "guard": 2}),
        ("/kb/add", {"texts": "noon", "label": "a", "preview": "no"}),
        ("/kb/add", {"texts": "noon", "soft": {"a": 10**400}}),
        ("/kb/add", {"texts": "noon", "soft": {"a": float("inf"), "b": float("-inf")}}),
        ("/kb/add", {"texts": "noon", "label": "a", "previews": True}),
        ("/kb/add", {"rows": [{"text": "noon", "label": "a", "pair": "jazz"}]}),
        ("/kb/add", {"rows": ["noon"]}),
        ("/kb/add", {"rows": []}),
        ("/kb/remove", {}),
        ("/kb/remove", {"ids": [1001], "label": "a"}),
        ("/kb/remove", {"ids": ["7"]}),
        ("/kb/remove", {"ids": [True]}),
        ("/kb/remove", {"ids": [10**30]}),
        ("/kb/relabel", {"ids": [1001]}),
        ("/kb/undo", {"seq": 0}),
        ("/kb/undo", {"seq": 9}),
    ],
)
def test_wrong_edits_change_nothing(client: Client, path: str, value: Any) -> None:
    reply = client.post(path, value)
    assert reply.status == 422 and reply.value["error_type"] == "Validation", reply
    assert client.get("/kb/log").value["edits"] == []


def test_an_error_names_the_field_of_the_request(client: Client) -> None:
    for value, expected in (
        ({"texts": [], "label": "a"}, "`texts` cannot be empty"),
        ({"texts": [" "], "label": "a"}, "the request: the text is empty"),  # not `inputs`: it has no such field
        ({"texts": "noon", "label": "a", "guard": "1%"}, "`guard` must be a number, found '1%'"),
    ):
        assert expected in client.post("/kb/add", value).value["error"]


def test_queries_that_cannot_be_used(client: Client) -> None:
    for path in (
        "/kb/log?last=x",
        "/kb/log?last=-1",
        "/kb/review?below=x",
        "/kb/review?below=2",
        "/kb/review?below=nan",
    ):
        assert client.get(path).status == 422
    assert client.get("/kb/log?model=other").status == 404


def test_an_unknown_name_in_a_query_is_refused(client: Client) -> None:
    """But not by the protocols of others, whose clients may append names of their own."""
    for path, expected in (
        ("/kb/rows?limt=5", "'limt', expected model, q, label, offset"),
        ("/kb/rows?q=noon&Label=a", "'Label', expected"),
        ("/kb/log?limit=", "'limit', expected model, last"),
        ("/kb/review?bellow", "'bellow', expected model, below"),
        ("/kb/rows?=5", "'', expected"),
    ):
        reply = client.get(path)
        assert (reply.status, reply.value["error_type"]) == (422, "Validation")
        assert f"the query has the unknown name {expected}" in reply.value["error"]
    add = {"texts": "jazz oven", "label": "a"}
    for path, value in (("/v1/predict?top_k=2", {"inputs": "noon"}), ("/kb/add?preview=true", add)):
        reply = client.post(path, value)
        assert reply.status == 422 and "expected none: values are in the body" in reply.value["error"]
    assert client.get("/kb/log").value["edits"] == []  # nothing was added
    for path in ("/predict?x=1", "/?x=1", "/models/known?x=1"):
        assert client.post(path, {"inputs": "noon"}).status == 200
    assert client.post("/classify?api-version=1", {"input": "noon"}).status == 200
    assert client.get("/info?x=1").status == client.get("/health?x=1").status == client.get("/metrics?x").status == 200
    assert client.get("/kb/rows?").status == client.get("/kb/rows?model=known&q=&label=&offset=0").status == 200


def test_a_full_disk_and_a_long_queue(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("writing failed", path="/secret", found="No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(KnowledgeEditor, "add", full)
        reply = client.post("/kb/add", {"texts": "noon", "label": "a"})
        assert (reply.status, reply.value["error_type"]) == (507, "Backend") and "secret" not in reply.value["error"]
    monkeypatch.setattr(service, "_MOST_CALLS", 0)
    reply = client.post("/kb/add", {"texts": "noon", "label": "a"})
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")


def test_an_edit_begins_before_the_deadline_or_never(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    adding = KnowledgeEditor.add

    def held(*arguments: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(LIMIT)
        return adding(*arguments, **options)

    def add(client: Client, text: str) -> Any:
        body = json.dumps({"texts": text, "label": "a"}).encode()
        return client.send_async("POST", "/kb/add", body, {"content-type": "application/json"})

    async def load(client: Client) -> list[Reply]:
        deadlines = Deadlines(7.5)
        first = asyncio.create_task(add(client, "jazz oven"))
        assert await asyncio.to_thread(begun.wait, LIMIT)
        second = asyncio.create_task(add(client, "late lamp"))
        gone = asyncio.create_task(add(client, "green oven"))
        while client.service._calls.total() < 3:
            await asyncio.sleep(0)
        gone.cancel()
        deadlines.end(0)
        deadlines.end(1)
        late = await second
        assert not first.done()
        go_on.set()
        return [await first, late]

    monkeypatch.setattr(KnowledgeEditor, "add", held)
    with serving(place, key="key", allow_edits=True, deadline=7.5) as client:
        done, late = asyncio.run(load(client))
        assert (done.status, late.status, late.value["error_type"]) == (200, 504, "Overloaded")
        assert "7.5 seconds, nothing was changed" in late.value["error"]
        assert [entry["add"][0]["payload"]["text"] for entry in client.get("/kb/log").value["edits"]] == ["jazz oven"]
        assert ok(client, "/kb/add", {"texts": "late lamp", "label": "a"})["seq"] == 2
        assert not client.service._calls.total()

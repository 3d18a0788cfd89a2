"""The page's files and headers, the rows that it shows, and who may use it; `test_browser` runs it in a browser."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

import html5lib
import pytest
from support.command_line import finish, refused, spawn
from support.http_client import Client, serving
from support.paths import ROOT
from support.server_process import server

from reaugkd.serve.application import Application
from reaugkd.serve.page.files import FILES
from reaugkd.serve.service import Service
from reaugkd.serve.settings import ServerSettings

PAGE = ROOT / "serve" / "page"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def test_browsers_get_the_page_and_others_the_state(client: Client) -> None:
    page = client.get("/", accept=BROWSER)
    assert page.status == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.body == (PAGE / "index.html").read_bytes()
    for accept in ({}, {"accept": "*/*"}, {"accept": "application/json"}):
        other = client.get("/", **accept)
        assert (other.status, other.body, other.headers["vary"]) == (200, b"", "accept")
    assert page.headers["vary"] == "accept"


def test_the_policy_lets_nothing_in_but_the_files_of_the_server(client: Client) -> None:
    for path in ("/", *FILES):
        reply = client.get(path, accept=BROWSER)
        policy = dict(part.split(" ", 1) for part in reply.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert "require-trusted-types-for" in policy and "unsafe" not in str(policy)
        assert reply.headers["x-content-type-options"] == "nosniff"
    assert client.get("/page/files.py").status == client.get("/page/../settings.py").status == 404


def test_the_page_is_whole(client: Client) -> None:
    """Every file that the page names is served, every file that is served is named, and no script makes markup."""
    document = html5lib.HTMLParser(strict=True).parse((PAGE / "index.html").read_text(encoding="utf-8"))
    named, ids = set(), set()
    for element in document.iter():
        assert not any(name.startswith("on") or name == "style" for name in element.attrib), element.attrib
        named |= {value for name, value in element.attrib.items() if name in ("src", "href") and value[0] == "/"}
        ids |= {element.attrib["id"]} if "id" in element.attrib else set()
    for script in PAGE.glob("*.js"):
        source = script.read_text(encoding="utf-8")
        named |= {f"/page/{name}" for name in re.findall(r'from "\./([a-z]+\.js)"', source)}
        assert set(re.findall(r'byId\("([a-z-]+)"\)', source)) <= ids, script
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|https?:", source
        )
    assert named == set(FILES)
    assert all(client.get(path).body for path in FILES)


def test_the_page_needs_no_key_and_its_requests_do(edge_bundle: Path) -> None:
    with serving(edge_bundle, key="key", allow_edits=True) as client:
        stranger = Client(client.app)
        assert stranger.get("/", accept=BROWSER).status == 200 and stranger.get("/page/main.js").status == 200
        assert stranger.get("/kb/rows").status == stranger.get("/info").status == 401
        assert client.get("/kb/rows", origin="https://proxy.example", host="inside:8080").status == 200


def test_stored_rows_are_shown_only_where_edits_are_allowed(client: Client) -> None:
    reply = client.get("/kb/rows")
    assert reply.status == 403 and "--allow-edits" in reply.value["error"]


def test_stored_rows(known_bundle: Path) -> None:
    from reaugkd.runtime.labelling.find import MOST, find_rows

    with serving(known_bundle, key="key", allow_edits=True) as client:
        first = client.get("/kb/rows").value
        assert (first["of"], len(first["rows"]), first["next"]) == (120, MOST, MOST)
        rows, place = list(first["rows"]), first["next"]
        while place is not None:
            found = client.get(f"/kb/rows?offset={place}").value
            rows, place = rows + found["rows"], found["next"]
        assert len({row["id"] for row in rows}) == len(rows) == 120
        word = rows[7]["text"].split()[0]
        part = client.get(f"/kb/rows?q={word.upper()}&label={rows[7]['label']}").value
        expected = [row for row in rows if word in row["text"] and row["label"] == rows[7]["label"]]
        assert part["rows"] == expected[:MOST] and rows[7] in expected
        assert client.get("/kb/rows?q=nowhere&offset=1").value["rows"] == []
        assert client.get("/kb/rows?offset=500").value["next"] is None
        for wrong in ("label=other", "offset=-1", "offset=x"):
            assert client.get(f"/kb/rows?{wrong}").status == 422
        with client.service.bundle().use() as opened:
            assert [row.id for row in find_rows(opened.main, most=3, offset=1).rows] == [row["id"] for row in rows[1:4]]


def test_stored_rows_after_edits(edge_bundle: Path, tmp_path: Path) -> None:
    from reaugkd import Runtime
    from reaugkd.runtime.labelling.find import find_rows

    with Runtime.open(shutil.copytree(edge_bundle, tmp_path / "edited")) as runtime:
        (new,) = runtime.kb.add("noon jazz oven", "new", new_labels=True).ids
        gone = find_rows(runtime, most=1).rows[0].id
        runtime.kb.remove([gone])
        (found,) = find_rows(runtime, "JAZZ OVEN", "new").rows
        assert (found.id, found.text, found.edited) == (new, "noon jazz oven", True)
        assert gone not in {row.id for row in find_rows(runtime, most=100).rows}


def test_ui_opens_the_page_with_edits_on(edge_bundle: Path, tmp_path: Path) -> None:
    program = tmp_path / "browser"
    program.write_text('#!/bin/sh\necho "opened $1" >&2\n')
    program.chmod(0o755)
    bundle = shutil.copytree(edge_bundle, tmp_path / "<my> bundle")
    with server(bundle, name="ui", BROWSER=f"{program} %s", REAUGKD_API_KEY="of another server") as one:
        assert one.wait_for("^opened").endswith(one.url)
        assert one.post("/kb/add", {"texts": "noon", "label": "a"})[0] == 200
        assert b'"model":"my-bundle"' in one.get("/kb/log")[1] and b'"seq":1' in one.get("/kb/log")[1]
        one.signal(signal.SIGINT)
        assert one.end() == 0


def test_ui_needs_a_bundle_of_the_users_own(tmp_path: Path) -> None:
    done = finish(spawn("ui", tmp_path / "nowhere", "--no-browser"))
    assert done.code == 2 and "nowhere" in done.err
    assert "reaugkd pull owner/name" in refused("ui", "hf://owner/name", "--no-browser")


@pytest.fixture
def open_to_all(edge_bundle: Path) -> Client:
    """A server like that of `reaugkd ui`; its bundle is not opened."""
    settings = ServerSettings({"edge": edge_bundle}, allow_edits=True, edits_without_key=True)
    return Client(Application(Service(settings)))


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8080"},  # DNS rebinding
        {"origin": "https://evil.example"},
        {"origin": "http://localhost:3000"},
        {"origin": "https://localhost"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_pages_of_others_can_neither_read_nor_edit(open_to_all: Client, headers: dict[str, str]) -> None:
    for path in ("/kb/add", "/kb/remove", "/kb/relabel", "/kb/undo", "/v1/predict", "/"):
        assert open_to_all.post(path, {"inputs": "noon"}, **headers).status == 403
    for path in ("/kb/rows", "/kb/log", "/kb/review", "/info"):
        assert open_to_all.get(path, **headers).status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost"},
        {"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080", "sec_fetch_site": "same-origin"},
        {"host": "[::1]:8080", "origin": "http://[::1]:8080"},
        {"sec_fetch_site": "none"},
    ],
)
def test_the_own_page_and_programs_pass(open_to_all: Client, headers: dict[str, str]) -> None:
    assert open_to_all.get("/kb/log", **headers).status == 503  # the bundle is not open yet

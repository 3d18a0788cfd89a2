"""Keys, edits, and pages of other origins."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.http_client import Client, serving

from reaugkd import UsageError
from reaugkd.serve.application import Application
from reaugkd.serve.page.files import FILES
from reaugkd.serve.routes import _ROUTES
from reaugkd.serve.service import Service
from reaugkd.serve.settings import ServerSettings, named_bundles, read_keys

KEY = "s3cret-key"


def test_with_a_key_only_health_metrics_and_the_description_are_open(edge_bundle: Path) -> None:
    with serving(edge_bundle, key=KEY, allow_edits=True) as client:
        stranger = Client(client.app)
        for method, path, access, _ in _ROUTES:
            status = stranger.send(method, path, b"{}", {"content-type": "application/json"}).status
            assert (status == 401) == (access != "public"), path
        assert {path for _, path, access, _ in _ROUTES if access == "public"} == {
            *("/", "/health", "/ping", "/livez", "/metrics", "/openapi.json", "/v2", "/v2/health/live"),
            "/v2/health/ready",
            *FILES,
        }
        for authorization in ("", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xe9"):
            reply = stranger.get("/info", authorization=authorization)
            assert reply.status == 401 and reply.headers["www-authenticate"] == "Bearer"
            assert reply.value["error_type"] == "Unauthorized" and KEY not in reply.value["error"]
        for authorization in (f"Bearer {KEY}", f"bearer {KEY}"):
            assert stranger.get("/info", authorization=authorization).status == 200


def test_edits_without_a_key_need_a_local_name(edge_bundle: Path) -> None:
    """A page of a stranger makes a browser use the stranger's name for this machine."""
    settings = ServerSettings({"edge": edge_bundle}, allow_edits=True, edits_without_key=True)
    client = Client(Application(Service(settings)))
    client.service.start()
    try:
        for host in ("localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "[::1]"):
            assert client.get("/kb/log", host=host).status == 200
        for host in ("evil.example", "evil.example:8080", "localhost.evil.example", "", "127.0.0.1.evil.example:1"):
            reply = client.get("/kb/log", host=host)
            assert reply.status == 403 and "Host" in reply.value["error"]
        # Nor can a form of a page send an edit: its types are not JSON, and JSON needs the permission of CORS.
        for media in ("text/plain", "application/x-www-form-urlencoded"):
            assert client.send("POST", "/kb/add", b"{}", {"content-type": media}).status == 415
        preflight = client.send("OPTIONS", "/kb/add", b"", {"origin": "https://evil.example"})
        assert preflight.status == 204 and not any(name.startswith("access-control") for name in preflight.headers)
    finally:
        client.service.close()


def test_pages_of_other_origins(edge_bundle: Path) -> None:
    ours = "https://ours.example"
    with serving(edge_bundle, cors_origins=[ours]) as client, serving(edge_bundle, cors_origins=["*"]) as everybody:
        allowed = client.send("OPTIONS", "/predict", b"", {"origin": ours})
        assert allowed.status == 204 and allowed.headers["access-control-allow-origin"] == ours
        assert "authorization" in allowed.headers["access-control-allow-headers"]
        answer = client.post("/predict", {"inputs": "noon"}, origin=ours)
        assert answer.headers["access-control-allow-origin"] == ours and answer.headers["vary"] == "origin"
        other = client.post("/predict", {"inputs": "noon"}, origin="https://other.example")
        assert other.status == 200 and "access-control-allow-origin" not in other.headers
        assert everybody.get("/health", origin="https://other.example").headers["access-control-allow-origin"]
    with serving(edge_bundle) as client:
        assert "access-control-allow-origin" not in client.get("/health", origin=ours).headers


def test_keys_of_a_file_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("one\n\n two \n")
    assert read_keys(file, {}) == (b"one", b"two")
    assert read_keys(file, {"REAUGKD_API_KEY": "three"}) == (b"one", b"two", b"three")
    assert read_keys(None, {}) == ()
    for wrong in ("", "two words", "clé", "tab\t"):
        with pytest.raises(UsageError, match="key cannot be used") as caught:
            read_keys(None, {"REAUGKD_API_KEY": wrong})
        assert not wrong or wrong not in str(caught.value)


def test_names_of_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named_bundles(("a", "x/b/", "c=y/d")) == {"a": Path("a"), "b": Path("x/b"), "c": Path("y/d")}
    (tmp_path / "e=f").mkdir()
    assert named_bundles((str(tmp_path / "e=f"),)) == {"e=f": tmp_path / "e=f"}  # which is then refused as a name
    with pytest.raises(UsageError, match="one name"):
        named_bundles(("x/a", "a"))
    with pytest.raises(UsageError, match="no bundle"):
        ServerSettings({})

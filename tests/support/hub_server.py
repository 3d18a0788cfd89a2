"""A small Hugging Face Hub on loopback: the routes that huggingface_hub uses for what this package does.

It keeps everything in memory. Like the real one it has commits, branches, pull requests, private repositories, files in
Git and in LFS, and refuses a commit whose parent is no longer the branch's last one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_writer"
_LFS = (".onnx", ".usearch", ".npy", ".npz")
Files = dict[str, bytes]


@dataclass
class Repository:
    """A repository: its commits in order, and the commit of each branch or pull request."""

    private: bool
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    ignored: str = ""  # a file name that its .gitignore excludes

    def commit(self, branch: str, files: Files) -> str:
        """Add a commit with these files."""
        oid = hashlib.sha1(f"{len(self.commits)} {branch}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        return oid

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class Hub(ThreadingHTTPServer):
    """The server.

    Attributes:
        repositories: by their names.
        requests: method and path of every request.
        altered: names of files of which it sends other bytes than were committed.
        broken: names of files that it cannot send.
        down: it answers 503 to everything.
        busy: someone else commits during every push.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.altered: set[str] = set()
        self.broken: set[str] = set()
        self.down = self.busy = False

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files(self, name: str, revision: str = "main") -> Files:
        """The files of a revision."""
        repository = self.repositories[name]
        return repository.commits[repository.branches[revision]]


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Run a server for a block."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _RefusalError(Exception):
    def __init__(self, status: int, code: str = "") -> None:
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.path_only, self.query = parts.path, parse_qs(parts.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(f"{self.command} {self.path_only}")
        try:
            if self.server.down:
                raise _RefusalError(503)
            for method, pattern, answer in _ROUTES:
                match = re.fullmatch(pattern, self.path_only)
                if match and self.command in method.split():
                    answer(self, *map(unquote, match.groups()))
                    return
            raise _RefusalError(404)
        except _RefusalError as refusal:
            self._send(b"{}", refusal.status, **({"X-Error-Code": refusal.code} if refusal.code else {}))

    def _send(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status, **{"Content-Type": "application/json"})

    @property
    def _may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, name: str, write: bool = False) -> Repository:
        found = self.server.repositories.get(name)
        if found is None or (found.private and not self._may_write):
            raise _RefusalError(404 if self._may_write else 401, "RepoNotFound")
        if write and not self._may_write:
            raise _RefusalError(403)
        return found

    def _at(self, name: str, revision: str) -> tuple[Repository, str]:
        repository = self._repository(name)
        oid = repository.resolve(revision)
        if oid is None:
            raise _RefusalError(404, "RevisionNotFound")
        return repository, oid

    def info(self, name: str, revision: str = "main") -> None:
        repository, oid = self._at(name, revision)
        siblings = [{"rfilename": file} for file in repository.commits[oid]]
        self._json({"id": name, "sha": oid, "private": repository.private, "siblings": siblings})

    def tree(self, name: str, revision: str) -> None:
        repository, oid = self._at(name, revision)
        self._json([_entry(file, content) for file, content in repository.commits[oid].items()])

    def resolve(self, name: str, revision: str, file: str) -> None:
        repository, oid = self._at(name, revision)
        content = repository.commits[oid].get(file)
        if content is None:
            raise _RefusalError(404, "EntryNotFound")
        headers = {"X-Repo-Commit": oid, "ETag": f'"{_oid(file, content)}"'}
        if file.endswith(_LFS):  # the content is on another host, behind a redirect
            linked = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": headers["ETag"]}
            place = f"http://localhost:{self.server.server_address[1]}/storage/{name}/{oid}/{file}"
            self._send(b"", 302, Location=place, **headers, **linked)
        else:
            self._content(file, content, **headers)

    def storage(self, name: str, oid: str, file: str) -> None:
        self._content(file, self.server.repositories[name].commits[oid][file])

    def _content(self, file: str, content: bytes, **headers: str) -> None:
        if self.command == "GET" and file in self.server.broken:
            raise _RefusalError(500)
        altered = content[:-1] + bytes([content[-1] ^ 1]) if file in self.server.altered else content
        self._send(altered, **headers)

    def create(self) -> None:
        if not self._may_write:
            raise _RefusalError(401)
        wanted = json.loads(self.body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.server.repositories:
            raise _RefusalError(409)
        repository = self.server.repositories[name] = Repository(wanted.get("visibility") == "private")
        repository.commit("main", {".gitattributes": b"*.onnx filter=lfs\n"})
        self._json({"url": f"{self.server.endpoint}/{name}"})

    def branch(self, name: str, branch: str) -> None:
        repository = self._repository(name, write=True)
        if branch in repository.branches:
            raise _RefusalError(409)
        repository.branches[branch] = repository.branches["main"]
        self._json({}, 201)

    def validate(self) -> None:
        content = json.loads(self.body)["content"]
        try:
            metadata = yaml.safe_load(content.split("---\n")[1])
            assert metadata["library_name"] == "reaugkd"
        except (IndexError, AssertionError, yaml.YAMLError) as error:
            self._json({"errors": [{"message": str(error)}]}, 400)
        else:
            self._json({})

    def preupload(self, name: str, revision: str) -> None:
        repository, oid = self._at(name, revision)
        self._repository(name, write=True)
        there = repository.commits[oid]
        if self.server.busy:
            repository.commit(revision, there)
        files = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(_LFS) else "regular",
                "shouldIgnore": one["path"] == repository.ignored,
                **({"oid": _oid(one["path"], there[one["path"]])} if one["path"] in there else {}),
            }
            for one in json.loads(self.body)["files"]
        ]
        self._json({"files": files})

    def batch(self, name: str) -> None:
        self._repository(name, write=True)
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.server.endpoint}/upload/{one['oid']}"}}}
            for one in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _RefusalError(400)
        self.server.uploads[oid] = self.body
        self._send(b"")

    def commit(self, name: str, revision: str) -> None:
        repository = self._repository(name, write=True)
        oid = repository.resolve(revision)
        assert oid is not None
        files = dict(repository.commits[oid])
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            match operation["key"]:
                case "header":
                    if value.get("parentCommit", oid) != oid:
                        raise _RefusalError(412)
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.server.uploads[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        branch = f"refs/pr/{len(repository.branches)}" if "create_pr" in self.query else revision
        made = repository.commit(branch, files)
        self._json(
            {
                "commitUrl": f"{self.server.endpoint}/{name}/commit/{made}",
                "commitOid": made,
                "pullRequestUrl": f"{self.server.endpoint}/{name}/discussions/1" if branch != revision else None,
            }
        )


def _oid(file: str, content: bytes) -> str:
    if file.endswith(_LFS):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(file: str, content: bytes) -> dict[str, Any]:
    oid, size = _oid(file, content), len(content)
    lfs = {"lfs": {"oid": oid, "size": size, "pointerSize": 130}} if file.endswith(_LFS) else {}
    return {"type": "file", "path": file, "size": size, "oid": oid, **lfs}


_NAME = "([^/]+/[^/]+)"
_ROUTES = (
    ("GET", f"/api/models/{_NAME}", _Handler.info),
    ("GET", f"/api/models/{_NAME}/revision/([^/]+)", _Handler.info),
    ("GET", f"/api/models/{_NAME}/tree/([^/]+)", _Handler.tree),
    ("GET HEAD", f"/{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
    ("GET HEAD", f"/storage/{_NAME}/([^/]+)/(.+)", _Handler.storage),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", f"/api/models/{_NAME}/branch/([^/]+)", _Handler.branch),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("POST", f"/api/models/{_NAME}/preupload/([^/]+)", _Handler.preupload),
    ("POST", f"/{_NAME}.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/upload/([0-9a-f]+)", _Handler.upload),
    ("POST", f"/api/models/{_NAME}/commit/([^/]+)", _Handler.commit),
)

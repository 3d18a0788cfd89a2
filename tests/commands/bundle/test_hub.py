"""`pull`, `push` and ``hf://`` on the command line, in new processes as a user starts them."""

from __future__ import annotations

import json
from pathlib import Path

from support.command_line import Called, call, finish, ok_json, refused, spawn
from support.hub_server import TOKEN, hub_server


def test_push_pull_edit_and_push(bundle: Path, tmp_path: Path) -> None:
    copy, name = tmp_path / "copy", "me/clf"
    with hub_server() as hub:

        def run(*arguments: object, **more: str) -> Called:
            settings = {
                "HF_ENDPOINT": hub.endpoint,
                "HF_TOKEN": TOKEN,
                "HF_HOME": str(tmp_path / "hf"),
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_OFFLINE": "0",
            }
            return finish(spawn(*arguments, env={**settings, **more}, cwd=tmp_path))

        pushed = run("push", bundle, name)
        assert pushed.code == 0 and "/commit/" in pushed.err and pushed.err.count("\n") == 1, pushed.err
        pulled = run("pull", name, "--out", copy)
        assert pulled.code == 0 and pulled.err.count("\n") == 1, pulled.err
        texts = ["noon", "loud jazz music"]
        of_copy = ok_json(copy, *texts, "--explain")
        of_hub = run("predict", f"hf://{name}", *texts, "--explain", "--format", "jsonl")
        assert of_hub.err == "" and of_hub.out == of_copy == ok_json(bundle, *texts, "--explain")
        offline = run("predict", f"hf://{name}@main", *texts, "--explain", "--format", "jsonl", HF_HUB_OFFLINE="1")
        assert (offline.code, offline.out) == (0, of_copy), offline.err
        assert call("kb", "add", copy, "noon", "--label", "c").code == 0
        checked = run("kb", "verify", copy, "--export", f"hf://{name}")
        assert checked.code == 0 and "1 edits" in checked.out, checked.err
        public = run("push", copy, "me/public", "--public")
        assert public.code == 2 and "me/public" not in hub.repositories and "--texts keep" in public.err
        assert run("push", copy, name, "--message", "noon is c").code == 0
        log = run("kb", "log", f"hf://{name}", "--json", "-")
        assert [entry["op"] for entry in json.loads(log.out)] == ["add"]


def test_the_cache_is_not_edited_and_bad_addresses_are_refused(tmp_path: Path) -> None:
    for command in (("add", "--label", "a"), ("remove",), ("undo",), ("compact",), ("review",)):
        line = refused("kb", command[0], "hf://me/clf@v1", *(["x"] if "add" in command else []), *command[1:])
        assert "reaugkd pull me/clf@v1 --out BUNDLE" in line and "reaugkd push BUNDLE me/clf" in line
    assert "a folder of yours" in refused("push", "hf://me/clf", "me/other")
    assert "owner/name" in refused("inspect", "hf://clf")
    assert "owner/name" in refused("pull", "clf", "--out", tmp_path / "new")
    assert "exists already" in refused("pull", "me/clf", "--out", tmp_path)

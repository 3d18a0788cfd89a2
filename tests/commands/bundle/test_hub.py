"""`pull`, `push` and ``hf://`` on the command line, in processes of their own."""

from __future__ import annotations

import json
from pathlib import Path

from support.command_line import Called, finish, ok, refused, spawn_python
from support.hub_server import TOKEN, hub_server

SCRIPT = """
import json, sys
from support.command_line import call
print(json.dumps([call(*arguments) for arguments in json.loads(sys.argv[1])]))
"""


def test_push_pull_edit_and_push(bundle: Path, tmp_path: Path) -> None:
    copy, name = tmp_path / "copy", "me/clf"
    with hub_server() as hub:

        def run(*calls: tuple[object, ...], **more: str) -> list[Called]:
            """Run commands one after another in a new process, which reads the settings of the Hub at its start."""
            settings = {
                "HF_ENDPOINT": hub.endpoint,
                "HF_TOKEN": TOKEN,
                "HF_HOME": str(tmp_path / "hf"),
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_OFFLINE": "0",
            }
            words = json.dumps([list(map(str, arguments)) for arguments in calls])
            done = finish(spawn_python(SCRIPT, words, env={**settings, **more}, cwd=tmp_path))
            assert (done.code, done.err) == (0, ""), done.err
            return [Called(*one) for one in json.loads(done.out)]

        asked = ("noon", "loud jazz music", "--explain", "--format", "jsonl")
        pushed, pulled, of_copy, of_hub = run(
            ("push", bundle, name),
            ("pull", name, "--out", copy),
            ("predict", copy, *asked),
            ("predict", f"hf://{name}", *asked),
        )
        assert pushed.code == 0 and "/commit/" in pushed.err and pushed.err.count("\n") == 1, pushed.err
        assert pulled.code == 0 and pulled.err.count("\n") == 1, pulled.err
        assert of_hub.err == "" and of_hub.out == of_copy.out == ok("predict", bundle, *asked).out
        (offline,) = run(("predict", f"hf://{name}@main", *asked), HF_HUB_OFFLINE="1")
        assert (offline.code, offline.out) == (0, of_copy.out), offline.err
        ok("kb", "add", copy, "noon", "--label", "c")
        checked, public, again, log = run(
            ("kb", "verify", copy, "--export", f"hf://{name}"),
            ("push", copy, "me/public", "--public"),
            ("push", copy, name, "--message", "noon is c"),
            ("kb", "log", f"hf://{name}", "--json", "-"),
        )
        assert checked.code == 0 and "1 edits" in checked.out, checked.err
        assert public.code == 2 and "me/public" not in hub.repositories and "--texts keep" in public.err
        assert again.code == 0
        assert [entry["op"] for entry in json.loads(log.out)] == ["add"]


def test_the_cache_is_not_edited_and_bad_addresses_are_refused(tmp_path: Path) -> None:
    for command in (("add", "--label", "a"), ("remove",), ("undo",), ("compact",), ("review",)):
        line = refused("kb", command[0], "hf://me/clf@v1", *(["x"] if "add" in command else []), *command[1:])
        assert "reaugkd pull me/clf@v1 --out BUNDLE" in line and "reaugkd push BUNDLE me/clf" in line
    assert "a folder of yours" in refused("push", "hf://me/clf", "me/other")
    assert "owner/name" in refused("inspect", "hf://clf")
    assert "owner/name" in refused("pull", "clf", "--out", tmp_path / "new")
    assert "exists already" in refused("pull", "me/clf", "--out", tmp_path)

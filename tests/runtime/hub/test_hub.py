"""Push to and pull from a Hub on loopback, through huggingface_hub itself."""

from __future__ import annotations

import json
import re
import shlex
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.command_line import names, ok
from support.heldout_bundle import seen
from support.hub_client import hub_of_test
from support.hub_server import Hub, Repository
from support.tiny_bundle import build_tiny_bundle, tiny_texts

from reaugkd import (
    BundleError,
    BundleIntegrityError,
    DependencyError,
    HubError,
    OutputExistsError,
    ReaugkdClassifier,
    Runtime,
    UsageError,
    pipeline,
)
from reaugkd.runtime.hub.address import HubAddress
from reaugkd.runtime.hub.download import HubCache
from reaugkd.runtime.hub.push import Push

TEXTS = tiny_texts(20, seed=5)
NAME = "me/clf"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_of_test(monkeypatch, tmp_path / "hf") as hub:
        yield hub


def cached(tmp_path: Path) -> list[str]:
    folder = tmp_path / "hf" / "reaugkd" / NAME.replace("/", "--")
    return names(folder) if folder.exists() else []


def answers(runtime: Runtime) -> list[tuple[object, ...]]:
    return [seen(runtime.predict(text)) for text in TEXTS]


def test_edits_their_log_and_undo_survive_the_hub(hub: Hub, bundle: Path) -> None:
    mine = Runtime.open(bundle)
    before = answers(mine)
    mine.kb.add([str(TEXTS[0])], label="c", why="a test")
    mine.kb.remove([mine.knowledge_base.id(row) for row in (3, 4)])
    address = mine.push_to_hub(NAME)
    assert address.startswith(hub.endpoint) and hub.repositories[NAME].private
    theirs = Runtime.from_pretrained(NAME, threads=1)
    folder = theirs._settings.path
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert not (folder / ".cache").exists()
    assert answers(theirs) == answers(mine) != before
    assert [entry.after for entry in theirs.kb.log()] == [entry.after for entry in mine.kb.log()]
    edited = answers(mine)
    theirs.kb.undo()
    assert answers(mine) == edited != answers(theirs)  # the edits of one copy are not those of another
    mine.kb.undo()
    assert answers(theirs) == answers(mine)


def test_a_push_replaces_the_former_bundle_and_leaves_other_files(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    mine = Runtime.open(bundle)
    mine.kb.remove([mine.knowledge_base.id(3)])
    first = mine.push_to_hub(NAME).rpartition("/")[2]
    old = answers(mine)
    files = hub.files(NAME)
    assert {"kb/texts.jsonl", "generations/HEAD", "generations/0/journal.jsonl"} <= set(files)
    files["notes.txt"] = files["LICENSE"] = b"mine"
    mine.kb.add([str(TEXTS[1])], label="a")
    mine.kb.compact()
    mine.push_to_hub(NAME, commit_message="smaller")
    now = set(hub.files(NAME))
    assert {"notes.txt", "LICENSE", ".gitattributes", "README.md", "generations/1/index.usearch"} <= now
    assert not [name for name in now if name.startswith(("kb/", "generations/0"))]
    assert answers(Runtime.from_pretrained(NAME)) == answers(mine)
    assert answers(Runtime.from_pretrained(NAME, revision=first)) == old
    assert len([name for name in cached(tmp_path) if "." not in name]) == 2
    assert not set(cached(tmp_path)) & {"LICENSE", "notes.txt"}


def test_a_branch_and_a_pull_request(hub: Hub, edge_bundle: Path) -> None:
    mine = Runtime.open(edge_bundle)
    mine.push_to_hub(NAME, revision="try/1")
    assert "manifest.json" not in hub.files(NAME)
    assert "manifest.json" in hub.files(NAME, "try/1")
    assert "/discussions/" in mine.push_to_hub(NAME, create_pr=True)
    assert "manifest.json" not in hub.files(NAME)
    for revision in ("try/1", "refs/pr/2"):
        assert answers(Runtime.from_pretrained(f"hf://{NAME}@{revision}")) == answers(mine)
        assert answers(pipeline(f"hf://{NAME}", revision=revision, threads=1).runtime) == answers(mine)
    with pytest.raises(UsageError, match=r"not a folder.*Runtime\.from_pretrained"):
        Runtime.open(f"hf://{NAME}@try/1")
    with pytest.raises(BundleError, match=r"hf://me/clf: the repository has no bundle"):
        Runtime.from_pretrained(NAME)
    with pytest.raises(UsageError, match="twice"):
        Runtime.from_pretrained(f"{NAME}@main", revision="main")
    with pytest.raises(UsageError, match="pull request"):
        mine.push_to_hub(NAME, create_pr=True, revision="try/1")


class TestTexts:
    def test_a_public_repository_does_not_get_them_unasked(self, hub: Hub, edge_bundle: Path) -> None:
        mine = Runtime.open(edge_bundle)
        with pytest.raises(UsageError, match=r"public.*--kb-texts hash or none.*texts=\"keep\""):
            mine.push_to_hub(NAME, private=False)
        hub.repositories["me/there"] = Repository(private=False)
        hub.repositories["me/there"].commit("main", {})
        with pytest.raises(UsageError, match="public"):
            mine.push_to_hub("me/there", private=True)  # it exists: its own visibility counts
        assert NAME not in hub.repositories and hub.files("me/there") == {}
        assert not [request for request in hub.requests if request.startswith(("POST", "PUT"))]
        mine.push_to_hub(NAME, private=False, texts="keep")
        assert not hub.repositories[NAME].private and "kb/texts.jsonl" in hub.files(NAME)
        with pytest.raises(UsageError, match="refuse or keep"):
            mine.push_to_hub(NAME, texts="yes")  # type: ignore[arg-type]

    @pytest.mark.parametrize("texts", [False, "hash"])
    def test_where_there_are_none_it_gets_the_bundle(self, hub: Hub, tmp_path: Path, texts: bool) -> None:
        Runtime.open(build_tiny_bundle(tmp_path / "bundle", texts=texts)).push_to_hub(NAME, private=False)
        assert not hub.repositories[NAME].private and "manifest.json" in hub.files(NAME)


class TestOffline:
    def test_a_commit_is_downloaded_once_and_the_branch_is_asked_for(self, hub: Hub, edge_bundle: Path) -> None:
        commit = Runtime.open(edge_bundle).push_to_hub(NAME).rpartition("/")[2]
        Runtime.from_pretrained(NAME)
        hub.requests.clear()
        Runtime.from_pretrained(NAME)
        assert hub.requests == [f"GET /api/models/{NAME}"]
        Runtime.from_pretrained(NAME, revision=commit)
        assert len(hub.requests) == 1  # a commit never changes

    def test_without_a_network_the_last_commit_is_used_and_it_is_said(
        self, hub: Hub, edge_bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from huggingface_hub import constants

        Runtime.open(edge_bundle).push_to_hub(NAME)
        with pytest.raises(HubError, match="not in the cache"):
            Runtime.from_pretrained(NAME, local_files_only=True)
        expected = answers(Runtime.from_pretrained(NAME))
        hub.down = True
        with pytest.warns(UserWarning, match="status 503; commit [0-9a-f]{40} of the cache"):
            assert answers(Runtime.from_pretrained(NAME)) == expected
        with pytest.raises(HubError, match="503"):
            Runtime.from_pretrained(NAME, force_download=True)
        with pytest.raises(HubError, match="503"):
            Runtime.from_pretrained(NAME, revision="other")
        hub.requests.clear()
        with warnings.catch_warnings(action="error"):
            assert answers(Runtime.from_pretrained(NAME, local_files_only=True)) == expected
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
            assert answers(Runtime.from_pretrained(NAME)) == expected
            with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
                Runtime.open(edge_bundle).push_to_hub(NAME)
        assert hub.requests == []

    def test_where_nobody_listens(self, hub: Hub, edge_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import constants

        Runtime.open(edge_bundle).push_to_hub(NAME)
        Runtime.from_pretrained(NAME)
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # discard, where no server is
        with pytest.warns(UserWarning, match="cannot be reached"):
            Runtime.from_pretrained(NAME)
        with pytest.raises(HubError, match="cannot be reached"):
            Runtime.from_pretrained("me/other")


class TestBroken:
    def test_nothing_of_a_broken_download_is_kept(self, hub: Hub, edge_bundle: Path, tmp_path: Path) -> None:
        Runtime.open(edge_bundle).push_to_hub(NAME)
        hub.broken = {"kb/rows.npy"}
        with pytest.raises(HubError, match="500"):
            Runtime.from_pretrained(NAME)
        assert cached(tmp_path) == []
        hub.broken, hub.altered = set(), {"kb/soft_labels.npy"}
        with pytest.raises(BundleIntegrityError, match=r"^hf://me/clf/kb/soft_labels\.npy: the file was altered"):
            Runtime.from_pretrained(NAME)
        assert cached(tmp_path) == []
        hub.altered = set()
        Runtime.from_pretrained(NAME)
        assert len(cached(tmp_path)) == 2

    def test_a_damaged_cache_is_downloaded_again_on_request(self, hub: Hub, bundle: Path, tmp_path: Path) -> None:
        Runtime.open(bundle).push_to_hub(NAME)
        first = Runtime.from_pretrained(NAME)
        expected, folder = answers(first), first._settings.path
        first.kb.remove([first.knowledge_base.id(3)])
        assert Runtime.from_pretrained(NAME).kb.log()  # edits of the cached copy stay with it
        (folder / "student/tokenizer.json").unlink()
        with pytest.raises(BundleIntegrityError, match="missing"):
            Runtime.from_pretrained(NAME)
        fresh = Runtime.from_pretrained(NAME, force_download=True)
        assert answers(fresh) == expected and not fresh.kb.log() and len(cached(tmp_path)) == 2

    def test_a_file_that_gitignore_excludes_is_an_error(self, hub: Hub, edge_bundle: Path) -> None:
        repository = hub.repositories[NAME] = Repository(private=True, ignored="kb/rows.npy")
        repository.commit("main", {})
        with pytest.raises(HubError, match=r"lacks files of the bundle; found kb/rows\.npy.*\.gitignore"):
            Runtime.open(edge_bundle).push_to_hub(NAME)

    def test_a_push_over_the_push_of_someone_else_is_refused(self, hub: Hub, edge_bundle: Path) -> None:
        hub.busy = True
        with pytest.raises(HubError, match="status 412"):
            Runtime.open(edge_bundle).push_to_hub(NAME)
        assert set(hub.files(NAME)) == {".gitattributes"}

    def test_a_card_with_broken_metadata_is_refused_before_the_commit(self, hub: Hub, bundle: Path) -> None:
        (bundle / "README.md").write_text("---\nlibrary_name: [reaugkd\n---\n")
        with pytest.raises(HubError, match=r"Invalid metadata in README\.md"):
            Runtime.open(bundle).push_to_hub(NAME)
        assert set(hub.files(NAME)) == {".gitattributes"}


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("me/nobody", HubError, "no such repository"),
        (f"{NAME}@v9", HubError, "no such revision"),
        ("hf://me", UsageError, "owner/name"),
        (f"{NAME}@../x y", UsageError, "not a revision"),
        ("no/folder/here", BundleError, "no bundle here"),
        ("me/../x", BundleError, "no bundle here"),
    ],
)
def test_what_is_not_there(
    hub: Hub, edge_bundle: Path, address: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    Runtime.open(edge_bundle).push_to_hub(NAME)
    with pytest.raises(error, match=message):
        Runtime.from_pretrained(address)
    assert cached(tmp_path) == []


def test_without_a_token(hub: Hub, edge_bundle: Path) -> None:
    mine = Runtime.open(edge_bundle)
    mine.push_to_hub(NAME)
    with pytest.raises(HubError, match=r"or you may not read it.*HF_TOKEN"):
        Runtime.from_pretrained(NAME, token=False)
    with pytest.raises(HubError, match=r"status 401.*HF_TOKEN"):
        mine.push_to_hub("me/new", token=False)
    hub.repositories[NAME].private = False
    with pytest.raises(HubError, match="status 403"):
        mine.push_to_hub(NAME, token=False, texts="keep")
    Runtime.from_pretrained(NAME, token=False)


@pytest.mark.parametrize("token", ["hf_secret\n", "hf_secr\xe9t", "", 5, b"hf_secret"])
def test_a_token_is_never_shown_nor_replaced_by_another(hub: Hub, edge_bundle: Path, token: Any) -> None:
    for call in (
        lambda: Runtime.from_pretrained(NAME, token=token),
        lambda: Runtime.open(edge_bundle).push_to_hub(NAME, token=token),
    ):
        with pytest.raises(UsageError, match="token is not valid") as caught:
            call()
        assert "secr" not in "".join(traceback.format_exception(caught.value))
    assert not hub.requests
    assert "hf_secret" not in repr((HubCache(token="hf_secret"), Push(HubAddress(NAME), token="hf_secret")))


def test_a_revision_is_never_ignored(hub: Hub, edge_bundle: Path) -> None:
    with pytest.raises(UsageError, match="a folder has no revisions"):
        Runtime.from_pretrained(edge_bundle, revision="v1")
    with pytest.raises(UsageError, match="a commit cannot be changed"):
        Runtime.open(edge_bundle).push_to_hub(NAME, revision="a" * 40)
    assert not hub.requests


def test_what_opens_the_hub_and_what_does_not(hub: Hub, edge_bundle: Path) -> None:
    Runtime.open(edge_bundle).push_to_hub(NAME, revision="v1")
    classify = pipeline(f"hf://{NAME}", revision="v1", threads=1)
    assert classify("noon")[0]["label"] == Runtime.open(edge_bundle).predict("noon").label
    for open_folder in (Runtime.open, ReaugkdClassifier.from_bundle):
        with pytest.raises(UsageError, match=r"hf://me/clf.*reaugkd pull"):
            open_folder(f"hf://{NAME}")
    with pytest.raises(BundleError, match="there is no bundle here"):
        Runtime.from_pretrained("x" * 5_000)  # no file system takes such a name


@pytest.mark.parametrize("pairs", [False, True])
def test_what_the_card_says_runs(hub: Hub, tmp_path: Path, pairs: bool, capsys: pytest.CaptureFixture[str]) -> None:
    Runtime.open(build_tiny_bundle(tmp_path / "bundle", pairs=pairs)).push_to_hub(NAME)
    text = hub.files(NAME)["README.md"].decode()
    exec(text.split("```python\n")[1].split("```")[0], {})
    label, probability = capsys.readouterr().out.split()
    [line] = re.findall(r"^    reaugkd (.+)$", text, re.MULTILINE)
    shown = ok(*shlex.split(line), "--format", "jsonl").out
    assert NAME in line and json.loads(shown)["label"] == label and 0 < float(probability) < 1


def test_a_signature_goes_along(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    ok("sign", "--new-key", tmp_path / "key.pem")
    ok("sign", bundle, "--key", tmp_path / "key.pem")
    Runtime.open(bundle).push_to_hub(NAME)
    ok("sign", "--new-key", tmp_path / "other.pem")
    assert Runtime.from_pretrained(NAME, require_signature=tmp_path / "key.pub.pem").predict("noon").label
    with pytest.raises(BundleIntegrityError, match="another key"):
        Runtime.from_pretrained(NAME, require_signature=tmp_path / "other.pub.pem")


def test_several_at_once_download_one_copy(hub: Hub, edge_bundle: Path, tmp_path: Path) -> None:
    mine = Runtime.open(edge_bundle)
    commit = mine.push_to_hub(NAME).rpartition("/")[2]
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(Runtime.from_pretrained, NAME) for _ in range(3)]
        assert all(answers(one.result()) == answers(mine) for one in found)
    assert cached(tmp_path) == sorted([commit, "main.commit"])


def test_a_copy_has_the_current_state_and_no_foreign_file(bundle: Path, tmp_path: Path) -> None:
    mine = Runtime.open(bundle)
    mine.kb.remove([mine.knowledge_base.id(3)])
    (bundle / "secret.txt").write_text("mine")
    (bundle / "README.md").write_text("edited by hand")
    mine.save_pretrained(tmp_path / "copy")
    assert "secret.txt" not in names(tmp_path / "copy")
    assert (tmp_path / "copy" / "README.md").read_text() == "edited by hand"
    assert answers(Runtime.from_pretrained(tmp_path / "copy")) == answers(mine)
    with pytest.raises(OutputExistsError):
        mine.save_pretrained(tmp_path / "copy")
    (bundle / "README.md").unlink()
    (bundle / "README.md").symlink_to("/etc/passwd")  # a push must not send it
    with pytest.raises(BundleError, match="leads out of the bundle"):
        mine.save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_without_the_library(edge_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with Runtime.from_pretrained(edge_bundle) as runtime, pytest.raises(DependencyError, match=r"reaugkd\[hub\]"):
        runtime.push_to_hub(NAME)
    with pytest.raises(DependencyError, match=r"reaugkd\[hub\]"):
        Runtime.from_pretrained(NAME)

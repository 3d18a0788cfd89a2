"""Hostile bundles with edits."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reaugkd import BundleError, Runtime
from reaugkd.kb.edits.head import HEAD_BYTES, HeadFile, JournalHead
from reaugkd.kb.storage.ed25519 import new_key_pair, read_private_key
from reaugkd.runtime.bundle.manifest import seal_entry
from reaugkd.runtime.editing.sign import sign_bundle


def journal(bundle: Path) -> Path:
    return next((bundle / "generations").glob("*/journal.jsonl"))


def set_head(bundle: Path, **changes: Any) -> None:
    """Write HEAD with other values and a valid checksum."""
    _, head = HeadFile(bundle).read()
    assert head is not None
    (bundle / "generations" / "HEAD").write_bytes(JournalHead(**{**vars(head), **changes}).line())


def canonical(obj: object) -> bytes:
    return json.dumps(obj, sort_keys=True, separators=(",", ":")).encode()


def reseal_line(obj: dict[str, Any]) -> bytes:
    """Return a journal line with a valid hash."""
    bare = json.loads(json.dumps(obj))
    bare.pop("after")
    bare.pop("signature", None)
    for row in bare["add"]:
        del row["payload"]
    obj["after"] = hashlib.sha256(canonical(bare)).hexdigest()
    return canonical(obj) + b"\n"


def refused(bundle: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Runtime.open(bundle)
    return str(caught.value)


@pytest.fixture
def edited(bundle: Path) -> Path:
    with Runtime.open(bundle) as runtime:
        runtime.kb.add("jazz at noon", "c")
    return bundle


@pytest.fixture
def folded(edited: Path) -> Path:
    with Runtime.open(edited) as runtime:
        runtime.kb.compact()
    return edited


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.update(payload=None),
        lambda row: row["payload"].update(text=None),
        lambda row: row["payload"].update(text_digest="0" * 64),
    ],
)
def test_a_row_without_its_payload(edited: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """An erased payload leaves the chain valid, but only a history may lack one."""
    path = journal(edited)
    obj = json.loads(path.read_bytes())
    change(obj["add"][0])
    payload = obj["add"][0]["payload"]
    if payload is not None:
        obj["add"][0]["digest"] = hashlib.sha256(canonical(payload)).hexdigest()
    line = reseal_line(obj)
    path.write_bytes(line)
    set_head(edited, length=len(line), after=obj["after"])
    assert "journal.jsonl" in refused(edited)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("odds", 0.0),
        ("odds", 1e999),
        ("related", [0, 1_000_000]),
        ("related", [5, 2]),
        ("labels", ["a"]),
        ("labels", ["x", "x"]),
        ("kb_rows", 7),
        ("texts", "all"),
        ("recall", "much"),
        ("generation", 2),
        ("bundle", "0" * 64),
        ("format", 2),
        ("kb", {"ndim": 8}),
        ("files", {"../../etc/passwd": {"bytes": 1, "sha256": "0" * 64}}),
    ],
)
def test_a_table_with_values_that_may_not_be(folded: Path, name: str, value: object) -> None:
    path = folded / "generations" / "1" / "generation.json"
    obj = json.loads(path.read_bytes())
    obj.pop("seal")
    obj[name] = value
    text = json.dumps(obj, indent=2)
    head = (text.removesuffix("\n}") + ",\n  ").encode()
    path.write_bytes(head + seal_entry(head))
    with pytest.raises(BundleError):
        Runtime.open(folded).kb.add("noon", "a", preview=True)


@pytest.mark.parametrize("name", ["HEAD", "1/journal.jsonl", "1/generation.json", "1/history.jsonl", "1/index.usearch"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "missing"])
def test_links_and_pipes(folded: Path, name: str, kind: str, tmp_path: Path) -> None:
    with Runtime.open(folded) as runtime:
        runtime.kb.add("noon", "a")
    path = folded / "generations" / name
    path.rename(tmp_path / "away")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "away")
    refused(folded)


def test_folders_that_are_links(folded: Path, tmp_path: Path) -> None:
    for folder in (folded / "generations" / "1", folded / "generations"):
        folder.rename(tmp_path / "away")
        folder.symlink_to(tmp_path / "away")
        refused(folded)
        folder.unlink()
        (tmp_path / "away").rename(folder)
    (folded / "generations").rename(tmp_path / "away")
    (folded / "generations").write_text("a file")
    refused(folded)


def test_head_of_other_sizes_and_numbers(edited: Path) -> None:
    path = edited / "generations" / "HEAD"
    good = path.read_bytes()
    for line in (b"", good[:-1], good + b"x", b"\0" * HEAD_BYTES, b"[" * HEAD_BYTES, b"{}".ljust(HEAD_BYTES)):
        path.write_bytes(line)
        assert "HEAD" in refused(edited)
    for changes in ({"snapshot": 9}, {"length": 10**12}, {"seq": 3}, {"after": "1" * 64}, {"length": 5}):
        path.write_bytes(good)
        set_head(edited, **changes)
        refused(edited)


def test_with_a_signature_nothing_is_free(folded: Path, export: Path, tmp_path: Path) -> None:
    """The signed entry of the compaction has the hash of the table of contents, with its labels and odds."""
    new_key_pair(tmp_path / "key.pem")
    key, public = read_private_key(tmp_path / "key.pem"), tmp_path / "key.pub.pem"
    bundle = tmp_path / "signed"
    shutil.copytree(export, bundle)
    sign_bundle(bundle, key)
    with Runtime.open(bundle, require_signature=public) as runtime:
        runtime.kb.add("jazz at noon", "good", new_labels=True, key=key)
        runtime.kb.compact(key=key)
    path = bundle / "generations" / "1" / "generation.json"
    obj = json.loads(path.read_bytes())
    obj.pop("seal")
    for name, value in (("labels", ["evil"]), ("odds", 9.0), ("next_id", 5)):
        head = (json.dumps({**obj, name: value}, indent=2).removesuffix("\n}") + ",\n  ").encode()
        path.write_bytes(head + seal_entry(head))
        with pytest.raises(BundleError, match="compaction"):
            Runtime.open(bundle, require_signature=public)
        with pytest.raises(BundleError, match="compaction"):
            Runtime.open(bundle).kb.verify()


def test_other_files_in_the_folder_are_ignored(folded: Path) -> None:
    (folded / "generations" / "1" / ".DS_Store").write_bytes(b"x")
    (folded / "generations" / ".nfs0001").write_bytes(b"x")
    with Runtime.open(folded) as runtime:
        runtime.kb.add("noon", "a")


def test_files_altered_after_opening_are_not_sealed_again(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        runtime.kb.add("noon", "a")
        path = bundle / "kb" / "texts.jsonl"
        path.write_bytes(path.read_bytes().replace(b"jazz", b"razz"))
        with pytest.raises(BundleError, match=r"texts\.jsonl"):
            runtime.kb.compact()

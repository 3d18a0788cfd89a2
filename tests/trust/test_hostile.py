"""Hostile bundles with valid hashes: refused with the file's name, in little time and memory.

Each is opened in a process of its own that may not take more than a gigabyte of address space beyond what an honest
bundle takes, and is ended when it takes too long.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.heldout_bundle import TEXTS, add_heldout
from support.hostile_bundles import FILES, HELDOUT, INDEX, MANIFESTS, MODEL, SOFT, TOKENIZER, plain, with_field
from support.paths import SUPPORT
from support.tiny_bundle import build_tiny_bundle

from reaugkd import BundleError, BundleIntegrityError, Runtime
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.bundle.manifest import MANIFEST_FILE

OPENER = SUPPORT / "opener.py"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = build_tiny_bundle(tmp_path_factory.mktemp("honest") / "bundle", rows=40)
    add_heldout(path, TEXTS[:20], 40)
    return path


@pytest.fixture
def bundle(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def opened(honest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The outcomes of all hostile bundles, opened one after another in few processes, by case."""
    folder = tmp_path_factory.mktemp("hostile")
    cases = {f"manifest: {name}": make for name, (make, _) in MANIFESTS.items()}
    cases |= {f"file: {name}": make for name, (_, make) in FILES.items()}
    for number, make in enumerate(cases.values()):
        make(Path(shutil.copytree(honest, folder / str(number))))
    # The honest one first: it loads the libraries.
    command = [sys.executable, "-P", OPENER, honest, *(folder / str(number) for number in range(len(cases)))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    names = ["honest", *cases]
    assert len(results) == len(names), f"ended with {done.returncode} at {names[len(results)]}: {done.stderr[-2000:]}"
    return dict(zip(names, results, strict=True))


def test_the_honest_bundle_is_opened(opened: dict[str, dict[str, Any]]) -> None:
    assert opened["honest"]["error"] is None


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_hostile_manifest_is_refused(opened: dict[str, dict[str, Any]], name: str) -> None:
    result = opened[f"manifest: {name}"]
    assert result["bundle_error"], result
    assert re.search(MANIFESTS[name][1], result["error"]), result["error"][:500]
    assert len(result["error"]) < 2000
    check_cost(result)


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused_and_named(opened: dict[str, dict[str, Any]], name: str) -> None:
    result = opened[f"file: {name}"]
    assert result["bundle_error"], result
    assert result["path"] == str(Path(result["folder"]) / FILES[name][0]), result
    check_cost(result)


def test_a_pattern_is_given_up(opened: dict[str, dict[str, Any]]) -> None:
    assert "retry-limit" in opened["file: a pattern that tries for ever"]["error"]


def check_cost(result: dict[str, Any]) -> None:
    """Check CPU time, which does not depend on other processes."""
    assert result["cpu_s"] < 5, result
    assert result["grown_mb"] < 500, result


# What is no plain file.


def linked(bundle: Path, name: str) -> Path:
    """Move the file or folder ``name`` out of the bundle, and put a link in its place."""
    there = bundle.parent / "elsewhere"
    (bundle / name).rename(there)
    (bundle / name).symlink_to(there)
    return bundle / name


@pytest.mark.parametrize(
    "name", [MANIFEST_FILE, MODEL, TOKENIZER, SOFT, "student/config.json", HELDOUT, "kb", "student"]
)
@pytest.mark.parametrize("verify", [True, False])
def test_a_link_is_refused_and_named(bundle: Path, name: str, verify: bool) -> None:
    link = linked(bundle, name)
    with pytest.raises(BundleError, match=r"link.*cp -rL") as caught:
        Runtime.open(bundle, verify=verify)
    assert caught.value.path == str(link)


def test_a_link_that_leads_nowhere_is_one_too(bundle: Path) -> None:
    (bundle / MODEL).unlink()
    (bundle / MODEL).symlink_to(MODEL)
    with pytest.raises(BundleError, match="link"):
        Runtime.open(bundle)


def test_the_folder_itself_may_be_a_link(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle)
    with Runtime.open(tmp_path / "link") as runtime:
        assert runtime.predict("call").label


@pytest.mark.parametrize("name", [MANIFEST_FILE, MODEL, INDEX, "student/config.json"])
@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("verify", [True, False])
def test_pipes_are_refused_without_waiting(
    bundle: Path, name: str, kind: str, verify: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle / name).unlink()
    if kind == "pipe":
        os.mkfifo(bundle / name)
    else:
        monkeypatch.chdir((bundle / name).parent)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(Path(name).name)
    with pytest.raises(BundleError, match=r"not a file.*pipe, socket or device") as caught:
        Bundle.open(bundle, verify=verify)
    assert caught.value.path == str(bundle / name)


@pytest.mark.parametrize("name", ["kb/texts.jsonl", HELDOUT])
@pytest.mark.parametrize("verify", [True, False])
def test_optional_files_must_be_listed(bundle: Path, name: str, verify: bool) -> None:
    """Otherwise a link to any file would show its lines as a neighbour's text."""
    files = plain(bundle)["files"]
    files.pop(name)
    with_field(bundle, "files", files)
    linked(bundle, name)
    with pytest.raises(BundleIntegrityError, match="does not list") as caught:
        Runtime.open(bundle, verify=verify)
    assert caught.value.path == str(bundle / name)

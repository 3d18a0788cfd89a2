"""Bundles of links: the layouts that tools make open, and no link leads anywhere that the caller did not allow."""

from __future__ import annotations

import hashlib
import os
import pickle
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.command_line import labelled_rows, ok, refused
from support.heldout_bundle import add_abstention, build_heldout_bundle
from support.hostile_bundles import MODEL, TOKENIZER
from support.short_bench import short_bench

from reaugkd import BundleError, Runtime, UsageError
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.bundle.manifest import MANIFEST_FILE
from reaugkd.runtime.inference.golden_check import check_golden

VERSION = "..2026_11_29_20_00_00.123"


def volume(bundle: Path, folder: Path) -> Path:
    """Mount a bundle as Kubernetes mounts a volume: links to ..data, which is a link to the folder of this version."""
    shutil.copytree(bundle, folder / VERSION)
    (folder / "..data").symlink_to(VERSION)
    for entry in bundle.iterdir():
        (folder / entry.name).symlink_to(f"..data/{entry.name}")
    return folder


def flat_volume(bundle: Path, folder: Path) -> Path:
    """The same with a link for every file, in plain folders."""
    shutil.copytree(bundle, folder / VERSION)
    (folder / "..data").symlink_to(VERSION)
    return linked(bundle, folder, lambda name: f"{'../' * name.count('/')}..data/{name}")


def hub_cache(bundle: Path, folder: Path) -> Path:
    """Download a bundle as the client of Hugging Face's hub does: a snapshot of links to blobs."""
    blobs = folder / "models--someone--bundle" / "blobs"
    blobs.mkdir(parents=True)

    def blob(name: str) -> str:
        digest = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
        shutil.copyfile(bundle / name, blobs / digest)
        return f"{'../' * name.count('/')}../../blobs/{digest}"

    return linked(bundle, blobs.parent / "snapshots" / "0123abc", blob)


def linked(bundle: Path, folder: Path, target: object) -> Path:
    for file in sorted(bundle.rglob("*")):
        if file.is_file():
            name = file.relative_to(bundle).as_posix()
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(target(name))  # type: ignore[operator]
    return folder


def same_answers(bundle: Path, runtime: Runtime) -> None:
    with Runtime.open(bundle) as plain:
        assert np.array_equal(plain.predict("noon music").probabilities, runtime.predict("noon music").probabilities)


@pytest.mark.parametrize("layout", [volume, flat_volume])
@pytest.mark.parametrize("verify", [True, False])
def test_a_volume_opens(edge_bundle: Path, tmp_path: Path, layout: object, verify: bool) -> None:
    path = layout(edge_bundle, tmp_path / "volume")  # type: ignore[operator]
    with Runtime.open(path, verify=verify, threads=2) as runtime:
        same_answers(edge_bundle, runtime)
        assert len(list(runtime.predict_many(["noon"] * 4))) == 4
    assert ok("predict", path, "noon").out == ok("predict", edge_bundle, "noon").out
    (path / VERSION / MODEL).write_bytes(b"other")
    with pytest.raises(BundleError, match=r"model\.onnx: the (file|model)"):
        Runtime.open(path, verify=verify)


def test_a_snapshot_of_the_hub_opens_if_the_caller_follows_its_links(edge_bundle: Path, tmp_path: Path) -> None:
    path = hub_cache(edge_bundle, tmp_path)
    message = refused("predict", path, "noon")
    assert "a link leads out of the bundle" in message and "--follow-links" in message
    for command in (("predict", path, "noon"), ("inspect", path)):
        assert ok(*command, "--follow-links").out.replace(str(path), "") == ok(
            command[0], edge_bundle, *command[2:]
        ).out.replace(str(edge_bundle), "")
    with Runtime.open(path, follow_links=True) as runtime:
        same_answers(edge_bundle, runtime)
        same_answers(edge_bundle, pickle.loads(pickle.dumps(runtime)))
    with pytest.raises(UsageError, match="follow_links has the wrong type"):
        Runtime.open(path, follow_links=1)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle with held-out rows and thresholds in the cache of the hub, and a file of labelled rows."""
    folder = tmp_path_factory.mktemp("cached")
    bundle = add_abstention(build_heldout_bundle(folder / "bundle"))
    (bundle / "README.md").write_text("my words")
    return hub_cache(bundle, folder), labelled_rows(folder / "rows.jsonl", 60)


@pytest.mark.parametrize(
    "command",
    [
        "suggest {bundle} --input {rows}",
        "kb review {bundle}",
        "report {bundle} --data {rows} --split all --seconds 0 --out {out}",
        "bench {bundle} --seconds 0.01 --processes 1",
        "fuse {bundle} --out {out}",
        "condense {bundle} --out {out} --max-rows 100",
        "calibrate {bundle} --data {rows} --split all --out {out}",
    ],
)
def test_every_command_that_only_reads_follows_links(cached: tuple[Path, Path], tmp_path: Path, command: str) -> None:
    bundle, rows = cached
    call = command.format(bundle=bundle, rows=rows, out=tmp_path / "new").split()
    assert "--follow-links" in refused(*call) and not (tmp_path / "new").exists()
    with short_bench():
        done = ok(*call, "--follow-links")
    if command.startswith(("condense", "calibrate")):
        assert not any(file.is_symlink() for file in (tmp_path / "new").rglob("*"))
        assert (tmp_path / "new" / "README.md").read_text() == "my words" and "README.md: copied" in done.err
        Bundle.open(tmp_path / "new")


def test_the_case_of_absolute_links(edge_bundle: Path, tmp_path: Path) -> None:
    path = linked(edge_bundle, tmp_path / "snap", lambda name: edge_bundle.resolve() / name)
    refused("predict", path, "noon")
    assert ok("predict", path, "noon", "--follow-links").out == ok("predict", edge_bundle, "noon").out


@pytest.mark.parametrize("layout", [volume, hub_cache])
def test_edits_ask_for_a_copy_with_the_command(edge_bundle: Path, tmp_path: Path, layout: object) -> None:
    path = layout(edge_bundle, tmp_path / "with links")  # type: ignore[operator]
    with Runtime.open(path, follow_links=True) as runtime, pytest.raises(UsageError, match="without links") as caught:
        runtime.kb.add("jazz", "b")
    before = sorted(path.rglob("*"))
    ok("sign", "--new-key", tmp_path / "key.pem")
    copied = shlex.join(["cp", "-rL", str(path / "..data" if layout is volume else path)])[:-1]
    for call in (("kb", "add", path, "jazz", "--label", "b"), ("sign", path, "--key", tmp_path / "key.pem")):
        assert f"`{copied}" in refused(*call)
    assert sorted(path.rglob("*")) == before
    command = str(caught.value).split("`")[1]
    subprocess.run(shlex.split(command), cwd=tmp_path, check=True)
    copy = tmp_path / f"{path.name}-copy"
    assert not any(file.is_symlink() or file.name.startswith("..") for file in copy.rglob("*"))
    assert ok("kb", "add", copy, "jazz", "--label", "b").err.startswith("edit 1: ")


@pytest.mark.parametrize("make", [volume, hub_cache])
def test_an_edited_bundle_of_links_is_refused(bundle: Path, tmp_path: Path, make: object) -> None:
    with Runtime.open(bundle) as runtime:
        runtime.kb.add("jazz", "b")
    path = make(bundle, tmp_path / "links")  # type: ignore[operator]
    with pytest.raises(BundleError, match=r"with edits must not have links.*cp -rL"):
        Runtime.open(path, follow_links=True)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    "way",
    [
        "../../elsewhere/model.onnx",  # through ..
        "{outside}/model.onnx",  # absolute
        "inner",  # over a link inside that leads out
        "../..data/../../elsewhere/model.onnx",  # .. behind a link to a folder
        "../../bundle/student/kept.onnx",  # out, and in again
    ],
)
def test_no_link_leads_out(edge_bundle: Path, tmp_path: Path, way: str, verify: bool) -> None:
    outside, path = tmp_path / "elsewhere", tmp_path / "bundle"
    shutil.copytree(edge_bundle, path)
    outside.mkdir()
    shutil.copyfile(path / MODEL, outside / "model.onnx")
    (path / MODEL).rename(path / "student" / "kept.onnx")
    (path / "student" / "inner").symlink_to("../../elsewhere/model.onnx")
    (path / "..data").symlink_to("student")
    (path / MODEL).symlink_to(way.format(outside=outside))
    with pytest.raises(BundleError, match="link leads out of the bundle"):
        Runtime.open(path, verify=verify)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("kind", ["pipe", "loop", "nothing", "folder"])
@pytest.mark.parametrize("name", [MANIFEST_FILE, TOKENIZER])
def test_what_is_no_file_behind_a_link(edge_bundle: Path, tmp_path: Path, name: str, kind: str, follow: bool) -> None:
    path = Path(shutil.copytree(edge_bundle, tmp_path / "bundle"))
    (path / name).unlink(missing_ok=True)
    target = path / "target"
    if kind == "pipe":
        os.mkfifo(target)
    elif kind == "loop":
        target.symlink_to(target)
    elif kind == "folder":
        target.mkdir()
    (path / name).symlink_to(os.path.relpath(target, (path / name).parent))
    with pytest.raises(BundleError, match=r"link|not a file"):
        Runtime.open(path, follow_links=follow)


@pytest.mark.parametrize("link", [False, True])
def test_a_signature_that_is_a_pipe_is_not_waited_for(edge_bundle: Path, tmp_path: Path, link: bool) -> None:
    path = Path(shutil.copytree(edge_bundle, tmp_path / "bundle"))
    os.mkfifo(path / ("pipe" if link else "manifest.sig"))
    if link:
        (path / "manifest.sig").symlink_to("pipe")
    ok("sign", "--new-key", tmp_path / "key.pem")
    for command in (("inspect", path), ("predict", path, "a", "--require-signature", tmp_path / "key.pub.pem")):
        assert "manifest.sig: this is not a file" in refused(*command)


@pytest.mark.parametrize("what", ["another version", "other content", "nothing"])
def test_links_that_change_while_the_bundle_is_opened(
    edge_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Kubernetes replaces ..data when a volume has new content: here after the checks, during the opening."""
    path = volume(edge_bundle, tmp_path / "volume")

    def change() -> None:
        if what == "other content":
            file = path / VERSION / TOKENIZER
            file.write_bytes(file.read_bytes() + b" ")
            return
        if what == "another version":
            shutil.copytree(path / VERSION, path / "..2027")
            (path / "..new").symlink_to("..2027")
            (path / "..new").rename(path / "..data")
        shutil.rmtree(path / VERSION)

    def changed(*parts: object) -> None:
        check_golden(*parts)  # type: ignore[arg-type]
        change()

    monkeypatch.setattr("reaugkd.runtime.opening.check_golden", changed)
    with pytest.raises(BundleError, match="another file than when the bundle was checked"):
        Runtime.open(path)


def test_a_session_that_is_opened_later_is_of_the_same_file(edge_bundle: Path, tmp_path: Path) -> None:
    path = volume(edge_bundle, tmp_path / "volume")
    with Runtime.open(path, threads=2) as runtime:
        shutil.copytree(path / VERSION, path / "..2027")
        (path / "..new").symlink_to("..2027")
        (path / "..new").rename(path / "..data")
        with pytest.raises(BundleError, match="another file"):
            list(runtime.predict_many(["noon"] * 4))


def test_a_plain_bundle_has_no_links(edge_bundle: Path) -> None:
    assert Bundle.open(edge_bundle).links == {}


def test_the_command_copies_the_whole_bundle_where_only_a_part_is_linked(edge_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(edge_bundle, path)
    (path / "..data").mkdir()
    (path / "kb").rename(path / "..data" / "kb")
    (path / "kb").symlink_to("..data/kb")
    command = refused("kb", "add", path, "jazz", "--label", "b").split("`")[1]
    subprocess.run(shlex.split(command), cwd=tmp_path, check=True)
    assert ok("kb", "add", tmp_path / "bundle-copy", "jazz", "--label", "b").err.startswith("edit 1: ")

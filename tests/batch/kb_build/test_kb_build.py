"""`reaugkd kb build`: the rows, the search, what is left out, kills, and edits of the result."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.batch_jobs import write_empty_files
from support.command_line import call, finish, ok, spawn
from support.heldout_bundle import TEXTS, build_heldout_bundle
from support.lake import LABELS, distinct, write_lake
from support.teachers import AlwaysLast
from support.tiny_bundle import Text, build_tiny_bundle

from reaugkd import BundleIntegrityError, Runtime, UsageError
from reaugkd.batch.build import run as build_module
from reaugkd.batch.build.run import BuildJob, build
from reaugkd.batch.build.settings import BuildOptions, BuildSettings
from reaugkd.kb.index.shards import ShardedIndex
from reaugkd.kb.storage.ed25519 import new_key_pair
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.data import Columns

pytestmark = pytest.mark.usefixtures("in_process")

MANY = tuple(f"label {number}" for number in range(40))


def embeddings(bundle: Path, texts: Sequence[Text]) -> Any:
    with Runtime.open(bundle, retrieval="never") as runtime:
        encode = runtime.tokenizer.encode
        found = [runtime.student.run(encode(*([text] if isinstance(text, str) else text)))[1].ravel() for text in texts]
    return np.array(found, np.float64) / np.linalg.norm(found, axis=1, keepdims=True)


def kb_files(bundle: Path) -> dict[str, bytes]:
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in sorted((bundle / "kb").rglob("*.*"))}


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({}, LABELS),
        ({"dtype": "i8", "texts": False}, LABELS),
        ({"dtype": "i8", "texts": "hash", "label_loss": 0.01}, MANY),
        ({"pairs": True}, LABELS),
    ],
    ids=["f16", "i8 without texts", "digests, 40 labels", "pairs"],
)
def test_every_row_is_there_once_and_is_found(tmp_path: Path, options: dict[str, Any], labels: tuple[str, ...]) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle", labels=labels, **options)
    texts = distinct(300, options.get("pairs", False))
    given = [labels[number % len(labels)] for number in range(len(texts))]
    lake = write_lake(tmp_path / "lake", texts, given)
    out = tmp_path / "new"
    ok("kb", "build", bundle, "--data", lake, "--out", out, "--shards", 3, "--part-rows", 70, "--workers", 1)
    assert not (tmp_path / "new.build").exists()
    with Runtime.open(out, search="usearch") as runtime:
        kb = runtime.knowledge_base
        assert isinstance(kb.index, ShardedIndex) and len(kb.index.shards) == 3
        assert sorted(kb.id(row) for row in range(len(kb))) == list(range(300))
        for row in range(len(kb)):
            text, label = texts[kb.id(row)], given[kb.id(row)]
            assert labels[kb.label(row)] == label and kb.soft_labels[row].argmax() == labels.index(label)
            assert kb.text(row) == (text if options.get("texts", True) is True else None)
            if options.get("texts") == "hash":
                assert kb.rows_of(text) == [row]
        # With a search that misses nothing, the neighbours are those of a comparison with all embeddings in float64.
        kb.index.set_probes(len(kb.index.centres.shard))
        kb.index.set_ef_search(300)
        keys, queries = embeddings(bundle, texts), distinct(20, options.get("pairs", False), seed=9)
        for query, text in zip(embeddings(bundle, queries), queries, strict=True):
            found = kb.search(query.astype(np.float32), 8)
            best = -np.sort(-(keys @ query))[:8]
            ids = [kb.id(int(row)) for row in found.rows]
            np.testing.assert_allclose(keys[ids] @ query, best, atol=0.02)
            np.testing.assert_allclose(found.similarities, best, atol=0.02)
            assert runtime.predict(text).retrieved


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    bundle = build_heldout_bundle(tmp_path / "bundle")
    texts: list[Text] = [*distinct(80, seed=3), "", TEXTS[0], TEXTS[7]]
    texts = [text for text in texts if text not in TEXTS[1:7]]
    texts += [texts[0], texts[1], texts[1], "milk milk"]
    labels = ["a"] * (len(texts) - 2) + ["b", ""]
    lake = write_lake(tmp_path / "lake", texts, labels)
    done = call("kb", "build", bundle, "--data", lake, "--out", tmp_path / "new", "--json", "-", "--workers", 1)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["duplicates"] == 3 and report["conflicts"] == 1
    assert report["left_out"].pop("has the text of a held-out row") >= 2  # others of the rows may have these words too
    assert report["left_out"] == {"the text is empty": 1, "has no label": 1}
    assert report["gate"] is None and report["abstention"] is None and len(report["notes"]) == 1
    with Runtime.open(tmp_path / "new") as runtime:
        assert len(runtime.knowledge_base) == report["rows"]
        assert {runtime.knowledge_base.text(row) for row in range(report["rows"])} == set(texts) - {
            "",
            TEXTS[0],
            TEXTS[7],
            "milk milk",
        }
        assert runtime.gate is None and runtime.manifest.abstention is None


def test_labels_are_read_as_in_other_commands(edge_bundle: Path, tmp_path: Path) -> None:
    """docs/reference/labels.md: NaN, which pandas writes for no label, is none; a list of one label is the label."""
    texts = distinct(4)
    lake = tmp_path / "lake.jsonl"
    cells = ['"a"', "NaN", '"NaN"', '["b"]']
    rows = [f'{{"text": "{text}", "label": {cell}}}\n' for text, cell in zip(texts, cells, strict=True)]
    lake.write_text("".join(rows))
    done = call("kb", "build", edge_bundle, "--data", lake, "--out", tmp_path / "new", "--json", "-", "--workers", 1)
    assert done.code == 0, done.err
    assert json.loads(done.out)["left_out"] == {"has no label": 2}
    with Runtime.open(tmp_path / "new") as runtime:
        kb = runtime.knowledge_base
        assert {kb.text(row): runtime.manifest.labels[kb.label(row)] for row in range(len(kb))} == {
            texts[0]: "a",
            texts[3]: "b",
        }


def test_the_teacher_gives_soft_labels(tmp_path: Path) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle")
    texts = distinct(40)
    lake = write_lake(tmp_path / "lake", texts, ["a", ""] * 20)
    settings = BuildSettings("", str(bundle), teacher=AlwaysLast)
    job = BuildJob((str(lake),), tmp_path / "new", Columns(), settings, BuildOptions("", 1), workers=1)
    build(job, lambda _: None, lambda *_: None)
    with Runtime.open(tmp_path / "new") as runtime:
        kb, blend = runtime.knowledge_base, runtime.manifest.blend
        expected = np.exp(np.array([0, 0, 3]) / blend.label_temperature)
        expected /= expected.sum()
        for row in range(40):
            np.testing.assert_allclose(kb.soft_labels[row], expected, atol=1e-3)  # the bundle's share of gold is 0
            assert kb.label(row) == (0 if kb.id(row) % 2 == 0 else -1)


def test_the_sample_is_from_all_over_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "SAMPLE_PER_CENTRE", 1)  # 128 rows
    bundle = build_tiny_bundle(tmp_path / "bundle")
    texts = distinct(1000)
    keys = embeddings(bundle, texts)
    lake = write_lake(tmp_path / "lake", [texts[row] for row in np.argsort(keys[:, 0])], ["a"] * 1000)
    arguments = ["--shards", 2, "--workers", 1, "--part-rows"]
    ok("kb", "build", bundle, "--data", lake, "--out", tmp_path / "new", *arguments, 1000)
    sizes = [shard["rows"] for shard in Bundle.open(tmp_path / "new").manifest.quality["shards"]]
    assert min(sizes) > 300

    rare = write_lake(tmp_path / "rare", texts, ["b" if row == 450 else "" for row in range(1000)])
    ok("kb", "build", bundle, "--data", rare, "--out", tmp_path / "one", *arguments, 1000)
    with Runtime.open(tmp_path / "one") as runtime:
        assert [runtime.knowledge_base.text(row) for row in range(len(runtime.knowledge_base))] == [texts[450]]


@pytest.mark.slow
def test_a_build_that_was_killed_goes_on_and_gives_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle", dtype="i8")
    texts = distinct(6000)
    lake = write_lake(tmp_path / "lake", texts, [LABELS[number % 3] for number in range(len(texts))])
    arguments = ["kb", "build", bundle, "--data", lake, "--shards", 3, "--part-rows", 500, "--workers", 2, "--out"]
    ok(*arguments, tmp_path / "whole")
    work = tmp_path / "new.build"
    for stop in ("part-00002.parquet", "shard-00001"):
        process = spawn(*arguments, tmp_path / "new", start_new_session=True)
        while not (work / stop).exists() and process.poll() is None:
            os.sched_yield()
        os.killpg(process.pid, signal.SIGKILL)
        finish(process)
        assert not (tmp_path / "new").exists() and (work / stop).exists()
    ok(*arguments, tmp_path / "new")
    assert kb_files(tmp_path / "new") == kb_files(tmp_path / "whole")


def test_a_step_that_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle")
    lake = write_lake(tmp_path / "lake", distinct(60), ["a"] * 60)
    arguments = ["kb", "build", bundle, "--data", lake, "--out", tmp_path / "new", "--workers", 1, "--part-rows", 20]

    def fail(*_: object) -> None:
        raise UsageError("stopped here")

    with monkeypatch.context() as patched:
        patched.setattr(build_module, "assemble", fail)
        assert call(*arguments).code == 2
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "new.build").rglob("*.*")}
    with monkeypatch.context() as patched:
        patched.setattr(build_module, "assemble", fail)
        assert call(*arguments).code == 2
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "new.build").rglob("*.*")}

    new_key_pair(tmp_path / "owner.pem")
    unsigned = call(*arguments, "--require-signature", tmp_path / "owner.pub.pem")
    assert unsigned.code == 2 and "manifest.sig" in unsigned.err
    changed = call(*arguments[:-1], 30)
    assert changed.code == 2 and "the size of a part was 20, is 30" in changed.err
    assert "Remove the folder of the work" in changed.err and "--overwrite" not in changed.err
    shard = tmp_path / "new.build" / "shard-00000" / "index.usearch"
    content = bytearray(shard.read_bytes())
    content[20] ^= 1  # a bit of a key
    shard.write_bytes(content)
    altered = call(*arguments)
    assert altered.code == 2 and "the shard was altered after it was built" in altered.err
    assert not (tmp_path / "new").exists()
    shutil.rmtree(shard.parent)
    ok(*arguments)
    with Runtime.open(tmp_path / "new") as runtime:
        assert len(runtime.knowledge_base) == 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("text,label\nmilk,a\noven,z\n", "row 3: the label is not one of the bundle's; found z; expected a, b, c"),
        ("text\nmilk\n", "--run"),
        ("text,label\nmilk,\"['a', 'b']\"\n", "row 2: the row has several labels"),
        ("text,label\n,a\n", "no row can be used"),
        ("text,label\n", "the input has no rows; found 0 rows in 1 file"),
        ("", "the input has no rows"),
    ],
)
def test_errors_say_where_and_what_to_do(edge_bundle: Path, tmp_path: Path, text: str, expected: str) -> None:
    lake = tmp_path / "lake.csv"
    lake.write_text(text)
    done = call("kb", "build", edge_bundle, "--data", lake, "--out", tmp_path / "new", "--workers", 1)
    assert done.code == 2 and expected in done.err and str(lake) in done.err and "Traceback" not in done.err


def test_a_file_without_the_label_is_refused_without_an_option_of_another_command(
    edge_bundle: Path, tmp_path: Path
) -> None:
    for name, text in (("a.csv", "text,label\nmilk,a\n"), ("b.csv", "text\noven\n")):
        (tmp_path / name).write_text(text)
    done = call("kb", "build", edge_bundle, "--data", tmp_path / "*.csv", "--out", tmp_path / "new")
    assert done.code == 2 and f"{tmp_path / 'b.csv'}: the file lacks columns" in done.err
    assert done.err.endswith("expected also 'label'. Write the files with the same columns and types.\n")


def test_files_without_rows_are_left_out_and_named(edge_bundle: Path, tmp_path: Path) -> None:
    write_empty_files(tmp_path / "lake")
    nothing = sorted((tmp_path / "lake").iterdir())
    (tmp_path / "lake" / "m.csv").write_text("text,label\nmilk,a\noven,b\n")
    done = ok("kb", "build", edge_bundle, "--data", tmp_path / "lake", "--out", tmp_path / "new", "--workers", 1)
    notes = [line for line in done.err.splitlines() if "left out, it has no rows" in line]
    assert [note.removeprefix("note: ").partition(": ")[0] for note in notes] == [str(path) for path in nothing]
    with Runtime.open(tmp_path / "new") as runtime:
        assert len(runtime.knowledge_base) == 2


def test_the_result_can_be_edited(tmp_path: Path) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle")
    texts = distinct(200)
    lake = write_lake(tmp_path / "lake", texts, [LABELS[number % 3] for number in range(200)])
    out = tmp_path / "new"
    ok("kb", "build", bundle, "--data", lake, "--out", out, "--shards", 2, "--workers", 1)
    with Runtime.open(out, search="usearch") as runtime:
        index = runtime.knowledge_base.index  # a search that misses nothing, with edits and without
        index.set_probes(len(index.centres.shard))
        index.set_ef_search(300)
        before = runtime.predict(str(texts[0]))
        runtime.kb.add("oven oven jazz", "b")
        assert runtime.predict("oven oven jazz").label == "b"
        runtime.kb.relabel({texts[3]: "c"})
        assert runtime.predict(str(texts[3])).label == "c"
        runtime.kb.remove(texts=[texts[5]])
        assert len(runtime.knowledge_base) == 200
        for _ in range(3):
            runtime.kb.undo()
        after = runtime.predict(str(texts[0]))
        np.testing.assert_allclose(before.probabilities, after.probabilities, atol=1e-6)
        runtime.kb.add("clock clock clock", "new", new_labels=True)
        runtime.kb.wait()
        assert runtime.predict("clock clock clock").label == "new"
        runtime.kb.verify()
        with pytest.raises(UsageError, match="cannot be compacted"):
            runtime.kb.compact()
    with Runtime.open(out) as again:
        assert again.predict("clock clock clock").label == "new"


def test_a_shard_that_the_manifest_does_not_list_is_refused(tmp_path: Path) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle")
    lake = write_lake(tmp_path / "lake", distinct(60), ["a"] * 60)
    ok("kb", "build", bundle, "--data", lake, "--out", tmp_path / "new", "--workers", 1)
    shards = tmp_path / "new" / "kb" / "shards"
    shutil.copy(shards / "0.usearch", shards / "1.usearch")
    with pytest.raises(BundleIntegrityError, match="does not list"):
        Runtime.open(tmp_path / "new")

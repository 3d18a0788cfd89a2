"""Edited bundles that are damaged, made to do harm, replaced while they are open, or edited in odd ways."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heldoutbundle import build_heldout_bundle
from tinybundle import build_tiny_bundle, tiny_texts

from reaugkd import BundleError, How, ReaugkdError, Row, Runtime, StorageError, UsageError
from reaugkd.kb.head import HEAD_BYTES, Head, HeadFile
from reaugkd.kb.signature import new_key_pair, read_private_key
from reaugkd.runtime.bundle import Bundle
from reaugkd.runtime.manifest import seal_entry
from reaugkd.runtime.signing import sign_bundle
from reaugkd.runtime.store import KnowledgeStore

NEW = How(new_labels=True)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_heldout_bundle(tmp_path_factory.mktemp("export") / "bundle", rows=60, unrelated=40)


@pytest.fixture
def bundle(export: Path, tmp_path: Path) -> Path:
    shutil.copytree(export, tmp_path / "bundle")
    return tmp_path / "bundle"


def journal(bundle: Path) -> Path:
    return next((bundle / "generations").glob("*/journal.jsonl"))


def set_head(bundle: Path, **changes: Any) -> None:
    """HEAD with other values, its checksum right."""
    _, head = HeadFile(bundle).read()
    assert head is not None
    (bundle / "generations" / "HEAD").write_bytes(Head(**{**vars(head), **changes}).line())


def canonical(obj: object) -> bytes:
    return json.dumps(obj, sort_keys=True, separators=(",", ":")).encode()


def reseal_line(obj: dict[str, Any]) -> bytes:
    """A journal's line with its hash made right."""
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


class TestHostile:
    @pytest.fixture
    def edited(self, bundle: Path) -> Path:
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("jazz at noon", "c")
        return bundle

    @pytest.fixture
    def folded(self, edited: Path) -> Path:
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
    def test_a_row_without_what_is_kept_of_rows(self, edited: Path, change: Callable[[dict[str, Any]], None]) -> None:
        """A payload that is erased leaves the chain whole: only a history may lack it."""
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
    def test_a_table_with_values_that_may_not_be(self, folded: Path, name: str, value: object) -> None:
        path = folded / "generations" / "1" / "generation.json"
        obj = json.loads(path.read_bytes())
        obj.pop("seal")
        obj[name] = value
        text = json.dumps(obj, indent=2)
        head = (text.removesuffix("\n}") + ",\n  ").encode()
        path.write_bytes(head + seal_entry(head))
        with pytest.raises(BundleError):
            Runtime.open(folded).kb.add("noon", "a", How(preview=True))

    @pytest.mark.parametrize(
        "name", ["HEAD", "1/journal.jsonl", "1/generation.json", "1/history.jsonl", "1/index.usearch"]
    )
    @pytest.mark.parametrize("kind", ["pipe", "folder", "link", "missing"])
    def test_what_is_no_plain_file(self, folded: Path, name: str, kind: str, tmp_path: Path) -> None:
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

    def test_folders_that_are_links(self, folded: Path, tmp_path: Path) -> None:
        for folder in (folded / "generations" / "1", folded / "generations"):
            folder.rename(tmp_path / "away")
            folder.symlink_to(tmp_path / "away")
            refused(folded)
            folder.unlink()
            (tmp_path / "away").rename(folder)
        (folded / "generations").rename(tmp_path / "away")
        (folded / "generations").write_text("a file")
        refused(folded)

    def test_head_of_other_sizes_and_numbers(self, edited: Path) -> None:
        path = edited / "generations" / "HEAD"
        good = path.read_bytes()
        for line in (b"", good[:-1], good + b"x", b"\0" * HEAD_BYTES, b"[" * HEAD_BYTES, b"{}".ljust(HEAD_BYTES)):
            path.write_bytes(line)
            assert "HEAD" in refused(edited)
        for changes in ({"generation": 9}, {"length": 10**12}, {"seq": 3}, {"after": "1" * 64}, {"length": 5}):
            path.write_bytes(good)
            set_head(edited, **changes)
            refused(edited)

    def test_with_a_signature_nothing_is_free(self, folded: Path, export: Path, tmp_path: Path) -> None:
        """The table of contents says labels and odds: the fold's entry, which is signed, has its hash."""
        new_key_pair(tmp_path / "key.pem")
        key, public = read_private_key(tmp_path / "key.pem"), tmp_path / "key.pub.pem"
        bundle = tmp_path / "signed"
        shutil.copytree(export, bundle)
        sign_bundle(bundle, key)
        with Runtime.open(bundle, require_signature=public) as runtime:
            runtime.kb.add("jazz at noon", "good", How(new_labels=True, key=key))
            runtime.kb.compact(How(key=key))
        path = bundle / "generations" / "1" / "generation.json"
        obj = json.loads(path.read_bytes())
        obj.pop("seal")
        for name, value in (("labels", ["evil"]), ("odds", 9.0), ("next_id", 5)):
            head = (json.dumps({**obj, name: value}, indent=2).removesuffix("\n}") + ",\n  ").encode()
            path.write_bytes(head + seal_entry(head))
            with pytest.raises(BundleError, match="fold"):
                Runtime.open(bundle, require_signature=public)
            with pytest.raises(BundleError, match="fold"):
                Runtime.open(bundle).kb.verify()

    def test_other_files_in_the_folder_are_ignored(self, folded: Path) -> None:
        (folded / "generations" / "1" / ".DS_Store").write_bytes(b"x")
        (folded / "generations" / ".nfs0001").write_bytes(b"x")
        with Runtime.open(folded) as runtime:
            runtime.kb.add("noon", "a")

    def test_what_was_altered_since_it_was_opened_is_not_sealed_again(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("noon", "a")
            path = bundle / "kb" / "texts.jsonl"
            path.write_bytes(path.read_bytes().replace(b"jazz", b"razz"))
            with pytest.raises(BundleError, match=r"texts\.jsonl"):
                runtime.kb.compact()


class TestReplaced:
    def test_a_damaged_journal_is_told_with_every_text(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime, Runtime.open(bundle) as other:
            other.kb.add("noon", "a")
            whole = journal(bundle).read_bytes()
            journal(bundle).write_bytes(whole.replace(b"noon", b"moon"))
            for _ in range(3):
                with pytest.raises(BundleError, match="damaged"):
                    runtime.predict("jazz")
            journal(bundle).write_bytes(whole)
            assert runtime.predict("noon").label == "a"

    def test_an_interrupt_in_the_middle_of_taking_edits_in(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with Runtime.open(bundle) as runtime, Runtime.open(bundle) as other:
            runtime.kb.add("night", "b")
            other.kb.add("noon", "a")
            kind = type(runtime.knowledge_base)

            def interrupted(_kb: object, _state: object, _added: object = None) -> None:
                raise KeyboardInterrupt

            other.kb.add("late light", "c")
            monkeypatch.setattr(kind, "_with", interrupted)
            with pytest.raises(KeyboardInterrupt):
                runtime.predict("noon")
            monkeypatch.undo()
            assert [runtime.predict(text).label for text in ("night", "noon", "late light")] == ["b", "a", "c"]
            runtime.kb.add("fan", "a")
            assert len(other.kb.log()) == 4

    def test_an_interrupt_after_an_edit_is_in_force(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("night", "b")

            def interrupted(_store: object, _kb: object) -> None:
                raise KeyboardInterrupt

            monkeypatch.setattr(KnowledgeStore, "advance", interrupted)
            with pytest.raises(KeyboardInterrupt):
                runtime.kb.add("noon", "a")
            monkeypatch.undo()
            assert runtime.predict("noon").label == "a"
            runtime.kb.add("noon", "c")
            assert runtime.predict("noon").label == "c" and len(runtime.kb.log()) == 3

    def test_a_copy_put_back_in_place(self, bundle: Path, tmp_path: Path) -> None:
        """An older state, restored file by file as rsync does, and edited by somebody else."""
        with Runtime.open(bundle) as runtime, Runtime.open(bundle) as other:
            runtime.kb.add("night", "b")
            shutil.copytree(bundle / "generations", tmp_path / "backup")
            runtime.kb.add("noon", "a")
            for name in ("HEAD", "0/journal.jsonl"):
                shutil.copy(tmp_path / "backup" / name, tmp_path / "part")
                (tmp_path / "part").replace(bundle / "generations" / name)
            other.kb.add("a rather long text about jazz and noon", "c")
            assert runtime.predict("a rather long text about jazz and noon").label == "c"
            assert [entry.seq for entry in runtime.kb.log()] == [1, 2]
            runtime.kb.add("fan", "a")
            assert len(other.kb.log()) == 3

    def test_another_bundle_in_its_place(self, bundle: Path, tmp_path: Path) -> None:
        other = build_tiny_bundle(tmp_path / "other", seed=9)
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("night", "b")
            bundle.rename(tmp_path / "old")
            shutil.copytree(other, bundle)
            with pytest.raises((BundleError, UsageError)):
                runtime.kb.add("noon", "a")
        assert not (bundle / "generations").exists()
        Runtime.open(bundle).close()

    def test_a_link_that_leads_elsewhere_now(self, bundle: Path, tmp_path: Path) -> None:
        other = build_tiny_bundle(tmp_path / "other", seed=9)
        link = tmp_path / "current"
        link.symlink_to(bundle)
        with Runtime.open(link) as runtime:
            link.unlink()
            link.symlink_to(other)
            runtime.kb.add("noon", "a")
        assert not (other / "generations").exists() and len(KnowledgeStore(Bundle.open(bundle)).log()) == 1

    def test_edits_that_are_gone(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("night", "b")
            shutil.rmtree(bundle / "generations")
            assert len(runtime.knowledge_base) == 60 and runtime.kb.log() == []  # what is on the disk holds
            runtime.kb.add("noon", "a")
        with Runtime.open(bundle) as runtime:
            assert len(runtime.kb.log()) == 1 and runtime.predict("noon").label == "a"

    def test_reading_the_log_while_others_fold(self, bundle: Path) -> None:
        over = threading.Event()
        faults: list[BaseException] = []

        def fold() -> None:
            try:
                with Runtime.open(bundle) as other:
                    for turn in range(12):
                        other.kb.add(f"jazz {turn}", "a")
                        other.kb.compact()
            except BaseException as error:
                faults.append(error)
            over.set()

        with Runtime.open(bundle) as runtime:
            thread = threading.Thread(target=fold)
            thread.start()
            while not over.is_set():
                found = runtime.kb.log()
                assert [entry.seq for entry in found] == list(range(1, len(found) + 1))
            thread.join()
            assert faults == [] and len(runtime.kb.log()) == 24

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_child_that_was_forked_during_an_edit_does_not_keep_the_lock(self, bundle: Path) -> None:
        from reaugkd.kb.head import writing

        with writing(bundle, 0):
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
        try:
            with Runtime.open(bundle) as runtime:
                runtime.kb.add("noon", "a", How(wait=0))
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


class TestOdd:
    def test_all_neighbours_of_new_labels(self, bundle: Path) -> None:
        """Of mass 1 nothing is left to the old labels, whatever the odds."""
        with Runtime.open(bundle) as runtime:
            runtime.kb.remove(ids=[runtime.knowledge_base.id(row) for row in range(60)], how=How(compact=False))
            runtime.kb.add(
                [Row(text, "new") for text in tiny_texts(40, seed=5)], how=How(new_labels=True, compact=False)
            )
            for text in tiny_texts(60, seed=6):
                answer = runtime.predict(text)
                assert answer.label == "new" and answer.probabilities.min() >= 0

    @pytest.mark.parametrize("odds", np.geomspace(1e-3, 1e3, 97).tolist())
    def test_odds_of_all_sizes(self, odds: float) -> None:
        from reaugkd.runtime.blend import blend_edited
        from reaugkd.runtime.manifest import BlendConfig

        config = BlendConfig(k=3, tau=0.1, student_weight=0.4)
        student, near = np.array([0.7, 0.3], np.float32), np.array([0.9, 0.8, 0.7], np.float32)
        for labels in ([[0, 0, 1]] * 3, [[1, 0, 0], [0, 0, 1], [0.5, 0.25, 0.25]], [[1, 0, 0]] * 3):
            found = blend_edited(student, near, np.array(labels, np.float32), config, 2, odds=odds)
            assert found.probabilities.min() >= 0 and found.probabilities.sum() == pytest.approx(1, abs=1e-6)
            assert 0 <= found.student_weight <= 0.4 + 1e-9

    @pytest.mark.parametrize("label", ["", "\x00", "a\nb", "half \ud800", "x" * 10_001])
    def test_labels_that_cannot_be_names(self, bundle: Path, label: str) -> None:
        with Runtime.open(bundle) as runtime:
            with pytest.raises(UsageError, match="name is unusable"):
                runtime.kb.add("noon", label, NEW)
            assert runtime.kb.log() == []

    def test_labels_of_any_script(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            for number, label in enumerate(("Lieferung übergroß", "配送", "توصيل", "🚚", "no\xa0break")):
                runtime.kb.add(f"noon {number}", label, NEW)
            runtime.kb.compact()
        with Runtime.open(bundle) as runtime:
            assert runtime.predict("noon 1").label in runtime.labels and len(runtime.labels) == 8

    def test_what_cannot_be_written_down_is_no_edit(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            for wrong in (
                lambda: How(why=None),  # type: ignore[arg-type]
                lambda: How(who=7),  # type: ignore[arg-type]
                lambda: runtime.kb.add("noon", 5, NEW),  # type: ignore[arg-type]
                lambda: runtime.kb.remove(["x"]),  # type: ignore[list-item]
                lambda: runtime.kb.remove(texts="noon"),
                lambda: runtime.kb.remove([2**70]),
                lambda: runtime.kb.relabel({2.5: "a"}),  # type: ignore[dict-item]
            ):
                with pytest.raises(ReaugkdError):
                    wrong()
            assert runtime.kb.log() == []
            rows = {np.int64(runtime.knowledge_base.id(3)): {"a": np.float32(0.5), "b": np.float32(0.5)}}
            assert runtime.kb.relabel(rows).entry is not None  # type: ignore[arg-type]
        Runtime.open(bundle).close()

    def test_soft_labels_are_taken_back_and_recognised(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            row = runtime.knowledge_base.id(3)
            for _ in range(2):
                runtime.kb.relabel({row: {"a": 0.7, "b": 0.3}})
                runtime.kb.compact()
                assert runtime.kb.relabel({row: {"a": 0.7, "b": 0.3}}).unchanged == 1
                runtime.kb.undo()
                assert not runtime.kb.diff()
            soft = Row("noon at night", soft={"a": 0.1, "c": 0.9})
            runtime.kb.add(soft)
            assert runtime.kb.add(soft).unchanged == 1

    def test_without_texts_a_correction_replaces_the_last_one(self, tmp_path: Path) -> None:
        bundle = build_tiny_bundle(tmp_path / "bundle", texts=False, dtype="i8")
        with Runtime.open(bundle) as runtime:
            for turn in range(45):
                label = "abc"[turn % 3]
                runtime.kb.add("jazz at noon", label)
                assert runtime.predict("jazz at noon").label == label
                if turn % 20 == 5:
                    runtime.kb.compact()
            assert len(runtime.knowledge_base) == 65

    def test_a_knowledge_base_without_texts_stays_so(self, tmp_path: Path) -> None:
        bundle = build_tiny_bundle(tmp_path / "bundle", texts=False)
        with Runtime.open(bundle) as runtime:
            runtime.kb.remove([runtime.knowledge_base.id(row) for row in range(64)])
            runtime.kb.compact()
            runtime.kb.add("jazz at noon", "a")
            runtime.kb.compact()
            assert runtime.predict("jazz").neighbours[0].text is None
        assert not any(b"jazz" in path.read_bytes() for path in (bundle / "generations").rglob("*") if path.is_file())

    def test_only_held_out_rows_are_left(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            kb = runtime.knowledge_base
            runtime.kb.remove([kb.id(row) for row in range(40)], how=How(compact=False))
            done = runtime.kb.relabel({kb.id(50): "new"}, NEW)
            assert done.change.odds == 1.0

    def test_undo_of_an_undo_and_undo_again(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("noon", "a")
            runtime.kb.undo()
            with pytest.raises(UsageError, match="taken back already"):
                runtime.kb.undo(1)
            runtime.kb.undo(2)
            done = runtime.kb.undo()
            assert done.entry is not None and done.entry.undoes == 1
            with pytest.raises(UsageError, match="no edit to take back"):
                runtime.kb.undo()

    def test_diff_tells_what_rows_said_then(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            row = runtime.knowledge_base.id(5)
            old = runtime.knowledge_base.soft_labels[5]
            runtime.kb.add("noon", "a")
            runtime.kb.remove([row])
            runtime.kb.undo()
            runtime.kb.relabel({row: "new"}, NEW)
            (found,) = runtime.kb.diff(1, 2)
            assert found.kind == "removed" and found.old is not None and "new" not in found.old.shares
            shares = [found.old.shares.get(name, 0.0) for name in "abc"]
            np.testing.assert_allclose(shares, old, atol=1e-3)

    def test_an_edit_is_made_though_its_fold_fails(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from reaugkd.runtime.writer import KnowledgeWriter

        def full(*_args: object) -> None:
            raise StorageError("the disk is full")

        monkeypatch.setattr(KnowledgeWriter, "compact", full)
        with Runtime.open(bundle) as runtime:
            done = runtime.kb.add([f"noon {number}" for number in range(300)], "a")
            assert done.entry is not None and isinstance(done.not_compacted, StorageError)
            assert len(runtime.knowledge_base) == 360

    def test_there_is_nothing_to_fold_in(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            with pytest.raises(UsageError, match="nothing to fold in"):
                runtime.kb.compact()
            assert (bundle / "kb").is_dir() and not (bundle / "generations").exists()

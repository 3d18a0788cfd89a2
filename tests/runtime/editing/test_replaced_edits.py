"""Edits that are replaced, damaged or interrupted while a bundle is open."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
from support.tiny_bundle import build_tiny_bundle

from reaugkd import BundleError, BundleIntegrityError, ReaugkdError, Runtime, UsageError
from reaugkd.kb.edits.head import write_lock
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.editing.store import KnowledgeStore


def journal(bundle: Path) -> Path:
    return next((bundle / "generations").glob("*/journal.jsonl"))


def test_a_damaged_journal_is_reported_at_every_prediction(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime, Runtime.open(bundle) as other:
        other.kb.add("noon", "a")
        whole = journal(bundle).read_bytes()
        journal(bundle).write_bytes(whole.replace(b"noon", b"moon"))
        for _ in range(3):
            with pytest.raises(BundleError, match="damaged"):
                runtime.predict("jazz")
        journal(bundle).write_bytes(whole)
        assert runtime.predict("noon").label == "a"


def test_a_stream_returns_the_error_of_edits_that_it_cannot_read(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime, Runtime.open(bundle) as other:
        stream = runtime.predict_many(["jazz", "noon"], on_error="return")
        other.kb.add("noon", "a")
        journal(bundle).write_bytes(journal(bundle).read_bytes().replace(b"noon", b"moon"))
        assert [type(answer) for answer in stream] == [BundleIntegrityError] * 2


def test_an_interrupt_in_the_middle_of_taking_edits_in(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_an_interrupt_after_an_edit_is_in_force(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_copy_put_back_in_place(bundle: Path, tmp_path: Path) -> None:
    """An older state, restored file by file like by rsync, and edited by another process."""
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


def test_another_bundle_in_its_place(bundle: Path, tmp_path: Path) -> None:
    other = build_tiny_bundle(tmp_path / "other", seed=9)
    with Runtime.open(bundle) as runtime:
        runtime.kb.add("night", "b")
        bundle.rename(tmp_path / "old")
        shutil.copytree(other, bundle)
        with pytest.raises((BundleError, UsageError)):
            runtime.kb.add("noon", "a")
    assert not (bundle / "generations").exists()
    Runtime.open(bundle).close()


def test_answers_stay_those_of_the_bundle_that_was_opened(bundle: Path, tmp_path: Path) -> None:
    """Another bundle with edits of its own takes the place of an edited one; before, none did."""
    other = build_tiny_bundle(tmp_path / "other", seed=9)
    with Runtime.open(other) as edited:
        edited.kb.add("night", "c")
        edited.kb.add("noon", "c")
    with Runtime.open(bundle) as runtime:
        runtime.kb.add("night", "b")
        expected = [runtime.predict(text) for text in ("night", "noon", "jazz")]
        bundle.rename(tmp_path / "old")
        for _ in range(2):
            assert [runtime.predict(text) for text in ("night", "noon", "jazz")] == expected
            with pytest.raises(ReaugkdError):
                runtime.kb.add("noon", "a")
            if not bundle.exists():
                shutil.copytree(other, bundle)


def test_a_link_that_leads_elsewhere_now(bundle: Path, tmp_path: Path) -> None:
    other = build_tiny_bundle(tmp_path / "other", seed=9)
    link = tmp_path / "current"
    link.symlink_to(bundle)
    with Runtime.open(link) as runtime:
        link.unlink()
        link.symlink_to(other)
        runtime.kb.add("noon", "a")
    assert not (other / "generations").exists() and len(KnowledgeStore(Bundle.open(bundle)).log()) == 1


def test_edits_that_are_gone(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        runtime.kb.add("night", "b")
        shutil.rmtree(bundle / "generations")
        assert len(runtime.knowledge_base) == 120 and runtime.kb.log() == []  # what is on the disk holds
        runtime.kb.add("noon", "a")
    with Runtime.open(bundle) as runtime:
        assert len(runtime.kb.log()) == 1 and runtime.predict("noon").label == "a"


def test_reading_the_log_during_compactions(bundle: Path) -> None:
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
def test_a_child_that_was_forked_during_an_edit_does_not_keep_the_lock(bundle: Path) -> None:
    with write_lock(bundle, 0):
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
    try:
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("noon", "a", wait=0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

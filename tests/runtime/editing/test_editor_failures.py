"""Edits on a failing disk, and damaged bundles with edits."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from support.heldout_bundle import TEXTS, seen

from reaugkd import BundleError, BundleIntegrityError, Runtime, StorageError


class TestDisk:
    @pytest.mark.parametrize("call", ["pwrite", "fdatasync", "ftruncate"])
    @pytest.mark.parametrize("error", [28, 5])  # ENOSPC, EIO
    def test_a_failed_write_makes_no_edit(
        self, bundle: Path, call: str, error: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For a failure of each call, also after a partial write."""
        real = getattr(os, call)
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("half an hour", "a")
            before = [seen(runtime.predict(text)) for text in TEXTS]
            failed = 0
            for turn in range(4):
                count = iter(range(100))

                def broken(file: int, *rest: object, turn: int = turn, count: object = count) -> object:
                    if next(count) == turn:  # type: ignore[call-overload]
                        if call == "pwrite":
                            real(file, bytes(rest[0])[: len(bytes(rest[0])) // 2], rest[1])  # type: ignore[arg-type]
                        raise OSError(error, os.strerror(error))
                    return real(file, *rest)

                monkeypatch.setattr(os, call, broken)
                try:
                    runtime.kb.add(f"jazz {turn}", "b")
                except StorageError:
                    failed += 1
                    monkeypatch.setattr(os, call, real)
                    assert [seen(runtime.predict(text)) for text in TEXTS] == before
                    with Runtime.open(bundle) as later:
                        assert [seen(later.predict(text)) for text in TEXTS] == before
                        assert len(list(later.kb.log())) == 1
                    continue
                monkeypatch.setattr(os, call, real)
                break
            assert failed >= 1
            runtime.kb.undo()
            assert runtime.kb.add("at last", "c").entry is not None

    def test_a_fold_that_the_disk_refuses_leaves_the_old_generation(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.fsync
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("jazz", "b")
            before = [seen(runtime.predict(text)) for text in TEXTS]
            for turn in range(100):
                count = iter(range(1000))

                def broken(file: int, turn: int = turn, count: object = count) -> None:
                    if next(count) == turn:  # type: ignore[call-overload]
                        raise OSError(28, "No space left on device")
                    real(file)

                monkeypatch.setattr(os, "fsync", broken)
                try:
                    runtime.kb.compact()
                except StorageError:
                    assert [seen(runtime.predict(text)) for text in TEXTS] == before
                    # Where the last call of all failed the new folder is there, and not in force.
                    assert {path.name for path in (bundle / "generations").iterdir()} - {"1"} == {"0", "HEAD"}
                    assert (bundle / "kb").is_dir() and Runtime.open(bundle).knowledge_base.pins is not None
                    continue
                break
            assert turn > 5
            assert runtime.knowledge_base.pins is not None and (bundle / "generations" / "1").is_dir()


class TestDamage:
    def test_head_and_journal_flipped_cut_or_missing(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("jazz", "b")
            runtime.kb.add("noon", "c")
            runtime.kb.compact()
            runtime.kb.add("night", "a")
        rng = np.random.default_rng(0)
        files = [path for path in (bundle / "generations").rglob("*") if path.is_file()]
        assert len(files) == 9
        for path in files:
            content = path.read_bytes()
            places = rng.integers(0, len(content), 40)
            damaged = [
                content[:place] + bytes([content[place] ^ (1 + place % 255)]) + content[place + 1 :] for place in places
            ]
            damaged += [content[:place] for place in places] + [content[:-1], b"", None]
            for other in damaged:
                if other is None:
                    path.unlink()
                else:
                    path.write_bytes(other)
                with pytest.raises(BundleIntegrityError) as caught:
                    Runtime.open(bundle)
                assert str(path) in str(caught.value) or path.name == "HEAD" or "HEAD" in str(caught.value), (
                    caught.value
                )
                path.write_bytes(content)
        Runtime.open(bundle).close()

    def test_an_unlisted_file(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("jazz", "b")
            runtime.kb.compact()
        np.save(bundle / "generations" / "1" / "text_digests.npy", np.zeros((122, 32), np.uint8))
        with pytest.raises(BundleIntegrityError, match="does not list"):
            Runtime.open(bundle)

    def test_links_are_refused(self, bundle: Path, tmp_path: Path) -> None:
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("jazz", "b")
        for name in ("HEAD", "0/journal.jsonl"):
            path = bundle / "generations" / name
            path.rename(tmp_path / "elsewhere")
            path.symlink_to(tmp_path / "elsewhere")
            with pytest.raises(BundleError, match="link"):
                Runtime.open(bundle)
            path.unlink()
            (tmp_path / "elsewhere").rename(path)
        Runtime.open(bundle).close()

    def test_an_edit_that_was_interrupted_is_not_seen(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("jazz", "b")
            journal = bundle / "generations" / "0" / "journal.jsonl"
            whole = journal.read_bytes()
            for rest in (b"{", whole, b"\0" * 100):
                journal.write_bytes(whole + rest)
                with Runtime.open(bundle) as later:
                    assert len(list(later.kb.log())) == 1
            runtime.kb.add("noon", "c")
            assert journal.read_bytes().startswith(whole) and len(list(runtime.kb.log())) == 2
            assert json.loads(journal.read_bytes().splitlines()[1])["seq"] == 2

"""Compaction: by itself and on request, made again with the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny_bundle import build_tiny_bundle, tiny_texts

from reaugkd import BundleIntegrityError, Runtime, UsageError
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.editing.store import KnowledgeStore


class TestFold:
    def test_happens_by_itself_when_many_rows_were_edited(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            few = runtime.kb.add(tiny_texts(20, seed=70), "a")
            assert few.compacted is None
            many = runtime.kb.add([f"jazz {number}" for number in range(300)], "b")
            assert many.compacted is not None and many.compacted.snapshot == 1
            assert [path.name for path in sorted((bundle / "generations").iterdir())] == ["1", "HEAD"]
            assert not (bundle / "kb").exists()
            kept = runtime.kb.add([f"music {number}" for number in range(300)], "b", auto_compact=False)
            assert kept.compacted is None

    def test_not_by_itself_while_it_would_erase_rows_that_the_last_ten_edits_removed(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            runtime.kb.add([f"jazz {number}" for number in range(200)], "b")
            assert runtime.kb.undo().compacted is None
        with Runtime.open(bundle) as runtime:  # it reads the last edits from the journal
            late = [runtime.kb.add(f"late {number}", "a").compacted for number in range(9)]
            assert late == [None] * 9
            assert runtime.kb.undo(2).compacted is None and len(runtime.knowledge_base) == 120 + 200 + 9
            assert runtime.kb.undo(1).compacted is None and len(runtime.knowledge_base) == 120 + 9
            more = [runtime.kb.add(f"more {number}", "a").compacted for number in range(10)]
            assert any(more)
            with pytest.raises(UsageError, match="erased"):
                runtime.kb.undo(13)

    def test_by_itself_in_the_end_where_every_edit_removes_rows(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            ids = runtime.kb.add([f"jazz {number}" for number in range(200)], "b").ids
            done = [runtime.kb.remove(ids[start : start + 5]) for start in range(0, 150, 5)]
            edited = next(number for number, one in enumerate(done, 1) if one.compacted is not None)
            # At 200 added and 5 removed in each edit, the edits before the last ten have more than 256 rows.
            assert 200 + 5 * (edited - 10) == 260

    def test_the_edits_made_again_give_the_same_bytes(self, export: Path, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            for turn in range(3):
                runtime.kb.add(tiny_texts(10, seed=70 + turn), "a")
                runtime.kb.remove([runtime.knowledge_base.id(turn)])
                runtime.kb.compact()
                runtime.kb.add(f"new {turn}", f"new {turn}", new_labels=True)
            runtime.kb.wait()
            found = runtime.kb.verify(export)
            made = [entry.op for entry in runtime.kb.log()]  # with a fit wherever it was done in time
            assert len([op for op in made if op != "fit"]) == 12 and found.edits == len(made)
            assert found.snapshot == 3 and found.replayed == len(made) - 1 - made[::-1].index("compact")
        one = next((bundle / "generations").glob("[0-9]")) / "history.jsonl"
        lines = one.read_bytes().splitlines(keepends=True)
        one.write_bytes(b"".join(lines[:-1]))
        with pytest.raises(BundleIntegrityError):
            Runtime.open(bundle)

    def test_replaying_on_another_export_is_refused(self, bundle: Path, tmp_path: Path) -> None:
        other = build_tiny_bundle(tmp_path / "other", seed=5)
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("jazz", "a")
            with pytest.raises(UsageError, match="another bundle"):
                runtime.kb.verify(other)

    def test_operations_on_exports_refuse_edits(self, bundle: Path) -> None:
        KnowledgeStore(Bundle.open(bundle)).refuse_edits("compact")
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("jazz", "a")
        with pytest.raises(UsageError, match="1 edits"):
            KnowledgeStore(Bundle.open(bundle)).refuse_edits("compact")

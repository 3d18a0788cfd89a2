"""Edits seen by others: streams, gates, other processes, and devices that ask for a signature."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from support.command_line import finish, spawn_python
from support.tiny_bundle import build_tiny_bundle, reseal

from reaugkd import BundleIntegrityError, Runtime, UsageError
from reaugkd.kb.edits import head
from reaugkd.kb.storage.ed25519 import new_key_pair, read_private_key
from reaugkd.runtime.editing.sign import sign_bundle


class TestOthers:
    def test_a_stream_takes_edits_in(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime, Runtime.open(bundle, threads=2) as editor:
            answers = runtime.predict_many("jazz at noon" for _ in range(3))
            first = next(answers)
            label = next(label for label in "abc" if label != first.label)
            editor.kb.add("jazz at noon", label)
            assert next(answers).label == label
            editor.kb.compact()
            assert next(answers).label == label
            assert [answer.label for answer in editor.predict_many(["jazz at noon"] * 20)] == [label] * 20

    def test_a_gate_gives_way_to_edits(self, tmp_path: Path) -> None:
        bundle = build_tiny_bundle(tmp_path / "bundle")
        gate = {"threshold": 0.0, "epsilon": 0.1, "delta": 0.05, "rows": 10, "losses": 0, "retrieved": 0.0}
        reseal(bundle, gate=gate)
        with Runtime.open(bundle, retrieval="gated") as runtime:
            assert not runtime.predict("jazz").retrieved
            runtime.kb.add("jazz", "c")
            assert runtime.predict("jazz").label == "c" and runtime.predict("noon").retrieved

    def test_many_processes_edit_and_read_at_once(self, bundle: Path) -> None:
        """No edit is lost or repeated, and every prediction comes from a committed state."""
        script = (
            "import sys\n"
            "from reaugkd import Runtime, UsageError\n"
            "with Runtime.open(sys.argv[1]) as runtime:\n"
            "    for turn in range(8):\n"
            "        runtime.kb.add(f'jazz {sys.argv[2]} {turn}', 'abc'[turn % 3], who=sys.argv[2], wait=60)\n"
            "        if turn == 5:\n"
            "            try: runtime.kb.compact(who=sys.argv[2], wait=60)\n"
            "            except UsageError as error: assert 'nothing to compact' in str(error)\n"
            "        print(runtime.predict('jazz at noon').label)\n"
        )
        processes = [spawn_python(script, bundle, name) for name in ("one", "two", "three")]
        over = threading.Event()
        faults: list[object] = []

        def read() -> None:
            with Runtime.open(bundle) as runtime:
                size = 120
                while not over.is_set():
                    try:
                        answer, rows = runtime.predict("jazz at noon"), len(runtime.knowledge_base)
                        if not (answer.retrieved and answer.label in "abc" and rows >= size):
                            faults.append((answer, rows, size))
                        size = rows
                    except Exception as error:
                        faults.append(error)
                        raise

        reader = threading.Thread(target=read)
        reader.start()
        done = [finish(process) for process in processes]
        over.set()
        reader.join()
        assert [called.code for called in done] == [0, 0, 0], done
        assert faults == []
        with Runtime.open(bundle) as runtime:
            entries = runtime.kb.log()
            assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
            folds = [entry for entry in entries if entry.op == "compact"]
            assert len(entries) == 24 + len(folds) and 1 <= len(folds) <= 3
            texts = {runtime.knowledge_base.text(row) for row in range(120, 144)}
            assert texts == {f"jazz {name} {turn}" for name in ("one", "two", "three") for turn in range(8)}

    def test_a_timeout_of_the_lock_is_an_error(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime, head.write_lock(bundle, 0):
            with pytest.raises(UsageError, match="another edit of the knowledge base is running"):
                runtime.kb.add("jazz", "a", wait=0.05)
            assert runtime.predict("jazz").retrieved


class TestSigned:
    def test_a_device_takes_only_its_owners_edits(self, bundle: Path, tmp_path: Path) -> None:
        new_key_pair(tmp_path / "owner.pem")
        new_key_pair(tmp_path / "other.pem")
        owner, public = read_private_key(tmp_path / "owner.pem"), tmp_path / "owner.pub.pem"
        sign_bundle(bundle, owner)
        with Runtime.open(bundle, require_signature=public) as device:
            with pytest.raises(UsageError, match="must be signed"):
                device.kb.add("jazz", "a")
            with pytest.raises(UsageError, match="must be signed"):
                device.kb.add("jazz", "a", key=read_private_key(tmp_path / "other.pem"))
            device.kb.add("jazz", "a", key=owner)
            device.kb.compact(key=owner)
            device.kb.add("noon", "b", key=owner)
            assert device.predict("noon").label == "b"
        with Runtime.open(bundle, require_signature=public) as device:
            assert device.predict("jazz").label == "a"
            with Runtime.open(bundle) as anybody:
                with pytest.raises(UsageError, match="unsigned"):
                    anybody.kb.add("night", "c")
                anybody.kb.add("night", "c", unsigned=True)
                assert anybody.predict("night").label == "c"
            with pytest.raises(BundleIntegrityError, match="not signed"):
                device.predict("night")
        with pytest.raises(BundleIntegrityError, match="not signed"):
            Runtime.open(bundle, require_signature=public)

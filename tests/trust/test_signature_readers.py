"""Every reader of a bundle can ask for a signature."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support.command_line import finish, labelled_rows, ok, refused, spawn_python
from support.short_bench import short_bench

from reaugkd import BundleIntegrityError, DependencyError, Runtime
from reaugkd.benchmarks.sweep.sweep import sweep
from reaugkd.kb.storage import ed25519 as module
from reaugkd.kb.storage.ed25519 import PublicKey, Signature, read_public_key, verify_signature
from reaugkd.runtime.benchmark.bench import bench
from reaugkd.runtime.bundle.signature import CONTEXT

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


class TestCommands:
    @pytest.mark.parametrize("command", ["predict", "eval", "bench", "inspect"])
    @pytest.mark.slow
    def test_every_reader_can_ask_for_a_signature(
        self, signed: Path, edge_bundle: Path, keys: Path, tmp_path: Path, command: str
    ) -> None:
        given: list[object] = {
            "predict": ["noon"],
            "eval": ["--data", labelled_rows(tmp_path / "rows.jsonl"), "--split", "all"],
            "bench": ["--seconds", "0.05", "--processes", "1"],
            "inspect": [],
        }[command]
        with short_bench():
            ok(command, signed, *given, "--require-signature", keys / "mine.pub.pem")
        assert "signed by another key" in refused(
            command, signed, *given, "--require-signature", keys / "other.pub.pem"
        )
        assert "is not signed" in refused(command, edge_bundle, *given, "--require-signature", keys / "mine.pub.pem")
        assert "a private key" in refused(command, signed, *given, "--require-signature", keys / "mine.pem")

    def test_inspect_claims_nothing_without_a_key(self, signed: Path, edge_bundle: Path, keys: Path) -> None:
        key_id = read_public_key(keys / "mine.pub.pem").key_id
        assert "signature  none\n" in ok("inspect", edge_bundle).out
        assert f"signature  names key {key_id}; not checked without" in ok("inspect", signed).out
        asked = ok("inspect", signed, "--require-signature", keys / "mine.pub.pem").out
        assert f"signature  checked, by key {key_id}\n" in asked


@pytest.mark.parametrize("measure", [bench, sweep])
def test_measuring_opens_the_bundle_under_the_same_condition(signed: Path, keys: Path, measure: Any) -> None:
    with pytest.raises(BundleIntegrityError, match="another key"):
        measure(signed, require_signature=read_public_key(keys / "other.pub.pem"))


def test_the_processes_of_bench_require_it_too(signed: Path, keys: Path) -> None:
    from reaugkd import ReaugkdError
    from reaugkd.runtime.benchmark.cold_start import measure_process

    orders = {
        "kind": "runtime",
        "path": str(signed),
        "threads": 1,
        "retrieval": "always",
        "search": "auto",
        "follow_links": False,
        "texts": ["noon"],
    }
    mine, other = (read_public_key(keys / f"{name}.pub.pem").raw.hex() for name in ("mine", "other"))
    assert measure_process({**orders, "signer": mine})["open_ms"]
    with pytest.raises(ReaugkdError, match="signed by another key"):
        measure_process({**orders, "signer": other})


def test_without_the_library_the_error_has_a_remedy(signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.startswith("cryptography.hazmat.primitives"):
            monkeypatch.setitem(sys.modules, name, None)
    for call in (
        ["sign", "--new-key", keys / "none.pem"],
        ["sign", signed, "--key", keys / "mine.pem"],
        ["predict", signed, "noon", "--require-signature", keys / "mine.pub.pem"],
    ):
        assert "pip install 'reaugkd[sign]'" in refused(*call)
    with pytest.raises(DependencyError):
        key = PublicKey(bytes(32))
        verify_signature(b"", Signature(key.key_id, b""), key, context=CONTEXT, path=signed)
    Runtime.open(signed).close()


def test_the_library_is_loaded_only_when_a_key_is_given(signed: Path) -> None:
    script = "import sys; from reaugkd import Runtime; Runtime.open(sys.argv[1]).predict('noon'); print(*sys.modules)"
    done = finish(spawn_python(script, signed))
    assert done.code == 0, done.err
    loaded = set(done.out.split())
    assert module.__name__ in loaded and not any(name.startswith("cryptography") for name in loaded)

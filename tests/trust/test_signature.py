"""Signed bundles: only signed content opens. Compared with the library itself, byte for byte."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import shutil
import stat
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from support.command_line import finish, labelled_rows, ok, refused, spawn_python
from support.tiny_bundle import reseal

from reaugkd import BundleIntegrityError, DependencyError, OutputExistsError, Runtime, StorageError, UsageError
from reaugkd.benchmarks.sweep.sweep import sweep
from reaugkd.kb.storage import ed25519 as module
from reaugkd.kb.storage.ed25519 import (
    PublicKey,
    Signature,
    new_key_pair,
    read_private_key,
    read_public_key,
    sign,
    verify_signature,
)
from reaugkd.runtime.benchmark.bench import bench
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.bundle.manifest import MANIFEST_FILE, SIGNATURE_FILE
from reaugkd.runtime.bundle.signature import CONTEXT, check_signature
from reaugkd.runtime.editing.sign import sign_bundle

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519

DOMAIN = b"reaugkd bundle manifest v1\0"
PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
SPKI, PLAIN = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.NoEncryption()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with mine.pem, mine.pub.pem, other.pem and other.pub.pem."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        ok("sign", "--new-key", folder / f"{name}.pem")
    return folder


@pytest.fixture
def signed(edge_bundle: Path, keys: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copytree(edge_bundle, tmp_path / "bundle"))
    ok("sign", path, "--key", keys / "mine.pem")
    return path


class TestTheFormat:
    """The format of the signature, checked without reaugkd's code."""

    def test_the_library_verifies_our_signatures(self, signed: Path, keys: Path) -> None:
        public = serialization.load_pem_public_key((keys / "mine.pub.pem").read_bytes())
        assert isinstance(public, ed25519.Ed25519PublicKey)
        content = json.loads((signed / "manifest.sig").read_bytes())
        assert list(content) == ["version", "algorithm", "key", "signature"]
        assert (content["version"], content["algorithm"]) == (1, "ed25519")
        assert content["key"] == hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]
        message = DOMAIN + (signed / "manifest.json").read_bytes()
        public.verify(base64.b64decode(content["signature"]), message)  # or it raises

    def test_we_verify_the_librarys_signatures(self, signed: Path, tmp_path: Path) -> None:
        key = ed25519.Ed25519PrivateKey.generate()
        raw = key.public_key().public_bytes_raw()
        value = base64.b64encode(key.sign(DOMAIN + (signed / "manifest.json").read_bytes())).decode()
        name = hashlib.sha256(raw).hexdigest()[:16]
        content = {"version": 1, "algorithm": "ed25519", "key": name, "signature": value}
        (signed / "manifest.sig").write_text(json.dumps(content) + "\n")
        pem = key.public_key().public_bytes(PEM, SPKI)
        with Runtime.open(signed, require_signature=pem) as runtime:
            assert runtime.predict("noon").label

    def test_rfc_8032s_first_key(self) -> None:
        """Section 7.1, test 1: its public key, and the deterministic signature of an empty message."""
        secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
        key = ed25519.Ed25519PrivateKey.from_private_bytes(secret)
        mine = read_private_key(key.private_bytes(PEM, PKCS8, PLAIN))
        assert mine.public.raw.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        made = sign(b"", mine, context=b"kind")
        assert made.value == key.sign(b"kind\0") and made == sign(b"", mine, context=b"kind")

    def test_a_context_keeps_kinds_of_messages_apart(self, keys: Path, tmp_path: Path) -> None:
        key = read_private_key(keys / "mine.pem")
        made = sign(b"message", key, context=b"one")
        verify_signature(b"message", made, key.public, context=b"one", path=tmp_path)
        for message, context in ((b"message", b"two"), (b"massage", b"one"), (b"e\0message", b"on"), (b"", b"one")):
            with pytest.raises(BundleIntegrityError, match="differs from the one that was signed"):
                verify_signature(message, made, key.public, context=context, path=tmp_path)
        for context in (b"", b"one\0", b"o\0ne"):
            with pytest.raises(ValueError, match="not a valid context"):
                sign(b"message", key, context=context)


class TestOpening:
    def test_a_signed_bundle_opens_by_path_by_bytes_and_without(self, signed: Path, keys: Path) -> None:
        public = keys / "mine.pub.pem"
        answers = []
        for key in (public, str(public), public.read_bytes(), read_public_key(public), None):
            with Runtime.open(signed, require_signature=key) as runtime:
                answers.append(runtime.predict("noon"))
        assert answers == [answers[0]] * 5

    def test_an_unsigned_bundle_is_refused(self, edge_bundle: Path, keys: Path) -> None:
        with pytest.raises(BundleIntegrityError, match="the bundle is not signed") as caught:
            Runtime.open(edge_bundle, require_signature=keys / "mine.pub.pem")
        assert caught.value.path == str(edge_bundle / SIGNATURE_FILE)
        assert caught.value.remedy is not None and "reaugkd sign" in caught.value.remedy

    def test_a_foreign_signature_is_refused_also_under_the_right_name(self, signed: Path, keys: Path) -> None:
        ok("sign", signed, "--key", keys / "other.pem")  # replaces the older one
        mine, other = (read_public_key(keys / f"{name}.pub.pem") for name in ("mine", "other"))
        Bundle.open(signed, require_signature=other)
        with pytest.raises(BundleIntegrityError, match="signed by another key") as caught:
            Bundle.open(signed, require_signature=mine)
        assert caught.value.path == str(signed / MANIFEST_FILE)
        assert (caught.value.found, caught.value.expected) == (f"key {other.key_id}", f"key {mine.key_id}")
        file = signed / SIGNATURE_FILE
        file.write_bytes(file.read_bytes().replace(other.key_id.encode(), mine.key_id.encode()))
        with pytest.raises(BundleIntegrityError, match="differs from the one that was signed"):
            Bundle.open(signed, require_signature=mine)

    def test_an_altered_manifest_is_refused_though_it_is_sealed_again(self, signed: Path, keys: Path) -> None:
        (signed / "student" / "config.json").write_text("{}\n")
        reseal(signed, pooling="cls")
        Bundle.open(signed)  # whole in itself
        with pytest.raises(BundleIntegrityError, match="differs from the one that was signed") as caught:
            Runtime.open(signed, require_signature=keys / "mine.pub.pem")
        assert caught.value.path == str(signed / MANIFEST_FILE)
        assert caught.value.remedy is not None and "reaugkd sign" in caught.value.remedy

    def test_an_altered_file_is_refused(self, signed: Path, keys: Path) -> None:
        file = signed / "kb" / "texts.jsonl"
        file.write_bytes(file.read_bytes().swapcase())
        with pytest.raises(BundleIntegrityError, match="the file was altered"):
            Runtime.open(signed, require_signature=keys / "mine.pub.pem")

    def test_no_byte_of_the_signature_can_be_another(self, signed: Path, keys: Path) -> None:
        """Also bytes that JSON and base64 readers ignore."""
        key, manifest = read_public_key(keys / "mine.pub.pem"), (signed / MANIFEST_FILE).read_bytes()
        file = signed / SIGNATURE_FILE
        content = file.read_bytes()
        check_signature(signed, manifest, key)
        for at, bit in product(range(len(content)), range(8)):
            changed = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
            with pytest.raises(BundleIntegrityError):
                verify_signature(manifest, Signature.from_bytes(changed, file), key, context=CONTEXT, path=file)
            if bit == at % 8:
                file.write_bytes(changed)
                with pytest.raises(BundleIntegrityError):
                    check_signature(signed, manifest, key)

    @pytest.mark.parametrize("harm", ["empty", "short", "long", "other order", "spaces", "null", "folder"])
    def test_a_damaged_signature_is_named(self, signed: Path, keys: Path, harm: str) -> None:
        file = signed / SIGNATURE_FILE
        content = file.read_bytes()
        turned = dict(reversed(json.loads(content).items()))
        harmed = {
            "empty": b"",
            "short": content[:-1],
            "long": content + b"\n",
            "other order": json.dumps(turned).encode() + b"\n",
            "spaces": content.replace(b": ", b":  "),
            "null": b"null\n",
        }
        file.unlink()
        file.mkdir() if harm == "folder" else file.write_bytes(harmed[harm])
        with pytest.raises(BundleIntegrityError) as caught:
            Runtime.open(signed, require_signature=keys / "mine.pub.pem")
        assert caught.value.path == str(file)
        assert "signature: " not in str(caught.value) and caught.value.found is not None
        Runtime.open(signed).close()  # where none is asked for, none is looked at
        assert "signature  the signature " in ok("inspect", signed).out

    def test_the_bytes_that_are_verified_are_those_that_are_used(
        self, signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A manifest replaced between two reads must not be used."""
        read, reads = Path.read_bytes, []

        def exchanged(self: Path) -> bytes:
            content = read(self)
            if self.name == MANIFEST_FILE:
                reads.append(self)
                if len(reads) > 1:
                    return content.replace(b'"mean"', b'"evil"')
            return content

        key = read_public_key(keys / "mine.pub.pem")
        monkeypatch.setattr(Path, "read_bytes", exchanged)
        bundle = Bundle.open(signed, require_signature=key)
        assert len(reads) == 1 and bundle.manifest.pooling == "mean"
        assert bundle.content == read(signed / MANIFEST_FILE)

    def test_it_requires_the_hashes(self, signed: Path, keys: Path) -> None:
        key = keys / "mine.pub.pem"
        for call in (
            lambda: Runtime.open(signed, verify=False, require_signature=key),
            lambda: Bundle.open(signed, verify=False, require_signature=read_public_key(key)),
        ):
            with pytest.raises(UsageError, match="without a check of the files"):
                call()

    def test_copies_and_children_ask_for_the_same_key(
        self, signed: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        public = Path(shutil.copy(keys / "mine.pub.pem", tmp_path / "key.pem"))
        with Runtime.open(signed, require_signature=public) as runtime:
            content, expected = pickle.dumps(runtime), runtime.predict("noon")
            public.unlink()  # it was read once
            with pickle.loads(content) as again:
                assert again.predict("noon") == expected
            ok("sign", signed, "--key", keys / "other.pem")
            with pytest.raises(BundleIntegrityError, match="another key"):
                pickle.loads(content)
            monkeypatch.setattr(os, "getpid", lambda: -1)  # as if forked
            with pytest.raises(BundleIntegrityError, match="another key"):
                runtime.predict("noon")


class TestSigning:
    def test_sealing_again_leaves_the_signature_alone(self, signed: Path, keys: Path) -> None:
        before = (signed / SIGNATURE_FILE).read_bytes()
        reseal(signed)
        assert SIGNATURE_FILE not in Bundle.open(signed).manifest.files
        assert (signed / SIGNATURE_FILE).read_bytes() == before
        Bundle.open(signed, require_signature=read_public_key(keys / "mine.pub.pem"))  # the same bytes as before

    def test_a_damaged_bundle_is_not_signed(self, signed: Path, keys: Path) -> None:
        before = (signed / SIGNATURE_FILE).read_bytes()
        with (signed / "kb" / "rows.npy").open("r+b") as file:
            file.write(b"x")
        assert "rows.npy: the file was altered" in refused("sign", signed, "--key", keys / "other.pem")
        assert (signed / SIGNATURE_FILE).read_bytes() == before

    def test_a_disk_that_refuses_leaves_the_older_signature(
        self, signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = (signed / SIGNATURE_FILE).read_bytes()

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StorageError):
            sign_bundle(signed, read_private_key(keys / "other.pem"))
        assert (signed / SIGNATURE_FILE).read_bytes() == before
        assert {file.name for file in signed.iterdir()} == {MANIFEST_FILE, SIGNATURE_FILE, "kb", "student"}

    @pytest.mark.parametrize("given", [[], ["BUNDLE"], ["--key", "k"], ["BUNDLE", "--new-key", "k"]])
    def test_conflicting_arguments_are_refused(self, given: list[str]) -> None:
        assert "either BUNDLE and --key, or --new-key alone" in refused("sign", *given)


class TestKeys:
    def test_a_new_key_is_its_owners_alone(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            public, file = new_key_pair(tmp_path / "my.key.pem")
        finally:
            os.umask(before)
        assert file == tmp_path / "my.key.pub.pem" and read_public_key(file) == public
        assert read_private_key(tmp_path / "my.key.pem").public == public
        if sys.platform != "win32":
            assert stat.S_IMODE((tmp_path / "my.key.pem").stat().st_mode) == 0o600
        assert new_key_pair(tmp_path / "bare")[1] == tmp_path / "bare.pub.pem"
        assert "secret" in ok("sign", "--new-key", tmp_path / "third.pem").err

    @pytest.mark.parametrize("taken", ["key.pem", "key.pub.pem"])
    def test_nothing_is_overwritten(self, tmp_path: Path, taken: str) -> None:
        (tmp_path / taken).write_text("mine")
        with pytest.raises(OutputExistsError, match="key"):
            new_key_pair(tmp_path / "key.pem")
        assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(taken, "mine")]

    def test_a_key_that_cannot_be_written_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(StorageError, match="the key cannot be written"):
            new_key_pair(tmp_path / "nowhere" / "key.pem")
        synced, fsync = [], os.fsync

        def full(descriptor: int) -> None:
            synced.append(descriptor)
            if len(synced) > 1:  # of the public key
                raise OSError(28, "No space left on device")
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StorageError):
            new_key_pair(tmp_path / "key.pem")
        assert synced and list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("make", "kind"),
        [
            (lambda: rsa.generate_private_key(65537, 2048), "RSA"),
            (x25519.X25519PrivateKey.generate, "X25519"),
            (ed448.Ed448PrivateKey.generate, "Ed448"),
            (lambda: ec.generate_private_key(ec.SECP256R1()), "EllipticCurve|EC"),
        ],
    )
    def test_keys_of_another_kind_are_refused_in_words(self, tmp_path: Path, make: Any, kind: str) -> None:
        key = make()
        (tmp_path / "key.pem").write_bytes(key.private_bytes(PEM, PKCS8, PLAIN))
        (tmp_path / "pub.pem").write_bytes(key.public_key().public_bytes(PEM, SPKI))
        for read, name in ((read_private_key, "key.pem"), (read_public_key, "pub.pem")):
            with pytest.raises(UsageError, match=rf"another kind, .*({kind}).*expected an Ed25519") as caught:
                read(tmp_path / name)
            assert caught.value.path == str(tmp_path / name)

    def test_other_files_than_keys_are_refused(self, keys: Path, tmp_path: Path) -> None:
        secret = ed25519.Ed25519PrivateKey.generate()
        locked = secret.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"password"))
        mine = (keys / "mine.pem").read_bytes()
        for content in (b"", b"key", b"\xff" * 90, mine[:70], mine.replace(b"M", b"-"), locked):
            for read in (read_private_key, read_public_key):
                with pytest.raises(UsageError, match="the key is unusable"):
                    read(content)
        with pytest.raises(UsageError, match="a private key; expected a public key"):
            read_public_key(keys / "mine.pem")
        with pytest.raises(UsageError, match="the key is unusable"):
            read_private_key(keys / "mine.pub.pem")
        for path in (tmp_path, tmp_path / "nowhere", tmp_path / "a\0b"):
            with pytest.raises(UsageError, match="the key cannot be read"):
                read_public_key(path)

    def test_a_private_key_is_not_shown(self, keys: Path) -> None:
        key = read_private_key(keys / "mine.pem")
        assert repr(key) == f"PrivateKey(public={key.public!r})"


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

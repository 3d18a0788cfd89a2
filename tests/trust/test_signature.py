"""Signed bundles: only signed content opens. Compared with the library itself, byte for byte."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import shutil
from itertools import product
from pathlib import Path

import pytest
from support.command_line import ok
from support.tiny_bundle import reseal

from reaugkd import BundleIntegrityError, Runtime, UsageError
from reaugkd.kb.storage.ed25519 import Signature, read_private_key, read_public_key, sign, verify_signature
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.bundle.manifest import MANIFEST_FILE, SIGNATURE_FILE
from reaugkd.runtime.bundle.signature import CONTEXT, check_signature

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

DOMAIN = b"reaugkd bundle manifest v1\0"
PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
SPKI, PLAIN = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.NoEncryption()


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

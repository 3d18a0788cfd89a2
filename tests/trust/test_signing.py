"""Bundles are signed, and keys made and read."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command_line import ok, refused
from support.tiny_bundle import reseal

from reaugkd import OutputExistsError, StorageError, UsageError
from reaugkd.kb.storage.ed25519 import new_key_pair, read_private_key, read_public_key
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.bundle.manifest import MANIFEST_FILE, SIGNATURE_FILE
from reaugkd.runtime.editing.sign import sign_bundle

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
SPKI, PLAIN = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.NoEncryption()


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

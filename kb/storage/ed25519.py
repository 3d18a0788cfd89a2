"""Ed25519 signatures (RFC 8032), which prove who made a file.

The signed bytes are ``context``, a zero byte, and the message. The context names the kind of message, so that a
signature of one kind is not valid for another (domain separation). A signature is a small JSON file with one valid
form; any other byte is refused. Keys are files in OpenSSL's formats: PKCS#8 and SubjectPublicKeyInfo, in PEM.

The library ``cryptography`` computes the signatures; it is imported when a key is read.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ...errors import BundleIntegrityError, DependencyError, StorageError, UsageError
from .atomic import atomic_write, refuse_existing

ALGORITHM = "ed25519"
VERSION = 1
_FORM = re.compile(
    rb'\{"version": 1, "algorithm": "ed25519", "key": "([0-9a-f]{16})", "signature": "([A-Za-z0-9+/]{86}==)"\}\n'
)


@dataclass(frozen=True)
class PublicKey:
    """A public key, which checks signatures.

    Attributes:
        raw: its 32 bytes.
    """

    raw: bytes

    @property
    def key_id(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of ``raw``; a name, not a proof."""
        return hashlib.sha256(self.raw).hexdigest()[:16]


@dataclass(frozen=True)
class PrivateKey:
    """A private key, which makes signatures.

    Attributes:
        public: its public key.
    """

    public: PublicKey
    _key: Any = field(repr=False)


@dataclass(frozen=True)
class Signature:
    """A signature and the name of its key.

    Attributes:
        key_id: same as `PublicKey.key_id`.
        value: its 64 bytes.
    """

    key_id: str
    value: bytes

    def to_bytes(self) -> bytes:
        """The signature's file."""
        value = base64.b64encode(self.value).decode()
        return (
            json.dumps({"version": VERSION, "algorithm": ALGORITHM, "key": self.key_id, "signature": value}) + "\n"
        ).encode()

    @classmethod
    def from_bytes(cls, content: bytes, path: Path) -> Signature:
        """Read the bytes of `to_bytes`.

        Args:
            content: the file's bytes.
            path: the file, for messages.

        Raises:
            BundleIntegrityError: the bytes differ from that form.
        """
        found = _FORM.fullmatch(content)
        signature = None if found is None else cls(found[1].decode(), base64.b64decode(found[2]))
        # Base64 can encode the last byte in several ways: accept one.
        if signature is None or signature.to_bytes() != content:
            raise BundleIntegrityError(
                "the signature is damaged",
                path=path,
                found=f"{len(content)} bytes that are not a signature",
                expected=f"a signature of version {VERSION}, {ALGORITHM}",
                remedy="Copy it again from where it was signed, or sign again.",
            )
        return signature


def sign(message: bytes, key: PrivateKey, *, context: bytes) -> Signature:
    """Sign a message.

    Args:
        message: any bytes.
        key: the private key.
        context: the kind of message; not empty, without zero bytes.

    Raises:
        ValueError: the context is empty or has zero bytes.
    """
    return Signature(key.public.key_id, key._key.sign(_separated(message, context)))


def verify_signature(message: bytes, signature: Signature, key: PublicKey, *, context: bytes, path: Path) -> None:
    """Prove that the owner of ``key`` signed this message as one of this kind.

    Args:
        message: the bytes that are used afterwards.
        signature: the signature of the message.
        key: the key of the required author.
        context: same as `sign`.
        path: the signed file, for messages.

    Raises:
        BundleIntegrityError: the signature is of another key, another message or another kind.
        DependencyError: the library ``cryptography`` is missing.
    """
    if signature.key_id != key.key_id:
        raise BundleIntegrityError(
            "the file is signed by another key",
            path=path,
            found=f"key {signature.key_id}",
            expected=f"key {key.key_id}",
            remedy="Give the signer's public key if you trust it, or get the file from a source that you trust.",
        )
    public = _library("asymmetric.ed25519").Ed25519PublicKey.from_public_bytes(key.raw)
    try:
        public.verify(signature.value, _separated(message, context))
    except importlib.import_module("cryptography.exceptions").InvalidSignature:
        raise BundleIntegrityError(
            "the file differs from the one that was signed",
            path=path,
            found=f"bytes that key {key.key_id} did not sign",
            expected="the file as it was signed",
            remedy="Get it again from a source that you trust; if you changed it yourself, run `reaugkd sign` again.",
        ) from None


def read_public_key(source: PublicKey | bytes | str | os.PathLike[str]) -> PublicKey:
    """Read a public key.

    Args:
        source: the path of a PEM file, its bytes, or a key read before.

    Raises:
        UsageError: the key cannot be read, or is no Ed25519 public key.
        DependencyError: the library ``cryptography`` is missing.
    """
    if isinstance(source, PublicKey):
        return source
    serialization = _library("serialization")
    content, path = _pem(source)
    if b"PRIVATE KEY-----" in content:
        _refuse(path, "a private key", "a public key (KEY.pub.pem)", "Keep the private key where bundles are signed.")
    try:
        key = serialization.load_pem_public_key(content)
    except Exception as error:  # errors of the library, ValueError and TypeError
        _refuse(path, _first_line(error), "an Ed25519 public key in PEM", "`reaugkd sign --new-key KEY.pem` makes one.")
    if not isinstance(key, _library("asymmetric.ed25519").Ed25519PublicKey):
        _refuse(path, _kind(key), "an Ed25519 public key", "`reaugkd sign --new-key KEY.pem` makes one.")
    return _public(key)


def read_private_key(source: bytes | str | os.PathLike[str]) -> PrivateKey:
    """Read a private key.

    Args:
        source: the path of a PEM file (PKCS#8, not encrypted), or its bytes.

    Raises:
        UsageError: the key cannot be read, or is no Ed25519 private key.
        DependencyError: the library ``cryptography`` is missing.
    """
    serialization = _library("serialization")
    content, path = _pem(source)
    expected, remedy = "an Ed25519 private key in PEM, not encrypted", "`reaugkd sign --new-key KEY.pem` makes one."
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except Exception as error:  # errors of the library, ValueError and TypeError
        _refuse(path, _first_line(error), expected, remedy)
    if not isinstance(key, _library("asymmetric.ed25519").Ed25519PrivateKey):
        _refuse(path, _kind(key), expected, remedy)
    return PrivateKey(_public(key.public_key()), key)


def new_key_pair(path: Path) -> tuple[PublicKey, Path]:
    """Create a key pair: the private key at ``path``, readable by its owner only, and beside it ``NAME.pub.pem``.

    Returns:
        The public key, and its file.

    Raises:
        OutputExistsError: one of the two files exists.
        StorageError: the file cannot be written; neither file is left.
        DependencyError: the library ``cryptography`` is missing.
    """  # noqa: DOC501
    key = _library("asymmetric.ed25519").Ed25519PrivateKey.generate()
    of = _library("serialization")
    private = key.private_bytes(of.Encoding.PEM, of.PrivateFormat.PKCS8, of.NoEncryption())
    public = key.public_key().public_bytes(of.Encoding.PEM, of.PublicFormat.SubjectPublicKeyInfo)
    other = path.with_name(f"{path.name.removesuffix('.pem')}.pub.pem")
    for file in (path, other):
        refuse_existing(file)
    try:
        # Not `atomic_write`: others must never be able to read the secret, not even for a moment.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(private)
            out.flush()
            os.fsync(out.fileno())
        with atomic_write(other, "wb") as out:
            out.write(public)
    except BaseException as error:
        with suppress(OSError):
            path.unlink()
        if isinstance(error, OSError):
            raise _not_written(path, error) from error
        raise
    return _public(key.public_key()), other


def _separated(message: bytes, context: bytes) -> bytes:
    if not context or b"\0" in context:  # otherwise two contexts could give the same bytes
        raise ValueError(f"{context!r} is not a valid context of a signature")
    return context + b"\0" + message


def _public(key: Any) -> PublicKey:
    return PublicKey(key.public_bytes_raw())


def _pem(source: bytes | str | os.PathLike[str]) -> tuple[bytes, Path | None]:
    if isinstance(source, bytes):
        return source, None
    path = Path(source)
    try:
        return path.read_bytes(), path
    except (OSError, ValueError) as error:  # ValueError: an impossible file name
        found = getattr(error, "strerror", None) or str(error)
        raise UsageError("the key cannot be read", path=path, found=found, expected="a key in PEM") from error


def _refuse(path: Path | None, found: str, expected: str, remedy: str) -> NoReturn:
    raise UsageError("the key is unusable", path=path, found=found, expected=expected, remedy=remedy)


def _kind(key: object) -> str:
    return f"a key of another kind, {type(key).__name__.lstrip('_')}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _not_written(path: Path, error: OSError) -> StorageError:
    return StorageError(
        "the key cannot be written",
        path=path,
        found=error.strerror or str(error),
        remedy="Choose an existing folder that can be written to.",
    )


def _library(name: str) -> Any:
    try:
        return importlib.import_module(f"cryptography.hazmat.primitives.{name}")
    except ImportError as error:
        raise DependencyError(
            "signatures need the library cryptography",
            found=str(error),
            remedy="Install it: pip install 'reaugkd[sign]'.",
        ) from error

"""A bundle's signature: ``manifest.sig``, of the manifest's bytes, which hold the hash of every other file."""

from __future__ import annotations

from pathlib import Path

from ...errors import BundleIntegrityError
from ...kb.storage.ed25519 import PublicKey, Signature, verify_signature
from .manifest import MANIFEST_FILE, SIGNATURE_FILE

CONTEXT = b"reaugkd bundle manifest v1"


def check_signature(folder: Path, manifest: bytes, key: PublicKey) -> None:
    """Prove that ``manifest`` was signed with the other half of ``key``.

    Args:
        folder: the bundle's.
        manifest: the bytes that are parsed afterwards; they are not read again.
        key: the one that is trusted.

    Raises:
        BundleIntegrityError: there is no signature, or a damaged one, or one of another key or of other bytes.
        DependencyError: the library ``cryptography`` is missing.
    """
    signature = read_signature(folder)
    if signature is None:
        raise BundleIntegrityError(
            "the bundle is not signed",
            path=folder / SIGNATURE_FILE,
            found="nothing",
            expected=f"a signature by key {key.key_id}",
            remedy="Get the bundle with its signature, or sign it: `reaugkd sign BUNDLE --key KEY.pem`.",
        )
    verify_signature(manifest, signature, key, context=CONTEXT, path=folder / MANIFEST_FILE)


def read_signature(folder: Path) -> Signature | None:
    """A bundle's signature, unchecked; None where it has none.

    Raises:
        BundleIntegrityError: there is a file, but no signature can be read from it.
    """
    path = folder / SIGNATURE_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleIntegrityError("the signature cannot be read", path=path, found=error.strerror) from error
    return Signature.from_bytes(content, path)

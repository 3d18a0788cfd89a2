"""The signature of a bundle: ``manifest.sig`` signs the manifest, which has the hash of every other file."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import BundleIntegrityError
from ...kb.storage.ed25519 import PublicKey, Signature, verify_signature
from .files import Links, find_file
from .manifest import MANIFEST_FILE, SIGNATURE_FILE

CONTEXT = b"reaugkd bundle manifest v1"


def check_signature(folder: Path, manifest: bytes, key: PublicKey, links: Links = "refused") -> None:
    """Check that a manifest was signed with the private key of ``key``.

    Args:
        folder: the bundle's folder.
        manifest: the manifest's bytes, which the caller then parses without reading the file again.
        key: the trusted public key.
        links: which links may lead to the signature.

    Raises:
        BundleIntegrityError: the signature is missing, damaged, made with another key or made for other bytes.
        DependencyError: the library ``cryptography`` is missing.
    """
    signature = read_signature(folder, links)
    if signature is None:
        raise BundleIntegrityError(
            "the bundle is not signed",
            path=folder / SIGNATURE_FILE,
            found="nothing",
            expected=f"a signature by key {key.key_id}",
            remedy="Get the bundle with its signature, or sign it: `reaugkd sign BUNDLE --key KEY.pem`.",
        )
    verify_signature(manifest, signature, key, context=CONTEXT, path=folder / MANIFEST_FILE)


def read_signature(folder: Path, links: Links = "followed") -> Signature | None:
    """Read the signature of a bundle without checking it; None if it has none.

    Raises:
        BundleIntegrityError: the signature file cannot be read.
        BundleError: it is a pipe or device, or a link leads to it that is not allowed.
    """
    path = folder / SIGNATURE_FILE
    if not os.path.lexists(path):
        return None
    try:
        find_file(folder, SIGNATURE_FILE, "a signature", links)  # a pipe would never end
        content = path.read_bytes()
    except (OSError, BundleIntegrityError) as error:
        found = error.strerror if isinstance(error, OSError) else error.found or error.message
        raise BundleIntegrityError("the signature cannot be read", path=path, found=found) from error
    return Signature.from_bytes(content, path)

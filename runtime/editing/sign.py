"""Signing a bundle with an Ed25519 key."""

from __future__ import annotations

from pathlib import Path

from ...errors import BundleIntegrityError, UsageError
from ...kb.storage.atomic import atomic_write
from ...kb.storage.ed25519 import PrivateKey, Signature, sign
from ..bundle.bundle import Bundle
from ..bundle.manifest import SIGNATURE_FILE
from ..bundle.signature import CONTEXT
from .store import KnowledgeStore


def sign_bundle(folder: Path, key: PrivateKey) -> Signature:
    """Check every file of a bundle and sign its manifest; replaces an older signature.

    Raises:
        BundleError: the bundle cannot be used.
        UsageError: this key did not sign all its edits, or the bundle has links.
        StorageError: the file cannot be written.
    """
    bundle = Bundle.open(folder)
    bundle.refuse_links("sign")
    try:
        KnowledgeStore(bundle, signer=key.public)
    except BundleIntegrityError as error:
        raise UsageError(
            "the bundle has edits that this key has not signed, so a signature would not make it open",
            path=folder,
            found=f"{error.message} ({error.found})",
            remedy="Sign the export before the first edit, and sign edits with the same key.",
        ) from error
    signature = sign(bundle.content, key, context=CONTEXT)
    with atomic_write(bundle.path / SIGNATURE_FILE, "wb") as out:
        out.write(signature.to_bytes())
    return signature

"""A bundle's signature: ``manifest.sig``, of the manifest's bytes, which hold the hash of every other file."""

from __future__ import annotations

from pathlib import Path

from ..errors import BundleIntegrityError, UsageError
from ..kb.files import atomic_write
from ..kb.signature import PrivateKey, PublicKey, Signature, sign, verify
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
    verify(manifest, signature, key, context=CONTEXT, path=folder / MANIFEST_FILE)


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


def sign_bundle(folder: Path, key: PrivateKey) -> Signature:
    """Check every file of a bundle and sign its manifest; an older signature is replaced.

    Raises:
        BundleError: the bundle cannot be used.
        UsageError: it has edits that are not signed by this key.
        StorageError: the disk refused.
    """
    from .bundle import Bundle  # which checks signatures by this file
    from .store import KnowledgeStore

    bundle = Bundle.open(folder)
    try:
        KnowledgeStore(bundle, signer=key.public)
    except BundleIntegrityError as error:
        raise UsageError(
            "the bundle has edits that this key has not signed, and no signature would make it open with them",
            path=folder,
            found=f"{error.message} ({error.found})",
            remedy="Sign the export before it is edited, and edits with the same key.",
        ) from error
    signature = sign(bundle.content, key, context=CONTEXT)
    with atomic_write(bundle.path / SIGNATURE_FILE, "wb") as out:
        out.write(signature.to_bytes())
    return signature
